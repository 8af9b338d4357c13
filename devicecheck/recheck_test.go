package devicecheck

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Visitors who ask at the same time share one reading, which began after they
// asked; who asks a moment later gets the same answer; and nobody waits for
// longer than they want to.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		var slow atomic.Int64
		var compliant atomic.Bool
		i := newInspector(t, Options{Config: polled(0), Now: time.Now, Rand: func() float64 { return 0 }, Transport: server(func() (string, error) {
			reads.Add(1)
			said := fmt.Sprintf(`[{"id": "a", "compliant": %v}]`, compliant.Load())
			time.Sleep(time.Duration(slow.Load()))
			return said, nil
		})})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); i.Run(ctx) }()
		synctest.Wait()
		reads.Store(0)

		d := &access.Device{ID: "a", Source: "corp"}
		if !i.Recheck(ctx, d) || reads.Load() != 0 {
			t.Errorf("%d readings right after one", reads.Load())
		}
		time.Sleep(15 * time.Second)
		compliant.Store(true)
		slow.Store(int64(2 * time.Second))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if !i.Recheck(ctx, d) {
					t.Error("not read")
				}
				if now := known(t, i, "a"); now.Compliant != access.Yes {
					t.Errorf("%+v", now)
				}
			})
		}
		all.Wait()
		if reads := reads.Load(); reads < 1 || reads > 2 { // two, where the first began before the last visitor asked
			t.Errorf("%d readings for 20 visitors", reads)
		}

		// A reading under way asked too early: another one follows.
		time.Sleep(57 * time.Second) // the poll begins at 60s and takes two
		synctest.Wait()
		compliant.Store(false)
		time.Sleep(3500 * time.Millisecond)
		compliant.Store(true)
		before := time.Now()
		if !i.Recheck(ctx, &access.Device{ID: "a"}) || known(t, i, "a").Compliant != access.Yes {
			t.Errorf("after %v: %+v", time.Since(before), known(t, i, "a"))
		}

		time.Sleep(15 * time.Second)
		slow.Store(int64(time.Minute))
		brief, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		if i.Recheck(brief, d) {
			t.Error("it was read before the server had answered")
		}
		if !i.Recheck(ctx, &access.Device{ID: "a", Source: "elsewhere"}) {
			t.Error("a source that is not ours")
		}
		cancel()
		<-done
	})
}
