package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// Finding is a finding with its place in the file.
type Finding struct {
	access.Finding
	Severity access.Severity `json:"severity"`
	Line     int             `json:"line"`
	Column   int             `json:"column"`
	// Accepted is the reason with which `accept` accepts it.
	Accepted string `json:"accepted,omitempty"`
}

// Analyse looks for what the configuration says in vain, twice or more widely
// than it seems, and lists what reviewers should know of, in the order of the
// file.
func (c *Config) Analyse() []Finding {
	found := c.Policy.Analyse(c.policyInput(), c.surroundings())
	a := &analysis{cfg: c, found: found}
	a.providers()
	a.groups()
	a.devices()
	a.logins()
	a.addresses()
	a.plaintext()
	return c.accepted(a.found)
}

// analysis looks at what sections say about each other.
type analysis struct {
	cfg   *Config
	found []access.Finding
}

func (a *analysis) add(kind access.FindingKind, at, path, cure, format string, args ...any) {
	a.found = append(a.found, access.Finding{Kind: kind, At: at, Path: path, Text: fmt.Sprintf(format, args...), Cure: cure})
}

// policyInput is what the policy is compiled from.
func (c *Config) policyInput() authz.Input {
	return authz.Input{
		Routes: c.Routes, Defaults: c.Defaults, Groups: c.Groups,
		Devices: c.Devices.DevicePolicy, Providers: providerIDs(c.Providers), Version: c.Version,
	}
}

// surroundings tells the policy where the requests of its routes come from.
func (c *Config) surroundings() authz.Surroundings {
	addresses := c.Table.Addresses()
	type site struct{ scheme, host string }
	sites := map[site]map[string]string{}
	for id, at := range addresses {
		here := site{at.Scheme, at.Host}
		if sites[here] == nil {
			sites[here] = map[string]string{}
		}
		sites[here][at.Prefix] = id
	}
	scopes := map[string]authz.Scope{}
	for id, at := range addresses {
		below := map[string]string{}
		for prefix, other := range sites[site{at.Scheme, at.Host}] {
			if prefix != at.Prefix && strings.HasPrefix(prefix, at.Prefix+"/") {
				below[prefix] = other
			}
		}
		scopes[id] = authz.Scope{Scheme: at.Scheme, Host: at.Host, Prefix: at.Prefix, Below: below}
	}
	around := authz.Surroundings{Scopes: scopes, Hides: proxy.HidesParameter, Never: proxy.NeverMethod}
	for i := range c.Providers {
		if c.Providers[i].LogsIn() {
			around.LogIn = append(around.LogIn, c.Providers[i].ID)
		}
	}
	return around
}

// rules yields every rule that names people or machines, with its place.
func (a *analysis) rules(yield func(route *access.Route, rule *access.Rule, at, path string) bool) {
	for i := range a.cfg.Routes {
		route := &a.cfg.Routes[i]
		for kind, rules := range [][]access.Rule{route.Allow, route.Deny} {
			word := []string{"allow", "deny"}[kind]
			for j := range rules {
				if !yield(route, &rules[j], route.ID+"/"+word+"/"+rules[j].Name, fmt.Sprintf("routes[%d].%s[%d]", i, word, j)) {
					return
				}
			}
		}
	}
}

// providers reports those that no rule lets anyone in for, and rules about what
// no provider ever says.
func (a *analysis) providers() {
	used := map[string]bool{}
	for i := range a.cfg.Routes {
		used[a.cfg.Routes[i].Provider] = true
	}
	for _, group := range a.cfg.Groups {
		used[group.Provider] = true
		use(used, group.Users)
	}
	a.rules(func(route *access.Route, rule *access.Rule, at, path string) bool {
		use(used, rule.Users)
		use(used, rule.ClientIDs)
		for _, id := range rule.Providers {
			used[id] = true
		}
		a.machines(rule, at, path)
		return true
	})
	for i := range a.cfg.Routes {
		for _, rule := range a.cfg.Routes[i].Allow {
			a.useAll(used, &rule)
		}
	}
	for i := range a.cfg.Providers {
		p, path := &a.cfg.Providers[i], fmt.Sprintf("providers[%d]", i)
		if !used[p.ID] {
			a.add(access.ProviderUnused, "providers/"+p.ID, path, "remove it, or name it in a group or a rule", "no rule lets anyone in whom the provider %q vouches for", p.ID)
		}
		if p.InsecureAnyTokenType {
			a.add(access.AnyTokenType, "providers/"+p.ID, path+".insecure_any_token_type", "", "access tokens of %q are told from others by their audience and claims alone", p.ID)
		}
	}
}

