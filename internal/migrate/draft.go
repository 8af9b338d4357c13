package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/access"
)

// Result is our configuration, and what it lacks.
type Result struct {
	// Config is the text of the file. It begins with Left as comments.
	Config string `json:"config"`
	// Left lists what could not be carried over, in the order of the original.
	Left []Left `json:"left"`
}

// Left is one thing that could not be carried over.
type Left struct {
	// Line is where it stands in the original; 0 is no place.
	Line int `json:"line,omitempty"`
	// What is the key or the rule.
	What string `json:"what"`
	// Effect is what becomes of it.
	Effect Effect `json:"effect"`
	// Text says why, and what to do.
	Text string `json:"text"`
}

// Effect is what becomes of something that cannot be carried over.
type Effect string

// The effects. Nothing is ever looser unsaid: Differs is for what has to be
// looked at before the new configuration is used.
const (
	// Closed: whoever it let in is refused.
	Closed Effect = "closed"
	// Tighter: more is refused or required than before.
	Tighter Effect = "tighter"
	// Dropped: it has no bearing on who gets in.
	Dropped Effect = "dropped"
	// ToDo: something has to be filled in.
	ToDo Effect = "to do"
	// Differs: it works differently here, and a person has to judge how.
	Differs Effect = "differs"
)

// draft is a configuration in the making.
type draft struct {
	product   string
	providers []provider
	groups    map[string]access.Group
	lifetime  string
	routes    []access.Route
	left      []Left
	loginHost string
	// closed are the addresses of routes that nobody may use, whatever their rules
	// say.
	closed map[string]bool
}

// provider is an entry of `providers`.
type provider struct {
	id, issuer, clientID string
	secretEnv            string
	scopes               []string
	groupsClaim          string
	audiences            []string
	noLogin              bool
}

func newDraft(product string) *draft {
	return &draft{product: product, groups: map[string]access.Group{}, closed: map[string]bool{}}
}

func (d *draft) leave(line int, effect Effect, what, format string, args ...any) {
	d.left = append(d.left, Left{Line: line, What: what, Effect: effect, Text: fmt.Sprintf(format, args...)})
}

// leaveRest reports the keys of a section that nobody took.
func (d *draft) leaveRest(s *section, where string) {
	for _, key := range s.rest() {
		d.leave(key.Line, Differs, where+key.Value, "the key is not understood; look whether it keeps anyone out")
	}
}

// drop reports keys that are known to have no bearing on who gets in.
func (d *draft) drop(s *section, why string, keys ...string) {
	for _, key := range keys {
		if s.take(key) != nil {
			d.leave(s.at(key), Dropped, key, "%s", why)
		}
	}
}

// group returns the name of a group of one claim.
func (d *draft) group(provider, claim string) string {
	name := slug(claim)
	for n := 2; ; n++ {
		have, taken := d.groups[name]
		if !taken {
			d.groups[name] = access.Group{Provider: provider, ClaimGroups: []string{claim}}
			return name
		}
		if have.Provider == provider && have.ClaimGroups[0] == claim {
			return name
		}
		name = fmt.Sprintf("%s-%d", slug(claim), n)
	}
}

// slug makes a name that routes, rules and groups may have.
func slug(s string) string {
	s = strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, s), "-")
	for strings.Contains(s, "--") {
		s = strings.ReplaceAll(s, "--", "-")
	}
	return cmp.Or(strings.Trim(s[:min(len(s), 60)], "-"), "x")
}

// unique returns a name that is not taken, and takes it.
func unique(taken map[string]bool, name string) string {
	made := name
	for n := 2; taken[made]; n++ {
		made = fmt.Sprintf("%s-%d", name, n)
	}
	taken[made] = true
	return made
}

// routeFor returns the route of an address, made if need be.
func (d *draft) routeFor(from string) *access.Route {
	for i := range d.routes {
		if d.routes[i].From == from {
			return &d.routes[i]
		}
	}
	taken := map[string]bool{}
	for i := range d.routes {
		taken[d.routes[i].ID] = true
	}
	_, name, _ := strings.Cut(from, "://")
	d.routes = append(d.routes, access.Route{ID: unique(taken, slug(strings.TrimPrefix(name, "*."))), From: from})
	return &d.routes[len(d.routes)-1]
}

