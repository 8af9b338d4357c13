package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// The examples show how policies are tested, and pass.
func TestExamplesPassTheirTests(t *testing.T) {
	for _, name := range examples(t) {
		cfg := example(t, filepath.Base(name))
		tests, err := cfg.AllTests()
		if err != nil || len(tests) < 3 {
			t.Errorf("%s: %d tests, %v", name, len(tests), err)
		}
		for i := range tests {
			if r := cfg.Rehearse(&tests[i]); len(r.Wrong) > 0 {
				t.Errorf("%s: %s: %v", name, tests[i].Name, r.Wrong)
			}
		}
	}
}

// testedPolicy has one rule of every kind.
const testedPolicy = `version: 1
server: {listen: 127.0.0.1:8080, trusted_proxies: [127.0.0.1]}
providers:
  - {id: corp, issuer: https://login.example.com, client_id: doorward, client_secret: {file: client-secret}}
  - {id: partners, issuer: https://p.example.com, client_id: doorward, client_secret: {file: client-secret}, trust: {groups: none}}
devices:
  sources: [{id: inventory, type: file, path: devices.json}]
  match: [certificate.serial]
  profiles:
    managed: {all: [known, managed]}
    healthy: {all: [managed, disk_encrypted]}
groups:
  engineers: {provider: corp, claim_groups: [eng]}
  guests: {provider: partners, claim_groups: [all]}
defaults: {require: {device: managed}}
routes:
  - id: app
    from: https://app.example.com
    to: [http://127.0.0.1:3000]
    require: {device: healthy}
    allow:
      - {name: staff, groups: [engineers]}
      - {name: guests, groups: [guests], methods: [GET]}
    deny: [{name: no-deletes, methods: [DELETE], unless: "network.ip.startsWith('10.')", message: Not from here.}]
    rules: [{paths: ["/admin/**"], require: {login: {acr: [mfa], amr: [hwk], max_age: 1h, phishing_resistant: true}}}]
    public: [{name: health, methods: [GET], paths: [/health]}]
`

func tested(t *testing.T, tests string) (*Config, error) {
	t.Helper()
	path := filepath.Join(surroundings(t), "doorward.yaml")
	write(t, path, testedPolicy+tests)
	return load(path, os.LookupEnv)
}

// Every expectation passes where it holds and fails where it does not.
func TestExpectations(t *testing.T) {
	const eng, strong = "as: {provider: corp, groups: [eng]}", "as: {provider: corp, groups: [eng], acr: phr, amr: [hwk]}"
	for _, test := range []struct{ request, right, wrong string }{
		{eng + ", device: healthy, get: 'https://app.example.com/'", "expect: allow", "expect: deny"},
		{eng + ", device: healthy, get: 'https://app.example.com/'", "expect: allow, rule: allow/staff", "expect: allow, rule: guests"},
		{eng + ", device: healthy, get: 'https://app.example.com/'", "expect: allow, reason: allowed", "expect: allow, reason: public"},
		{"get: 'https://app.example.com/'", "expect: challenge, missing: login, reason: login_required", "expect: challenge, missing: device"},
		{"get: 'https://app.example.com/health'", "expect: allow, rule: health", "expect: challenge"},
		{eng + ", get: 'https://app.example.com/'", "expect: deny, missing: device.healthy", "expect: deny"},
		{eng + ", get: 'https://app.example.com/'", "expect: challenge, missing: device", "expect: challenge, missing: login"},
		{eng + ", get: 'https://app.example.com/'", "expect: challenge, missing: device.managed", "expect: challenge, missing: device.disk_encrypted"},
		{eng + ", device: managed, get: 'https://app.example.com/'", "expect: deny, missing: device.disk_encrypted", "expect: deny, missing: device.managed"},
		{eng + ", device: healthy, get: 'https://app.example.com/admin/'", "expect: challenge, missing: login.acr", "expect: deny, missing: login.acr"},
		{eng + ", device: healthy, get: 'https://app.example.com/admin/'", "expect: challenge, missing: login.amr", "expect: challenge, missing: login.max_age"},
		{strong + ", device: healthy, get: 'https://app.example.com/admin/'", "expect: allow", "expect: challenge, missing: login.phishing_resistant"},
		{eng + ", device: healthy, delete: 'https://app.example.com/x', from: 192.0.2.7", "expect: deny, message: Not from here.", "expect: deny, message: Go away."},
		{eng + ", device: healthy, delete: 'https://app.example.com/x', from: 10.0.0.7", "expect: allow", "expect: deny, rule: no-deletes"},
		{"as: {provider: corp, groups: [sales]}, device: healthy, get: 'https://app.example.com/'", "expect: deny, missing: groups", "expect: deny, missing: methods"},
		// Nobody believes this provider's groups, in a test as live.
		{"as: {provider: partners, groups: [all]}, device: healthy, get: 'https://app.example.com/'", "expect: deny, reason: not_allowed", "expect: allow"},
		{"url: 'https://app.example.com/', method: PURGE, as: {provider: corp, groups: [eng]}, device: healthy", "expect: allow", "expect: deny"},
		{"get: 'https://other.example.com/'", "expect: deny, reason: no_route", "expect: allow, reason: no_route"},
		{"get: 'https://app.example.com/a//b'", "expect: deny, reason: ambiguous_path", "expect: challenge, reason: ambiguous_path"},
	} {
		cfg, err := tested(t, "tests:\n  - {name: right, "+test.request+", "+test.right+"}\n  - {name: wrong, "+test.request+", "+test.wrong+"}\n")
		if err != nil {
			t.Errorf("%s: %v", test.request, err)
			continue
		}
		if r := cfg.Rehearse(&cfg.Tests[0]); len(r.Wrong) > 0 {
			t.Errorf("%s, %s: %v", test.request, test.right, r.Wrong)
		}
		if r := cfg.Rehearse(&cfg.Tests[1]); len(r.Wrong) == 0 {
			t.Errorf("%s, %s: passed: %+v", test.request, test.wrong, r.Decision)
		}
	}
}

