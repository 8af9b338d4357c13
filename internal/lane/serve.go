package lane

import (
	"net/http"
	"runtime"
)

// answer has the handler answer a request, and reports whether the connection can be
// used for another one.
func (c *conn) answer(r *http.Request) (again bool) {
	a := newAnswer(c, r.Method)
	returned := false
	defer func() {
		if !returned {
			c.panicked(recover())
			a.breakOff()
		}
		a.leave()
		c.watch.stop()
	}()
	r.RemoteAddr = c.from
	in := r.WithContext(&a.ctx) // a copy
	c.room.leave()
	c.room = nil
	handler := c.server.http.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	handler.ServeHTTP(a, in)
	a.ctx.End(nil)
	again = a.finish()
	returned = true
	return again && c.ctx.Err() == nil
}

// panicked logs what a handler has panicked with, unless it only wanted its answer
// broken off.
func (c *conn) panicked(with any) {
	if with == nil || with == http.ErrAbortHandler {
		return
	}
	stack := make([]byte, 64<<10)
	stack = stack[:runtime.Stack(stack, false)]
	c.server.logf("http: panic serving %v: %v\n%s", c.from, with, stack)
}
