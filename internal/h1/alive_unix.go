//go:build linux || darwin

package h1

import "syscall"

// peek looks whether something has come over a connection that carries no
// request: its end, or bytes that are no answer to anything. It waits for
// nothing and takes nothing away.
func peek(fd uintptr) (quiet bool) {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN || err == syscall.EINTR
}
