package authz

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Scope is what requests of a route look like, as the route table knows it.
type Scope struct {
	// Scheme and Host are those of every request. A host that begins with a dot
	// stands for all names one label below.
	Scheme, Host string
	// Prefix is the beginning of every path, without a slash at its end.
	Prefix string
	// Below are the routes of the same host whose prefixes are longer and begin
	// with this one: id by prefix. What lies below those prefixes is theirs.
	Below map[string]string
}

// Surroundings is what an analysis knows besides the policy.
type Surroundings struct {
	// Scopes are those of all routes, by id.
	Scopes map[string]Scope
	// Hides tells whether the values of a query parameter are kept from rules.
	Hides func(parameter string) bool
	// LogIn are the providers that people can log in with.
	LogIn []string
	// Never tells why no request ever has a method; empty if some may.
	Never func(method string) string
}

// Analyse looks for what a policy says in vain, twice or more widely than it
// seems, and lists what reviewers should know. The input is the one that the
// policy was compiled from. It reports nothing that it cannot prove, and does no
// I/O.
func (p *Policy) Analyse(in Input, around Surroundings) []access.Finding {
	a := &analysis{policy: p, in: in, around: around}
	for i := range in.Routes {
		a.route(&in.Routes[i], fmt.Sprintf("routes[%d]", i))
	}
	a.names()
	return a.found
}

type analysis struct {
	policy *Policy
	in     Input
	around Surroundings
	found  []access.Finding
}

func (a *analysis) add(kind access.FindingKind, at, path, cure, format string, args ...any) {
	a.found = append(a.found, access.Finding{Kind: kind, At: at, Path: path, Text: fmt.Sprintf(format, args...), Cure: cure})
}

// placed is a compiled rule with its source and place.
type placed struct {
	*rule
	src      *access.Rule // nil for public rules
	at, path string
	report   bool
	// scope is the rule without paths that are those of the whole route, for
	// comparisons: what it leaves out holds for every request there.
	scope rule
	// dead is set once the rule is found never to match: nothing more is said of it.
	dead bool
}

// route looks at one route.
func (a *analysis) route(src *access.Route, path string) {
	rt := a.policy.routes[src.ID]
	if rt == nil {
		return
	}
	public, allow, deny := a.rules(rt, src, path)
	a.exposures(src, path, allow, deny)
	for _, rules := range [][]*placed{public, allow, deny} {
		for _, r := range rules {
			a.rule(src, r)
		}
	}
	a.relations(src, path, public, allow, deny)
	a.requirements(rt, src, path, public)
	a.nested(rt, src, path)
}

// rules finds the compiled rules of a route, in the order of the file.
func (a *analysis) rules(rt *route, src *access.Route, path string) (public, allow, deny []*placed) {
	compiled := map[string]*rule{}
	for _, r := range rt.all() {
		compiled[r.name] = r
	}
	whole, ok := prefixGlob(a.around.Scopes[src.ID].Prefix)
	ok = ok && (len(src.AmbiguousPaths) == 0 || a.around.Scopes[src.ID].Prefix == "")
	place := func(kind, name string, i int, source *access.Rule) *placed {
		r := &placed{
			rule: compiled[kind+"/"+name], src: source, report: source != nil && source.Mode == access.Report,
			at: rt.id + "/" + kind + "/" + name, path: fmt.Sprintf("%s.%s[%d]", path, kind, i),
		}
		r.scope.conditions = slices.DeleteFunc(slices.Clone(r.conditions), func(c condition) bool {
			list, isPaths := c.(paths)
			return isPaths && ok && list.coversOne(&whole)
		})
		return r
	}
	for i := range src.Public {
		public = append(public, place("public", src.Public[i].Name, i, nil))
	}
	for i := range src.Allow {
		allow = append(allow, place("allow", src.Allow[i].Name, i, &src.Allow[i]))
	}
	for i := range src.Deny {
		deny = append(deny, place("deny", src.Deny[i].Name, i, &src.Deny[i]))
	}
	return public, allow, deny
}

