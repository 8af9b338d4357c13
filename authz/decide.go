package authz

import (
	"math"

	"github.com/doorward/doorward/internal/access"
)

// Decide answers whether the request may pass. It asks, in this order:
//
//  1. Could every fact be gathered, and is there a route? If not: deny.
//  2. Does a public rule hit? Allow, whoever asks.
//  3. Did an access token come along that is not accepted? Deny, with its
//     reason. Is it a CORS preflight without credentials, on a route that lets
//     them pass? Allow. Has a configured provider said who asks? If not:
//     challenge, LoginRequired. A stronger login is asked for in step 6, when
//     nothing else is missing.
//  4. Does a deny rule hit, or might it, because a fact is not known? Deny.
//  5. Does no allow rule hit? Deny, with the rule that came nearest. The reason
//     is GroupsUnknown where nothing but withheld groups stands in the way.
//  6. Does a requirement fail? Challenge, with everything that is missing, the
//     device first: there is no use in a second factor on a device that will be
//     refused.
//  7. Allow.
//
// Decide is pure and safe for concurrent use. It does not allocate when it
// allows, unless the route's rules contain CEL.
func (p *Policy) Decide(req *access.Request) access.Decision {
	return p.walk(req, nil)
}

// walk is the one way through a policy, for Decide and for Explain. A nil
// recorder records nothing.
func (p *Policy) walk(req *access.Request, rec *recorder) access.Decision {
	if p == nil || req == nil {
		return access.Decision{Reason: access.InternalError}
	}
	if req.Fault != "" {
		return access.Decision{Reason: req.Fault, Policy: p.version}
	}
	rt := p.routes[req.Route]
	if rt == nil {
		return access.Decision{Reason: access.NoRoute, Policy: p.version}
	}
	d := p.judge(rt, req, rec)
	d.Policy, d.Tier = p.version, p.ladder.nameOf(&req.Device, req.Time)
	return d
}

// judge is steps 2 and 3, and everything after them for people we know.
func (p *Policy) judge(rt *route, req *access.Request, rec *recorder) access.Decision {
	if hit := first(rt.public, access.Yes, req, rec); hit != nil {
		return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute, Rule: hit.name}
	}
	if problem := req.Credential.Problem; problem != "" {
		return access.Decision{Reason: problem} // no login cures a bad token
	}
	if hit := first(rt.preflight, access.Yes, req, rec); hit != nil {
		return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute, Rule: hit.name}
	}
	if !p.knows(&req.Identity) {
		return access.Decision{Outcome: access.Challenge, Reason: access.LoginRequired, Needs: []access.Need{{Reason: access.LoginRequired}}}
	}
	d := rt.decide(req, rec)
	if len(rt.reportedDeny)+len(rt.reportedAllow) > 0 {
		d.Shadow = rt.shadow(d.Outcome, d.Reason, req, rec)
	}
	return d
}

// decide is steps 4 to 7.
func (rt *route) decide(req *access.Request, rec *recorder) access.Decision {
	if hit := first(rt.deny, access.Unknown, req, rec); hit != nil {
		return access.Decision{Reason: access.DeniedByRule, Rule: hit.name, Message: hit.message}
	}
	hit := first(rt.allow, access.Yes, req, rec)
	if hit == nil {
		return rt.notAllowed(req)
	}
	if needs := rt.missing(req, rec); len(needs) > 0 {
		return access.Decision{Outcome: access.Challenge, Reason: needs[0].Reason, Needs: needs}
	}
	return access.Decision{Outcome: access.Allow, Reason: access.Allowed, Rule: hit.name}
}

// first returns the first rule that hits, or, if atLeast is Unknown, the first
// that may. The recorder wants to see all of them.
func first(rules []rule, atLeast access.Tri, req *access.Request, rec *recorder) (found *rule) {
	for i := range rules {
		result := rules[i].test(req, rec)
		if found == nil && (result == access.Yes || result == access.Unknown && atLeast == access.Unknown) {
			found = &rules[i]
		}
		if found != nil && rec == nil {
			return found
		}
	}
	return found
}

// test joins the conditions by AND: one miss is a miss; without a miss, one
// unknown is unknown. A rule without conditions, which Compile refuses, is
// unknown.
func (r *rule) test(req *access.Request, rec *recorder) access.Tri {
	result := access.Yes
	if len(r.conditions) == 0 {
		result = access.Unknown
	}
	for _, c := range r.conditions {
		answer := c.test(req)
		rec.condition(r, c, answer, req)
		switch {
		case answer == access.No && rec == nil:
			return access.No
		case answer == access.No:
			result = access.No
		case answer != access.Yes && result != access.No:
			result = access.Unknown
		}
	}
	rec.rule(r, result)
	return result
}

