//go:build unix

package audit

import (
	"errors"
	"os"
	"syscall"
)

// takeLock takes a file for this process until it is closed.
func takeLock(file *os.File) error {
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return errors.New("another process uses it")
	}
	return nil
}
