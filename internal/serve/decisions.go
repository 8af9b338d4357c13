package serve

import (
	"sync"

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

// recent holds the latest events of some kind in a ring.
type recent struct {
	mu   sync.Mutex
	ring [maxRecent]*access.Event
	next int
}

func (r *recent) add(e *access.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.next%maxRecent] = e
	r.next++
}

// last returns at most n of them, newest first.
func (r *recent) last(n int) (list []*access.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.next - 1; i >= 0 && i >= r.next-maxRecent && len(list) < n; i-- {
		list = append(list, r.ring[i%maxRecent])
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
