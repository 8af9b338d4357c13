package serve

import (
	"strconv"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// What is kept for the admin listener does not grow, and the newest stays.
func TestRecentDecisionsAreBounded(t *testing.T) {
	var r recent
	if list := r.last(10); len(list) != 0 {
		t.Errorf("%d decisions from the start", len(list))
	}
	for i := range 2*maxRecent + 1 {
		r.add(&access.Event{Kind: access.EventDecision, Request: &access.Request{ID: strconv.Itoa(i)}, Decision: &access.Decision{}})
		r.add(&access.Event{Kind: access.EventLogin})
		r.add(&access.Event{Kind: access.EventDecision, Request: &access.Request{ID: "one of our own addresses"}})
	}
	list := r.last(5 * maxRecent)
	if len(list) != maxRecent || list[0].Request.ID != strconv.Itoa(2*maxRecent) || list[maxRecent-1].Request.ID != strconv.Itoa(maxRecent+1) {
		t.Errorf("%d, from %s to %s", len(list), list[0].Request.ID, list[len(list)-1].Request.ID)
	}
	if list := r.last(2); len(list) != 2 || list[1].Request.ID != strconv.Itoa(2*maxRecent-1) {
		t.Errorf("%+v", list)
	}
}
