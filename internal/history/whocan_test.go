package history

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// who lists the users of some visitors.
func who(list []Visitor) (users []string) {
	for _, v := range list {
		users = append(users, v.User)
	}
	return slices.Compact(users)
}

func TestWhoCan(t *testing.T) {
	w := smallWorld(t, 4)
	cfg := w.config()
	files := w.log(cfg)
	ask := func(method, target string, at time.Time) *Access {
		t.Helper()
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		a, err := WhoCan(t.Context(), files, cfg, method, u, at, Filter{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	// Against the truth: everybody in the log, by the groups they had.
	want := map[bool][]string{}
	known := map[string]bool{}
	for _, e := range readAll(t, files) {
		id := e.Request.Identity
		if known[id.User()] {
			continue
		}
		known[id.User()] = true
		may := slices.ContainsFunc([]string{"idp-dev", "idp-ops", "idp-sales"}, func(g string) bool { return slices.Contains(id.Groups, g) })
		want[may] = append(want[may], id.User())
	}
	slices.Sort(want[true])
	slices.Sort(want[false])
	later := windowEnd.AddDate(0, 3, 0) // logins are as fresh as they were
	a := ask("GET", "https://wiki.example.com/a/1", later)
	if !slices.Equal(who(a.Can), want[true]) || !slices.Equal(who(a.Refused), want[false]) || len(a.Nearly)+len(a.Unknown) > 0 {
		t.Errorf("can %q, want %q; refused %q, want %q; nearly %+v", who(a.Can), want[true], who(a.Refused), want[false], a.Nearly)
	}
	if a.Can[0].Rule != "allow/staff" || a.Can[0].Device == "" || a.Route != "wiki" {
		t.Errorf("%+v", a.Can[0])
	}
	// Who is logged in now is marked; of strangers nothing is known.
	a.LoggedIn([]access.SessionInfo{{User: a.Can[0].User, Session: access.Session{ID: "old"}}, {User: a.Can[0].User, Session: access.Session{ID: "new"}, Used: later}, {User: "corp:new", Session: access.Session{ID: "s"}}})
	if a.Can[0].Session != "new" || a.Refused[0].Session != "" || len(a.Unknown) != 1 || a.Unknown[0].User != "corp:new" {
		t.Errorf("%+v %+v", a.Can[0], a.Unknown)
	}
	// A deny rule keeps out those whom a rule would let in.
	a = ask("DELETE", "https://wiki.example.com/a/1", later)
	if len(a.Can) != 0 || !slices.Equal(who(a.Nearly), want[true]) || !slices.Equal(who(a.Refused), want[false]) || !strings.Contains(strings.Join(a.Nearly[0].Missing, " "), "deny/no-deletes") {
		t.Errorf("%+v", a.Nearly)
	}
	// What is missing can be cured.
	a = ask("GET", "https://pay.example.com/b/1/c", later)
	if len(a.Can) != 0 || len(a.Nearly) == 0 || !strings.Contains(a.Nearly[0].Missing[0], "acr_insufficient") {
		t.Errorf("%+v", a)
	}
}

// A device that was tolerated for another three hours when it was last seen is
// tolerated for as long now.
func TestWhoCanWithinAGracePeriod(t *testing.T) {
	w := smallWorld(t, 1)
	e := w.event(w.config(), &w.routes[0], habit{group: "dev", methods: []string{"GET"}, paths: []string{"/a/1"}}, windowEnd, 1)
	e.Request.Device.Compliant, e.Request.Device.NonCompliantSince = access.No, e.Time.Add(-time.Hour)
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	u := &url.URL{Scheme: "https", Host: "wiki.example.com", Path: "/a/1"}
	for grace, can := range map[string]int{"4h": 1, "30m": 0} {
		cfg := w.config("groups:\n", "devices: {profiles: {ok: {all: [compliant], grace: "+grace+"}}}\ndefaults: {require: {device: ok}}\ngroups:\n")
		a, err := WhoCan(t.Context(), find(t, path), cfg, "GET", u, windowEnd.AddDate(0, 0, 7), Filter{})
		if err != nil || len(a.Can) != can || len(a.Can)+len(a.Nearly) != 1 {
			t.Errorf("grace %s: %v %+v", grace, err, a)
		}
	}
}

// Who may depends on what their record lacks: that is said, not guessed.
func TestWhoCanIsUnknown(t *testing.T) {
	w := smallWorld(t, 1)
	e := w.event(w.config(), &w.routes[0], habit{group: "dev", methods: []string{"GET"}, paths: []string{"/a/1"}}, windowEnd, 1)
	e.Request.Identity.Claims, e.Incomplete, e.Note = nil, true, "recorded without claims: too long"
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	u := &url.URL{Scheme: "https", Host: "wiki.example.com", Path: "/"}
	a, err := WhoCan(t.Context(), find(t, path), w.config(`paths: ["/**"]`, `claims: {department: [x]}`), "GET", u, windowEnd, Filter{})
	if err != nil || len(a.Unknown) != 1 || !strings.Contains(a.Unknown[0].Missing[0], "claims") || len(a.Can)+len(a.Refused) > 0 {
		t.Errorf("%v %+v", err, a)
	}
}
