package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func rounds(requests ...int) (list []round) {
	for _, n := range requests {
		list = append(list, round{sample{requests: n, elapsed: 2 * time.Second, p50: time.Millisecond, p99: 10 * time.Millisecond}, time.Second})
	}
	return list
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	// A disturbed round disturbs both.
	a, b := measured{name: "a", rounds: rounds(300, 30, 330)}, measured{name: "b", rounds: rounds(100, 10, 110)}
	if r := a.ratio(&b, round.perCPU); r != 3 {
		t.Errorf("%g", r)
	}
	if r := b.ratio(&measured{}, round.perCPU); r != 0 {
		t.Errorf("%g × nothing", r)
	}
	if m := a.median(round.perCPU); m != 300 {
		t.Errorf("%g", m)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("%g", m)
	}
	if r := (round{sample{requests: 100, elapsed: 2 * time.Second}, 500 * time.Millisecond}); r.perSecond() != 50 || r.perCPU() != 200 || r.busy() != 0.25 {
		t.Errorf("%g %g %g", r.perSecond(), r.perCPU(), r.busy())
	}
}

func TestTable(t *testing.T) {
	results := []measured{
		{name: "ReverseProxy, no check", rounds: rounds(20000, 22000), memory: 12 << 20},
		{name: "nginx, no check", skipped: "nginx is not there"},
		{name: "Doorward, one session", rounds: rounds(40000, 44000), memory: 30 << 20},
	}
	got := loadTable(results, "ReverseProxy, no check", "nginx, no check").markdown()
	want := `|  | req/s | req / CPU-s | CPU | p50 | p99 | memory | × ReverseProxy | × nginx | p99 × ReverseProxy |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
| ReverseProxy, no check | 10,500 | 21,000 | 50 % | 1.00 ms | 10 ms | 12 MiB | 1.00 | – | 1.00 |
| Doorward, one session | 21,000 | 42,000 | 50 % | 1.00 ms | 10 ms | 30 MiB | 2.00 | – | 1.00 |

nginx, no check: skipped: nginx is not there.
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	text := loadTable(results, "ReverseProxy, no check").text()
	for line := range strings.Lines(strings.Join(strings.Split(text, "\n")[:3], "\n")) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n != len([]rune(strings.Split(text, "\n")[0])) {
			t.Errorf("the columns are not aligned:\n%s", text)
		}
	}
	for n, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A run of one case leaves the tables of the others, with the occasion each was
// made on, and the words around them.
func TestResultsKeepOtherCases(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"bench", "docs"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	page := "# Performance\n\nwords\n\n" + begins + ends + "more words\n"
	if err := os.WriteFile(pagePath(root), []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	put := func(c benchCase, date, cell string) {
		t.Helper()
		r, err := readResults(root)
		if err != nil {
			t.Fatal(err)
		}
		r.replace(c, &table{Columns: []string{"", "x"}, Rows: [][]string{{"row", cell}}}, occasion{Date: date, Command: "make bench"})
		if err := r.write(root); err != nil {
			t.Fatal(err)
		}
	}
	put(idle, "2026-01-01", "old idle")
	put(http1, "2026-01-02", "old http1")
	put(idle, "2026-01-03", "new idle")
	got, err := os.ReadFile(pagePath(root))
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	first, second := strings.Index(text, "old http1"), strings.Index(text, "new idle")
	if first < 0 || second < first || strings.Contains(text, "old idle") || !strings.HasPrefix(text, "# Performance\n\nwords") || !strings.HasSuffix(text, "more words\n") ||
		!strings.Contains(text, "2026-01-02") || !strings.Contains(text, "2026-01-03") {
		t.Error(text)
	}
	var kept results
	raw, err := os.ReadFile(resultsPath(root))
	if err != nil || json.Unmarshal(raw, &kept) != nil || len(kept.Cases) != 2 {
		t.Errorf("%v: %s", err, raw)
	}
	if _, err := (&results{}).fill([]byte("a page without the marks")); err == nil {
		t.Error("a page without marks was written")
	}
}

// The page in the tree is one that the command can write, and it is what the
// results in the tree say.
func TestPageSaysWhatTheResultsSay(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	r, err := readResults(root)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(pagePath(root))
	if err != nil {
		t.Fatal(err)
	}
	filled, err := r.fill(page)
	if err != nil || string(filled) != string(page) {
		t.Errorf("docs/performance.md is not what bench/results.json says (%v): run make bench", err)
	}
}
