package authz

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

func edition(in Input, p *Policy) Edition {
	return Edition{Policy: p, Input: in, Scopes: openSurroundings(in).Scopes}
}

// mutate changes a few things of a policy, some of them to what another one has.
func mutate(t *rapid.T, in Input) Input {
	other := drawInput(t)
	in.Routes, in.Groups, in.Devices.Profiles = slices.Clone(in.Routes), maps.Clone(in.Groups), maps.Clone(in.Devices.Profiles)
	for range rapid.IntRange(1, 3).Draw(t, "mutations") {
		i := rapid.IntRange(0, 1).Draw(t, "route")
		rt, donor := &in.Routes[i], other.Routes[i]
		rt.Allow, rt.Deny = slices.Clone(rt.Allow), slices.Clone(rt.Deny)
		switch rapid.IntRange(0, 11).Draw(t, "mutation") {
		case 0:
			rt.Allow = append(rt.Allow, access.Rule{Name: fmt.Sprint("new", len(rt.Allow)), Groups: drawSome(t, "groups", worldGroups, 1), Methods: drawSome(t, "methods", worldMethods, 2)})
		case 1:
			rt.Allow = rt.Allow[:max(1, len(rt.Allow)-1)]
		case 2:
			rt.Deny = donor.Deny
		case 3:
			rt.Require = donor.Require
		case 4:
			rt.Rules = donor.Rules
		case 5:
			in.Defaults = other.Defaults
			for j := range in.Routes {
				if in.Defaults.Require.Device == "" {
					in.Routes[j].Exceptions.Device = ""
				}
			}
		case 6:
			in.Groups[rapid.SampledFrom([]string{"g1", "g2"}).Draw(t, "group")] = access.Group{Provider: "corp", ClaimGroups: drawSome(t, "claims", []string{"eng", "ops", "all"}, 1)}
		case 7:
			in.Devices.Profiles["p1"] = other.Devices.Profiles["p1"]
		case 8:
			rt.Public = donor.Public
		case 9:
			r := &rt.Allow[0]
			r.Methods, r.Paths = drawSome(t, "methods", worldMethods, 2), drawSome(t, "paths", worldGlobs, 2)
		case 10:
			rt.Allow[0].Name = "renamed"
		case 11:
			r := &rt.Allow[len(rt.Allow)-1]
			r.Networks = drawSome(t, "networks", worldNetworks, 2)
		}
	}
	return in
}

// Whatever a comparison says of a route holds for every request: nobody loses
// access by what loosens, and nobody gains it by what tightens.
func TestEffectsHoldForEveryRequest(t *testing.T) {
	seen := map[Effect]int{}
	moved := 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		next := mutate(t, in)
		was, faults := Compile(in)
		is, more := Compile(next)
		if len(faults)+len(more) > 0 {
			return
		}
		changes := Diff(edition(in, was), edition(next, is))
		summary := Summary(changes)
		for range 40 {
			req := drawRequest(t)
			if req.Route == "none" || !lifelike(req) {
				continue
			}
			effect := summary[""].And(summary[req.Route])
			if effect == "" {
				effect = Nothing
			}
			seen[effect]++
			before, after := was.Decide(req), is.Decide(req)
			gained := before.Outcome != access.Allow && after.Outcome == access.Allow
			lost := before.Outcome == access.Allow && after.Outcome != access.Allow
			if gained || lost {
				moved++
			}
			if gained && effect != Loosens && effect != Unclear || lost && effect != Tightens && effect != Unclear {
				t.Fatalf("%s %s: %s (%s) becomes %s (%s)\n%+v", req.Route, effect, before.Outcome, before.Rule, after.Outcome, after.Rule, changes)
			}
		}
	})
	for _, effect := range []Effect{Nothing, Loosens, Tightens, Unclear} {
		if seen[effect] == 0 {
			t.Errorf("%s was never met with: %v", effect, seen)
		}
	}
	if moved == 0 {
		t.Error("no request fared differently")
	}
}

