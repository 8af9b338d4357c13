package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

// The demo's configuration is one that newcomers copy: nothing in it deserves a
// second look.
func TestDemoConfigurationRaisesNoAlarm(t *testing.T) {
	e := estate{addr: "127.0.0.1:8080", idpAddr: "127.0.0.1:8081", adminAddr: "127.0.0.1:9901", state: t.TempDir(),
		wiki: "http://127.0.0.1:1", echo: "http://127.0.0.1:2", billing: "http://127.0.0.1:3", help: "http://127.0.0.1:4"}
	for _, name := range []string{"client-secret", "devices.json"} {
		if err := os.WriteFile(filepath.Join(e.state, name), []byte("[]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path, err := writeConfig(e)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range cfg.Analyse() {
		if f.Severity != access.SevereNote {
			t.Errorf("%d:%d: %s [%s %s]", f.Line, f.Column, f.Text, f.Kind, f.At)
		}
	}
}