// close makes a route one that nobody may use.
func (d *draft) close(rt *access.Route) { d.closed[rt.From] = true }

// named gives a rule a name that is free in its route.
func named(rt *access.Route, name string) string {
	taken := map[string]bool{}
	for _, rules := range [][]access.Rule{rt.Allow, rt.Deny} {
		for _, r := range rules {
			taken[r.Name] = true
		}
	}
	for _, p := range rt.Public {
		taken[p.Name] = true
	}
	return unique(taken, slug(name))
}

// limit puts patterns, of which one has to match, into a rule. Globs and
// expressions do not mix: an expression matches what a glob does.
func limit(r *access.Rule, patterns []pattern) {
	var globs, terms []string
	for _, p := range patterns {
		globs = append(globs, p.globs...)
		if p.regex != "" {
			terms = append(terms, "request.path.matches("+celText(p.regex)+")")
		}
	}
	if len(terms) == 0 {
		if !slices.Contains(globs, "/**") {
			r.Paths = globs
		}
		return
	}
	for _, glob := range globs {
		terms = append(terms, "request.path.matches("+celText(globRegex(glob))+")")
	}
	require(r, strings.Join(terms, " || "))
}

// globRegex writes one of the globs of this package as an expression.
func globRegex(glob string) string {
	switch {
	case glob == "/**":
		return "^/"
	case strings.HasSuffix(glob, "*/**"):
		return "^" + quoteMeta(strings.TrimSuffix(glob, "*/**"))
	case strings.HasSuffix(glob, "/**"):
		return "^" + quoteMeta(strings.TrimSuffix(glob, "/**")) + "(/|$)"
	}
	return "^" + quoteMeta(glob) + "$"
}

// require adds a condition to a rule.
func require(r *access.Rule, term string) {
	if strings.Contains(term, " || ") {
		term = "(" + term + ")"
	}
	if r.When != "" {
		term = r.When + " && " + term
	}
	r.When = term
}

// openTo makes a rule for everybody that a provider vouches for.
func openTo(r *access.Rule, id string) { r.Providers = []string{id} }

// closedRule is the allow rule of a route that nobody may use.
const closedRule = "nobody"

// finish closes what is left without rules, checks addresses and writes the file.
func (d *draft) finish() (*Result, error) {
	if len(d.routes) > maxEntries {
		return nil, problem(0, "more than %d routes", maxEntries)
	}
	slices.SortStableFunc(d.left, func(a, b Left) int { return cmp.Compare(a.Line, b.Line) })
	var accept []string
	for i := range d.routes {
		rt := &d.routes[i]
		if len(rt.To) == 0 {
			rt.To = []string{"https://upstream.invalid"}
			d.leave(0, ToDo, rt.From, "write the address of the application into `to`")
		}
		for _, to := range rt.To {
			if target, err := url.Parse(to); err == nil && target.Scheme == "http" && !access.Loopback(target.Hostname()) {
				rt.InsecureUpstream = "taken over from " + d.product + ": " + target.Host + " speaks plain HTTP"
			}
		}
		if d.closed[rt.From] {
			rt.Allow, rt.Public = nil, nil
		}
		if len(rt.Allow) == 0 {
			rt.Deny, rt.Rules, rt.Require = nil, nil, access.Require{} // they would do nothing
		}
		if len(rt.Allow) == 0 && len(rt.Public) == 0 {
			rt.Preflight = false
			rt.Allow = []access.Rule{{Name: closedRule, AnyUser: true, When: "false"}}
			reason := "nothing that lets anyone in could be taken over from " + d.product
			accept = append(accept,
				flow("finding", "never-matches", "at", rt.ID+"/allow/"+closedRule, "reason", reason),
				flow("finding", "route-closed", "at", rt.ID, "reason", reason))
			d.leave(0, Closed, rt.From, "nobody is let in: write an allow rule")
		}
	}
	d.prune()
	if len(d.routes) == 0 {
		return nil, problem(0, "nothing in this file is a route of %s", d.product)
	}
	return &Result{Config: d.write(accept), Left: d.left}, nil
}

