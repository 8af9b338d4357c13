package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/doorward/doorward/internal/access"
)

// auditLog is the command `audit-log HABITS FILE` of the scripts: it writes the
// audit log that people of certain habits would have left. A habit is a line
//
//	FIRST-DAY LAST-DAY EVERY USER GROUP,GROUP METHOD URL
//
// for requests that were allowed, at nine o'clock.
func auditLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: audit-log HABITS FILE")
	}
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	defer out.Close()
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		field := strings.Fields(line)
		if len(field) != 7 {
			ts.Fatalf("no habit: %s", line)
		}
		first, err := time.Parse(time.DateOnly, field[0])
		ts.Check(err)
		last, err := time.Parse(time.DateOnly, field[1])
		ts.Check(err)
		every, err := time.ParseDuration(field[2])
		ts.Check(err)
		u, err := url.Parse(field[6])
		ts.Check(err)
		for at := first.Add(9 * time.Hour); at.Before(last.AddDate(0, 0, 1)); at = at.Add(every) {
			n++
			req := &access.Request{
				ID: fmt.Sprintf("%032x", n), Time: at, Door: access.Standalone, Method: field[5], Scheme: u.Scheme, Host: u.Host, Path: u.Path, Route: "unknown then",
				Identity: access.Identity{Provider: "corp", Issuer: "https://login.example", Subject: field[3], Email: field[3] + "@example.com",
					Groups: strings.Split(field[4], ","), Login: access.Login{Time: at.Add(-time.Hour)}},
			}
			ts.Check(enc.Encode(access.Event{Kind: access.EventDecision, Time: at, Request: req, RequestID: req.ID,
				Decision: &access.Decision{Outcome: access.Allow, Reason: access.Allowed, Policy: "before", Rule: "allow/then"}}))
		}
	}
}
