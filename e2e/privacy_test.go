package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// Alice asks what the log has about her, and to be forgotten. Doorward goes on
// meanwhile; what it wrote before and writes later still verifies, what somebody
// else removes is still found, and a receiver that has pseudonyms only cannot tell
// that it was her, nor can anybody any more. She is in many groups, with which her
// records begin.
func TestAPersonAsksToBeForgotten(t *testing.T) {
	f := startFleetOf(t, 1, "{store: {memory: true}}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, func(text string) string {
		return strings.Replace(text, "audit: {to: [", "audit: {key: {file: audit-key}, to: [{file: {path: hidden.jsonl}, privacy: pseudonyms}, ", 1)
	}, "audit-key", strings.Repeat("k", 44))
	s := f.replicas[0]
	many := testidp.User{Username: "alice", Password: "demo", Email: "alice@example.com"}
	for i := range 100 {
		many.Groups = append(many.Groups, fmt.Sprintf("department-%03d", i))
	}
	if err := f.provider.SetUser(many); err != nil {
		t.Fatal(err)
	}
	log, hidden := filepath.Join(s.dir, "audit.jsonl"), filepath.Join(s.dir, "hidden.jsonl")
	alice, bob := f.somebody("alice"), f.somebody("bob")
	alice.open(f.at("app", "/mine")).says(t, 200, "hello")
	bob.open(f.at("app", "/his")).says(t, 200, "hello")
	lines := func(path string) int { text, _ := os.ReadFile(path); return strings.Count(string(text), "\n") }
	eventually(t, "the records", func() bool { return lines(log) >= 14 && lines(hidden) == lines(log) })

	export := run(t, "doorward", "audit", "export", "--config", s.config, "--user", "corp:alice")
	if export.code != 0 || !strings.Contains(export.stdout, `"path":"/mine"`) || !strings.Contains(export.stdout, `"kind":"login"`) || strings.Contains(export.stdout, "corp:bob") {
		t.Fatalf("the export: %d\n%s%s", export.code, export.stdout, export.stderr)
	}
	for _, path := range []string{log, hidden} {
		if text, _ := os.ReadFile(path); !strings.Contains(string(text), "\n"+`{"request":{"identity":{"groups":["department-000",`) {
			t.Errorf("no record begins with the groups: %s", text)
		}
	}
	pseudonym := pseudonymIn(t, hidden, "/mine")
	if text, _ := os.ReadFile(hidden); strings.Contains(string(text), "alice") || strings.Contains(string(text), "bob") {
		t.Errorf("somebody's name is in\n%s", text)
	}
	if who := run(t, "doorward", "audit", "who", pseudonym, "--config", s.config); who.code != 0 || !strings.Contains(who.stdout, "corp:alice") {
		t.Errorf("who is %s: %+v", pseudonym, who)
	}

	if dry := run(t, "doorward", "audit", "erase", "--config", s.config, "--user", "corp:alice"); dry.code != 1 || !strings.Contains(dry.stderr, "Nothing was erased") {
		t.Errorf("without --yes: %+v", dry)
	}
	erased := run(t, "doorward", "audit", "erase", "--config", s.config, "--user", "corp:alice", "--yes")
	if erased.code != 0 || !strings.Contains(erased.stdout, "in 2 files were erased") {
		t.Fatalf("erasing: %+v", erased)
	}
	bob.open(f.at("app", "/later")).says(t, 200, "hello")
	if code := s.stop(); code != 0 {
		t.Errorf("doorward ended with %d", code)
	}

	key := strings.TrimSpace(run(t, "doorward", "audit", "public-key", "--config", s.config).stdout)
	for _, path := range []string{log, hidden} {
		if v := run(t, "doorward", "verify-log", "--public-key", key, path); v.code != 0 || !strings.Contains(v.stdout, "the chain is unbroken") || !strings.Contains(v.stdout, "records were erased") {
			t.Errorf("%s: %+v", path, v)
		}
	}
	if again := run(t, "doorward", "audit", "export", "--config", s.config, "--user", "corp:alice"); again.code != 1 || again.stdout != "" {
		t.Errorf("the export afterwards: %+v", again)
	}
	if who := run(t, "doorward", "audit", "who", pseudonym, "--config", s.config); who.code != 1 {
		t.Errorf("who is %s: %+v", pseudonym, who)
	}
	text, _ := os.ReadFile(log)
	if strings.Contains(string(text), "alice") || !strings.Contains(string(text), "/later") {
		t.Errorf("the log:\n%s", text)
	}
	if n := len(events(t, log)); n != lines(log) {
		t.Errorf("%d of %d lines are events", n, lines(log))
	}
	kinds := map[access.EventKind]int{}
	for _, e := range events(t, log) {
		kinds[e.Kind]++
	}
	replay := run(t, "doorward", "replay", "--config", s.config, "--audit", log, "--fail-on", "inconsistent")
	if want := fmt.Sprintf("%d erased, so that what they said is unknown", kinds[access.EventErased]); replay.code != 0 || !strings.Contains(replay.stdout, want) {
		t.Errorf("the replay does not say %q: %+v", want, replay)
	}
	// Somebody without the key removes one of Bob's records in the same way.
	forged := regexp.MustCompile(`(?m)^.*"/his".*$`).ReplaceAllString(string(text), `{"kind":"erased"}`)
	if forged == string(text) {
		t.Fatal("nothing was forged")
	}
	if err := os.WriteFile(log, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := run(t, "doorward", "verify-log", "--public-key", key, log); v.code != 1 || !strings.Contains(v.stdout, "FAULT") {
		t.Errorf("after the forgery: %+v", v)
	}
}

// pseudonymIn is whose request for a path it was, as a receiver knows it.
func pseudonymIn(t *testing.T, file, path string) string {
	t.Helper()
	for _, e := range events(t, file) {
		if e.Request != nil && e.Request.Path == path {
			return e.Request.Identity.Subject
		}
	}
	t.Fatalf("%s has no request for %s", file, path)
	return ""
}
