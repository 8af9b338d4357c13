package authz

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func TestExpressions(t *testing.T) {
	req := good()
	req.Query = "tag=a&tag=b&q=x+y"
	req.Network.IP = netip.MustParseAddr("::ffff:10.1.2.3")
	req.Identity.Claims = map[string]any{
		"department": "R&D", "level": 3.0, "exact": json.Number("7"), "roles": []any{"admin", "dev"}, "nested": map[string]any{"a": true},
	}
	tests := []struct {
		source string
		want   access.Tri
	}{
		{"request.method == 'GET' && request.path.startsWith('/invoices/')", access.Yes},
		{"request.host == 'billing.example.com' && request.scheme == 'https'", access.Yes},
		{"request.query['tag'] == ['a', 'b'] && request.query.q[0] == 'x y'", access.Yes},
		{"'tag' in request.query", access.Yes},
		{"request.query.missing[0] == ''", access.Unknown},
		{"request.time.getHours('Europe/Berlin') == 14", access.Yes},
		{"user.id == 'corp:alice' && user.provider == 'corp' && user.sub == 'alice'", access.Yes},
		{"'eng' in user.groups && !('sales' in user.groups)", access.Yes},
		{"user.email_verified", access.No},
		{"claims.department == 'R&D'", access.Yes},
		{"claims.level >= 3 && claims.exact == 7", access.Yes},
		{"'admin' in claims.roles", access.Yes},
		{"claims.nested.a", access.Unknown}, // refused at load: dyn
		{"claims.nested.a == true", access.Yes},
		{"claims.missing == 'x'", access.Unknown},
		{"has(claims.missing) && claims.missing == 'x'", access.No},
		{"login.acr == 'phrh' && 'hwk' in login.amr && request.time - login.time < duration('5m')", access.Yes},
		{"device.compliant == 'yes' && device.os == 'macos' && device.jailbroken == 'no' && device.risk == 'low'", access.Yes},
		{"request.time - device.seen_at <= duration('1h')", access.Yes},
		{"in_cidr(network.ip, '10.0.0.0/8')", access.Yes},
		{"in_cidr(network.ip, '192.168.0.0/16')", access.No},
		{"network.ip == '10.1.2.3'", access.Yes},
		{"session.expires > request.time && session.created < request.time", access.Yes},
		{"1 / 0 == 1", access.Unknown},
	}
	env, err := newCELEnv()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		e, err := compileCEL(env, tt.source)
		if err != nil {
			if tt.source != "claims.nested.a" {
				t.Errorf("%s: %v", tt.source, err)
			}
			continue
		}
		if got := (expects{e, true}).test(req); got != tt.want {
			_, why := e.eval(req)
			t.Errorf("%s: %v (%v)", tt.source, got, why)
		}
		mirrored := map[access.Tri]access.Tri{access.Yes: access.No, access.No: access.Yes}[tt.want]
		if got := (expects{e, false}).test(req); got != mirrored {
			t.Errorf("unless %s: %v", tt.source, got)
		}
	}
}

// TestExpressionErrorsRefuse holds both directions: an error does not allow, and
// it does deny.
func TestExpressionErrorsRefuse(t *testing.T) {
	in := billing()
	in.Routes[0].Allow = []access.Rule{{Name: "a", AnyUser: true, When: "claims.level > 3"}}
	if d := compile(t, in).Decide(good()); d.Reason != access.NotAllowed || !d.Nearest.Missing[0].Unknown {
		t.Errorf("allow: %+v", d)
	}
	for _, rule := range []access.Rule{{Name: "d", When: "claims.level > 3"}, {Name: "d", Unless: "claims.level > 3"}} {
		in := billing()
		in.Routes[0].Deny = []access.Rule{rule}
		if d := compile(t, in).Decide(good()); d.Reason != access.DeniedByRule {
			t.Errorf("deny: %+v", d)
		}
	}
}

func TestMalformedQueryIsUnknown(t *testing.T) {
	env, _ := newCELEnv()
	e, err := compileCEL(env, "!('admin' in request.query)")
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"%zz", "a;admin=1", "admin=%"} {
		if got := (expects{e, true}).test(with(func(r *access.Request) { r.Query = query })); got != access.Unknown {
			t.Errorf("%q: %v", query, got)
		}
	}
	// An expression that does not look at the query does not mind.
	e, err = compileCEL(env, "request.method == 'GET'")
	if err != nil {
		t.Fatal(err)
	}
	if got := (expects{e, true}).test(with(func(r *access.Request) { r.Query = "%zz" })); got != access.Yes {
		t.Errorf("got %v", got)
	}
}

