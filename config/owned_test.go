package config

import (
	"path/filepath"
	"strings"
	"testing"
)

// Who asks whether a device is the visitor's own has to say what its owner is
// compared with, in a profile as in a tier.
func TestOwnedNeedsAnOwner(t *testing.T) {
	path := filepath.Join(surroundings(t), "owned.yaml")
	for devices, want := range map[string]string{
		"profiles: {own: {all: [owned]}}":                  "devices.profiles.own.all[0]: nobody passes",
		"tiers: [{name: own, all: [known, owned]}]":        "devices.tiers[0].all[1]: nobody passes",
		"owner: email, tiers: [{name: own, all: [owned]}]": "",
	} {
		write(t, path, `version: 1
server: {listen: "127.0.0.1:8080"}
providers: [{id: a, issuer: https://a.example, client_id: dw, client_auth: none}]
devices: {`+devices+`}
routes: [{id: app, from: http://app.localhost, to: [http://127.0.0.1:1], allow: [{name: all, any_user: true}]}]
`)
		if _, err := load(path, environment); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", devices, err)
		}
	}
}
