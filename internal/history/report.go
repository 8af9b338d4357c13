package history

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Bounds on what a report keeps. Counts go on beyond them.
const (
	maxExamples = 5
	maxGroups   = 10_000
	maxUsers    = 10_000 // of one group
)

// Report tells what a candidate configuration would have decided otherwise.
type Report struct {
	// Config and Version name the candidate.
	Config  string   `json:"config"`
	Version string   `json:"version"`
	Log     Contents `json:"log"`

	// Same counts verdicts that stay, with their reasons.
	Same int `json:"same"`
	// Changes have another outcome, Reasons the same for another reason or by
	// another rule.
	Changes []Change `json:"changes"`
	Reasons []Change `json:"other_reasons,omitempty"`
	// Unknown are requests whose record does not tell enough.
	Unknown []Unknown `json:"unknown,omitempty"`
	// Inconsistent are verdicts of this very configuration that it does not
	// repeat: a fault of Doorward, or a log that was tampered with.
	Inconsistent []Change `json:"inconsistent,omitempty"`

	changes, reasons, inconsistent changes
	unknowns                       map[string]*Unknown
}

// Change is a set of requests that change in the same way.
type Change struct {
	From access.Outcome `json:"from"`
	To   access.Outcome `json:"to"`
	// Route is the route of the requests, Moved the one they would get instead.
	Route string `json:"route,omitempty"`
	Moved string `json:"moved_to,omitempty"`
	// Before and After are the rule that decides, or the reason where none does.
	Before string `json:"before"`
	After  string `json:"after"`

	Count int `json:"count"`
	// Users are the people and machines concerned, by name.
	Users []UserCount `json:"users"`
	// MoreUsers tells that not all of them are listed.
	MoreUsers bool      `json:"more_users,omitempty"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
	// Examples are the first requests.
	Examples []Example `json:"examples"`
}

// Transition names the kind of the change: "allow-to-deny".
func (c *Change) Transition() string { return c.From.String() + "-to-" + c.To.String() }

// UserCount is somebody with the number of their requests.
type UserCount struct {
	User  string `json:"user"`
	Email string `json:"email,omitempty"`
	Count int    `json:"count"`
}

// Unknown is a set of requests nobody can decide on again.
type Unknown struct {
	Why      string    `json:"why"`
	Count    int       `json:"count"`
	Examples []Example `json:"examples"`
}

// Example is one request of the log.
type Example struct {
	Time   time.Time `json:"time"`
	ID     string    `json:"id"`
	User   string    `json:"user"`
	Method string    `json:"method,omitempty"`
	URL    string    `json:"url,omitempty"`
	Place  string    `json:"place"`
}

func example(r *Record) Example {
	e := Example{Time: r.Time, ID: r.RequestID, Place: r.place(), User: "nobody"}
	if req := r.Request; req != nil {
		e.ID, e.Method, e.URL = req.ID, req.Method, req.Origin()+req.Path
		e.User = userOf(&req.Identity)
	}
	return e
}

func userOf(id *access.Identity) string { return cmp.Or(id.User(), "nobody") }

// earlier orders examples in a way that does not depend on the order of files.
func earlier(a, b Example) int {
	return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.ID, b.ID), strings.Compare(a.Place, b.Place))
}

// keep adds examples and keeps the earliest.
func keep(list []Example, more ...Example) []Example {
	if len(more) == 1 && len(list) == maxExamples && earlier(more[0], list[maxExamples-1]) > 0 {
		return list
	}
	list = append(list, more...)
	slices.SortFunc(list, earlier)
	return list[:min(len(list), maxExamples)]
}

// changes are the sets while they grow.
type changes map[changeKey]*growing

type changeKey struct {
	from, to                    access.Outcome
	route, moved, before, after string
}

type growing struct {
	Change
	users map[string]*UserCount
}

// overflow is the set of all that no set of its own is kept for.
const overflow = "(more than are listed)"

func (c changes) at(key changeKey) *growing {
	g := c[key]
	if g == nil {
		if len(c) >= maxGroups {
			key.route, key.moved, key.before, key.after = overflow, "", overflow, overflow
			if g = c[key]; g != nil {
				return g
			}
		}
		g = &growing{Change: Change{From: key.from, To: key.to, Route: key.route, Moved: key.moved, Before: key.before, After: key.after}, users: map[string]*UserCount{}}
		c[key] = g
	}
	return g
}

func (g *growing) user(name, email string, n int) {
	u := g.users[name]
	switch {
	case u == nil && len(g.users) >= maxUsers:
		g.MoreUsers = true
		return
	case u == nil:
		u = &UserCount{User: name}
		g.users[name] = u
	}
	u.Email = cmp.Or(u.Email, email)
	u.Count += n
}

func (g *growing) span(first, last time.Time) {
	if g.First.IsZero() || first.Before(g.First) {
		g.First = first
	}
	if last.After(g.Last) {
		g.Last = last
	}
}

func (r *Report) change(into *changes, rec *Record, after *access.Decision, before string) {
	if *into == nil {
		*into = changes{}
	}
	key := changeKey{from: rec.Decision.Outcome, to: after.Outcome, route: before, before: verdict(rec.Decision), after: verdict(after)}
	if rec.Request.Route != before {
		key.moved = cmp.Or(rec.Request.Route, "no route")
	}
	g := into.at(key)
	g.Count++
	g.user(userOf(&rec.Request.Identity), rec.Request.Identity.Email, 1)
	g.span(rec.Time, rec.Time)
	g.Examples = keep(g.Examples, example(rec))
}

// verdict names what decided: a rule, or the reason with the nearest rule.
func verdict(d *access.Decision) string {
	switch {
	case d.Rule != "":
		return d.Rule
	case d.Nearest != nil:
		return string(d.Reason) + ", nearest " + d.Nearest.Rule
	case len(d.Needs) > 0 && d.Needs[0].Profile != "":
		return string(d.Reason) + " for " + d.Needs[0].Profile
	}
	return string(d.Reason)
}

func (r *Report) unknown(rec *Record, why string) {
	r.countUnknown(Unknown{Why: cmp.Or(why, "the verdict was not recorded"), Count: 1, Examples: []Example{example(rec)}})
}

func (r *Report) countUnknown(more Unknown) {
	if r.unknowns == nil {
		r.unknowns = map[string]*Unknown{}
	}
	u := r.unknowns[more.Why]
	if u == nil {
		if len(r.unknowns) >= 100 {
			more.Why = overflow
		}
		u = &Unknown{Why: more.Why}
		r.unknowns[more.Why] = u
	}
	u.Count += more.Count
	u.Examples = keep(u.Examples, more.Examples...)
}

// add joins what was found in another part of the log.
func (r *Report) add(part *Report) {
	r.Log.add(&part.Log)
	r.Same += part.Same
	for _, pair := range []struct{ into, from *changes }{{&r.changes, &part.changes}, {&r.reasons, &part.reasons}, {&r.inconsistent, &part.inconsistent}} {
		pair.into.merge(*pair.from)
	}
	for _, why := range slices.Sorted(maps.Keys(part.unknowns)) {
		r.countUnknown(*part.unknowns[why])
	}
}

func (c *changes) merge(more changes) {
	if len(more) > 0 && *c == nil {
		*c = changes{}
	}
	for _, key := range slices.SortedFunc(maps.Keys(more), compareKeys) {
		from, into := more[key], c.at(key)
		into.Count += from.Count
		into.MoreUsers = into.MoreUsers || from.MoreUsers
		into.span(from.First, from.Last)
		into.Examples = keep(into.Examples, from.Examples...)
		for _, name := range slices.Sorted(maps.Keys(from.users)) {
			into.user(name, from.users[name].Email, from.users[name].Count)
		}
	}
}

// compareKeys puts first what hurts first: access that is lost.
func compareKeys(a, b changeKey) int {
	return cmp.Or(cmp.Compare(b.from, a.from), cmp.Compare(a.to, b.to), strings.Compare(a.route, b.route), strings.Compare(a.moved, b.moved),
		strings.Compare(a.before, b.before), strings.Compare(a.after, b.after))
}

// finish puts everything in the order in which it is read.
func (r *Report) finish() {
	r.Changes, r.Reasons, r.Inconsistent = r.changes.list(), r.reasons.list(), r.inconsistent.list()
	for _, why := range slices.Sorted(maps.Keys(r.unknowns)) {
		r.Unknown = append(r.Unknown, *r.unknowns[why])
	}
	slices.SortStableFunc(r.Unknown, func(a, b Unknown) int { return cmp.Compare(b.Count, a.Count) })
}

func (c changes) list() []Change {
	list := make([]Change, 0, len(c))
	for _, key := range slices.SortedFunc(maps.Keys(c), compareKeys) {
		g := c[key]
		for _, u := range g.users {
			g.Users = append(g.Users, *u)
		}
		slices.SortFunc(g.Users, func(a, b UserCount) int { return strings.Compare(a.User, b.User) })
		list = append(list, g.Change)
	}
	return list
}

// Count sums the requests of a kind of change, such as "allow-to-deny".
func (r *Report) Count(transition string) (n int) {
	for i := range r.Changes {
		if r.Changes[i].Transition() == transition {
			n += r.Changes[i].Count
		}
	}
	return n
}

// Unknowns counts the requests nobody can decide on again.
func (r *Report) Unknowns() int { return total(r.Unknown, func(u Unknown) int { return u.Count }) }

// Inconsistencies counts the verdicts that are not repeated.
func (r *Report) Inconsistencies() int {
	return total(r.Inconsistent, func(c Change) int { return c.Count })
}

func total[T any](list []T, count func(T) int) (n int) {
	for _, one := range list {
		n += count(one)
	}
	return n
}
