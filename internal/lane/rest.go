package lane

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// rest is the listener by which the http.Server gets the connections that have left
// the lane.
type rest struct {
	conns  chan *left
	closed chan struct{}
	once   sync.Once
}

func newRest() *rest { return &rest{conns: make(chan *left), closed: make(chan struct{})} }

// Accept implements net.Listener.
func (r *rest) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (r *rest) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// Addr implements net.Listener.
func (r *rest) Addr() net.Addr { return (*net.TCPAddr)(nil) }

// give hands a connection over. It reports whether the http.Server has taken it.
func (r *rest) give(c *left) bool {
	select {
	case r.conns <- c:
		return true
	case <-r.closed:
		return false
	}
}

// hook has the hooks of a server called as if it had accepted these connections
// itself, with what the lane has found out about them already.
func (r *rest) hook(h *http.Server) {
	state, withConn := h.ConnState, h.ConnContext
	if state != nil {
		h.ConnState = func(c net.Conn, to http.ConnState) {
			if gone, ok := c.(*left); ok {
				if c = gone.Conn; to == http.StateNew {
					return // it was when it was accepted
				}
			}
			state(c, to)
		}
	}
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		switch gone, ok := c.(*left); {
		case ok:
			return gone.ctx
		case withConn != nil:
			return withConn(ctx, c)
		}
		return ctx
	}
}

// left is a connection that has left the lane, with what was read there.
type left struct {
	net.Conn
	ctx  context.Context
	read []byte
	// by is when its first head has to be there; zero: that is not its first.
	by time.Time
}

// Read implements net.Conn.
func (c *left) Read(b []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil
	}
	return n, nil
}

// SetReadDeadline implements net.Conn. The first that http.Server sets is that of the
// head, which is not to get the time once more that it has had in the lane.
func (c *left) SetReadDeadline(t time.Time) error {
	if !c.by.IsZero() {
		if t.After(c.by) {
			t = c.by
		}
		c.by = time.Time{}
	}
	return c.Conn.SetReadDeadline(t)
}

// CloseWrite ends one direction, where the connection can do that.
func (c *left) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger says what becomes of what was not sent yet, where the connection can do
// that.
func (c *left) SetLinger(sec int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(sec)
	}
	return errors.ErrUnsupported
}
