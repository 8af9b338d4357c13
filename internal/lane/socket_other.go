//go:build !linux && !darwin

package lane

import (
	"net"
	"syscall"
)

// socketOf returns nil: no connection is in the lane here.
func socketOf(net.Conn) syscall.RawConn { return nil }

func readNow(uintptr, []byte) (int, error, bool) { return 0, syscall.EINVAL, true }

func peekNow(uintptr) (int, error, bool) { return 0, syscall.EINVAL, true }
