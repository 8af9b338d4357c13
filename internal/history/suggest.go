package history

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
)

// Caution says how much has to be known before something is proposed.
type Caution struct {
	// Requests is how many requests of a route or a rule must have been seen.
	// Default 20; what depends on paths needs three times as many.
	Requests int
	// Days is how many days the log has to cover. Default 30.
	Days int
	// AnySeason proposes although the log does not cover the end of a quarter,
	// when things are done that are done at no other time.
	AnySeason bool
}

func (c Caution) requests() int { return orDefault(c.Requests, 20) }
func (c Caution) days() int     { return orDefault(c.Days, 30) }

func orDefault(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// Suggestions are proposals to tighten a configuration, with the proof that
// nobody loses what they used.
type Suggestions struct {
	Config string   `json:"config"`
	Log    Contents `json:"log"`
	// Unknown counts decisions whose record does not tell enough.
	Unknown   int        `json:"unknown,omitempty"`
	Proposals []Proposal `json:"proposals"`
	// Patch is a unified diff of the configuration that carries out the proposals
	// that are not held back.
	Patch string `json:"patch,omitempty"`
	// Proof is the same log, decided before and after the patch: nothing that was
	// done is refused.
	Proof *Report `json:"proof,omitempty"`
}

// Suggest proposes tighter rules from what a configuration was used for. It
// never loosens. The file must not have changed since cfg was loaded from text.
func Suggest(ctx context.Context, files *audit.Files, cfg *config.Config, text []byte, name string, filter Filter, caution Caution) (*Suggestions, error) {
	if slices.Contains(files.Names, audit.Stdin) {
		return nil, errors.New("suggest reads the log twice, so that it has to be in files")
	}
	found, err := gather(ctx, files, cfg, filter)
	if err != nil {
		return nil, err
	}
	p := &proposer{cfg: cfg, usage: found, caution: caution}
	s := &Suggestions{Config: name, Log: found.log, Unknown: found.unknown, Proposals: p.all()}
	for {
		next, patched, err := s.carryOut(cfg, text)
		var refused *unloadable
		switch {
		case errors.As(err, &refused):
			s.hold(refused.Error(), refused.routes(cfg))
			continue
		case err != nil || next == nil:
			return s, err
		}
		if routes := contradicted(cfg, next); len(routes) > 0 {
			s.hold("a policy test expects what it would take away", routes)
			continue
		}
		if routes := inherited(cfg, next); len(routes) > 0 {
			s.hold("another route would answer for its address, and may let in whom this one keeps out", routes)
			continue
		}
		s.Proof, err = Compare(ctx, files, cfg, next, filter)
		if err != nil {
			return nil, err
		}
		lost := s.Proof.lostRoutes()
		if len(lost) == 0 {
			s.Patch = config.Patch(patchName(name), text, patched)
			found.losers(cfg, next, s.Proposals)
			return s, nil
		}
		// What was observed rule by rule should never contradict itself. Should it
		// all the same, the proof has the last word.
		s.hold("the replay of the patch would have refused requests on this route", lost)
	}
}

func gather(ctx context.Context, files *audit.Files, cfg *config.Config, filter Filter) (*usage, error) {
	found := newUsage()
	return found, scan(ctx, files, newGatherer(cfg, filter).batch, found.add)
}

// patchName is how the patch names the file: as it was named, so that `patch
// -p1` and `git apply` find it from the same folder.
func patchName(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Base(name)
	}
	return filepath.ToSlash(filepath.Clean(name))
}

// hold takes the proposals of some routes out of the patch. Without routes it
// takes those out that remove entries, which something else in the file may
// name. Where there are none of these, it takes out all.
func (s *Suggestions) hold(why string, routes []string) {
	concerned := func(p *Proposal) bool { return p.change.remove }
	if routes != nil {
		concerned = func(p *Proposal) bool { return slices.Contains(routes, p.Route) }
	}
	if !slices.ContainsFunc(s.Proposals, func(p Proposal) bool { return p.Held == "" && concerned(&p) }) {
		concerned = func(*Proposal) bool { return true }
	}
	for i := range s.Proposals {
		if p := &s.Proposals[i]; p.Held == "" && concerned(p) {
			p.Held = why
		}
	}
}

