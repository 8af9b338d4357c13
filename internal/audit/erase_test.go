package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/doorward/doorward/internal/access"
)

// by is an event of somebody's request.
func by(name string, n int) *access.Event {
	e := event(n)
	e.Request.Identity = access.Identity{Provider: "corp", Issuer: "https://idp", Subject: name, Email: name + "@corp.example", Name: "Name of " + name}
	e.Request.Session.ID = "s-" + name
	e.Session = "s-" + name
	return e
}

// life is what a log has about two people, in order: Alice's login, which names the
// request it happened in, requests, the end of her session, which names nothing
// else, and what an administrator did.
func life() []*access.Event {
	at := func(e *access.Event, n int) *access.Event { e.Time = time.Unix(int64(n), 0).UTC(); return e }
	return []*access.Event{
		at(&access.Event{Kind: access.EventDecision, Request: &access.Request{ID: "callback-1", Path: "/.doorward/callback"}, RequestID: "callback-1"}, 0), // alice
		at(&access.Event{Kind: access.EventLogin, Actor: "corp:alice", RequestID: "callback-1", Session: "s-alice"}, 1),                                    // alice
		by("alice", 2), // alice
		by("bob", 3),
		by("alicia", 4),
		by("alice", 5), // alice
		at(&access.Event{Kind: access.EventSession, Reason: access.SessionEnded, Session: "s-alice", Note: "too old"}, 6),                                         // alice
		at(&access.Event{Kind: access.EventAdmin, Actor: "dave", Why: "left", Note: "user corp:alice revoked: 1 sessions ended", Reason: access.SessionEnded}, 7), // alice
		at(&access.Event{Kind: access.EventAdmin, Actor: "dave", Why: "left", Note: "user corp:alice.b revoked: 1 sessions ended"}, 8),
		by("bob", 9),
	}
}

const ofAlice = 6 // events of life

