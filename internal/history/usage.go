package history

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
)

// Bounds on what is kept of the use of one thing.
const (
	maxNames      = 1000 // users, methods, combinations of groups
	maxSubtrees   = 64
	maxReportOnly = 1000
)

// Use is how often something was used, when and by whom.
type Use struct {
	Requests int       `json:"requests"`
	First    time.Time `json:"first,omitzero"`
	Last     time.Time `json:"last,omitzero"`
	// Days is the number of days with a use, Season of those around the end of a
	// quarter.
	Days   int `json:"days"`
	Season int `json:"days_around_quarter_ends,omitempty"`
	// Users counts those who used it, at most a thousand.
	Users int `json:"users"`

	days  map[int]bool // by number; true around the end of a quarter
	users map[string]bool
}

func (u *Use) saw(at time.Time, user string) {
	u.Requests++
	u.span(at, at)
	if u.days == nil {
		u.days, u.users = map[int]bool{}, map[string]bool{}
	}
	day := int(at.Unix() / (24 * 3600))
	if _, known := u.days[day]; !known {
		u.days[day] = quarterEnd(at.UTC())
	}
	if len(u.users) < maxNames {
		u.users[user] = true
	}
}

func (u *Use) span(first, last time.Time) {
	if u.First.IsZero() || first.Before(u.First) {
		u.First = first
	}
	if last.After(u.Last) {
		u.Last = last
	}
}

func (u *Use) add(more *Use) {
	if more.Requests == 0 {
		return
	}
	u.Requests += more.Requests
	u.span(more.First, more.Last)
	if u.days == nil {
		u.days, u.users = map[int]bool{}, map[string]bool{}
	}
	maps.Copy(u.days, more.days)
	for _, user := range slices.Sorted(maps.Keys(more.users)) {
		if len(u.users) < maxNames {
			u.users[user] = true
		}
	}
}

// counted fills in the fields that are counted from sets.
func (u *Use) counted() Use {
	c := *u
	c.Days, c.Users = len(u.days), len(u.users)
	for _, season := range u.days {
		if season {
			c.Season++
		}
	}
	return c
}

// uses maps names to their use, for a bounded number of names.
type uses map[string]*Use

// at returns the use of a name, that of all the others where there are too many.
func (u uses) at(name string) *Use {
	if u[name] == nil {
		if len(u) >= maxNames {
			name = overflow
		}
		if u[name] == nil {
			u[name] = &Use{}
		}
	}
	return u[name]
}

func (u uses) add(more uses) {
	for _, name := range slices.Sorted(maps.Keys(more)) {
		u.at(name).add(more[name])
	}
}

// ruleUse is the use of one allow rule. A request that several rules allow
// counts for each, and a membership for each group that gives it: what is
// proposed for one rule then never depends on what is proposed for another.
type ruleUse struct {
	Use
	groups uses // of the rule, by name
	writes uses // the same, for requests that are not safe
	people uses // the rule's own users, by PROVIDER:SUB
	method uses
	// together counts combinations of top-level groups, joined by blanks, for
	// rules that are open to any user.
	together uses
	tree     subtrees
}

func newRuleUse() *ruleUse {
	return &ruleUse{groups: uses{}, writes: uses{}, people: uses{}, method: uses{}, together: uses{}}
}

func (r *ruleUse) add(more *ruleUse) {
	r.Use.add(&more.Use)
	r.groups.add(more.groups)
	r.writes.add(more.writes)
	r.people.add(more.people)
	r.method.add(more.method)
	r.together.add(more.together)
	r.tree.add(&more.tree)
}

// usage is what a configuration was used for.
type usage struct {
	log     Contents
	unknown int
	// all is the use of each route, rules of each rule by route and name
	// ("wiki allow/staff"), reported the requests a report-only rule would have
	// refused.
	all      uses
	rules    map[string]*ruleUse
	reported uses
	seen     seen
}

