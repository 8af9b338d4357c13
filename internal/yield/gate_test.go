package yield

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestThoseWhoWaitGoOnTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quiet, closings := make(chan bool), 0
		g := newGate(func() { closings++; <-quiet })
		var on atomic.Int64
		for round := 1; round <= 3; round++ {
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() { g.wait(true); on.Add(1) })
			}
			synctest.Wait()
			if n := on.Load(); n != 0 {
				t.Fatalf("round %d: %d went on although there was something else to do", round, n)
			}
			quiet <- true
			all.Wait()
			if n := on.Swap(0); n != 10 || closings != round {
				t.Fatalf("round %d: %d of 10 went on; closed %d times", round, n, closings)
			}
		}
	})
}

// Where few wait, others pass, until it is tried again.
func TestFewDoNotWaitForEachOther(t *testing.T) {
	closings := 0
	g := newGate(func() { closings++ })
	for range 10 * (1 + pass) {
		g.wait(true)
	}
	if closings != 10 {
		t.Errorf("closed %d times, want 10", closings)
	}
	for range 10 {
		g.wait(false)
	}
	if closings != 20 {
		t.Errorf("closed %d times, want 20: who gathers waits each time", closings)
	}
}

// The runtime's look at the network, a hundred times a second, may come in between, and
// elsewhere than on Linux those go first who can run now, once.
func TestItIsQuietWhenAllHaveGoneFirst(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no eventfd")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	quiet, early := untilQuiet(time.Minute), 0
	for range 100 {
		var turns atomic.Int64
		for range 20 {
			go func() {
				for range 5 {
					runtime.Gosched()
					turns.Add(1)
				}
			}()
		}
		if quiet(); turns.Load() != 100 {
			early++
		}
	}
	if early > 50 {
		t.Errorf("%d of 100 times somebody still had something to do", early)
	}
}

// Whoever always has something to do holds nobody up for ever.
func TestItIsQuietAfterAWhile(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var over atomic.Bool
	defer over.Store(true)
	for range 2 {
		go func() {
			for !over.Load() {
				runtime.Gosched()
			}
		}()
	}
	quiet := untilQuiet(time.Millisecond)
	for range 10 {
		quiet()
	}
}
