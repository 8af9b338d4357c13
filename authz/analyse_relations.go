package authz

import (
	"fmt"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

// relations looks at what the rules of a route do to each other.
func (a *analysis) relations(src *access.Route, path string, public, allow, deny []*placed) {
	closed := 0
	for _, r := range allow {
		switch by := impliedBy(r, deny); {
		case r.dead:
		case by != nil:
			r.dead = true
			a.add(access.AllowShadowed, r.at, r.path, "narrow the deny rule, or remove this one", "%s lets nobody in: %s refuses whatever it matches", r.name, by.name)
		}
		if r.dead && !r.report {
			closed++
		}
	}
	if enforced := count(allow, func(r *placed) bool { return !r.report }); enforced > 0 && closed == enforced && len(public) == 0 {
		a.add(access.RouteClosed, src.ID, path, "see the findings about its allow rules", "nobody can ever use route %q: none of its allow rules lets anyone in", src.ID)
	}
	for _, r := range deny {
		// Of a spelling that is ambiguous nobody can say whether it is public.
		if by := impliedBy(r, public); by != nil && !r.dead && len(src.AmbiguousPaths) == 0 {
			r.dead = true
			a.add(access.DenyAfterPublic, r.at, r.path, "narrow the public rule", "%s refuses nobody: whatever it matches has passed by %s before", r.name, by.name)
		}
	}
	for _, r := range allow {
		if by := impliedBy(r, public); by != nil && !r.dead {
			r.dead = true
			a.add(access.RuleImplied, r.at, r.path, "remove it, or narrow the public rule", "%s changes nothing: whatever it matches has passed by %s before", r.name, by.name)
		}
	}
	for _, rules := range [][]*placed{public, allow, deny} {
		a.implied(rules)
	}
}

// implied reports rules that say no more than another of their kind does.
func (a *analysis) implied(rules []*placed) {
	for i, r := range rules {
		if r.dead {
			continue
		}
		for j, other := range rules {
			// Of two that say the same, the later one is superfluous.
			same := other.implies(&r.scope) && r.report == other.report && r.message == other.message
			if i == j || other.dead || other.report || !r.implies(&other.scope) || j > i && same {
				continue
			}
			if !r.report && r.message != "" && r.message != other.message {
				continue // it tells its visitors something of its own
			}
			a.add(access.RuleImplied, r.at, r.path, "remove it, or narrow the other", "%s changes nothing: %s already matches whatever it matches", r.name, other.name)
			break
		}
	}
}

// impliedBy returns an enforced rule that matches whatever a rule matches.
func impliedBy(r *placed, rules []*placed) *placed {
	for _, other := range rules {
		if !other.dead && !other.report && r.implies(&other.scope) {
			return other
		}
	}
	return nil
}

func count[T any](list []T, test func(T) bool) (n int) {
	for _, v := range list {
		if test(v) {
			n++
		}
	}
	return n
}

// requirements looks at what a route requires.
func (a *analysis) requirements(rt *route, src *access.Route, path string, public []*placed) {
	// The demands of stricter entries come first, in the order of the file; behind
	// them stand those that hold everywhere.
	everywhere := rt.demands[len(src.Rules):]
	for i := range src.Rules {
		d, at, here := &rt.demands[i], fmt.Sprintf("%s/rules[%d]", src.ID, i), fmt.Sprintf("%s.rules[%d]", path, i)
		dead := false
		for _, c := range d.where {
			if list, ok := c.(paths); ok {
				a.paths(src, at, here, list, &dead)
			}
			if list, ok := c.(methods); ok {
				a.methods(&placed{at: at, path: here}, list)
			}
		}
		if dead {
			continue
		}
		if by := slices.IndexFunc(public, func(r *placed) bool {
			return len(src.AmbiguousPaths) == 0 && !r.dead && (&rule{conditions: d.where}).implies(&r.scope)
		}); by >= 0 {
			a.add(access.RequireAfterPublic, at, here, "narrow the public rule", "the requirement does nothing: whatever it is about has passed by %s before", public[by].name)
			continue
		}
		if d.idle(everywhere) {
			a.add(access.RequireIdle, at, here+".require", "remove it, or require more", "the entry requires nothing that does not hold everywhere in the route")
		}
	}
	if asks := slices.ContainsFunc(rt.demands, func(d demand) bool { return d.device != nil }); !asks && len(src.Allow) > 0 && src.Exceptions.Device == "" {
		a.add(access.NoDevice, src.ID, path, "", "route %q asks nothing of the device", src.ID)
	}
}

// idle reports whether other demands ask for all that this one asks for.
func (d *demand) idle(others []demand) bool {
	device, login := d.device == nil, d.login.IsZero()
	for i := range others {
		o := &others[i]
		device = device || o.device != nil && o.device.implies(d.device)
		login = login || loginImplies(o.login, d.login)
	}
	return device && login
}

// nested compares a route with those that take parts of its host away: whoever
// guards the whole seldom means to guard a part of it less.
func (a *analysis) nested(rt *route, src *access.Route, path string) {
	scope := a.around.Scopes[src.ID]
	everywhere := rt.demands[len(src.Rules):]
	for _, prefix := range keys(scope.Below) {
		below, i := a.policy.routes[scope.Below[prefix]], a.index(scope.Below[prefix])
		if below == nil || i < 0 || len(below.allow) == 0 {
			continue
		}
		inner := &a.in.Routes[i]
		own := below.demands[len(inner.Rules):]
		for j := range everywhere {
			d := &everywhere[j]
			if d.path == "defaults.require" || d.idle(own) || inner.Exceptions != (access.Exceptions{}) {
				continue
			}
			a.add(access.LooserBelow, inner.ID, fmt.Sprintf("routes[%d].from", i), "require the same there, or accept this finding with the reason",
				"below %s route %q decides alone, and it requires less than %q, which has the rest of the host", prefix, inner.ID, src.ID)
			break
		}
	}
}

func (a *analysis) index(id string) int {
	return slices.IndexFunc(a.in.Routes, func(r access.Route) bool { return r.ID == id })
}

// names reports groups and profiles that nothing refers to.
func (a *analysis) names() {
	used := map[string]bool{}
	for i := range a.in.Routes {
		for _, r := range slices.Concat(a.in.Routes[i].Allow, a.in.Routes[i].Deny) {
			for _, name := range r.Groups {
				used[name] = true
			}
		}
	}
	for _, name := range keys(a.in.Groups) {
		if !used[name] {
			a.add(access.GroupUnused, "groups/"+name, "groups."+name, "remove it, or use it", "no rule uses the group %q", name)
		}
	}
	used = map[string]bool{a.in.Defaults.Require.Device: true}
	for i := range a.in.Routes {
		used[a.in.Routes[i].Require.Device] = true
		for _, r := range a.in.Routes[i].Rules {
			used[r.Require.Device] = true
		}
	}
	for own, profile := range a.in.Devices.Profiles {
		for _, name := range profile.All {
			used[name] = used[name] || name != own
		}
	}
	for _, tier := range a.in.Devices.Tiers {
		for _, name := range tier.All {
			used[name] = true
		}
	}
	for _, name := range keys(a.in.Devices.Profiles) {
		if !used[name] {
			a.add(access.ProfileUnused, "profiles/"+name, "devices.profiles."+name, "remove it, or require it", "nothing requires the device profile %q", name)
		}
	}
}
