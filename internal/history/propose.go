package history

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

// Proposal is one right that could be taken away.
type Proposal struct {
	// Kind is one of UnusedRoute and its kin.
	Kind Kind `json:"kind"`
	// Path is the place in the configuration.
	Path  string `json:"path"`
	Route string `json:"route"`
	Rule  string `json:"rule,omitempty"`
	// Text says what is proposed and why.
	Text string `json:"text"`
	// Use is how the thing itself was used, Around how the route was.
	Use    Use `json:"use"`
	Around Use `json:"route_use"`
	// Held is why the patch leaves it out: for people to decide, or too little is
	// known.
	Held string `json:"held,omitempty"`
	// Loses lists who of those who were seen has the right now and would not have
	// it any more. None of them used it.
	Loses    []string `json:"would_lose,omitempty"`
	MoreLose bool     `json:"more_would_lose,omitempty"`

	at     place
	change change
	probe  probe
}

// Kind sorts proposals.
type Kind string

// The kinds of proposals.
const (
	UnusedRoute  Kind = "unused-route"
	UnusedRule   Kind = "unused-rule"
	UnusedPublic Kind = "unused-public"
	UnusedGroup  Kind = "unused-group"
	UnusedUser   Kind = "unused-user"
	NameGroups   Kind = "name-groups"  // in the place of any_user
	ReadOnly     Kind = "read-only"    // nobody writes
	SplitReads   Kind = "split-reads"  // some groups only read
	NarrowPaths  Kind = "narrow-paths" // only a part of the application is used
	EnforceDeny  Kind = "enforce-deny" // report-only, and refuses nobody
	RarelyUsed   Kind = "rarely-used"
)

// What counts as rarely used.
const (
	rareRequests = 5
	rareDays     = 3
	rareUsers    = 3
)

type proposer struct {
	cfg     *config.Config
	usage   *usage
	caution Caution
	list    []Proposal
}

// all makes every proposal.
func (p *proposer) all() []Proposal {
	for i := range p.cfg.Routes {
		p.route(i, &p.cfg.Routes[i])
	}
	if all := p.count(UnusedRoute); all == len(p.cfg.Routes) {
		p.holdAll("nothing at all was used: is this the log of this configuration?")
	}
	covered := p.usage.log.Last.Sub(p.usage.log.First)
	switch {
	case covered < time.Duration(p.caution.days()-1)*24*time.Hour:
		p.holdAll(fmt.Sprintf("the log covers %s only; %d are asked for (--min-days)", counted(int(covered/(24*time.Hour))+1, "day"), p.caution.days()))
	case !p.caution.AnySeason && !holdsQuarterEnd(p.usage.log.First, p.usage.log.Last):
		p.holdAll("the log does not cover the end of a quarter, when things are done that are done at no other time (--any-season proposes all the same)")
	}
	return p.list
}

func (p *proposer) count(kind Kind) int {
	return total(p.list, func(one Proposal) int {
		if one.Kind == kind {
			return 1
		}
		return 0
	})
}

func (p *proposer) holdAll(why string) {
	for i := range p.list {
		if p.list[i].Held == "" {
			p.list[i].Held = why
		}
	}
}

// about is what is known of one route while it is looked at.
type about struct {
	*proposer
	index int
	route *access.Route
	use   Use
}

func (a *about) propose(kind Kind, at place, rule string, use *Use, c change, format string, args ...any) *Proposal {
	if use == nil {
		use = &Use{}
	}
	a.list = append(a.list, Proposal{
		Kind: kind, Path: at.String(), Route: a.route.ID, Rule: rule, Text: fmt.Sprintf(format, args...),
		Use: use.counted(), Around: a.use, at: at, change: c,
	})
	return &a.list[len(a.list)-1]
}

// probeOf is a request that a rule is about.
func (a *about) probeOf(methods, paths []string) probe {
	p := probe{route: a.route.ID, method: "GET", path: "/"}
	if u, err := url.Parse(a.route.From); err == nil {
		p.scheme, p.host, p.path = u.Scheme, u.Host, strings.TrimSuffix(u.Path, "/")+"/"
	}
	if len(methods) > 0 {
		p.method = methods[0]
	}
	if len(paths) > 0 {
		path := strings.TrimSuffix(paths[0], "/**")
		path = strings.ReplaceAll(strings.ReplaceAll(path, "/**", ""), "*", "x")
		p.path = "/" + strings.TrimPrefix(path, "/")
	}
	return p
}

