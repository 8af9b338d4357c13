package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var update = flag.Bool("update", false, "write the golden files")

// environment has what the examples take from the environment.
func environment(name string) (string, bool) {
	value, ok := map[string]string{
		"CORP_CLIENT_SECRET": "a secret", "OIDC_CLIENT_SECRET": "a secret", "REDIS_URL": "rediss://redis.internal:6380", "SESSION_KEY": strings.Repeat("k", 32), "ADMIN_TOKEN": strings.Repeat("t", 32),
	}[name]
	return value, ok
}

// surroundings puts everything the examples name into a new directory.
func surroundings(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := keyPair(t)
	for _, name := range []string{"tls.crt", "upstream.crt", "device-ca.pem", "internal-ca.pem"} {
		write(t, filepath.Join(dir, name), cert)
	}
	for _, name := range []string{"tls.key", "upstream.key", "provider.key"} {
		write(t, filepath.Join(dir, name), key)
	}
	write(t, filepath.Join(dir, "client-secret"), "a secret\n")
	write(t, filepath.Join(dir, "audit-key"), strings.Repeat("a", 32))
	write(t, filepath.Join(dir, "empty"), "\n")
	write(t, filepath.Join(dir, "devices.json"), "[]")
	return dir
}

func keyPair(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// example loads a file of examples/ in a directory where all it names exists.
func example(t *testing.T, name string) *Config {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	dir := surroundings(t)
	path := filepath.Join(dir, name)
	write(t, path, string(text))
	tests := strings.TrimSuffix(name, ".yaml") + testSuffix
	if text, err := os.ReadFile(filepath.Join("..", "examples", tests)); err == nil {
		write(t, filepath.Join(dir, tests), string(text))
	}
	cfg, err := load(path, environment)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return cfg
}

// examples lists the configurations in examples/.
func examples(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("../examples/*.yaml")
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, testSuffix) })
	if err != nil || len(names) < 3 {
		t.Fatalf("%v %v", names, err)
	}
	return names
}

func TestExamplesLoad(t *testing.T) {
	for _, name := range examples(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			cfg := example(t, filepath.Base(name))
			if cfg.Policy == nil || cfg.Table == nil || !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(cfg.Version) {
				t.Errorf("incomplete: %+v", cfg)
			}
		})
	}
}

func TestLoadResolvesPathsAndSecrets(t *testing.T) {
	cfg := example(t, "full.yaml")
	dir := filepath.Dir(cfg.Path)
	for got, want := range map[string]string{
		cfg.Server.TLS.Certificates[0].Cert: "tls.crt",
		cfg.Server.TLS.ClientCA:             "device-ca.pem",
		cfg.Routes[0].UpstreamTLS.CA:        "internal-ca.pem",
		cfg.Routes[0].UpstreamTLS.ClientKey: "upstream.key",
		cfg.Sessions.Store.File.Path:        "doorward.db",
		cfg.Devices.Sources[0].Path:         "devices.json",
		cfg.Audit.To[0].File.Path:           "audit.jsonl",
	} {
		if got != filepath.Join(dir, want) {
			t.Errorf("%q is not below the directory of the file", got)
		}
	}
	if cfg.Providers[0].ClientSecret.Reveal() != "a secret" || cfg.Devices.MaxAge != access.Duration(24*time.Hour) {
		t.Error("secret or embedded section not read")
	}
	// What its owner watches or writes is not ours to watch.
	for _, name := range []string{"doorward.db", "devices.json", "audit.jsonl"} {
		if _, watched := cfg.stamps[filepath.Join(dir, name)]; watched {
			t.Errorf("%s is watched", name)
		}
	}
	for _, name := range []string{"full.yaml", "tls.crt", "tls.key", "upstream.key", "internal-ca.pem"} {
		if _, watched := cfg.stamps[filepath.Join(dir, name)]; !watched {
			t.Errorf("%s is not watched", name)
		}
	}
}

// A relative path means the same wherever doorward is started.
func TestLoadWorksFromAnywhere(t *testing.T) {
	cfg := example(t, "first.yaml")
	t.Chdir(filepath.Dir(cfg.Path))
	again, err := load("first.yaml", environment)
	if err != nil {
		t.Fatal(err)
	}
	if again.Path != cfg.Path || again.Version != cfg.Version || again.Server.TLS.Certificates[0] != cfg.Server.TLS.Certificates[0] {
		t.Error("another configuration")
	}
}