func newUsage() *usage {
	return &usage{all: uses{}, rules: map[string]*ruleUse{}, reported: uses{}, seen: seen{}}
}

func (u *usage) rule(key string) *ruleUse {
	if u.rules[key] == nil {
		u.rules[key] = newRuleUse()
	}
	return u.rules[key]
}

func (u *usage) add(part *usage) {
	u.log.add(&part.log)
	u.unknown += part.unknown
	u.all.add(part.all)
	u.reported.add(part.reported)
	for _, key := range slices.Sorted(maps.Keys(part.rules)) {
		u.rule(key).add(part.rules[key])
	}
	u.seen.add(part.seen)
}

// gatherer reads usage off the records.
type gatherer struct {
	now    *config.Config
	filter Filter
	rules  map[string]*access.Rule // by route and name
}

func newGatherer(cfg *config.Config, filter Filter) *gatherer {
	g := &gatherer{now: cfg, filter: filter, rules: map[string]*access.Rule{}}
	for i := range cfg.Routes {
		for j := range cfg.Routes[i].Allow {
			rule := &cfg.Routes[i].Allow[j]
			g.rules[ruleKey(cfg.Routes[i].ID, "allow/"+rule.Name)] = rule
		}
	}
	return g
}

func ruleKey(route, rule string) string { return route + " " + rule }

func (g *gatherer) batch(batch audit.Batch) *usage {
	part := newUsage()
	part.log = each(batch, &g.filter, func(r *Record) { g.record(r, part) })
	return part
}

// record counts a request that somebody was not refused, then and now. One that
// was only asked for a better login or device counts as well: whoever gets that
// far holds the right.
func (g *gatherer) record(r *Record, into *usage) {
	if r.Obscure != "" || r.Decision == nil {
		into.unknown++
		return
	}
	then := r.Decision.Outcome
	gaps := again(g.now, r)
	if g.now.Policy.Depends(r.Request, gaps) {
		into.unknown++
		return
	}
	if user := r.Request.Identity.User(); user != "" {
		into.seen.keep(user, r)
	}
	decision := g.now.Policy.Decide(r.Request)
	if then == access.Deny || decision.Outcome == access.Deny || decision.Reason == access.LoginRequired {
		return
	}
	req := r.Request
	user := userOf(&req.Identity)
	into.all.at(req.Route).saw(r.Time, user)
	for _, shadow := range decision.Shadow {
		if len(into.reported) < maxReportOnly {
			into.reported.at(ruleKey(req.Route, shadow.Rule)).saw(r.Time, user)
		}
	}
	if strings.HasPrefix(decision.Rule, "public/") {
		into.rule(ruleKey(req.Route, decision.Rule)).saw(r.Time, user)
		return
	}
	member := g.now.Policy.Member(&req.Identity)
	for _, name := range g.now.Policy.Uses(req) {
		key := ruleKey(req.Route, name)
		into.rule(key).note(g.rules[key], member, r, user)
	}
}

// note counts a request that the rule allows, of somebody who is a member of
// certain groups.
func (u *ruleUse) note(rule *access.Rule, member []string, r *Record, user string) {
	req := r.Request
	u.saw(r.Time, user)
	u.method.at(req.Method).saw(r.Time, user)
	u.tree.saw(req.Path, len(req.Ambiguous) > 0)
	if slices.Contains(rule.Users, user) {
		u.people.at(user).saw(r.Time, user)
	}
	if rule.AnyUser {
		u.together.at(strings.Join(member, " ")).saw(r.Time, user)
	}
	for _, group := range rule.Groups {
		if !slices.Contains(member, group) {
			continue
		}
		u.groups.at(group).saw(r.Time, user)
		if !safe(req.Method) {
			u.writes.at(group).saw(r.Time, user)
		}
	}
}

// safe reports whether a method only reads (RFC 9110 §9.2.1).
func safe(method string) bool {
	return method == "GET" || method == "HEAD" || method == "OPTIONS"
}
