package session

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// heard collects signals.
type heard struct {
	mu   sync.Mutex
	list []access.Signal
}

func (h *heard) options(o *Options) {
	o.Signal = func(s access.Signal) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.list = append(h.list, s)
	}
}

// take returns what was heard since the last time.
func (h *heard) take() []access.Signal {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.list
	h.list = nil
	return list
}

// Every replica is told of every end and every change of a login, by whichever
// replica, and finds it so when it looks.
func TestEveryReplicaIsToldOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		var h, other heard
		here, there := newDesk(t, s, h.options), newDesk(t, s, other.options)
		first := here.start(start("alice"))
		e, _ := here.load(first, authHost)
		h.take()
		other.take()

		stronger := start("alice")
		stronger.Identity.Login.ACR, stronger.Previous = "phr", first
		secret := there.start(stronger)
		for _, h := range []*heard{&h, &other} {
			if list := h.take(); len(list) != 1 || list[0] != (access.Signal{Session: e.Session.ID}) {
				t.Errorf("after a step-up: %+v", list)
			}
		}
		for _, by := range []bool{false, true} {
			now, err := here.Reopen(here.ctx, e.Session.ID, here.now(), by)
			if err != nil || now.Identity.Login.ACR != "phr" {
				t.Errorf("%+v %v", now, err)
			}
		}
		if _, err := there.End(there.ctx, secret, access.SessionEnded); err != nil {
			t.Fatal(err)
		}
		for _, h := range []*heard{&h, &other} {
			if list := h.take(); len(list) != 1 || list[0] != (access.Signal{Reason: access.SessionEnded, Session: e.Session.ID}) {
				t.Errorf("after a logout: %+v", list)
			}
		}
		if _, err := here.Reopen(here.ctx, e.Session.ID, here.now(), true); access.ReasonOf(err) != access.SessionEnded {
			t.Error(err)
		}
	})
}

// Whoever may have missed something is told that it may be anything.
func TestMissedChangesAreASignalAboutEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		deaf := silent(memory(t))
		newDesk(t, deaf, h.options)
		deaf.feed <- store.Change{Lost: true}
		if list := h.take(); len(list) != 1 || list[0] != (access.Signal{}) {
			t.Errorf("%+v", list)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var h heard
		broken := &faultyStore{Store: memory(t)}
		newDesk(t, broken, h.options)
		broken.endWatches()
		if list := h.take(); len(list) != 1 || list[0] != (access.Signal{}) {
			t.Errorf("while nothing is reported: %+v", list)
		}
		pause(t.Context(), 2*rewatch)
		if list := h.take(); len(list) != 1 || list[0] != (access.Signal{}) {
			t.Errorf("when it is again: %+v", list)
		}
	})
}