// useAll notes the providers of an allow rule that names none: all that people
// can log in with, or all that vouch for machines.
func (a *analysis) useAll(used map[string]bool, rule *access.Rule) {
	if len(rule.Users)+len(rule.ClientIDs)+len(rule.Providers)+len(rule.Groups) > 0 {
		return
	}
	forMachines := len(rule.ServiceAccounts)+len(rule.SPIFFE)+len(rule.Scopes) > 0
	for i := range a.cfg.Providers {
		p := &a.cfg.Providers[i]
		if forMachines && (len(p.Audiences) > 0 || p.OfCluster() || p.OfCertificates()) || !forMachines && p.LogsIn() {
			used[p.ID] = true
		}
	}
}

// use notes the providers of people or clients, PROVIDER:NAME.
func use(used map[string]bool, names []string) {
	for _, name := range names {
		provider, _, _ := strings.Cut(name, ":")
		used[provider] = true
	}
}

// machines reports a rule about facts that none of its providers states.
func (a *analysis) machines(rule *access.Rule, at, path string) {
	who := func(able func(n int) bool) bool {
		for i := range a.cfg.Providers {
			if (len(rule.Providers) == 0 || slices.Contains(rule.Providers, a.cfg.Providers[i].ID)) && able(i) {
				return true
			}
		}
		return false
	}
	for _, fact := range []struct {
		key, cure string
		asked     bool
		able      func(n int) bool
	}{
		{"service_accounts", "add a provider with issuer: kubernetes", len(rule.ServiceAccounts) > 0,
			func(n int) bool { return a.cfg.Providers[n].OfCluster() }},
		{"spiffe", "give the provider its trust_domain", len(rule.SPIFFE) > 0,
			func(n int) bool { return a.cfg.Providers[n].TrustDomain != "" }},
		{"scopes", "list the audiences of the provider's access tokens", len(rule.Scopes) > 0,
			func(n int) bool { return len(a.cfg.Providers[n].Audiences) > 0 && !a.cfg.Providers[n].OfCluster() }},
		{"client_ids", "list the audiences of the provider's access tokens", len(rule.ClientIDs) > 0,
			func(n int) bool { return len(a.cfg.Providers[n].Audiences) > 0 && !a.cfg.Providers[n].OfCluster() }},
		{"claims", "remove it", len(rule.Claims) > 0,
			func(n int) bool { return !a.cfg.Providers[n].OfCertificates() }},
	} {
		if fact.asked && !who(fact.able) {
			a.add(access.RuleForNobody, at, path+"."+fact.key, fact.cure, "no provider that the rule is about ever states %s", fact.key)
		}
	}
	for _, one := range rule.SPIFFE {
		id := strings.TrimSuffix(one, "/**")
		domain, _, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
		if !who(func(n int) bool {
			return a.cfg.Providers[n].TrustDomain == domain || a.cfg.Providers[n].TrustDomain == ""
		}) {
			a.add(access.RuleForNobody, at, path+".spiffe", "add trust_domain: "+domain+" to the provider that speaks for it", "no provider speaks for the trust domain %s", domain)
		}
	}
}

// groups reports groups that nobody can be in.
func (a *analysis) groups() {
	for name, group := range a.cfg.Groups {
		if len(group.ClaimGroups) == 0 {
			continue
		}
		for i := range a.cfg.Providers {
			p := &a.cfg.Providers[i]
			why := ""
			switch {
			case p.ID != group.Provider:
			case !p.Trust.OfGroups():
				why = "its word about groups does not count (trust: {groups: none})"
			case p.OfCertificates():
				why = "certificates state no groups"
			}
			if why == "" {
				continue
			}
			if len(group.Users) > 0 {
				why += ", so that only its users are in it"
			}
			a.add(access.GroupEmpty, "groups/"+name, "groups."+name+".claim_groups", "name people under users, or another provider", "no login at %q ever gives these groups: %s", p.ID, why)
		}
	}
}

