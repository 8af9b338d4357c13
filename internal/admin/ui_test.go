package admin

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/internal/access"
)

// doorman is the Door of the tests: an assertion is a name, and those of guests
// let in somebody who only looks.
type doorman struct{}

const route = "https://admin.corp.example.com"

func (doorman) Admit(_ context.Context, assertion string) (Person, error) {
	user, ok := strings.CutPrefix(assertion, "for-admin:")
	if !ok {
		return Person{}, errors.New("not for this route")
	}
	return Person{User: "corp:" + user, Name: user + "@example.com", MayAct: user != "guest", Origin: route}, nil
}

// estate is the Instance, Activity and Devices of the tests. What others may
// choose is hostile everywhere.
type estate struct{ access.Event }

const evil = "<script>alert(1)</script>\u202eevil"

func (estate) State() State {
	at := time.Unix(1e9, 0)
	return State{Started: at, Config: "c1", Loaded: at, Failed: at, Failure: evil, Candidate: "c2", InFlight: 3, Store: "a file", StoreFailure: evil,
		Audit:     AuditState{Waiting: 2, Lost: 1, Failure: evil, Required: true, Receivers: []Receiver{{Name: "syslog", Waiting: 12345, Lag: time.Minute, Lost: 2, Failing: true}}},
		Providers: []ProviderState{{ID: "corp"}, {ID: "partners", Failure: evil}}, Certificates: []Certificate{{Hosts: []string{"a.example", "b.example"}, NotAfter: at, Failure: evil}, {Hosts: []string{"c.example"}, Source: "ACME"}}}
}

func (estate) Routes() []RouteInfo {
	return []RouteInfo{{Route: &access.Route{ID: "wiki", From: "https://wiki.example", Label: evil, Public: []access.Public{{Name: evil}},
		Allow: []access.Rule{{Name: "staff", AnyUser: true, When: evil}}, Deny: []access.Rule{{Name: evil, Mode: access.Report, Users: []string{evil}}}},
		Device: []string{"managed"}, Login: access.LoginRequire{ACR: []string{"mfa"}, MaxAge: access.Duration(time.Hour)},
		Targets: []Target{{Address: "http://10.0.0.7", State: "ejected", Since: time.Unix(1e9, 0), Failure: evil, Open: 4, Waiting: 1}}}}
}

func (estate) Settings() []Setting {
	return []Setting{{"version", "1", 1}, {"server.listen", ":443", 2}, {"server.auth_url", evil, 0}, {"routes[0].id", "wiki", 9}, {"routes[0].from", evil, 10}}
}

func (estate) Actions(int) []*access.Event {
	return []*access.Event{{Kind: access.EventAdmin, Reason: access.Allowed, Actor: evil, Why: evil, Note: "session revoked", Session: "s1"}, {Kind: access.EventConfig, Reason: access.InternalError, Note: evil}}
}

func (estate) Sources() []DeviceSource {
	return []DeviceSource{{ID: "intune", Type: "intune", Devices: 12000, ObservedAt: time.Unix(1e9, 0), FailingSince: time.Unix(1e9, 0), Error: evil}}
}
func (estate) Names() []string { return []string{"managed", "trusted"} }
func (e estate) List(DeviceFilter, int) ([]DeviceInfo, int) {
	return []DeviceInfo{*e.Show("laptop-1")}, 2
}

func (estate) Show(id string) *DeviceInfo {
	if id != "laptop-1" {
		return nil
	}
	return &DeviceInfo{Device: access.Device{ID: id, Name: evil, Owner: evil, OS: "macos", Source: "intune", Reasons: []string{evil}}, Tier: "trusted", Failing: []string{"managed"}, Also: []string{"jamf"},
		Standings: []access.Standing{{Name: "managed", Missing: []access.Need{{Reason: access.DeviceNotManaged, Want: evil, Got: evil, Details: []string{evil}}}}, {Name: "trusted", Tier: true, Holds: true, Until: time.Unix(1e9, 0)}}}
}