// exposures lists what reviewers should know of a route.
func (a *analysis) exposures(src *access.Route, path string, allow, deny []*placed) {
	for i := range src.Public {
		open, at := &src.Public[i], src.ID+"/public/"+src.Public[i].Name
		here := fmt.Sprintf("%s.public[%d]", path, i)
		a.add(access.PublicRule, at, here, "", "%s of %s passes without login", anyOf(open.Methods), anyOf(open.Paths))
		writes := slices.DeleteFunc(slices.Clone(open.Methods), func(m string) bool { return slices.Contains([]string{"GET", "HEAD", "OPTIONS"}, m) })
		if len(writes) > 0 && len(open.Networks) == 0 && a.coversRoute(src, open.Paths) {
			a.add(access.PublicWrites, at, here, "list the paths that have to be open", "anyone may send %s to every path of the route", anyOf(writes))
		}
	}
	if src.Preflight {
		a.add(access.OpenPreflight, src.ID, path+".preflight", "", "CORS preflights pass without login, to whatever path")
	}
	if src.CORS.Credentials {
		a.add(access.ForeignOrigins, src.ID+"/cors", path+".cors.origins", "", "pages of %s act in the name of their visitors here, and read the answers", anyOf(src.CORS.Origins))
	}
	if len(src.WebSocketOrigins) > 0 {
		a.add(access.ForeignOrigins, src.ID+"/websocket_origins", path+".websocket_origins", "", "pages of %s open WebSockets in the name of their visitors here", anyOf(src.WebSocketOrigins))
	}
	for _, waived := range []struct{ what, reason string }{{"device", src.Exceptions.Device}, {"login", src.Exceptions.Login}} {
		if waived.reason != "" {
			a.add(access.Exception, src.ID, path+".exceptions."+waived.what, "", "defaults.require.%s does not hold here: %s", waived.what, waived.reason)
		}
	}
	for _, r := range allow {
		switch {
		case r.report:
			a.add(access.OnlyReports, r.at, r.path, "", "%s only reports, it lets nobody in", r.name)
		case r.src.AnyUser:
			a.anyUser(src, r)
		}
	}
	for _, r := range deny {
		if r.report {
			a.add(access.OnlyReports, r.at, r.path, "", "%s only reports, it refuses nobody", r.name)
		}
	}
}

// anyUser tells whom a rule for everybody admits, and whether the route would
// not even send all of them to log in.
func (a *analysis) anyUser(src *access.Route, r *placed) {
	if src.Provider == "" || len(a.around.LogIn) < 2 {
		a.add(access.AnyUser, r.at, r.path+".any_user", "", "everybody who can log in with %s is let in", anyOf(a.around.LogIn))
		return
	}
	a.add(access.ForeignUsers, r.at, r.path+".any_user", "write providers: ["+src.Provider+"] to keep them out",
		"people of providers other than %q who are already logged in are let in, too", src.Provider)
}

// coversRoute reports whether globs match every path of a route.
func (a *analysis) coversRoute(src *access.Route, sources []string) bool {
	whole, ok := prefixGlob(a.around.Scopes[src.ID].Prefix)
	for _, source := range sources {
		if g, err := parseGlob(source); ok && err == nil && g.covers(&whole) {
			return true
		}
	}
	return false
}

// rule looks at one rule by itself.
func (a *analysis) rule(src *access.Route, r *placed) {
	if x, y, ok := r.excludes(); ok {
		r.dead = true
		a.add(access.NeverMatches, r.at, r.path, "correct one of them, or write two rules", "%s never matches: %s and %s exclude each other", r.name, x.key(), y.key())
	}
	for _, c := range r.conditions {
		switch c := c.(type) {
		case methods:
			a.methods(r, c)
		case paths:
			a.paths(src, r.at, r.path, c, &r.dead)
		case networks:
			for i, one := range c {
				if others := slices.Concat(c[:i:i], c[i+1:]); others.covers(one) && !slices.Contains(c[:i], one) {
					a.add(access.ValueImplied, r.at, fmt.Sprintf("%s.networks[%d]", r.path, i), "remove it", "%s is part of another network of the list", one)
				}
			}
		case expects:
			a.expression(src, r, c)
		}
	}
}

func (a *analysis) methods(r *placed, list methods) {
	dead := 0
	for i, method := range list {
		if why := a.around.Never(method); why != "" {
			dead++
			a.add(access.MethodNever, r.at, fmt.Sprintf("%s.methods[%d]", r.path, i), "remove it", "no request ever has the method %s: %s", method, why)
		}
	}
	r.dead = r.dead || dead == len(list)
}

