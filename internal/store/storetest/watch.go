package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/doorward/doorward/internal/store"
)

func watch(t *testing.T, b *bench) {
	ch := b.watch(b.ctx, "a/")
	all := b.watch(b.ctx, "")
	v1 := b.put("a/1", "x", store.New)
	b.put("b/1", "x", store.New)
	v2 := b.put("a/1", "y", v1)
	if err := b.Delete(b.ctx, "a/1", v2); err != nil {
		t.Fatal(err)
	}
	v4 := b.put("a/2", "x", store.New)
	for i, want := range []store.Change{{Key: "a/1", Version: v1}, {Key: "a/1", Version: v2}, {Key: "a/1", Deleted: true}, {Key: "a/2", Version: v4}} {
		got := <-ch
		if got.Deleted {
			if got.Version <= v2 || got.Version >= v4 {
				t.Errorf("the removal has version %d, between %d and %d", got.Version, v2, v4)
			}
			got.Version = 0
		}
		if got != want {
			t.Errorf("change %d: %+v, want %+v", i, got, want)
		}
	}
	for range 5 {
		<-all
	}
}

func watchOrder(t *testing.T, b *bench) {
	ch := b.watch(b.ctx, "k")
	const n = 100 // fewer than any watcher may be behind
	b.together(n, nil, func(int) error {
		_, err := b.Put(b.ctx, store.Item{Key: "k", Version: store.Any})
		return err
	})
	last := uint64(0)
	for range n {
		c := <-ch
		if c.Lost || c.Version <= last {
			t.Fatalf("%+v after version %d", c, last)
		}
		last = c.Version
	}
}

func watchEnds(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	ch := b.watch(ctx, "")
	cancel()
	if c, open := <-ch; open {
		t.Errorf("got %+v", c)
	}
	b.put("k", "", store.New)
	if _, err := b.Watch(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("watching with an ended context: %v", err)
	}
}

func watchSlow(t *testing.T, b *bench) {
	ch := b.watch(b.ctx, "k/")
	const n = 2000
	b.together(20, nil, func(i int) error {
		for j := range n / 20 {
			if _, err := b.Put(b.ctx, store.Item{Key: fmt.Sprintf("k/%d/%d", i, j)}); err != nil {
				return err
			}
		}
		return nil
	})
	b.put("k/last", "", store.New)
	seen, lost := map[string]bool{}, false
	for !lost {
		c := <-ch
		lost = c.Lost
		seen[c.Key] = true
	}
	if len(seen) >= n {
		t.Error("nothing was dropped, so nothing was tested")
	}
	// What it reads after the notice is complete again.
	if len(b.keys("k/")) != n+1 {
		t.Error("a slow watcher cost a write")
	}
	v := b.put("k/after", "", store.New)
	for c := range ch {
		if c.Key == "k/after" && c.Version == v {
			break
		}
	}
}

func watchRefused(t *testing.T, b *bench) {
	b.put("k", "", store.New)
	ch := b.watch(b.ctx, "")
	_, err := b.Put(b.ctx, store.Item{Key: "k", Version: store.New})
	b.want(err, store.ErrConflict, "put")
	b.want(b.Delete(b.ctx, "other", store.Any), store.ErrNotFound, "delete")
	v := b.put("end", "", store.New)
	if c := <-ch; c.Key != "end" || c.Version != v {
		t.Errorf("saw %+v", c)
	}
}
