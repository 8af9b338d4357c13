package proxy

import (
	"errors"
	"net"
)

// wrapped is a connection to which something is added. It can still do what one over
// TCP can do besides what every connection can; who needs that looks for it: net/http,
// WebSockets and tunnels.
type wrapped struct{ net.Conn }

// CloseWrite ends one direction.
func (w wrapped) CloseWrite() error { return closeWrite(w.Conn) }

// SetLinger says what becomes of what is not sent yet when the connection is closed.
func (w wrapped) SetLinger(seconds int) error {
	if tcp, ok := w.Conn.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// closeWrite ends one direction of a connection, where it can do that.
func closeWrite(conn any) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
