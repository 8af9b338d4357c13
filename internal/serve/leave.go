package serve

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// connections counts those that are open.
type connections struct{ open atomic.Int64 }

// note is a hook of http.Server.
func (c *connections) note(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.open.Add(1)
	case http.StateClosed, http.StateHijacked: // what was hijacked is a request in flight
		c.open.Add(-1)
	}
}

// leave ends what is open here while another process serves. Nothing is accepted
// any more; a connection over which another request comes is used once more, and
// what is open goes on for as long as it would at a shutdown. It returns early when
// the other process ends, without which nothing can be decided any more.
func (l *live) leave(ctx context.Context, next *successor, sides sides) {
	l.door.Leave()
	left := sides.leave(ctx)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for l.connections.open.Load() > 0 || l.door.InFlight() > 0 || left != nil {
		select {
		case <-left:
			left = nil
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-next.ended:
			l.log.Error("the process that has taken over has ended; what is open here ends now", "state", next.err)
			return
		}
	}
}
