package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

const testToken = "0123456789abcdef0123456789abcdef"

// logins is a session manager with two sessions.
type logins struct {
	alive map[string]bool
	fails error
}

func (l *logins) List(_ context.Context, user string, limit int) ([]access.SessionInfo, bool, error) {
	if user == "nobody" {
		return nil, false, l.fails
	}
	list := []access.SessionInfo{{Session: access.Session{ID: "s1"}, User: "corp:ann"}, {Session: access.Session{ID: "s2"}, User: "corp:bob"}}
	return list[:min(limit, 2)], limit < 2, l.fails
}

func (l *logins) Show(_ context.Context, id string) (*access.SessionInfo, error) {
	if !l.alive[id] {
		return nil, l.fails
	}
	return &access.SessionInfo{Session: access.Session{ID: id}}, l.fails
}

func (l *logins) Revoke(_ context.Context, id, _ string) (bool, error) {
	was := l.alive[id]
	l.alive[id] = false
	return was, l.fails
}

// bans is what was revoked.
type bans struct {
	list  []access.Revocation
	fails error
}

func (b *bans) Revoke(_ context.Context, r access.Revocation) (access.Revocation, int, error) {
	if b.fails == nil {
		r.ID = "r1"
		b.list = append(b.list, r)
	}
	return r, 3, b.fails
}

func (b *bans) List() ([]access.Revocation, error) { return b.list, nil }

func (b *bans) Lift(_ context.Context, id string) (bool, error) {
	was := len(b.list) > 0 && b.list[0].ID == id
	b.list = nil
	return was, nil
}

type desk struct {
	http.Handler
	*logins
	banned bans
	events []*access.Event
}

func newDesk(token string) *desk {
	d := &desk{logins: &logins{alive: map[string]bool{"s1": true, "s2": true}}}
	opts := Options{Sessions: d.logins, Revocations: &d.banned, Emit: func(e *access.Event) { d.events = append(d.events, e) }}
	if token != "" {
		opts.Config.Token = access.NewSecret(token)
	}
	d.Handler = New(opts)
	return d
}

func (d *desk) ask(method, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:9901"
	r.Header.Set("Authorization", "Bearer "+testToken)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range change {
		f(r)
	}
	rec := httptest.NewRecorder()
	d.ServeHTTP(rec, r)
	return rec
}

func TestAPINeedsTheToken(t *testing.T) {
	d := newDesk(testToken)
	for name, values := range map[string][]string{
		"none": nil, "empty": {""}, "another": {"Bearer " + strings.Repeat("x", 32)}, "half": {"Bearer " + testToken[:16]},
		"longer": {"Bearer " + testToken + "0"}, "no scheme": {testToken}, "basic": {"Basic " + testToken}, "blank": {"Bearer "},
		"two": {"Bearer " + testToken, "Bearer " + testToken},
	} {
		for _, path := range []string{"/api/v1/sessions", "/api/v1/anything"} {
			rec := d.ask("GET", path, "", func(r *http.Request) { r.Header["Authorization"] = values })
			if rec.Code != 401 || !strings.HasPrefix(rec.Header().Get("WWW-Authenticate"), "Bearer") || strings.Contains(rec.Body.String(), "corp:ann") {
				t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
			}
		}
	}
	if rec := d.ask("GET", "/api/v1/sessions", ""); rec.Code != 200 || !strings.Contains(rec.Body.String(), "corp:ann") {
		t.Error("with the token:", rec.Code, rec.Body)
	}
	if rec := d.ask("GET", "/api/v1/anything", ""); rec.Code != 404 {
		t.Error("an address that is none:", rec.Code)
	}
	// Knowing the token is no reason to answer to another site's name.
	if rec := d.ask("GET", "/api/v1/sessions", "", func(r *http.Request) { r.Host = "evil.example" }); rec.Code != http.StatusMisdirectedRequest {
		t.Error("under a foreign name:", rec.Code)
	}
}

func TestWithoutAConfiguredTokenNobodyMay(t *testing.T) {
	d := newDesk("")
	for _, value := range []string{"", "Bearer ", "Bearer " + testToken} {
		rec := d.ask("GET", "/api/v1/sessions", "", func(r *http.Request) { r.Header.Set("Authorization", value) })
		if rec.Code != 403 || !strings.Contains(rec.Body.String(), "server.admin.token") {
			t.Errorf("%q: %d %s", value, rec.Code, rec.Body)
		}
	}
	if rec := d.ask("GET", "/api/v1/status", ""); rec.Code != 200 {
		t.Error("the status needs no token:", rec.Code)
	}
}

func TestEveryActionSaysWhoAndWhy(t *testing.T) {
	d := newDesk(testToken)
	rec := d.ask("POST", "/api/v1/sessions/s1/revoke", `{"actor": "ops", "why": "laptop lost"}`)
	if rec.Code != 200 || d.alive["s1"] || !d.alive["s2"] {
		t.Fatal(rec.Code, rec.Body, d.alive)
	}
	if len(d.events) != 1 {
		t.Fatal("events:", d.events)
	}
	if e := d.events[0]; e.Kind != access.EventAdmin || e.Actor != "ops" || e.Why != "laptop lost" || e.Session != "s1" ||
		e.Reason != access.Allowed || !strings.Contains(e.Note, "asserted") || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}

	// An attempt that fails is recorded as one.
	d.fails = access.Because(access.StoreUnavailable, errors.New("disk full"))
	rec = d.ask("POST", "/api/v1/sessions/s2/revoke", `{"actor": "ops", "why": "laptop lost"}`)
	if rec.Code != 503 || !strings.Contains(rec.Body.String(), "disk full") || len(d.events) != 2 || d.events[1].Reason != access.StoreUnavailable {
		t.Error(rec.Code, rec.Body, d.events)
	}
	d.fails = nil
	if rec := d.ask("POST", "/api/v1/sessions/s9/revoke", `{"actor": "ops", "why": "x"}`); rec.Code != 404 {
		t.Error("a session that is none:", rec.Code)
	}
}

