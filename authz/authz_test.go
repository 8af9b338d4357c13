package authz

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// noon is a Wednesday.
var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// billing is the policy most tests decide with.
func billing() Input {
	return Input{
		Version:   "v1",
		Providers: []string{"corp", "partners"},
		Groups: map[string]access.Group{
			"engineers": {Provider: "corp", ClaimGroups: []string{"sre", "eng"}},
			"oncall":    {Users: []string{"corp:8f1c2d", "partners:x:y"}},
			"finance":   {Provider: "corp", ClaimGroups: []string{"fin"}},
		},
		Devices: access.DevicePolicy{
			Profiles: map[string]access.Profile{
				"managed": {All: []string{"known", "compliant"}},
				"healthy": {All: []string{"managed", "disk_encrypted"}, MinOS: map[string]string{"macos": "15.5"}, Fix: "https://it.example.com/fix"},
			},
		},
		Defaults: access.Defaults{Require: access.Require{Device: "managed"}},
		Routes: []access.Route{{
			ID:      "billing",
			Require: access.Require{Device: "healthy", Login: access.LoginRequire{ACR: []string{"phr"}, MaxAge: access.Duration(15 * time.Minute)}},
			Allow: []access.Rule{
				{Name: "engineers-read", Groups: []string{"engineers"}, Methods: []string{"GET", "HEAD"}, Paths: []string{"/**"}},
				{Name: "oncall", Groups: []string{"oncall"}, Time: access.TimeWindow{Days: "mon-fri", Hours: "08:00-18:00", Zone: "Europe/Berlin"}},
			},
			Deny: []access.Rule{
				{Name: "no-deletes-from-abroad", Methods: []string{"DELETE"}, Networks: []string{"203.0.113.0/24"}, Message: "Not from there."},
				{Name: "no-secrets", Mode: access.Report, Paths: []string{"/secrets/**"}},
			},
			Rules:  []access.Stricter{{Paths: []string{"/export/**"}, Require: access.Require{Login: access.LoginRequire{MaxAge: access.Duration(5 * time.Minute)}}}},
			Public: []access.Public{{Name: "health", Methods: []string{"GET"}, Paths: []string{"/health"}}},
		}},
	}
}

// good is a request that billing allows.
func good() *access.Request {
	return &access.Request{
		ID: "r1", Time: noon, Method: "GET", Scheme: "https", Host: "billing.example.com", Path: "/invoices/7", Route: "billing",
		Network: access.Network{IP: netip.MustParseAddr("10.1.2.3")},
		Identity: access.Identity{
			Provider: "corp", Issuer: "https://login.example.com", Subject: "alice", Email: "alice@example.com",
			Groups: []string{"all", "eng"}, Claims: map[string]any{"department": "R&D"},
			Login: access.Login{Time: noon.Add(-2 * time.Minute), ACR: "phrh", AMR: []string{"hwk"}},
		},
		Session: access.Session{ID: "s1", Created: noon.Add(-time.Hour), Expires: noon.Add(time.Hour)},
		Device:  goodDevice(),
	}
}

func goodDevice() access.Device {
	return access.Device{
		ID: "laptop-1", Source: "inventory", Known: access.Yes, Managed: access.Yes, Compliant: access.Yes,
		DiskEncrypted: access.Yes, Jailbroken: access.No, Owned: access.Yes, ByCertificate: access.Yes, ByClaim: access.Yes, Risk: access.RiskLow, OS: "macos", OSVersion: "15.5", SeenAt: noon.Add(-time.Hour),
	}
}

func compile(t testing.TB, in Input) *Policy {
	t.Helper()
	p, faults := Compile(in)
	for _, f := range faults {
		t.Errorf("%s: %s (%s)", f.Path, f.Text, f.Cure)
	}
	if p == nil {
		t.FailNow()
	}
	return p
}

// with changes a copy of the good request.
func with(change func(*access.Request)) *access.Request {
	req := good()
	change(req)
	return req
}

