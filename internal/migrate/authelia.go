package migrate

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/access"
)

// Authelia reads the access control of Authelia, whose first matching rule
// decides. Ours have no order, so that a rule is taken over only where order can
// make nothing looser: what passes without login must not be what an earlier
// rule is about.
func Authelia(text []byte) (*Result, error) {
	root, err := parseYAML(text)
	if err != nil {
		return nil, err
	}
	a := &authelia{draft: newDraft("Authelia"), networks: map[string][]string{}, earlier: map[string][]reach{}, ended: map[string]bool{}}
	a.read(newSection(root, "the file", &err))
	if err != nil {
		return nil, err
	}
	return a.finish()
}

type authelia struct {
	*draft
	id       string
	networks map[string][]string
	// earlier are the requests that earlier rules for a host are about.
	earlier map[string][]reach
	// hosts are all hosts that rules name.
	hosts []string
	// ended are the hosts for which an earlier rule decides everything.
	ended map[string]bool
	// refuses and strengthens tell that a rule to refuse, or to ask for two
	// factors, is about hosts that cannot be named: it then holds for all.
	refuses, strengthens bool
}

// reach is which requests of a host a rule is about.
type reach struct {
	globs   []string // nil: every path
	methods []string // nil: every method
}

func (a *authelia) read(s *section) {
	a.provider(s)
	for _, n := range s.section("definitions").section("network").lists() {
		a.networks[n.name] = n.values
	}
	control := s.section("access_control")
	for _, n := range control.sections("networks") {
		a.networks[n.text("name")] = n.texts("networks")
	}
	if policy := control.text("default_policy"); policy != "" && policy != "deny" {
		a.leave(control.at("default_policy"), Closed, "default_policy: "+policy, "what no rule admits is refused")
	}
	rules := control.sections("rules")
	for _, rule := range rules {
		for _, domain := range rule.texts("domain") {
			if from, ok := host(domain); ok && !slices.Contains(a.hosts, from) {
				a.hosts = append(a.hosts, from)
			}
		}
	}
	for i, rule := range rules {
		a.rule(i+1, rule)
	}
	for i := range a.routes {
		if a.refuses {
			a.close(&a.routes[i])
		}
		if a.strengthens {
			a.routes[i].Require.Login = twoFactors
		}
	}
	a.leaveRest(control, "access_control.")
	session := s.section("session")
	for _, key := range []string{"expiration", "inactivity", "remember_me"} {
		session.ignore(key)
	}
	a.leave(0, Dropped, "session", "sessions last as long as `sessions` says; the default is 10h, idle 1h")
	for _, key := range s.rest() {
		a.leave(key.Line, Dropped, key.Value, "it is about Authelia itself, which stays the identity provider")
	}
}

// namedList is a name with its values.
type namedList struct {
	name   string
	values []string
}

// lists returns the entries of a mapping from names to lists.
func (s *section) lists() (list []namedList) {
	for _, key := range s.keys() {
		list = append(list, namedList{key, s.texts(key)})
	}
	return list
}

// provider is Authelia itself, which is an OpenID provider as well.
func (a *authelia) provider(s *section) {
	a.id = "authelia"
	issuer := ""
	for _, cookie := range s.section("session").sections("cookies") {
		if from, path, ok := origin(cookie.text("authelia_url")); ok && issuer == "" {
			issuer = from + strings.TrimSuffix(path, "/")
		}
	}
	if issuer == "" {
		issuer = "https://issuer.invalid"
		a.leave(0, ToDo, "session.cookies", "write the address of Authelia into `issuer`")
	}
	a.providers = append(a.providers, provider{id: a.id, issuer: issuer, clientID: "doorward", secretEnv: "AUTHELIA_CLIENT_SECRET", scopes: []string{"openid", "email", "profile", "groups"}})
	a.leave(0, ToDo, "identity_providers.oidc", "register the client `doorward` with Authelia, with /.doorward/callback of every host, and set AUTHELIA_CLIENT_SECRET")
	a.leave(0, Differs, "resources", "Authelia compares the query of a request as well as its path; rules here look at the path")
}

// rule reads one rule, for every domain it is about.
func (a *authelia) rule(n int, s *section) {
	what := fmt.Sprint("rule ", n)
	policy := s.text("policy")
	var rule access.Rule
	patterns, ok := a.patterns(s, what)
	networks, known := a.addresses(s, what)
	rule.Methods, rule.Networks = s.texts("methods"), networks
	ok = ok && known
	if !methodsText(rule.Methods) {
		s.fail(s.at("methods"), "methods are written in capitals")
	}
	if s.take("query") != nil {
		a.leave(s.at("query"), closedPolicy(policy), what, "conditions on the query are left to you: write them with when")
		ok = false
	}
	subjects, named := a.subjects(s, what)
	ok = ok && named
	limit(&rule, patterns)
	globs := about(patterns)
	if !ok {
		globs = nil // whatever it is about, it may be about anything
	}
	if s.take("domain_regex") != nil {
		a.anywhere(s.at("domain_regex"), policy, what, "a regular expression is no host of a route", reach{globs, rule.Methods})
	}
	for _, domain := range s.texts("domain") {
		from, plain := host(domain)
		if !plain {
			a.anywhere(s.at("domain"), policy, what, domain+" is no host of a route", reach{globs, rule.Methods})
			continue
		}
		for _, target := range a.hosts {
			if target == from || isBelow(target, from) {
				a.place(s, a.routeFor(target), policy, what, rule, subjects, globs, ok)
				a.earlier[target] = append(a.earlier[target], reach{globs, rule.Methods})
			}
		}
	}
	a.leaveRest(s, what+": ")
}