func TestBodiesAreReadStrictly(t *testing.T) {
	d := newDesk(testToken)
	for name, body := range map[string]string{
		"no reason": `{"actor": "ops"}`, "blank reason": `{"actor": "ops", "why": "  "}`, "nobody": `{"why": "x"}`,
		"unknown key": `{"actor": "ops", "why": "x", "user": "all"}`, "two values": `{"actor": "ops", "why": "x"} {}`,
		"no JSON": `actor=ops&why=x`, "list": `[]`, "line break": `{"actor": "ops", "why": "x\nforged line"}`,
		"long reason": `{"actor": "ops", "why": "` + strings.Repeat("x", maxWhy+1) + `"}`,
		"large":       `{"actor": "ops", "why": "x"` + strings.Repeat(" ", maxBody) + `}`, "nothing": ``,
	} {
		rec := d.ask("POST", "/api/v1/sessions/s1/revoke", body, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
		var fault Fault
		if json.Unmarshal(rec.Body.Bytes(), &fault); rec.Code != 400 || fault.Text == "" {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	form := d.ask("POST", "/api/v1/sessions/s1/revoke", "actor=ops&why=x", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") })
	if form.Code != 415 {
		t.Error("a form:", form.Code)
	}
	if rec := d.ask("DELETE", "/api/v1/sessions/s1", ""); rec.Code != 405 {
		t.Error("a method that is none:", rec.Code)
	}
	if !d.alive["s1"] || len(d.events) != 0 {
		t.Error("something was done:", d.alive, d.events)
	}
}

func TestSessionsAreListed(t *testing.T) {
	d := newDesk(testToken)
	var list SessionList
	rec := d.ask("GET", "/api/v1/sessions?limit=1", "")
	if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil || len(list.Sessions) != 1 || !list.More {
		t.Error(err, rec.Body)
	}
	if rec := d.ask("GET", "/api/v1/sessions?user=nobody", ""); !strings.Contains(rec.Body.String(), `"sessions": []`) {
		t.Error(rec.Body)
	}
	for path, want := range map[string]int{
		"/api/v1/sessions/s1": 200, "/api/v1/sessions/s9": 404, "/api/v1/sessions?limit=0": 400, "/api/v1/sessions?limit=x": 400,
	} {
		if rec := d.ask("GET", path, ""); rec.Code != want {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
}

func TestTokenFaults(t *testing.T) {
	f := access.NewFaults("admin")
	(&Config{Token: access.NewSecret("short")}).Validate(f)
	if list := f.List(); len(list) != 1 || list[0].Path != "admin.token" || !strings.Contains(list[0].Cure, "openssl") || strings.Contains(list[0].Text, "short") {
		t.Errorf("%+v", list)
	}
	f = access.NewFaults("admin")
	(&Config{Token: access.NewSecret(testToken)}).Validate(f)
	if len(f.List()) != 0 {
		t.Error(f.List())
	}
}

func TestRevocations(t *testing.T) {
	d := newDesk(testToken)
	for _, body := range []string{
		`{"actor": "ops", "why": "x"}`, `{"actor": "ops", "why": "x", "all": false}`, `{"actor": "ops", "why": "x", "user": "corp:ann", "all": true}`,
		`{"actor": "ops", "why": "x", "user": "corp:ann", "device": "d1"}`, `{"actor": "ops", "user": "corp:ann"}`,
		`{"actor": "ops", "why": "x", "device": "` + strings.Repeat("d", maxName+1) + `"}`,
	} {
		if rec := d.ask("POST", "/api/v1/revocations", body); rec.Code != 400 || len(d.banned.list) != 0 {
			t.Errorf("%s: %d", body, rec.Code)
		}
	}
	d.events = nil
	var done Revoked
	rec := d.ask("POST", "/api/v1/revocations", `{"actor": "ops", "why": "left", "user": "corp:ann"}`)
	if err := json.Unmarshal(rec.Body.Bytes(), &done); err != nil || rec.Code != 200 || done.Ended != 3 || done.Revocation.By != "ops" || done.Revocation.Why != "left" {
		t.Fatal(rec.Code, rec.Body)
	}
	if e := d.events[0]; e.Kind != access.EventAdmin || e.Why != "left" || !strings.HasPrefix(e.Note, `everything of "corp:ann" revoked: 3 sessions ended`) {
		t.Errorf("%+v", e)
	}
	if rec := d.ask("GET", "/api/v1/revocations", ""); !strings.Contains(rec.Body.String(), `"corp:ann"`) {
		t.Error(rec.Body)
	}
	for want, id := range map[int]string{404: "r2", 200: "r1"} {
		d.banned.list = []access.Revocation{{ID: "r1"}}
		if rec := d.ask("POST", "/api/v1/revocations/"+id+"/lift", `{"actor": "ops", "why": "mistake"}`); rec.Code != want {
			t.Errorf("%s: %d", id, rec.Code)
		}
	}
	if rec := d.ask("GET", "/api/v1/revocations", ""); !strings.Contains(rec.Body.String(), `"revocations": []`) {
		t.Error(rec.Body)
	}
	for r, want := range map[*access.Revocation]string{{All: true}: "everything", {Device: "d"}: `everything used from device "d"`} {
		if got := whatIs(r); got != want {
			t.Error(got)
		}
	}
}
