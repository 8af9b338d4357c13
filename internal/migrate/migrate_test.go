package migrate

import (
	"errors"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

var update = flag.Bool("update", false, "write the golden files")

func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// samples are configurations in the documented form of each product.
var samples = map[string]func(t testing.TB) (*Result, error){
	"oauth2-proxy": func(t testing.TB) (*Result, error) { return OAuth2Proxy(read(t, "oauth2-proxy.cfg"), nil) },
	"oauth2-proxy-alpha": func(t testing.TB) (*Result, error) {
		return OAuth2Proxy(read(t, "oauth2-proxy-main.cfg"), read(t, "oauth2-proxy-alpha.yaml"))
	},
	"oauth2-proxy-alone": func(t testing.TB) (*Result, error) { return OAuth2Proxy(nil, read(t, "oauth2-proxy-alpha.yaml")) },
	"pomerium":           func(t testing.TB) (*Result, error) { return Pomerium(read(t, "pomerium.yaml")) },
	"authelia":           func(t testing.TB) (*Result, error) { return Authelia(read(t, "authelia.yaml")) },
	"oathkeeper":         func(t testing.TB) (*Result, error) { return Oathkeeper(read(t, "oathkeeper.json")) },
}

// load loads what an importer wrote, as doorward check would.
func load(t testing.TB, text string) (*config.Config, error) {
	t.Helper()
	for _, name := range []string{"OAUTH2_PROXY_CLIENT_SECRET", "POMERIUM_IDP_CLIENT_SECRET", "AUTHELIA_CLIENT_SECRET", "CLIENT_SECRET"} {
		t.Setenv(name, "a secret")
	}
	return config.LoadText(filepath.Join(t.TempDir(), "doorward.yaml"), []byte(text))
}

// What is written is good, passes doorward check, and says what is missing.
func TestSamplesPassTheCheck(t *testing.T) {
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) {
			result, err := sample(t)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := load(t, result.Config)
			if err != nil {
				t.Fatalf("%v\n%s", err, result.Config)
			}
			for _, f := range cfg.Analyse() {
				if f.Severity == access.SevereError && f.Accepted == "" {
					t.Errorf("line %d: %s [%s %s]", f.Line, f.Text, f.Kind, f.At)
				}
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(result.Config), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(read(t, name+".golden")); result.Config != want {
				t.Errorf("got\n%s", result.Config)
			}
			for _, left := range result.Left {
				if left.What == "" || left.Text == "" || !strings.Contains(result.Config, "# - "+string(left.Effect)) {
					t.Errorf("incomplete: %+v", left)
				}
			}
		})
	}
}