func (p *proposer) route(index int, route *access.Route) {
	a := &about{proposer: p, index: index, route: route}
	use := p.usage.all[route.ID]
	if use == nil {
		a.propose(UnusedRoute, place{route: index}, "", nil, change{remove: true}, "nobody used the route %s: remove it", route.ID).probe = a.probeOf(nil, nil)
		return
	}
	a.use = use.counted()
	if use.Requests < p.caution.requests() {
		a.rare(place{route: index}, "", "the route "+route.ID, use)
		return
	}
	for i := range route.Public {
		name := "public/" + route.Public[i].Name
		if p.usage.rules[ruleKey(route.ID, name)] == nil {
			a.propose(UnusedPublic, place{index, "public", i}, name, nil, change{remove: true}, "nothing came in by %s: remove it", name)
		}
	}
	for i := range route.Allow {
		if route.Allow[i].Mode != access.Report {
			a.allow(i, &route.Allow[i])
		}
	}
	a.keepOneDoor()
	for i := range route.Deny {
		if route.Deny[i].Mode == access.Report {
			a.deny(i, &route.Deny[i])
		}
	}
}

// keepOneDoor holds removals back that would leave a route which nobody can use.
func (a *about) keepOneDoor() {
	removed := 0
	for i := range a.list {
		if one := &a.list[i]; one.at.route == a.index && one.at.list == "allow" && one.change.remove {
			removed++
		}
	}
	enforced := slices.DeleteFunc(slices.Clone(a.route.Allow), func(r access.Rule) bool { return r.Mode == access.Report })
	if removed == 0 || removed < len(enforced) {
		return
	}
	for i := range a.list {
		if one := &a.list[i]; one.at.route == a.index && one.at.list == "allow" && one.change.remove {
			one.Held = "no other rule of the route is used, so that it would be left without one"
		}
	}
}

func (a *about) allow(i int, rule *access.Rule) {
	at, name := place{a.index, "allow", i}, "allow/"+rule.Name
	use := a.usage.rules[ruleKey(a.route.ID, name)]
	if use == nil {
		a.propose(UnusedRule, at, name, nil, change{remove: true}, "nobody used %s: remove it", name).probe = a.probeOf(rule.Methods, rule.Paths)
		return
	}
	if a.rare(at, name, name, &use.Use) {
		return
	}
	a.groups(at, name, rule, use)
	if use.Requests < a.caution.requests() {
		return
	}
	if rule.AnyUser {
		a.nameGroups(at, name, rule, use)
	}
	if strings.HasPrefix(a.route.From, "tcp:") {
		return // tunnels have neither methods nor paths to narrow
	}
	a.methods(at, name, rule, use)
	if globs, ok := use.tree.globs(); ok && use.Requests >= 3*a.caution.requests() && narrower(globs, rule.Paths) {
		elsewhere := a.probeOf(rule.Methods, rule.Paths)
		elsewhere.path = strings.TrimSuffix(elsewhere.path, "/") + "/elsewhere"
		a.propose(NarrowPaths, at, name, &use.Use, change{paths: globs}, "%s was used below %s only: write paths: %s", name, strings.Join(globs, ", "), flow(globs, func(s string) string { return s })).probe = elsewhere
	}
}

// narrower reports whether ours is a real part of what a rule permits.
func narrower(ours, rules []string) bool {
	same := slices.Equal(slices.Sorted(slices.Values(ours)), slices.Sorted(slices.Values(rules)))
	return !same && !slices.Contains(ours, "/**") && !slices.ContainsFunc(ours, func(glob string) bool { return !within(glob, rules) })
}

// rare proposes a grant for something that is used now and then.
func (a *about) rare(at place, name, text string, use *Use) bool {
	u := use.counted()
	if u.Requests > rareRequests || u.Days > rareDays || u.Users > rareUsers {
		return false
	}
	one := a.propose(RarelyUsed, at, name, use, change{}, "%s was used by %s in %s on %s: consider a time-limited grant", text, counted(u.Users, "user"), counted(u.Requests, "request"), counted(u.Days, "day"))
	one.Held = "for people to decide"
	if u.Season == u.Days {
		one.Text = fmt.Sprintf("%s is used around the end of a quarter only: keep it, or grant it for that time", text)
	}
	return true
}

// groups looks for groups and users of a rule that nobody used it by.
func (a *about) groups(at place, name string, rule *access.Rule, use *ruleUse) {
	for _, group := range rule.Groups {
		if u := use.groups[group]; u != nil {
			a.rare(at, name, "group "+group+" in "+name, u)
			continue
		}
		a.propose(UnusedGroup, at, name, nil, change{without: []string{group}}, "nobody of group %s used %s: take the group out", group, name).probe = a.probeOf(rule.Methods, rule.Paths)
	}
	for _, user := range rule.Users {
		if use.people[user] == nil {
			a.propose(UnusedUser, at, name, nil, change{withoutUsers: []string{user}}, "%s did not use %s: take the name out", user, name).probe = a.probeOf(rule.Methods, rule.Paths)
		}
	}
}

