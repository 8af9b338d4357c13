package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/config"
)

func doInit(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := root()
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(""))
	cmd.SetArgs(append([]string{"init", "--config", filepath.Join(dir, "doorward.yaml")}, args...))
	err := cmd.Execute()
	return out.String(), err
}

// names lists a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

var initFlags = []string{"--app", "http://wiki.localhost:8080", "--to", "http://127.0.0.1:3000", "--issuer", "https://login.corp.example.com"}

func TestInitWritesWhatCheckAccepts(t *testing.T) {
	for name, who := range map[string][]string{"a group": {"--group", `sre "a" #1: x`}, "everyone": {"--everyone"}} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "client-secret"), []byte("s3cret-s3cret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := doInit(t, dir, append(who, initFlags...)...); err != nil || !strings.Contains(out, "http://wiki.localhost:8080/.doorward/callback") {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		path := filepath.Join(dir, "doorward.yaml")
		cfg, err := config.Load(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r := cfg.Routes[0]; r.ID != "wiki" || r.From != initFlags[1] || r.Allow[0].AnyUser != (name == "everyone") {
			t.Errorf("%s: %+v", name, r)
		}
		if name == "a group" && cfg.Groups["members"].ClaimGroups[0] != who[1] {
			t.Errorf("%+v", cfg.Groups)
		}
		text, err := os.ReadFile(path)
		if lines := strings.Count(string(text), "\n"); err != nil || lines > 12 || strings.Contains(string(text), "s3cret") {
			t.Errorf("%d lines:\n%s", lines, text)
		}
		for _, f := range cfg.Analyse() {
			if f.Severity != "note" {
				t.Errorf("%s: check says %+v", name, f)
			}
		}
		// Once more: what is there stays.
		if _, err := doInit(t, dir, append(who, initFlags...)...); err == nil || !strings.Contains(err.Error(), "not overwritten") {
			t.Errorf("%s: %v", name, err)
		}
		if again, err := os.ReadFile(path); err != nil || string(again) != string(text) {
			t.Errorf("%s: overwritten", name)
		}
	}
}

// What could not be served is not written, and nothing is left behind.
func TestInitSaysWhatIsMissing(t *testing.T) {
	for want, args := range map[string][]string{
		"--group or --everyone": initFlags,
		"--app, --to, --issuer": {"--everyone"},
		"client-secret":         append([]string{"--everyone"}, initFlags...),
		"tls.crt":               append([]string{"--everyone"}, append(initFlags, "--app", "https://wiki.corp.example.com")...),
		"is no address":         append([]string{"--everyone"}, append(initFlags, "--app", "wiki")...),
	} {
		dir := t.TempDir()
		if _, err := doInit(t, dir, args...); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ".doorward-init") {
			t.Errorf("wanted %q: %v", want, err)
		}
		if left := names(t, dir); left != "" {
			t.Errorf("%q: left behind %s", want, left)
		}
	}
}

func TestInitAsks(t *testing.T) {
	f := firstConfig{To: "http://127.0.0.1:3000"}
	var out strings.Builder
	answers := "https://wiki.corp.example.com\n https://login.corp.example.com \n\n\n*\n"
	if err := f.complete(true, strings.NewReader(answers), &out); err != nil {
		t.Fatal(err)
	}
	want := firstConfig{App: "https://wiki.corp.example.com", To: "http://127.0.0.1:3000", Issuer: "https://login.corp.example.com",
		ClientID: "doorward", Secret: "client-secret", Everyone: true}
	if f != want || strings.Contains(out.String(), "behind Doorward") || strings.Count(out.String(), ": ") != 5 {
		t.Errorf("%+v\n%s", f, out.String())
	}
	// Who goes away in the middle has not said that everybody may.
	half := firstConfig{Issuer: "https://login.corp.example.com"}
	err := half.complete(true, strings.NewReader("https://a.example\nhttp://127.0.0.1:1\n"), &out)
	if err == nil || err.Error() != "not known yet: --group or --everyone" || half.Everyone {
		t.Errorf("%v: %+v", err, half)
	}
}