// prune removes groups that no rule names in the end.
func (d *draft) prune() {
	used := map[string]bool{}
	for _, rt := range d.routes {
		for _, r := range slices.Concat(rt.Allow, rt.Deny) {
			for _, name := range r.Groups {
				used[name] = true
			}
		}
	}
	maps.DeleteFunc(d.groups, func(name string, _ access.Group) bool { return !used[name] })
}

// within keeps the globs that requests of a route can match: those of its own
// part of the host, and not of a part that another route has.
func (d *draft) within(rt *access.Route, globs []string) (kept []string) {
	own, prefix, _ := origin(rt.From)
	prefix = strings.TrimSuffix(prefix, "/")
	for _, glob := range globs {
		text, _, wild := strings.Cut(glob, "*")
		under := func(prefix string) bool { return text == prefix || strings.HasPrefix(text, prefix+"/") }
		if prefix != "" && !under(prefix) && !(wild && strings.HasPrefix(prefix+"/", text)) {
			continue
		}
		if !slices.ContainsFunc(d.routes, func(other access.Route) bool {
			host, longer, _ := origin(other.From)
			longer = strings.TrimSuffix(longer, "/")
			return host == own && strings.HasPrefix(longer, prefix+"/") && under(longer)
		}) {
			kept = append(kept, glob)
		}
	}
	return kept
}

func quoteMeta(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(`\.+*?()|[]{}^$`, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// hostText is a host with or without port, as far as configurations have them.
var hostText = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[1-9][0-9]{0,3})?$|^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?:[1-5][0-9]{4}$`)

// upstream adds the address of an application to a route. It fails for what no
// upstream can have.
func (d *draft) upstream(rt *access.Route, text string, line int) bool {
	scheme, rest, _ := strings.Cut(text, "://")
	read := text
	if scheme == "h2c" {
		read = "http://" + rest
	}
	to, _, ok := origin(read)
	if !ok || strings.Contains(to, "*") {
		return false
	}
	_, host, _ := strings.Cut(to, "://")
	to = scheme + "://" + host
	switch {
	case slices.Contains(rt.To, to):
	case len(rt.To) > 0 && !strings.HasPrefix(rt.To[0], scheme+"://"):
		d.leave(line, ToDo, "upstream "+to, "all upstreams of %s have one scheme: this one is left out", rt.From)
	default:
		rt.To = append(rt.To, to)
	}
	return true
}

// issuerOr returns an issuer, or a placeholder where there is none that can be
// one.
func (d *draft) issuerOr(text, what string, line int) string {
	if from, _, ok := origin(text); ok && strings.HasPrefix(from, "https://") && !strings.Contains(from, "*") {
		return text
	}
	d.leave(line, ToDo, what, "write the issuer of your OpenID provider")
	return "https://issuer.invalid"
}

// headerName is a name that a route may set.
var headerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)

// origin reads an address of ours, scheme and host, without anything behind it.
func origin(text string) (from, path string, ok bool) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(text, "?#") || u.Scheme != "https" && u.Scheme != "http" {
		return "", "", false
	}
	if name := strings.TrimPrefix(u.Host, "*."); !hostText.MatchString(name) || strings.Contains(name, "..") {
		return "", "", false
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), u.EscapedPath(), true
}

// scalars returns the texts of a node that is one value or a list of them.
func scalars(n *yaml.Node) (list []string) {
	switch n.Kind {
	case yaml.ScalarNode:
		return []string{n.Value}
	case yaml.SequenceNode:
		for _, entry := range n.Content {
			if entry.Kind == yaml.ScalarNode {
				list = append(list, entry.Value)
			}
		}
	}
	return list
}
