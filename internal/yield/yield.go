// Package yield answers the question: where does it save work to let others go first?
//
// It does so only where there is one processor, as sidecars often have. Where there are
// more, the others run already, and to give way takes a lock that all share and wakes
// processors that have nothing to do.
package yield

import "runtime"

var alone = runtime.GOMAXPROCS(0) == 1

// Alone reports whether there is one processor, and giving way does anything.
func Alone() bool { return alone }

// ToOthers lets the goroutines go first that could run now. Whoever is about to look
// for something that others bring finds it more often after that, without waiting.
func ToOthers() {
	if alone {
		runtime.Gosched()
	}
}

// ToAll lets everybody go first who has anything to do, be it after a look at the
// network, and at most for two milliseconds. Whoever gathers something finds more
// after that.
func ToAll() {
	if alone {
		all().wait(false)
	}
}

// InARow is ToAll for what is said to another process: those who wait go on one behind
// the other. The other process is then woken up once for many messages, and to wake up a
// processor that sleeps may take longer than all the rest of a message, above all in a
// virtual machine. Where few would wait, nobody does.
func InARow() {
	if alone {
		all().wait(true)
	}
}
