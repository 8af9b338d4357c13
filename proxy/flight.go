package proxy

import (
	"context"
	"sync"

	"github.com/doorward/doorward/internal/h1"
)

// flight is the context of a request that is open: it ends with the visitor's
// request, and when access does. Whoever waits for its end has it made into a
// context of the standard library; that is seldom, because most answers are there
// before anybody waits for anything else.
type flight struct {
	context.Context // of the visitor's request
	courier         *courier

	mu   sync.Mutex // protects what follows
	real context.Context
	stop context.CancelCauseFunc
}

func (f *flight) made() context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.make()
}

// make has the lock held.
func (f *flight) make() context.Context {
	if f.real == nil {
		f.real, f.stop = context.WithCancelCause(f.Context)
	}
	return f.real
}

// so returns what there is: the context that was made, or else the visitor's.
func (f *flight) so() context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.real != nil {
		return f.real
	}
	return f.Context
}

// Done implements context.Context.
func (f *flight) Done() <-chan struct{} { return f.made().Done() }

// Err implements context.Context.
func (f *flight) Err() error { return f.so().Err() }

// Value implements context.Context.
func (f *flight) Value(key any) any {
	if key == (h1.InterimKey{}) && f.courier != nil {
		return h1.Interim(f.courier.interim)
	}
	return f.so().Value(key)
}

// AfterFunc is found by context.AfterFunc, and by contexts that are derived from
// this one.
func (f *flight) AfterFunc(do func()) (stop func() bool) { return context.AfterFunc(f.made(), do) }

// cut ends the context.
func (f *flight) cut(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.make()
	f.stop(cause)
}

// leave frees what waiting for the end has taken.
func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stop != nil {
		f.stop(nil)
	}
}