// notAllowed explains a request that no allow rule hits.
func (rt *route) notAllowed(req *access.Request) access.Decision {
	d := access.Decision{Reason: access.NotAllowed}
	nearest, fewest := (*rule)(nil), math.MaxInt
	for i := range rt.allow {
		r := &rt.allow[i]
		unmet, groupsUnknown := r.unmet(req)
		if unmet == 1 && groupsUnknown && d.Reason != access.GroupsUnknown {
			d.Reason = access.GroupsUnknown
			nearest, fewest = r, 1
		}
		if unmet < fewest {
			nearest, fewest = r, unmet
		}
	}
	if nearest != nil {
		d.Nearest = &access.NearMiss{Rule: nearest.name, Missing: nearest.misses(req)}
	}
	return d
}

// unmet counts the conditions that do not hit, and tells whether one of them is
// a membership that the provider withheld.
func (r *rule) unmet(req *access.Request) (n int, groupsUnknown bool) {
	for _, c := range r.conditions {
		answer := c.test(req)
		if answer == access.Yes {
			continue
		}
		n++
		if _, ok := c.(membership); ok && answer == access.Unknown {
			groupsUnknown = true
		}
	}
	return n, groupsUnknown
}

// misses describes the conditions that do not hit.
func (r *rule) misses(req *access.Request) (list []access.Miss) {
	for _, c := range r.conditions {
		answer := c.test(req)
		if answer == access.Yes {
			continue
		}
		want, got := c.describe(req)
		list = append(list, access.Miss{Condition: c.key(), Want: want, Got: got, Unknown: answer == access.Unknown})
	}
	return list
}

// missing is step 6: everything the route requires of this request and does not
// find, the device's part first.
func (rt *route) missing(req *access.Request, rec *recorder) []access.Need {
	var needs []access.Need
	var gap loginGap
	for i := range rt.demands {
		d := &rt.demands[i]
		applies := d.applies(req)
		rec.demand(d, applies, req)
		if !applies {
			continue
		}
		if d.device != nil {
			needs = d.device.missing(req, needs)
		}
		gap.check(&d.login, &req.Identity.Login, req.Time)
	}
	gap.checkSession(rt.ladder.session(req), req)
	if gap != (loginGap{}) {
		needs = append(needs, gap.needs(rt.loginDemand(req), req)...)
	}
	rec.demanded()
	return needs
}

// applies tells whether the demand concerns the request. Where that cannot be
// told, it does.
func (d *demand) applies(req *access.Request) bool {
	for _, c := range d.where {
		if c.test(req) == access.No {
			return false
		}
	}
	return true
}

// loginDemand is all that is demanded of a login for this request, by the route
// and by the tier of the device.
func (rt *route) loginDemand(req *access.Request) (ask access.LoginRequire) {
	for i := range rt.demands {
		if d := &rt.demands[i]; d.applies(req) {
			ask = d.login.And(ask)
		}
	}
	if t := rt.ladder.session(req); t != nil {
		ask = ask.And(access.LoginRequire{MaxAge: access.Duration(t.session)})
	}
	return ask
}

// shadow tells what each rule that only reports would have changed, had it alone
// been enforced. It lists outcomes that differ and nothing else.
func (rt *route) shadow(outcome access.Outcome, reason access.Reason, req *access.Request, rec *recorder) (list []access.Shadow) {
	if outcome != access.Deny {
		for i := range rt.reportedDeny {
			if r := &rt.reportedDeny[i]; r.test(req, rec) != access.No {
				list = append(list, access.Shadow{Rule: r.name, Outcome: access.Deny, Reason: access.DeniedByRule})
			}
		}
	}
	if reason != access.NotAllowed && reason != access.GroupsUnknown {
		return list
	}
	for i := range rt.reportedAllow {
		r := &rt.reportedAllow[i]
		if r.test(req, rec) != access.Yes {
			continue
		}
		would := access.Shadow{Rule: r.name, Outcome: access.Allow, Reason: access.Allowed}
		if needs := rt.missing(req, nil); len(needs) > 0 {
			would.Outcome, would.Reason = access.Challenge, needs[0].Reason
		}
		list = append(list, would)
	}
	return list
}