// A preflight passes on a route that says so, unless it brings credentials or a
// token that is not accepted; nothing else does.
func TestPreflight(t *testing.T) {
	in := billing()
	ask := func(r *access.Request) { r.Method, r.Preflight, r.Identity = "OPTIONS", true, access.Identity{} }
	if d := compile(t, in).Decide(with(ask)); d.Reason != access.LoginRequired {
		t.Errorf("a route that does not say so: %+v", d)
	}
	in.Routes[0].Preflight = true
	p := compile(t, in)
	in.Routes[0].Preflight, in.Routes[0].CORS.Origins = false, []string{"https://spa.example"}
	want := access.Decision{Outcome: access.Allow, Reason: access.PublicRoute, Rule: "preflight", Policy: "v1"}
	if d := compile(t, in).Decide(with(ask)); !reflect.DeepEqual(d, want) {
		t.Errorf("with cors: %+v", d)
	}
	if d, tree := p.Explain(with(ask)); !reflect.DeepEqual(d, want) || tree.Rules[1].Rule != "preflight" || tree.Rules[1].Result != Hit {
		t.Errorf("got %+v", d)
	}
	for name, change := range map[string]func(*access.Request){
		"another request": func(r *access.Request) { r.Preflight = false },
		"a bad token":     func(r *access.Request) { r.Credential.Problem = access.TokenExpired },
		"a fault":         func(r *access.Request) { r.Fault = access.StoreUnavailable },
		"an old login":    func(r *access.Request) { r.Identity = good().Identity; r.Identity.Login.Time = noon.Add(-time.Hour) },
	} {
		if d := p.Decide(with(func(r *access.Request) { ask(r); change(r) })); d.Outcome == access.Allow {
			t.Errorf("%s: %+v", name, d)
		}
	}
	// The record of a preflight decides again to the same.
	data, err := json.Marshal(with(ask))
	var back access.Request
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if d := p.Decide(&back); err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("read back: %v %+v", err, d)
	}
}

func reasons(needs []access.Need) string {
	var list []string
	for _, n := range needs {
		list = append(list, string(n.Reason))
	}
	return strings.Join(list, " ")
}

