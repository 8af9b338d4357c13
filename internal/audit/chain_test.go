package audit

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var auditKey = access.NewSecret(strings.Repeat("k", 32))

func publicKey(t testing.TB) ed25519.PublicKey {
	t.Helper()
	key, err := SigningKey(auditKey)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public().(ed25519.PublicKey)
}

// written writes events to a file, a run of the log for each number.
func written(t *testing.T, path string, runs ...int) {
	t.Helper()
	n := 0
	for _, count := range runs {
		l := open(t, Config{To: []Sink{{File: FileSink{Path: path}}}, Key: auditKey}, Options{})
		for range count {
			l.Record(event(n))
			n++
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t *testing.T, opts VerifyOptions, names ...string) *Verified {
	t.Helper()
	files, err := Find(names)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Verify(files, opts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func texts(list []Finding) (all []string) {
	for _, f := range list {
		all = append(all, filepath.Base(f.Place)+" "+f.Text)
	}
	return all
}

func TestChainGoesOnOverRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	written(t, path, 3, 2, 4)
	v := verify(t, VerifyOptions{Key: publicKey(t)}, path)
	if !v.Sound() || v.Records != 9 || v.Signed < 3 || v.Unsigned != 0 || len(v.Notes) != 1 || !strings.HasPrefix(v.Head, "9:") {
		t.Errorf("%+v", v)
	}
	// The readers of events do not mind.
	text, _ := os.ReadFile(path)
	if list, _ := ids(t, string(text)); len(list) != 9 {
		t.Error(list)
	}
}

// What somebody might do to a file, and what is said about it. The numbers are
// those of lines.
func TestVerifyFindsTampering(t *testing.T) {
	swap := func(lines []string, i, j int) []string { lines[i], lines[j] = lines[j], lines[i]; return lines }
	for name, c := range map[string]struct {
		tamper func(lines []string) []string
		want   string
	}{
		"a removed line":       {func(l []string) []string { return slices.Delete(l, 3, 4) }, "audit.jsonl:4 a record is missing before this record, which follows record 3 on line 3"},
		"two removed lines":    {func(l []string) []string { return slices.Delete(l, 3, 5) }, "audit.jsonl:4 2 records are missing"},
		"a changed line":       {func(l []string) []string { l[3] = strings.Replace(l[3], "r3", "rX", 1); return l }, "audit.jsonl:4 this record was changed"},
		"a swap":               {func(l []string) []string { return swap(l, 3, 4) }, "audit.jsonl:5 record 4 stands after record 5 of line 4"},
		"a repeated line":      {func(l []string) []string { return slices.Insert(l, 4, l[3]) }, "audit.jsonl:5 record 4 stands after record 4"},
		"an added line":        {func(l []string) []string { return slices.Insert(l, 4, `{"kind":"login"}`) }, "audit.jsonl:5 this record is not part of the chain"},
		"a line made unusable": {func(l []string) []string { l[3] = l[3][5:]; return l }, "audit.jsonl:5 a record is missing"},
		"a changed last line":  {func(l []string) []string { l[7] = strings.Replace(l[7], "r7", "rX", 1); return l }, "audit.jsonl:8 the signature does not fit"},
		"a cut off end":        {func(l []string) []string { return l[:6] }, "all files no file holds the record 8:"},
		"a beginning of one's own": {func(l []string) []string {
			own := new(chain)
			for i := range l {
				l[i] = strings.TrimSpace(string(own.link(nil, encoded{rest: must(encode(event(i)))}, true)))
			}
			return l
		}, "audit.jsonl:8 no signature vouches for the last 8 records"},
		"a chain of another key": {func(l []string) []string {
			key, _ := SigningKey(access.NewSecret("another"))
			own := &chain{key: key}
			for i := range l {
				l[i] = strings.TrimSpace(string(own.link(nil, encoded{rest: must(encode(event(i)))}, true)))
			}
			return l
		}, "audit.jsonl:1 the signature does not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			written(t, path, 1, 1, 1, 1, 1, 1, 1, 1)
			head := verify(t, VerifyOptions{}, path).Head
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := c.tamper(strings.Split(strings.TrimSpace(string(text)), "\n"))
			if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			v := verify(t, VerifyOptions{Key: publicKey(t), Head: head}, path)
			if v.Sound() || !slices.ContainsFunc(texts(v.Faults), func(s string) bool { return strings.HasPrefix(s, c.want) }) {
				t.Errorf("found %q and noted %q", texts(v.Faults), texts(v.Notes))
			}
		})
	}
}

// A crash in the middle of a write is no tampering.
func TestVerifyToleratesACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	written(t, path, 3)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	file.WriteString(`{"kind":"decision","ti`)
	file.Close()
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, path); !v.Sound() || !strings.Contains(strings.Join(texts(v.Notes), "|"), "audit.jsonl:4 no record") {
		t.Errorf("%+v", v)
	}
	written(t, path, 2)
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, path); !v.Sound() || v.Records != 5 {
		t.Errorf("%+v", v)
	}
}

