package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/format"
)

// department names the groups that make a list long.
func department(i int) string { return fmt.Sprintf("department-%03d", i) }

// inGroups puts somebody into so many groups, which are kept with their session.
func inGroups(n int, e *access.Event) *access.Event {
	var list []string
	for i := range n {
		list = append(list, department(i))
	}
	return keptIn(access.NewTexts(list), e)
}

func keptIn(list *access.Texts, e *access.Event) *access.Event {
	e.Request.Identity.Groups = list.List()
	e.Request.Session.Kept = &access.Kept{Groups: list}
	return e
}

// A record that begins with its groups has what encoding/json writes, and nothing
// else: field by field, and all at once.
func TestManyGroupsChangeNothingButTheOrder(t *testing.T) {
	f := &filler{t: t, Rand: rand.New(rand.NewPCG(3, 4))}
	f.fill(reflect.ValueOf(new(access.Event)).Elem()) // counts
	fields := f.seen
	list := slices.Repeat(oddTexts, 20)
	long := access.NewTexts(list)
	compare := func(wants func(i int) bool) {
		t.Helper()
		e := new(access.Event)
		f.seen, f.wants = 0, wants
		f.fill(reflect.ValueOf(e).Elem())
		if e.Request == nil {
			e.Request = new(access.Request)
		}
		keptIn(long, e)
		want, err := byReflection(e)
		got, failed := byHeart(e)
		if (err == nil) != (failed == nil) {
			t.Fatalf("%v, where encoding/json says %v: %+v", failed, err, e)
		}
		if err != nil {
			return
		}
		if !bytes.HasPrefix(got, []byte(openGroups)) {
			t.Fatalf("the groups do not stand first: %s", got)
		}
		if len(got) != len(want) || !reflect.DeepEqual(membersOf(t, got), membersOf(t, want)) {
			t.Fatalf("%s\nis not what encoding/json writes:\n%s", got, want)
		}
	}
	for n := range fields {
		for range 3 {
			compare(func(i int) bool { return i == n })
		}
	}
	for range 500 {
		share := f.IntN(11)
		compare(func(int) bool { return f.IntN(10) < share })
	}
}

// membersOf is everything that stands in a line, in no order, with its numbers as
// they are written.
func membersOf[T string | []byte](t *testing.T, line T) map[string]any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(line)))
	dec.UseNumber()
	var members map[string]any
	if err := dec.Decode(&members); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return members
}

// Only a long list of a session stands first.
func TestFewGroupsStandWhereTheyDid(t *testing.T) {
	for n, first := range map[int]bool{0: false, 5: false, 50: false, 100: true, 500: true} {
		line, err := encode(inGroups(n, event(1)))
		if err != nil {
			t.Fatal(err)
		}
		if (line.begin != nil) != first || !Begins(line.whole()) {
			t.Errorf("%d groups: %s", n, line.whole())
		}
	}
	e := inGroups(500, by("alice", 1))
	want := must(encode(e))
	if line := Encode(e, slog.New(slog.DiscardHandler)); !bytes.HasPrefix(line, []byte(`{"kind":"`)) || len(line) != len(want) {
		t.Errorf("for another process: %s", line)
	}
	if e.Request.Session.Kept == nil {
		t.Error("the caller's event was changed")
	}
	e.Request.Identity.Groups = slices.Clone(e.Request.Identity.Groups)
	if line, err := encode(e); err != nil || line.begin != nil {
		t.Errorf("groups that are not those of the session: %s, %v", line.whole(), err)
	}
}

// The hash of every record is that of its whole text, whatever the ones before it
// began with, and wherever the beginning ends in a block of SHA-256.
func TestHashIsThatOfTheWholeRecord(t *testing.T) {
	pseudonyms := NewPseudonyms(&Config{Key: auditKey})
	kinds := map[string]func(e *access.Event) *access.Event{
		"as it is":   func(e *access.Event) *access.Event { return e },
		"few groups": func(e *access.Event) *access.Event { return inGroups(3, e) },
		"no request": func(e *access.Event) *access.Event { e.Request = nil; return e },
		"a token":    func(e *access.Event) *access.Event { e.Request.Path = "/" + jwt; return e },
		"a token in a list": func(e *access.Event) *access.Event {
			return keptIn(access.NewTexts(append(e.Request.Identity.Groups, jwt)), e)
		},
		"incomplete": func(e *access.Event) *access.Event { e.Incomplete = true; e.Note = cookie; return e },
		"unencodable": func(e *access.Event) *access.Event {
			e.Request.Identity.Claims = map[string]any{"n": math.NaN()}
			return e
		},
		"too large": func(e *access.Event) *access.Event { e.Request.Path = strings.Repeat("x", MaxLine); return e },
		"no longer the session's": func(e *access.Event) *access.Event {
			e.Request.Identity.Groups = append([]string{"another"}, e.Request.Identity.Groups...)
			return e
		},
		"pseudonyms": func(e *access.Event) *access.Event { return pseudonyms.hide(e) },
	}
	key, err := SigningKey(auditKey)
	if err != nil {
		t.Fatal(err)
	}
	c, begun := &chain{key: key}, 0
	for extra := range 70 {
		for name, edit := range kinds {
			line, _ := encode(edit(keptIn(access.NewTexts([]string{strings.Repeat("g", longList+extra), "last"}), by("alice", extra))))
			if line.begin != nil {
				begun++
			}
			text := c.link(nil, line, extra%2 == 0)
			if want := appendHash(nil, bytes.TrimRight(text, " \n")); !bytes.Equal(c.prev, want) {
				t.Fatalf("%s, %d bytes: the hash is %s, not %s", name, longList+extra, c.prev, want)
			}
			if whole, body := line.whole(), bytes.Split(text, []byte(`,"chain":`))[0]; !bytes.Equal(whole, append(body, "}\n"...)) {
				t.Fatalf("%s is written as\n%s", whole, text)
			}
		}
	}
	if begun != 70*5 {
		t.Errorf("%d records began with their groups", begun)
	}
}

