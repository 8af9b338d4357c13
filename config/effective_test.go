package config

import (
	"path/filepath"
	"strings"
	"testing"
)

// What is in force is told with the line that says so; what nobody says, with the
// default of the reference; and no secret in any way.
func TestSettings(t *testing.T) {
	dir := surroundings(t)
	path := filepath.Join(dir, "doorward.yaml")
	write(t, path, `version: 1
server:
  listen: 127.0.0.1:8080
  admin: {token: {env: ADMIN_TOKEN}}
providers:
  - {id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_secret: {env: SECRET}, groups_claim: groups}
groups:
  staff: {provider: corp, claim_groups: [eng, sre]}
routes:
  - id: app
    from: http://app.localhost
    to: ["http://127.0.0.1:9"]
    allow: [{name: staff, groups: [staff]}]
    timeout: 5s
audit: {to: [{webhook: {url: "https://hooks.example/in?key=hunter2", key: {env: HOOK}}, spool: {dir: /tmp/x}}]}
tests: [{name: x, as: {provider: corp, groups: [eng]}, get: "http://app.localhost/", expect: allow}]
`)
	cfg, err := load(path, func(name string) (string, bool) { return "hunter2-hunter2-hunter2-hunter2-" + name, true })
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Setting{}
	for _, s := range cfg.Settings() {
		if _, twice := got[s.Path]; twice {
			t.Errorf("%s stands there twice", s.Path)
		}
		got[s.Path] = s
		if strings.Contains(s.Value, "hunter2") {
			t.Errorf("a secret is told: %+v", s)
		}
		if strings.HasPrefix(s.Path, "tests") {
			t.Errorf("not in force: %s", s.Path)
		}
	}
	for _, want := range []Setting{
		{"version", "1", 1},
		{"server.listen", "127.0.0.1:8080", 3},
		{"server.admin.token", "{env: ADMIN_TOKEN}", 4},
		{"server.idle_timeout", "2m", 0},
		{"server.admin.route", "there is none", 0},
		{"providers[0].client_secret", "{env: SECRET}", 6},
		{"providers[0].issuer", "http://127.0.0.1:1", 6},
		{"groups.staff.claim_groups", "[eng, sre]", 8},
		{"routes[0].to", "[http://127.0.0.1:9]", 12},
		{"routes[0].allow[0].groups", "[staff]", 13},
		{"routes[0].timeout", "5s", 14},
		{"routes[0].websocket", "false", 0},
		{"sessions.store.file.path", got["sessions.store.file.path"].Value, 0},
		{"routes[0].headers", "", 0},
		{"audit.to[0].webhook.url", "https://hooks.example/in?redacted", 15},
	} {
		if got[want.Path] != want {
			t.Errorf("%+v, want %+v", got[want.Path], want)
		}
	}
}
