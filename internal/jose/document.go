package jose

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// MinPause is the least time between two fetches of a document, whoever asks
// and however the last one went. After a first failure it is shorter, so that a
// provider that starts together with us is found quickly.
const MinPause = 10 * time.Second

// ErrTooSoon tells that the document was asked for within the pause, with success.
var ErrTooSoon = errors.New("asked a moment ago")

// Document keeps the last good copy of something a provider publishes. A failed
// fetch never replaces it. Fetches are single flight and paced; a caller that
// gives up does not end the flight for the others.
type Document[T any] struct {
	// Fetch asks for the document. It gets FetchTimeout.
	Fetch func(context.Context) (T, error)
	// Now is the clock.
	Now func() time.Time

	good atomic.Pointer[T]

	mu       sync.Mutex
	flight   *flight
	notUntil time.Time // no fetch before
	failures int       // in a row
	err      error     // of the last fetch
}

type flight struct {
	done chan struct{}
	err  error
}

// Last returns the last good copy, if there is one.
func (d *Document[T]) Last() (value T, ok bool) {
	if p := d.good.Load(); p != nil {
		return *p, true
	}
	return value, false
}

// Get returns the last good copy and fetches only where there is none.
func (d *Document[T]) Get(ctx context.Context) (T, error) {
	if value, ok := d.Last(); ok {
		return value, nil
	}
	err := d.Refresh(ctx)
	value, ok := d.Last()
	if ok {
		return value, nil
	}
	return value, err
}

// Refresh fetches a new copy, or joins the fetch under way. Within the pause it
// returns the outcome of the last fetch as an error.
func (d *Document[T]) Refresh(ctx context.Context) error {
	d.mu.Lock()
	f := d.flight
	if f == nil {
		if d.Now().Before(d.notUntil) {
			defer d.mu.Unlock()
			if d.err != nil {
				return d.err
			}
			return ErrTooSoon
		}
		f = &flight{done: make(chan struct{})}
		d.flight = f
		go d.fly(context.WithoutCancel(ctx), f)
	}
	d.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Document[T]) fly(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, FetchTimeout)
	defer cancel()
	value, err := d.Fetch(ctx)

	d.mu.Lock()
	defer d.mu.Unlock()
	pause := MinPause
	if err == nil {
		d.good.Store(&value)
		d.failures = 0
	} else {
		pause = min(time.Second<<min(d.failures, 10), MinPause)
		d.failures++
	}
	d.err, d.notUntil, d.flight = err, d.Now().Add(pause), nil
	f.err = err
	close(f.done)
}

// Problem returns why there is no good copy, nil if there is one.
func (d *Document[T]) Problem() error {
	if d.good.Load() != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	return errors.New("not asked yet")
}

// Put makes a copy the last good one, without asking anybody.
func (d *Document[T]) Put(value T) { d.good.Store(&value) }

// Adopt takes over what an earlier instance knows.
func (d *Document[T]) Adopt(from *Document[T]) { d.good.Store(from.good.Load()) }
