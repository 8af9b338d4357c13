package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func TestFileThatACrashCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(`{"kind":"decision","time":"2026-11-23T12:00:00Z","request":{"id":"r0"}}`+"\n"+`{"kind":"decision","ti`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Config{To: []Sink{{File: FileSink{Path: path}}}}, Options{})
	l.Record(event(1))
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	for e, err := range Read(f) {
		if err != nil {
			got = append(got, strings.SplitAfter(err.Error(), ":")[0])
		} else {
			got = append(got, e.Request.ID)
		}
	}
	if strings.Join(got, " ") != "r0 line 2: r1" {
		t.Error(got)
	}
}

func TestOpenRefusesWhatIsNoPlainFile(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		link:                              "symbolic link",
		dir:                               "not a regular file",
		"/dev/null":                       "not a regular file",
		filepath.Join(dir, "no", "where"): "create the directory",
	} {
		_, err := Open(Config{To: []Sink{{Stdout: true}, {File: FileSink{Path: path}}}}, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the target of the link was created")
	}
}

func TestValidateReportsEveryMistake(t *testing.T) {
	f := access.NewFaults("audit")
	cfg := Config{To: []Sink{{}, {Stdout: true}, {Stdout: true, File: FileSink{Path: "a"}}, {Stdout: true}, {File: FileSink{Path: "a"}}, {File: FileSink{Path: "./a"}}}}
	cfg.Validate(f)
	var paths []string
	for _, fault := range f.List() {
		if fault.Text == "" || fault.Cure == "" {
			t.Errorf("%+v", fault)
		}
		paths = append(paths, fault.Path)
	}
	if strings.Join(paths, " ") != "audit.to[0] audit.to[2] audit.to[3] audit.to[5]" {
		t.Error(paths)
	}
}