// paths looks at the globs of a rule or of a stricter entry.
func (a *analysis) paths(src *access.Route, at, path string, list paths, dead *bool) {
	lost := 0
	for i := range list {
		one, here := &list[i], fmt.Sprintf("%s.paths[%d]", path, i)
		if why, cure := a.outside(src, one); why != "" {
			lost++
			a.add(access.PathOutside, at, here, cure, "no request of route %q has a path like %s: %s", src.ID, one.source, why)
			continue
		}
		others := slices.Concat(list[:i:i], list[i+1:])
		if others.coversOne(one) && !slices.ContainsFunc(list[:i], func(g glob) bool { return g.source == one.source }) {
			a.add(access.ValueImplied, at, here, "remove it", "%s is part of another path of the list", one.source)
		}
	}
	*dead = *dead || lost == len(list)
}

// outside tells why no request of a route has a path that a glob matches.
func (a *analysis) outside(src *access.Route, g *glob) (why, cure string) {
	scope := a.around.Scopes[src.ID]
	own, ok := prefixGlob(scope.Prefix)
	switch {
	case !ok:
		return "", ""
	case own.disjoint(g):
		return "the route begins at " + scope.Prefix, "write whole paths: " + scope.Prefix + g.source
	case strings.HasPrefix(g.source, access.Prefix):
		return access.Prefix + " is Doorward's own", "remove it"
	}
	for _, prefix := range keys(scope.Below) {
		if below, ok := prefixGlob(prefix); ok && !strings.Contains(prefix, "*") && below.covers(g) {
			return "what lies below " + prefix + " belongs to route " + scope.Below[prefix], "move it to route " + scope.Below[prefix]
		}
	}
	return "", ""
}

// expression looks at a `when` or an `unless`.
func (a *analysis) expression(src *access.Route, r *placed, e expects) {
	f, path := e.facts(), r.path+"."+e.key()
	switch contradiction := f.contradiction(); {
	case f.constant && f.value != e.want:
		r.dead = true
		a.add(access.NeverMatches, r.at, path, "remove the rule, or correct the condition", "%s never matches: the condition is always %v", r.name, f.value)
	case f.constant:
		a.add(access.AlwaysTrue, r.at, path, "remove it", "the condition always holds")
	case contradiction != "" && e.want:
		r.dead = true
		a.add(access.NeverMatches, r.at, path, "join the terms with ||, or correct one", "%s never matches: %s", r.name, contradiction)
	case contradiction != "":
		a.add(access.AlwaysTrue, r.at, path, "join the terms with ||, or correct one", "the exception never holds: %s", contradiction)
	}
	scope := a.around.Scopes[src.ID]
	for i := range f.compared {
		if why := a.never(&f.compared[i], scope); why != "" {
			a.add(access.NeverEqual, r.at, path, why, "%s is never %q", f.compared[i].fact, f.compared[i].text)
		}
	}
	for _, begin := range f.begins {
		if !strings.HasPrefix(scope.Prefix+"/", begin) && !strings.HasPrefix(begin, scope.Prefix+"/") {
			a.add(access.NeverEqual, r.at, path, "write whole paths: "+scope.Prefix+begin, "request.path never begins with %q: the route begins at %s", begin, scope.Prefix)
		}
	}
	for _, parameter := range slices.Compact(slices.Sorted(slices.Values(f.parameters))) {
		if a.around.Hides(parameter) {
			a.add(access.HiddenQuery, r.at, path, "decide by something else", "rules never see the value of the query parameter %q, which looks like a secret", parameter)
		}
	}
}

// never returns the cure for a comparison with a text that a fact never has;
// empty if it may.
func (a *analysis) never(c *comparison, scope Scope) string {
	if values, ok := c.closed(a.in.Providers); ok && !slices.Contains(values, c.text) {
		return cmp.Or(didYouMean(c.text, values), "known: "+strings.Join(values, ", "))
	}
	switch {
	case c.fact == "request.method" && a.around.Never(c.text) != "":
		return "write methods in capitals, such as GET"
	case c.fact == "request.host" && !strings.HasPrefix(scope.Host, ".") && c.text != scope.Host:
		return "remove it; the host is always " + scope.Host
	case c.fact == "request.path" && c.text != scope.Prefix && !strings.HasPrefix(c.text, scope.Prefix+"/"):
		return "write whole paths: " + scope.Prefix + c.text
	}
	return ""
}
