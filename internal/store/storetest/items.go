package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/store"
)

func roundTrip(t *testing.T, b *bench) {
	expires := b.clock.Now().Add(time.Hour)
	for key, value := range map[string]string{
		"a": "", "login/1": "x", "binary\x00\xff": "\x00\x01\xff", strings.Repeat("k", store.MaxKey): "long key",
		"big": strings.Repeat("v", store.MaxValue),
	} {
		v, err := b.Put(b.ctx, store.Item{Key: key, Value: []byte(value), Version: store.New, Expires: expires})
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Get(b.ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if got.Key != key || string(got.Value) != value || got.Version != v || !got.Expires.Equal(expires) {
			t.Errorf("%.20q: got key %.20q, %d bytes, version %d, expires %v", key, got.Key, len(got.Value), got.Version, got.Expires)
		}
	}
	b.put("for ever", "x", store.New)
	if got, err := b.Get(b.ctx, "for ever"); err != nil || !got.Expires.IsZero() {
		t.Errorf("an item without expiry came back with %v, %v", got.Expires, err)
	}
	_, err := b.Get(b.ctx, "nothing")
	b.want(err, store.ErrNotFound, "get of a missing key")
}

func copies(t *testing.T, b *bench) {
	value := []byte("before")
	if _, err := b.Put(b.ctx, store.Item{Key: "k", Value: value}); err != nil {
		t.Fatal(err)
	}
	copy(value, "spoilt")
	got, _ := b.Get(b.ctx, "k")
	copy(got.Value, "spoilt")
	for item := range b.List(b.ctx, "k") {
		copy(item.Value, "spoilt")
	}
	if got, _ := b.Get(b.ctx, "k"); string(got.Value) != "before" {
		t.Errorf("the stored value became %q", got.Value)
	}
}

func swapTable(t *testing.T, b *bench) {
	put := func(key string, version uint64) error {
		_, err := b.Put(b.ctx, store.Item{Key: key, Version: version})
		return err
	}
	b.want(put("absent", 7), store.ErrConflict, "put of an exact version where nothing is")
	b.want(put("absent", store.New), nil, "put New where nothing is")
	b.want(put("absent", store.New), store.ErrConflict, "put New where something is")
	b.want(put("any", store.Any), nil, "put Any where nothing is")
	b.want(put("any", store.Any), nil, "put Any where something is")

	v1 := b.put("k", "1", store.New)
	v2 := b.put("k", "2", v1)
	b.want(put("k", v1), store.ErrConflict, "put of an old version")
	b.want(b.Delete(b.ctx, "k", v1), store.ErrConflict, "delete of an old version")
	b.want(b.Delete(b.ctx, "k", store.New), store.ErrConflict, "delete of version New")
	b.want(b.Delete(b.ctx, "k", v2), nil, "delete of the version that is there")
	b.want(b.Delete(b.ctx, "k", v2), store.ErrNotFound, "second delete")
	b.want(b.Delete(b.ctx, "k", store.Any), store.ErrNotFound, "delete Any where nothing is")
	b.want(b.Delete(b.ctx, "any", store.Any), nil, "delete Any where something is")
	b.want(put("k", v2), store.ErrConflict, "put of a removed version")
}

// together runs do n times at once and returns how often it returned nil. Any
// error but the expected one fails the test.
func (b *bench) together(n int, expected error, do func(i int) error) int {
	b.Helper()
	var wins atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			switch err := do(i); {
			case err == nil:
				wins.Add(1)
			case expected == nil || !errors.Is(err, expected):
				b.Errorf("racer %d: %v", i, err)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(wins.Load())
}

func createRace(t *testing.T, b *bench) {
	wins := b.together(64, store.ErrConflict, func(i int) error {
		_, err := b.Put(b.ctx, store.Item{Key: "k", Value: fmt.Append(nil, i), Version: store.New})
		return err
	})
	if wins != 1 {
		t.Errorf("%d creators won", wins)
	}
}

func swapRace(t *testing.T, b *bench) {
	version := b.put("k", "", store.New)
	for round := range 5 {
		var won atomic.Uint64
		wins := b.together(32, store.ErrConflict, func(i int) error {
			v, err := b.Put(b.ctx, store.Item{Key: "k", Value: fmt.Append(nil, i), Version: version})
			if err == nil {
				won.Store(v)
			}
			return err
		})
		got, err := b.Get(b.ctx, "k")
		if wins != 1 || err != nil || got.Version != won.Load() || got.Version <= version {
			t.Fatalf("round %d: %d winners, version %d after %d, %v", round, wins, got.Version, version, err)
		}
		version = got.Version
	}
}

func counter(t *testing.T, b *bench) {
	b.put("n", "", store.New)
	const racers, each = 8, 10
	b.together(racers, nil, func(int) error {
		for done := 0; done < each; {
			item, err := b.Get(b.ctx, "n")
			if err != nil {
				return err
			}
			item.Value = append(item.Value, '+')
			switch _, err := b.Put(b.ctx, item); {
			case err == nil:
				done++
			case !errors.Is(err, store.ErrConflict):
				return err
			}
		}
		return nil
	})
	if got, _ := b.Get(b.ctx, "n"); len(got.Value) != racers*each {
		t.Errorf("%d increments arrived of %d", len(got.Value), racers*each)
	}
}

func redeemOnce(t *testing.T, b *bench) {
	for _, exact := range []bool{false, true} {
		version := b.put("code/1", "x", store.New)
		if !exact {
			version = store.Any
		}
		if wins := b.together(64, store.ErrNotFound, func(int) error { return b.Delete(b.ctx, "code/1", version) }); wins != 1 {
			t.Errorf("exact=%v: redeemed %d times", exact, wins)
		}
	}
}

func versionsGrow(t *testing.T, b *bench) {
	last := uint64(0)
	for i := range 20 {
		v := b.put("k", "x", store.New)
		if v <= last || v == store.Any {
			t.Fatalf("version %d after %d", v, last)
		}
		last = v
		if i%2 == 0 {
			last = b.put("k", "y", v)
		}
		if err := b.Delete(b.ctx, "k", last); err != nil {
			t.Fatal(err)
		}
	}
}

func expiry(t *testing.T, b *bench) {
	at := b.clock.Now().Add(time.Minute)
	for i := range 100 {
		if _, err := b.Put(b.ctx, store.Item{Key: fmt.Sprintf("e/%03d", i), Expires: at.Add(time.Duration(i) * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	b.put("e/stays", "x", store.New)
	b.clock.Add(time.Minute - time.Microsecond)
	if n := len(b.keys("e/")); n != 101 {
		t.Errorf("%d items just before the first expires", n)
	}
	b.clock.Set(at)
	_, err := b.Get(b.ctx, "e/000")
	b.want(err, store.ErrNotFound, "get at the moment of expiry")
	if n := len(b.keys("e/")); n != 100 {
		t.Errorf("%d items after the first expired", n)
	}
	b.clock.Add(time.Hour)
	if got := b.keys("e/"); !slices.Equal(got, []string{"e/stays"}) {
		t.Errorf("left after an hour: %v", got)
	}
	// The writes that clear expired items away must leave the others alone.
	for i := range 50 {
		b.put(fmt.Sprintf("w/%02d", i), "x", store.New)
	}
	if n := len(b.keys("")); n != 51 {
		t.Errorf("%d items are left of 51", n)
	}
}

func expiredWrites(t *testing.T, b *bench) {
	expiring := func(key string) uint64 {
		v, err := b.Put(b.ctx, store.Item{Key: key, Expires: b.clock.Now().Add(time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := expiring("a")
	expiring("b")
	b.clock.Add(time.Second)
	b.want(b.Delete(b.ctx, "a", v), store.ErrNotFound, "delete of an expired item")
	b.want(b.Delete(b.ctx, "b", store.Any), store.ErrNotFound, "delete Any of an expired item")
	_, err := b.Put(b.ctx, store.Item{Key: "a", Version: v})
	b.want(err, store.ErrConflict, "swap of an expired item")
	b.put("a", "x", store.New)
	if v := expiring("c"); v == 0 {
		t.Error("no version")
	}
	b.clock.Add(time.Second)
	b.put("c", "for ever now", store.Any)
	if _, err := b.Get(b.ctx, "c"); err != nil {
		t.Error(err)
	}
}

func list(t *testing.T, b *bench) {
	for _, key := range []string{"b/2", "a/1", "b/10", "c", "b/1", "b", "b0", "b/\xff", "B/1"} {
		b.put(key, "value of "+key, store.New)
	}
	for prefix, want := range map[string][]string{
		"b/":      {"b/1", "b/10", "b/2", "b/\xff"},
		"b":       {"b", "b/1", "b/10", "b/2", "b/\xff", "b0"},
		"nothing": nil,
		"":        {"B/1", "a/1", "b", "b/1", "b/10", "b/2", "b/\xff", "b0", "c"},
	} {
		if got := b.keys(prefix); !slices.Equal(got, want) {
			t.Errorf("list %q: %q, want %q", prefix, got, want)
		}
	}
	for item := range b.List(b.ctx, "b/") {
		if got, err := b.Get(b.ctx, item.Key); err != nil || string(item.Value) != "value of "+item.Key || got.Version != item.Version {
			t.Errorf("listed %+v, got %+v, %v", item, got, err)
		}
	}
}

func listAndDelete(t *testing.T, b *bench) {
	const n = 200
	b.together(n, nil, func(i int) error {
		_, err := b.Put(b.ctx, store.Item{Key: fmt.Sprintf("k/%03d", i), Value: make([]byte, 1000)})
		return err
	})
	seen := 0
	for item, err := range b.List(b.ctx, "k/") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if seen%10 == 0 { // enough to cross what a backend reads at once
			b.want(b.Delete(b.ctx, item.Key, item.Version), nil, "delete %s", item.Key)
		}
	}
	if left := len(b.keys("k/")); seen != n || left != n-n/10 {
		t.Errorf("saw %d, left %d", seen, left)
	}
}

func listStops(t *testing.T, b *bench) {
	b.put("a", "", store.New)
	b.put("b", "", store.New)
	n := 0
	for range b.List(b.ctx, "") {
		n++
		break
	}
	if n != 1 {
		t.Error("the loop ran on")
	}
}
