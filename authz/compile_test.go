package authz

import (
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// TestFaults changes the good input in one way and expects one fault.
func TestFaults(t *testing.T) {
	route := func(change func(*access.Route)) func(*Input) {
		return func(in *Input) { change(&in.Routes[0]) }
	}
	allow := func(change func(*access.Rule)) func(*Input) {
		return func(in *Input) { change(&in.Routes[0].Allow[0]) }
	}
	deny := func(r access.Rule) func(*Input) {
		return route(func(rt *access.Route) { r.Name = "x"; rt.Deny = append(rt.Deny, r) })
	}
	profile := func(p access.Profile) func(*Input) {
		return func(in *Input) { in.Devices.Profiles["x"] = p }
	}
	window := func(w access.TimeWindow) func(*Input) { return allow(func(r *access.Rule) { r.Time = w }) }
	tests := []struct {
		name             string
		change           func(*Input)
		path, text, cure string // text and cure are parts
	}{
		{"unknown group", allow(func(r *access.Rule) { r.Groups = []string{"oncall", "enginers"} }), "routes[0].allow[0].groups[1]", `unknown group "enginers"`, `did you mean "engineers"?`},
		{"unknown group far from any", allow(func(r *access.Rule) { r.Groups = []string{"zzz"} }), "routes[0].allow[0].groups[0]", "unknown group", "known: engineers, finance, oncall"},
		{"unknown profile", route(func(r *access.Route) { r.Require.Device = "helathy" }), "routes[0].require.device", "unknown device profile", `"healthy"`},
		{"unknown default profile", func(in *Input) { in.Defaults.Require.Device = "manged" }, "defaults.require.device", "unknown device profile", `"managed"`},
		{"unknown profile of a stricter entry", route(func(r *access.Route) { r.Rules[0].Require.Device = "x" }), "routes[0].rules[0].require.device", "unknown device profile", "known"},
		{"stricter entry without demand", route(func(r *access.Route) { r.Rules[0].Require = access.Require{} }), "routes[0].rules[0].require", "requires nothing", ""},
		{"unknown provider of a rule", allow(func(r *access.Rule) { r.Providers = []string{"crop"} }), "routes[0].allow[0].providers[0]", `unknown provider "crop"`, `"corp"`},
		{"unknown provider of a route", route(func(r *access.Route) { r.Provider = "partner" }), "routes[0].provider", "unknown provider", `"partners"`},
		{"unknown provider of a user", allow(func(r *access.Rule) { r.Users = []string{"cor:1"} }), "routes[0].allow[0].users[0]", "unknown provider", `"corp"`},
		{"bare user", allow(func(r *access.Rule) { r.Users = []string{"alice"} }), "routes[0].allow[0].users[0]", "not PROVIDER:SUB", ""},
		{"user without subject", allow(func(r *access.Rule) { r.Users = []string{"corp:"} }), "routes[0].allow[0].users[0]", "not PROVIDER:SUB", ""},
		{"group user", func(in *Input) { in.Groups["x"] = access.Group{Users: []string{"@"}} }, "groups.x.users[0]", "not PROVIDER:SUB", ""},
		{"empty group", func(in *Input) { in.Groups["x"] = access.Group{} }, "groups.x", "nobody can be in", ""},
		{"claim groups of nobody", func(in *Input) { in.Groups["x"] = access.Group{ClaimGroups: []string{"a"}} }, "groups.x.provider", "without the provider", ""},
		{"group name for a header", func(in *Input) { in.Groups["a,b"] = access.Group{Users: []string{"corp:1"}} }, "groups.a,b", "no name", ""},
		{"duplicate route", func(in *Input) { in.Routes = append(in.Routes, in.Routes[0]) }, "routes[1].id", "taken by another route", ""},
		{"route without id", route(func(r *access.Route) { r.ID = "" }), "routes[0].id", "no name", ""},
		{"duplicate rule", allow(func(r *access.Rule) { r.Name = "oncall" }), "routes[0].allow[1].name", `"oncall" is taken`, ""},
		{"same name in deny", deny(access.Rule{}), "routes[0].deny[2]", "refuses everything", ""},
		{"deny for any user", deny(access.Rule{AnyUser: true}), "routes[0].deny[2]", "refuses everything", ""},
		{"rule without name", allow(func(r *access.Rule) { r.Name = "" }), "routes[0].allow[0].name", "no name", ""},
		{"allow for whom", allow(func(r *access.Rule) { r.Groups, r.When = nil, "true" }), "routes[0].allow[0]", "does not say who", "any_user"},
		{"any user and groups", allow(func(r *access.Rule) { r.AnyUser = true }), "routes[0].allow[0].any_user", "contradicts", ""},
		{"small letters", allow(func(r *access.Rule) { r.Methods = []string{"GET", "post"} }), "routes[0].allow[0].methods[1]", "no method", "POST"},
		{"no glob", allow(func(r *access.Rule) { r.Paths = []string{"api/**"} }), "routes[0].allow[0].paths[0]", `must start with "/"`, ""},
		{"regular expression", allow(func(r *access.Rule) { r.Paths = []string{"/api/[a-z]"} }), "routes[0].allow[0].paths[0]", "which no path matches", ""},
		{"half a double star", allow(func(r *access.Rule) { r.Paths = []string{"/api/x**"} }), "routes[0].allow[0].paths[0]", "must stand alone", ""},
		{"network", allow(func(r *access.Rule) { r.Networks = []string{"lan"} }), "routes[0].allow[0].networks[0]", "no network", ""},
		{"network with host bits", allow(func(r *access.Rule) { r.Networks = []string{"10.1.2.3/8"} }), "routes[0].allow[0].networks[0]", "write 10.0.0.0/8", ""},
		{"address", allow(func(r *access.Rule) { r.Networks = []string{"10.1.2.3"} }), "routes[0].allow[0].networks[0]", "write 10.1.2.3/32", ""},
		{"mapped network", allow(func(r *access.Rule) { r.Networks = []string{"::ffff:10.0.0.0/104"} }), "routes[0].allow[0].networks[0]", "IPv6 notation", ""},
		{"day", window(access.TimeWindow{Days: "mon-fry"}), "routes[0].allow[0].time.days", "mon-fry", "mon-fri"},
		{"hours", window(access.TimeWindow{Hours: "8-18"}), "routes[0].allow[0].time.hours", "no span", "08:00-18:00"},
		{"empty span", window(access.TimeWindow{Hours: "08:00-08:00"}), "routes[0].allow[0].time.hours", "ends when it starts", ""},
		{"zone", window(access.TimeWindow{Days: "mon", Zone: "Europe/Berlln"}), "routes[0].allow[0].time.zone", "unknown time zone", ""},
		{"zone of this machine", window(access.TimeWindow{Days: "mon", Zone: "Local"}), "routes[0].allow[0].time.zone", "unknown time zone", ""},
		{"only a zone", window(access.TimeWindow{Zone: "Europe/Berlin"}), "routes[0].allow[0].time", "limits nothing", ""},
		{"CEL syntax", allow(func(r *access.Rule) { r.When = "user.email ==" }), "routes[0].allow[0].when", "column", ""},
		{"CEL misspelt variable", allow(func(r *access.Rule) { r.When = "usr.email == ''" }), "routes[0].allow[0].when", `column 1: undeclared reference to 'usr' (did you mean 'user'?)`, ""},
		{"CEL misspelt field", allow(func(r *access.Rule) { r.Unless = "user.emial == ''" }), "routes[0].allow[0].unless", `undefined field 'emial'; did you mean "email"?`, ""},
		{"CEL result", allow(func(r *access.Rule) { r.When = "user.email" }), "routes[0].allow[0].when", "must be bool", ""},
		{"CEL dynamic result", allow(func(r *access.Rule) { r.When = "claims.admin" }), "routes[0].allow[0].when", "must be bool", ""},
		{"CEL network", allow(func(r *access.Rule) { r.When = "in_cidr(network.ip, '10.0.0.1/8')" }), "routes[0].allow[0].when", "write 10.0.0.0/8", ""},
		{"CEL computed network", allow(func(r *access.Rule) { r.When = "in_cidr(network.ip, user.name)" }), "routes[0].allow[0].when", "literal", ""},
		{"claim without values", allow(func(r *access.Rule) { r.Claims = map[string][]string{"dept": nil} }), "routes[0].allow[0].claims.dept", "no value", ""},
		{"claim that is a fact of its own", allow(func(r *access.Rule) { r.Claims = map[string][]string{"email": {"a@b"}} }), "routes[0].allow[0].claims.email", "cannot be matched", "user.email"},
		{"mode", allow(func(r *access.Rule) { r.Mode = "reprot" }), "routes[0].allow[0].mode", "unknown mode", `"report"`},
		{"message on allow", allow(func(r *access.Rule) { r.Message = "hi" }), "routes[0].allow[0].message", "only a deny rule", ""},
		{"public without methods", route(func(r *access.Route) { r.Public[0].Methods = nil }), "routes[0].public[0].methods", "must say which methods", ""},
		{"public without paths", route(func(r *access.Route) { r.Public[0].Paths = nil }), "routes[0].public[0].paths", "must say which paths", ""},
		{"nothing to except", route(func(r *access.Route) { r.Exceptions.Login = "why not" }), "routes[0].exceptions.login", "no default requirement", ""},
		{"exception without reason", route(func(r *access.Route) { r.Exceptions.Device = " " }), "routes[0].exceptions.device", "reason in writing", ""},
		{"empty acr", route(func(r *access.Route) { r.Require.Login.ACR = []string{"phr", ""} }), "routes[0].require.login.acr[1]", "empty", ""},
		{"login nobody can have", route(func(r *access.Route) { r.Rules[0].Require.Login.ACR = []string{"gold"} }), "routes[0].rules[0].require.login.acr", "no login can meet", ""},
		{"route for nobody", route(func(r *access.Route) { *r = access.Route{ID: "x"} }), "routes[0].allow", "nobody can ever use", ""},
		{"route that only reports", route(func(r *access.Route) {
			*r = access.Route{ID: "x", Allow: []access.Rule{{Name: "a", AnyUser: true, Mode: access.Report}}}
		}), "routes[0].allow", "only report", ""},
		{"deny rules on a public route", route(func(r *access.Route) { r.Allow = nil }), "routes[0].deny", "do nothing", ""},
		{"unknown check", profile(access.Profile{All: []string{"known", "compliantt"}}), "devices.profiles.x.all[1]", "neither a check nor a profile", `"compliant"`},
		{"empty profile", profile(access.Profile{}), "devices.profiles.x", "asks for nothing", ""},
		{"profile includes itself", profile(access.Profile{All: []string{"x"}}), "devices.profiles.x.all[0]", "x → x", ""},
		{"unknown system", profile(access.Profile{MinOS: map[string]string{"macOS": "15"}}), "devices.profiles.x.min_os.macOS", "unknown operating system", `"macos"`},
		{"version", profile(access.Profile{MinOS: map[string]string{"macos": "15.x"}}), "devices.profiles.x.min_os.macos", "is no version", ""},
		{"looser age", profile(access.Profile{All: []string{"known"}, MaxAge: access.Duration(48 * 3600e9)}), "devices.profiles.x.max_age", "longer than devices.max_age", ""},
		{"script as fix", profile(access.Profile{All: []string{"known"}, Fix: "javascript:alert(1)"}), "devices.profiles.x.fix", "no web address", ""},
		{"no common system", profile(access.Profile{All: []string{"healthy"}, MinOS: map[string]string{"linux": "6"}}), "devices.profiles.x.all[0]", "no operating system", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := billing()
			tt.change(&in)
			p, faults := Compile(in)
			if p != nil || len(faults) != 1 {
				t.Fatalf("policy %v, faults %q", p != nil, faults)
			}
			f := faults[0]
			if f.Path != tt.path || !strings.Contains(f.Text, tt.text) || !strings.Contains(f.Cure, tt.cure) {
				t.Errorf("got %q: %s (%s)", f.Path, f.Text, f.Cure)
			}
			if strings.Contains(f.Text, "\n") {
				t.Errorf("more than one line: %q", f.Text)
			}
		})
	}
}