// devices reports demands on devices that nothing can tell apart.
func (a *analysis) devices() {
	d := &a.cfg.Devices
	if len(d.Sources) == 0 {
		for path, at := range a.deviceDemands() {
			a.add(access.DeviceImpossible, at, path, "add the inventory to devices.sources", "no device can ever meet this: there is no inventory")
		}
	}
	for i, proof := range d.Match {
		if strings.HasPrefix(proof, "certificate.") && a.cfg.Server.TLS.ClientCA == "" {
			a.add(access.MatchImpossible, "devices", fmt.Sprintf("devices.match[%d]", i), "add server.tls.client_ca", "no device is ever asked for its certificate")
		}
	}
}

// deviceDemands returns the paths at which a device is required, and of what.
func (a *analysis) deviceDemands() map[string]string {
	all := map[string]string{}
	if a.cfg.Defaults.Require.Device != "" {
		all["defaults.require.device"] = "defaults"
	}
	for i := range a.cfg.Routes {
		route := &a.cfg.Routes[i]
		if route.Require.Device != "" {
			all[fmt.Sprintf("routes[%d].require.device", i)] = route.ID
		}
		for j := range route.Rules {
			if route.Rules[j].Require.Device != "" {
				all[fmt.Sprintf("routes[%d].rules[%d].require.device", i, j)] = fmt.Sprintf("%s/rules[%d]", route.ID, j)
			}
		}
	}
	return all
}

// logins reports demands on a login that no provider of the route can meet:
// visitors would be sent to log in again for nothing.
func (a *analysis) logins() {
	check := func(provider, at, path string, ask *access.LoginRequire) {
		classes := ask.Classes()
		if len(classes) == 0 {
			return
		}
		for i := range a.cfg.Providers {
			p := &a.cfg.Providers[i]
			if !p.LogsIn() || provider != "" && p.ID != provider {
				continue
			}
			if slices.ContainsFunc(classes, p.Assurance.Reaches) {
				return
			}
		}
		what := "a provider"
		if provider != "" {
			what = "the provider " + provider
		}
		a.add(access.LoginImpossible, at, path, "say under `assurance` which of its statements are worth it", "no login at %s is ever worth %s", what, strings.Join(classes, " or "))
	}
	check("", "defaults", "defaults.require.login", &a.cfg.Defaults.Require.Login)
	for i := range a.cfg.Routes {
		route, path := &a.cfg.Routes[i], fmt.Sprintf("routes[%d]", i)
		check(route.Provider, route.ID, path+".require.login", &route.Require.Login)
		for j := range route.Rules {
			check(route.Provider, fmt.Sprintf("%s/rules[%d]", route.ID, j), fmt.Sprintf("%s.rules[%d].require.login", path, j), &route.Rules[j].Require.Login)
		}
	}
}

// addresses reports names of a wildcard host that another route takes away as a
// whole, although it answers for a part of their paths only.
func (a *analysis) addresses() {
	all := a.cfg.Table.Addresses()
	for i := range a.cfg.Routes {
		exact := all[a.cfg.Routes[i].ID]
		if exact.Prefix == "" || slices.ContainsFunc(a.cfg.Routes, func(r access.Route) bool {
			at := all[r.ID]
			return at.Host == exact.Host && at.Scheme == exact.Scheme && at.Prefix == ""
		}) {
			continue
		}
		for j := range a.cfg.Routes {
			if wild := all[a.cfg.Routes[j].ID]; wild.Covers(exact) {
				a.add(access.HostCut, a.cfg.Routes[i].ID, fmt.Sprintf("routes[%d].from", i), "add a route for the rest of that host, or accept this finding",
					"the whole host %s leaves route %q, and requests outside %s are answered 404", exact.Host, a.cfg.Routes[j].ID, exact.Prefix)
			}
		}
	}
}

// plaintext lists where requests travel unprotected.
func (a *analysis) plaintext() {
	if reason := a.cfg.Server.InsecureListen; reason != "" {
		a.add(access.PlaintextListener, "server", "server.insecure_listen", "", "visitors are answered without TLS: %s", reason)
	}
	for i := range a.cfg.Routes {
		if r := &a.cfg.Routes[i]; r.InsecureUpstream != "" {
			a.add(access.PlaintextUpstream, r.ID, fmt.Sprintf("routes[%d].insecure_upstream", i), "", "requests travel to the upstream in plaintext: %s", r.InsecureUpstream)
		}
	}
}
