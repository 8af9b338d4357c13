package proxy

import (
	"net"

	"github.com/doorward/doorward/internal/yield"
)

// Gathering wraps a listener for connections that carry many answers at a time, as
// HTTP/2 does. net/http gives each answer a write of its own, as soon as it is
// there. Here a write lets the goroutines go first that could run at that moment
// (see package yield): what they have to say on the same connection is then part of
// the next write, so that under load one carries several answers. Where nothing else
// could run, the write is not held up.
func Gathering(l net.Listener) net.Listener { return gathering{l} }

type gathering struct{ net.Listener }

// Accept implements net.Listener.
func (l gathering) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return gatheringConn{wrapped{conn}}, nil
}

type gatheringConn struct{ wrapped }

// Write implements net.Conn.
func (c gatheringConn) Write(b []byte) (int, error) {
	yield.ToOthers()
	return c.Conn.Write(b)
}