// What somebody may do is what the other product would have let them do, or less.
func TestNothingBecomesLooser(t *testing.T) {
	person := func(provider, email string, groups ...string) access.Someone {
		return access.Someone{Provider: provider, Sub: "x", Email: email, Username: strings.Split(email, "@")[0], Groups: groups}
	}
	configs := map[string]*config.Config{}
	for name, sample := range samples {
		result, err := sample(t)
		if err != nil {
			t.Fatal(err)
		}
		if configs[name], err = load(t, result.Config); err != nil {
			t.Fatal(err)
		}
	}
	strong := func(who access.Someone) access.Someone { who.ACR = "mfa"; return who }
	from := func(ip string, who access.Someone) access.Someone { who.IP = ip; return who }
	unverified := func(who access.Someone) access.Someone { who.EmailVerified = access.No; return who }
	nobody := access.Someone{}
	service := access.Someone{Provider: "issuer-1", Sub: "svc", Machine: true, Scopes: []string{"orders.read", "orders.list"}}
	for _, test := range []struct {
		sample, method, url string
		who                 access.Someone
		want                access.Outcome
	}{
		{"oauth2-proxy", "GET", "https://wiki.example.com/", person("corp", "a@example.com", "eng"), access.Allow},
		{"oauth2-proxy", "GET", "https://wiki.example.com/", person("corp", "a@example.com", "Site Reliability"), access.Allow},
		{"oauth2-proxy", "GET", "https://wiki.example.com/api/x", person("corp", "a@dev.partners.example.com", "eng"), access.Allow},
		{"oauth2-proxy", "GET", "https://wiki.example.com/", person("corp", "a@example.com", "sales"), access.Deny},
		{"oauth2-proxy", "GET", "https://wiki.example.com/", person("corp", "a@evil-example.com", "eng"), access.Deny},
		{"oauth2-proxy", "GET", "https://wiki.example.com/", unverified(person("corp", "a@example.com", "eng")), access.Deny},
		{"oauth2-proxy", "GET", "https://wiki.example.com/health", nobody, access.Allow},
		{"oauth2-proxy", "POST", "https://wiki.example.com/health", nobody, access.Challenge},
		{"oauth2-proxy", "GET", "https://wiki.example.com/static/a/b.css", nobody, access.Allow},
		{"oauth2-proxy", "GET", "https://wiki.example.com/staticky", nobody, access.Challenge},
		{"oauth2-proxy", "GET", "https://wiki.example.com/api/v1/status", nobody, access.Challenge},
		{"oauth2-proxy", "GET", "https://wiki.example.com/", from("10.0.0.1", nobody), access.Challenge},

		{"oauth2-proxy-alpha", "GET", "https://tools.example.com/", person("keycloak", "a@b.example", "ops"), access.Allow},
		{"oauth2-proxy-alpha", "GET", "https://tools.example.com/grafana/x", person("keycloak", "a@b.example", "ops"), access.Allow},
		{"oauth2-proxy-alpha", "GET", "https://tools.example.com/", person("keycloak", "a@b.example", "eng"), access.Deny},
		{"oauth2-proxy-alone", "GET", "https://app.invalid/", person("keycloak", "a@b.example", "ops"), access.Deny},

		{"pomerium", "GET", "https://wiki.example.com/", person("corp", "a@example.com"), access.Allow},
		{"pomerium", "GET", "https://wiki.example.com/", person("corp", "guest@partner.example.net"), access.Allow},
		{"pomerium", "GET", "https://wiki.example.com/", person("corp", "x@partner.example.net", "contractors"), access.Allow},
		{"pomerium", "GET", "https://wiki.example.com/", person("corp", "x@partner.example.net"), access.Deny},
		{"pomerium", "DELETE", "https://wiki.example.com/", person("corp", "intern@example.com"), access.Deny},
		{"pomerium", "DELETE", "https://wiki.example.com/", unverified(person("corp", "intern@example.com", "contractors")), access.Deny},
		{"pomerium", "GET", "https://wiki.example.com/", person("corp", "intern@example.com"), access.Allow},
		{"pomerium", "GET", "https://wiki.example.com/admin/users/7", from("10.1.1.1", access.Someone{Provider: "corp", Sub: "x", Groups: []string{"admins"}, Claims: map[string]any{"department": "it"}}), access.Allow},
		{"pomerium", "GET", "https://wiki.example.com/admin/users/7", from("10.1.1.1", person("corp", "a@example.com", "admins")), access.Deny},
		{"pomerium", "GET", "https://wiki.example.com/admin/other", from("10.1.1.1", access.Someone{Provider: "corp", Sub: "x", Groups: []string{"admins"}, Claims: map[string]any{"department": "it"}}), access.Deny},
		{"pomerium", "GET", "https://payroll.example.com/", person("corp", "a@example.com", "finance"), access.Deny},
		{"pomerium", "GET", "https://status.example.com/x", nobody, access.Allow},
		{"pomerium", "GET", "https://api.example.com/v1/x", person("corp", "a@example.com", "strict"), access.Deny},
		{"pomerium", "GET", "https://api.example.com/v1/x", person("corp", "a@example.com"), access.Deny},
		{"pomerium", "GET", "https://one.example.com/only/this", person("corp", "a@b.example"), access.Allow},
		{"pomerium", "GET", "https://one.example.com/only/this/too", person("corp", "a@b.example"), access.Deny},
		{"pomerium", "GET", "https://night.example.com/", person("corp", "a@example.com"), access.Deny},

		{"authelia", "GET", "https://public.example.com/assets/x.css", nobody, access.Allow},
		{"authelia", "GET", "https://wiki.example.com/", nobody, access.Challenge}, // rule 4 comes after rule 3
		{"authelia", "GET", "https://wiki.example.com/", from("10.0.0.1", person("authelia", "bob@example.com")), access.Allow},
		{"authelia", "POST", "https://wiki.example.com/", from("10.0.0.1", person("authelia", "bob@example.com")), access.Deny},
		{"authelia", "GET", "https://wiki.example.com/", from("198.51.100.1", person("authelia", "bob@example.com")), access.Deny},
		{"authelia", "GET", "https://wiki.example.com/admin", strong(person("authelia", "bob@example.com", "admins", "it")), access.Allow},
		{"authelia", "GET", "https://wiki.example.com/admin", person("authelia", "bob@example.com", "admins", "it"), access.Challenge},
		{"authelia", "GET", "https://wiki.example.com/admin", strong(from("192.0.2.1", person("authelia", "bob@example.com", "admins"))), access.Deny},
		{"authelia", "GET", "https://wiki.example.com/admin", strong(person("authelia", "adam@example.com")), access.Allow},
		{"authelia", "GET", "https://wiki.example.com/admin", from("203.0.113.7", strong(person("authelia", "adam@example.com"))), access.Deny},
		{"authelia", "GET", "https://docs.example.com/v1/x", person("authelia", "bob@example.com"), access.Allow},
		{"authelia", "GET", "https://docs.example.com/v1/x", from("203.0.113.7", person("authelia", "bob@example.com")), access.Deny},
		{"authelia", "GET", "https://docs.example.com/vx/x", person("authelia", "bob@example.com"), access.Deny},
		{"authelia", "GET", "https://docs.example.com/drafts/1", person("authelia", "bob@example.com", "guests", "admins"), access.Deny},
		{"authelia", "GET", "https://closed.example.com/", person("authelia", "bob@example.com"), access.Deny},
		{"authelia", "GET", "https://query.example.com/?secure=1", person("authelia", "bob@example.com"), access.Deny},
		{"authelia", "GET", "https://user-bob.example.com/", person("authelia", "bob@example.com"), access.Deny},

		{"oathkeeper", "GET", "https://app.example.com/assets/x/y", nobody, access.Allow},
		{"oathkeeper", "POST", "https://app.example.com/assets/x/y", nobody, access.Challenge},
		{"oathkeeper", "GET", "https://app.example.com/orders/77", service, access.Allow},
		{"oathkeeper", "GET", "https://app.example.com/orders/77/x", service, access.Deny},
		{"oathkeeper", "POST", "https://app.example.com/orders/77", service, access.Deny},
		{"oathkeeper", "GET", "https://app.example.com/orders/77", access.Someone{Provider: "issuer-1", Sub: "svc", Machine: true, Scopes: []string{"orders.read"}}, access.Deny},
		{"oathkeeper", "GET", "https://admin.example.com/x", service, access.Deny},
	} {
		cfg := configs[test.sample]
		target, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		req, err := proxy.Imagine(cfg.Table, test.method, target)
		if err != nil {
			t.Fatal(err)
		}
		if err := cfg.As(req, &test.who); err != nil {
			t.Fatalf("%s: %v", test.sample, err)
		}
		if d := cfg.Policy.Decide(req); d.Outcome != test.want {
			t.Errorf("%s: %s %s as %+v: %s (%s %s), want %s", test.sample, test.method, test.url, test.who, d.Outcome, d.Reason, d.Rule, test.want)
		}
	}
}

