package authz

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Effect is what a change does to who gets in.
type Effect string

// The effects. Loosens means that some may get in who could not before and that
// nobody is kept out who was not; tightens is the reverse. Where neither can be
// proved, the effect is unclear. Nothing is for changes of which it is proved
// that every request fares as before.
const (
	Nothing  Effect = "nothing"
	Loosens  Effect = "loosens"
	Tightens Effect = "tightens"
	Unclear  Effect = "unclear"
)

// And joins the effects of two changes.
func (e Effect) And(other Effect) Effect {
	switch {
	case e == Nothing || e == "":
		return cmp.Or(other, Nothing)
	case e == other || other == Nothing || other == "":
		return e
	default:
		return Unclear
	}
}

// Change is one difference between two policies.
type Change struct {
	// At is the part it is about: "billing", "billing/allow/oncall",
	// "groups/engineers", "profiles/healthy".
	At string `json:"at"`
	// Effect is what the change does by itself.
	Effect Effect `json:"effect"`
	// Text says what changed, and Details how.
	Text    string   `json:"text"`
	Details []string `json:"details,omitempty"`
}

// Edition is one of two policies to compare, with the input that it was compiled
// from and the addresses of its routes.
type Edition struct {
	Policy *Policy
	Input  Input
	Scopes map[string]Scope
}

// Diff tells how a new policy differs from an old one in whom it lets in. What
// is written differently and means the same is no difference or one whose effect
// is nothing.
func Diff(before, after Edition) []Change {
	d := &differ{before: before, after: after}
	d.names()
	for _, id := range union(before.Policy.routes, after.Policy.routes) {
		d.route(id)
	}
	return d.changes
}

type differ struct {
	before, after Edition
	changes       []Change
}

func (d *differ) add(at string, effect Effect, details []string, format string, args ...any) {
	d.changes = append(d.changes, Change{At: at, Effect: effect, Text: fmt.Sprintf(format, args...), Details: details})
}

