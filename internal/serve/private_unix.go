//go:build unix

package serve

import (
	"os"
	"syscall"
)

// keepPrivate has no process that this one starts inherit a file.
func keepPrivate(fd int) { syscall.CloseOnExec(fd) }

// copyOf returns a copy of a listener's file for another process. The File method
// of listeners is of no use: what it returns turns to blocking mode when it is
// passed on, and with it the listener, whose Accept cannot be ended then.
func copyOf(l syscall.Conn, name string) (file *os.File, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	control := raw.Control(func(fd uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		var copied int
		if copied, err = syscall.Dup(int(fd)); err == nil {
			syscall.CloseOnExec(copied)
			file = os.NewFile(uintptr(copied), name)
		}
	})
	if control != nil {
		err = control
	}
	return file, err
}
