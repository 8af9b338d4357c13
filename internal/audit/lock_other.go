//go:build !unix

package audit

import (
	"errors"
	"os"
)

// takeLock refuses: without a lock two processes could write into one spool, and
// only the client runs on such systems.
func takeLock(*os.File) error {
	return errors.New("spools are kept on Unix systems only")
}
