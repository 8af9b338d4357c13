package admin

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// verdicts is the Decisions of the tests: two decisions, and explanations that
// tell what they are about.
type verdicts struct{}

const tokenInPath = "/verify/eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI4ZjFjMmQifQ.c2ln"

func (verdicts) Recent(limit int) []*access.Event {
	event := func(id, path string) *access.Event {
		e := &access.Event{Kind: access.EventDecision, Request: &access.Request{ID: id, Time: time.Unix(1e9, 0).UTC(), Method: "GET", Host: "app.example", Path: path, Route: "app",
			Identity: access.Identity{Provider: "corp", Issuer: "i", Subject: "ann", Email: "ann@example.com"}},
			Decision: &access.Decision{Outcome: access.Allow, Reason: access.Allowed, Rule: "allow/all"}}
		e.Response.Status = 200
		return e
	}
	newest := event("r2", tokenInPath)
	newest.Candidate = &access.Candidate{Decision: access.Decision{Reason: access.NotAllowed}}
	return []*access.Event{newest, event("r1", "/plans")}[:min(limit, 2)]
}

func (verdicts) Past(id string) any {
	if id != "r1" {
		return nil
	}
	return map[string]string{"past": id, "path": tokenInPath}
}

func (verdicts) Explain(req *access.Request) any { return map[string]string{"asked": req.Path} }

func TestDecisions(t *testing.T) {
	d := newDesk(testToken)
	d.Handler = New(Options{Config: Config{Token: access.NewSecret(testToken)}, Decisions: verdicts{}})
	rec := d.ask("GET", "/api/v1/decisions", "")
	var list DecisionList
	if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil || rec.Code != 200 || len(list.Decisions) != 2 {
		t.Fatal(err, rec.Code, rec.Body)
	}
	want := Decision{ID: "r2", Time: time.Unix(1e9, 0).UTC(), Method: "GET", Host: "app.example", Path: "/verify/[redacted]", Route: "app", User: "corp:ann",
		Outcome: access.Allow, Reason: access.Allowed, Rule: "allow/all", Status: 200, Candidate: "deny (not_allowed)"}
	if got := list.Decisions[0]; got != want {
		t.Errorf("%+v", got)
	}
	if rec := d.ask("GET", "/api/v1/decisions?limit=1", ""); strings.Contains(rec.Body.String(), "r1") {
		t.Error(rec.Body)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/api/v1/explain?id=r1", "", 200, `"past": "r1"`},
		{"GET", "/api/v1/explain?id=r9", "", 404, "doorward explain --id"},
		{"GET", "/api/v1/explain", "", 404, ""},
		{"POST", "/api/v1/explain", `{"request": {"path": "/x"}}`, 200, `"asked": "/x"`},
		{"POST", "/api/v1/explain", `{}`, 400, "request is missing"},
		{"POST", "/api/v1/explain", `{"request": {"pfad": "/x"}}`, 400, "pfad"},
		{"POST", "/api/v1/explain", `{"request": {"path": "` + strings.Repeat("x", maxBody) + `"}}`, 400, "too large"},
		{"DELETE", "/api/v1/decisions", "", 405, ""},
	} {
		if rec := d.ask(c.method, c.path, c.body); rec.Code != c.status || !strings.Contains(rec.Body.String(), c.says) || strings.Contains(rec.Body.String(), "eyJ") {
			t.Errorf("%s %s: %d %.200s", c.method, c.path, rec.Code, rec.Body)
		}
	}
	for _, path := range []string{"/api/v1/decisions", "/api/v1/explain?id=r1"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "127.0.0.1:9901"
		rec := httptest.NewRecorder()
		d.ServeHTTP(rec, r)
		if rec.Code != 401 || strings.Contains(rec.Body.String(), "corp:ann") {
			t.Errorf("%s without the token: %d %s", path, rec.Code, rec.Body)
		}
	}
}
