package authz

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// open surroundings: every route has a host of its own.
func openSurroundings(in Input) Surroundings {
	s := Surroundings{Scopes: map[string]Scope{}, LogIn: in.Providers, Hides: func(name string) bool { return name == "token" },
		Never: func(m string) string {
			if m == "CONNECT" || strings.ToUpper(m) != m {
				return "it is refused"
			}
			return ""
		}}
	for i := range in.Routes {
		s.Scopes[in.Routes[i].ID] = Scope{Scheme: "https", Host: "app.example.com"}
	}
	return s
}

func findings(t *testing.T, in Input, around Surroundings) (list []string) {
	t.Helper()
	for _, f := range compile(t, in).Analyse(in, around) {
		list = append(list, string(f.Kind)+" "+f.Path)
	}
	return list
}

// without returns the input without what a finding calls vain; false where
// nothing can be taken out.
func without(in Input, f access.Finding) (Input, bool) {
	in.Routes = slices.Clone(in.Routes)
	var route, n int
	kind, ok := "", false
	for _, word := range []string{"public", "allow", "deny", "rules"} {
		if _, err := fmt.Sscanf(f.Path, "routes[%d]."+word+"[%d]", &route, &n); err == nil {
			kind, ok = word, true
		}
	}
	if !ok {
		return in, false
	}
	rt := &in.Routes[route]
	switch kind {
	case "public":
		rt.Public = slices.Delete(slices.Clone(rt.Public), n, n+1)
	case "allow":
		rt.Allow = slices.Delete(slices.Clone(rt.Allow), n, n+1)
	case "deny":
		rt.Deny = slices.Delete(slices.Clone(rt.Deny), n, n+1)
	case "rules":
		rt.Rules = slices.Delete(slices.Clone(rt.Rules), n, n+1)
	}
	return in, true
}

// hits reports whether the rule of a finding hits.
func hits(p *Policy, req *access.Request, at string) bool {
	_, tree := p.Explain(req)
	return slices.ContainsFunc(tree.Rules, func(line TreeRule) bool { return req.Route+"/"+line.Rule == at && line.Result == Hit })
}

// What an analysis calls vain can be taken out without changing a single
// outcome: for random policies, and requests that meet them.
func TestWhatIsVainChangesNothing(t *testing.T) {
	vain := []access.FindingKind{access.NeverMatches, access.AllowShadowed, access.DenyAfterPublic, access.RequireAfterPublic, access.RuleImplied, access.RequireIdle}
	seen := map[access.FindingKind]int{}
	check := func(t *rapid.T) {
		in := drawInput(t)
		for i := range in.Routes {
			route := &in.Routes[i]
			for j := range route.Rules {
				route.Rules[j].Methods = drawSome(t, "stricter methods", []string{"GET"}, 2)
			}
			if len(route.Public) > 0 && rapid.Bool().Draw(t, "deny what is public") {
				open := route.Public[0]
				route.Deny = append(route.Deny, access.Rule{Name: "late", Methods: open.Methods, Paths: open.Paths, Networks: open.Networks})
				route.Rules = append(route.Rules, access.Stricter{Methods: open.Methods, Paths: open.Paths,
					Require: access.Require{Login: access.LoginRequire{MaxAge: access.Duration(time.Minute)}}})
			}
		}
		p, faults := Compile(in)
		if len(faults) > 0 {
			return
		}
		for _, f := range p.Analyse(in, openSurroundings(in)) {
			if !slices.Contains(vain, f.Kind) || strings.Contains(f.Path, ".paths[") {
				continue
			}
			less, ok := without(in, f)
			if !ok {
				continue
			}
			other, faults := Compile(less)
			if len(faults) > 0 {
				continue // nothing is left that lets anyone in, which is refused
			}
			seen[f.Kind]++
			for range 20 {
				req := drawRequest(t)
				if !lifelike(req) {
					continue
				}
				if f.Kind == access.NeverMatches && hits(p, req, f.At) {
					t.Fatalf("%s: %s\n%+v", f.Path, f.Text, req)
				}
				if strings.Contains(f.At, "/deny/") && f.Kind == access.NeverMatches {
					continue // it still refuses where it cannot be evaluated
				}
				if before, after := p.Decide(req), other.Decide(req); before.Outcome != after.Outcome {
					t.Fatalf("%s %s: %s\n%s (%s) becomes %s (%s)", f.Kind, f.Path, f.Text, before.Outcome, before.Rule, after.Outcome, after.Rule)
				}
			}
		}
	}
	for range 10 { // a hundred draws may leave out what is rare
		if rapid.Check(t, check); len(seen) == len(vain) {
			break
		}
	}
	for _, kind := range vain {
		if seen[kind] == 0 {
			t.Errorf("%s was never met with", kind)
		}
	}
}

