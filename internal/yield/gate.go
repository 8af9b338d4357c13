package yield

import (
	"sync"
	"time"
)

// longest is how long a gate stays closed, however much there is to do.
const longest = 2 * time.Millisecond

// all is the gate of the process.
var all = sync.OnceValue(func() *gate { return newGate(untilQuiet(longest)) })

// gate holds goroutines back, and lets them go on together.
type gate struct {
	quiet func() // returns when nobody else has anything to do

	mu     sync.Mutex // protects what follows
	opens  sync.Cond
	closed bool
}

func newGate(quiet func()) *gate {
	g := &gate{quiet: quiet}
	g.opens.L = &g.mu
	return g
}

// wait closes the gate, if nobody has, and returns when it is opened.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		go g.open()
	}
	g.opens.Wait()
}

// open opens the gate when everybody is there.
func (g *gate) open() {
	g.quiet()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
	g.opens.Broadcast()
}
