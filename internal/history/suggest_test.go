package history

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/config"
)

// broad are paths all over an application.
var broad = []string{"/", "/a/%d", "/b/%d", "/c", "/d/%d/e", "/f"}

// overgranted makes a company with some dozens of routes. 40 % of them grant more
// than is used, each in one of the ways that Suggest knows; the others do not.
func overgranted(t testing.TB) *world {
	w := newWorld(t, 11)
	w.hire(96)
	reads, all := []string{"GET"}, []string{"GET", "POST"}
	kinds := []func(a *app, id string, x, y, z string){
		func(a *app, id, x, y, z string) { // a group that nobody of used
			a.yaml = fmt.Sprintf("    allow:\n      # %s is in charge\n      - {name: main, groups: [%s, %s], methods: [GET, POST]} # reviewed\n", x, x, y)
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}}
			a.planted = []string{"unused-group allow/main " + y}
		},
		func(a *app, id, x, y, z string) { // a rule
			a.yaml = fmt.Sprintf("    allow:\n      - name: main\n        groups: [%s]\n      # left over from the migration\n      - name: legacy\n        groups: [%s]\n        when: \"user.email != ''\"\n", x, y)
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}}
			a.planted = []string{"unused-rule allow/legacy"}
		},
		func(a *app, id, x, y, z string) { // a route
			a.yaml = fmt.Sprintf("    allow: [{name: main, groups: [%s]}] # who was that for?\n", x)
			a.planted = []string{"unused-route"}
		},
		func(a *app, id, x, y, z string) { // the right to write
			a.yaml = fmt.Sprintf("    allow:\n      - name: main # all of them\n        groups:\n          - %s # writes\n          - %s # reads\n", x, y)
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}, {group: y, methods: reads, paths: broad, perDay: 1}}
			a.planted = []string{"split-reads allow/main " + y}
		},
		func(a *app, id, x, y, z string) { // everybody's right to write
			a.yaml = fmt.Sprintf("    allow: [{name: main, groups: [%s]}]\n", x)
			a.habits = []habit{{group: x, methods: []string{"GET", "HEAD"}, paths: broad, perDay: 1}}
			a.planted = []string{"read-only allow/main"}
		},
		func(a *app, id, x, y, z string) { // the rest of the application
			a.yaml = fmt.Sprintf("    allow:\n      - {name: main, groups: [%s], paths: [\"/**\"]}\n", x)
			a.habits = []habit{{group: x, methods: all, paths: []string{"/api/v2/orders/%d", "/api/v2/orders/%d/lines", "/static/app.js"}, perDay: 1}}
			a.planted = []string{"narrow-paths allow/main /api/v2/**, /static/**"}
		},
		func(a *app, id, x, y, z string) { // anybody
			a.yaml = "    allow: [{name: main, any_user: true}] # observe first\n"
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}}
			a.planted = []string{"name-groups allow/main " + x}
		},
		func(a *app, id, x, y, z string) { // a deny rule that was tried out
			a.yaml = fmt.Sprintf("    allow: [{name: main, groups: [%s]}]\n    deny:\n      - {name: no-deletes, mode: report, methods: [DELETE], message: \"Never.\"}\n", x)
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}}
			a.planted = []string{"enforce-deny deny/no-deletes"}
		},
	}
	justRight := []func(a *app, x, y string){
		func(a *app, x, y string) {
			a.yaml = fmt.Sprintf("    allow: [{name: main, groups: [%s, %s]}]\n", x, y)
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}, {group: y, methods: all, paths: broad, perDay: 1}}
		},
		func(a *app, x, y string) { // used in one season only
			a.yaml = fmt.Sprintf("    allow: [{name: main, groups: [%s, %s]}]\n", x, y)
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}, {group: y, methods: all, paths: broad, seasonal: true, perDay: 2}}
		},
		func(a *app, x, y string) { // a deny rule that would bite
			a.yaml = fmt.Sprintf("    allow: [{name: main, groups: [%s]}]\n    deny: [{name: no-posts, mode: report, methods: [POST]}]\n", x)
			a.habits = []habit{{group: x, methods: all, paths: broad, perDay: 1}}
		},
	}
	for i := range 40 {
		a := app{id: fmt.Sprintf("r%02d", i)}
		x, y, z := worldGroups[i%8], worldGroups[(i+3)%8], worldGroups[(i+5)%8]
		if i%5 < 2 {
			kinds[(i/5*2+i%5)%len(kinds)](&a, a.id, x, y, z)
		} else {
			justRight[i%3](&a, x, y)
		}
		a.yaml = fmt.Sprintf("  # %s belongs to somebody\n  - id: %s\n    from: https://%s.example.com\n    to: [http://127.0.0.1:3000]\n", a.id, a.id, a.id) + a.yaml
		w.routes = append(w.routes, a)
	}
	// People who are only in x or y use the route as such: with both, the right of
	// one would be used by the other.
	w.people = slices.DeleteFunc(w.people, func(p person) bool { return len(p.groups) > 1 })
	return w
}