// A glob that is covered matches nothing else, and disjoint ones share nothing.
func TestGlobRelationsAreSound(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "ab", "a*", "*b", "*", "**", "a*b", ""})
	drawGlob := func(t *rapid.T, label string) glob {
		g, err := parseGlob("/" + strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, label), "/"))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	covered, apart := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawGlob(t, "a"), drawGlob(t, "b")
		covers, disjoint := a.covers(&b), a.disjoint(&b)
		for range 30 {
			path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "aab", "x", ""}), 1, 5).Draw(t, "path"), "/")
			if covers && b.match(path) && !a.match(path) {
				t.Fatalf("%s covers %s, but not %s", a.source, b.source, path)
			}
			if disjoint && a.match(path) && b.match(path) {
				t.Fatalf("%s and %s share %s", a.source, b.source, path)
			}
		}
		if covers {
			covered++
		}
		if disjoint {
			apart++
		}
	})
	if covered == 0 || apart == 0 {
		t.Errorf("%d covered, %d disjoint", covered, apart)
	}
}

func TestGlobRelationsAreFound(t *testing.T) {
	for _, test := range []struct {
		a, b             string
		covers, disjoint bool
	}{
		{"/**", "/a/b", true, false}, {"/a/**", "/a", true, false}, {"/a/**", "/a/*/c", true, false}, {"/a/*", "/a/b*", true, false},
		{"/a/*", "/a/**", false, false}, {"/a/**", "/b/**", false, true}, {"/a", "/a/", false, true}, {"/*/b", "/a/*", false, false},
		{"/a*", "/b*", false, true}, {"/*a", "/*b", false, true}, {"/**/c", "/a/b/c", true, false}, {"/a/b", "/a/b", true, false},
		{"/**/x", "/**/y", false, true}, {"/a**", "/a", false, false},
	} {
		a, errA := parseGlob(test.a)
		b, errB := parseGlob(test.b)
		if errA != nil || errB != nil {
			continue
		}
		if got := a.covers(&b); got != test.covers {
			t.Errorf("%s covers %s: %v", test.a, test.b, got)
		}
		if got := a.disjoint(&b); got != test.disjoint {
			t.Errorf("%s disjoint from %s: %v", test.a, test.b, got)
		}
	}
}

// A profile that implies another is passed by fewer devices only.
func TestProfileImplication(t *testing.T) {
	implied := 0
	rapid.Check(t, func(t *rapid.T) {
		profiles := compileProfiles(drawDevicePolicy(t), access.NewFaults(""))
		for _, a := range keys(profiles) {
			for _, b := range keys(profiles) {
				if a == b || !profiles[a].implies(profiles[b]) {
					continue
				}
				implied++
				for range 5 {
					req := &access.Request{Time: noon, Device: drawDevice(t)}
					if len(profiles[a].missing(req, nil)) == 0 && len(profiles[b].missing(req, nil)) > 0 {
						t.Fatalf("%s implies %s, and yet %+v", a, b, req.Device)
					}
				}
			}
		}
	})
	if implied < 20 {
		t.Errorf("%d implications", implied)
	}
}

