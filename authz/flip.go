package authz

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// anotherPerson is a subject that no rule names.
const anotherPerson = "somebody-else"

// flip returns the states in which one condition answers as wanted, one for each
// value of its fact that the route's rules can tell apart.
func (s *search) flip(r *rule, c condition, at *state, want access.Tri) []state {
	text, got := c.describe(s.from)
	step := Step{For: r.name, Condition: c.key(), Become: resultOf(want), Want: text, Got: got}
	if slices.ContainsFunc(at.moves, func(s move) bool { return s.For == step.For && s.Condition == step.Condition }) {
		return nil // what was changed for it has been changed back: no way leads on from here
	}
	if e, ok := c.(expects); ok {
		if _, settled := at.assumed[e.source]; settled {
			return nil
		}
		step.Want = e.source + " is " + map[bool]string{true: "true", false: "false"}[e.want]
		return []state{at.next(move{Step: step, assume: &e})}
	}
	var list []state
	seen := map[string]bool{}
	for _, v := range s.values(c, want) {
		step.Example = v.example
		n := at.next(move{Step: step, set: v.set})
		if s.answer(c, &n) != want {
			continue
		}
		if key := s.answers(&n); !seen[key] {
			seen[key] = true
			list = append(list, n)
		}
	}
	return list
}

// answers is what every condition says. Values that lead to the same answers
// are as good as each other.
func (s *search) answers(at *state) string {
	var b strings.Builder
	for c := range s.conditions {
		b.WriteByte('0' + byte(s.answer(c, at)))
	}
	return b.String()
}

// value is a value that a fact may be given.
type value struct {
	example string
	set     func(*access.Request)
}

// values lists what the fact of a condition may be, as far as the rules of the
// route name values, with no promise that the condition then answers as wanted.
func (s *search) values(c condition, want access.Tri) (list []value) {
	add := func(example string, set func(*access.Request)) { list = append(list, value{example, set}) }
	machine := func(example string, set func(*access.Workload)) {
		add(example, func(r *access.Request) { set(&r.Identity.Workload) })
	}
	switch c := c.(type) {
	case anyUser, onlyPeople:
		for _, kind := range []access.Kind{access.Person, access.Service} {
			add(kindName(&access.Identity{Provider: "p", Issuer: "i", Subject: "s", Kind: kind}), func(r *access.Request) { r.Identity.Kind = kind })
		}
	case membership:
		if want == access.No {
			list = append(list, c.leave())
		}
		return append(list, s.somebody()...)
	case people, providers, clients:
		return s.somebody()
	case *claim:
		for other := range s.conditions {
			if other, ok := other.(*claim); ok && other.name == c.name {
				for _, accepted := range other.accept {
					add(accepted, setClaim(c.name, accepted))
				}
			}
		}
		add("", setClaim(c.name, nil))
	case serviceAccounts:
		for _, account := range append(named[serviceAccounts](s), "") {
			machine(account, func(w *access.Workload) { w.ServiceAccount = account })
		}
	case workloads:
		for _, one := range append(named[workloads](s), workload{}) {
			id := one.id
			if one.below {
				id += "example"
			}
			machine(id, func(w *access.Workload) { w.SPIFFE = id })
		}
	case scopes:
		for _, scope := range c {
			machine(scope, func(w *access.Workload) {
				w.Scopes = slices.Sorted(slices.Values(append(slices.Clone(w.Scopes), scope)))
			})
		}
		machine("", func(w *access.Workload) {
			w.Scopes = slices.DeleteFunc(slices.Clone(w.Scopes), func(have string) bool { return slices.Contains(c, have) })
		})
	case methods:
		if s.free {
			for _, m := range append(named[methods](s), "GET", "POST", "OTHER") {
				add(m, func(r *access.Request) { r.Method = m })
			}
		}
	case paths:
		if s.free {
			for _, p := range s.paths() {
				add(p, func(r *access.Request) { r.Path = p })
			}
		}
	case networks:
		for _, ip := range s.addresses() {
			add(ip.String(), func(r *access.Request) { r.Network.IP = ip })
		}
	case *schedule:
		for _, at := range s.moments() {
			add(at.Format(time.RFC3339), func(r *access.Request) { r.MoveTo(at) })
		}
	}
	return list
}

// named lists all that the conditions of one type name.
func named[C ~[]V, V any](s *search) (list []V) {
	for c := range s.conditions {
		if c, ok := any(c).(C); ok {
			list = append(list, c...)
		}
	}
	return list
}

