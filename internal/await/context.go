// Package await answers the question: what is a context that costs nothing until
// somebody waits for its end?
package await

import (
	"context"
	"sync"
)

// Context ends when its parent does, or with End. One of the standard library is
// made of it when somebody waits for its end or derives another from it: most
// requests are over before anybody does, and to make one costs more than most of
// what is done for them. The zero value with a parent is ready for use, and is not
// to be copied.
type Context struct {
	context.Context // the parent
	// Asked is called, at most once and before End is, when somebody wants to know
	// about the end: where it takes something to find out, that can begin now. It must
	// not use the context. Nil: nothing is called.
	Asked func()

	mu    sync.Mutex // protects what follows
	made  context.Context
	stop  context.CancelCauseFunc
	ended bool
	cause error
}

// End ends the context for a cause; nil: context.Canceled. Another end after that has
// no effect.
func (c *Context) End(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.cause = true, cause
	if c.stop != nil {
		c.stop(cause)
	} else if cause != nil {
		c.make() // which tells the cause to whoever asks
	}
}

// Waited reports whether somebody has asked about the end, and may know of the
// context even after it.
func (c *Context) Waited() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made != nil
}

// ask and make have the lock held.
func (c *Context) ask() {
	if asked := c.Asked; asked != nil && !c.ended {
		c.Asked = nil
		asked()
	}
}

func (c *Context) make() context.Context {
	c.ask()
	if c.made == nil {
		c.made, c.stop = context.WithCancelCause(c.Context)
		if c.ended {
			c.stop(c.cause)
		}
	}
	return c.made
}

func (c *Context) whole() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.make()
}

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.whole().Done() }

// Err implements context.Context.
func (c *Context) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ask()
	switch {
	case c.made != nil:
		return c.made.Err()
	case c.ended:
		return context.Canceled
	}
	return c.Context.Err()
}

// Value implements context.Context. What contexts that are derived from this one
// look for has to come from what ends with it.
func (c *Context) Value(key any) any {
	c.mu.Lock()
	from := c.made
	c.mu.Unlock()
	if from == nil {
		from = c.Context
	}
	return from.Value(key)
}

// AfterFunc is found by context.AfterFunc, and by contexts that are derived.
func (c *Context) AfterFunc(do func()) (stop func() bool) {
	return context.AfterFunc(c.whole(), do)
}