func TestExpressionCostIsLimited(t *testing.T) {
	env, _ := newCELEnv()
	e, err := compileCEL(env, "user.groups.all(a, user.groups.all(b, user.groups.all(c, a + b + c != '')))")
	if err != nil {
		t.Fatal(err)
	}
	req := good()
	req.Identity.Groups = strings.Split(strings.Repeat("g ", 500), " ")
	if got := (expects{e, true}).test(req); got != access.Unknown {
		t.Errorf("got %v", got)
	}
	if _, err := e.eval(req); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("got %v", err)
	}
	if _, err := compileCEL(env, "true"+strings.Repeat(" || true", 2000)); err == nil {
		t.Error("an endless expression was accepted")
	}
}

func TestAddressThatIsNotKnownIsUnknownToExpressions(t *testing.T) {
	env, _ := newCELEnv()
	e, err := compileCEL(env, "in_cidr(network.ip, '0.0.0.0/0')")
	if err != nil {
		t.Fatal(err)
	}
	if got := (expects{e, false}).test(with(func(r *access.Request) { r.Network = access.Network{} })); got != access.Unknown {
		t.Errorf("got %v", got)
	}
}

func FuzzCEL(f *testing.F) {
	f.Add("user.email == 'a'")
	f.Add("in_cidr(network.ip, '10.0.0.0/8')")
	f.Add("claims.a.b[0] in user.groups || request.query.x.exists(v, v.matches('^a+$'))")
	f.Add("usr.")
	f.Add("((((((")
	f.Add("'\xff' == \"\\u0000\"")
	env, err := newCELEnv()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, source string) {
		e, err := compileCEL(env, source)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			return
		}
		for _, req := range []*access.Request{good(), {}} {
			answer, why := e.eval(req)
			if why != nil && answer {
				t.Errorf("%q is true and fails", source)
			}
		}
	})
}

// A provider that withholds groups must not help anybody past a rule that asks
// for one in CEL, as it does not for one under `groups`.
func TestWithheldGroupsAreUnknownToExpressions(t *testing.T) {
	withheld := with(func(r *access.Request) { r.Identity.Groups, r.Identity.GroupsIncomplete = nil, true })
	in := billing()
	in.Routes[0].Deny = []access.Rule{{Name: "contractors", When: "'contractors' in user.groups"}}
	if d := compile(t, in).Decide(withheld); d.Reason != access.DeniedByRule {
		t.Errorf("deny: %+v", d)
	}
	in = billing()
	in.Routes[0].Allow = []access.Rule{{Name: "staff", AnyUser: true, Unless: "'contractors' in user.groups"}}
	if d := compile(t, in).Decide(withheld); d.Outcome != access.Deny {
		t.Errorf("allow: %+v", d)
	}
}

// Any value can be made to look like a token, and the upstream gets it whole.
func TestHiddenQueryIsUnknownToExpressions(t *testing.T) {
	hidden := with(func(r *access.Request) { r.Query = "action=" + access.HiddenValue })
	in := billing()
	in.Routes[0].Deny = []access.Rule{{Name: "drops", When: "'action' in request.query && request.query.action.exists(a, a.contains('drop'))"}}
	if d := compile(t, in).Decide(hidden); d.Reason != access.DeniedByRule {
		t.Errorf("%+v", d)
	}
}

// What an inventory said long ago counts no more in CEL than in a profile,
// whichever way the rule turns.
func TestStaleDeviceFactsAreUnknownToExpressions(t *testing.T) {
	for name, stale := range map[string]func(*access.Device){
		"not seen":  func(d *access.Device) { d.SeenAt = noon.AddDate(0, -1, 0) },
		"inventory": func(d *access.Device) { d.SourceFailingSince = noon.AddDate(0, -1, 0) },
	} {
		req := with(func(r *access.Request) { stale(&r.Device) })
		in := billing()
		in.Routes[0].Require, in.Defaults.Require = access.Require{}, access.Require{}
		in.Routes[0].Rules, in.Routes[0].Exceptions = nil, access.Exceptions{}
		in.Routes[0].Allow = []access.Rule{{Name: "healthy", AnyUser: true, When: "device.compliant == 'yes'"}}
		if d := compile(t, in).Decide(req); d.Reason != access.NotAllowed {
			t.Errorf("%s, allow: %+v", name, d)
		}
		in.Routes[0].Deny = []access.Rule{{Name: "jailbroken", When: "device.jailbroken == 'yes'"}}
		in.Routes[0].Allow[0].When = ""
		if d := compile(t, in).Decide(req); d.Reason != access.DeniedByRule {
			t.Errorf("%s, deny: %+v", name, d)
		}
	}
}
