package audit

import (
	"os"

	"golang.org/x/sys/unix"
)

// settle begins to write to the disk what has changed, and has memory forget what is
// written already (posix_fadvise(2)). It is advice: that it is not taken is no error.
func settle(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
}
