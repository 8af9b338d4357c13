package history

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
)

// smallWorld has two routes and traffic of every outcome.
func smallWorld(t testing.TB, perDay int) *world {
	w := newWorld(t, 7)
	w.hire(60)
	all := []string{"/", "/a/%d", "/b/%d/c"}
	w.routes = []app{{id: "wiki", yaml: `  - id: wiki
    from: https://wiki.example.com
    to: [http://127.0.0.1:3000]
    require: {login: {max_age: 2h}}
    allow:
      - {name: staff, groups: [dev, ops, sales], paths: ["/**"]}
    deny:
      - {name: no-deletes, methods: [DELETE], message: "Nothing is deleted here."}
`, habits: []habit{
		{group: "dev", methods: []string{"GET", "POST", "DELETE"}, paths: all, perDay: perDay},
		{group: "sales", methods: []string{"GET"}, paths: all, perDay: perDay},
		{group: "hr", methods: []string{"GET"}, paths: all, perDay: perDay},
	}}, {id: "pay", yaml: `  - id: pay
    from: https://pay.example.com
    to: [http://127.0.0.1:3000]
    allow: [{name: finance, groups: [finance]}]
    rules: [{paths: ["/b/**"], require: {login: {acr: [phr]}}}]
`, habits: []habit{{group: "finance", methods: []string{"GET", "POST"}, paths: all, perDay: perDay}}}}
	return w
}

