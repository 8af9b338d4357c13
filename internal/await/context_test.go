package await

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestEndsWithItsParentOrBefore(t *testing.T) {
	type key struct{}
	why := errors.New("why")
	for name, end := range map[string]func(parent context.CancelCauseFunc, c *Context){
		"parent": func(parent context.CancelCauseFunc, _ *Context) { parent(why) },
		"end":    func(_ context.CancelCauseFunc, c *Context) { c.End(why); c.End(nil) },
	} {
		for _, waited := range []bool{true, false} { // before the end, or only after it
			synctest.Test(t, func(t *testing.T) {
				parent, stop := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
				defer stop(nil)
				c := &Context{Context: parent}
				if c.Err() != nil || c.Value(key{}) != "value" {
					t.Fatalf("%s: it begins with %v, %v", name, c.Err(), c.Value(key{}))
				}
				told := false
				wait := func() context.Context {
					derived, cancel := context.WithCancel(c)
					t.Cleanup(cancel)
					context.AfterFunc(c, func() { told = true })
					return derived
				}
				var derived context.Context
				if waited {
					derived = wait()
				}
				end(stop, c)
				if !waited {
					derived = wait()
				}
				synctest.Wait()
				<-c.Done()
				<-derived.Done()
				if c.Err() != context.Canceled || derived.Err() != context.Canceled || context.Cause(c) != why || context.Cause(derived) != why || !told {
					t.Errorf("%s: %v because of %v, derived %v because of %v, told: %t", name, c.Err(), context.Cause(c), derived.Err(), context.Cause(derived), told)
				}
			})
		}
	}
}

func TestMakesNothingThatNobodyWaitsFor(t *testing.T) {
	c := &Context{Context: t.Context()}
	if c.Err() != nil {
		t.Error(c.Err())
	}
	c.End(nil)
	if c.made != nil || c.Err() != context.Canceled || context.Cause(c) != context.Canceled {
		t.Errorf("%v, %v because of %v", c.made, c.Err(), context.Cause(c))
	}
	select {
	case <-c.Done():
	default:
		t.Error("who waits after the end waits for ever")
	}
}

func TestAsksOnceAndNotAfterTheEnd(t *testing.T) {
	for name, want := range map[string]func(c *Context){
		"Done": func(c *Context) { c.Done() },
		"Err":  func(c *Context) { _ = c.Err() },
		"a derived one": func(c *Context) {
			_, cancel := context.WithCancel(c)
			cancel()
		},
		"AfterFunc": func(c *Context) { context.AfterFunc(c, func() {})() },
	} {
		asked := 0
		c := &Context{Context: t.Context(), Asked: func() { asked++ }}
		_ = c.Value("key")
		if asked != 0 {
			t.Errorf("%s: asked for a value", name)
		}
		want(c)
		want(c)
		c.End(nil)
		if asked != 1 {
			t.Errorf("%s: asked %d times", name, asked)
		}
		late := &Context{Context: t.Context(), Asked: func() { t.Errorf("%s: asked after the end", name) }}
		late.End(errors.New("why"))
		want(late)
	}
}