func suggest(t testing.TB, w *world, caution Caution) (*Suggestions, *config.Config, []byte) {
	t.Helper()
	cfg := w.config()
	text, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Suggest(t.Context(), w.log(cfg), cfg, text, "doorward.yaml", Filter{}, caution)
	if err != nil {
		t.Fatal(err)
	}
	return s, cfg, text
}

// what says what a proposal is about in the words of the plan of the test.
func what(p *Proposal) string {
	c := p.change
	detail := strings.Join(slices.Concat(c.without, c.readers, c.named), ", ")
	if c.paths != nil {
		detail = strings.Join(c.paths, ", ")
	}
	return strings.TrimSpace(strings.TrimSpace(string(p.Kind)+" "+p.Rule) + " " + detail)
}

// Everything that was planted is found and nothing else; the patch applies with
// the tools people have, and refuses nothing that anybody did.
func TestSuggestFindsWhatIsPlanted(t *testing.T) {
	w := overgranted(t)
	s, cfg, text := suggest(t, w, Caution{})
	found := map[string][]string{}
	for i := range s.Proposals {
		if p := &s.Proposals[i]; p.Held == "" {
			found[p.Route] = append(found[p.Route], what(p))
		} else if p.Kind != EnforceDeny {
			t.Errorf("held: %+v", p)
		}
	}
	// Who would lose a right is told, by name.
	for i := range s.Proposals {
		p := &s.Proposals[i]
		if p.Kind != UnusedGroup {
			continue
		}
		var want []string
		for _, one := range w.members(p.change.without[0]) {
			want = append(want, "corp:"+one.sub)
		}
		if slices.Sort(want); !slices.Equal(p.Loses, want) {
			t.Errorf("%s: %q, want %q", p.Text, p.Loses, want)
		}
	}
	planted := 0
	for _, r := range w.routes {
		planted += len(r.planted)
		if !slices.Equal(found[r.id], r.planted) {
			t.Errorf("%s: found %q, planted %q", r.id, found[r.id], r.planted)
		}
	}
	if planted != 16 || s.Proof == nil || len(s.Proof.Changes) != 0 || s.Proof.Same == 0 {
		t.Fatalf("%d planted, proof %+v", planted, s.Proof)
	}

	// The patch is one for the tools people have.
	dir := t.TempDir()
	patched := filepath.Join(dir, "doorward.yaml")
	if err := os.WriteFile(patched, text, 0o600); err != nil {
		t.Fatal(err)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	cmd := exec.Command(git, "apply", "-")
	cmd.Dir, cmd.Stdin, cmd.Env = dir, strings.NewReader(s.Patch), append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s\n%s", err, out, s.Patch)
	}
	next, err := config.Load(patched)
	if err != nil {
		t.Fatal(err)
	}
	report := replay(t, w.log(cfg), next, Filter{})
	for _, c := range report.Changes {
		t.Errorf("%s: %+v", c.Transition(), c)
	}
	// Comments and whatever else was not touched are there as before.
	after, _ := os.ReadFile(patched)
	for line := range strings.SplitSeq(string(text), "\n") {
		if strings.Contains(line, "belongs to somebody") || strings.Contains(line, "reviewed") || strings.Contains(line, "# who works there") {
			comment := line[strings.Index(line, "#"):]
			if !bytes.Contains(after, []byte(comment)) && !strings.Contains(s.Patch, "-"+line) {
				t.Errorf("lost: %s", line)
			}
		}
	}
	// Once carried out, there is nothing left to propose.
	again, err := Suggest(t.Context(), w.log(cfg), next, after, "doorward.yaml", Filter{}, Caution{})
	if err != nil || again.Patch != "" {
		t.Errorf("%v\n%s", err, again.Patch)
	}
}

// What a policy test of the file expects is not taken away, and a file that names
// what would be removed stays loadable.
func TestSuggestRespectsPolicyTests(t *testing.T) {
	w := overgranted(t)
	group := strings.Fields(w.routes[0].planted[0])[2]
	w.routes[39].yaml += fmt.Sprintf(`tests:
  - {name: they will need it, as: {provider: corp, sub: u1, groups: [idp-%s]}, get: "https://r00.example.com/", expect: allow}
  - {name: names a rule, as: {provider: corp, sub: u1, email: u@corp.example, groups: [idp-%s]}, get: "https://r01.example.com/", expect: allow, rule: allow/legacy}
`, group, w.legacy("r01"))
	s, _, _ := suggest(t, w, Caution{})
	for _, p := range s.Proposals {
		switch {
		case p.Route == "r00" && !strings.Contains(p.Held, "policy test"), p.Route == "r01" && !strings.Contains(p.Held, "would not load"),
			p.Route != "r00" && p.Route != "r01" && p.Held != "" && p.Kind != EnforceDeny:
			t.Errorf("%+v", p)
		}
	}
	if s.Patch == "" || s.Proof == nil {
		t.Error("nothing is left of the patch")
	}
}