func TestFaultySourcesHaveALine(t *testing.T) {
	long := strings.Repeat("x", maxSource+1)
	for _, test := range []struct {
		name string
		run  func() (*Result, error)
		want string
	}{
		{"toml without value", func() (*Result, error) { return OAuth2Proxy([]byte("a = \"b\"\nupstreams\n"), nil) }, "line 2: there is no ="},
		{"toml quote", func() (*Result, error) { return OAuth2Proxy([]byte("a = \"b\n"), nil) }, "line 1: a quote is not closed"},
		{"toml list", func() (*Result, error) { return OAuth2Proxy([]byte("\nupstreams = [\"a\" \"b\"]"), nil) }, "line 2: the list is not closed"},
		{"toml table", func() (*Result, error) { return OAuth2Proxy([]byte("[a]"), nil) }, "line 1: write key = value"},
		{"toml rest", func() (*Result, error) { return OAuth2Proxy([]byte("a = 1 2"), nil) }, "line 1: something follows"},
		{"toml twice", func() (*Result, error) { return OAuth2Proxy([]byte("a = 1\na = 2"), nil) }, `"a" is written twice`},
		{"toml word", func() (*Result, error) { return OAuth2Proxy([]byte("a = maybe"), nil) }, "put text in quotes"},
		{"toml flag", func() (*Result, error) { return OAuth2Proxy([]byte("skip_auth_preflight = \"perhaps\""), nil) }, "line 1: skip_auth_preflight must be true or false"},
		{"too long", func() (*Result, error) { return Pomerium([]byte(long)) }, "larger than"},
		{"too long toml", func() (*Result, error) { return OAuth2Proxy([]byte(long), nil) }, "larger than"},
		{"no yaml", func() (*Result, error) { return Pomerium([]byte("a: [")) }, "neither YAML nor JSON"},
		{"empty", func() (*Result, error) { return Authelia(nil) }, "empty"},
		{"alias", func() (*Result, error) { return Pomerium([]byte("a: &x [1]\nroutes: [*x]")) }, "line 2: aliases"},
		{"two documents", func() (*Result, error) { return Pomerium([]byte("a: 1\n---\nb: 2")) }, "second document"},
		{"deep", func() (*Result, error) { return Pomerium([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))) }, "nested more"},
		{"twice", func() (*Result, error) { return Pomerium([]byte("routes: []\nroutes: []")) }, `"routes" is written twice`},
		{"a list", func() (*Result, error) { return Pomerium([]byte("routes: {}")) }, "line 1: routes must be a list"},
		{"no routes", func() (*Result, error) { return Pomerium([]byte("routes: []")) }, "nothing in this file is a route"},
		{"policy", func() (*Result, error) {
			return Authelia([]byte("access_control:\n  rules:\n    - {domain: a.example.com, policy: three_factor}"))
		}, "line 3: \"three_factor\" is no policy"},
		{"no list", func() (*Result, error) { return Oathkeeper([]byte("{}")) }, "must be a list"},
		{"bracket", func() (*Result, error) {
			return Oathkeeper([]byte("- {id: x, match: {url: 'https://a.example.com/<x', methods: [GET]}}"))
		}, "is not closed"},
	} {
		_, err := test.run()
		var p *Problem
		if !errors.As(err, &p) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestPatterns(t *testing.T) {
	for re, want := range map[string]string{
		"^/api.*$": "/api*/**", "^/api": "/api*/**", "^/static/": "/static/*/**", "^/health$": "/health", `^/favicon\.ico$`: "/favicon.ico",
		"^/api(/.*)?$": "/api/**", "^/api([/?].*)?$": "/api/**", ".*": "/**", "^/": "/**", "": "/**",
		"^/v[0-9]+/": "when ^/v[0-9]+/", "api": "when api", "^/a|^/b": "when ^/a|^/b", "^/users/[^/]+$": "when ^/users/[^/]+$",
		"^/a//b$": "when ^/a//b$", "^/a%2f$": "when ^/a%2f$", "^/a*$": "when ^/a*$",
	} {
		p, ok := regexPattern(re)
		got := strings.Join(p.globs, " ")
		if p.regex != "" {
			got = "when " + p.regex
		}
		if !ok || got != want {
			t.Errorf("%q: %q %v", re, got, ok)
		}
	}
	for _, re := range []string{"(?=x)", "(", strings.Repeat("a", maxRegex+1)} {
		if _, ok := regexPattern(re); ok {
			t.Errorf("%.20q is understood", re)
		}
	}
	for re, want := range map[string]string{"^/orders/(?:[0-9]+)$": "/orders/*/**", "^/v[0-9]": "/v*/**", "^/ab?": "/a*/**", "^/a|/b": "", "x": "", "^/a(b|c)": "/a*/**"} {
		if got := strings.Join(pattern{regex: re}.around(), " "); got != want {
			t.Errorf("around %s: %q", re, got)
		}
	}
}

// Whatever comes in, an importer ends with a problem or with a configuration
// that can be loaded.
func FuzzImport(f *testing.F) {
	for kind, name := range []string{"oauth2-proxy.cfg", "oauth2-proxy-alpha.yaml", "pomerium.yaml", "authelia.yaml", "oathkeeper.json"} {
		f.Add(uint8(kind), read(f, name))
	}
	f.Fuzz(func(t *testing.T, kind uint8, text []byte) {
		run := []func() (*Result, error){
			func() (*Result, error) { return OAuth2Proxy(text, nil) },
			func() (*Result, error) { return OAuth2Proxy(nil, text) },
			func() (*Result, error) { return Pomerium(text) },
			func() (*Result, error) { return Authelia(text) },
			func() (*Result, error) { return Oathkeeper(text) },
		}[kind%5]
		result, err := run()
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		if _, err := load(t, result.Config); err != nil {
			t.Fatalf("%v\n%s", err, result.Config)
		}
	})
}
