package authz

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// The machines of the small random world.
var (
	worldAccounts = []string{"ci/runner", "ci/other", "prod/runner"}
	worldSPIFFE   = []string{"spiffe://prod.example", "spiffe://prod.example/ns", "spiffe://prod.example/ns/a", "spiffe://prod.example/nsx", "spiffe://other.example/ns/a"}
	worldScopes   = []string{"read", "write", "admin"}
	worldClients  = []string{"corp:c1", "corp:c2", "partners:c1"}
)

func drawMachines(t *rapid.T, r *access.Rule) {
	if rapid.IntRange(0, 9).Draw(t, "machines") < 8 {
		return // mostly about people
	}
	if r.ServiceAccounts = drawSome(t, "service accounts", worldAccounts, 2); r.ServiceAccounts != nil && r.Providers == nil {
		r.Providers = []string{"corp"}
	}
	if below := rapid.Bool().Draw(t, "below"); below {
		r.SPIFFE = drawSome(t, "spiffe", []string{"spiffe://prod.example/**", "spiffe://prod.example/ns/**"}, 2)
	} else {
		r.SPIFFE = drawSome(t, "spiffe", worldSPIFFE, 2)
	}
	r.ClientIDs = drawSome(t, "client ids", worldClients, 2)
	r.Scopes = drawSome(t, "scopes", worldScopes, 2)
}

func drawWorkload(t *rapid.T, id *access.Identity) {
	id.Kind = rapid.SampledFrom([]access.Kind{access.Person, access.Person, access.Person, access.Service}).Draw(t, "kind")
	id.Scopes = drawSome(t, "token scopes", worldScopes, 2)
	id.ClientID = rapid.SampledFrom([]string{"", "c1", "c2"}).Draw(t, "client")
	id.ServiceAccount = rapid.SampledFrom(append(worldAccounts, "")).Draw(t, "account")
	id.SPIFFE = rapid.SampledFrom(append(worldSPIFFE, "")).Draw(t, "workload")
}

// mayName says whether an allow rule may be meant for the kind of identity.
func (reference) mayName(r access.Rule, id *access.Identity) bool {
	switch {
	case id.Kind == access.Person:
		return true
	case r.AnyUser:
		return false
	}
	return r.ServiceAccounts != nil || r.SPIFFE != nil || r.ClientIDs != nil || r.Scopes != nil
}

func referenceMachine(r access.Rule, id *access.Identity) (answers []access.Tri) {
	if r.ServiceAccounts != nil {
		answers = append(answers, access.TriOf(slices.Contains(r.ServiceAccounts, id.ServiceAccount)))
	}
	if r.SPIFFE != nil {
		answers = append(answers, access.TriOf(slices.ContainsFunc(r.SPIFFE, func(want string) bool {
			if strings.HasSuffix(want, "**") {
				return strings.HasPrefix(id.SPIFFE, strings.TrimSuffix(want, "**"))
			}
			return id.SPIFFE == want
		})))
	}
	if r.ClientIDs != nil {
		answers = append(answers, access.TriOf(slices.Contains(r.ClientIDs, id.Provider+":"+id.ClientID)))
	}
	if r.Scopes != nil {
		answers = append(answers, access.TriOf(slices.ContainsFunc(r.Scopes, func(s string) bool { return slices.Contains(id.Scopes, s) })))
	}
	return answers
}

func machinePolicy(t *testing.T, rule access.Rule) *Policy {
	t.Helper()
	rule.Name = "rule"
	p, faults := Compile(Input{
		Providers: []string{"corp", "ci"}, Groups: map[string]access.Group{"eng": {Provider: "corp", ClaimGroups: []string{"eng"}}},
		Routes: []access.Route{{ID: "r", Allow: []access.Rule{rule}}},
	})
	if faults != nil {
		t.Fatal(faults)
	}
	return p
}