// legacy is the group of a route's rule of that name.
func (w *world) legacy(route string) string {
	for _, r := range w.config("tests:", "#").Routes {
		for _, rule := range r.Allow {
			if r.ID == route && rule.Name == "legacy" {
				return rule.Groups[0]
			}
		}
	}
	w.t.Fatal("no such rule")
	return ""
}

// Too little is known: everything is shown and nothing is patched.
func TestSuggestIsCautious(t *testing.T) {
	for name, c := range map[string]struct {
		days    int
		caution Caution
		held    string
	}{
		"short log":               {10, Caution{Requests: 5}, "covers 10 days only"},
		"no end of a quarter":     {35, Caution{}, "end of a quarter"},
		"no matter":               {35, Caution{AnySeason: true}, ""},
		"more requests asked for": {90, Caution{Requests: 10_000}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := overgranted(t)
			w.days = c.days
			s, _, _ := suggest(t, w, c.caution)
			if (s.Patch == "") != (c.held != "") || len(s.Proposals) == 0 {
				t.Errorf("patch:\n%s", s.Patch)
			}
			for i := range s.Proposals {
				p := &s.Proposals[i]
				if c.held != "" && !strings.Contains(p.Held, c.held) && p.Kind != EnforceDeny || c.caution.Requests > 1000 && p.Kind != UnusedRoute {
					t.Errorf("%s is held for %q", p.Text, p.Held)
				}
			}
		})
	}
}

// What is used now and then is for people to decide; what is used in one season
// only says so.
func TestRarelyUsedRights(t *testing.T) {
	w := newWorld(t, 3)
	w.hire(16)
	w.routes = []app{{id: "app", yaml: "  - id: app\n    from: https://app.example.com\n    to: [http://127.0.0.1:3000]\n    allow: [{name: main, groups: [dev, ops, sales, hr]}]\n", habits: []habit{
		{group: "dev", methods: []string{"GET", "POST"}, paths: broad, perDay: 5},
		{group: "ops", methods: []string{"GET"}, paths: broad, only: 3},
		{group: "hr", methods: []string{"POST"}, paths: broad, only: 1},
	}}}
	// hr did it at the end of September.
	w.end = windowEnd.AddDate(0, 0, 35)
	w.days = 90
	s, _, _ := suggest(t, w, Caution{AnySeason: true})
	var texts []string
	for _, p := range s.Proposals {
		texts = append(texts, p.Text)
		if p.Kind == RarelyUsed && (p.Held == "" || p.Use.First.IsZero() || p.Use.Users != 1) {
			t.Errorf("%+v", p)
		}
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"group ops in allow/main was used by 1 user in 3 requests on 3 days", "nobody of group sales", "group hr in allow/main is used around the end of a quarter only"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	if !strings.Contains(s.Patch, "groups: [dev, ops, hr]") {
		t.Error(s.Patch)
	}
}

func TestSubtrees(t *testing.T) {
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{[]string{"/api/v2/orders/1", "/api/v2/orders/2"}, "/api/v2/**"},
		{[]string{"/api/v2/orders/1", "/api/v2/items"}, "/api/**"},
		{[]string{"/api"}, "/api/**"},
		{[]string{"/", "/api/x"}, ""},
		{[]string{"/static/x", "/api/x"}, "/api/** /static/**"},
		{[]string{"/a", "/b", "/c", "/d", "/e"}, ""},
		{[]string{"/a/b;c"}, ""},
		{[]string{"/a/ä/x", "/a/ä/y"}, "/a/**"},
		{[]string{"/ä/x", "/ä/y"}, ""},
		{[]string{"/a*b/x"}, ""},
	} {
		var s subtrees
		for _, p := range c.paths {
			s.saw(p, false)
		}
		if globs, _ := s.globs(); strings.Join(globs, " ") != c.want {
			t.Errorf("%q: %q, want %s", c.paths, globs, c.want)
		}
	}
	for _, c := range []struct {
		ours  string
		rules []string
		want  bool
	}{{"/a/**", nil, true}, {"/a/**", []string{"/**"}, true}, {"/a/b/**", []string{"/x", "/a/**"}, true}, {"/ab/**", []string{"/a/**"}, false},
		{"/a/b/**", []string{"/a/*"}, false}, {"/a/**", []string{"/a"}, false}, {"/", []string{"/"}, true}, {"/a/b/**", []string{"/*/b/**"}, false}} {
		if within(c.ours, c.rules) != c.want {
			t.Errorf("%s in %q", c.ours, c.rules)
		}
	}
}
