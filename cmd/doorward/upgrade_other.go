//go:build !unix

package main

import "os"

// upgradeSignals are none: no other process can take over here.
var upgradeSignals []os.Signal
