//go:build unix

package main

import (
	"os"
	"syscall"
)

// upgradeSignals ask for another process to take over.
var upgradeSignals = []os.Signal{syscall.SIGUSR2}