// somebody lists whom the rules tell apart: everybody they name and somebody
// whom none does, each provider, each group's claims, each client. Rules look at
// several of these at once, so that one change may do for all of them.
func (s *search) somebody() (list []value) {
	add := func(example string, set func(*access.Identity)) {
		list = append(list, value{example, func(r *access.Request) { set(&r.Identity) }})
	}
	everybody, everyClient := people{}, people{}
	for c := range s.conditions {
		switch c := c.(type) {
		case people:
			maps.Copy(everybody, c)
		case clients:
			maps.Copy(everyClient, c)
		case membership:
			for _, g := range c {
				maps.Copy(everybody, g.users)
				for _, claim := range g.claims {
					add("group "+g.provider+":"+claim, func(id *access.Identity) {
						id.Provider = g.provider
						id.Groups = slices.Sorted(slices.Values(append(slices.Clone(id.Groups), claim)))
					})
				}
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.policy.providers)) {
		add("provider "+id, func(i *access.Identity) { i.Provider = id })
	}
	for _, one := range sortedPeople(everyClient) {
		add("client "+one.String(), func(id *access.Identity) { id.Provider, id.ClientID = one.provider, one.subject })
	}
	add("no client", func(id *access.Identity) { id.ClientID = "" })
	for _, one := range sortedPeople(everybody) {
		add("user "+one.String(), func(id *access.Identity) { id.Provider, id.Subject = one.provider, one.subject })
	}
	add("another user", func(id *access.Identity) { id.Subject = anotherPerson })
	return list
}

// leave takes the visitor out of every group.
func (m membership) leave() value {
	return value{"none of these groups", func(r *access.Request) {
		id := &r.Identity
		if slices.ContainsFunc(m, func(g *group) bool { return g.users.has(id) }) {
			id.Subject = anotherPerson
		}
		id.GroupsIncomplete = false
		id.Groups = slices.DeleteFunc(slices.Clone(id.Groups), func(claim string) bool {
			return slices.ContainsFunc(m, func(g *group) bool { return g.provider == id.Provider && slices.Contains(g.claims, claim) })
		})
	}}
}

func sortedPeople(p people) []person {
	return slices.SortedFunc(maps.Keys(p), func(a, b person) int { return strings.Compare(a.String(), b.String()) })
}

func setClaim(name string, value any) func(*access.Request) {
	return func(r *access.Request) {
		claims := maps.Clone(r.Identity.Claims)
		if claims == nil {
			claims = map[string]any{}
		}
		delete(claims, name)
		if value != nil {
			claims[name] = value
		}
		r.Identity.Claims = claims
	}
}

// conditions yields every condition of the rules that a change may have to
// reckon with, and of the places where more is required.
func (s *search) conditions(yield func(condition) bool) {
	for _, rules := range [][]rule{s.rt.public, s.rt.deny, s.rt.allow} {
		for i := range rules {
			for _, c := range rules[i].conditions {
				if !yield(c) {
					return
				}
			}
		}
	}
	for i := range s.rt.demands {
		for _, c := range s.rt.demands[i].where {
			if !yield(c) {
				return
			}
		}
	}
}

// paths lists paths for every glob of the rules, and some that few match.
func (s *search) paths() []string {
	list := []string{"/", "/example"}
	for _, g := range named[paths](s) {
		list = append(list, g.example(""), g.example("example"))
	}
	return list
}

// example writes a path that the glob matches, with some text for every star.
func (g *glob) example(star string) string {
	var segments []string
	for _, segment := range g.segments {
		switch segment = strings.ReplaceAll(segment, "*", star); {
		case segment != "" || star == "" && len(g.segments) == 1:
			segments = append(segments, segment)
		}
	}
	return "/" + strings.Join(segments, "/")
}

// addresses lists the ends of every network of the rules, and some outside.
func (s *search) addresses() (list []netip.Addr) {
	for _, prefix := range named[networks](s) {
		list = append(list, prefix.Addr(), lastAddress(prefix))
	}
	return append(list, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:ffff::1"))
}

func lastAddress(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// moments lists the instants of the next eight days at which a window of the
// rules opens or closes, the nearest first.
func (s *search) moments() []time.Time {
	if s.times != nil {
		return s.times
	}
	start := s.from.Time
	if start.IsZero() {
		start = time.Unix(0, 0).UTC()
	}
	s.times = []time.Time{start}
	for c := range s.conditions {
		w, ok := c.(*schedule)
		if !ok {
			continue
		}
		local := start.In(w.zone)
		for day := range 9 {
			for _, minute := range []int{0, w.start, w.end} {
				if at := time.Date(local.Year(), local.Month(), local.Day()+day, 0, minute, 0, 0, w.zone); at.After(start) {
					s.times = append(s.times, at.UTC())
				}
			}
		}
	}
	slices.SortFunc(s.times, time.Time.Compare)
	return s.times
}
