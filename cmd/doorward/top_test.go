package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

var topNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// fakeAdmin answers what top asks, and counts.
type fakeAdmin struct {
	decisions []admin.Decision // newest first
	asked     map[string]int
	err       error
}

func (f *fakeAdmin) get(_ context.Context, path string, answer any) error {
	path, _, _ = strings.Cut(path, "?")
	f.asked[path]++
	switch a := answer.(type) {
	case *admin.DecisionList:
		a.Decisions = f.decisions
	case *admin.SessionList:
		a.Sessions = []access.SessionInfo{{Session: access.Session{ID: "s1"}, User: "corp:alice", Email: "alice@example.com", Open: 3}}
	case *topStatus:
		return json.Unmarshal([]byte(`{"version":"1.2","ready":false,"failing":[{"check":"audit","error":"disk full"}],"details":{"config":"c0ffee","in_flight":7}}`), a)
	}
	return f.err
}

// decide puts decisions in front.
func (f *fakeAdmin) decide(from, n int, age time.Duration, outcome access.Outcome, reason access.Reason) {
	for i := range n {
		d := admin.Decision{ID: fmt.Sprintf("r%d", from+i), Time: topNow.Add(-age), Method: "GET", Host: "wiki.example", Path: "/\x1b[31m", Route: "wiki",
			User: "corp:alice", Outcome: outcome, Reason: reason, Status: 200}
		f.decisions = append([]admin.Decision{d}, f.decisions...)
	}
	f.decisions = f.decisions[:min(len(f.decisions), keptDecisions)]
}

func TestTopDraws(t *testing.T) {
	f := &fakeAdmin{asked: map[string]int{}}
	f.decide(0, 5, 2*time.Minute, access.Allow, access.Allowed)
	f.decide(5, 30, 10*time.Second, access.Allow, access.Allowed)
	f.decide(35, 2, time.Second, access.Deny, access.NotAllowed)
	f.decide(37, 4, time.Second, access.Challenge, access.DeviceNotEncrypted)
	var out strings.Builder
	now := topNow
	view := &top{get: f.get, out: &out, draw: true, clear: "<clear>", now: func() time.Time { return now }}
	if err := view.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<clear>doorward 1.2, configuration c0ffee, not ready, 12:00:00 UTC\n", "audit: disk full", "open now 7", "decided in 1m0s: 36 (0.6/s)", "sessions 1\n",
		"outcomes  allow 30, challenge 4, deny 2", "refused   device_not_encrypted 4, not_allowed 2", "routes    wiki 36", "alice@example.com", "corp:alice",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "wiki.example") != latestDecisions {
		t.Errorf("%q", out.String())
	}
	// The sessions are listed less often than the rest.
	for range 6 {
		now = now.Add(2 * time.Second)
		if err := view.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if f.asked["/api/v1/sessions"] != 2 || f.asked["/api/v1/decisions"] != 7 {
		t.Error(f.asked)
	}
	// A full memory covers less than a minute: the rate is of what it covers.
	f.decide(100, keptDecisions, 10*time.Second, access.Allow, access.Allowed)
	now = topNow
	out.Reset()
	if err := view.step(t.Context()); err != nil || !strings.Contains(out.String(), "decided in 10s: 1000 (100.0/s)") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestTopWritesEachDecisionOnce(t *testing.T) {
	f := &fakeAdmin{asked: map[string]int{}}
	var out strings.Builder
	log := &top{get: f.get, out: &out, now: func() time.Time { return topNow }}
	step := func() string {
		t.Helper()
		out.Reset()
		if err := log.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := step(); got != "" {
		t.Errorf("%q", got)
	}
	f.decide(0, 2, 0, access.Deny, access.NotAllowed)
	want := "2026-11-26T12:00:00Z deny not_allowed 200 corp:alice GET wiki.example/?[31m r0\n"
	if got := step(); !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
	f.decide(2, 1, 0, access.Allow, access.Allowed)
	if got := step(); !strings.HasSuffix(got, " r2\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("%q", got)
	}
	f.decide(10, keptDecisions, 0, access.Allow, access.Allowed)
	if got := step(); !strings.HasPrefix(got, "… more was decided") || strings.Count(got, "\n") != keptDecisions+1 {
		t.Errorf("%.200q", got)
	}
	log.json = true
	f.decide(5000, 1, 0, access.Allow, access.Allowed)
	var d admin.Decision
	if got := step(); json.Unmarshal([]byte(got), &d) != nil || d.ID != "r5000" {
		t.Errorf("%q", got)
	}
	if f.asked["/api/v1/sessions"] != 0 {
		t.Error("sessions are listed for a log that shows none")
	}
}

// Ctrl-C ends it without an error; a doorward that is gone is one.
func TestTopEnds(t *testing.T) {
	f := &fakeAdmin{asked: map[string]int{}, err: errors.New("gone")}
	log := &top{get: f.get, out: new(strings.Builder), now: time.Now}
	if err := log.run(t.Context(), time.Hour); err == nil {
		t.Error("went on without a doorward")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := log.run(ctx, time.Hour); err != nil {
		t.Error(err)
	}
}