// union returns the sorted keys of two maps.
func union[V any](a, b map[string]V) []string {
	all := slices.Concat(keys(a), keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

func (e *Edition) source(id string) *access.Route {
	for i := range e.Input.Routes {
		if e.Input.Routes[i].ID == id {
			return &e.Input.Routes[i]
		}
	}
	return new(access.Route)
}

// serves returns the route that answers for the address of a route that this
// edition does not have, and whether it is the address alone or the whole host: a
// route for many hosts answers for all that have no route of their own.
func (e *Edition) serves(scope Scope) (what, id string) {
	best, own := -1, false
	for _, other := range keys(e.Scopes) {
		s := e.Scopes[other]
		if s.Scheme != scope.Scheme || s.Host != scope.Host {
			continue
		}
		own = true
		if (s.Prefix == scope.Prefix || strings.HasPrefix(scope.Prefix, s.Prefix+"/")) && len(s.Prefix) > best {
			best, what, id = len(s.Prefix), "address", other
		}
	}
	for _, other := range keys(e.Scopes) {
		if s := e.Scopes[other]; !own && s.Scheme == scope.Scheme && s.includes(scope.Host) {
			return "host", other
		}
	}
	return what, id
}

// includes reports whether a scope of many hosts includes one of them.
func (s *Scope) includes(host string) bool {
	label, ok := strings.CutSuffix(host, s.Host)
	return ok && strings.HasPrefix(s.Host, ".") && label != "" && !strings.Contains(label, ".")
}

// route compares a route.
func (d *differ) route(id string) {
	was, is := d.before.Policy.routes[id], d.after.Policy.routes[id]
	switch {
	case was == nil:
		d.added(id, is)
		return
	case is == nil:
		effect, text := Tightens, "the route is gone: nobody gets in any more"
		if what, other := d.after.serves(d.before.Scopes[id]); other != "" {
			effect, text = Unclear, "the route is gone, and its "+what+" belongs to "+other+" now"
		}
		d.add(id, effect, nil, "%s", text)
		return
	}
	before, after := d.before.source(id), d.after.source(id)
	if a, b := d.before.Scopes[id], d.after.Scopes[id]; a.Scheme != b.Scheme || a.Host != b.Host || a.Prefix != b.Prefix {
		d.add(id, Unclear, nil, "from %s to %s: the route answers for another address", before.From, after.From)
	} else if !maps.Equal(a.Below, b.Below) {
		d.add(id, Unclear, nil, "other parts of its host belong to other routes now: %s, before %s", orNone(strings.Join(keys(b.Below), ", ")), orNone(strings.Join(keys(a.Below), ", ")))
	}
	if !slices.Equal(sorted(before.AmbiguousPaths), sorted(after.AmbiguousPaths)) {
		d.add(id, Unclear, listed("ambiguous_paths", before.AmbiguousPaths, after.AmbiguousPaths), "other spellings of paths are answered")
	}
	if before.Provider != after.Provider {
		d.add(id, Nothing, nil, "visitors are sent to log in with %s instead of %s", orChoice(after.Provider), orChoice(before.Provider))
	}
	sources := func(rt *access.Route) map[string]*access.Rule {
		all := map[string]*access.Rule{}
		for i := range rt.Allow {
			all["allow/"+rt.Allow[i].Name] = &rt.Allow[i]
		}
		for i := range rt.Deny {
			all["deny/"+rt.Deny[i].Name] = &rt.Deny[i]
		}
		for i := range rt.Public {
			p := &rt.Public[i]
			all["public/"+p.Name] = &access.Rule{Name: p.Name, Methods: p.Methods, Paths: p.Paths, Networks: p.Networks}
		}
		return all
	}
	r := ruleDiffer{differ: d, id: id, before: sources(before), after: sources(after)}
	r.compare("public", was.public, is.public, Loosens)
	r.compare("allow", was.allow, is.allow, Loosens)
	r.compare("deny", was.deny, is.deny, Tightens)
	r.reported(was, is)
	d.demands(id, was, is)
}

// added tells whom a new route lets in.
func (d *differ) added(id string, is *route) {
	src := d.after.source(id)
	var details []string
	for _, open := range src.Public {
		details = append(details, "anyone gains "+what(&access.Rule{Methods: open.Methods, Paths: open.Paths, Networks: open.Networks}))
	}
	for i := range src.Allow {
		if src.Allow[i].Mode != access.Report {
			details = append(details, who(&src.Allow[i])+" gain "+what(&src.Allow[i]))
		}
	}
	if what, other := d.before.serves(d.after.Scopes[id]); other != "" {
		d.add(id, Unclear, details, "the route is new, and its %s belonged to %s before", what, other)
		return
	}
	d.add(id, Loosens, details, "the route is new, at %s", src.From)
}

// ruleDiffer compares the rules of one route.
type ruleDiffer struct {
	*differ
	id            string
	before, after map[string]*access.Rule
}

// compare compares the enforced rules of a kind. More of them has the effect
// more: allow rules add up, and so do deny rules.
func (d *ruleDiffer) compare(kind string, was, is []rule, more Effect) {
	less := map[Effect]Effect{Loosens: Tightens, Tightens: Loosens}[more]
	for i := range is {
		name, old := is[i].name, find(was, is[i].name)
		at := d.id + "/" + name
		switch {
		case old == nil:
			if by := stronger(&is[i], was); by != "" {
				d.add(at, Nothing, nil, "the rule is new and adds nothing: %s matched whatever it matches", by)
				continue
			}
			d.add(at, more, nil, "the rule is new: %s", d.sentence(kind, d.after[name], more))
		default:
			d.changed(kind, at, old, &is[i], more, less)
		}
	}
	for i := range was {
		name := was[i].name
		if find(is, name) != nil {
			continue
		}
		at := d.id + "/" + name
		if by := stronger(&was[i], is); by != "" {
			d.add(at, Nothing, nil, "the rule is gone and nothing with it: %s matches whatever it matched", by)
			continue
		}
		d.add(at, less, nil, "the rule is gone: %s", d.sentence(kind, d.before[name], less))
	}
}

// stronger names a rule that matches whatever a rule matches.
func stronger(r *rule, rules []rule) string {
	for i := range rules {
		if rules[i].name != r.name && r.implies(&rules[i]) {
			return rules[i].name
		}
	}
	return ""
}

func find(rules []rule, name string) *rule {
	for i := range rules {
		if rules[i].name == name {
			return &rules[i]
		}
	}
	return nil
}

// changed compares a rule with itself.
func (d *ruleDiffer) changed(kind, at string, was, is *rule, more, less Effect) {
	src, now := d.before[was.name], d.after[is.name]
	details := ruleDetails(src, now)
	if len(details) == 0 {
		details = []string{"through " + d.through(now)}
	}
	wider, narrower := was.implies(is), is.implies(was)
	switch {
	case wider && narrower:
		if len(ruleDetails(src, now)) > 0 {
			d.add(at, Nothing, details, "the rule is written differently and matches the same")
		}
	case wider:
		d.add(at, more, details, "the rule matches more: %s", d.sentence(kind, now, more))
	case narrower:
		d.add(at, less, details, "the rule matches less: %s", d.sentence(kind, src, less))
	default:
		d.add(at, Unclear, details, "the rule matches something else")
	}
}

// through names what changed a rule that nobody rewrote.
func (d *ruleDiffer) through(r *access.Rule) string {
	if r != nil {
		for _, name := range r.Groups {
			if was, is := d.differ.before.Input.Groups[name], d.differ.after.Input.Groups[name]; !reflect.DeepEqual(was, is) {
				return "the group " + name
			}
		}
	}
	return "the age that facts about devices may have"
}

// sentence words who gains or loses what.
func (d *ruleDiffer) sentence(kind string, src *access.Rule, effect Effect) string {
	if src == nil {
		return "CORS preflights, without login"
	}
	verb := map[Effect]string{Loosens: " gain ", Tightens: " lose "}[effect]
	switch kind {
	case "public":
		return "anyone" + strings.TrimSuffix(verb, " ") + "s " + what(src) + ", without login"
	case "deny":
		return who(src) + verb + what(src) + ", as far as an allow rule admits them"
	default:
		return who(src) + verb + what(src)
	}
}

// reported tells about rules that began or ceased to only report, and about
// those that do.
func (d *ruleDiffer) reported(was, is *route) {
	before, after := slices.Concat(was.reportedAllow, was.reportedDeny), slices.Concat(is.reportedAllow, is.reportedDeny)
	for i := range after {
		switch name := after[i].name; {
		case find(before, name) != nil:
		case d.before[name] != nil:
			d.add(d.id+"/"+name, Nothing, nil, "the rule only reports from now on")
		default:
			d.add(d.id+"/"+name, Nothing, nil, "the rule is new and only reports")
		}
	}
	for i := range before {
		if name := before[i].name; d.after[name] == nil {
			d.add(d.id+"/"+name, Nothing, nil, "the rule is gone; it only reported")
		}
	}
}

// demands compares what a route requires.
func (d *differ) demands(id string, was, is *route) {
	var details []string
	effect := Nothing
	for i := range is.demands {
		if now := &is.demands[i]; !now.implied(was.demands) {
			effect = effect.And(Tightens)
			details = append(details, "required from now on: "+now.text())
		}
	}
	for i := range was.demands {
		if old := &was.demands[i]; !old.implied(is.demands) {
			effect = effect.And(Loosens)
			details = append(details, "required no more: "+old.text())
		}
	}
	switch effect {
	case Tightens:
		d.add(id, effect, details, "the route requires more of whoever it lets in")
	case Loosens:
		d.add(id, effect, details, "the route requires less of whoever it lets in")
	case Unclear:
		d.add(id, effect, details, "the route requires something else of whoever it lets in")
	}
}

// implied reports whether other demands ask for all that this one asks for,
// wherever it asks.
func (d *demand) implied(others []demand) bool {
	device, login := d.device == nil, d.login.IsZero()
	for i := range others {
		o := &others[i]
		if (&rule{conditions: d.where}).implies(&rule{conditions: o.where}) {
			device = device || o.device != nil && o.device.implies(d.device)
			login = login || loginImplies(o.login, d.login)
		}
	}
	return device && login
}

// text words a demand.
func (d *demand) text() string {
	var parts []string
	if d.device != nil {
		parts = append(parts, "device "+d.device.name)
	}
	if !d.login.IsZero() {
		parts = append(parts, "a login"+demandText(d.login))
	}
	text := strings.Join(parts, " and ")
	for _, c := range d.where {
		want, _ := c.describe(new(access.Request))
		text += ", " + c.key() + " " + want
	}
	return text
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func orChoice(provider string) string {
	if provider == "" {
		return "a provider of their choice"
	}
	return provider
}
