//go:build !unix

package serve

import (
	"errors"
	"os"
	"syscall"
)

// keepPrivate does nothing where no files are inherited.
func keepPrivate(int) {}

// copyOf fails where no files are inherited.
func copyOf(syscall.Conn, string) (*os.File, error) { return nil, errors.ErrUnsupported }
