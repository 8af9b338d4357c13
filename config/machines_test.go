package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What only shows when sections are seen together: certificates that nobody asks
// for, and opaque tokens that may be anybody's.
func TestMachineProvidersFit(t *testing.T) {
	path := filepath.Join(surroundings(t), "machines.yaml")
	write(t, path, `version: 1
server: {listen: "127.0.0.1:8080"}
providers:
  - {id: a, issuer: https://a.example, client_id: dw, client_auth: none, audiences: [x], introspection: {cache: 1s}}
  - {id: b, issuer: https://b.example, client_id: dw, client_auth: none, audiences: [x], introspection: {cache: 1s}}
  - {id: mesh, issuer: x509, ca: internal-ca.pem, trust_domain: prod.example}
  - {id: ci, issuer: kubernetes, audiences: [x]}
routes:
  - {id: app, from: http://app.localhost, to: [http://127.0.0.1:1], allow: [{name: a, spiffe: ["spiffe://prod.example/**"]}]}
`)
	_, err := load(path, environment)
	for _, want := range []string{"providers[0] has introspection already", "no workload is ever asked for its certificate"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if problems, ok := err.(Problems); !ok || len(problems) != 2 || !slices.IsSortedFunc(problems, func(a, b Problem) int { return a.Line - b.Line }) {
		t.Errorf("%v", err)
	}
}

// A route leads somewhere, unless a front end forwards its requests.
func TestRoutesWithoutUpstream(t *testing.T) {
	path := filepath.Join(surroundings(t), "elsewhere.yaml")
	for extra, want := range map[string]bool{"": false, ", forward_auth: {listen: \"127.0.0.1:9902\"}": true} {
		write(t, path, `version: 1
server: {listen: "127.0.0.1:8080"`+extra+`}
providers: [{id: a, issuer: https://a.example, client_id: dw, client_auth: none}]
routes: [{id: app, from: http://app.localhost, allow: [{name: all, any_user: true}]}]
`)
		if _, err := load(path, environment); (err == nil) != want || err != nil && !strings.Contains(err.Error(), "the route leads nowhere") {
			t.Errorf("%q: %v", extra, err)
		}
	}
}