func replay(t testing.TB, files *audit.Files, cfg *config.Config, filter Filter) *Report {
	t.Helper()
	r, err := Replay(t.Context(), files, cfg, filter)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSameConfigurationChangesNothing(t *testing.T) {
	w := smallWorld(t, 8)
	cfg := w.config()
	r := replay(t, w.log(cfg), cfg, Filter{})
	if r.Same != r.Log.Decisions || r.Same < 2000 || len(r.Changes)+len(r.Reasons)+len(r.Unknown)+len(r.Inconsistent) > 0 {
		t.Errorf("%+v", r)
	}
	// The same rules in a file with another name of its version.
	r = replay(t, w.log(cfg), w.config("# who works there", ""), Filter{})
	if r.Same != r.Log.Decisions || len(r.Changes) > 0 {
		t.Errorf("%+v", r)
	}
}

// A change touches exactly those whom it is about.
func TestPlantedChangeShowsExactlyItsUsers(t *testing.T) {
	w := smallWorld(t, 8)
	files := w.log(w.config())
	next := w.config("groups: [dev, ops, sales]", "groups: [dev, ops, hr]")
	r := replay(t, files, next, Filter{})

	lost, gained := map[string]bool{}, map[string]bool{}
	events := readAll(t, files)
	for _, e := range events {
		id := e.Request.Identity
		in := func(g string) bool { return slices.Contains(id.Groups, "idp-"+g) }
		if e.Request.Route == "wiki" && e.Request.Method != "DELETE" {
			before, after := in("dev") || in("ops") || in("sales"), in("dev") || in("ops") || in("hr")
			lost[id.User()] = lost[id.User()] || before && !after
			gained[id.User()] = gained[id.User()] || !before && after
		}
	}
	if len(r.Changes) != 2 || r.Changes[0].Transition() != "allow-to-deny" || r.Changes[1].Transition() != "deny-to-allow" {
		t.Fatalf("%+v", r.Changes)
	}
	for i, want := range []map[string]bool{lost, gained} {
		var users []string
		for _, u := range r.Changes[i].Users {
			users = append(users, u.User)
		}
		for user, is := range want {
			if is != slices.Contains(users, user) {
				t.Errorf("%s: %s %v, reported %v", r.Changes[i].Transition(), user, is, !is)
			}
		}
		if len(users) < 3 || len(r.Changes[i].Examples) != maxExamples {
			t.Errorf("%+v", r.Changes[i])
		}
	}
	if sum := r.Same + r.Count("allow-to-deny") + r.Count("deny-to-allow") + total(r.Reasons, func(c Change) int { return c.Count }); sum != len(events) {
		t.Errorf("%d of %d are accounted for", sum, len(events))
	}
	// The filters narrow it.
	user := r.Changes[0].Users[0]
	one := replay(t, files, next, Filter{User: user.User, Route: "wiki"})
	if len(one.Changes[0].Users) != 1 || one.Changes[0].Count != user.Count || one.Log.Skipped == 0 {
		t.Errorf("%+v", one)
	}
	half := replay(t, files, next, Filter{Since: windowEnd.AddDate(0, 0, -45), Until: windowEnd.AddDate(0, 0, -10)})
	if half.Log.Decisions-half.Log.Skipped != 35*4*8 || half.Log.First.Before(windowEnd.AddDate(0, 0, -45)) {
		t.Errorf("%+v", half.Log)
	}
}

func readAll(t *testing.T, files *audit.Files) (events []*access.Event) {
	t.Helper()
	for batch := range files.Batches() {
		for _, line := range batch.Lines {
			e := new(access.Event)
			if err := json.Unmarshal(line.Text, e); err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
	}
	return events
}

// What comes out does not depend on how the log is cut into files, on how they
// are compressed, or on who judges which part.
func TestOutputIsDeterministic(t *testing.T) {
	w := smallWorld(t, 8)
	whole := w.log(w.config())
	next := w.config("groups: [dev, ops, sales]", "groups: [ops, hr]", "max_age: 2h", "max_age: 30m")
	text, err := os.ReadFile(whole.Names[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	third := len(lines) / 3
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	gz.Write(bytes.Join(lines[:third/2], nil))
	gz.Close()
	gz = gzip.NewWriter(&packed) // a second member, as `cat a.gz b.gz` makes it
	gz.Write(bytes.Join(lines[third/2:third], nil))
	gz.Close()
	write("audit.jsonl.2.gz", packed.Bytes())
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	write("audit.jsonl.1", z.EncodeAll(bytes.Join(lines[third:2*third], nil), nil)) // told by content
	write("audit.jsonl", bytes.Join(lines[2*third:], nil))

	want := outcomeOf(t, replay(t, whole, next, Filter{}))
	for _, names := range [][]string{{filepath.Join(dir, "audit.jsonl*")}, {dir}, {filepath.Join(dir, "audit.jsonl"), dir}} {
		if got := outcomeOf(t, replay(t, find(t, names...), next, Filter{})); got != want {
			t.Errorf("%v: got\n%s\nwant\n%s", names, got, want)
		}
	}
	files := find(t, audit.Stdin)
	files.Stdin = bytes.NewReader(packed.Bytes())
	if r := replay(t, files, next, Filter{}); r.Log.Decisions != third {
		t.Errorf("%+v", r.Log)
	}
}

// outcomeOf leaves out places, which differ with the files.
func outcomeOf(t *testing.T, r *Report) string {
	t.Helper()
	for _, list := range [][]Change{r.Changes, r.Reasons} {
		for i := range list {
			for j := range list[i].Examples {
				list[i].Examples[j].Place = ""
			}
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whatever is in a log, every line of it is accounted for.
func TestEveryLineIsAccountedFor(t *testing.T) {
	w := smallWorld(t, 1)
	cfg := w.config()
	text, err := os.ReadFile(w.log(cfg).Names[0])
	if err != nil {
		t.Fatal(err)
	}
	good := strings.SplitN(string(text), "\n", 4)
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	content := strings.Join([]string{
		good[0], "", `{"kind":"login","time":"2026-11-01T00:00:00Z","actor":"corp:u001"}`, "Nov 26 sshd[1]: hello", `{"kind":"decision","time":"yesterday"}`,
		`{"kind":"decision","time":"2026-11-01T00:00:00Z","request":{"id":"own","path":"/.doorward/me"}}`, good[1] + good[2], `{"level":"info","msg":"x"}`,
		`{"kind":"decision","time":"2026-11-01T00:00:00Z","reason":"internal_error","request_id":"lost","note":"the event could not be recorded in full"}`,
		strings.Repeat("x", audit.MaxLine+5), `{"request":{"identity":{"groups":["dev","ops"],"sub":"u0`, good[2], good[0][:100],
	}, "\n")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	gz.Write(text)
	gz.Close()
	cut := filepath.Join(dir, "cut.gz")
	if err := os.WriteFile(cut, packed.Bytes()[:packed.Len()/2], 0o600); err != nil {
		t.Fatal(err)
	}
	r := replay(t, find(t, path), cfg, Filter{})
	log := r.Log
	if log.Lines != 12 || log.Decisions != 3 || log.Own != 1 || log.Other[access.EventLogin] != 1 || log.Damaged != 4 || log.Foreign != 2 || log.Torn != 1 || r.Same != 2 || r.Unknowns() != 1 {
		t.Errorf("%+v same %d unknown %+v", log, r.Same, r.Unknown)
	}
	for i, line := range []int{4, 5, 7, 8, 10, 11, 13} {
		if want := fmt.Sprintf("%s:%d", path, line); i >= len(log.Troubles) || log.Troubles[i].Place != want {
			t.Errorf("line %d is not named: %+v", line, log.Troubles)
		}
	}
	if r := replay(t, find(t, cut), cfg, Filter{}); r.Log.Cut != 1 || r.Log.Decisions == 0 || len(r.Log.Troubles) == 0 {
		t.Errorf("%+v", r.Log)
	}
	if _, err := audit.Find([]string{filepath.Join(dir, "none*")}); err == nil || !strings.Contains(err.Error(), "none*") {
		t.Error(err)
	}
}

// A record of this very policy that does not decide again to the same is a fault
// of Doorward or a log that somebody changed.
func TestTamperedLogIsInconsistent(t *testing.T) {
	w := smallWorld(t, 2)
	cfg := w.config()
	text, err := os.ReadFile(w.log(cfg).Names[0])
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(text, []byte(`"outcome":"deny"`), []byte(`"outcome":"allow"`), 1)
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, forged, 0o600); err != nil {
		t.Fatal(err)
	}
	r := replay(t, find(t, path), cfg, Filter{})
	if r.Inconsistencies() != 1 || len(r.Changes) != 0 || r.Same != r.Log.Decisions-1 {
		t.Errorf("%+v", r)
	}
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil || !strings.Contains(b.String(), "inconsistent: 1 request") {
		t.Error(b.String())
	}
}

// oneRequest writes a log of one event and replays it.
func oneRequest(t *testing.T, line string, cfg *config.Config) *Report {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return replay(t, find(t, path), cfg, Filter{})
}

// What the record lacks is unknown where the answer depends on it, and only
// there.
func TestLackingFactsAreUnknown(t *testing.T) {
	w := smallWorld(t, 1)
	now := w.config()
	base := w.event(now, &w.routes[0], habit{group: "dev", methods: []string{"GET"}, paths: []string{"/a/1"}}, windowEnd, 1)
	for _, c := range []struct {
		name   string
		change func(*access.Event)
		edit   func(string) string
		config []string
		want   string // "same", "unknown", or a transition
	}{
		{"complete", nil, nil, nil, "same"},
		{"token in the path, no matter", func(e *access.Event) { e.Request.Path, e.Incomplete = "/a/[redacted]", true }, nil, nil, "same"},
		{"token in the path, and the rule looks", func(e *access.Event) { e.Request.Path, e.Incomplete = "/a/[redacted]", true }, nil,
			[]string{`paths: ["/**"]`, `paths: ["/a/b"]`}, "unknown"},
		{"token in the query", func(e *access.Event) { e.Request.Query, e.Incomplete = "x=[redacted]", true }, nil,
			[]string{`paths: ["/**"]`, `when: "request.query['x'][0] == 'y'"`}, "unknown"},
		{"query looked at for nothing", func(e *access.Event) { e.Request.Query, e.Incomplete = "x=[redacted]", true }, nil,
			[]string{`groups: [dev, ops, sales], paths: ["/**"]`, `groups: [sales], when: "request.query['x'][0] == 'y'"`}, "allow-to-deny"},
		{"claims not recorded", func(e *access.Event) {
			e.Request.Identity.Claims, e.Incomplete, e.Note = nil, true, "recorded without claims: too long"
		}, nil, []string{`paths: ["/**"]`, `claims: {department: [x]}`}, "unknown"},
		{"another claim", nil, nil, []string{`paths: ["/**"]`, `claims: {department: [x]}`}, "allow-to-deny"},
		{"a fact younger than the record", nil, func(s string) string { return strings.Replace(s, `,"disk_encrypted":"yes"`, "", 1) },
			[]string{"require: {login: {max_age: 2h}}", "require: {device: good}", "groups:\n", "devices: {profiles: {good: {all: [disk_encrypted]}}}\ngroups:\n"}, "unknown"},
		{"the fact is there", nil, nil,
			[]string{"require: {login: {max_age: 2h}}", "require: {device: good}", "groups:\n", "devices: {profiles: {good: {all: [disk_encrypted]}}}\ngroups:\n"}, "same"},
		{"the fact is there and unknown", nil, func(s string) string {
			return strings.Replace(s, `"disk_encrypted":"yes"`, `"disk_encrypted":"unknown"`, 1)
		}, []string{"require: {login: {max_age: 2h}}", "require: {device: good}", "groups:\n", "devices: {profiles: {good: {all: [disk_encrypted]}}}\ngroups:\n"}, "allow-to-challenge"},
		{"a newer version's fact", nil, func(s string) string { return strings.Replace(s, `"method":"GET"`, `"method":"GET","mood":"good"`, 1) }, nil, "unknown"},
		{"a newer version's other field", nil, func(s string) string { return strings.Replace(s, `"kind":`, `"seal":"x","kind":`, 1) }, nil, "same"},
		{"had no route then", func(e *access.Event) {
			*e.Request = access.Request{ID: "x", Time: e.Time, Method: "GET", Scheme: "https", Host: "wiki.example.com", Path: "/a/1"}
			*e.Decision = access.Decision{Reason: access.NoRoute, Policy: "other"}
		}, nil, nil, "unknown"},
		{"has no route now", nil, nil, []string{"https://wiki.", "https://new."}, "allow-to-deny"},
		{"a spelling that was permitted", func(e *access.Event) { e.Request.Ambiguous = []string{"encoded_slash"} }, nil, nil, "allow-to-deny"},
		{"a spelling that shows in the path", func(e *access.Event) { e.Request.Path = "/a;b" }, nil, nil, "allow-to-deny"},
		{"a spelling that is permitted now", func(e *access.Event) {
			*e.Request = access.Request{ID: "x", Time: e.Time, Method: "GET", Scheme: "https", Host: "wiki.example.com", Path: "/a;b", Fault: access.AmbiguousPath, Ambiguous: []string{"semicolon"}}
			*e.Decision = access.Decision{Reason: access.AmbiguousPath, Policy: "other"}
		}, nil, []string{"    require: {login: {max_age: 2h}}", "    ambiguous_paths: [semicolon]\n    require: {login: {max_age: 2h}}"}, "unknown"},
		{"the store failed", func(e *access.Event) {
			e.Request.Fault, *e.Decision = access.StoreUnavailable, access.Decision{Reason: access.StoreUnavailable, Policy: "other"}
		}, nil, nil, "same"},
		{"public now", func(e *access.Event) {
			*e.Request = access.Request{ID: "x", Time: e.Time, Method: "GET", Scheme: "https", Host: "other.example.com", Path: "/a/1"}
			*e.Decision = access.Decision{Reason: access.NoRoute, Policy: "other"}
		}, nil, []string{"routes:\n", "routes:\n  - {id: other, from: https://other.example.com, to: [http://127.0.0.1:1], public: [{name: all, methods: [GET], paths: [\"/**\"]}]}\n"}, "deny-to-allow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, req, dec := *base, *base.Request, *base.Decision
			e.Request, e.Decision = &req, &dec
			dec.Policy = "other"
			if c.change != nil {
				c.change(&e)
			}
			text, err := json.Marshal(&e)
			if err != nil {
				t.Fatal(err)
			}
			line := string(text)
			if c.edit != nil {
				if line = c.edit(line); line == string(text) {
					t.Fatal("the edit does nothing")
				}
			}
			r := oneRequest(t, line, w.config(c.config...))
			got := "same"
			switch {
			case r.Unknowns() > 0:
				got = "unknown"
			case len(r.Changes) > 0:
				got = r.Changes[0].Transition()
			case r.Same != 1:
				got = fmt.Sprintf("%+v", r)
			}
			if got != c.want {
				t.Errorf("%s, want %s: %+v", got, c.want, r)
			}
		})
	}
}

// Every fact that a check asks for shows in a record, also where it is unknown.
func TestRecordsShowTheirFormat(t *testing.T) {
	text, err := json.Marshal(access.Event{Kind: access.EventDecision, Request: &access.Request{Device: access.Device{ID: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if younger := youngerFacts(text); len(younger) > 0 {
		t.Errorf("add to writtenWith, or write without omitzero: %q", younger)
	}
	old := bytes.ReplaceAll(text, []byte(`,"risk":"unknown"`), nil)
	if got := youngerFacts(old); !slices.Equal(got, []string{"low_risk", "owned", "certificate", "claim"}) {
		t.Errorf("%q of %s", got, old)
	}
}

func TestQuarterEnds(t *testing.T) {
	for day, is := range map[string]bool{"2026-09-23": false, "2026-09-25": true, "2026-09-30": true, "2026-10-01": true, "2026-10-10": true, "2026-10-20": false, "2026-11-30": false, "2026-12-31": true, "2027-01-01": true} {
		at, err := time.Parse(time.DateOnly, day)
		if err != nil || quarterEnd(at) != is {
			t.Errorf("%s: %v %v", day, quarterEnd(at), err)
		}
	}
	if end := windowEnd; !holdsQuarterEnd(end.AddDate(0, 0, -90), end) || holdsQuarterEnd(end.AddDate(0, 0, -40), end) {
		t.Error("the span is judged wrongly")
	}
}