// The README shows the first configuration; it is the one that is tested.
func TestReadmeShowsTheFirstExample(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile("../examples/first.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(readme, append([]byte("```yaml\n"), first...)) {
		t.Error("README.md does not show examples/first.yaml")
	}
	if lines := bytes.Count(first, []byte("\n")); lines > 12 {
		t.Errorf("the first configuration has %d lines", lines)
	}
}

// full.yaml shows every key of every section, alternatives as comments.
func TestFullExampleShowsEveryKey(t *testing.T) {
	text, err := os.ReadFile("../examples/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem())
		case reflect.Struct:
			if seen[typ] || typ == secretType {
				return
			}
			seen[typ] = true
			for _, key := range Keys(typ) {
				if !regexp.MustCompile(`(^|[\s{#,])` + key.Name + `:`).Match(text) {
					t.Errorf("examples/full.yaml does not show %s of %v", key.Name, key.Owner)
				}
				walk(key.Field.Type)
			}
		}
	}
	walk(reflect.TypeFor[File]())
}

// Every kind of mistake in one file, reported in one run.
func TestLoadReportsEverythingAtOnce(t *testing.T) {
	dir := surroundings(t)
	text, err := os.ReadFile("testdata/faults.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "faults.yaml")
	write(t, path, string(text))
	_, err = load(path, environment)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("got %v", err)
	}
	got := strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
	if *update {
		write(t, "testdata/faults.golden", got)
	}
	want, err := os.ReadFile("testdata/faults.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s", got)
	}
	if planted := strings.Count(string(text), "# !"); planted < 25 || len(problems) < planted {
		t.Errorf("%d mistakes planted, %d found", planted, len(problems))
	}
	for n, line := range strings.Split(string(text), "\n") {
		found := slices.ContainsFunc(problems, func(p Problem) bool { return p.Line == n+1 })
		if marked := strings.Contains(line, "# !"); marked != found {
			t.Errorf("line %d: mistake %v, reported %v: %s", n+1, marked, found, line)
		}
	}
}

// base is a good configuration to plant one mistake into.
const base = `version: 1
server:
  listen: 127.0.0.1:8080
providers:
  - {id: corp, issuer: https://login.example.com, client_id: doorward, client_secret: {file: client-secret}}
groups:
  engineers: {provider: corp, claim_groups: [eng]}
routes:
  - id: wiki
    from: http://wiki.localhost:8080
    to: [http://127.0.0.1:3000]
    allow:
      - {name: engineers, groups: [engineers]}
`

