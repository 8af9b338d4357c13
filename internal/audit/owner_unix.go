//go:build unix

package audit

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a file the owner of another, where this process may give files
// away.
func keepOwner(file *os.File, like fs.FileInfo) error {
	stat, ok := like.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return file.Chown(int(stat.Uid), int(stat.Gid))
}
