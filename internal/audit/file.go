package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
)

// openFile opens a file for appending. Only a regular file will do: behind a
// symbolic link somebody else may choose what gets overgrown with events.
func openFile(path string, log *slog.Logger) (io.WriteCloser, error) {
	if err := regular(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Reading is needed for the last byte only.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("audit log: %w; create the directory and give it to the user Doorward runs as", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("audit log: %w; the user Doorward runs as has to be allowed to read and write it", err)
	case err != nil:
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if err := prepareFile(f, path, log); err != nil {
		f.Close()
		return nil, err
	}
	return &logFile{File: f, settle: settle}, nil
}

// settleEvery is after how many bytes a log is brought to the disk.
const settleEvery = 4 << 20

// logFile is a file that is brought to the disk as it grows, and not all at once when
// memory is full of it, or after half a minute; what is there leaves memory, for
// others to use. Nobody waits for it.
type logFile struct {
	*os.File
	settle func(*os.File)

	grown    int // bytes since then
	settling atomic.Bool
}

// Write implements io.Writer.
func (f *logFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.grown += n; f.grown >= settleEvery && f.settling.CompareAndSwap(false, true) {
		f.grown = 0
		go func() {
			defer f.settling.Store(false)
			f.settle(f.File)
		}()
	}
	return n, err
}

func prepareFile(f *os.File, path string, log *slog.Logger) error {
	if err := regular(path); err != nil {
		return err // it was replaced between the first look and the opening
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		log.Warn("everybody on this machine may open the audit log", "path", path, "mode", info.Mode().Perm().String(), "cure", "chmod o-rwx "+path)
	}
	if info.Size() == 0 {
		return nil
	}
	// A crash may have cut the last line; end it, so that the next one is whole.
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if last[0] != '\n' {
		if _, err := f.Write([]byte("\n")); err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		log.Warn("the last line of the audit log was cut off by a crash", "path", path)
	}
	return nil
}

func regular(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return fmt.Errorf("audit log: %w", err)
	case info.Mode().IsRegular():
		return nil
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("audit log: %s is a symbolic link; name the file itself", path)
	}
	return fmt.Errorf("audit log: %s is not a regular file", path)
}
