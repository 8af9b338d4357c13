//go:build linux || darwin

package lane

import (
	"net"
	"syscall"
)

// socketOf returns the socket of a connection, nil if it has none of its own: the
// lane reads there, so that it can wait without a buffer.
func socketOf(c net.Conn) syscall.RawConn {
	has, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	socket, err := has.SyscallConn()
	if err != nil {
		return nil
	}
	return socket
}

// readNow reads what is there. It waits for nothing: then ready is false.
func readNow(fd uintptr, b []byte) (n int, err error, ready bool) {
	for {
		switch n, err = syscall.Read(int(fd), b); err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil, false
		default:
			return max(n, 0), err, true
		}
	}
}

// peekNow looks whether something is there, and takes nothing away: n is 0 at the end.
func peekNow(fd uintptr) (n int, err error, ready bool) {
	var b [1]byte
	for {
		switch n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT); err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil, false
		default:
			return max(n, 0), err, true
		}
	}
}