func TestAllFaultsInOneRun(t *testing.T) {
	in := billing()
	in.Routes[0].Allow[0].Groups = []string{"a1", "b2"}
	in.Routes[0].Allow[0].When = "1"
	in.Routes[0].Allow[1].Time.Zone = "Nowhere"
	in.Defaults.Require.Device = "none"
	in.Devices.Profiles["a"] = access.Profile{All: []string{"b"}}
	in.Devices.Profiles["b"] = access.Profile{All: []string{"a"}}
	if _, faults := Compile(in); len(faults) != 6 {
		t.Errorf("got %d faults: %q", len(faults), faults)
	}
}

func TestModeEnforceIsTheDefault(t *testing.T) {
	in := billing()
	in.Routes[0].Allow[0].Mode = "enforce"
	if d := compile(t, in).Decide(good()); d.Outcome != access.Allow {
		t.Errorf("got %+v", d)
	}
}

func TestPolicyKeepsNothingOfItsInput(t *testing.T) {
	in := billing()
	p := compile(t, in)
	in.Routes[0].Allow[0].Methods[0] = "PUT"
	in.Groups["engineers"].ClaimGroups[0], in.Groups["engineers"].ClaimGroups[1] = "x", "x"
	if d := p.Decide(good()); d.Outcome != access.Allow {
		t.Errorf("a change of the input changed the policy: %+v", d)
	}
}

