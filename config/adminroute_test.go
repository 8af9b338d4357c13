package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// The route to the admin pages is refused where it would be weaker than what it
// opens.
func TestAdminRoute(t *testing.T) {
	path := filepath.Join(surroundings(t), "doorward.yaml")
	try := func(admin, route, more string) []string {
		write(t, path, `version: 1
server: {listen: "127.0.0.1:8080", admin: {listen: "127.0.0.1:9901", `+admin+`}}
providers: [{id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_auth: none, groups_claim: groups}]
groups: {admins: {provider: corp, claim_groups: [sre]}, support: {provider: corp, claim_groups: [help]}}
routes:
  - {id: admin, `+route+`}
  - {id: wiki, from: http://wiki.localhost, to: [http://127.0.0.1:9], allow: [{name: all, any_user: true}]}
`+more)
		_, err := load(path, environment)
		var problems Problems
		errors.As(err, &problems)
		var paths []string
		for _, p := range problems {
			if p.Cure == "" {
				t.Errorf("no cure: %+v", p)
			}
			paths = append(paths, p.Path)
		}
		return paths
	}
	const (
		address = `from: http://admin.localhost, to: [http://127.0.0.1:9901], `
		strong  = `require: {login: {acr: [mfa]}}, `
		people  = `allow: [{name: admins, groups: [admins]}, {name: support, groups: [support]}]`
	)
	for _, good := range [][3]string{
		{"route: admin", address + strong + people, ""},
		{"route: admin, view_groups: [support]", address + strong + people, ""},
		{"route: admin", address + `require: {login: {phishing_resistant: true}}, ` + people, ""},
		{"route: admin", address + `require: {login: {amr: [hwk, otp], max_age: 1h}}, ` + people, ""},
		{"hosts: [x.internal]", address + people, ""}, // names no route, so that nobody is let in by one
	} {
		if paths := try(good[0], good[1], good[2]); len(paths) != 0 {
			t.Errorf("%s: %v", good, paths)
		}
	}
	for name, c := range map[string]struct{ admin, route, more, want string }{
		"unknown route":        {"route: admn", address + strong + people, "", "server.admin.route"},
		"any login":            {"route: admin", address + people, "", "routes[0].require.login"},
		"a password":           {"route: admin", address + `require: {login: {amr: [pwd]}}, ` + people, "", "routes[0].require.login"},
		"the weakest level":    {"route: admin", address + `require: {login: {acr: [aal1, mfa]}}, ` + people, "", "routes[0].require.login"},
		"a fresh login":        {"route: admin", address + `require: {login: {max_age: 5m}}, ` + people, "", "routes[0].require.login"},
		"everybody":            {"route: admin", address + strong + `allow: [{name: all, any_user: true}]`, "", "routes[0].allow[0].groups"},
		"single users":         {"route: admin", address + strong + `allow: [{name: one, users: ["corp:ann"]}]`, "", "routes[0].allow[0].groups"},
		"a public rule":        {"route: admin", address + strong + people + `, public: [{name: css, methods: [GET], paths: [/x]}]`, "", "routes[0].public[0]"},
		"a path":               {"route: admin", strings.Replace(address, "localhost,", "localhost/admin,", 1) + strong + people, "", "routes[0].from"},
		"a wildcard":           {"route: admin", strings.Replace(address, "http://admin.localhost", `"http://*.admin.localhost"`, 1) + strong + people, "", "routes[0].from"},
		"a shared host":        {"route: admin", address + strong + people, "  - {id: other, from: http://admin.localhost/x, to: [http://127.0.0.1:9], allow: [{name: all, any_user: true}]}\n", "routes[0].from"},
		"another port":         {"route: admin", strings.Replace(address, "9901", "9902", 1) + strong + people, "", "routes[0].to[0]"},
		"one more place":       {"route: admin", strings.Replace(address, "9901]", "9901, http://127.0.0.1:9]", 1) + strong + people, "", "routes[0].to[1]"},
		"viewers not let in":   {"route: admin, view_groups: [helpers]", address + strong + people, "", "server.admin.view_groups[0]"},
		"viewers and no route": {"view_groups: [support]", address + strong + people, "", "server.admin.view_groups"},
	} {
		if paths := try(c.admin, c.route, c.more); len(paths) != 1 || paths[0] != c.want {
			t.Errorf("%s: %v, want %s", name, paths, c.want)
		}
	}
}
