package authz

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/doorward/doorward/internal/access"
)

// Input is everything a policy is made of, as the configuration writes it.
type Input struct {
	Routes   []access.Route
	Defaults access.Defaults
	Groups   map[string]access.Group
	Devices  access.DevicePolicy
	// Providers are the ids of the configured identity providers. Nobody else
	// vouches for anyone: an identity of another provider counts as Nobody.
	Providers []string
	// Version names the policy in decisions; usually a hash of the file.
	Version string
}

// A Policy decides requests. It never changes after Compile and may be used by
// any number of goroutines. The zero Policy knows no route and denies.
type Policy struct {
	version   string
	routes    map[string]*route
	providers map[string]struct{}
	ladder    ladder
	profiles  map[string]*profile // tiers included
	groups    map[string]*group
}

// Version returns the version the policy was compiled with.
func (p *Policy) Version() string { return p.version }

// Routes returns the sorted ids of the routes.
func (p *Policy) Routes() []string { return keys(p.routes) }

// Rules returns the names of the rules of a route with their kinds, such as
// "allow/engineers-read".
func (p *Policy) Rules(route string) (names []string) {
	if rt := p.routes[route]; rt != nil {
		for _, r := range rt.all() {
			names = append(names, r.name)
		}
	}
	return names
}

// Groups returns the sorted names of the top-level groups that the rules of the
// route mention and the person is in. A group that is only unknown is left out.
func (p *Policy) Groups(route string, id *access.Identity) []string {
	rt, ok := p.routes[route]
	if !ok || !p.knows(id) {
		return nil
	}
	var names []string
	for _, g := range rt.groups {
		if g.has(id) == access.Yes {
			names = append(names, g.name)
		}
	}
	return names
}

// A route is a compiled access.Route. Rules that only report are kept apart from
// those that count.
type route struct {
	id                          string
	public, deny, allow         []rule
	preflight                   []rule // at most one
	reportedDeny, reportedAllow []rule
	// demands are most specific first, so that the most specific profile is the
	// one a visitor is told about.
	demands []demand
	ladder  ladder
	groups  []*group // mentioned by the rules, sorted by name
}

// A rule is a conjunction of conditions.
type rule struct {
	name       string // with its kind: "allow/engineers-read"
	message    string
	conditions []condition
}

// A demand is one `require` and where it applies.
type demand struct {
	path   string // of the require in the configuration
	where  []condition
	device *profile
	login  access.LoginRequire
}

// Compile checks the whole input and makes a Policy of it. It reports every
// fault in one run, with paths such as "routes[0].allow[1].when"; with any fault
// the Policy is nil.
func Compile(in Input) (*Policy, []access.Fault) {
	faults := access.NewFaults("")
	env, err := newCELEnv()
	if err != nil {
		faults.Add("report this", "the expression language cannot be set up: %v", err)
		return nil, faults.List()
	}
	c := &compiler{in: in, env: env, faults: faults, compiled: map[string][]condition{}, names: map[string]string{}}
	policy := c.compile()
	if found := faults.List(); len(found) > 0 {
		return nil, found
	}
	return policy, nil
}

type compiler struct {
	in       Input
	env      *cel.Env
	faults   access.Faults
	groups   map[string]*group
	profiles map[string]*profile
	ladder   ladder
	// What rules have in common is there once: thousands of routes are seldom about
	// thousands of different rules. See once.
	compiled map[string][]condition
	names    map[string]string
}

func (c *compiler) compile() *Policy {
	c.compileGroups()
	c.profiles = compileProfiles(c.in.Devices, c.faults.At("devices"))
	c.ladder = compileTiers(c.in.Devices, c.profiles, c.faults.At("devices.tiers"))
	c.checkRequire(c.in.Defaults.Require, c.faults.At("defaults.require"))

	p := &Policy{version: c.in.Version, routes: map[string]*route{}, providers: map[string]struct{}{}, ladder: c.ladder, profiles: c.profiles}
	for _, id := range c.in.Providers {
		p.providers[id] = struct{}{}
	}
	for i := range c.in.Routes {
		f := c.faults.At("routes[%d]", i)
		rt := c.route(&c.in.Routes[i], fmt.Sprintf("routes[%d]", i), f)
		if rt.id != "" && p.routes[rt.id] != nil {
			f.At("id").Add("choose another id", "the id %q is taken by another route", rt.id)
		}
		p.routes[rt.id] = rt
	}
	p.groups = c.groups
	return p
}

