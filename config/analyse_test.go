package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// Every planted fault is found in its line, and nothing else is.
func TestPlantedFaultsAreFound(t *testing.T) {
	text, err := os.ReadFile("testdata/planted.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(surroundings(t), "planted.yaml")
	write(t, path, string(text))
	cfg, err := load(path, environment)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for n, line := range strings.Split(string(text), "\n") {
		for _, mark := range regexp.MustCompile(`# \?([a-z-]+)$`).FindAllStringSubmatch(line, -1) {
			want = append(want, fmt.Sprintf("%d %s", n+1, mark[1]))
		}
	}
	kinds := map[string]bool{}
	var got []string
	for _, f := range cfg.Analyse() {
		if f.Severity != access.SevereNote && f.Accepted == "" {
			got = append(got, fmt.Sprintf("%d %s", f.Line, f.Kind))
			kinds[string(f.Kind)] = true
		}
		if f.Text == "" || f.At == "" || f.Column == 0 || f.Severity != access.SevereNote && f.Cure == "" {
			t.Errorf("incomplete: %+v", f)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nplanted\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(kinds) < 22 {
		t.Errorf("%d kinds", len(kinds))
	}
}

// quiet fails where anything but notes is found.
func quiet(t *testing.T, name string, cfg *Config) {
	t.Helper()
	for _, f := range cfg.Analyse() {
		if f.Severity != access.SevereNote && f.Accepted == "" {
			t.Errorf("%s:%d:%d: a false alarm: %s [%s %s]", name, f.Line, f.Column, f.Text, f.Kind, f.At)
		}
	}
}

func TestExamplesRaiseNoAlarm(t *testing.T) {
	for _, name := range examples(t) {
		quiet(t, name, example(t, filepath.Base(name)))
	}
}

// manyRoutes is a configuration of a large organisation, without a fault.
func manyRoutes(n int) string {
	var b strings.Builder
	b.WriteString("version: 1\nserver: {listen: '127.0.0.1:8080', trusted_proxies: [127.0.0.1]}\n" +
		"providers:\n  - {id: corp, issuer: https://login.example.com, client_id: doorward, client_secret: {file: client-secret}}\n" +
		"devices:\n  sources: [{id: inventory, type: file, path: devices.json}]\n  match: [claim.deviceid]\n  profiles: {managed: {all: [managed]}, healthy: {all: [managed, compliant]}}\n" +
		"defaults: {require: {device: managed}}\ngroups:\n")
	for i := range 50 {
		fmt.Fprintf(&b, "  group%d: {provider: corp, claim_groups: [g%d]}\n", i, i)
	}
	b.WriteString("routes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - id: app%d\n    from: https://app%d.example.com\n    to: [https://10.0.0.1]\n    allow:\n", i, i)
		for j := range 8 {
			fmt.Fprintf(&b, "      - {name: rule%d, groups: [group%d], methods: [GET, POST], paths: [/area%d/**, /shared/*/x%d]}\n", j, (i+j)%50, j, j)
		}
		fmt.Fprintf(&b, "      - {name: office, groups: [group%d], time: {days: mon-fri, hours: '08:00-18:00', zone: Europe/Berlin}, when: \"request.path.startsWith('/office')\"}\n", i%50)
		b.WriteString("    deny: [{name: outside, methods: [DELETE], unless: \"in_cidr(network.ip, '10.0.0.0/8')\"}]\n    rules: [{paths: [/area1/**], require: {device: healthy}}]\n")
	}
	return b.String()
}

func many(t testing.TB, n int) *Config {
	t.Helper()
	path := filepath.Join(surroundings(t), "many.yaml")
	write(t, path, manyRoutes(n))
	cfg, err := load(path, environment)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestManyRoutesRaiseNoAlarm(t *testing.T) {
	cfg := many(t, 500)
	quiet(t, "many.yaml", cfg)
	if len(cfg.Routes) != 500 {
		t.Errorf("%d routes", len(cfg.Routes))
	}
}

// BenchmarkCheck reads and analyses 500 routes with ten rules each, as doorward
// check does.
func BenchmarkCheck(b *testing.B) {
	path := many(b, 500).Path
	for b.Loop() {
		cfg, err := load(path, environment)
		if err != nil {
			b.Fatal(err)
		}
		cfg.Analyse()
	}
}

// BenchmarkRoutesInMemory shows what a route with ten rules takes once it is in
// force: what the garbage collector has to go through while requests are served.
func BenchmarkRoutesInMemory(b *testing.B) {
	const routes = 2000
	path := many(b, routes).Path
	use := func() (bytes, objects float64) {
		runtime.GC()
		runtime.GC() // what the first one let go of
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		return float64(now.HeapAlloc), float64(now.HeapObjects)
	}
	for b.Loop() {
		bytes, objects := use()
		cfg, err := load(path, environment)
		if err != nil {
			b.Fatal(err)
		}
		after, more := use()
		b.ReportMetric((after-bytes)/routes, "B/route")
		b.ReportMetric((more-objects)/routes, "objects/route")
		runtime.KeepAlive(cfg)
	}
}

func TestFaultyAcceptances(t *testing.T) {
	for _, test := range []struct{ entry, want string }{
		{"{finding: rule-implid, at: wiki, reason: x}", "did you mean rule-implied?"},
		{"{finding: public, reason: x}", "does not say what is accepted"},
		{"{finding: public, at: wiki}", "needs a reason"},
		{"{finding: public, at: wiki, reason: ' '}", "needs a reason"},
		{"{finding: public, at: wiki, why: x}", "unknown key"},
	} {
		path := filepath.Join(surroundings(t), "doorward.yaml")
		write(t, path, base+"accept:\n  - "+test.entry+"\n")
		if _, err := load(path, environment); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.entry, err)
		}
	}
}