// about returns globs for all that some patterns match, nil for every path.
func about(patterns []pattern) (globs []string) {
	for _, p := range patterns {
		around := p.around()
		if around == nil {
			return nil
		}
		globs = append(globs, around...)
	}
	return globs
}

// host returns the address of a domain of a rule.
func host(domain string) (string, bool) {
	from, path, ok := origin("https://" + domain)
	return from, ok && path == "" && !strings.ContainsAny(domain, "{}/")
}

// isBelow reports whether a wildcard of a rule stands for a host, too.
func isBelow(target, from string) bool {
	suffix, wild := strings.CutPrefix(from, "https://*")
	return wild && target != from && strings.HasSuffix(target, suffix)
}

// anywhere deals with a rule whose hosts cannot be named: it may be about any,
// and unless it lets everybody pass, no later rule may for the same requests.
func (a *authelia) anywhere(line int, policy, what, why string, about reach) {
	if policy != "bypass" {
		for _, host := range a.hosts {
			a.earlier[host] = append(a.earlier[host], about)
		}
	}
	switch policy {
	case "deny":
		a.refuses = true
		a.leave(line, Closed, what, "%s, and the rule refuses: all routes are closed until you write it", why)
	case "two_factor":
		a.strengthens = true
		a.leave(line, Closed, what, "%s: the rule is left out, and two factors are required everywhere", why)
	default:
		a.leave(line, Closed, what, "%s: the rule is left out", why)
	}
}

// twoFactors is what policy two_factor asks for.
var twoFactors = access.LoginRequire{ACR: []string{"mfa"}}

func closedPolicy(policy string) Effect {
	if policy == "deny" {
		return Tighter
	}
	return Closed
}

// place puts a rule into the route of one domain.
func (a *authelia) place(s *section, rt *access.Route, policy, what string, rule access.Rule, subjects []access.Rule, globs []string, ok bool) {
	if a.ended[rt.From] {
		a.leave(s.line(), Dropped, what, "an earlier rule refuses everything on %s", rt.From)
		return
	}
	switch policy {
	case "bypass":
		a.bypass(s, rt, what, rule, globs, ok && len(subjects) == 0)
	case "one_factor", "two_factor":
		if !ok {
			a.leave(s.line(), Closed, what, "the rule is left out on %s", rt.From)
			if policy == "two_factor" {
				// Whatever it was about may be admitted by a later rule.
				rt.Require.Login = twoFactors
			}
			return
		}
		if len(subjects) == 0 {
			subjects = []access.Rule{{Providers: []string{a.id}}}
		}
		for _, who := range subjects {
			made := rule
			made.Name = named(rt, what)
			made.Groups, made.Providers, made.Users = who.Groups, who.Providers, who.Users
			if who.When != "" {
				require(&made, who.When)
			}
			rt.Allow = append(rt.Allow, made)
		}
		if policy == "two_factor" {
			a.secondFactor(s, rt, what, rule, globs)
		}
	case "deny":
		a.deny(s, rt, what, rule, subjects, ok)
	default:
		s.fail(s.at("policy"), "%q is no policy", policy)
	}
}

// bypass makes a public rule, unless an earlier rule is about one of its
// requests: public rules come first here.
func (a *authelia) bypass(s *section, rt *access.Route, what string, rule access.Rule, globs []string, ok bool) {
	if len(globs) == 0 && s.take("resources") == nil {
		globs = all.globs
	}
	switch {
	case !ok || len(globs) == 0 || rule.When != "":
		a.leave(s.line(), Closed, what, "it has conditions that a public rule has not: a login is required on %s", rt.From)
		return
	case slices.ContainsFunc(a.earlier[rt.From], func(r reach) bool { return r.meets(globs, rule.Methods) }):
		a.leave(s.line(), Closed, what, "an earlier rule is about some of the same requests of %s, and public rules come before all others: list the paths that may be public", rt.From)
		return
	}
	methods := rule.Methods
	if len(methods) == 0 {
		methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	}
	rt.Public = append(rt.Public, access.Public{Name: named(rt, what), Methods: methods, Paths: globs, Networks: rule.Networks})
}