// rotatedLog writes a log that rotates with every event.
func rotatedLog(t *testing.T, file FileSink, events int) *bytes.Buffer {
	t.Helper()
	var operator bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		file.MaxAge = access.Duration(time.Minute)
		l := open(t, Config{To: []Sink{{File: file}}, Key: auditKey}, Options{Log: slog.New(slog.NewTextHandler(&operator, nil))})
		for i := range events {
			e := event(i)
			e.Time = time.Now()
			l.Record(e)
			time.Sleep(2 * time.Minute)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return &operator
}

func TestRotationContinuesTheChain(t *testing.T) {
	for _, packed := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "audit.jsonl")
		rotatedLog(t, FileSink{Path: path, Compress: packed}, 5)
		v := verify(t, VerifyOptions{Key: publicKey(t)}, path+"*")
		if !v.Sound() || v.Files != 5 || v.Records != 5 || len(v.Notes) != 1 || v.Unsigned != 0 {
			t.Errorf("%+v", v)
		}
		old, _ := rotatedFrom(path)
		if len(old) != 4 || strings.HasSuffix(old[0].path, ".gz") != packed {
			t.Error(old)
		}
		// The file was moved away while nobody wrote: the chain goes on from it.
		os.Remove(path)
		written(t, path, 2)
		if v := verify(t, VerifyOptions{}, path+"*"); v.Sound() != true || v.Records != 6 || !strings.HasPrefix(v.Head, "6:") {
			t.Errorf("%+v", v)
		}
		// A file in the middle is missing.
		os.Remove(old[1].path)
		if v := verify(t, VerifyOptions{}, path+"*"); v.FaultCount != 1 || !strings.Contains(v.Faults[0].Text, "what comes before record 3 is in none of the files") {
			t.Errorf("%+v", v)
		}
	}
}

func TestRetentionDeletesAndSaysSo(t *testing.T) {
	for _, file := range []FileSink{{Keep: 2}, {KeepFor: access.Duration(5 * time.Minute)}} {
		file.Path = filepath.Join(t.TempDir(), "audit.jsonl")
		operator := rotatedLog(t, file, 6)
		old, _ := rotatedFrom(file.Path)
		if deleted := strings.Count(operator.String(), "an old audit file was deleted"); len(old) != 5-deleted || len(old) > 3 || len(old) < 2 {
			t.Error(len(old), deleted, operator)
		}
		if v := verify(t, VerifyOptions{Key: publicKey(t)}, file.Path+"*"); !v.Sound() || !strings.Contains(fmt.Sprint(v.Notes), "what came before is not among them") {
			t.Errorf("%+v", v)
		}
	}
}

// A crash while a file was compressed leaves the plain one, which is done again.
func TestCompressionThatACrashCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	rotatedLog(t, FileSink{Path: path}, 2)
	os.WriteFile(filepath.Join(dir, ".audit.jsonl.partial"), []byte("half"), 0o600)
	l := open(t, Config{To: []Sink{{File: FileSink{Path: path, Compress: true}}}, Key: auditKey}, Options{})
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, _ := rotatedFrom(path)
	if len(old) != 1 || !strings.HasSuffix(old[0].path, ".gz") {
		t.Fatal(old)
	}
	file, err := os.Open(old[0].path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := gzip.NewReader(file); err != nil {
		t.Error(err)
	}
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, path+"*"); !v.Sound() || v.Records != 2 {
		t.Errorf("%+v", v)
	}
}
