package serve

import (
	"sync/atomic"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// news carries signals to the door, which is made after some of those who have
// any. Before that nothing is open that they could be about.
type news struct{ door atomic.Pointer[proxy.Door] }

func (n *news) send(sig access.Signal) {
	if door := n.door.Load(); door != nil {
		door.Signal(sig)
	}
}
