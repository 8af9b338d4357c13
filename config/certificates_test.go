package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Which hosts certificates are obtained for, and which never get one.
func TestIssuedHosts(t *testing.T) {
	path := filepath.Join(surroundings(t), "acme.yaml")
	try := func(tls, routes string) ([]string, error) {
		write(t, path, `version: 1
server: {listen: ":443", auth_url: https://Auth.corp.example.com, tls: {`+tls+`acme: {directory: https://authority.example/dir, accept_terms: true`+routes)
		cfg, err := load(path, environment)
		if err != nil {
			return nil, err
		}
		return cfg.Issued(), nil
	}
	const app = `
  - {id: app, from: https://app.corp.example.com:8443, to: [http://127.0.0.1:1], public: [{name: all, methods: [GET], paths: ["/**"]}]}`
	const admin = `
  - {id: admin, from: https://app.corp.example.com/admin, to: [http://127.0.0.1:1], public: [{name: all, methods: [GET], paths: ["/**"]}]}`
	const wild = `
  - {id: wild, from: "https://*.corp.example.com", to: [http://127.0.0.1:1], public: [{name: all, methods: [GET], paths: ["/**"]}]}`

	hosts, err := try("", "}}}\nroutes:"+app+admin)
	if want := []string{"app.corp.example.com", "auth.corp.example.com"}; err != nil || !slices.Equal(hosts, want) {
		t.Errorf("%v %v", hosts, err)
	}
	if _, err := try("", "}}}\nroutes:"+app+wild); err == nil || !strings.Contains(err.Error(), "no certificate is obtained for *.corp.example.com") {
		t.Errorf("a wildcard: %v", err)
	}
	if hosts, err := try("certificates: [{cert: tls.crt, key: tls.key}], ", "}}}\nroutes:"+app+wild); err != nil || len(hosts) != 2 {
		t.Errorf("a wildcard, and files that may hold its certificate: %v %v", hosts, err)
	}
	if _, err := try("", ", hosts: [app.corp.example.com]}}}\nroutes:"+app); err == nil || !strings.Contains(err.Error(), "server.auth_url") {
		t.Errorf("a list without the login host: %v", err)
	}
}
