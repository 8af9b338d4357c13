package migrate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/access"
)

// Oathkeeper reads access rules of Ory Oathkeeper, in JSON or YAML. Exactly one
// rule is about any request there, and so the rules of one host make a route.
func Oathkeeper(text []byte) (*Result, error) {
	root, err := parseYAML(text)
	if err != nil {
		return nil, err
	}
	if root.Kind != yaml.SequenceNode {
		return nil, problem(root.Line, "the file must be a list of access rules")
	}
	o := &oathkeeper{draft: newDraft("Ory Oathkeeper"), guarded: map[string][]reach{}}
	for _, s := range sectionsOf(root, "the list of rules", &err) {
		o.rule(s)
	}
	if err != nil {
		return nil, err
	}
	for i := range o.routes {
		o.settle(&o.routes[i])
	}
	if len(o.providers) == 0 {
		o.issuer("https://issuer.invalid", false)
	}
	o.leave(0, ToDo, "providers", "write how people log in: Oathkeeper left that to another service")
	return o.finish()
}

type oathkeeper struct {
	*draft
	// guarded are the requests of each host that rules are about which do not let
	// everybody pass.
	guarded map[string][]reach
}

// rule reads one access rule.
func (o *oathkeeper) rule(s *section) {
	id := s.text("id")
	what := "rule " + id
	s.ignore("version", "description", "errors")
	match := s.section("match")
	from, p, ok := o.address(match, what)
	methods := match.texts("methods")
	o.leaveRest(match, what+": match.")
	if !methodsText(methods) {
		match.fail(match.at("methods"), "methods are written in capitals")
	}
	if !ok {
		s.ignore("upstream", "authenticators", "authorizer", "mutators", "mutator")
		return
	}
	rt := o.routeFor(from)
	o.forwarding(s.section("upstream"), rt, what)
	o.mutators(s, rt, what)
	rule := access.Rule{Name: named(rt, id), Methods: methods}
	limit(&rule, []pattern{p})
	authorizer := s.section("authorizer")
	about := reach{p.around(), methods}
	handler := authorizer.text("handler")
	authenticators := s.sections("authenticators")
	o.leaveRest(s, what+": ")
	switch handler {
	case "allow":
		if o.authenticators(authenticators, rt, what, rule, p) {
			o.guarded[from] = append(o.guarded[from], about)
		}
		return
	case "deny":
		rt.Deny = append(rt.Deny, rule)
		if len(rule.Methods)+len(rule.Paths)+len(rule.When) == 0 {
			rt.Deny = rt.Deny[:len(rt.Deny)-1]
			o.close(rt)
		}
	default:
		o.leave(authorizer.line(), Closed, what, "the authorizer %q asks somebody else: write who may as rules", handler)
	}
	o.guarded[from] = append(o.guarded[from], about)
}

// address reads match.url: an address with regular expressions in <>.
func (o *oathkeeper) address(match *section, what string) (from string, p pattern, ok bool) {
	text := match.text("url")
	head, rest, found := strings.Cut(text, "://")
	if strings.HasPrefix(text, "<") { // <http|https>://
		scheme, after, closed := strings.Cut(strings.TrimPrefix(text, "<"), ">")
		head, rest = "https", strings.TrimPrefix(after, "://")
		found = closed && strings.HasPrefix(after, "://") && slices.Contains(strings.Split(strings.Trim(scheme, "()?:"), "|"), "https") || scheme == "https?"
	}
	host, path, hasPath := strings.Cut(rest, "/")
	from, _, plain := origin(head + "://" + host)
	if !found || !plain || strings.ContainsAny(host, "<>*") {
		o.leave(match.at("url"), Closed, what, "%q does not begin with a plain scheme and host", text)
		return "", p, false
	}
	if !hasPath {
		return from, exactPattern("/"), true
	}
	re := "^/"
	for path != "" {
		literal, inner, opened := strings.Cut(path, "<")
		if strings.ContainsAny(literal, "*") {
			o.leave(match.at("url"), Closed, what, "%q looks like a glob of Oathkeeper, which is not read", text)
			return "", p, false
		}
		re += regexp.QuoteMeta(literal)
		if !opened {
			break
		}
		end := closing(inner)
		if end < 0 {
			match.fail(match.at("url"), "a < is not closed in %q", text)
			return "", p, false
		}
		group := inner[:end]
		if group == ".*" {
			re += ".*"
		} else {
			re += "(?:" + group + ")"
		}
		path = inner[end+1:]
	}
	if p, ok = regexPattern(re + "$"); !ok {
		o.leave(match.at("url"), Closed, what, "the expression in %q is not understood", text)
		return "", p, false
	}
	return from, p, true
}

