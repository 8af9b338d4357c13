package authz

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// route compiles one route. Paths of demands begin with path.
func (c *compiler) route(src *access.Route, path string, f access.Faults) *route {
	rt := &route{id: src.ID, ladder: c.ladder}
	checkName(f.At("id"), "route", src.ID)
	if src.Provider != "" {
		c.checkProvider(src.Provider, f.At("provider"))
	}

	names := map[string]bool{} // unique over all kinds of rules
	rt.public, rt.allow, rt.deny = make([]rule, 0, len(src.Public)), make([]rule, 0, len(src.Allow)), make([]rule, 0, len(src.Deny))
	for i := range src.Public {
		rt.public = append(rt.public, c.public(&src.Public[i], names, f.At("public[%d]", i)))
	}
	if src.Preflight || src.CORS.Enabled() {
		rt.preflight = []rule{preflightRule()}
	}
	for i := range src.Allow {
		at := f.At("allow[%d]", i)
		one := c.rule("allow", &src.Allow[i], names, at)
		checkWho(&src.Allow[i], at)
		if src.Allow[i].Mode == access.Report {
			rt.reportedAllow = append(rt.reportedAllow, one)
			continue
		}
		rt.allow = append(rt.allow, one)
	}
	for i := range src.Deny {
		at := f.At("deny[%d]", i)
		one := c.rule("deny", &src.Deny[i], names, at)
		if conditions := one.conditions; len(conditions) == 0 || len(conditions) == 1 && src.Deny[i].AnyUser {
			at.Add("add a condition, or remove the rule", "a deny rule without condition refuses everything")
		}
		if src.Deny[i].Mode == access.Report {
			rt.reportedDeny = append(rt.reportedDeny, one)
			continue
		}
		rt.deny = append(rt.deny, one)
	}
	switch {
	case len(rt.allow) == 0 && len(rt.public) == 0 && len(rt.reportedAllow) > 0:
		f.At("allow").Add("enforce one of the rules", "nobody can ever use this route: its allow rules only report")
	case len(rt.allow) == 0 && len(rt.public) == 0:
		f.At("allow").Add("add an allow rule", "nobody can ever use this route: it has neither allow nor public")
	case len(src.Allow) == 0 && len(src.Deny) > 0:
		f.At("deny").Add("remove them, or add an allow rule", "the deny rules do nothing: public rules pass first, and nothing else is allowed")
	}
	c.demands(rt, src, path, f)
	rt.groups = c.mentioned(src)
	return rt
}

// checkWho demands that an allow rule says who it is for, once.
func checkWho(src *access.Rule, f access.Faults) {
	narrower := len(src.Groups) + len(src.Users) + len(src.Providers) + len(src.Claims)
	switch {
	case !src.AnyUser && narrower == 0 && !namesMachines(src):
		f.Add("add groups, users, providers or claims, or any_user: true", "the rule does not say who it is for")
	case src.AnyUser && narrower > 0:
		f.At("any_user").Add("remove any_user, or what narrows it", "any_user contradicts groups, users, providers and claims")
	case src.AnyUser && len(src.ServiceAccounts)+len(src.SPIFFE) > 0:
		f.At("any_user").Add("remove any_user, or write two rules", "any_user is for people, service_accounts and spiffe are for machines")
	}
	if src.Message != "" {
		f.At("message").Add("remove it", "only a deny rule has a message")
	}
}

func (c *compiler) rule(kind string, src *access.Rule, names map[string]bool, f access.Faults) rule {
	checkRuleName(src.Name, names, f.At("name"))
	if !slices.Contains([]access.Mode{access.Enforce, "enforce", access.Report}, src.Mode) {
		f.At("mode").Add(didYouMean(string(src.Mode), []string{"enforce", "report"}), "unknown mode %q", src.Mode)
	}
	said := *src
	said.Name, said.Mode, said.Message = "", "", ""
	return rule{name: c.ruleName(kind, src.Name), message: src.Message, conditions: c.once(kind, said, func() []condition {
		return c.conditions(kind, src, f)
	})}
}

