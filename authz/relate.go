package authz

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// What conditions and rules have to do with each other, as far as it can be
// proved. "Implies" speaks of hits: whatever makes the one hit makes the other.

// implies reports whether a request for which narrow hits is one for which wide
// hits.
func (narrow *rule) implies(wide *rule) bool {
	for _, w := range wide.conditions {
		if !slices.ContainsFunc(narrow.conditions, func(n condition) bool { return implies(n, w) }) {
			return false
		}
	}
	return true
}

// excludes names two conditions of a rule that never hit together.
func (r *rule) excludes() (a, b condition, ok bool) {
	for i, a := range r.conditions {
		for _, b := range r.conditions[i+1:] {
			if exclude(a, b) {
				return a, b, true
			}
		}
	}
	return nil, nil, false
}

func implies(narrow, wide condition) bool {
	switch w := wide.(type) {
	case anyUser, onlyPeople:
		switch narrow.(type) {
		case anyUser, onlyPeople:
			return true
		}
	case membership:
		switch n := narrow.(type) {
		case membership:
			return !slices.ContainsFunc(n, func(g *group) bool { return !w.covers(g) })
		case people:
			return !anyPerson(n, func(p person) bool { return !w.lists(p) })
		}
	case people:
		switch n := narrow.(type) {
		case people:
			return !anyPerson(n, func(p person) bool { _, ok := w[p]; return !ok })
		case membership:
			return !slices.ContainsFunc(n, func(g *group) bool {
				return len(g.claims) > 0 || anyPerson(g.users, func(p person) bool { _, ok := w[p]; return !ok })
			})
		}
	case providers:
		from, limited := vouchers(narrow)
		return limited && subset(from, w)
	case *claim:
		n, ok := narrow.(*claim)
		return ok && n.name == w.name && subset(n.accept, w.accept)
	case serviceAccounts:
		n, ok := narrow.(serviceAccounts)
		return ok && subset(n, w)
	case workloads:
		n, ok := narrow.(workloads)
		return ok && !slices.ContainsFunc(n, func(one workload) bool { return !w.covers(one) })
	case clients:
		n, ok := narrow.(clients)
		return ok && !anyPerson(people(n), func(p person) bool { _, has := w[p]; return !has })
	case scopes:
		n, ok := narrow.(scopes)
		return ok && subset(n, w)
	case methods:
		n, ok := narrow.(methods)
		return ok && subset(n, w)
	case paths:
		n, ok := narrow.(paths)
		return ok && w.covers(n)
	case networks:
		n, ok := narrow.(networks)
		return ok && !slices.ContainsFunc(n, func(one netip.Prefix) bool { return !w.covers(one) })
	case *schedule:
		n, ok := narrow.(*schedule)
		return ok && n.zone.String() == w.zone.String() && n.within(&w.window)
	case expects:
		n, ok := narrow.(expects)
		return ok && n.source == w.source && n.want == w.want && (!n.device || n.fresh.implies(w.fresh) && w.fresh.implies(n.fresh))
	case preflight:
		_, ok := narrow.(preflight)
		return ok
	case nobody:
		_, ok := narrow.(nobody)
		return ok
	}
	return false
}

// exclude reports whether two conditions never hit together.
func exclude(a, b condition) bool {
	from, limited := vouchers(a)
	others, limitedToo := vouchers(b)
	if limited && limitedToo && !meet(from, others) {
		return true
	}
	switch x := a.(type) {
	case people:
		y, ok := b.(people)
		return ok && !anyPerson(x, func(p person) bool { _, has := y[p]; return has })
	case membership:
		y, ok := b.(people)
		return ok && x.listsOnly() && !anyPerson(y, x.lists)
	case clients:
		y, ok := b.(clients)
		return ok && !anyPerson(people(x), func(p person) bool { _, has := y[p]; return has })
	case serviceAccounts:
		y, ok := b.(serviceAccounts)
		return ok && !meet(x, y)
	case methods:
		y, ok := b.(methods)
		return ok && !meet(x, y)
	case paths:
		y, ok := b.(paths)
		return ok && x.disjoint(y)
	case networks:
		switch y := b.(type) {
		case networks:
			return x.disjoint(y)
		case expects:
			return y.want && !y.facts().fit(x)
		}
	case *schedule:
		y, ok := b.(*schedule)
		return ok && x.zone.String() == y.zone.String() && x.apart(&y.window)
	case expects:
		y, ok := b.(expects)
		return ok && x.source == y.source && x.want != y.want
	}
	return false
}

