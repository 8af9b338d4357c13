package devicecheck

import (
	"context"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// recheckPause is how old a reading may be, beyond the time that it took, to
// answer somebody who wants the inventory to be read now. It keeps visitors from
// wearing it out.
const recheckPause = 5 * time.Second

// Recheck reads the inventory that answered for a device now, or all of them
// where none did, and reports whether it was: then Inspect knows what it says.
// A reading that ended a few seconds ago is good enough, and all who wait share
// the next one. It works while Run does, and waits until ctx ends.
func (i *Inspector) Recheck(ctx context.Context, d *access.Device) bool {
	var waiting sync.WaitGroup
	var mu sync.Mutex
	all := true
	for _, s := range i.sources {
		if d.Source != "" && d.Source != s.ID && len(s.Adds) == 0 {
			continue
		}
		waiting.Go(func() {
			read := s.readings.wait(ctx, s.now)
			mu.Lock()
			defer mu.Unlock()
			all = all && read
		})
	}
	waiting.Wait()
	return all
}

// readings counts the readings of one source, for those who wait for the next.
type readings struct {
	// wanted asks run for a reading.
	wanted chan struct{}

	mu           sync.Mutex
	began, ended int // numbers of readings
	asked        int // the latest that somebody waits for
	endedAt      time.Time
	took         time.Duration
	waiting      []chan struct{} // closed at the end of a reading
}

// begin notes that a reading begins. The function it returns notes its end.
func (r *readings) begin(now func() time.Time) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began++
	start := now()
	return func() {
		at := now()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended, r.endedAt, r.took = r.began, at, at.Sub(start)
		for _, end := range r.waiting {
			close(end)
		}
		r.waiting = nil
	}
}

// wait waits for the end of a reading that begins from now on, unless one ended
// a moment ago, and reports whether there was one. A reading under way may have
// asked before the visitor cured what was wrong.
func (r *readings) wait(ctx context.Context, now func() time.Time) bool {
	r.mu.Lock()
	if r.ended > 0 && r.ended == r.began && now().Sub(r.endedAt) < recheckPause+r.took {
		r.mu.Unlock()
		return true
	}
	next := r.began + 1
	if r.asked < next { // otherwise somebody has asked already
		r.asked = next
		select {
		case r.wanted <- struct{}{}:
		default:
		}
	}
	for r.ended < next {
		end := make(chan struct{})
		r.waiting = append(r.waiting, end)
		r.mu.Unlock()
		select {
		case <-end:
		case <-ctx.Done():
			return false
		}
		r.mu.Lock()
	}
	r.mu.Unlock()
	return true
}
