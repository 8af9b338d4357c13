//go:build !linux

package yield

import (
	"runtime"
	"time"
)

// untilQuiet returns a function that lets those go first who can run now.
func untilQuiet(time.Duration) func() { return runtime.Gosched }
