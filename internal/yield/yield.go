// Package yield answers the question: where does it save work to let others go first?
package yield

import "runtime"

// alone tells that there is one processor, as sidecars often have.
var alone = runtime.GOMAXPROCS(0) == 1

// ToOthers lets the goroutines go first that could run now. Whoever is about to look
// for something that others bring finds it more often after that, without waiting,
// and whoever is about to write finds more to be written at once. It does so only where
// there is one processor: where there are more, the others run already, and to
// give way takes a lock that all share and wakes processors that have nothing to do.
func ToOthers() {
	if alone {
		runtime.Gosched()
	}
}