func TestDecide(t *testing.T) {
	p := compile(t, billing())
	tests := []struct {
		name    string
		change  func(*access.Request)
		outcome access.Outcome
		reason  access.Reason
		rule    string
		needs   string
	}{
		{name: "allowed", change: func(*access.Request) {}, outcome: access.Allow, reason: access.Allowed, rule: "allow/engineers-read"},
		{name: "a fault is never allowed, not even on a public path", change: func(r *access.Request) { r.Fault, r.Path = access.StoreUnavailable, "/health" },
			reason: access.StoreUnavailable},
		{name: "no route", change: func(r *access.Request) { r.Route = "" }, reason: access.NoRoute},
		{name: "public without login", change: func(r *access.Request) { r.Identity, r.Path = access.Identity{}, "/health" },
			outcome: access.Allow, reason: access.PublicRoute, rule: "public/health"},
		{name: "public is exact about the method", change: func(r *access.Request) { r.Identity, r.Path, r.Method = access.Identity{}, "/health", "POST" },
			outcome: access.Challenge, reason: access.LoginRequired, needs: "login_required"},
		{name: "nobody", change: func(r *access.Request) { r.Identity = access.Identity{} }, outcome: access.Challenge, reason: access.LoginRequired, needs: "login_required"},
		{name: "an identity of a provider that is not configured is nobody", change: func(r *access.Request) { r.Identity.Provider = "removed" },
			outcome: access.Challenge, reason: access.LoginRequired, needs: "login_required"},
		{name: "deny beats allow", change: func(r *access.Request) { r.Method, r.Network.IP = "DELETE", netip.MustParseAddr("203.0.113.9") },
			reason: access.DeniedByRule, rule: "deny/no-deletes-from-abroad"},
		{name: "deny sees through mapped addresses", change: func(r *access.Request) { r.Method, r.Network.IP = "DELETE", netip.MustParseAddr("::ffff:203.0.113.9") },
			reason: access.DeniedByRule, rule: "deny/no-deletes-from-abroad"},
		{name: "deny on an address that is not known", change: func(r *access.Request) { r.Method, r.Network.IP = "DELETE", netip.Addr{} },
			reason: access.DeniedByRule, rule: "deny/no-deletes-from-abroad"},
		{name: "same group name of another provider", change: func(r *access.Request) { r.Identity.Provider = "partners" }, reason: access.NotAllowed},
		{name: "wrong method", change: func(r *access.Request) { r.Method = "POST" }, reason: access.NotAllowed},
		{name: "withheld groups are not absent groups", change: func(r *access.Request) { r.Identity.Groups, r.Identity.GroupsIncomplete = nil, true }, reason: access.GroupsUnknown},
		{name: "withheld groups do not excuse a wrong method", change: func(r *access.Request) {
			r.Identity.Groups, r.Identity.GroupsIncomplete, r.Method = nil, true, "POST"
		}, reason: access.NotAllowed},
		{name: "a subject may contain colons", change: func(r *access.Request) { r.Identity.Provider, r.Identity.Subject = "partners", "x:y" },
			outcome: access.Allow, reason: access.Allowed, rule: "allow/oncall"},
		{name: "device before login", change: func(r *access.Request) { r.Device.DiskEncrypted, r.Identity.Login.ACR = access.No, "" },
			outcome: access.Challenge, reason: access.DeviceNotEncrypted, needs: "device_not_encrypted acr_insufficient"},
		{name: "no device is one need", change: func(r *access.Request) { r.Device = access.Device{} }, outcome: access.Challenge, reason: access.DeviceMissing, needs: "device_missing"},
		{name: "stricter path", change: func(r *access.Request) { r.Path, r.Identity.Login.Time = "/export", noon.Add(-6*time.Minute) },
			outcome: access.Challenge, reason: access.LoginTooOld, needs: "login_too_old"},
		{name: "not stricter elsewhere", change: func(r *access.Request) { r.Identity.Login.Time = noon.Add(-6 * time.Minute) },
			outcome: access.Allow, reason: access.Allowed, rule: "allow/engineers-read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := with(tt.change)
			d := p.Decide(req)
			if d.Outcome != tt.outcome || d.Reason != tt.reason || d.Rule != tt.rule || reasons(d.Needs) != tt.needs || d.Policy != "v1" {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func TestZeroValuesDeny(t *testing.T) {
	var zero *Policy
	for name, d := range map[string]access.Decision{
		"nil policy":   zero.Decide(good()),
		"zero policy":  new(Policy).Decide(good()),
		"nil request":  compile(t, billing()).Decide(nil),
		"zero request": compile(t, billing()).Decide(&access.Request{}),
	} {
		if d.Outcome != access.Deny || d.Reason == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if (&rule{}).test(good(), nil) != access.Unknown {
		t.Error("a rule without conditions must be unknown")
	}
}

// A stranger is asked to log in and no more: whether a stronger login is worth
// anyone's while shows when it is known who they are and on which device.
func TestStepUpComesLast(t *testing.T) {
	p := compile(t, billing())
	d := p.Decide(with(func(r *access.Request) { r.Identity, r.Path = access.Identity{}, "/export/all" }))
	if ask, ok := d.LoginOnly(); !ok || !ask.IsZero() {
		t.Errorf("ask %+v, %v", ask, ok)
	}
	d = p.Decide(with(func(r *access.Request) { r.Path, r.Identity.Login = "/export/all", access.Login{} }))
	if ask, ok := d.LoginOnly(); !ok || !slices.Equal(ask.ACR, []string{"phr"}) || ask.MaxAge.Std() != 5*time.Minute {
		t.Errorf("one login must satisfy everything: %+v, %v", ask, ok)
	}
	// A login that is only too old is asked for the class as well.
	d = p.Decide(with(func(r *access.Request) { r.Identity.Login.Time = time.Time{} }))
	if ask, ok := d.LoginOnly(); !ok || d.Reason != access.LoginTooOld || !slices.Equal(ask.ACR, []string{"phr"}) {
		t.Errorf("got %+v", d)
	}
}

func TestNearest(t *testing.T) {
	d := compile(t, billing()).Decide(with(func(r *access.Request) { r.Identity.Groups = []string{"sales"} }))
	want := access.Miss{Condition: "groups", Want: "engineers", Got: "sales"}
	if d.Nearest == nil || d.Nearest.Rule != "allow/engineers-read" || !slices.Equal(d.Nearest.Missing, []access.Miss{want}) {
		t.Errorf("got %+v", d.Nearest)
	}
}

// What cannot be checked names the inventory that fails, with nothing of what the
// one that answers said.
func TestNeedNamesTheInventoryThatFails(t *testing.T) {
	d := compile(t, billing()).Decide(with(func(r *access.Request) {
		r.Device.Source, r.Device.SourceFailing, r.Device.SourceFailingSince = "mdm", "edr", r.Time.Add(-time.Hour)
	}))
	if len(d.Needs) != 1 || d.Needs[0].Reason != access.DeviceSourceUnavailable || d.Needs[0].Source != "edr" ||
		!d.Needs[0].Since.IsZero() || !d.Needs[0].Read.IsZero() {
		t.Errorf("got %+v", d.Needs)
	}
}

func TestShadowListsOnlyWhatDiffers(t *testing.T) {
	in := billing()
	in.Routes[0].Allow = append(in.Routes[0].Allow, access.Rule{Name: "trial", Mode: access.Report, Providers: []string{"corp"}})
	p := compile(t, in)
	secret := func(r *access.Request) { r.Path = "/secrets/1" }
	tests := []struct {
		name   string
		change func(*access.Request)
		want   []access.Shadow
	}{
		{"nothing", func(*access.Request) {}, nil},
		{"would deny", secret, []access.Shadow{{Rule: "deny/no-secrets", Outcome: access.Deny, Reason: access.DeniedByRule}}},
		{"nobody gets that far", func(r *access.Request) { secret(r); r.Identity = access.Identity{} }, nil},
		{"would allow", func(r *access.Request) { r.Identity.Groups = nil }, []access.Shadow{{Rule: "allow/trial", Outcome: access.Allow, Reason: access.Allowed}}},
		{"would challenge", func(r *access.Request) { r.Identity.Groups, r.Device = nil, access.Device{} },
			[]access.Shadow{{Rule: "allow/trial", Outcome: access.Challenge, Reason: access.DeviceMissing}}},
		{"a report deny does not change a deny", func(r *access.Request) { secret(r); r.Identity.Provider, r.Identity.Groups = "partners", nil }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.Decide(with(tt.change)).Shadow; !slices.Equal(got, tt.want) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestLoginRequirement(t *testing.T) {
	minute := access.Duration(time.Minute)
	tests := []struct {
		name  string
		ask   access.LoginRequire
		login access.Login
		want  string
	}{
		{"nothing asked", access.LoginRequire{}, access.Login{}, ""},
		{"phr by phr", access.LoginRequire{ACR: []string{"phr"}}, access.Login{ACR: "phr"}, ""},
		{"phr by phrh", access.LoginRequire{ACR: []string{"phr"}}, access.Login{ACR: "phrh"}, ""},
		{"phrh not by phr", access.LoginRequire{ACR: []string{"phrh"}}, access.Login{ACR: "phr"}, "acr_insufficient"},
		{"no acr", access.LoginRequire{ACR: []string{"phr"}}, access.Login{}, "acr_insufficient"},
		{"one amr suffices", access.LoginRequire{AMR: []string{"mfa", "hwk"}}, access.Login{AMR: []string{"hwk", "pwd"}}, ""},
		{"no amr", access.LoginRequire{AMR: []string{"mfa"}}, access.Login{AMR: []string{"pwd"}}, "amr_insufficient"},
		{"fresh", access.LoginRequire{MaxAge: minute}, access.Login{Time: noon.Add(-time.Minute)}, ""},
		{"old", access.LoginRequire{MaxAge: minute}, access.Login{Time: noon.Add(-time.Minute - 1)}, "login_too_old"},
		{"time not known", access.LoginRequire{MaxAge: minute}, access.Login{}, "login_too_old"},
		{"clock a little ahead", access.LoginRequire{MaxAge: minute}, access.Login{Time: noon.Add(time.Minute)}, ""},
		{"in the future", access.LoginRequire{MaxAge: minute}, access.Login{Time: noon.Add(time.Minute + 1)}, "login_too_old"},
		{"everything", access.LoginRequire{ACR: []string{"phr"}, AMR: []string{"mfa"}, MaxAge: minute}, access.Login{}, "acr_insufficient amr_insufficient login_too_old"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := billing()
			in.Defaults, in.Routes[0].Rules, in.Routes[0].Require = access.Defaults{}, nil, access.Require{Login: tt.ask}
			d := compile(t, in).Decide(with(func(r *access.Request) { r.Identity.Login = tt.login }))
			if reasons(d.Needs) != tt.want {
				t.Errorf("needs %q, want %q", reasons(d.Needs), tt.want)
			}
		})
	}
}

func TestDefaultsHoldUnlessExcepted(t *testing.T) {
	in := billing()
	in.Routes[0].Require, in.Routes[0].Rules = access.Require{}, nil
	bare := with(func(r *access.Request) { r.Device = access.Device{} })
	if d := compile(t, in).Decide(bare); d.Reason != access.DeviceMissing {
		t.Errorf("default not applied: %+v", d)
	}
	in.Routes[0].Exceptions.Device = "kiosks have no inventory yet, ticket 42"
	if d := compile(t, in).Decide(bare); d.Outcome != access.Allow {
		t.Errorf("exception not applied: %+v", d)
	}
	// An exception lifts the default, never what the route itself requires.
	in.Routes[0].Require.Device = "healthy"
	if d := compile(t, in).Decide(bare); d.Reason != access.DeviceMissing {
		t.Errorf("exception lifted too much: %+v", d)
	}
}

func TestGroupsOfARoute(t *testing.T) {
	in := billing()
	in.Routes[0].Deny = append(in.Routes[0].Deny, access.Rule{Name: "not-finance", Groups: []string{"finance"}, Methods: []string{"PUT"}})
	p := compile(t, in)
	id := good().Identity
	id.Subject, id.Groups = "8f1c2d", []string{"eng", "unrelated"}
	if got := p.Groups("billing", &id); !slices.Equal(got, []string{"engineers", "oncall"}) {
		t.Errorf("got %v", got)
	}
	if got := p.Groups("elsewhere", &id); got != nil {
		t.Errorf("unknown route: %v", got)
	}
	if got := p.Groups("billing", &access.Identity{Groups: []string{"eng"}}); got != nil {
		t.Errorf("nobody: %v", got)
	}
}