func TestBadInput(t *testing.T) {
	for _, test := range []struct {
		name, old, new string
		line           int
		want           string // part of the report
	}{
		{"unknown key", "    allow:", "    alow:", 12, `unknown key "alow"`},
		{"wrong type", "groups: [engineers]", "groups: engineers", 13, "must be a list"},
		{"missing secret file", "client-secret", "gone", 5, "cannot be read: no such file"},
		{"secret in the file", "{file: client-secret}", "hunter2", 5, "a secret may not stand in the configuration"},
		{"certificate that is none", "listen: 127.0.0.1:8080", "trusted_proxies: [127.0.0.1]\n  tls: {certificates: [{cert: empty, key: tls.key}]}", 4, "do not make a certificate"},
		{"authorities that are none", "http://127.0.0.1:3000]", "https://127.0.0.1:3000]\n    upstream_tls: {ca: empty}", 12, "holds no certificate"},
		{"upstream authorities missing", "http://127.0.0.1:3000]", "https://127.0.0.1:3000]\n    upstream_tls: {ca: gone}", 12, "cannot be read"},
		{"route tie", "routes:\n", "routes:\n  - {id: other, from: 'http://wiki.localhost:8080/', to: ['http://127.0.0.1:1'], allow: [{name: x, groups: [engineers]}]}\n", 11, "is also the address of route"},
		{"overlap with the reserved prefix", "wiki.localhost:8080", "wiki.localhost:8080/.doorward/x", 10, "which Doorward keeps for itself"},
		{"unknown group", "groups: [engineers]", "groups: [engineer]", 13, "engineers"},
		{"bad expression", "groups: [engineers]}", "groups: [engineers], when: 'identity.nme =='}", 13, "when"},
		{"version of the future", "version: 1", "version: 2", 1, "this format has the version 1"},
		{"no version", "version: 1\n", "", 1, "write version: 1"},
		{"no route", base[strings.Index(base, "routes:"):], "routes: []\n", 8, "there is no route"},
		{"no provider", base[strings.Index(base, "providers:"):], "routes: [{id: a, from: 'http://a.localhost', to: ['http://127.0.0.1:1'], allow: [{name: x, any_user: true}]}]\n", 1, "there is no provider to log in with"},
		{"group of an unknown provider", "provider: corp", "provider: crop", 7, "corp"},
		{"route with an unknown provider", "    allow:", "    provider: crop\n    allow:", 12, "corp"},
		{"two providers of one id", "groups:\n", "  - {id: corp, issuer: https://other.example.com, client_id: x, client_secret: {file: client-secret}}\ngroups:\n", 6, `"corp" is already the id of providers[0]`},
		{"one client twice", "groups:\n", "  - {id: copy, issuer: https://login.example.com, client_id: doorward, client_secret: {file: client-secret}}\ngroups:\n", 6, "is already providers[0]"},
		{"device claims of just any provider", "groups:\n", "  - {id: partner, issuer: https://p.example.com, client_id: x, client_secret: {file: client-secret}}\ndevices: {sources: [{id: a, type: file, path: d.csv}], match: [claim.deviceid]}\ngroups:\n", 7, "each of them could name any device"},
		{"device claims of an unknown provider", "groups:\n", "devices: {sources: [{id: a, type: file, path: d.csv}], match: [claim.deviceid], claims_from: [crop]}\ngroups:\n", 6, "crop"},
		{"owners of just any provider", "groups:\n", "  - {id: partner, issuer: https://p.example.com, client_id: x, client_secret: {file: client-secret}}\ndevices: {sources: [{id: a, type: file, path: d.csv}], match: [certificate.serial], owner: email}\ngroups:\n", 7, "name anybody as the owner"},
		{"an owner who is compared with nothing", "groups:\n", "devices: {profiles: {mine: {all: [known, owned]}}}\ngroups:\n", 6, "what the owner of a device is compared with"},
		{"revocation of certificates that nobody accepts", "groups:\n", "devices: {certificates: {revocation: {crls: [a.crl]}}}\ngroups:\n", 6, "add server.tls.client_ca"},
		{"https without TLS", "http://wiki.localhost:8080", "https://wiki.localhost", 10, "no visitor arrives by https"},
		{"http with TLS", "listen: 127.0.0.1:8080", "tls: {certificates: [{cert: tls.crt, key: tls.key}]}", 10, "no visitor arrives by http"},
		{"login host is an application", "listen: 127.0.0.1:8080", "listen: 127.0.0.1:8080\n  auth_url: http://WIKI.localhost:8080", 4, "the login host is also the address"},
		{"second document", "routes:", "---\nroutes:", 8, "a second document"},
		{"section of another type", "groups:\n  engineers: {provider: corp, claim_groups: [eng]}", "groups: [engineers]", 6, "must be a mapping, this is a list"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := surroundings(t)
			path := filepath.Join(dir, "doorward.yaml")
			write(t, path, strings.Replace(base, test.old, test.new, 1))
			cfg, err := load(path, environment)
			var problems Problems
			if cfg != nil || !errors.As(err, &problems) {
				t.Fatalf("got %v, %v", cfg, err)
			}
			if len(problems) != 1 {
				t.Errorf("%d problems", len(problems))
			}
			if problems[0].Line != test.line || !strings.Contains(problems[0].String(), test.want) {
				t.Errorf("want line %d and %q", test.line, test.want)
			}
			if t.Failed() {
				t.Log(err)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		path := filepath.Join(surroundings(t), "doorward.yaml")
		write(t, path, base)
		if _, err := load(path, environment); err != nil {
			t.Error(err)
		}
	})
	t.Run("no file", func(t *testing.T) {
		if _, err := Load("gone.yaml"); err == nil || err.Error() != "gone.yaml: the file cannot be read: no such file or directory\n    name the configuration with --config FILE\n1 problem" {
			t.Error(err)
		}
	})
}

func TestVersionFollowsTheContent(t *testing.T) {
	dir := surroundings(t)
	path := filepath.Join(dir, "doorward.yaml")
	version := func(text string) string {
		write(t, path, text)
		cfg, err := load(path, environment)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Version
	}
	first := version(base)
	if first == version(base+"# more\n") {
		t.Error("another file, the same version")
	}
	write(t, filepath.Join(dir, "client-secret"), "another")
	if first != version(base) {
		t.Error("the version, which is logged, depends on a secret")
	}
}

func TestProblemsAsJSON(t *testing.T) {
	text, err := json.Marshal(Problems{{File: "d.yaml", Line: 3, Column: 5, Path: "routes[0].alow", Text: `unknown key "alow"`, Cure: "did you mean allow?"}})
	want := `[{"file":"d.yaml","line":3,"column":5,"path":"routes[0].alow","text":"unknown key \"alow\"","cure":"did you mean allow?"}]`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}

// A key can hold escape sequences; the terminal of the operator must not obey.
func TestProblemsHoldNoControlCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doorward.yaml")
	write(t, path, "version: 1\n\"\\e[2J\": 1\n\"a\\nb\": 1\n\"\\e[2J\": 1\n")
	_, err := load(path, environment)
	if err == nil || strings.ContainsAny(err.Error(), "\x1b\x00") || strings.Count(err.Error(), "\na") > 0 || strings.Contains(err.Error(), "a\nb") {
		t.Errorf("%q", err)
	}
}

