package admin

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// decisionsView answers: what was decided lately, and on whom?
type decisionsView struct {
	Pick    decisionFilter
	Rows    []decisionRow
	Kept    int // how many are in memory
	Fitting int // how many of them fit, shown or not

	Routes, Reasons []string // those that occur
}

// decisionFilter picks decisions. Every field that is not empty narrows it.
type decisionFilter struct {
	// Person is part of a name, an address or an id; Device of the name or the id.
	Person, Device                  string
	Route, Outcome, Reason, Session string
}

type decisionRow struct {
	Decision
	Who    string
	Device string
}

// maxRows is how many of a list a page shows.
const maxRows = 100

func (f *decisionFilter) fits(e *access.Event) bool {
	id, d := &e.Request.Identity, &e.Request.Device
	return (f.Person == "" || containsFold(f.Person, id.User(), id.Email, id.Name, id.Username)) &&
		(f.Device == "" || containsFold(f.Device, d.ID, d.Name)) &&
		(f.Route == "" || f.Route == e.Request.Route) &&
		(f.Outcome == "" || f.Outcome == e.Decision.Outcome.String()) &&
		(f.Reason == "" || f.Reason == string(finalReason(e))) &&
		(f.Session == "" || f.Session == e.Request.Session.ID)
}

// finalReason is why a request was answered as it was: what happened after the
// decision counts more than the decision.
func finalReason(e *access.Event) access.Reason { return cmp.Or(e.Response.Reason, e.Decision.Reason) }

func containsFold(part string, texts ...string) bool {
	part = strings.ToLower(part)
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(strings.ToLower(text), part) })
}

// maxKept is how many decisions are asked for; nobody keeps more in memory.
const maxKept = 1000

func (a *api) decisionPages() []uiPage {
	if a.Decisions == nil {
		return nil
	}
	return []uiPage{
		{"GET /decisions", "Decisions", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			view := decisionsView{Pick: decisionFilter{Person: strings.TrimSpace(q.Get("person")), Device: strings.TrimSpace(q.Get("device")),
				Route: q.Get("route"), Outcome: q.Get("outcome"), Reason: q.Get("reason"), Session: q.Get("session")}}
			routes, reasons := map[string]bool{}, map[string]bool{}
			for _, e := range a.Decisions.Recent(maxKept) {
				view.Kept++
				routes[e.Request.Route], reasons[string(finalReason(e))] = true, true
				if !view.Pick.fits(e) {
					continue
				}
				if view.Fitting++; len(view.Rows) < maxRows {
					view.Rows = append(view.Rows, newDecisionRow(e))
				}
			}
			// What was asked for can be chosen again, though nothing of it is left.
			routes[view.Pick.Route], reasons[view.Pick.Reason] = true, true
			delete(routes, "")
			delete(reasons, "")
			view.Routes, view.Reasons = slices.Sorted(maps.Keys(routes)), slices.Sorted(maps.Keys(reasons))
			a.render(w, r, http.StatusOK, "decisions", "Decisions", view)
		}},
		{"GET /decision", "", func(w http.ResponseWriter, r *http.Request) {
			id := r.URL.Query().Get("id")
			past := a.Decisions.Past(id)
			i := -1
			recent := a.Decisions.Recent(maxKept)
			if past != nil {
				i = slices.IndexFunc(recent, func(e *access.Event) bool { return e.Request.ID == id })
			}
			if i < 0 {
				a.refuse(w, r, &Fault{http.StatusNotFound, "no recent decision has the id " + strconv.Quote(plain(id)), "the audit log has all of them: doorward explain --id"})
				return
			}
			a.render(w, r, http.StatusOK, "decision", "One decision", decisionView{newDecisionRow(recent[i]), recent[i], past})
		}},
	}
}

// decisionView answers: why?
type decisionView struct {
	Row   decisionRow
	Event *access.Event
	// Past is the explanation, as Decisions gives it: what is in the fields that
	// decision.html names. Package authz knows them, this one does not.
	Past any
}

func newDecisionRow(e *access.Event) decisionRow {
	req := e.Request
	row := decisionRow{Decision: newDecision(e), Who: personName(&req.Identity), Device: cmp.Or(req.Device.Name, req.Device.ID)}
	row.Reason = finalReason(e)
	return row
}

// personName is how a person is called on the pages.
func personName(id *access.Identity) string {
	return cmp.Or(id.Email, id.Username, id.Name, id.User(), "nobody")
}