func TestDiffInWords(t *testing.T) {
	change := func(edit func(in *Input)) (lines []string) {
		in, next := billing(), billing()
		edit(&next)
		for _, c := range Diff(edition(in, compile(t, in)), edition(next, compile(t, next))) {
			lines = append(lines, fmt.Sprintf("%s %s: %s %s", c.Effect, c.At, c.Text, strings.Join(c.Details, "; ")))
		}
		return lines
	}
	for _, test := range []struct {
		name string
		edit func(in *Input)
		want []string
	}{
		{"nothing", func(*Input) {}, nil},
		{"order", func(in *Input) {
			slices.Reverse(in.Routes[0].Allow)
			in.Groups["engineers"].ClaimGroups[0] = "eng"
			in.Groups["engineers"].ClaimGroups[1] = "sre"
		}, nil},
		{"a method more", func(in *Input) { in.Routes[0].Allow[0].Methods = []string{"GET", "HEAD", "POST"} },
			[]string{"loosens billing/allow/engineers-read: the rule matches more: members of engineers gain GET, HEAD or POST of /** methods: + POST"}},
		{"a path less", func(in *Input) { in.Routes[0].Allow[0].Paths = []string{"/invoices/**"} },
			[]string{"tightens billing/allow/engineers-read: the rule matches less: members of engineers lose GET or HEAD of /** paths: + /invoices/**, - /**"}},
		{"another method", func(in *Input) { in.Routes[0].Allow[0].Methods = []string{"POST"} },
			[]string{"unclear billing/allow/engineers-read: the rule matches something else methods: + POST, - GET, - HEAD"}},
		{"a deny rule less", func(in *Input) { in.Routes[0].Deny = in.Routes[0].Deny[1:] },
			[]string{"loosens billing/deny/no-deletes-from-abroad: the rule is gone: all gain DELETE of every path from 203.0.113.0/24, as far as an allow rule admits them "}},
		{"a claim more", func(in *Input) {
			in.Groups["engineers"] = access.Group{Provider: "corp", ClaimGroups: []string{"eng", "sre", "all"}}
		},
			[]string{"nothing groups/engineers: other people are in the group; the rules that use it are named claim_groups: + all",
				"loosens billing/allow/engineers-read: the rule matches more: members of engineers gain GET or HEAD of /** through the group engineers"}},
		{"a weaker device", func(in *Input) { in.Routes[0].Require.Device = "managed" },
			[]string{"loosens billing: the route requires less of whoever it lets in required no more: device healthy and a login with acr phr, at most 15m ago"}},
		{"a profile with less in it", func(in *Input) { in.Devices.Profiles["healthy"] = access.Profile{All: []string{"managed"}} },
			[]string{"nothing profiles/healthy: the device profile asks for less; the routes that require it are named",
				"loosens billing: the route requires less of whoever it lets in required no more: device healthy and a login with acr phr, at most 15m ago"}},
		{"a public rule more", func(in *Input) {
			in.Routes[0].Public = append(in.Routes[0].Public, access.Public{Name: "logo", Methods: []string{"GET"}, Paths: []string{"/logo"}})
		},
			[]string{"loosens billing/public/logo: the rule is new: anyone gains GET of /logo, without login "}},
		{"only reporting", func(in *Input) { in.Routes[0].Allow[1].Mode = access.Report },
			[]string{"tightens billing/allow/oncall: the rule is gone: members of oncall lose every method of every path at mon-fri 08:00-18:00 Europe/Berlin ",
				"nothing billing/allow/oncall: the rule only reports from now on "}},
		{"renamed", func(in *Input) { in.Routes[0].Allow[1].Name = "standby" },
			[]string{"nothing billing/allow/standby: the rule is new and adds nothing: allow/oncall matched whatever it matches ",
				"nothing billing/allow/oncall: the rule is gone and nothing with it: allow/standby matches whatever it matched "}},
		{"a provider less", func(in *Input) {
			in.Providers = []string{"corp"}
			in.Groups["oncall"] = access.Group{Users: []string{"corp:8f1c2d"}}
		},
			[]string{"tightens providers/partners: the provider is gone: nobody it vouched for gets in any more",
				"nothing groups/oncall: other people are in the group; the rules that use it are named users: - partners:x:y",
				"tightens billing/allow/oncall: the rule matches less: members of oncall lose every method of every path at mon-fri 08:00-18:00 Europe/Berlin through the group oncall"}},
	} {
		got := change(test.edit)
		for i := range got {
			got[i] = strings.TrimSuffix(got[i], " ")
		}
		for i := range test.want {
			test.want[i] = strings.TrimSuffix(test.want[i], " ")
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %s\nwant %s", test.name, strings.Join(got, "\n     "), strings.Join(test.want, "\n     "))
		}
	}
}

// Where an address had an owner before, or has another one now, a new or a lost
// route is neither looser nor tighter by itself.
func TestRoutesComeAndGo(t *testing.T) {
	in := billing()
	two := billing()
	admin := two.Routes[0]
	admin.ID, admin.From = "admin", "https://billing.example.com/admin"
	two.Routes = append(two.Routes, admin)
	for _, test := range []struct {
		name      string
		rest      map[string]Scope // what there is with and without it
		host      string           // of the route that comes or goes
		come, go_ Effect
	}{
		{"a part of another one's host", map[string]Scope{"billing": {Host: "billing.example.com"}}, "billing.example.com", Unclear, Unclear},
		{"a host of its own", map[string]Scope{"billing": {Host: "billing.example.com"}}, "other.example.com", Loosens, Tightens},
		{"one of many hosts", map[string]Scope{"billing": {Host: ".apps.example.com"}}, "one.apps.example.com", Unclear, Unclear},
		{"of which other paths are open", map[string]Scope{"billing": {Host: ".apps.example.com", Prefix: "/baz"}}, "one.apps.example.com", Unclear, Unclear},
		{"none of the many hosts", map[string]Scope{"billing": {Host: ".apps.example.com"}}, "one.two.apps.example.com", Loosens, Tightens},
		{"one that stays out of the many", map[string]Scope{"billing": {Host: ".apps.example.com"}, "bar": {Host: "one.apps.example.com", Prefix: "/bar"}},
			"one.apps.example.com", Loosens, Tightens},
	} {
		scopes := maps.Clone(test.rest)
		scopes["admin"] = Scope{Host: test.host, Prefix: "/admin"}
		one, both := Edition{Policy: compile(t, in), Input: in, Scopes: test.rest}, Edition{Policy: compile(t, two), Input: two, Scopes: scopes}
		if got := Summary(Diff(one, both))["admin"]; got != test.come {
			t.Errorf("%s: comes %s", test.name, got)
		}
		if got := Summary(Diff(both, one))["admin"]; got != test.go_ {
			t.Errorf("%s: goes %s", test.name, got)
		}
	}
}
