package yield

import (
	"sync"
	"time"
)

// longest is how long a gate stays closed, however much there is to do.
const longest = 2 * time.Millisecond

// all is the gate of the process.
var all = sync.OnceValue(func() *gate { return newGate(untilQuiet(longest)) })

// A gate costs something as well: a row of less than so many saves nothing, and then so
// many pass before it is tried again.
const (
	shortRow = 8
	pass     = 256
)

// gate holds goroutines back, and lets them go on together.
type gate struct {
	quiet func() // returns when nobody else has anything to do

	mu      sync.Mutex // protects what follows
	opens   sync.Cond
	waiting int // while it is closed
	free    int // how many may pass
}

func newGate(quiet func()) *gate {
	g := &gate{quiet: quiet}
	g.opens.L = &g.mu
	return g
}

// wait closes the gate, if nobody has, and returns when it is opened; at once where it
// is for a row only and few others would wait.
func (g *gate) wait(row bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if row && g.free > 0 {
		g.free--
		return
	}
	if g.waiting++; g.waiting == 1 {
		go g.open()
	}
	g.opens.Wait()
}

// open opens the gate when everybody is there.
func (g *gate) open() {
	g.quiet()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting < shortRow {
		g.free = pass
	}
	g.waiting = 0
	g.opens.Broadcast()
}
