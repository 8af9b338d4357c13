package proxy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// A candidate decides on every request, is heard where it disagrees, and
// changes nothing for the visitor.
func TestCandidateIsRecordedAndNotEnforced(t *testing.T) {
	echo := newEcho(t)
	w := newWorld(t, []access.Route{routeTo("http://app.example", echo)})
	admin := routeTo("http://app.example/admin", echo)
	admin.ID = "admin"
	next := routeTo("http://next.example", echo)
	next.ID = "next"
	w.door.SetCandidate(&Candidate{Routes: table(t, routeTo("http://app.example", echo), admin, next), Policy: policy(func(req *access.Request) access.Decision {
		switch req.Route {
		case "":
			return access.Decision{Reason: access.NoRoute, Policy: "v2"}
		case "admin":
			return access.Decision{Reason: access.DeniedByRule, Policy: "v2"}
		}
		d := loginFirst(req)
		d.Rule, d.Policy = "allow/renamed", "v2"
		return d
	})})
	for _, c := range []struct {
		target, cookie string
		status         int
		route          string // of the candidate; empty: it agrees
		reason         access.Reason
	}{
		{"http://app.example/", asAlice, 200, "", ""},
		{"http://app.example/", "", 401, "", ""},
		{"http://app.example/admin/x", asAlice, 200, "admin", access.DeniedByRule},
		{"http://app.example/administrator", asAlice, 200, "", ""},
		{"http://next.example/", asAlice, 404, "next", access.LoginRequired}, // who it was nobody has asked
		{"http://none.example/", asAlice, 404, "", ""},
	} {
		res, _ := w.ask("GET", c.target, "Cookie", c.cookie, "Accept", "application/json")
		e := w.rec.event(t)
		if res.StatusCode != c.status {
			t.Errorf("%s: the visitor got %s", c.target, res.Status)
		}
		switch got := e.Candidate; {
		case got == nil && c.route == "":
		case got == nil, got.Route != c.route, got.Decision.Reason != c.reason, got.Decision.Policy != "v2":
			t.Errorf("%s: %+v", c.target, got)
		}
		if e.Request.Route == "admin" || e.Decision.Policy == "v2" {
			t.Errorf("%s: the candidate got into the verdict: %+v", c.target, e)
		}
	}
	w.door.SetCandidate(nil)
	w.ask("GET", "http://app.example/admin/x", "Cookie", asAlice)
	if e := w.rec.event(t); e.Candidate != nil {
		t.Errorf("there is no candidate any more: %+v", e.Candidate)
	}
}

// A bug in a candidate ends the candidate, not the request.
func TestCandidateThatPanics(t *testing.T) {
	echo := newEcho(t)
	w := newWorld(t, []access.Route{routeTo("http://app.example", echo)})
	asked := 0
	w.door.SetCandidate(&Candidate{Routes: w.snapshot.Routes, Policy: policy(func(*access.Request) access.Decision {
		asked++
		panic("bug in a candidate")
	})})
	for range 2 {
		if res, _ := w.ask("GET", "http://app.example/", "Cookie", asAlice); res.StatusCode != 200 {
			t.Error(res.Status)
		}
		if e := w.rec.event(t); e.Decision.Outcome != access.Allow || e.Response.Reason != "" || e.Candidate != nil {
			t.Errorf("%+v", e)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// What is read back from the log belongs to the same route as it did live.
func TestRematchAgreesWithMatch(t *testing.T) {
	echo := newEcho(t)
	loose := routeTo("http://app.example/loose", echo)
	loose.ID, loose.AmbiguousPaths = "loose", []string{"semicolon", "encoded_slash", "backslash", "empty_segment", "encoded_percent"}
	w := newWorld(t, []access.Route{routeTo("http://app.example", echo), loose}, withPolicy(allowAll))
	for _, target := range []string{
		"http://app.example/", "http://app.example/loose/a;b", "http://app.example/a;b", "http://app.example/loose/a%2fb", "http://app.example/a%2fb",
		"http://app.example/loose//a%5cb%2541", "http://app.example/a%5cb", "http://app.example/a//b", "http://app.example/a%2541", "http://app.example/%C3%A4",
		"http://app.example/a/../b", "http://other.example/",
	} {
		host, path, _ := strings.Cut(strings.TrimPrefix(target, "http://"), "/")
		w.raw("GET /" + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		live := w.rec.event(t).Request
		data, err := json.Marshal(live)
		var back access.Request
		if err == nil {
			err = json.Unmarshal(data, &back)
		}
		if err != nil {
			t.Fatal(err)
		}
		if again := w.snapshot.Routes.Rematch(&back); again.Route != live.Route || again.Fault != live.Fault {
			t.Errorf("%s: again %q %s, live %q %s", target, again.Route, again.Fault, live.Route, live.Fault)
		}
	}
}