// A test means the same at every hour.
func TestTestsHaveAClockOfTheirOwn(t *testing.T) {
	cfg, err := tested(t, "tests:\n  - {name: a, get: 'https://app.example.com/', expect: challenge}\n"+
		"  - {name: b, get: 'https://app.example.com/', at: 2026-11-23T09:00:00+01:00, expect: challenge}\n")
	if err != nil {
		t.Fatal(err)
	}
	if at := cfg.Rehearse(&cfg.Tests[0]).Request.Time; !at.Equal(noon) || at.Weekday() != time.Wednesday {
		t.Errorf("decided for %s", at)
	}
	if at := cfg.Rehearse(&cfg.Tests[1]).Request.Time; at.UTC().Hour() != 8 {
		t.Errorf("decided for %s", at)
	}
	if file, line, column := cfg.Tests[1].Place(); file != cfg.Path || line != strings.Count(testedPolicy, "\n")+3 || column != 5 {
		t.Errorf("%s:%d:%d", file, line, column)
	}
}

func TestFaultyTestsAreFaultsOfTheConfiguration(t *testing.T) {
	const good = "name: a, get: 'https://app.example.com/', expect: allow"
	first := strings.Count(testedPolicy, "\n") + 2
	for _, test := range []struct {
		name  string
		entry string // with a mark where the mistake is
		want  string
	}{
		{"unknown key", good + ", ^devcie: none", "did you mean device?"},
		{"no name", "^get: 'https://app.example.com/', expect: allow", "no name"},
		{"nothing asked", "^name: a, expect: allow", "asks for nothing"},
		{"two requests", "^" + good + ", post: 'https://app.example.com/'", "asks for several things"},
		{"method without url", good + ", method: ^PUT", "method belongs to url"},
		{"no expectation", "^name: a, get: 'https://app.example.com/'", "nothing a policy says"},
		{"misspelt expectation", "name: a, get: 'https://app.example.com/', expect: ^alow", "did you mean allow?"},
		{"unknown provider", good + ", as: {provider: ^crop}", "did you mean corp?"},
		{"our name of a group", good + ", as: {provider: corp, groups: [^engineers]}", "such as eng"},
		{"unknown route", "name: a, get: ^'https://ap.example.com/', expect: allow", "no route publishes"},
		{"unknown profile", good + ", device: ^helthy", "did you mean healthy?"},
		{"unknown rule", good + ", rule: ^staf", "did you mean allow/staff?"},
		{"unknown requirement", "name: a, get: 'https://app.example.com/', expect: deny, missing: ^device.helthy", "did you mean device.healthy?"},
		{"unknown part of a login", "name: a, get: 'https://app.example.com/', expect: challenge, missing: ^login.arc", "did you mean login.acr?"},
		{"unknown condition", "name: a, get: 'https://app.example.com/', expect: deny, missing: ^group", "did you mean groups?"},
		{"missing and allowed", good + ", missing: ^device", "nothing is missing"},
		{"unknown reason", "name: a, get: 'https://app.example.com/', expect: deny, reason: ^not_alowed", "did you mean not_allowed?"},
		{"message without deny", good + ", message: ^no", "only a deny rule"},
		{"no instant", good + ", at: ^noon", "no instant"},
		{"no address", good + ", from: ^home", "no address"},
		{"two addresses", good + ", from: ^10.0.0.1, as: {ip: 10.0.0.2}", "as.ip"},
		{"refused before any policy", "name: a, get: ^'https://app.example.com/a//b', expect: deny", "add reason: ambiguous_path"},
		{"no URL", "name: a, get: ^app.example.com, expect: deny", "write https://"},
	} {
		entry := "  - {" + test.entry + "}"
		column := 1 + strings.Index(entry, "^")
		if test.entry[0] == '^' {
			column-- // a fault of the entry is reported at its brace
		}
		_, err := tested(t, "tests:\n"+strings.Replace(entry, "^", "", 1)+"\n")
		problems, ok := err.(Problems)
		if !ok || len(problems) != 1 {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if p := problems[0]; p.Line != first || p.Column != column || !strings.Contains(p.String(), test.want) {
			t.Errorf("%s: wanted column %d and %q: %s", test.name, column, test.want, p)
		}
	}
	if _, err := tested(t, "tests:\n  - {"+good+"}\n  - {"+good+"}\n"); err == nil || !strings.Contains(err.Error(), "is the name of another test") {
		t.Errorf("two tests of one name: %v", err)
	}
}

func TestTestFilesBelongToTheirConfiguration(t *testing.T) {
	cfg, err := tested(t, "tests:\n  - {name: inside, get: 'https://app.example.com/', expect: challenge}\n")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(cfg.Path)
	put := func(name, test string) {
		write(t, filepath.Join(dir, name), "tests:\n  - {name: "+test+", get: 'https://app.example.com/', expect: challenge}\n")
	}
	names := func() string {
		tests, err := cfg.AllTests()
		if err != nil {
			return err.Error()
		}
		var list []string
		for i := range tests {
			list = append(list, tests[i].Name)
		}
		return strings.Join(list, " ")
	}
	put("doorward_test.yaml", "own")
	put("billing_test.yaml", "shared")
	put("other_test.yaml", "foreign")
	write(t, filepath.Join(dir, "other.yaml"), testedPolicy)
	if got := names(); got != "inside shared own" {
		t.Error(got)
	}
	put("billing_test.yaml", "own")
	if got := names(); !strings.Contains(got, "doorward_test.yaml:2:12: tests[0].name: \"own\" is the name of another test in billing_test.yaml") {
		t.Error(got)
	}
	write(t, filepath.Join(dir, "billing_test.yaml"), "tests:\n  - {name: x, gett: 'https://app.example.com/', expect: challenge}\nroutes: []\n")
	if got := names(); !strings.Contains(got, `billing_test.yaml:2:15: tests[0].gett: unknown key "gett"`) || !strings.Contains(got, `billing_test.yaml:3:1: routes: unknown key`) {
		t.Error(got)
	}
	// Serving never reads them.
	if _, err := load(cfg.Path, os.LookupEnv); err != nil {
		t.Error(err)
	}
}

// Deciding leaves the test as it was written.
func TestRehearsalChangesNothing(t *testing.T) {
	cfg, err := tested(t, "tests:\n  - {name: a, as: {provider: corp, groups: [b, a]}, get: 'https://app.example.com/', expect: challenge}\n")
	if err != nil {
		t.Fatal(err)
	}
	first, second := cfg.Rehearse(&cfg.Tests[0]), cfg.Rehearse(&cfg.Tests[0])
	if !slices.Equal(cfg.Tests[0].As.Groups, []string{"b", "a"}) || first.Request.Session != (access.Session{}) || !reflect.DeepEqual(first, second) {
		t.Errorf("%+v, then %+v", first, second)
	}
}