// unloadable is a patched file that does not load.
type unloadable struct{ error }

// routes are those that the complaints name; nil if there are none.
func (u *unloadable) routes(cfg *config.Config) (routes []string) {
	for i := range cfg.Routes {
		if id := cfg.Routes[i].ID; strings.Contains(u.Error(), strconv.Quote(id)) {
			routes = append(routes, id)
		}
	}
	return routes
}

// contradicted lists the routes on which a policy test of the file passes before
// and fails after.
func contradicted(before, after *config.Config) (routes []string) {
	tests, err := after.AllTests()
	if err != nil {
		return nil
	}
	for i := range tests {
		old := before.Rehearse(&tests[i])
		if len(old.Wrong) == 0 && len(after.Rehearse(&tests[i]).Wrong) > 0 && old.Request != nil && !slices.Contains(routes, old.Request.Route) {
			routes = append(routes, old.Request.Route)
		}
	}
	return routes
}

// inherited lists the routes that are gone without closing their address: one
// for the rest of the host, or for the hosts around it, has it now.
func inherited(before, after *config.Config) (routes []string) {
	for _, c := range config.Diff(before, after) {
		gone := func(r access.Route) bool { return r.ID == c.At }
		if c.Effect != authz.Tightens && slices.ContainsFunc(before.Routes, gone) && !slices.ContainsFunc(after.Routes, gone) {
			routes = append(routes, c.At)
		}
	}
	return routes
}

// lostRoutes lists the routes on which something is refused, or asked for, that
// was not before.
func (r *Report) lostRoutes() (routes []string) {
	for _, c := range r.Changes {
		if c.To < c.From && !slices.Contains(routes, c.Route) {
			routes = append(routes, c.Route)
		}
	}
	return routes
}

// carryOut makes the changes that are not held back, in the text and in the data,
// and checks that both mean the same. Without changes it returns nil.
func (s *Suggestions) carryOut(cfg *config.Config, text []byte) (*config.Config, []byte, error) {
	plan := planOf(s.Proposals)
	if len(plan) == 0 {
		s.Proof = nil
		return nil, nil, nil
	}
	patched, err := config.Edit(text, plan.edits(cfg))
	if err != nil {
		return nil, nil, fmt.Errorf("the file cannot be patched: %w", err)
	}
	next, err := config.LoadText(cfg.Path, patched)
	if err != nil {
		return nil, nil, &unloadable{fmt.Errorf("the patched file would not load: %w", err)}
	}
	if want := plan.routes(cfg.Routes); !reflect.DeepEqual(want, next.Routes) {
		return nil, nil, errors.New("the patched file would not mean what is proposed; it is not patched")
	}
	return next, patched, nil
}

// losers lists for each proposal who of those who were seen could do now what
// they could not do any more.
func (u *usage) losers(before, after *config.Config, proposals []Proposal) {
	for i := range proposals {
		p := &proposals[i]
		if p.Held != "" || p.probe == (probe{}) {
			continue
		}
		groups := slices.Concat(p.change.without, p.change.readers)
		for _, user := range u.seen.keys() {
			req := p.probe.by(u.seen[user].Request, u.log.Last)
			if in := before.Policy.Member(&req.Identity); len(groups) > 0 && !slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(in, g) }) {
				continue // lost by another proposal
			}
			if before.Policy.Decide(req).Outcome == access.Deny || after.Policy.Decide(req).Outcome != access.Deny {
				continue
			}
			if len(p.Loses) >= maxNames {
				p.MoreLose = true
				break
			}
			p.Loses = append(p.Loses, user)
		}
	}
}

// probe is a request that a proposal would take away.
type probe struct{ route, scheme, host, method, path string }

// by is the probe as somebody would send it who was seen.
func (p probe) by(last *access.Request, at time.Time) *access.Request {
	req := *last
	req.Route, req.Scheme, req.Host, req.Method, req.Path, req.Query = p.route, p.scheme, p.host, p.method, p.path, ""
	req.Fault, req.Ambiguous, req.Preflight = "", nil, false
	req.Time = at
	return &req
}