// A log of people in many groups and in few is one chain, over rotations, and each
// can be erased from it.
func TestChainOfLongAndShortRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	cfg := Config{To: []Sink{{File: FileSink{Path: path, MaxSizeMiB: 1}}}, Key: auditKey}
	for range 2 {
		l := open(t, cfg, Options{})
		for i := range 150 {
			l.Record(inGroups(500, by("alice", i)))
			l.Record(inGroups(3, by("bob", i)))
			l.Record(keptIn(access.NewTexts([]string{"one", strings.Repeat("of carol", 200)}), by("carol", i)))
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := verify(t, VerifyOptions{Key: publicKey(t)}, path+"*")
	if !before.Sound() || before.Records != 900 || before.Files < 3 || before.Unsigned != 0 {
		t.Fatalf("%+v", before)
	}
	names := find(t, path+"*").Names
	if done := erase(t, "corp:alice", EraseOptions{Live: []string{path}}, names...); done != (Erased{Records: 300, Files: before.Files}) {
		t.Errorf("%+v", done)
	}
	recordAll(t, fileAt(path), inGroups(500, by("alice", 1)))
	v := verify(t, VerifyOptions{Key: publicKey(t), Head: before.Head}, names...)
	if !v.Sound() || v.Records != 901 || v.Erased != 300 || v.Signed != before.Signed+1 {
		t.Errorf("%+v, before %+v", v, before)
	}
	if alice, bob := export(t, "corp:alice", names...), export(t, "corp:bob", names...); len(alice) != 1 || len(bob) != 300 {
		t.Errorf("%d records of alice and %d of bob are left", len(alice), len(bob))
	}
}

// Every sink has the groups, in its own format, and no pseudonym is missing.
func TestEverySinkHasManyGroups(t *testing.T) {
	dir := t.TempDir()
	whole, hidden := filepath.Join(dir, "whole"), filepath.Join(dir, "hidden")
	var out bytes.Buffer
	l := open(t, Config{Key: auditKey, To: []Sink{{Stdout: true, Format: format.ECS}, {File: FileSink{Path: whole}}, {File: FileSink{Path: hidden}, Privacy: privacyPseudonyms}}},
		Options{Stdout: &out})
	l.Record(inGroups(100, by("alice", 1)))
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	fromWhole, _ := os.ReadFile(whole)
	fromHidden, _ := os.ReadFile(hidden)
	for name, text := range map[string]string{"ecs": out.String(), "the file": string(fromWhole), "pseudonyms": string(fromHidden)} {
		if strings.Count(text, "\n") != 1 || strings.Count(text, department(99)) != 1 || !json.Valid([]byte(text)) || strings.Contains(text, "alice@") == (name == "pseudonyms") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if !strings.Contains(out.String(), `"@timestamp":`) {
		t.Errorf("this is not ECS: %s", out.String())
	}
}

// An event that is lost still says whose it was, and what.
func TestLostEventIsNotItsGroupsAlone(t *testing.T) {
	var operator bytes.Buffer
	l := open(t, Config{}, Options{Stdout: new(bytes.Buffer), Log: slog.New(slog.NewJSONHandler(&operator, nil))})
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Record(inGroups(500, by("alice", 7)))
	if said := operator.String(); !strings.Contains(said, "r7") || !strings.Contains(said, "alice") || len(said) > 5000 {
		t.Error(said)
	}
}

// BenchmarkLink is what a record costs where the file is written, alone and with
// what it costs the request.
func BenchmarkLink(b *testing.B) {
	for _, groups := range []int{5, 500} {
		e := ordinary(groups)
		c, to := new(chain), make([]byte, 0, keptBuffer)
		b.Run(fmt.Sprintf("link/groups=%d", groups), func(b *testing.B) {
			line, err := encode(e)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				to = c.link(to[:0], line, false)
			}
		})
		b.Run(fmt.Sprintf("both/groups=%d", groups), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				line, err := encode(e)
				if err != nil {
					b.Fatal(err)
				}
				to = c.link(to[:0], line, false)
				freeLine(line.rest)
			}
		})
	}
}
