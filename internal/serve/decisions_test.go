package serve

import (
	"strconv"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

// What is kept for the admin listener does not grow, and the newest stays.
func TestRecentDecisionsAreBounded(t *testing.T) {
	all := &recorder{tally: admin.NewTally(nil)}
	r := &all.decisions
	if list := r.last(10); len(list) != 0 {
		t.Errorf("%d decisions from the start", len(list))
	}
	for i := range 2*maxRecent + 1 {
		all.remember(&access.Event{Kind: access.EventDecision, Request: &access.Request{ID: strconv.Itoa(i)}, Decision: &access.Decision{}})
		all.remember(&access.Event{Kind: access.EventLogin})
		all.remember(&access.Event{Kind: access.EventDecision, Request: &access.Request{ID: "one of our own addresses"}})
	}
	list := r.last(5 * maxRecent)
	if len(list) != maxRecent || list[0].Request.ID != strconv.Itoa(2*maxRecent) || list[maxRecent-1].Request.ID != strconv.Itoa(maxRecent+1) {
		t.Errorf("%d, from %s to %s", len(list), list[0].Request.ID, list[len(list)-1].Request.ID)
	}
	all.remember(&access.Event{Kind: access.EventAdmin, Note: "somebody did something"})
	if list := all.actions.last(5); len(list) != 1 || list[0].Note != "somebody did something" {
		t.Errorf("%+v", list)
	}
	if list := r.last(2); len(list) != 2 || list[1].Request.ID != strconv.Itoa(2*maxRecent-1) {
		t.Errorf("%+v", list)
	}
}