// conditions compiles what a rule of a kind says.
func (c *compiler) conditions(kind string, src *access.Rule, f access.Faults) (list []condition) {
	if src.AnyUser {
		list = append(list, anyUser{})
	}
	if forPeople(kind, src) {
		list = append(list, onlyPeople{})
	}
	if len(src.Groups) > 0 {
		list = append(list, c.membership(src.Groups, f.At("groups")))
	}
	if len(src.Users) > 0 {
		list = append(list, c.people(src.Users, f.At("users")))
	}
	if len(src.Providers) > 0 {
		for i, id := range src.Providers {
			c.checkProvider(id, f.At("providers[%d]", i))
		}
		list = append(list, providers(slices.Clone(src.Providers)))
	}
	for _, name := range keys(src.Claims) {
		list = append(list, newClaim(name, src.Claims[name], f.At("claims.%s", name)))
	}
	list = append(list, c.machines(src, f)...)
	list = append(list, where(src.Methods, src.Paths, src.Networks, f)...)
	if !src.Time.IsZero() {
		list = append(list, newSchedule(src.Time, f.At("time")))
	}
	if src.When != "" {
		list = append(list, c.expects(src.When, true, f.At("when")))
	}
	if src.Unless != "" {
		list = append(list, c.expects(src.Unless, false, f.At("unless")))
	}
	return list
}

// once compiles the conditions of a rule, unless one of this kind has said the same
// before: then it returns the conditions of that one, which nobody changes. What
// has a fault is compiled each time, so that each place is reported.
func (c *compiler) once(kind string, said any, compile func() []condition) []condition {
	text, err := json.Marshal(said)
	key := kind + " " + string(text)
	if have, ok := c.compiled[key]; ok && err == nil {
		return have
	}
	faults := len(c.faults.List())
	list := slices.Clip(compile())
	if err == nil && len(c.faults.List()) == faults {
		c.compiled[key] = list
	}
	return list
}

// ruleName returns the name of a rule with its kind.
func (c *compiler) ruleName(kind, name string) string {
	whole := kind + "/" + name
	if have, ok := c.names[whole]; ok {
		return have
	}
	c.names[whole] = whole
	return whole
}

func checkRuleName(name string, taken map[string]bool, f access.Faults) {
	checkName(f, "rule", name)
	if name != "" && taken[name] {
		f.Add("choose another name", "the name %q is taken by another rule of this route", name)
	}
	taken[name] = true
}

func (c *compiler) public(src *access.Public, names map[string]bool, f access.Faults) rule {
	checkRuleName(src.Name, names, f.At("name"))
	if len(src.Methods) == 0 {
		f.At("methods").Add("list them, such as [GET]", "a public rule must say which methods it opens")
	}
	if len(src.Paths) == 0 {
		f.At("paths").Add(`list them, such as ["/health"]`, "a public rule must say which paths it opens")
	}
	said := *src
	said.Name = ""
	return rule{name: c.ruleName("public", src.Name), conditions: c.once("public", said, func() []condition {
		return where(src.Methods, src.Paths, src.Networks, f)
	})}
}

func (c *compiler) membership(names []string, f access.Faults) membership {
	var m membership
	for i, name := range names {
		if g := c.groups[name]; g != nil {
			m = append(m, g)
			continue
		}
		f.At("[%d]", i).Add(didYouMean(name, keys(c.groups)), "unknown group %q", name)
	}
	return m
}

// ownKeys says how a rule asks for the claims that are facts of their own and
// therefore not among the remaining claims.
var ownKeys = map[string]string{
	"iss": "use providers", "sub": "use users", "groups": "use groups",
	"email":              `use when: "user.email == '…'"`,
	"email_verified":     `use when: "user.email_verified"`,
	"name":               `use when: "user.name == '…'"`,
	"preferred_username": `use when: "user.username == '…'"`,
	"acr":                "use require.login.acr", "amr": "use require.login.amr", "auth_time": "use require.login.max_age",
}

func newClaim(name string, accept []string, f access.Faults) *claim {
	if cure, ok := ownKeys[name]; ok {
		f.Add(cure, "the claim %q cannot be matched here", name)
	}
	if len(accept) == 0 {
		f.Add("list the accepted values", "no value of the claim is accepted")
	}
	return &claim{name: name, accept: slices.Clone(accept)}
}

// where compiles the conditions on the request itself.
func where(ms, ps, ns []string, f access.Faults) (conditions []condition) {
	if len(ms) > 0 {
		for i, m := range ms {
			if !methodToken(m) {
				f.At("methods[%d]", i).Add("write methods in capitals: "+strings.ToUpper(m), "%q is no method", m)
			}
		}
		conditions = append(conditions, methods(slices.Clone(ms)))
	}
	if len(ps) > 0 {
		globs := make(paths, len(ps))
		for i, source := range ps {
			var err error
			if globs[i], err = parseGlob(source); err != nil {
				f.At("paths[%d]", i).Add("write /, /reports/*, or /reports/** for all below", "%q %v", source, err)
			}
		}
		conditions = append(conditions, globs)
	}
	if len(ns) > 0 {
		list := make(networks, len(ns))
		for i, source := range ns {
			var err error
			if list[i], err = parseNetwork(source); err != nil {
				f.At("networks[%d]", i).Add("", "%q %v", source, err)
			}
		}
		conditions = append(conditions, list)
	}
	return conditions
}