// mostGroups is how many groups somebody would write in the place of any_user.
const mostGroups = 3

// nameGroups drafts a rule for those who really came, out of one for anybody:
// the fewest groups that all of them are in.
func (a *about) nameGroups(at place, name string, rule *access.Rule, use *ruleUse) {
	var crowds [][]string
	for together := range use.together {
		if together == "" || together == overflow {
			return // somebody came who is in no group
		}
		crowds = append(crowds, strings.Fields(together))
	}
	var chosen []string
	for len(crowds) > 0 {
		best, most := "", 0
		for _, group := range slices.Sorted(maps.Keys(a.cfg.Groups)) {
			n := total(crowds, func(crowd []string) int {
				if slices.Contains(crowd, group) {
					return 1
				}
				return 0
			})
			if n > most || n == most && n > 0 && a.members(group) < a.members(best) {
				best, most = group, n
			}
		}
		if best == "" || len(chosen) == mostGroups {
			return
		}
		chosen = append(chosen, best)
		crowds = slices.DeleteFunc(crowds, func(crowd []string) bool { return slices.Contains(crowd, best) })
	}
	slices.Sort(chosen)
	one := a.propose(NameGroups, at, name, &use.Use, change{named: chosen}, "everybody who used %s is in %s: write groups in the place of any_user", name, strings.Join(chosen, " or "))
	one.probe = a.probeOf(rule.Methods, rule.Paths)
}

// members counts those of a group who were seen.
func (a *about) members(group string) (n int) {
	for _, last := range a.usage.seen {
		if slices.Contains(a.cfg.Policy.Member(&last.Request.Identity), group) {
			n++
		}
	}
	return n
}

// methods proposes that a rule is for reading only, for everybody or for those
// groups that never did anything else.
func (a *about) methods(at place, name string, rule *access.Rule, use *ruleUse) {
	reads := []string{"GET", "HEAD"}
	if use.method["OPTIONS"] != nil {
		reads = append(reads, "OPTIONS")
	}
	if len(rule.Methods) > 0 {
		reads = slices.DeleteFunc(slices.Clone(rule.Methods), func(m string) bool { return !safe(m) })
		if len(reads) == 0 || len(reads) == len(rule.Methods) {
			return
		}
	}
	if use.method[overflow] != nil {
		return
	}
	write := "POST"
	if i := slices.IndexFunc(rule.Methods, func(m string) bool { return !safe(m) }); i >= 0 {
		write = rule.Methods[i]
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(use.method)), func(m string) bool { return !safe(m) }) {
		a.propose(ReadOnly, at, name, &use.Use, change{methods: reads}, "%s was used for reading only: write methods: %s", name, flow(reads, word)).probe = a.probeOf([]string{write}, rule.Paths)
		return
	}
	var readers, writers []string
	seen := &Use{}
	for _, group := range rule.Groups {
		switch u := use.groups[group]; {
		case u == nil: // goes anyway
		case use.writes[group] != nil || u.Requests < a.caution.requests():
			writers = append(writers, group)
		default:
			readers = append(readers, group)
			seen.add(u)
		}
	}
	if len(readers) == 0 || len(writers) == 0 {
		return
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(slices.Concat(a.route.Allow, a.route.Deny), func(r access.Rule) bool { return r.Name == name }) ||
			slices.ContainsFunc(a.route.Public, func(r access.Public) bool { return r.Name == name })
	}
	readName := rule.Name + "-read"
	for n := 2; taken(readName); n++ {
		readName = fmt.Sprintf("%s-read-%d", rule.Name, n)
	}
	a.propose(SplitReads, at, name, seen, change{readers: readers, readName: readName, readMethods: reads},
		"%s only reads by %s: move it to a rule of its own, for %s", strings.Join(readers, ", "), name, strings.Join(reads, ", ")).probe = a.probeOf([]string{write}, rule.Paths)
}

// deny proposes to enforce a rule that was tried out.
func (a *about) deny(i int, rule *access.Rule) {
	at, name := place{a.index, "deny", i}, "deny/"+rule.Name
	use := a.usage.reported[ruleKey(a.route.ID, name)]
	if use == nil && len(a.usage.reported) < maxReportOnly {
		a.propose(EnforceDeny, at, name, nil, change{enforce: true}, "%s would have refused nobody: remove mode: report", name)
		return
	}
	if use != nil {
		a.propose(EnforceDeny, at, name, use, change{enforce: true}, "%s would have refused %s of %s", name, counted(use.Requests, "request"), counted(len(use.users), "user")).Held = "it would refuse what people do"
	}
}