// recordAll writes events, each in a write of its own, so that each is signed.
func recordAll(t *testing.T, cfg Config, events ...*access.Event) {
	t.Helper()
	cfg.Key = auditKey
	for _, e := range events {
		l := open(t, cfg, Options{})
		l.Record(e)
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func fileAt(path string) Config { return Config{To: []Sink{{File: FileSink{Path: path}}}} }

func erase(t *testing.T, user string, opts EraseOptions, names ...string) Erased {
	t.Helper()
	opts.Key, _ = SigningKey(auditKey)
	done, err := person(t, user).Erase(find(t, names...), opts)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func person(t *testing.T, user string) *Person {
	t.Helper()
	p, err := NewPerson(user, NewPseudonyms(&Config{Key: auditKey}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func find(t *testing.T, names ...string) *Files {
	t.Helper()
	files, err := Find(names)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func export(t *testing.T, user string, names ...string) []string {
	t.Helper()
	p, files := person(t, user), find(t, names...)
	if err := p.Learn(files); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	n, err := p.Export(files, &out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if n != len(lines) && n > 0 {
		t.Errorf("%d records, %d lines", n, len(lines))
	}
	return lines[:n]
}

func TestExportHasEverythingAboutOnePerson(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	recordAll(t, fileAt(path), life()...)
	lines := export(t, "corp:alice", path)
	if len(lines) != ofAlice {
		t.Errorf("%d records:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for _, line := range lines {
		if strings.Contains(line, "bob") || strings.Contains(line, "alicia") || strings.Contains(line, "alice.b") || !json.Valid([]byte(line)) {
			t.Error(line)
		}
	}
	if lines := export(t, "corp:nobody", path); len(lines) != 0 {
		t.Error(lines)
	}
	for _, bad := range []string{"", "alice", ":alice", "corp:"} {
		if _, err := NewPerson(bad, nil); err == nil {
			t.Errorf("%q is a user", bad)
		}
	}
}

// Who has ended somebody's session has left their name on the end of it, and is not
// who the session was of: neither is told what that one did, nor has it erased.
func TestWhoEndsASessionIsNotWhoseItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	recordAll(t, fileAt(path),
		by("mallory", 1), by("mallory", 2),
		&access.Event{Kind: access.EventSession, Reason: access.SessionEnded, Actor: "corp:mallory", Session: "s-mallory", Note: "revoked by corp:dave"},
		&access.Event{Kind: access.EventAdmin, Reason: access.Allowed, Actor: "corp:dave", Session: "s-mallory", Why: "asked by corp:alice", Note: "session revoked"},
		by("dave", 3), by("alice", 4))
	for user, want := range map[string]int{"corp:dave": 3, "corp:alice": 2, "corp:mallory": 4} {
		if lines := export(t, user, path); len(lines) != want {
			t.Errorf("%s: %d records, not %d:\n%s", user, len(lines), want, strings.Join(lines, "\n"))
		}
	}
	erase(t, "corp:dave", EraseOptions{Live: []string{path}}, path)
	if lines := export(t, "corp:mallory", path); len(lines) != 2 {
		t.Errorf("%d requests of somebody else are left, not 2", len(lines))
	}
}

// What is erased is gone from every file, and the chain, its signatures and an
// earlier head are as good as before.
func TestErasingLeavesTheChainWhole(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, path string) []string{
		"a file in use": func(t *testing.T, path string) []string { return []string{path} },
		"gzip": func(t *testing.T, path string) []string {
			old := path + ".20261126T180000.000000Z"
			os.Rename(path, old)
			if err := compress(old); err != nil {
				t.Fatal(err)
			}
			return []string{old + compressedSuffix}
		},
		"zstd": func(t *testing.T, path string) []string {
			text, _ := os.ReadFile(path)
			os.Remove(path)
			z, _ := zstd.NewWriter(nil)
			os.WriteFile(path+".1.zst", z.EncodeAll(text, nil), 0o640)
			return []string{path + ".1.zst"}
		},
		"no newline at the end": func(t *testing.T, path string) []string {
			text, _ := os.ReadFile(path)
			os.WriteFile(path, append(text, `{"kind":"decision","actor":"corp:al`...), 0o640)
			return []string{path}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			recordAll(t, fileAt(path), life()...)
			before := verify(t, VerifyOptions{Key: publicKey(t)}, path)
			names := prepare(t, path)
			info, _ := os.Stat(names[0])
			done := erase(t, "corp:alice", EraseOptions{Live: []string{path}}, names...)
			if done != (Erased{Records: ofAlice, Files: 1}) {
				t.Errorf("%+v", done)
			}
			v := verify(t, VerifyOptions{Key: publicKey(t), Head: before.Head}, names...)
			if !v.Sound() || v.Records != before.Records || v.Erased != ofAlice || v.Head != before.Head || v.Signed != before.Signed || v.Unsigned != 0 {
				t.Errorf("%+v, before %+v", v, before)
			}
			if left := export(t, "corp:alice", names...); len(left) != 0 {
				t.Error(left)
			}
			if bobs := export(t, "corp:bob", names...); len(bobs) != 2 {
				t.Error(bobs)
			}
			for batch := range find(t, names...).Batches() {
				for _, line := range batch.Lines {
					if text := string(line.Text); strings.Contains(text, "corp:alice ") || strings.Contains(text, "alice@") || strings.Contains(text, "s-alice") || strings.Contains(text, "callback") {
						t.Error(text)
					}
				}
			}
			if now, _ := os.Stat(names[0]); now.Mode() != info.Mode() {
				t.Errorf("the mode was %s and is %s", info.Mode(), now.Mode())
			}
			if again := erase(t, "corp:alice", EraseOptions{Live: []string{path}}, names...); again != (Erased{}) {
				t.Errorf("a second time: %+v", again)
			}
		})
	}
}

// The log goes on while somebody is erased from the file that is written, and
// after the last record was erased.
func TestErasingWhileTheLogIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	cfg := fileAt(path)
	cfg.Key = auditKey
	l := open(t, cfg, Options{})
	l.Record(by("bob", 0))
	l.Record(by("alice", 1))
	written := func(n int) func() bool {
		return func() bool { text, _ := os.ReadFile(path); return bytes.Count(text, []byte("\n")) == n }
	}
	waitFor(t, written(2))
	erase(t, "corp:alice", EraseOptions{Live: []string{path}}, path)
	l.Record(by("bob", 2))
	waitFor(t, written(3))
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	recordAll(t, fileAt(path), by("alice", 3))
	erase(t, "corp:alice", EraseOptions{Live: []string{path}}, path)
	recordAll(t, fileAt(path), by("bob", 4)) // which resumes behind an erased record
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, path); !v.Sound() || v.Records != 5 || v.Erased != 2 {
		t.Errorf("%+v", v)
	}
}

func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// Each of several logs has a chain of its own, of which old files were deleted.
func TestErasingFromLogsThatWereRotated(t *testing.T) {
	dir := t.TempDir()
	var live []string
	for _, name := range []string{"audit.jsonl", "other.jsonl"} {
		path := filepath.Join(dir, name)
		live = append(live, path)
		for i := range 3 {
			recordAll(t, fileAt(path), by("alice", 10*i), by("bob", 10*i+1))
			if old := fmt.Sprintf("%s.%s", path, time.Unix(int64(i), 0).UTC().Format(rotatedLayout)); i < 2 {
				os.Rename(path, old)
			}
		}
		old, _ := rotatedFrom(path)
		os.Remove(old[0].path) // keep: 1
	}
	all := []string{live[0] + "*", live[1] + "*"}
	if done := erase(t, "corp:alice", EraseOptions{Live: live}, all...); done != (Erased{Records: 4, Files: 4}) {
		t.Errorf("%+v", done)
	}
	for _, names := range all {
		if v := verify(t, VerifyOptions{Key: publicKey(t)}, names); !v.Sound() || v.Erased != 2 {
			t.Errorf("%+v", v)
		}
	}
}

// A stub hides nothing that anybody else does.
func TestOnlyTheOwnerOfTheKeyErases(t *testing.T) {
	other, _ := SigningKey(access.NewSecret(strings.Repeat("x", 32)))
	stubOf := func(line string, sign bool) string {
		link, _ := linkOf([]byte(line))
		key := other
		if !sign {
			key = nil
		}
		return string(stub(recordOf([]byte(line), link), link.Prev, time.Unix(0, 0), true, key))
	}
	for name, c := range map[string]struct {
		tamper func(lines []string) []string
		want   string
	}{
		"a stub without a signature": {func(l []string) []string { l[4] = stubOf(l[4], false); return l }, "audit.jsonl:5 the record was removed by somebody"},
		"a stub of another key":      {func(l []string) []string { l[4] = stubOf(l[4], true); return l }, "audit.jsonl:5 the record was removed by somebody"},
		"a real stub somewhere else": {func(l []string) []string { l[4] = l[2]; return l }, "audit.jsonl:5 record 3 stands after record 4"},
		"a removed stub":             {func(l []string) []string { return slices.Delete(l, 2, 3) }, "audit.jsonl:3 a record is missing"},
		"a stub with another hash":   {func(l []string) []string { l[2] = strings.Replace(l[2], `"hash":"`, `"hash":"A`, 1); return l }, "audit.jsonl:3 "},
		"a stub that says more": {func(l []string) []string {
			l[2] = strings.Replace(l[2], `,"chain"`, `,"note":"x","chain"`, 1)
			return l
		}, "audit.jsonl:3 the record was removed by somebody"},
		"a stub of another hour":      {func(l []string) []string { l[2] = strings.Replace(l[2], "T00:", "T01:", 1); return l }, "audit.jsonl:3 the record was removed by somebody"},
		"a record that claims a hash": {claimsHash, "audit.jsonl:5 the record was removed by somebody"},
		"a changed record":            {func(l []string) []string { l[3] = strings.Replace(l[3], "bob", "eve", 1); return l }, "audit.jsonl:4 "},
		"a changed record before a stub": {func(l []string) []string {
			l[1] = strings.Replace(l[1], "bob", "eve", 1)
			return l
		}, "audit.jsonl:2 "},
		"the end cut off at a stub": {func(l []string) []string { return l[:7] }, "all files no file holds the record"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			recordAll(t, fileAt(path), by("bob", 0), by("bob", 1), by("alice", 2), by("bob", 3), by("bob", 4), by("bob", 5), by("alice", 6), by("bob", 7))
			head := verify(t, VerifyOptions{}, path).Head
			erase(t, "corp:alice", EraseOptions{Live: []string{path}}, path)
			text, _ := os.ReadFile(path)
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			for i := range lines {
				lines[i] = strings.TrimSpace(lines[i])
			}
			lines = c.tamper(lines)
			if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			v := verify(t, VerifyOptions{Key: publicKey(t), Head: head}, path)
			if v.Sound() || !slices.ContainsFunc(texts(v.Faults), func(s string) bool { return strings.HasPrefix(s, c.want) }) {
				t.Errorf("found %q", texts(v.Faults))
			}
			// And then nothing more is erased, so that it can still be seen.
			key, _ := SigningKey(auditKey)
			if name != "the end cut off at a stub" { // which only the head tells
				if _, err := person(t, "corp:bob").Erase(find(t, path), EraseOptions{Key: key}); !errors.Is(err, ErrTamperedWith) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

// claimsHash changes a record, and lets it say the hash that it had.
func claimsHash(l []string) []string {
	was := string(appendHash(nil, []byte(l[4])))
	changed := strings.Replace(l[4], "bob", "eve", 1)
	at := strings.Index(changed, `,"sig":`)
	l[4] = changed[:at] + fmt.Sprintf(`,"hash":%q}}`, was)
	return l
}

// Whatever a line says, it is a stub only if the owner of the key has made it.
func FuzzErasedBy(f *testing.F) {
	key, err := SigningKey(auditKey)
	if err != nil {
		f.Fatal(err)
	}
	public := key.Public().(ed25519.PublicKey)
	for _, vouched := range []bool{false, true} {
		f.Add(stub(record{7, "HASH"}, "PREV", time.Unix(0, 0), vouched, key))
	}
	f.Add(stub(record{7, "HASH"}, "PREV", time.Unix(0, 0), false, nil))
	f.Add([]byte(`{"kind":"erased","time":"1970-01-01T00:00:00Z","chain":{"seq":7,"prev":"PREV","hash":"HASH","sig":"x"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		line = bytes.TrimSpace(line)
		link, whole := linkOf(line)
		if !whole || link == nil || link.Hash == "" {
			return
		}
		ok, vouches := erasedBy(line, link, public)
		if !ok {
			return
		}
		var said struct {
			Time time.Time `json:"time"`
		}
		if json.Unmarshal(line, &said) != nil || !bytes.Equal(line, stub(record{link.Seq, link.Hash}, link.Prev, said.Time, vouches, key)) {
			t.Errorf("taken for a stub: %s", line)
		}
	})
}

// If the machine fails while stubs are written, the next start writes them again.
func TestAnErasureThatACrashCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	recordAll(t, fileAt(path), life()...)
	before := verify(t, VerifyOptions{Key: publicKey(t)}, path)
	// What the plan would have been, and a file of which half was written.
	whole, _ := os.ReadFile(path)
	p := person(t, "corp:alice")
	if err := p.Learn(find(t, path)); err != nil {
		t.Fatal(err)
	}
	key, _ := SigningKey(auditKey)
	pieces, err := p.pieces(bytes.NewReader(whole), EraseOptions{Key: key})
	if err != nil || len(pieces) != ofAlice {
		t.Fatal(len(pieces), err)
	}
	var plans bytes.Buffer
	for _, one := range pieces {
		json.NewEncoder(&plans).Encode(plan{one.at, one.was, one.filled()})
	}
	torn := bytes.Clone(whole)
	copy(torn[pieces[0].at:], pieces[0].stub[:100])
	copy(torn[pieces[1].at:], pieces[1].filled())
	os.WriteFile(path, torn, 0o600)
	os.WriteFile(planFile(path), plans.Bytes(), 0o600)

	recordAll(t, fileAt(path), by("bob", 20)) // a start
	if _, err := os.Stat(planFile(path)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the plan is still there:", err)
	}
	v := verify(t, VerifyOptions{Key: publicKey(t), Head: before.Head}, path)
	if !v.Sound() || v.Erased != ofAlice || v.Records != before.Records+1 {
		t.Errorf("%+v", v)
	}

	// A plan for a file that is another one by now does nothing to it.
	os.Remove(path)
	recordAll(t, fileAt(path), by("bob", 1), by("bob", 2), by("bob", 3), by("bob", 4))
	os.WriteFile(planFile(path), plans.Bytes(), 0o600)
	recordAll(t, fileAt(path), by("bob", 5))
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, path); !v.Sound() || v.Records != 5 || v.Erased != 0 {
		t.Errorf("%+v", v)
	}
}

// Records of an older version may be too short for a stub. A file that was rotated
// away is written anew; in one that is in use they are left, and said to be.
func TestShortRecordsOfAnOlderVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	recordAll(t, fileAt(path), by("bob", 0), &access.Event{Kind: access.EventSession, Time: time.Unix(1, 0), Actor: "corp:alice"}, by("alice", 2))
	text, _ := os.ReadFile(path)
	var short []string
	for line := range strings.Lines(string(text)) {
		short = append(short, strings.TrimSpace(line))
	}
	os.WriteFile(path, []byte(strings.Join(short, "\n")+"\n"), 0o600)
	if done := erase(t, "corp:alice", EraseOptions{Live: []string{path}}, path); done != (Erased{Records: 1, Files: 1, Left: 1}) {
		t.Errorf("%+v", done)
	}
	if done := erase(t, "corp:alice", EraseOptions{}, path); done != (Erased{Records: 1, Files: 1}) {
		t.Errorf("%+v", done)
	}
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, path); !v.Sound() || v.Erased != 2 {
		t.Errorf("%+v", v)
	}
}

// Nobody compresses or deletes a file that is being rewritten, and a log that is
// compressed at this moment is not touched.
func TestErasingKeepsOutOfTheWay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	recordAll(t, fileAt(path), life()...)
	folder, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := person(t, "corp:alice").Erase(find(t, path), EraseOptions{}); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Error(err)
	}
	os.WriteFile(path+".20261126T180000.000000Z", []byte("{}\n"), 0o600)
	r := newRotation(FileSink{Path: path, Compress: true}, Options{Now: time.Now, Log: discard})
	if r.tidy() {
		t.Error("old files were looked after in the middle of an erasure")
	}
	folder.Close()
	if !r.tidy() {
		t.Error("old files are not looked after")
	}
}
