package yield

import (
	"encoding/binary"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// untilQuiet returns a function that waits until nobody else has anything to do, and
// at most for a time.
//
// The runtime looks at the network when nobody can run, and otherwise a hundred times
// a second. So the function waits for something on the "network" that is there already:
// it is woken by that look, together with all for whom something else has come, and
// lets them go first. Each write to an eventfd wakes anew, and nobody has to read
// (epoll(7), edge-triggered).
func untilQuiet(atMost time.Duration) func() {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return runtime.Gosched // almost as good
	}
	event := os.NewFile(uintptr(fd), "eventfd")
	raw, err := event.SyscallConn()
	if err != nil || event.SetReadDeadline(time.Time{}) != nil {
		event.Close()
		return runtime.Gosched
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	return func() {
		event.SetReadDeadline(time.Now().Add(atMost))
		written := false
		raw.Read(func(fd uintptr) bool {
			if written {
				return true
			}
			written = true
			_, err := syscall.Write(int(fd), one)
			return err != nil // nothing would wake it
		})
		runtime.Gosched()
	}
}