// A machine gets in only where a rule names it as one.
func TestMachinesAreNotPeople(t *testing.T) {
	person := access.Identity{Provider: "corp", Issuer: "https://corp.test", Subject: "x", Groups: []string{"eng"}, Claims: map[string]any{"team": "a"}}
	machine := person
	machine.Kind = access.Service
	machine.Workload = access.Workload{ClientID: "batch", Scopes: []string{"orders.read"}, ServiceAccount: "ci/runner", SPIFFE: "spiffe://prod.example/billing"}
	for name, c := range map[string]struct {
		rule            access.Rule
		person, machine bool
	}{
		"any user":          {access.Rule{AnyUser: true}, true, false},
		"groups":            {access.Rule{Groups: []string{"eng"}}, true, false},
		"users":             {access.Rule{Users: []string{"corp:x"}}, true, false},
		"providers":         {access.Rule{Providers: []string{"corp"}}, true, false},
		"claims":            {access.Rule{Claims: map[string][]string{"team": {"a"}}}, true, false},
		"service account":   {access.Rule{ServiceAccounts: []string{"ci/runner"}, Providers: []string{"corp"}}, false, true},
		"other cluster":     {access.Rule{ServiceAccounts: []string{"ci/runner"}, Providers: []string{"ci"}}, false, false},
		"other account":     {access.Rule{ServiceAccounts: []string{"ci/run"}, Providers: []string{"corp"}}, false, false},
		"workload":          {access.Rule{SPIFFE: []string{"spiffe://prod.example/billing"}}, false, true},
		"workloads below":   {access.Rule{SPIFFE: []string{"spiffe://prod.example/**"}}, false, true},
		"not a prefix":      {access.Rule{SPIFFE: []string{"spiffe://prod.example/bill/**"}}, false, false},
		"client":            {access.Rule{ClientIDs: []string{"corp:batch"}}, false, true},
		"client of another": {access.Rule{ClientIDs: []string{"ci:batch"}}, false, false},
		"one of the scopes": {access.Rule{Scopes: []string{"orders.write", "orders.read"}}, false, true},
		"scope and group":   {access.Rule{Scopes: []string{"orders.read"}, Groups: []string{"eng"}}, false, true},
		"people with scope": {access.Rule{Scopes: []string{"orders.read"}, AnyUser: true}, false, false},
		"expression": {access.Rule{Scopes: []string{"orders.read"},
			When: "token.client_id == 'batch' && 'orders.read' in token.scopes && token.service_account != '' && token.spiffe.startsWith('spiffe://')"}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := machinePolicy(t, c.rule)
			for _, who := range []struct {
				id   access.Identity
				want bool
			}{{person, c.person}, {machine, c.machine}} {
				d, tree := p.Explain(&access.Request{Route: "r", Method: "GET", Path: "/", Time: noon, Identity: who.id})
				if (d.Outcome == access.Allow) != who.want {
					t.Errorf("%q: %v; %+v", who.id.Kind, d, tree.Change)
				}
			}
		})
	}
	req := &access.Request{Route: "r", Method: "GET", Path: "/", Time: noon, Identity: machine}
	p := machinePolicy(t, access.Rule{Scopes: []string{"a", "orders.read"}, ClientIDs: []string{"corp:batch"}, SPIFFE: []string{"spiffe://prod.example/**"},
		ServiceAccounts: []string{"ci/runner"}, Providers: []string{"corp"}})
	if n := testing.AllocsPerRun(100, func() { p.Decide(req) }); n > 0 {
		t.Errorf("%v allocations to allow a machine", n)
	}
	_, tree := machinePolicy(t, access.Rule{AnyUser: true}).Explain(req)
	if got := tree.Change[0].String(); !strings.Contains(got, "want any person who is logged in, got a service") {
		t.Error(got)
	}
}

// A token that is not accepted is refused for what is wrong with it; only
// public rules do not care.
func TestBadTokenHasItsOwnReason(t *testing.T) {
	p, faults := Compile(Input{Providers: []string{"corp"}, Routes: []access.Route{{ID: "r",
		Allow:  []access.Rule{{Name: "all", AnyUser: true}},
		Public: []access.Public{{Name: "health", Methods: []string{"GET"}, Paths: []string{"/health"}}}}}})
	if faults != nil {
		t.Fatal(faults)
	}
	req := &access.Request{Route: "r", Method: "GET", Path: "/", Time: noon, Credential: access.Credential{Scheme: "Bearer", Problem: access.TokenExpired}}
	if d := p.Decide(req); d.Outcome != access.Deny || d.Reason != access.TokenExpired {
		t.Error(d)
	}
	// Should somebody still have filled in an identity, it does not count.
	req.Identity = access.Identity{Provider: "corp", Issuer: "https://corp.test", Subject: "x"}
	if d := p.Decide(req); d.Outcome != access.Deny || d.Reason != access.TokenExpired {
		t.Error(d)
	}
	req.Path = "/health"
	if d := p.Decide(req); d.Outcome != access.Allow {
		t.Error(d)
	}
}

func TestMachineFaults(t *testing.T) {
	for want, rule := range map[string]access.Rule{
		"every cluster may have":         {ServiceAccounts: []string{"ci/runner"}},
		`"runner" is no service account`: {ServiceAccounts: []string{"runner"}, Providers: []string{"ci"}},
		`"CI/x" is no service account`:   {ServiceAccounts: []string{"CI/x"}, Providers: []string{"ci"}},
		"is no SPIFFE ID":                {SPIFFE: []string{"spiffe://Prod/x"}},
		`"spiffe://a/*" is no`:           {SPIFFE: []string{"spiffe://a/*"}},
		`"https://a/x" is no`:            {SPIFFE: []string{"https://a/x"}},
		"is not PROVIDER:SUB":            {ClientIDs: []string{"batch"}},
		`unknown provider "corb"`:        {ClientIDs: []string{"corb:batch"}},
		`"a b" is not a scope`:           {Scopes: []string{"a b"}},
		"any_user is for people":         {AnyUser: true, SPIFFE: []string{"spiffe://a/x"}},
	} {
		rule.Name = "rule"
		_, faults := Compile(Input{Providers: []string{"corp", "ci"}, Routes: []access.Route{{ID: "r", Allow: []access.Rule{rule}}}})
		if !slices.ContainsFunc(faults, func(f access.Fault) bool { return strings.Contains(f.Text, want) }) {
			t.Errorf("want %q: %+v", want, faults)
		}
	}
}

func TestSPIFFEIDs(t *testing.T) {
	for id, want := range map[string]bool{
		"spiffe://prod.example/a/b": true, "spiffe://prod": true, "spiffe://a_b-c.d/X.y": true,
		"": false, "spiffe://": false, "spiffe:///a": false, "SPIFFE://a/b": false, "spiffe://A/b": false, "spiffe://a:1/b": false,
		"spiffe://a/": false, "spiffe://a//b": false, "spiffe://a/../b": false, "spiffe://a/./b": false, "spiffe://a/b?c": false,
		"spiffe://a/b#c": false, "spiffe://u@a/b": false, "spiffe://a/%2e": false, "spiffe://a/b/": false,
	} {
		if access.IsSPIFFE(id) != want {
			t.Errorf("%q: want %v", id, want)
		}
	}
}
