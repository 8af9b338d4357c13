package authn

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// minPause is the least time between two fetches of a document, whoever asks
// and however the last one went. After a first failure it is shorter, so that a
// provider that starts together with us is found quickly.
const minPause = 10 * time.Second

var errTooSoon = errors.New("asked a moment ago")

// document keeps the last good copy of something a provider publishes. A failed
// fetch never replaces it. Fetches are single flight and paced; a caller that
// gives up does not end the flight for the others.
type document[T any] struct {
	fetch func(context.Context) (T, error)
	now   func() time.Time

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

// last returns the last good copy, if there is one.
func (d *document[T]) last() (value T, ok bool) {
	if p := d.good.Load(); p != nil {
		return *p, true
	}
	return value, false
}

// get returns the last good copy and fetches only where there is none.
func (d *document[T]) get(ctx context.Context) (T, error) {
	if value, ok := d.last(); ok {
		return value, nil
	}
	err := d.refresh(ctx)
	value, ok := d.last()
	if ok {
		return value, nil
	}
	return value, err
}

// refresh fetches a new copy, or joins the fetch under way. Within the pause it
// returns the outcome of the last fetch as an error.
func (d *document[T]) refresh(ctx context.Context) error {
	d.mu.Lock()
	f := d.flight
	if f == nil {
		if d.now().Before(d.notUntil) {
			defer d.mu.Unlock()
			if d.err != nil {
				return d.err
			}
			return errTooSoon
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

func (d *document[T]) fly(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	value, err := d.fetch(ctx)

	d.mu.Lock()
	defer d.mu.Unlock()
	pause := minPause
	if err == nil {
		d.good.Store(&value)
		d.failures = 0
	} else {
		pause = min(time.Second<<min(d.failures, 10), minPause)
		d.failures++
	}
	d.err, d.notUntil, d.flight = err, d.now().Add(pause), nil
	f.err = err
	close(f.done)
}

// problem returns why there is no good copy, nil if there is one.
func (d *document[T]) problem() error {
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

// adopt takes over what an earlier instance knows.
func (d *document[T]) adopt(from *document[T]) { d.good.Store(from.good.Load()) }
