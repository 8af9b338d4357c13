package proxy

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent asks the system what it has of a connection that the other side has not
// acknowledged.
type unsent struct {
	raw  syscall.RawConn // nil: it cannot be asked
	ask  func(fd uintptr)
	size int
	err  error
}

// nothing reports that it has nothing.
func (u *unsent) nothing(conn net.Conn) bool {
	if u.ask == nil {
		u.ask = func(fd uintptr) { u.size, u.err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }
		if a, ok := conn.(*announced); ok {
			conn = a.Conn // whether the preamble is there does not matter
		}
		if socket, ok := conn.(syscall.Conn); ok {
			u.raw, u.err = socket.SyscallConn()
		}
	}
	return u.raw != nil && u.err == nil && u.raw.Control(u.ask) == nil && u.err == nil && u.size == 0
}
