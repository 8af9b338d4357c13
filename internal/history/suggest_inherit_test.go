package history

import (
	"strings"
	"testing"
)

// A route that nobody used stays where another one would answer for its address
// once it is gone, for that one may let in whom this one keeps out: one for the
// rest of the host, or one for all hosts around it.
func TestSuggestOpensNoAddressToAnotherRoute(t *testing.T) {
	w := newWorld(t, 5)
	w.hire(16)
	w.routes = []app{
		{id: "wiki", yaml: "  - id: wiki\n    from: https://wiki.example.com\n    to: [http://127.0.0.1:3000]\n    allow: [{name: main, groups: [dev]}]\n",
			habits: []habit{{group: "dev", methods: []string{"GET", "POST"}, paths: broad, perDay: 1}}},
		{id: "admin", yaml: "  - id: admin\n    from: https://wiki.example.com/admin/\n    to: [http://127.0.0.1:3000]\n    allow: [{name: main, groups: [ops]}]\n"},
		{id: "foo", yaml: "  - id: foo\n    from: https://one.apps.example.com/foo/\n    to: [http://127.0.0.1:3000]\n    allow: [{name: main, groups: [ops]}]\n"},
		{id: "bar", yaml: "  - id: bar\n    from: https://one.apps.example.com/bar/\n    to: [http://127.0.0.1:3000]\n    allow: [{name: main, groups: [ops]}]\n"},
		{id: "two.apps", yaml: "  - id: two.apps\n    from: https://*.apps.example.com\n    to: [http://127.0.0.1:3000]\n    allow: [{name: main, groups: [dev]}]\n",
			habits: []habit{{group: "dev", methods: []string{"GET", "POST"}, paths: broad, perDay: 1}}},
		{id: "other", yaml: "  - id: other\n    from: https://other.example.com\n    to: [http://127.0.0.1:3000]\n    allow: [{name: main, groups: [ops]}]\n"},
	}
	s, _, _ := suggest(t, w, Caution{})
	var removed, held []string
	for _, p := range s.Proposals {
		if p.Held == "" {
			removed = append(removed, p.Route)
		} else {
			held = append(held, p.Route)
		}
	}
	if got := strings.Join(removed, " "); got != "other" {
		t.Errorf("the patch removes %s, want other:\n%s", got, s.Patch)
	}
	if got := strings.Join(held, " "); got != "admin foo bar" {
		t.Errorf("held back are %s, want admin foo bar", got)
	}
}
