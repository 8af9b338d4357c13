package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/testidp"
)

// Two companies share an application. Each visitor logs in with their own
// provider; what the partner's provider says about groups is nothing here, and
// the same e-mail address from two issuers is two people.
func TestTwoProviders(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "<p>hello %s</p>", r.Header.Get("X-User"))
	})
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	at := func(host, path string) string { return "http://" + host + ".localhost:" + port + path }
	alice := func(email string) func(*testidp.Options) {
		return func(o *testidp.Options) {
			o.Users = []testidp.User{{Username: "alice", Password: "demo", Subject: "alice", Email: email, Groups: []string{"admins"}}}
		}
	}
	callback := at("auth", "/.doorward/callback")
	corp := startProvider(t, callback, alice("alice@corp.example"))
	partner := startProvider(t, callback, alice("alice@corp.example")) // it may say so
	dir := t.TempDir()
	writeFile(t, dir, "secret", "s3cret")
	d := start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, auth_url: %q, admin: {listen: %q}}
sessions: {store: {memory: true}}
audit: {to: [{file: {path: audit.jsonl}}]}
log: {format: text}
providers:
  - {id: corp, name: Our company, issuer: %q, client_id: doorward, client_secret: {file: secret}, email_domains: [corp.example]}
  - {id: partner, name: The partner, issuer: %q, client_id: doorward, client_secret: {file: secret}, email_domains: [partner.example], trust: {groups: none}}
groups:
  admins: {provider: corp, claim_groups: [admins]}
  partner-admins: {provider: partner, claim_groups: [admins]}
routes:
  - {id: open, from: %q, to: [%q], headers: {X-User: user}, allow: [{name: all, any_user: true}]}
  - {id: admin, from: %q, to: [%q], headers: {X-User: user}, allow: [{name: admins, groups: [admins, partner-admins]}]}
  - {id: theirs, from: %q, to: [%q], headers: {X-User: user}, provider: partner, allow: [{name: all, providers: [partner]}]}
`, addr, at("auth", ""), freeAddress(t), corp.Issuer(), partner.Issuer(),
		at("open", ""), app, at("admin", ""), app, at("theirs", ""), app)))
	d.waitFor("serving", 1)
	choose := func(v *visitor, p page, email string) page {
		t.Helper()
		p.says(t, 200, "Our company", "The partner")
		return v.submit(v.submit(p, map[string]string{"email": email}), map[string]string{"username": "alice", "password": "demo"})
	}

	ours := newVisitor(t)
	choose(ours, ours.open(at("open", "/")), "alice@corp.example").says(t, 200, "hello corp:alice")
	ours.open(at("admin", "/")).says(t, 200, "hello corp:alice")
	// A route with a provider of its own asks for a login with that one.
	if p := ours.open(at("theirs", "/")); !strings.HasPrefix(p.url.String(), partner.Issuer()) {
		t.Errorf("a corp login led to %s: %s", p.url, p.text(t))
	}

	theirs := newVisitor(t)
	choose(theirs, theirs.open(at("open", "/")), "alice@partner.example").says(t, 200, "hello partner:alice")
	theirs.open(at("admin", "/")).says(t, 403, "You do not have access", "Use another account")
	theirs.open(at("theirs", "/")).says(t, 200, "hello partner:alice")

	// The choice is remembered: without a session, nobody asks again.
	later := newVisitor(t)
	auth, _ := url.Parse(at("auth", "/"))
	for _, cookie := range theirs.client.Jar.Cookies(auth) {
		if strings.Contains(cookie.Name, "login") {
			later.client.Jar.SetCookies(auth, []*http.Cookie{cookie})
		}
	}
	if p := later.open(at("open", "/")); !strings.HasPrefix(p.url.String(), partner.Issuer()) {
		t.Errorf("asked again, at %s: %s", p.url, p.text(t))
	}
}
