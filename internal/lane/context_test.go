package lane

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The context of a request is one that any other can be derived from, whenever
// somebody begins to wait for its end.
func TestRequestContext(t *testing.T) {
	type key struct{}
	ends := map[string]func(conn context.CancelFunc, c *requestContext){
		"with the connection": func(conn context.CancelFunc, _ *requestContext) { conn() },
		"with the handler":    func(_ context.CancelFunc, c *requestContext) { c.end() },
	}
	waits := map[string]func(c context.Context) (over func() bool){
		"Done": func(c context.Context) func() bool {
			done := c.Done()
			return func() bool {
				select {
				case <-done:
					return true
				default:
					return false
				}
			}
		},
		"AfterFunc": func(c context.Context) func() bool {
			called := false
			context.AfterFunc(c, func() { called = true })
			return func() bool { return called }
		},
		"a child": func(c context.Context) func() bool {
			child, cancel := context.WithTimeout(c, time.Hour)
			context.AfterFunc(child, cancel)
			return func() bool { return child.Err() != nil }
		},
		"a child of its values": func(c context.Context) func() bool {
			child, cancel := context.WithCancelCause(context.WithValue(c, key{}, 2))
			context.AfterFunc(child, func() { cancel(nil) })
			return func() bool { return errors.Is(context.Cause(child), context.Canceled) }
		},
		"nobody": func(c context.Context) func() bool { return func() bool { return c.Err() != nil } },
	}
	for how, end := range ends {
		for who, wait := range waits {
			for _, late := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					conn, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, 1))
					defer cancel()
					c := &requestContext{Context: conn}
					var over func() bool
					if !late {
						over = wait(c)
						if over() || c.Err() != nil {
							t.Errorf("%s, %s: too early", how, who)
						}
					}
					end(cancel, c)
					if late {
						over = wait(c)
					}
					synctest.Wait()
					if !over() || c.Err() != context.Canceled || c.Value(key{}) != 1 || how == "with the handler" && conn.Err() != nil {
						t.Errorf("%s, %s, late %v: %v", how, who, late, c.Err())
					}
					c.end()
				})
			}
		}
	}
}
