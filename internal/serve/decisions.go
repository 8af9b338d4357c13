package serve

import (
	"sync"
	"sync/atomic"

	"github.com/doorward/doorward/internal/access"
)

// maxRecent is how many decisions, and how many actions of operators, are kept in
// memory for the admin listener. The audit log has all of them.
const maxRecent = 1000

// remember keeps what the admin listener shows.
func (r *recorder) remember(e *access.Event) {
	switch {
	case e.Kind == access.EventDecision && e.Request != nil && e.Decision != nil:
		r.decisions.add(e)
	case e.Kind == access.EventAdmin || e.Kind == access.EventConfig:
		r.actions.add(e)
	}
	r.tally.Event(e)
}

// recent holds copies of the latest events of some kind in a ring. Every request
// of every core comes by, so that each place has a lock of its own.
type recent struct {
	ring [maxRecent]keepsake
	next atomic.Int64
}

// keepsake is where a copy is kept, of one event after the other.
type keepsake struct {
	mu    sync.Mutex
	event *access.Event // nil: none yet
	copy  access.EventCopy
}

func (r *recent) add(e *access.Event) {
	at := &r.ring[(r.next.Add(1)-1)%maxRecent]
	at.mu.Lock()
	defer at.mu.Unlock()
	at.event = at.copy.Of(e)
}

// get returns a copy of the event, nil if there is none.
func (k *keepsake) get() *access.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.event == nil {
		return nil
	}
	return k.event.Clone()
}

// last returns at most n of them, newest first. What is added meanwhile may stand
// in the place of the oldest.
func (r *recent) last(n int) (list []*access.Event) {
	next := r.next.Load()
	for i := next - 1; i >= max(0, next-maxRecent) && len(list) < n; i-- {
		if e := r.ring[i%maxRecent].get(); e != nil { // nil: one is about to be there
			list = append(list, e)
		}
	}
	return list
}

// adminDecisions implements admin.Decisions with the configuration in force.
type adminDecisions struct{ *live }

func (a adminDecisions) Recent(limit int) []*access.Event { return a.records.decisions.last(limit) }

func (a adminDecisions) Past(id string) any {
	for _, e := range a.records.decisions.last(maxRecent) {
		if e.Request.ID == id {
			cfg := a.current.Load().cfg
			return cfg.Policy.Past(e.Decision, cfg.Table.Rematch(e.Request))
		}
	}
	return nil
}

func (a adminDecisions) Explain(req *access.Request) any {
	cfg := a.current.Load().cfg
	_, tree := cfg.Policy.Explain(cfg.Table.Rematch(req))
	return tree
}