// methodToken accepts a token of RFC 9110 §5.6.2 without small letters: methods
// are case-sensitive, and every registered one is in capitals.
func methodToken(m string) bool {
	for _, c := range []byte(m) {
		if c <= ' ' || c >= 0x7f || 'a' <= c && c <= 'z' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return m != ""
}

// parseNetwork reads CIDR notation in its one canonical form.
func parseNetwork(s string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(s)
	if err != nil {
		if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
			return netip.Prefix{}, fmt.Errorf("is an address, write %s/%d", s, addr.BitLen())
		}
		return netip.Prefix{}, errors.New("is no network, write one like 10.0.0.0/8")
	}
	if network.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("is an IPv4 network in IPv6 notation, write it as IPv4")
	}
	if network != network.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits beyond its length, write %s", network.Masked())
	}
	return network, nil
}

func newSchedule(src access.TimeWindow, f access.Faults) *schedule {
	w, faults := parseWindow(src)
	for _, fault := range faults {
		f.At("%s", fault.field).Add(fault.cure, "%s", fault.text)
	}
	return &schedule{window: w, source: src}
}

func (c *compiler) expects(source string, want bool, f access.Faults) expects {
	e, err := compileCEL(c.env, source)
	if err != nil {
		f.Add("", "%v", err)
	} else {
		e.fresh = freshness(c.in.Devices)
	}
	return expects{expression: e, want: want}
}

// demands collects the requirements of a route, most specific first.
func (c *compiler) demands(rt *route, src *access.Route, path string, f access.Faults) {
	for i := range src.Rules {
		stricter, at := &src.Rules[i], f.At("rules[%d]", i)
		d := demand{path: fmt.Sprintf("%s.rules[%d].require", path, i)}
		d.device, d.login = c.checkRequire(stricter.Require, at.At("require"))
		d.where = where(stricter.Methods, stricter.Paths, nil, at)
		if stricter.Require.Device == "" && stricter.Require.Login.IsZero() {
			at.At("require").Add("name what else is required", "the entry requires nothing")
		}
		rt.demands = append(rt.demands, d)
	}

	own := demand{path: path + ".require"}
	own.device, own.login = c.checkRequire(src.Require, f.At("require"))
	general := demand{path: "defaults.require"}
	general.device, general.login = c.profiles[c.in.Defaults.Require.Device], c.in.Defaults.Require.Login
	if c.waived("device", src.Exceptions.Device, c.in.Defaults.Require.Device != "", f) {
		general.device = nil
	}
	if c.waived("login", src.Exceptions.Login, !general.login.IsZero(), f) {
		general.login = access.LoginRequire{}
	}
	for _, d := range []demand{own, general} {
		if d.device != nil || !d.login.IsZero() {
			rt.demands = append(rt.demands, d)
		}
	}
	checkReachable(rt.demands, src, general.login, f)
}

// waived reports whether an exception lifts a default, and checks it.
func (c *compiler) waived(what, reason string, exists bool, f access.Faults) bool {
	if reason == "" {
		return false
	}
	at := f.At("exceptions.%s", what)
	switch {
	case strings.TrimSpace(reason) == "":
		at.Add("write why", "an exception needs a reason in writing")
	case !exists:
		at.Add("remove it", "there is no default requirement to except from: defaults.require.%s is not set", what)
	}
	return true
}

// checkReachable reports demands that no login can ever meet together: a login
// has one class, so lists of classes must share one.
func checkReachable(demands []demand, src *access.Route, general access.LoginRequire, f access.Faults) {
	base := general.And(src.Require.Login)
	if !access.Compatible(general.ACR, src.Require.Login.ACR) {
		f.At("require.login.acr").Add("share a value, or write an exception", "no login can meet this and defaults.require.login.acr")
	}
	for i := range src.Rules {
		if !access.Compatible(base.ACR, demands[i].login.ACR) {
			f.At("rules[%d].require.login.acr", i).Add("share a value", "no login can meet this and what the route requires everywhere")
		}
	}
}

// mentioned lists the groups that the rules of a route name.
func (c *compiler) mentioned(src *access.Route) []*group {
	found := map[string]*group{}
	for _, r := range slices.Concat(src.Allow, src.Deny) {
		for _, name := range r.Groups {
			if g := c.groups[name]; g != nil {
				found[name] = g
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *group) int { return strings.Compare(a.name, b.name) })
}