// Whatever stands in the file, Load returns a configuration or problems with a
// place inside the file, and reads nothing but regular files.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"../examples/*.yaml", "testdata/*.yaml"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	for _, text := range []string{
		base, "", "~", "- a", "a: &a [*a]", "<<: {a: b}", "? {a: b}\n: c", "version: !!binary MQ==", "routes: [[[[{", "\xef\xbb\xbfversion: 1",
		"sessions: {key: {file: /dev/zero}}", "server: {tls: {client_ca: /dev/stdin}}", "groups: {\"\": {}, ~: {}}", "routes: [{allow: [{claims: {a: [1]}}]}]",
		"server: {config: {listen: x}}", "a: b\n\tc: d", "x: \"\\ud800\"", "\xff\xfe", "%YAML 1.1\n---\nversion: 1",
	} {
		f.Add([]byte(text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "doorward.yaml")
		write(t, path, string(text))
		cfg, err := load(path, func(string) (string, bool) { return "", false })
		var problems Problems
		switch {
		case err == nil:
			if cfg.Policy == nil || cfg.Table == nil || cfg.File.Version != 1 {
				t.Errorf("accepted: %+v", cfg)
			}
		case !errors.As(err, &problems) || len(problems) == 0 || cfg != nil:
			t.Errorf("got %v and %v", cfg, err)
		}
		lines := 1 + bytes.Count(text, []byte("\n"))
		for _, p := range problems {
			if p.Line < 0 || p.Line > lines+bytes.Count(text, []byte("\r"))+bytes.Count(text, []byte("\u0085"))+bytes.Count(text, []byte("\u2028"))+bytes.Count(text, []byte("\u2029")) || p.Text == "" || p.File != path {
				t.Errorf("nowhere: %+v", p)
			}
		}
	})
}

// The token for a cluster is found beside the configuration, like everything else.
func TestKubernetesTokenBesideTheFile(t *testing.T) {
	path := filepath.Join(surroundings(t), "doorward.yaml")
	write(t, path, strings.Replace(base, "groups:", "  - {id: ci, issuer: kubernetes, audiences: [doorward], kubernetes: {token_file: token}}\ngroups:", 1))
	cfg, err := load(path, environment)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Providers[1].Kubernetes.TokenFile; got != filepath.Join(filepath.Dir(path), "token") {
		t.Errorf("%q", got)
	}
}