// TestEqualRulesAreCompiledOnce is about memory: routes have more rules in common
// than not. A rule that says anything else is its own, and so is one that says the
// same of another kind.
func TestEqualRulesAreCompiledOnce(t *testing.T) {
	in := billing()
	in.Routes = append(in.Routes, in.Routes[0], in.Routes[0], in.Routes[0])
	in.Routes[1].ID, in.Routes[2].ID, in.Routes[3].ID = "same", "other", "turned"
	in.Routes[2].Allow = []access.Rule{in.Routes[0].Allow[0]}
	in.Routes[2].Allow[0].Methods = []string{"GET"}
	in.Routes[3].Allow = []access.Rule{{Name: "deletes", ClientIDs: []string{"corp:x"}, Methods: []string{"DELETE"}}}
	in.Routes[3].Deny = []access.Rule{in.Routes[3].Allow[0], in.Routes[0].Deny[0]}
	in.Routes[3].Deny[0].Name, in.Routes[3].Deny[1].Message = "also", "Somebody else's words."
	p := compile(t, in)
	first, same, other, turned := p.routes["billing"], p.routes["same"], p.routes["other"], p.routes["turned"]
	if &first.allow[0].conditions[0] != &same.allow[0].conditions[0] {
		t.Error("a rule that says the same is compiled again")
	}
	if len(other.allow[0].conditions) != len(first.allow[0].conditions) || &first.allow[0].conditions[0] == &other.allow[0].conditions[0] {
		t.Error("a rule that says something else shares what it says")
	}
	if &turned.allow[0].conditions[0] == &turned.deny[0].conditions[0] {
		t.Error("an allow rule and a deny rule share what they say")
	}
	if d := turned.deny[1]; &d.conditions[0] != &first.deny[0].conditions[0] || d.message != "Somebody else's words." {
		t.Errorf("the message went with the conditions: %q", d.message)
	}
	req := with(func(r *access.Request) { r.Route, r.Method = "other", "HEAD" })
	if d := p.Decide(req); d.Outcome != access.Deny {
		t.Errorf("the other route decides as the first one: %+v", d)
	}
}

func TestEqualFaultsAreReportedEach(t *testing.T) {
	in := billing()
	in.Routes = append(in.Routes, in.Routes[0])
	in.Routes[1].ID = "same"
	for i := range in.Routes {
		in.Routes[i].Allow = []access.Rule{{Name: "typo", Groups: []string{"enginers"}}}
	}
	_, faults := Compile(in)
	if len(faults) != 2 || faults[0].Path != "routes[0].allow[0].groups[0]" || faults[1].Path != "routes[1].allow[0].groups[0]" {
		t.Errorf("got %q", faults)
	}
}

func TestDidYouMean(t *testing.T) {
	tests := []struct{ name, want string }{
		{"enginers", `did you mean "engineers"?`},
		{"Engineers", `did you mean "engineers"?`},
		{"egnineers", `did you mean "engineers"?`},
		{"onkall", `did you mean "oncall"?`},
		{"xyz", "known: engineers, oncall"},
	}
	for _, tt := range tests {
		if got := didYouMean(tt.name, []string{"engineers", "oncall"}); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
	if got := didYouMean("x", nil); got != "" {
		t.Errorf("nothing known: %s", got)
	}
}
