package migrate

import (
	"strings"
	"testing"
)

// What an earlier rule keeps to those who log in is not made public by a later
// one, also where the earlier one cannot be written.
func TestNothingBecomesPublicBehindARuleLeftOut(t *testing.T) {
	authelia := func(first string) string {
		return "access_control:\n  rules:\n    - " + first + "\n    - {domain: secure-a.example.com, policy: bypass}\n"
	}
	oathkeeper := func(authenticators string) string {
		return "- {id: x, match: {url: 'https://app.example.com/<.*>', methods: [GET]}, authenticators: [" + authenticators + "], authorizer: {handler: allow}}\n"
	}
	for _, test := range []struct {
		name   string
		read   func([]byte) (*Result, error)
		text   string
		public bool
	}{
		{"hosts by expression", Authelia, authelia("{domain_regex: '^secure-.*$', policy: one_factor}"), false},
		{"hosts by user", Authelia, authelia("{domain: '{user}.example.com', policy: two_factor}"), false},
		{"other paths", Authelia, authelia("{domain_regex: '^secure-.*$', resources: ['^/a$'], policy: one_factor}"), false},
		{"public as well", Authelia, authelia("{domain_regex: '^secure-.*$', policy: bypass}"), true},
		{"anybody", Oathkeeper, oathkeeper("{handler: noop}"), true},
		{"with a token or without", Oathkeeper, oathkeeper("{handler: jwt}, {handler: anonymous}"), true},
		{"nobody, then anybody", Oathkeeper, oathkeeper("{handler: unauthorized}, {handler: noop}"), false},
		{"who knows, then anybody", Oathkeeper, oathkeeper("{handler: ours}, {handler: noop}"), false},
	} {
		result, err := test.read([]byte(test.text))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := strings.Contains(result.Config, "public:"); got != test.public {
			t.Errorf("%s: public %v, want %v\n%s", test.name, got, test.public, result.Config)
		}
	}
}
