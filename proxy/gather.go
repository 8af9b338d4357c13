package proxy

import (
	"net"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/yield"
)

// Gathering wraps a listener for connections that carry many answers at a time, as
// HTTP/2 does. net/http gives each answer a write of its own, as soon as it is
// there. Here what is written is kept until nobody else has anything to do, a moment
// later (see package yield), and goes out with all that was written meanwhile: under
// load one write carries several answers, and the writes of many connections come in a
// row. Where there is more than one processor nothing is gathered.
//
// Only what the system would take at once is kept, so that a write is held up by a slow
// visitor as ever, and a connection that is closed has sent what it was told to. An
// error may be told by a later write, as ever.
func Gathering(l net.Listener) net.Listener {
	if !yield.Alone() {
		return l
	}
	return gathering{l}
}

type gathering struct{ net.Listener }

// Accept implements net.Listener.
func (l gathering) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gatheringConn{wrapped: wrapped{conn}}, nil
}

// gatheringConn is a connection whose writes are gathered.
type gatheringConn struct {
	wrapped

	mu     sync.Mutex // protects what follows, and is held while that is sent
	kept   *gathered  // nil: nothing
	err    error      // of what was sent last
	unsent unsent     // by the system
}

// gathered is what was written and has not been sent.
type gathered struct {
	room [16 << 10]byte // less than what Linux takes for a connection that waits for nothing
	size int
}

var gatherings = sync.Pool{New: func() any { return new(gathered) }}

// Write keeps b for a moment, or sends it.
func (c *gatheringConn) Write(b []byte) (int, error) {
	switch kept, err := c.keep(b); {
	case err != nil:
		return 0, err
	case kept:
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// keep keeps b, or sends what is kept to make way for it.
func (c *gatheringConn) keep(b []byte) (kept bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil && len(b) > len(c.kept.room)-c.kept.size {
		c.send()
	}
	if c.err != nil || len(b) > len(gathered{}.room) {
		return false, c.err
	}
	if c.kept == nil {
		if !c.unsent.nothing(c.Conn) {
			return false, nil
		}
		c.kept = gatherings.Get().(*gathered)
		go c.sendLater()
	}
	c.kept.size += copy(c.kept.room[c.kept.size:], b)
	return true, nil
}

// sendLater sends what is kept when everybody has gone first.
func (c *gatheringConn) sendLater() {
	yield.ToAll()
	c.sendNow()
}

// sendNow sends what is kept, if anything is.
func (c *gatheringConn) sendNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send()
}

// send is sendNow for whoever holds mu.
func (c *gatheringConn) send() {
	if c.kept == nil {
		return
	}
	if c.err == nil {
		_, c.err = c.Conn.Write(c.kept.room[:c.kept.size])
	}
	c.kept.size = 0
	gatherings.Put(c.kept)
	c.kept = nil
}

// SetWriteDeadline sets the deadline of what is written from now on: crypto/tls sets
// one that has passed when it has said goodbye.
func (c *gatheringConn) SetWriteDeadline(t time.Time) error {
	c.sendNow()
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *gatheringConn) SetDeadline(t time.Time) error {
	c.sendNow()
	return c.Conn.SetDeadline(t)
}

// CloseWrite ends one direction.
func (c *gatheringConn) CloseWrite() error {
	c.sendNow()
	return c.wrapped.CloseWrite()
}

// Close implements net.Conn.
func (c *gatheringConn) Close() error {
	c.sendNow()
	return c.Conn.Close()
}
