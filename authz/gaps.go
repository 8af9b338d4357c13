package authz

import (
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Gaps says which facts of a request its record lacks, although the request may
// have had them. The zero value is a complete record.
type Gaps struct {
	// Everyone: it was refused before anybody asked who it is, on what device.
	Everyone bool
	// Path, Query, Claims: something in them was taken out of the record.
	Path, Query, Claims bool
	// Device lists checks such as "disk_encrypted" whose fact is younger than the
	// record's format.
	Device []string
}

// Any reports whether anything is lacking.
func (g *Gaps) Any() bool {
	return g.Everyone || g.Path || g.Query || g.Claims || len(g.Device) > 0
}

// Depends reports whether the outcome for a recorded request depends on what its
// record lacks. It compares the two extremes: every rule that looks at a gap is
// taken as it serves the visitor best, and as it serves them worst. An outcome
// is monotone in each of them, so where both agree nothing in between differs.
func (p *Policy) Depends(req *access.Request, gaps Gaps) bool {
	if !gaps.Any() || p == nil || req == nil || req.Fault != "" {
		return false
	}
	rt := p.routes[req.Route]
	if rt == nil {
		return gaps.Path // another path might have found a route
	}
	best, worst := extreme{&gaps, true}, extreme{&gaps, false}
	return best.outcome(p, rt, req) != worst.outcome(p, rt, req)
}

// extreme decides with every gap filled in one direction.
type extreme struct {
	gaps *Gaps
	kind bool // in favour of the visitor
}

// outcome is Policy.judge and route.decide, as far as outcomes go.
func (e extreme) outcome(p *Policy, rt *route, req *access.Request) access.Outcome {
	switch {
	case e.any(rt.public, e.kind, access.Yes, req):
		return access.Allow
	case e.gaps.Everyone && e.kind && len(rt.allow) > 0:
		return access.Allow // somebody there may be whom everything fits
	case e.gaps.Everyone, req.Credential.Problem != "":
		return access.Deny
	case e.any(rt.preflight, e.kind, access.Yes, req):
		return access.Allow
	case !p.knows(&req.Identity):
		return access.Challenge
	case e.any(rt.deny, !e.kind, access.Unknown, req), !e.any(rt.allow, e.kind, access.Yes, req):
		return access.Deny
	case e.lacksSomething(rt, req):
		return access.Challenge
	}
	return access.Allow
}

// any reports whether a rule hits, with the gaps taken for hits or for misses.
func (e extreme) any(rules []rule, gapHits bool, atLeast access.Tri, req *access.Request) bool {
	return slices.ContainsFunc(rules, func(r rule) bool {
		result := access.Yes
		for _, c := range r.conditions {
			answer := c.test(req)
			if e.gaps.concern(c) {
				answer = access.TriOf(gapHits)
			}
			switch {
			case answer == access.No:
				return false
			case answer == access.Unknown:
				result = access.Unknown
			}
		}
		return result == access.Yes || atLeast == access.Unknown
	})
}

// lacksSomething is step 6 of Decide.
func (e extreme) lacksSomething(rt *route, req *access.Request) bool {
	for i := range rt.demands {
		d := &rt.demands[i]
		if !e.applies(d, req) {
			continue
		}
		var needs []access.Need
		if d.device != nil {
			needs = d.device.missing(req, nil)
		}
		if e.kind {
			needs = slices.DeleteFunc(needs, func(n access.Need) bool {
				return n.Reason == access.DeviceFactMissing && slices.Contains(e.gaps.Device, n.Want)
			})
		}
		var gap loginGap
		gap.check(&d.login, &req.Identity.Login, req.Time)
		if len(needs) > 0 || gap != (loginGap{}) {
			return true
		}
	}
	var gap loginGap
	gap.checkSession(e.session(rt.ladder, req), req)
	return gap != (loginGap{})
}

// session is the tier whose session holds: where facts about the device are
// lacking it may be in the highest, or in the lowest.
func (e extreme) session(l ladder, req *access.Request) *tier {
	t := l.session(req)
	switch {
	case t == nil || len(e.gaps.Device) == 0:
		return t
	case !e.kind:
		return &l[0]
	case l[len(l)-1].session > 0:
		return &l[len(l)-1]
	}
	return nil
}

func (e extreme) applies(d *demand, req *access.Request) bool {
	for _, c := range d.where {
		answer := c.test(req)
		if e.gaps.concern(c) {
			answer = access.TriOf(!e.kind)
		}
		if answer == access.No {
			return false
		}
	}
	return true
}

// concern reports whether a condition looks at what the record lacks.
func (g *Gaps) concern(c condition) bool {
	switch c := c.(type) {
	case paths:
		return g.Path && !slices.ContainsFunc(c, func(one glob) bool { return one.source == "/**" })
	case *claim:
		return g.Claims
	case expects:
		return g.Query && c.query || g.Claims && strings.Contains(c.source, "claims") || g.Path && strings.Contains(c.source, "path") ||
			len(g.Device) > 0 && c.device
	}
	return false
}

// DeviceChecks returns the names of the facts about a device that profiles may
// ask for.
func DeviceChecks() []string { return checkNames() }
