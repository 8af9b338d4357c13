package lane

import (
	"context"
	"sync"
)

// requestContext is the context of a request: it ends with the connection, and when
// the handler returns. One of the standard library is made of it only if somebody waits
// for its end, which costs more than most requests do otherwise.
type requestContext struct {
	context.Context // of the connection

	mu   sync.Mutex // protects what follows
	real context.Context
	stop context.CancelFunc
	over bool
}

// made returns what can be waited for.
func (c *requestContext) made() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real, c.stop = context.WithCancel(c.Context)
		if c.over {
			c.stop()
		}
	}
	return c.real
}

// end ends it: the handler has returned.
func (c *requestContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.stop != nil {
		c.stop()
	}
}

// Done implements context.Context.
func (c *requestContext) Done() <-chan struct{} { return c.made().Done() }

// Err implements context.Context.
func (c *requestContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return c.real.Err()
	}
	if c.over {
		return context.Canceled
	}
	return c.Context.Err()
}

// Value implements context.Context. What is asked by those who derive a context from
// this one has to come from what ends with it.
func (c *requestContext) Value(key any) any {
	c.mu.Lock()
	from := c.real
	c.mu.Unlock()
	if from == nil {
		from = c.Context
	}
	return from.Value(key)
}

// AfterFunc is found by context.AfterFunc, and by contexts that are derived.
func (c *requestContext) AfterFunc(do func()) (stop func() bool) {
	return context.AfterFunc(c.made(), do)
}
