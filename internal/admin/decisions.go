package admin

import (
	"net/http"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Decisions shows what was decided lately, and why.
type Decisions interface {
	// Recent returns the latest decisions, newest first, at most limit.
	Recent(limit int) []*access.Event
	// Past explains one of them, nil if it is not among the recent ones.
	Past(id string) any
	// Explain explains what would be decided on a request. Its route is found
	// from its address.
	Explain(req *access.Request) any
}

// Decision is one line of GET /api/v1/decisions.
type Decision struct {
	ID      string         `json:"id"`
	Time    time.Time      `json:"time"`
	Method  string         `json:"method,omitempty"`
	Host    string         `json:"host"`
	Path    string         `json:"path,omitempty"`
	Route   string         `json:"route,omitempty"`
	User    string         `json:"user,omitempty"`
	Device  string         `json:"device,omitempty"`
	Outcome access.Outcome `json:"outcome"`
	Reason  access.Reason  `json:"reason,omitempty"`
	Rule    string         `json:"rule,omitempty"`
	Status  int            `json:"status,omitempty"`
	// Candidate is what the candidate configuration would have decided, where
	// that differs.
	Candidate string `json:"candidate,omitempty"`
}

// DecisionList is the answer of GET /api/v1/decisions.
type DecisionList struct {
	Decisions []Decision `json:"decisions"`
}

// Question is the body of POST /api/v1/explain.
type Question struct {
	// Request is what would be asked, in the form of the audit log.
	Request *access.Request `json:"request"`
}

func (a *api) decisionEndpoints() []endpoint {
	if a.Decisions == nil {
		return nil
	}
	return []endpoint{
		{"GET /api/v1/decisions", a.show(func(r *http.Request) (any, error) {
			limit, err := limitOf(r)
			if err != nil {
				return nil, err
			}
			list := DecisionList{Decisions: []Decision{}}
			for _, e := range a.Decisions.Recent(limit) {
				list.Decisions = append(list.Decisions, newDecision(e))
			}
			return list, nil
		})},
		{"GET /api/v1/explain", a.show(func(r *http.Request) (any, error) {
			id := r.FormValue("id")
			if past := a.Decisions.Past(id); past != nil {
				return past, nil
			}
			return nil, &Fault{http.StatusNotFound, "no recent decision has the id " + strconv.Quote(id), "ask the audit log: doorward explain --id"}
		})},
		{"POST /api/v1/explain", func(w http.ResponseWriter, r *http.Request) {
			var ask Question
			err := readBody(w, r, &ask)
			if err == nil && ask.Request == nil {
				err = &Fault{http.StatusBadRequest, "request is missing", "post {\"request\": {…}} as the audit log writes it"}
			}
			if err != nil {
				a.fail(w, err)
				return
			}
			a.reply(w, http.StatusOK, a.Decisions.Explain(ask.Request))
		}},
	}
}

func newDecision(e *access.Event) Decision {
	req, d := e.Request, e.Decision
	line := Decision{ID: req.ID, Time: req.Time, Method: req.Method, Host: req.Host, Path: access.HideTokens(req.Path), Route: req.Route,
		User: req.Identity.User(), Device: req.Device.ID, Outcome: d.Outcome, Reason: d.Reason, Rule: d.Rule, Status: e.Response.Status}
	if e.Candidate != nil {
		line.Candidate = e.Candidate.Decision.Outcome.String() + " (" + string(e.Candidate.Decision.Reason) + ")"
	}
	return line
}