// vouchers returns the providers whose identities alone can make a condition
// hit. It fails for a condition that does not depend on the provider.
func vouchers(c condition) (ids []string, ok bool) {
	switch c := c.(type) {
	case providers:
		return c, true
	case people:
		return c.providers(), true
	case clients:
		return people(c).providers(), true
	case membership:
		for _, g := range c {
			if len(g.claims) > 0 {
				ids = append(ids, g.provider)
			}
			ids = append(ids, g.users.providers()...)
		}
		return ids, true
	}
	return nil, false
}

func (p people) providers() (ids []string) {
	for one := range p {
		ids = append(ids, one.provider)
	}
	return ids
}

func anyPerson(p people, test func(person) bool) bool {
	for one := range p {
		if test(one) {
			return true
		}
	}
	return false
}

// covers reports whether every member of g is a member of one of the groups.
func (m membership) covers(g *group) bool {
	return slices.ContainsFunc(m, func(w *group) bool {
		return w == g || (len(g.claims) == 0 || w.provider == g.provider && subset(g.claims, w.claims)) &&
			!anyPerson(g.users, func(p person) bool { _, ok := w.users[p]; return !ok })
	})
}

// lists reports whether a group names the person.
func (m membership) lists(p person) bool {
	return slices.ContainsFunc(m, func(g *group) bool { _, ok := g.users[p]; return ok })
}

// listsOnly reports whether the groups depend on no claim.
func (m membership) listsOnly() bool {
	return !slices.ContainsFunc(m, func(g *group) bool { return len(g.claims) > 0 })
}

func (w workloads) covers(n workload) bool {
	return slices.ContainsFunc(w, func(one workload) bool {
		return one == n || one.below && strings.HasPrefix(n.id, one.id)
	})
}

func (n networks) covers(one netip.Prefix) bool {
	return slices.ContainsFunc(n, func(wide netip.Prefix) bool {
		return wide.Bits() <= one.Bits() && wide.Contains(one.Addr())
	})
}

func (n networks) disjoint(others networks) bool {
	return !slices.ContainsFunc(n, func(a netip.Prefix) bool {
		return slices.ContainsFunc(others, a.Overlaps)
	})
}

// within reports whether a window is open only when another is.
func (w *window) within(wide *window) bool {
	return w.everyMinute(func(day, minute int) bool { return !w.openOn(day, minute) || wide.openOn(day, minute) })
}

// apart reports whether two windows are never open together.
func (w *window) apart(other *window) bool {
	return w.everyMinute(func(day, minute int) bool { return !w.openOn(day, minute) || !other.openOn(day, minute) })
}

func (w *window) everyMinute(holds func(day, minute int) bool) bool {
	for day := range 7 {
		for minute := range dayMinutes {
			if !holds(day, minute) {
				return false
			}
		}
	}
	return true
}

// implies reports whether a device that passes p passes q at the same moment.
func (p *profile) implies(q *profile) bool {
	for i := range q.checks {
		if !slices.ContainsFunc(p.checks, func(c profileCheck) bool { return c.check == q.checks[i].check && c.grace <= q.checks[i].grace }) {
			return false
		}
	}
	for system, version := range p.minOS {
		oldest, listed := q.minOS[system]
		if order, ok := compareVersions(version, oldest); q.minOS != nil && (!listed || !ok || order < 0) {
			return false
		}
	}
	return (q.minOS == nil || p.minOS != nil) && p.maxAge <= q.maxAge && p.useLastKnown <= q.useLastKnown &&
		(q.sources == nil || p.sources != nil && subset(p.sources, q.sources))
}

// loginImplies reports whether a login that meets ask meets other.
func loginImplies(ask, other access.LoginRequire) bool {
	for _, class := range ask.ACR {
		if len(other.ACR) > 0 && !slices.ContainsFunc(other.ACR, func(o string) bool { return slices.Contains(access.LevelsFrom(o), class) }) {
			return false
		}
	}
	strong := ask.PhishingResistant || len(ask.ACR) > 0 && subset(ask.ACR, access.LevelsFrom("phr"))
	return (len(other.ACR) == 0 || len(ask.ACR) > 0) &&
		(len(other.AMR) == 0 || len(ask.AMR) > 0 && subset(ask.AMR, other.AMR)) &&
		(other.MaxAge == 0 || ask.MaxAge > 0 && ask.MaxAge <= other.MaxAge) &&
		(!other.PhishingResistant || strong)
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(v string) bool { return !slices.Contains(b, v) })
}

func meet(a, b []string) bool {
	return slices.ContainsFunc(a, func(v string) bool { return slices.Contains(b, v) })
}
