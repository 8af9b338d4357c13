// Package storetest answers the question: does this backend keep the promises
// of store.Store?
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/store"
)

// Open returns a new, empty store whose items expire by the given clock. The
// suite closes it.
type Open func(t *testing.T, now func() time.Time) store.Store

// Run checks a backend.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"what was put is what is got", roundTrip},
		{"values are copies", copies},
		{"compare-and-swap table", swapTable},
		{"of racing creators one wins", createRace},
		{"of racing writers each round has one winner", swapRace},
		{"no increment is lost", counter},
		{"a single-use item is redeemed once", redeemOnce},
		{"versions never come back", versionsGrow},
		{"expired items are gone", expiry},
		{"an expired item cannot be redeemed or swapped", expiredWrites},
		{"list is ordered and keeps to the prefix", list},
		{"list allows writing while it runs", listAndDelete},
		{"list ends early", listStops},
		{"watch sees changes of its prefix in order", watch},
		{"watch sees a key's versions in order under load", watchOrder},
		{"watch ends with its context", watchEnds},
		{"a slow watcher is told, not waited for", watchSlow},
		{"a refused write is no change", watchRefused},
		{"keys and values are bounded", bounds},
		{"an ended context does nothing", endedContext},
		{"after Close everything is unavailable", closed},
		{"Close during use neither hangs nor panics", closeRace},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := &Clock{}
			clock.Set(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
			b := &bench{T: t, Store: open(t, clock.Now), clock: clock, ctx: t.Context()}
			t.Cleanup(func() { b.Close() })
			c.run(t, b)
		})
	}
}

// Clock is a clock that a test sets. Its zero value shows the zero time.
type Clock struct{ now atomic.Pointer[time.Time] }

// Now returns the time that was set.
func (c *Clock) Now() time.Time {
	if t := c.now.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// Set sets the time.
func (c *Clock) Set(t time.Time) { c.now.Store(&t) }

// Add moves the time.
func (c *Clock) Add(d time.Duration) { c.Set(c.Now().Add(d)) }

type bench struct {
	*testing.T
	store.Store
	clock *Clock
	ctx   context.Context
}

func (b *bench) put(key, value string, version uint64) uint64 {
	b.Helper()
	v, err := b.Put(b.ctx, store.Item{Key: key, Value: []byte(value), Version: version})
	if err != nil {
		b.Fatalf("put %s: %v", key, err)
	}
	return v
}

func (b *bench) want(err, want error, format string, args ...any) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("%s: got error %v, want %v", fmt.Sprintf(format, args...), err, want)
	}
}

func (b *bench) keys(prefix string) (keys []string) {
	b.Helper()
	for item, err := range b.List(b.ctx, prefix) {
		if err != nil {
			b.Fatalf("list %q: %v", prefix, err)
		}
		keys = append(keys, item.Key)
	}
	return keys
}

func (b *bench) watch(ctx context.Context, prefix string) <-chan store.Change {
	b.Helper()
	ch, err := b.Watch(ctx, prefix)
	if err != nil {
		b.Fatalf("watch %q: %v", prefix, err)
	}
	return ch
}

func bounds(t *testing.T, b *bench) {
	long := strings.Repeat("k", store.MaxKey+1)
	for name, item := range map[string]store.Item{
		"long key":  {Key: long},
		"empty key": {},
		"big value": {Key: "k", Value: make([]byte, store.MaxValue+1)},
	} {
		if _, err := b.Put(b.ctx, item); err == nil || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, key := range []string{"", long} {
		if _, err := b.Get(b.ctx, key); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("get of %d bytes: %v", len(key), err)
		}
		if err := b.Delete(b.ctx, key, store.Any); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("delete of %d bytes: %v", len(key), err)
		}
	}
	if got := b.keys(""); len(got) != 0 {
		t.Errorf("stored: %.40q", got)
	}
}

func endedContext(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	_, err := b.Get(ctx, "k")
	b.want(err, context.Canceled, "get")
	_, err = b.Put(ctx, store.Item{Key: "k"})
	b.want(err, context.Canceled, "put")
	b.want(b.Delete(ctx, "k", store.Any), context.Canceled, "delete")
	for _, err := range b.List(ctx, "") {
		b.want(err, context.Canceled, "list")
	}
	if got := b.keys(""); len(got) != 0 {
		t.Errorf("stored: %q", got)
	}
}

func closed(t *testing.T, b *bench) {
	b.put("k", "", store.New)
	ch := b.watch(b.ctx, "")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if c, open := <-ch; open {
		t.Errorf("the watcher got %+v", c)
	}
	_, err := b.Get(b.ctx, "k")
	b.want(err, store.ErrUnavailable, "get")
	_, err = b.Put(b.ctx, store.Item{Key: "k", Version: store.Any})
	b.want(err, store.ErrUnavailable, "put")
	b.want(b.Delete(b.ctx, "k", store.Any), store.ErrUnavailable, "delete")
	listed := 0
	for _, err := range b.List(b.ctx, "") {
		listed++
		b.want(err, store.ErrUnavailable, "list")
	}
	if listed != 1 {
		t.Errorf("list yielded %d times, want one error", listed)
	}
	_, err = b.Watch(b.ctx, "")
	b.want(err, store.ErrUnavailable, "watch")
	b.want(b.Close(), nil, "second close")
}

func closeRace(t *testing.T, b *bench) {
	var wg sync.WaitGroup
	begun := make(chan struct{}, 64)
	for i := range 16 {
		wg.Go(func() {
			for j := 0; ; j++ {
				_, err := b.Put(b.ctx, store.Item{Key: fmt.Sprintf("k/%d", i), Version: store.Any})
				select {
				case begun <- struct{}{}:
				default:
				}
				if errors.Is(err, store.ErrUnavailable) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				for range b.List(b.ctx, "k/") {
				}
			}
		})
	}
	for range 32 {
		<-begun
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