func (c *compiler) compileGroups() {
	c.groups = map[string]*group{}
	for _, name := range keys(c.in.Groups) {
		source, f := c.in.Groups[name], c.faults.At("groups.%s", name)
		checkName(f, "group", name)
		if len(source.ClaimGroups) == 0 && len(source.Users) == 0 {
			f.Add("add claim_groups or users", "nobody can be in this group")
		}
		switch {
		case source.Provider != "":
			c.checkProvider(source.Provider, f.At("provider"))
			if len(source.ClaimGroups) == 0 && len(source.Users) > 0 {
				f.At("provider").Add("add claim_groups, or remove provider", "provider does nothing without claim_groups")
			}
		case len(source.ClaimGroups) > 0:
			f.At("provider").Add("name the provider", "claim_groups mean nothing without the provider that claims them")
		}
		if i := slices.Index(source.ClaimGroups, ""); i >= 0 {
			f.At("claim_groups[%d]", i).Add("remove it", "an empty group name")
		}
		c.groups[name] = &group{
			name: name, provider: source.Provider,
			claims: slices.Compact(slices.Sorted(slices.Values(source.ClaimGroups))),
			users:  c.people(source.Users, f.At("users")),
		}
	}
}

func (c *compiler) people(users []string, f access.Faults) people {
	set := make(people, len(users))
	for i, user := range users {
		provider, subject, ok := strings.Cut(user, ":")
		if !ok || provider == "" || subject == "" {
			f.At("[%d]", i).Add("write PROVIDER:SUB, such as corp:8f1c2d", "%q is not PROVIDER:SUB", user)
			continue
		}
		c.checkProvider(provider, f.At("[%d]", i))
		set[person{provider, subject}] = struct{}{}
	}
	return set
}

func (c *compiler) checkProvider(id string, f access.Faults) {
	if !slices.Contains(c.in.Providers, id) {
		f.Add(didYouMean(id, c.in.Providers), "unknown provider %q", id)
	}
}

// checkRequire reports faults of a `require` and returns its parts.
func (c *compiler) checkRequire(r access.Require, f access.Faults) (*profile, access.LoginRequire) {
	device := c.profiles[r.Device]
	if r.Device != "" && device == nil {
		f.At("device").Add(didYouMean(r.Device, keys(c.profiles)), "unknown device profile or tier %q", r.Device)
	}
	login := f.At("login")
	if i := slices.Index(r.Login.ACR, ""); i >= 0 {
		login.At("acr[%d]", i).Add("remove it", "an empty value")
	}
	if i := slices.Index(r.Login.AMR, ""); i >= 0 {
		login.At("amr[%d]", i).Add("remove it", "an empty value")
	}
	if r.Login.MaxAge < 0 {
		login.At("max_age").Add("write 15m", "a negative duration")
	}
	return device, r.Login
}

// name is what a route id, a rule, a group or a profile may be called: it goes
// into logs, metrics and headers as it is.
var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func checkName(f access.Faults, kind, s string) {
	switch {
	case s == "":
		f.Add("choose a short name", "the %s has no name", kind)
	case !name.MatchString(s):
		f.Add("use letters, digits, dots, dashes and underscores", "%q is no name for a %s", s, kind)
	}
}

// webPage reports whether s is an address a visitor can be sent to.
func webPage(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

// knows reports whether someone vouches for the person whom the policy trusts to.
func (p *Policy) knows(id *access.Identity) bool {
	if id.Nobody() {
		return false
	}
	_, ok := p.providers[id.Provider]
	return ok
}
