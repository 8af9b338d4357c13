package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// An operator sees who is logged in and ends one session. It is over at once on
// every application's host, others notice nothing, and the audit log says who
// did it and why.
func TestOperatorEndsASession(t *testing.T) {
	d := startDemo(t, t.TempDir())
	alice, bob := newVisitor(t), newVisitor(t)
	alice.login(d.url("wiki", "/"), "alice")
	alice.open(d.url("echo", "/"))
	bob.login(d.url("echo", "/"), "bob")

	var list struct{ Sessions []access.SessionInfo }
	out := run(t, "doorward", "sessions", "list", "--config", d.configPath(), "--output", "json")
	if err := json.Unmarshal([]byte(out.stdout), &list); err != nil || len(list.Sessions) != 2 {
		t.Fatalf("%v: %+v", err, out)
	}
	hers := list.Sessions[0]
	if hers.Email != "alice@example.com" {
		hers = list.Sessions[1]
	}
	want := []string{d.url("auth", ""), d.url("echo", ""), d.url("wiki", "")}
	if hers.Email != "alice@example.com" || hers.Provider != "demo" || hers.Expires.IsZero() || fmt.Sprint(hers.Origins) != fmt.Sprint(want) {
		t.Errorf("%+v", hers)
	}
	for _, args := range [][]string{{"list", "--user", hers.User}, {"show", hers.ID}} {
		out := run(t, "doorward", append([]string{"sessions", "--config", d.configPath()}, args...)...)
		if out.code != 0 || !strings.Contains(out.stdout, "alice@example.com") || strings.Contains(out.stdout, "bob") {
			t.Errorf("%v: %+v", args, out)
		}
	}

	if out := run(t, "doorward", "sessions", "revoke", hers.ID, "--config", d.configPath()); out.code != 2 || !strings.Contains(out.stderr, "why") {
		t.Errorf("without a reason: %+v", out)
	}
	if out := run(t, "doorward", "sessions", "revoke", hers.ID, "--why", "laptop lost", "--config", d.configPath()); out.code != 0 {
		t.Fatalf("%+v", out)
	}
	if p := alice.once("GET", d.url("wiki", "/"), alice.header, nil); p.status != 302 {
		t.Errorf("the session goes on: %d", p.status)
	}
	d.wantIn(bob, "echo")
	if out := run(t, "doorward", "sessions", "revoke", hers.ID, "--why", "again", "--config", d.configPath()); out.code != 1 || !strings.Contains(out.stderr, "no such session") {
		t.Errorf("a session that has ended: %+v", out)
	}
	found := false
	for _, e := range d.events() {
		found = found || e.Kind == access.EventAdmin && e.Session == hers.ID && e.Why == "laptop lost" && e.Actor != "" && e.Reason == access.Allowed
	}
	if !found {
		t.Error("no audit event says who ended the session and why")
	}
}

// An operator watches what is decided, and who is there.
func TestOperatorWatches(t *testing.T) {
	d := startDemo(t, t.TempDir())
	newVisitor(t).login(d.url("wiki", "/plans"), "alice")
	newVisitor(t).login(d.url("wiki", "/"), "bob")
	out := run(t, "doorward", "top", "--once", "--config", d.configPath())
	for _, want := range []string{"ready", "sessions 2", "device_missing 1", "allow", "demo:alice", "wiki.localhost", "/plans", "bob@example.com"} {
		if out.code != 0 || !strings.Contains(out.stdout, want) {
			t.Errorf("no %q: %+v", want, out)
		}
	}
	if out := run(t, "doorward", "top", "--once", "--output", "json", "--config", d.configPath()); out.code != 0 || !strings.Contains(out.stdout, `"reason":"device_missing"`) {
		t.Errorf("%+v", out)
	}
}

// An operator ends everything of one person, then of everybody. Whoever logs in
// afterwards is let in.
func TestOperatorRevokes(t *testing.T) {
	d := startDemo(t, t.TempDir())
	alice, bob := newVisitor(t), newVisitor(t)
	alice.login(d.url("wiki", "/"), "alice")
	alice.open(d.url("echo", "/"))
	bob.login(d.url("echo", "/"), "bob")
	doorward := func(args ...string) result {
		t.Helper()
		out := run(t, "doorward", append(args, "--config", d.configPath())...)
		if out.code != 0 {
			t.Errorf("%v: %+v", args, out)
		}
		return out
	}
	doorward("revoke", "--user", "demo:alice", "--why", "left the company")
	d.wantOut(alice)
	d.wantIn(bob, "echo")
	if out := doorward("revocations", "list"); !strings.Contains(out.stdout, "demo:alice") || !strings.Contains(out.stdout, "left the company") {
		t.Errorf("%+v", out)
	}
	alice.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")

	doorward("revoke", "--device", "laptop-alice", "--why", "lost")
	if p := alice.once("GET", d.url("wiki", "/"), alice.header, nil); p.status != 302 {
		t.Errorf("a session on a revoked device: %d", p.status)
	}
	alice.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")

	doorward("revoke", "--all", "--why", "exercise")
	if p := alice.once("GET", d.url("wiki", "/"), alice.header, nil); p.status == 200 { // too often logged in to be sent to log in once more
		t.Error("everything is revoked, and alice is let in")
	}
	d.wantOut(bob)
	bob.login(d.url("echo", "/"), "bob").says(t, 200)
	for _, args := range [][]string{{}, {"--user", "demo:alice", "--all"}, {"--user", "alice"}, {"--user", "other:alice"}} {
		if out := run(t, "doorward", append(append([]string{"revoke", "--why", "x"}, args...), "--config", d.configPath())...); out.code == 0 {
			t.Errorf("%v: %+v", args, out)
		}
	}
}

// Each way not to reach the admin API has an answer of its own that says what to
// do.
func TestAdminCommandsSayWhatIsWrong(t *testing.T) {
	s := startSite(t, freeAddress(t), "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		"[{id: app, from: \"http://app.localhost\", to: [\"http://127.0.0.1:1\"], allow: [{name: all, any_user: true}]}]")
	list := func(want string, code int, args ...string) {
		t.Helper()
		out := run(t, "doorward", append([]string{"sessions", "list", "--config", s.config}, args...)...)
		if out.code != code || !strings.Contains(out.stderr, want) || out.stdout != "" {
			t.Errorf("wanted %q: %+v", want, out)
		}
	}
	list("names no server.admin.token", 2)

	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.dir, "token", strings.Repeat("a", 32))
	other := filepath.Join(s.dir, "other.yaml")
	writeFile(t, s.dir, "other.yaml", strings.Replace(string(text), "admin: {", "admin: {token: {file: token}, ", 1))
	list("has no token", 1, "--config", other)

	replace(t, s.config, strings.Replace(string(text), "admin: {", "admin: {token: {file: token}, ", 1))
	s.waitFor("configuration loaded", 1) // a token needs no restart
	out := run(t, "doorward", "sessions", "list", "--config", s.config)
	if out.code != 0 || !strings.Contains(out.stdout, "SESSION") {
		t.Errorf("%+v", out)
	}
	writeFile(t, s.dir, "other-token", strings.Repeat("b", 32))
	writeFile(t, s.dir, "other.yaml", strings.Replace(string(text), "admin: {", "admin: {token: {file: other-token}, ", 1))
	list("does not accept the token", 1, "--config", other)
	list("no doorward answers", 1, "--admin", "http://"+freeAddress(t))
	list("plaintext", 2, "--admin", "http://10.1.2.3:9901")
	list("is no address", 2, "--admin", "10.1.2.3:9901")
}