// closing returns where the bracket that is open at the beginning is closed.
func closing(text string) int {
	depth := 1
	for i := range len(text) {
		switch text[i] {
		case '<':
			depth++
		case '>':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func (o *oathkeeper) forwarding(s *section, rt *access.Route, what string) {
	if text := s.text("url"); text != "" {
		to, _, ok := origin(text)
		switch {
		case !ok:
			o.leave(s.at("url"), ToDo, what, "%q is no address of an application", text)
		case len(rt.To) > 0 && rt.To[0] != to:
			o.leave(s.at("url"), ToDo, what, "its upstream is %s, and that of %s is %s: give it a route of its own", to, rt.From, rt.To[0])
		default:
			o.upstream(rt, text, s.at("url"))
		}
	}
	if s.text("strip_path") != "" {
		o.leave(s.at("strip_path"), ToDo, what, "write it into strip_prefix, if from has it")
	}
	rt.PreserveHost = rt.PreserveHost || s.flag("preserve_host")
	o.leaveRest(s, what+": upstream.")
}

// authenticators reads who is let in by a rule whose authorizer is allow, and
// tells whether it keeps anyone out. The first that takes a request decides, so
// that nothing counts after one that takes them all, or may.
func (o *oathkeeper) authenticators(list []*section, rt *access.Route, what string, rule access.Rule, p pattern) (guards bool) {
	guards = true
	for _, s := range list {
		handler, config := s.text("handler"), s.section("config")
		switch handler {
		case "noop", "anonymous":
			if len(p.globs) == 0 || len(rule.Methods) == 0 {
				o.leave(s.line(), Closed, what, "a public rule has globs and methods, and none says the same: a login is required there")
				continue
			}
			rt.Public = append(rt.Public, access.Public{Name: named(rt, rule.Name+"-open"), Methods: rule.Methods, Paths: p.globs})
			guards = false
		case "jwt", "oauth2_introspection":
			o.tokens(s, config, rt, what, rule)
		case "cookie_session", "bearer_token":
			o.leave(s.line(), Closed, what, "%s asks another service who that is: give the people a group and write a rule for it", handler)
		case "unauthorized":
			return guards
		default:
			o.leave(s.line(), Closed, what, "the authenticator %q is not known here, and it may refuse what those after it let in", handler)
			return guards
		}
	}
	return guards
}

// tokens reads a rule for access tokens.
func (o *oathkeeper) tokens(s, config *section, rt *access.Route, what string, rule access.Rule) {
	issuers, scopes, audiences := config.texts("trusted_issuers"), config.texts("required_scope"), config.texts("target_audience")
	config.ignore("jwks_urls", "jwks_max_wait", "jwks_ttl", "introspection_url", "pre_authorization", "introspection_request_headers", "cache")
	o.leaveRest(config, what+": authenticators.config.")
	if slices.ContainsFunc(slices.Concat(scopes, audiences), func(v string) bool { return !plainWord.MatchString(v) }) {
		o.leave(s.line(), Closed, what, "its scopes or audiences are none")
		return
	}
	if len(issuers) == 0 || len(scopes) == 0 || len(audiences) == 0 {
		o.leave(s.line(), Closed, what, "tokens need trusted_issuers, target_audience and required_scope to be told apart here")
		return
	}
	if strategy := config.text("scope_strategy"); strategy != "" && strategy != "exact" && strategy != "none" {
		o.leave(s.line(), Tighter, what, "scopes are compared exactly, and not %s", strategy)
	}
	for _, issuer := range issuers {
		if from, _, ok := origin(issuer); !ok || !strings.HasPrefix(from, "https://") {
			o.leave(s.line(), Closed, what, "%q is no issuer", issuer)
			continue
		}
		made := rule
		made.Name = named(rt, rule.Name)
		made.Providers, made.Scopes = []string{o.issuer(issuer, true)}, scopes[:1]
		for _, scope := range scopes[1:] {
			require(&made, celText(scope)+" in token.scopes")
		}
		for i := range o.providers {
			if o.providers[i].issuer != issuer {
				continue
			}
			for _, audience := range audiences {
				if !slices.Contains(o.providers[i].audiences, audience) {
					o.providers[i].audiences = append(o.providers[i].audiences, audience)
				}
			}
			if len(o.providers[i].audiences) > len(audiences) {
				o.leave(s.line(), Differs, what, "tokens for the audiences %s of another rule are accepted, too: a provider has one list", strings.Join(o.providers[i].audiences, ", "))
			}
		}
		rt.Allow = append(rt.Allow, made)
	}
}

// plainWord is what scopes and audiences consist of.
var plainWord = regexp.MustCompile(`^[!#-\[\]-~]+$`)

// issuer returns the provider of an issuer, made if need be.
func (o *oathkeeper) issuer(issuer string, machines bool) string {
	for _, p := range o.providers {
		if p.issuer == issuer {
			return p.id
		}
	}
	p := provider{id: fmt.Sprint("issuer-", len(o.providers)+1), issuer: issuer, clientID: "doorward", secretEnv: "CLIENT_SECRET", noLogin: machines}
	o.providers = append(o.providers, p)
	return p.id
}

// oathkeeperFacts are the templates of headers that are facts about a visitor.
var oathkeeperFacts = map[string]string{".Subject": "sub", "print .Subject": "sub", ".Extra.email": "email", "print .Extra.email": "email"}

var template = regexp.MustCompile(`^\{\{-? *(.*?) *-?\}\}$`)

func (o *oathkeeper) mutators(s *section, rt *access.Route, what string) {
	list := s.sections("mutators")
	if s.take("mutator") != nil {
		list = append(list, s.section("mutator"))
	}
	for _, m := range list {
		handler, config := m.text("handler"), m.section("config")
		switch handler {
		case "noop":
			continue
		case "header":
			headers := config.section("headers")
			for _, name := range headers.keys() {
				found := template.FindStringSubmatch(headers.text(name))
				if found == nil || oathkeeperFacts[found[1]] == "" || !headerName.MatchString(name) || !strings.HasPrefix(strings.ToLower(name), "x-") {
					o.leave(headers.at(name), Dropped, what, "the header %s is not set: its value is no single fact about the visitor", name)
					continue
				}
				if rt.Headers == nil {
					rt.Headers = map[string]string{}
				}
				rt.Headers[name] = oathkeeperFacts[found[1]]
			}
		default:
			o.leave(m.line(), Dropped, what, "the mutator %q is not carried over: applications verify Doorward-Assertion", handler)
		}
	}
}

// settle takes back what is public where another rule may be about the same
// requests: public rules come before all others here.
func (o *oathkeeper) settle(rt *access.Route) {
	guarded := slices.ContainsFunc(o.guarded[rt.From], func(r reach) bool {
		return slices.ContainsFunc(rt.Public, func(p access.Public) bool { return r.meets(p.Paths, p.Methods) })
	})
	if guarded {
		rt.Public = nil
		o.leave(0, Closed, rt.From, "what needed no login there may be what other rules are about: write public rules for it")
	}
}