// meets reports whether a rule may be about one of some requests: unless their
// globs begin with texts of which neither begins the other.
func (r reach) meets(globs, methods []string) bool {
	if len(r.methods) > 0 && len(methods) > 0 && !slices.ContainsFunc(methods, func(m string) bool { return slices.Contains(r.methods, m) }) {
		return false
	}
	if r.globs == nil {
		return true
	}
	for _, a := range r.globs {
		for _, b := range globs {
			x, _, wildX := strings.Cut(a, "*")
			y, _, wildY := strings.Cut(b, "*")
			x, y = trimWild(x, wildX), trimWild(y, wildY)
			if wildX && strings.HasPrefix(y, x) || wildY && strings.HasPrefix(x, y) || x == y {
				return true
			}
		}
	}
	return false
}

// trimWild takes the slash before "**" off, which it also stands for.
func trimWild(text string, wild bool) string {
	if wild {
		return strings.TrimSuffix(text, "/")
	}
	return text
}

// secondFactor requires two factors where the rule holds. A requirement has
// paths and methods only, so that it may hold for more people than the rule.
func (a *authelia) secondFactor(s *section, rt *access.Route, what string, rule access.Rule, globs []string) {
	if rule.When != "" {
		a.leave(s.line(), Tighter, what, "its paths are no globs, so that two factors are required for %s on %s", orAll(globs), rt.From)
	}
	if globs == nil && len(rule.Methods) == 0 || slices.Contains(globs, "/**") && len(rule.Methods) == 0 {
		rt.Require.Login = twoFactors
		return
	}
	rt.Rules = append(rt.Rules, access.Stricter{Paths: globs, Methods: rule.Methods, Require: access.Require{Login: twoFactors}})
}

func orAll(globs []string) string {
	if globs == nil {
		return "every path"
	}
	return strings.Join(globs, " and ")
}

// deny makes a deny rule. A last rule that refuses everything is what holds
// anyway; one that cannot be written closes the route.
func (a *authelia) deny(s *section, rt *access.Route, what string, rule access.Rule, subjects []access.Rule, ok bool) {
	if !ok {
		a.close(rt)
		a.leave(s.line(), Closed, what, "the rule cannot be written, and without it the others would let too many in: %s is closed", rt.From)
		return
	}
	limited := len(rule.Methods)+len(rule.Paths)+len(rule.Networks)+len(rule.When) > 0
	admitted := len(rt.Allow)+len(rt.Public) > 0
	switch {
	case !limited && len(subjects) == 0:
		a.ended[rt.From] = true
		return
	case admitted:
		a.leave(s.line(), Tighter, what, "it refuses also what an earlier rule for %s admits: order means nothing here", rt.From)
	}
	if len(subjects) == 0 {
		subjects = []access.Rule{{}}
	}
	for _, who := range subjects {
		made := rule
		made.Name = named(rt, what)
		made.Groups, made.Providers = who.Groups, who.Providers
		if who.When != "" {
			require(&made, who.When)
		}
		rt.Deny = append(rt.Deny, made)
	}
}

// patterns reads `resources`, regular expressions on paths.
func (a *authelia) patterns(s *section, what string) (list []pattern, ok bool) {
	ok = true
	for _, re := range s.texts("resources") {
		p, readable := regexPattern(re)
		if !readable || strings.Contains(re, "(?P<") {
			a.leave(s.at("resources"), Differs, what, "the expression %s is not understood", re)
			ok = false
			continue
		}
		list = append(list, p)
	}
	return list, ok
}

// addresses reads `networks`, which may be names.
func (a *authelia) addresses(s *section, what string) (list []string, ok bool) {
	ok = true
	for _, text := range s.texts("networks") {
		values, isName := a.networks[text]
		if !isName {
			values = []string{text}
		}
		for _, v := range values {
			network, valid := networkOf(v)
			if !valid {
				a.leave(s.at("networks"), Differs, what, "%q is no network", v)
				ok = false
				continue
			}
			list = append(list, network)
		}
	}
	return list, ok
}

// subjects reads `subject`: a list of alternatives, each of which may be a list
// of things that all have to hold.
func (a *authelia) subjects(s *section, what string) (list []access.Rule, ok bool) {
	n := s.take("subject")
	if n == nil {
		return nil, true
	}
	entries := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		entries = n.Content
	}
	ok = true
	for _, entry := range entries {
		var who access.Rule
		readable := true
		for _, subject := range scalars(entry) {
			kind, name, _ := strings.Cut(subject, ":")
			switch {
			case kind == "group" && len(who.Groups) == 0:
				who.Groups = []string{a.group(a.id, name)}
			case kind == "group":
				require(&who, celText(name)+" in user.groups")
			case kind == "user":
				require(&who, "user.username == "+celText(name))
			default:
				readable = false
			}
		}
		if !readable || len(who.Groups) == 0 && who.When == "" {
			a.leave(entry.Line, Differs, what, "a subject that is neither user: nor group: cannot be written")
			ok = false
			continue
		}
		if len(who.Groups) == 0 {
			who.Providers = []string{a.id}
		}
		list = append(list, who)
	}
	return list, ok
}