func TestLoginImplication(t *testing.T) {
	implied := 0
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (l access.LoginRequire) {
			l = drawLoginRequire(t)
			l.ACR = drawSome(t, label, []string{"aal1", "mfa", "phr", "phrh", "own"}, 2)
			l.PhishingResistant = rapid.IntRange(0, 3).Draw(t, label) == 0
			return l
		}
		a, b := draw("a"), draw("b")
		if !loginImplies(a, b) {
			return
		}
		implied++
		for range 10 {
			login := access.Login{Time: drawTime(t, "time"), ACR: rapid.SampledFrom([]string{"", "aal1", "aal2", "mfa", "phr", "phrh", "own"}).Draw(t, "acr"),
				AMR: rapid.SampledFrom([][]string{nil, {"mfa"}, {"hwk"}, {"hwk", "mfa"}}).Draw(t, "amr")}
			if login.Satisfies(&a, noon) && !login.Satisfies(&b, noon) {
				t.Fatalf("%+v implies %+v, and yet %+v", a, b, login)
			}
		}
	})
	if implied < 5 {
		t.Errorf("%d implications", implied)
	}
}

// What is found in expressions, and what is not.
func TestExpressionsAreRead(t *testing.T) {
	for _, test := range []struct{ when, want string }{
		{"1 == 2", "never-matches"},
		{"true", "always-true"},
		{"in_cidr(network.ip, '10.0.0.0/8') && in_cidr(network.ip, '192.168.0.0/16')", "never-matches"},
		{"request.host == 'other.example.com'", "never-equal"},
		{"user.email == 'a@b' && user.email in ['c@d', 'e@f']", "never-matches"},
		{"request.path.startsWith('/a') && request.path.startsWith('/b')", "never-matches"},
		{"device.compliant == 'true'", "never-equal"},
		{"'yess' == device.managed || user.sub == 'x'", "never-equal"},
		{"device.os in ['macos', 'osx']", "never-equal"},
		{"request.scheme != 'ftp'", "never-equal"},
		{"user.provider == 'crop'", "never-equal"},
		{"request.method == 'get'", "never-equal"},
		{"request.query.token[0] == 'x'", "hidden-query"},
		{"'x' in request.query['token']", "hidden-query"},

		{"'token' in request.query", ""},
		{"has(request.query.token)", ""},
		{"request.query.page[0] == '1'", ""},
		{"request.method in ['GET', 'PURGE']", ""},
		{"request.path.startsWith('/a') && request.path.startsWith('/a/b')", ""},
		{"user.email == 'a@b' || user.email == 'c@d'", ""},
		{"!(user.email == 'a@b' && user.email == 'c@d')", ""},
		{"device.compliant == 'unknown'", ""},
		{"'eng' in user.groups && 'ops' in user.groups", ""},
		{"in_cidr(network.ip, '10.0.0.0/8') && in_cidr(network.ip, '10.1.0.0/16')", ""},
		{"request.host == 'app.example.com'", ""},
	} {
		in := Input{Providers: []string{"corp"}, Routes: []access.Route{{ID: "app", Exceptions: access.Exceptions{},
			Allow: []access.Rule{{Name: "x", AnyUser: true, When: test.when}}}}}
		var got []string
		for _, f := range compile(t, in).Analyse(in, openSurroundings(in)) {
			if f.Kind.Severity() != access.SevereNote && f.Kind != access.RouteClosed {
				got = append(got, string(f.Kind))
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v", test.when, got)
		}
	}
}

func TestExposuresAreListed(t *testing.T) {
	in := billing()
	in.Routes[0].Exceptions.Device = "ticket 42"
	in.Routes[0].Provider = "corp"
	in.Routes[0].Preflight = true
	in.Routes[0].Allow = append(in.Routes[0].Allow, access.Rule{Name: "all", AnyUser: true, Methods: []string{"OPTIONS"}})
	in.Groups["guests"] = access.Group{Provider: "partners", ClaimGroups: []string{"x"}}
	in.Routes[0].Allow = append(in.Routes[0].Allow, access.Rule{Name: "guests", Groups: []string{"guests", "finance"}})
	want := []string{"public routes[0].public[0]", "preflight routes[0].preflight", "exception routes[0].exceptions.device",
		"foreign-users routes[0].allow[2].any_user", "report-only routes[0].deny[1]"}
	if got := findings(t, in, openSurroundings(in)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}
