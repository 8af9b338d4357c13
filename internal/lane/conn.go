package lane

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/doorward/doorward/internal/yield"
)

// conn is a connection in the lane.
type conn struct {
	net.Conn
	server *Server
	socket syscall.RawConn
	base   context.Context // as http.Server would have it
	from   string

	ctx  context.Context // ends with the connection
	lost context.CancelFunc

	state    atomic.Int32
	deadline time.Time // of reading, as far as it is known; zero: none
	watch    watch

	room  *room                 // nil while it waits, and while it answers
	size  int                   // of what was read
	few   [leastOfNext - 1]byte // of that, while it waits
	taken func(fd uintptr) bool // take
}

// The states of a connection.
const (
	idle = iota
	busy
	closed // while it was idle
)

// serve serves it until it ends or leaves the lane.
func (c *conn) serve() {
	gone := false
	defer func() {
		if c.room != nil {
			c.room.leave()
		}
		if !gone {
			c.Conn.Close()
			c.note(http.StateClosed)
		}
		c.server.remove(c)
	}()
	h := c.server.http
	if from := c.RemoteAddr(); from != nil { // from here on it can be read
		c.from = from.String()
	}
	if c.socket = socketOf(c.Conn); c.socket == nil || h.ReadTimeout > 0 || h.WriteTimeout > 0 || h.Protocols != nil && !h.Protocols.HTTP1() {
		gone = c.handOver(nil, time.Time{})
		return
	}
	c.ctx, c.lost = context.WithCancel(context.WithValue(c.base, http.LocalAddrContextKey, c.LocalAddr()))
	defer c.lost()
	c.taken = c.take
	c.watch.init(c)
	if h.ReadHeaderTimeout > 0 {
		c.deadline = time.Now().Add(h.ReadHeaderTimeout)
		c.SetReadDeadline(c.deadline)
	}
	least := 1
	for by := c.deadline; c.wait(least) && c.state.CompareAndSwap(idle, busy); by, least = (time.Time{}), leastOfNext {
		if look(c.room.in[:c.size]) == part {
			by = c.gather(by)
		}
		r := c.room.request(c.size, h)
		if r == nil {
			gone = c.handOver(c.room.in[:c.size], by)
			return
		}
		c.note(http.StateActive)
		if !c.answer(r) {
			return
		}
		c.state.Store(idle)
		c.note(http.StateIdle)
		if c.server.over.Load() {
			return
		}
		c.renew(h.IdleTimeout)
	}
}

// leastOfNext is how much of a request behind another http.Server waits for before it
// takes it for one: less is no request, and no mistake.
const leastOfNext = 4

// wait waits for the next request, and reports whether there is something of it: as
// much as http.Server waits for. It holds no room meanwhile.
func (c *conn) wait(least int) bool {
	yield.ToOthers() // then there is something more often than not, and no look in vain
	c.size = 0
	for had := -1; c.size < least && c.size > had; {
		had = c.size
		if c.socket.Read(c.taken) != nil {
			return false
		}
	}
	return c.size >= least
}

// take reads what is there.
func (c *conn) take(fd uintptr) bool {
	if c.room == nil {
		c.room = rooms.Get().(*room)
		copy(c.room.in[:], c.few[:c.size])
	}
	n, _, ready := readNow(fd, c.room.in[c.size:])
	if c.size += n; !ready && c.size < leastOfNext {
		copy(c.few[:], c.room.in[:c.size])
		c.room.leave()
		c.room = nil
	}
	return ready
}

// gatherWait is how long the rest of a head may take that is longer than a packet.
const gatherWait = 100 * time.Millisecond

// gather waits a moment for the rest of a head that has to be there by a time, or that
// has just begun. It returns by when it has to be there.
func (c *conn) gather(by time.Time) time.Time {
	now := time.Now()
	if limit := c.server.http.ReadHeaderTimeout; by.IsZero() && limit > 0 {
		by = now.Add(limit)
	}
	if c.deadline = now.Add(gatherWait); !by.IsZero() && by.Before(c.deadline) {
		c.deadline = by
	}
	c.SetReadDeadline(c.deadline)
	for had := 0; c.size > had && c.size < headRoom && look(c.room.in[:c.size]) == part; {
		had = c.size
		c.socket.Read(c.taken)
	}
	return by
}

// renew has the next request come within a time, or a little more: up to an eighth,
// at most a second, so that a busy connection has its deadline set once a second.
func (c *conn) renew(within time.Duration) {
	if within <= 0 {
		if !c.deadline.IsZero() {
			c.deadline = time.Time{}
			c.SetReadDeadline(c.deadline)
		}
		return
	}
	slack := min(within/8, time.Second)
	if left := time.Until(c.deadline); left < within || left > within+slack {
		c.deadline = time.Now().Add(within + slack)
		c.SetReadDeadline(c.deadline)
	}
}

// handOver gives the connection to the http.Server, with what was read of it, of a
// request that has to be there by a time; zero: as the http.Server has it.
func (c *conn) handOver(read []byte, by time.Time) (taken bool) {
	if !c.deadline.IsZero() {
		c.SetReadDeadline(time.Time{})
	}
	return c.server.rest.give(&left{Conn: c.Conn, ctx: c.base, read: append([]byte(nil), read...), by: by})
}

// closeIdle closes it unless there is something of a request.
func (c *conn) closeIdle() {
	if c.state.CompareAndSwap(idle, closed) {
		c.Conn.Close()
	}
}

// note tells the hook of the http.Server of a change.
func (c *conn) note(to http.ConnState) {
	if hook := c.server.http.ConnState; hook != nil {
		hook(c.Conn, to)
	}
}