// office is a listener with all pages, its clock and its events.
type office struct {
	*desk
	now   time.Time
	token string
	jar   []*http.Cookie
}

func newOffice() *office {
	o := &office{desk: newDesk(""), now: time.Unix(1.7e9, 0), token: testToken}
	tally := NewTally(func() time.Time { return o.now })
	for _, e := range (verdicts{}).Recent(2) {
		e.Decision.Shadow = []access.Shadow{{Rule: "deny/new", Reason: access.DeniedByRule}}
		tally.Event(e)
	}
	o.Handler = New(Options{Config: Config{Hosts: []string{"ops.example"}}, Token: func() access.Secret { return access.NewSecret(o.token) },
		Sessions: o.logins, Revocations: &o.banned, Decisions: verdicts{}, Devices: estate{}, Instance: estate{}, Activity: estate{}, Door: doorman{}, Tally: tally,
		Checks: func() map[string]error { return map[string]error{"store": errors.New(evil)} },
		Now:    func() time.Time { return o.now }, Emit: func(e *access.Event) { o.events = append(o.events, e) }})
	return o
}

// open asks as a browser on this machine does; as names whom the route let in.
func (o *office) open(method, path, as string, form url.Values, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Host, r.RemoteAddr = "127.0.0.1:9901", "127.0.0.1:50000"
	origin := "http://127.0.0.1:9901"
	if as != "" {
		r.Header.Set(AssertionHeader, "for-admin:"+as)
		r.Header.Set("X-Forwarded-For", "192.0.2.7")
		origin = route
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for _, c := range o.jar {
		r.AddCookie(c)
	}
	for _, f := range change {
		f(r)
	}
	rec := httptest.NewRecorder()
	o.ServeHTTP(rec, r)
	for _, c := range rec.Result().Cookies() {
		o.jar = []*http.Cookie{c}
	}
	return rec
}

var formField = regexp.MustCompile(`name="form" value="([^"]+)"`)

// formOf is the token that the forms of a page bring back.
func (o *office) formOf(t *testing.T, path, as string) string {
	t.Helper()
	found := formField.FindStringSubmatch(o.open("GET", path, as, nil).Body.String())
	if found == nil {
		t.Fatalf("no form at %s", path)
	}
	return html.UnescapeString(found[1])
}

var allPages = []string{"/", "/decisions", "/decisions?person=ann&device=x&route=app&outcome=allow&reason=allowed&session=s", "/decision?id=r1", "/sessions", "/sessions?search=ann",
	"/session?id=s1", "/devices", "/devices?tier=none&failing=managed&source=intune&owner=x", "/device?id=laptop-1", "/routes", "/routes?search=WIKI", "/reports", "/revocations", "/revocations?user=corp:ann", "/config", "/actions"}

// Every page is for those who were let in, and nothing that others chose becomes
// part of it.
func TestPages(t *testing.T) {
	o := newOffice()
	o.banned.list = []access.Revocation{{ID: "r1", User: evil, By: evil, Why: evil}, {ID: "r2", Device: evil}, {ID: "r3", All: true}}
	for _, path := range allPages {
		if rec := o.open("GET", path, "", nil); rec.Code != 303 || rec.Header().Get("Location") != "/login" {
			t.Errorf("%s, nobody: %d %s", path, rec.Code, rec.Body)
		}
		for name, change := range map[string]func(*http.Request){
			"another route's": func(r *http.Request) { r.Header.Set(AssertionHeader, "for-wiki:ann") },
			"two assertions":  func(r *http.Request) { r.Header[AssertionHeader] = []string{"for-admin:ann", "for-admin:bob"} },
			"an empty one":    func(r *http.Request) { r.Header.Set(AssertionHeader, "") },
			"with the API key": func(r *http.Request) {
				r.Header.Set(AssertionHeader, "x")
				r.Header.Set("Authorization", "Bearer "+testToken)
			},
		} {
			if rec := o.open("GET", path, "", nil, change); rec.Code != 403 || strings.Contains(rec.Body.String(), "corp:ann") {
				t.Errorf("%s, %s: %d %s", path, name, rec.Code, rec.Body)
			}
		}
		rec := o.open("GET", path, "ann", nil)
		if rec.Code != 200 {
			t.Fatalf("%s: %d %s", path, rec.Code, rec.Body)
		}
		checkPage(t, path, rec)
	}
	for path, status := range map[string]int{"/decision?id=r9": 404, "/session?id=s9": 404, "/device?id=x": 404, "/devices?tier=x": 400, "/devices?source=x": 400, "/nothing": 404, "/sessions/x": 404} {
		if rec := o.open("GET", path, "ann", nil); rec.Code != status {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	// What is not wired has no page, and no link to one.
	bare := New(Options{Door: doorman{}})
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set(AssertionHeader, "for-admin:ann")
	bare.ServeHTTP(rec, r)
	if rec.Code != 200 || strings.Contains(rec.Body.String(), `href="/sessions"`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func checkPage(t *testing.T, path string, rec *httptest.ResponseRecorder) {
	t.Helper()
	if strings.Contains(rec.Body.String(), "\u202e") || strings.Contains(rec.Body.String(), "eyJ") {
		t.Errorf("%s: what hides text, or opens something, is on the page", path)
	}
	policy := rec.Header().Get("Content-Security-Policy")
	doc, err := html.Parse(strings.NewReader(rec.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				t.Errorf("%s: <%s %s>", path, n.Data, a.Key)
			case a.Key == "id" && ids[a.Val]:
				t.Errorf("%s: %q is the id of two elements", path, a.Val)
			case a.Key == "id":
				ids[a.Val] = true
			case (a.Key == "href" || a.Key == "action") && (!strings.HasPrefix(a.Val, "/") || strings.HasPrefix(a.Val, "//")) && a.Val != "#main":
				t.Errorf("%s leads to %q", path, a.Val)
			}
		}
		switch n.Data {
		case "script", "img", "link", "iframe":
			t.Errorf("%s has <%s>", path, n.Data)
		case "style":
			sum := sha256.Sum256([]byte(n.FirstChild.Data))
			if !strings.Contains(policy, base64.StdEncoding.EncodeToString(sum[:])) || !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") {
				t.Errorf("%s: the policy is %s", path, policy)
			}
		}
	}
}

// explained is Decisions with an explanation as package authz gives it.
type explained struct{ verdicts }

func (explained) Past(id string) any {
	miss := []authz.TreeCondition{{Condition: "groups", Result: authz.Unknown, Want: "eng", Got: evil}}
	return &authz.Past{Recorded: access.Decision{Policy: "p1", Tier: "low", Message: evil}, OtherPolicy: true, Differs: true, Tree: &authz.Tree{
		Decision: access.Decision{Shadow: []access.Shadow{{Rule: "deny/new", Reason: access.DeniedByRule}}},
		Rules:    []authz.TreeRule{{Rule: "deny/x", Result: authz.Miss}, {Rule: "allow/" + evil, Result: authz.Unknown, Report: true, Conditions: miss}},
		Requires: []authz.TreeRequire{{Require: "defaults.require", Result: authz.Miss, Device: "healthy", Missing: miss}, {Require: "routes[0].require", Result: authz.Idle}},
		Tier:     &authz.TreeTier{Tier: "low", Session: "1h", Higher: []authz.TreeStep{{Tier: "high", Missing: miss}}},
		Change:   []authz.Step{{Condition: "groups", Become: authz.Hit, Want: "eng", Example: evil}},
	}}
}

// The page of one decision shows everything that the explanation has.
func TestDecisionIsExplained(t *testing.T) {
	h := New(Options{Door: doorman{}, Decisions: explained{}})
	r := httptest.NewRequest("GET", "/decision?id=r1", nil)
	r.Header.Set(AssertionHeader, "for-admin:ann")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	for _, part := range []string{"Another policy decided then", "decides differently", "deny/x", "only reports", "not met", "does not apply", "device healthy", "a login lasts 1h", "not in high",
		"The smallest change", "deny/new", "wanted</span> eng", "Message"} {
		if !strings.Contains(rec.Body.String(), part) {
			t.Errorf("the page does not say %q", part)
		}
	}
	checkPage(t, "/decision", rec)
}

// A form does what it says, for whoever got it, from our own page, for a while;
// and it is recorded with who and why.
func TestForms(t *testing.T) {
	o := newOffice()
	form := o.formOf(t, "/session?id=s1", "ann")
	revoke := func(as string, fields url.Values, change ...func(*http.Request)) int {
		return o.open("POST", "/session/revoke", as, fields, change...).Code
	}
	good := url.Values{"form": {form}, "id": {"s1"}, "why": {"laptop lost"}}
	with := func(key, value string) url.Values {
		v := url.Values{"form": {form}, "id": {"s1"}, "why": {"laptop lost"}}
		v.Set(key, value)
		return v
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, got := range map[string]int{
		"no token": revoke("ann", with("form", "")), "half a token": revoke("ann", with("form", form[:len(form)-1])), "another's": revoke("bob", good),
		"a later end": revoke("ann", with("form", "zzzzzzz"+form[strings.Index(form, "."):])),
		"cross-site":  revoke("ann", good, header("Sec-Fetch-Site", "cross-site")), "same-site": revoke("ann", good, header("Sec-Fetch-Site", "same-site")),
		"foreign origin": revoke("ann", good, header("Origin", "https://evil.example")), "the listener's own origin": revoke("ann", good, header("Origin", "http://127.0.0.1:9901")),
		"no word of where from": revoke("ann", good, func(r *http.Request) { r.Header.Del("Origin"); r.Header.Del("Sec-Fetch-Site") }),
		"who only looks":        revoke("guest", url.Values{"form": {o.formOf(t, "/session?id=s1", "guest")}, "id": {"s1"}, "why": {"x"}}),
	} {
		if got != 403 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if code := revoke("ann", good, header("Content-Type", "text/plain")); code != 415 {
		t.Error("no form:", code)
	}
	if code := revoke("ann", with("why", "  ")); code != 400 {
		t.Error("without a reason:", code)
	}
	if code := revoke("", good); code != 303 {
		t.Error("nobody:", code)
	}
	if !o.alive["s1"] {
		t.Fatal("one of them has ended the session")
	}
	if n := len(o.events); n != 1 || o.events[0].Reason != access.NotAllowed || o.events[0].Actor != "corp:guest" {
		t.Fatalf("who may not is recorded, the rest is not: %d", n)
	}

	o.now = o.now.Add(formLifetime)
	if revoke("ann", good) != 403 {
		t.Error("a form of yesterday")
	}
	o.now = o.now.Add(-time.Second)
	rec := o.open("POST", "/session/revoke", "ann", good)
	if rec.Code != 303 || rec.Header().Get("Location") != "/sessions?done=session" || o.alive["s1"] {
		t.Fatal(rec.Code, rec.Body)
	}
	if e := o.events[len(o.events)-1]; e.Actor != "corp:ann" || e.Why != "laptop lost" || e.Session != "s1" || e.Reason != access.Allowed || strings.Contains(e.Note, "asserted") {
		t.Errorf("%+v", e)
	}
	if rec := o.open("GET", "/sessions?done=session", "ann", nil); !strings.Contains(rec.Body.String(), notices["session"]) {
		t.Error(rec.Body)
	}
	if rec := o.open("POST", "/session/revoke", "ann", good); rec.Code != 404 || !strings.Contains(rec.Body.String(), "no such session") {
		t.Error("a second time:", rec.Code, rec.Body)
	}

	fields := func(pairs ...string) url.Values {
		v := url.Values{"form": {form}, "why": {"left"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	for want, f := range map[int][]url.Values{
		400: {fields("what", "all", "name", "corp:ann"), fields("what", "all"), fields("what", "user"), fields("name", "corp:ann")},
		303: {fields("what", "user", "name", " corp:ann "), fields("what", "device", "name", "d1"), fields("what", "all", "name", everybody)},
	} {
		for _, v := range f {
			if rec := o.open("POST", "/revocations", "ann", v); rec.Code != want {
				t.Errorf("%v: %d %s", v, rec.Code, rec.Body)
			}
		}
	}
	if l := o.banned.list; len(l) != 3 || l[0].User != "corp:ann" || l[1].Device != "d1" || !l[2].All || l[0].By != "corp:ann" {
		t.Errorf("%+v", l)
	}
	for want, id := range map[int]string{404: "r9", 303: "r1"} {
		o.banned.list = []access.Revocation{{ID: "r1"}}
		if rec := o.open("POST", "/revocations/lift", "ann", fields("id", id)); rec.Code != want {
			t.Errorf("%s: %d", id, rec.Code)
		}
	}
}

// Whoever the route lets in uses the API under their own name, whatever they
// write.
func TestPeopleUseTheAPI(t *testing.T) {
	o := newOffice()
	post := func(as string) *httptest.ResponseRecorder {
		return o.open("POST", "/api/v1/sessions/s1/revoke", as, nil, func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Body = io.NopCloser(strings.NewReader(`{"actor": "somebody else", "why": "left"}`))
		})
	}
	if rec := post("guest"); rec.Code != 403 || !o.alive["s1"] {
		t.Error(rec.Code, rec.Body)
	}
	if rec := post("ann"); rec.Code != 200 || o.alive["s1"] {
		t.Error(rec.Code, rec.Body)
	}
	if e := o.events[len(o.events)-1]; e.Actor != "corp:ann" || strings.Contains(e.Note, "asserted") {
		t.Errorf("%+v", e)
	}
	if rec := o.open("GET", "/api/v1/sessions", "guest", nil); rec.Code != 200 {
		t.Error("who only looks:", rec.Code)
	}
	// The cookie of the pages opens no API.
	o.logIn(t)
	if rec := o.open("GET", "/api/v1/sessions", "", nil); rec.Code != 401 {
		t.Error("by cookie:", rec.Code)
	}
}

func (o *office) logIn(t *testing.T) {
	t.Helper()
	if rec := o.open("POST", "/login", "", url.Values{"name": {"Ann on call"}, "token": {testToken}}); rec.Code != 303 || rec.Header().Get("Location") != "/" {
		t.Fatal(rec.Code, rec.Body)
	}
}

// At three in the morning the token is enough, from this machine, under a name,
// for half an hour.
func TestBreakGlass(t *testing.T) {
	o := newOffice()
	try := func(fields url.Values, change ...func(*http.Request)) *httptest.ResponseRecorder {
		return o.open("POST", "/login", "", fields, change...)
	}
	right := url.Values{"name": {"Ann on call"}, "token": {" " + testToken + "\n"}}
	if rec := o.open("GET", "/login", "", nil); rec.Code != 200 || !strings.Contains(rec.Body.String(), "Not ready") {
		t.Fatal(rec.Code, rec.Body)
	} else {
		checkPage(t, "/login", rec)
	}
	for name, c := range map[string]struct {
		rec  *httptest.ResponseRecorder
		want int
	}{
		"wrong token":       {try(url.Values{"name": {"Ann"}, "token": {strings.Repeat("x", 32)}}), 403},
		"no token":          {try(url.Values{"name": {"Ann"}}), 403},
		"no name":           {try(url.Values{"token": {testToken}}), 400},
		"another site":      {try(right, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }), 403},
		"another machine":   {try(right, func(r *http.Request) { r.RemoteAddr = "192.0.2.7:1" }), 403},
		"through a proxy":   {try(right, func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.7") }), 403},
		"no address at all": {try(right, func(r *http.Request) { r.RemoteAddr = "@" }), 403},
	} {
		if c.rec.Code != c.want || len(c.rec.Result().Cookies()) > 0 || strings.Contains(c.rec.Body.String(), testToken) {
			t.Errorf("%s: %d %v", name, c.rec.Code, c.rec.Result().Cookies())
		}
	}
	if n := len(o.events); n != 2 || o.events[0].Reason == access.Allowed {
		t.Errorf("%d events of two wrong tokens", n)
	}

	o.logIn(t)
	if e := o.events[2]; e.Actor != "Ann on call" || e.Reason != access.Allowed || !strings.Contains(e.Note, "asserted") {
		t.Errorf("%+v", e)
	}
	c := o.jar[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Domain != "" || c.Path != "/" || c.MaxAge != int(glassLifetime/time.Second) || len(c.Value) < 40 {
		t.Errorf("%+v", c)
	}
	if rec := o.open("GET", "/sessions", "", nil); rec.Code != 200 || !strings.Contains(rec.Body.String(), "Ann on call") {
		t.Error(rec.Code)
	}
	for name, change := range map[string]func(*http.Request){
		"from another machine": func(r *http.Request) { r.RemoteAddr = "192.0.2.7:1" },
		"twice":                func(r *http.Request) { r.Header.Add("Cookie", glassCookie+"=x") },
	} {
		if rec := o.open("GET", "/sessions", "", nil, change); rec.Code != 303 {
			t.Errorf("the cookie %s: %d", name, rec.Code)
		}
	}
	form := o.formOf(t, "/session?id=s1", "")
	if rec := o.open("POST", "/session/revoke", "", url.Values{"form": {form}, "id": {"s1"}, "why": {"stolen"}}); rec.Code != 303 || o.alive["s1"] {
		t.Error(rec.Code, rec.Body)
	}
	if e := o.events[len(o.events)-1]; e.Actor != "Ann on call" || e.Why != "stolen" || !strings.Contains(e.Note, "asserted") {
		t.Errorf("%+v", e)
	}

	kept := o.jar
	o.token = strings.Repeat("n", 32)
	if rec := o.open("GET", "/sessions", "", nil); rec.Code != 303 {
		t.Error("the token was replaced:", rec.Code)
	}
	o.token = ""
	if rec := try(url.Values{"name": {"Ann"}, "token": {""}}); rec.Code != 403 || !strings.Contains(rec.Body.String(), "No token is configured") {
		t.Error("no token is configured:", rec.Code)
	}
	o.token = testToken
	if rec := o.open("POST", "/logout", "", url.Values{"form": {form}}); rec.Code != 303 || o.jar[0].MaxAge >= 0 {
		t.Error(rec.Code, o.jar)
	}
	o.jar = kept
	if rec := o.open("GET", "/sessions", "", nil); rec.Code != 303 {
		t.Error("after the logout:", rec.Code)
	}
	o.now = o.now.Add(time.Minute)
	o.logIn(t)
	o.now = o.now.Add(glassLifetime)
	if rec := o.open("GET", "/sessions", "", nil); rec.Code != 303 {
		t.Error("after half an hour:", rec.Code)
	}
}

// Whoever tries is slowed down, and so is whoever leaves many logins open.
func TestBreakGlassIsBounded(t *testing.T) {
	o := newOffice()
	wrong := url.Values{"name": {"x"}, "token": {"x"}}
	for i := range glassTries {
		if rec := o.open("POST", "/login", "", wrong); rec.Code != 403 {
			t.Fatal(i, rec.Code)
		}
	}
	for range 3 {
		if rec := o.open("POST", "/login", "", wrong); rec.Code != 429 {
			t.Fatal(rec.Code)
		}
	}
	if len(o.events) != glassTries {
		t.Errorf("%d events", len(o.events))
	}
	o.now = o.now.Add(glassPause)
	o.logIn(t)
	if rec := o.open("POST", "/login", "", wrong); rec.Code != 429 {
		t.Error("one at a time:", rec.Code)
	}
	for range maxGlass - 1 {
		o.now = o.now.Add(glassPause)
		o.logIn(t)
	}
	o.now = o.now.Add(glassPause)
	if rec := o.open("POST", "/login", "", url.Values{"name": {"x"}, "token": {testToken}}); rec.Code != 429 {
		t.Error("too many:", rec.Code)
	}
	o.now = o.now.Add(glassLifetime)
	o.logIn(t)
}
