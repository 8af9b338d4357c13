package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

// coverage tells which rules and requirements tests have shown at work.
type coverage struct {
	rules []routeRule
	shown map[routeRule]bool
	// demands are the requirements of the routes that have tests, by path, and
	// whether some test was refused by one.
	demands map[string]bool
}

// routeRule is a rule of a route.
type routeRule struct{ route, rule string }

// coverageSummary is the coverage in figures and what is lacking.
type coverageSummary struct {
	Rules   int `json:"rules"`
	Decided int `json:"decided"`
	// Undecided lists the rules that decided no test, as ROUTE: KIND/NAME.
	Undecided []string `json:"undecided,omitempty"`
	// NeverMissing lists requirements of routes with tests that refused nobody.
	NeverMissing []string `json:"requirements_never_missing,omitempty"`
}

func newCoverage(cfg *config.Config) *coverage {
	c := &coverage{shown: map[routeRule]bool{}, demands: map[string]bool{}}
	for _, route := range cfg.Routes {
		for _, rule := range cfg.Policy.Rules(route.ID) {
			if rule != access.PreflightRule { // a key of the route
				c.rules = append(c.rules, routeRule{route.ID, rule})
			}
		}
	}
	return c
}

// add notes what one test shows. A rule is shown where it matters to the
// verdict: the public rule that let the request pass, the deny rules that
// refused it, the allow rules without which it would have been refused, and
// rules that only report where they hit.
func (c *coverage) add(r *config.Rehearsal) {
	if r.Request == nil || len(r.Wrong) > 0 {
		return
	}
	d := &r.Decision
	for _, line := range r.Tree.Rules {
		kind, _, _ := strings.Cut(line.Rule, "/")
		var shown bool
		switch {
		case d.Reason == access.LoginRequired:
		case line.Report, kind == "deny":
			shown = line.Rule == d.Rule || line.Result == authz.Hit && d.Reason != access.PublicRoute
		case kind == "public":
			shown = line.Rule == d.Rule
		default:
			shown = line.Result == authz.Hit && d.Outcome != access.Deny && d.Reason != access.PublicRoute
		}
		if shown {
			c.shown[routeRule{r.Request.Route, line.Rule}] = true
		}
	}
	for _, line := range r.Tree.Requires {
		// Whoever is not allowed anyway shows nothing about a requirement.
		c.demands[line.Require] = c.demands[line.Require] || d.Outcome == access.Challenge && d.Reason != access.LoginRequired && line.Result == authz.Miss
	}
}

func (c *coverage) summary() *coverageSummary {
	s := &coverageSummary{Rules: len(c.rules)}
	for _, rule := range c.rules {
		if c.shown[rule] {
			s.Decided++
		} else {
			s.Undecided = append(s.Undecided, rule.route+": "+rule.rule)
		}
	}
	for path, missed := range c.demands {
		if !missed {
			s.NeverMissing = append(s.NeverMissing, path)
		}
	}
	slices.Sort(s.NeverMissing)
	return s
}

// percent is rounded down, so that 100 means all.
func (s *coverageSummary) percent() int {
	if s.Rules == 0 {
		return 100
	}
	return 100 * s.Decided / s.Rules
}

func (s *coverageSummary) write(b *strings.Builder) {
	if s == nil {
		return
	}
	fmt.Fprintf(b, "%d of %s decided by a test\n", s.Decided, count(s.Rules, "rule"))
	for _, rule := range s.Undecided {
		fmt.Fprintf(b, "  no test is decided by %s\n", config.Printable(rule))
	}
	for _, path := range s.NeverMissing {
		fmt.Fprintf(b, "  no test shows that %s is enforced\n", path)
	}
}
