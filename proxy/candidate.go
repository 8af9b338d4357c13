package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Candidate is a configuration that is decided with and not enforced: what a
// live request would meet after the next reload.
type Candidate struct {
	// Routes finds the route of a request, which may be another one than the
	// configuration in force has for it.
	Routes *Table
	Policy Decider
}

// Decide returns the verdict of the candidate on a request that has already
// been received and recorded, and the request as the candidate sees it. Facts
// that only the configuration in force could gather stay as they are.
func (c *Candidate) Decide(req *access.Request) (*access.Request, access.Decision) {
	seen := c.Routes.Rematch(req)
	return seen, c.Policy.Decide(seen)
}

// Rematch returns a copy of a recorded request with the route that this table
// has for it, or without one. A spelling of the path that the route does not
// permit becomes a fault, as in a live request.
func (t *Table) Rematch(req *access.Request) *access.Request {
	again := *req
	if again.Fault != "" {
		return &again // nothing decides on it, wherever it belongs
	}
	again.Route = ""
	entry := t.Match(req.Scheme, req.Host, req.Path)
	if entry == nil {
		return &again
	}
	again.Route = entry.Route.ID
	if recordedAmbiguity(req)&^entry.ambiguous != 0 {
		again.Fault = access.AmbiguousPath
	}
	return &again
}

// Ambiguities names what is ambiguous about the path of a recorded request, as
// far as the record tells: what it says, and what a decoded path still shows.
// Records older than Request.Ambiguous do not tell an encoded slash from another.
func Ambiguities(req *access.Request) []string { return recordedAmbiguity(req).names() }

func recordedAmbiguity(req *access.Request) ambiguity {
	name := pathname{Path: req.Path}
	for _, word := range req.Ambiguous {
		name.Ambiguous |= ambiguityNames[word]
	}
	if strings.Contains(req.Path, ";") {
		name.Ambiguous |= semicolon
	}
	if strings.Contains(req.Path, `\`) {
		name.Ambiguous |= backslash
	}
	_ = name.classify() // a path that is never accepted has its fault already
	return name.Ambiguous
}

// SetCandidate decides every request with a candidate, too, from now on; nil
// ends that. The verdict goes into the event where it differs, and nowhere else.
func (d *Door) SetCandidate(c *Candidate) { d.candidate.Store(c) }

// compare notes in the event what the candidate would have decided, if that is
// different. It runs when the answer is out, so that nobody waits for it, and
// whatever goes wrong in it ends the candidate and not the request.
func (p *passage) compare() {
	c := p.door.candidate.Load()
	if c == nil || p.event.Decision == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			p.door.candidate.CompareAndSwap(c, nil)
			p.door.log.LogAttrs(context.WithoutCancel(p.in.Context()), slog.LevelError, "panic in the candidate policy; it is switched off",
				slog.String("request", p.req.ID), slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
		}
	}()
	seen, would := c.Decide(p.req)
	if would.Differs(p.event.Decision) {
		p.event.Candidate = &access.Candidate{Route: seen.Route, Decision: would}
	}
}
