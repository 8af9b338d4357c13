package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/send"
)

func syslogTo(host string) send.To { return send.To{Syslog: send.Syslog{Address: host + ":6514"}} }

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
	cfg := Config{To: []Sink{{}, {Stdout: true}, {Stdout: true, File: FileSink{Path: "a"}}, {Stdout: true}, {File: FileSink{Path: "a"}}, {File: FileSink{Path: "./a"}},
		{File: FileSink{Path: "b", MaxAge: 1, Keep: -1, MaxSizeMiB: -1}, Format: "ocsf"}, {Stdout: true, Format: "cef"}, {File: FileSink{Path: "c"}, Spool: SpoolConfig{Dir: "d"}},
		{To: syslogTo("a")}, {To: syslogTo("b"), Spool: SpoolConfig{Dir: "d", MaxSizeMiB: 3, WhenFull: "weep"}}, {To: syslogTo("c"), Spool: SpoolConfig{Dir: "./d"}},
		{To: syslogTo("c"), Spool: SpoolConfig{Dir: "e"}}, {To: syslogTo("f"), Stdout: true}}, Key: access.NewSecret("short")}
	cfg.Validate(f)
	var paths []string
	for _, fault := range f.List() {
		if fault.Text == "" || fault.Cure == "" {
			t.Errorf("%+v", fault)
		}
		paths = append(paths, fault.Path)
	}
	if strings.Join(paths, " ") != "audit.key audit.to[0] audit.to[2] audit.to[3] audit.to[5] "+
		"audit.to[6].file.max_size_mib audit.to[6].file.keep audit.to[6].file.max_age audit.to[6].format audit.to[7].format audit.to[7] audit.to[8].spool "+
		"audit.to[9].spool.dir audit.to[10].spool.max_size_mib audit.to[10].spool.when_full audit.to[10].spool.dir audit.to[11].spool.dir audit.to[12] audit.to[13]" {
		t.Error(paths)
	}
}
