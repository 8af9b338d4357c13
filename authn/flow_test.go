package authn

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func testSealer(t testing.TB) *sealer {
	t.Helper()
	s, err := newSealer(bytes.Repeat([]byte{7}, 32), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealBindsPurposeAndOrigin(t *testing.T) {
	s := testSealer(t)
	in := flow{ID: "i", Return: "/x?a=b&c=<d>", Ask: access.LoginRequire{ACR: []string{"mfa"}, MaxAge: access.Duration(time.Minute)}}
	text, err := s.seal(in, forProvider, app)
	if err != nil {
		t.Fatal(err)
	}
	var out flow
	if err := s.open(text, &out, forProvider, app); err != nil || fmt.Sprint(out) != fmt.Sprint(in) {
		t.Errorf("%+v, %v", out, err)
	}
	other, err := newSealer(bytes.Repeat([]byte{8}, 32), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another purpose": s.open(text, &out, forHandover, app),
		"another origin":  s.open(text, &out, forProvider, wiki),
		"another key":     other.open(text, &out, forProvider, app),
		"cut off":         s.open(text[:20], &out, forProvider, app),
		"nothing":         s.open("", &out, forProvider, app),
		"padded":          s.open(text+"=", &out, forProvider, app),
	} {
		if err == nil {
			t.Errorf("%s opened it", name)
		}
	}
	if strings.Contains(text, "mfa") {
		t.Error("not sealed")
	}
	if _, err := newSealer([]byte("short"), rand.Reader); err == nil {
		t.Error("a short key was accepted")
	}
}

func TestJarKeepsTheNewestLogins(t *testing.T) {
	now := newClock().Now()
	a := &Authenticator{seal: testSealer(t), now: func() time.Time { return now }}
	j := new(jar)
	for i := range 20 {
		j.Pending = append(j.Pending, pending{ID: fmt.Sprint(i), Started: now.Unix(), Return: "/" + strings.Repeat("x", maxReturn-1)})
		j.looping(fmt.Sprint(i), now)
	}
	w := httptest.NewRecorder()
	if err := a.closeJar(w, app, j); err != nil {
		t.Fatal(err)
	}
	cookie := w.Result().Cookies()[0]
	if len(cookie.Value) > maxCookie || cookie.Name != "__Host-doorward-login" {
		t.Errorf("%s has %d bytes", cookie.Name, len(cookie.Value))
	}
	r := httptest.NewRequest(http.MethodGet, app, nil)
	r.AddCookie(cookie)
	back := a.openJar(r, app)
	if len(back.Pending) == 0 || back.Pending[len(back.Pending)-1].ID != "19" || len(back.Attempts) > maxTargets {
		t.Errorf("%d pending, %d attempts", len(back.Pending), len(back.Attempts))
	}
	if _, ok := back.take("19"); !ok {
		t.Error("the newest login is gone")
	}
	if _, ok := back.take("19"); ok {
		t.Error("a login counts twice")
	}
	// On another origin the cookie is none.
	if got := a.openJar(r, wiki); len(got.Pending) != 0 {
		t.Error("the cookie opens elsewhere")
	}
	now = now.Add(flowLife + time.Second)
	if got := a.openJar(r, app); len(got.Pending) != 0 || len(got.Attempts) != 0 {
		t.Errorf("outdated logins remain: %+v", got)
	}
}

func TestPlainHTTPCookiesHaveNoPrefix(t *testing.T) {
	if CookieName("http") != "doorward" || LoginCookieName("http") != "doorward-login" || CookieName("wss") != "__Host-doorward" {
		t.Error("cookie names")
	}
	w := httptest.NewRecorder()
	setSession(w, "http://app.localhost:8080", "x")
	if c := w.Result().Cookies()[0]; c.Secure || !c.HttpOnly || c.Domain != "" || c.Path != "/" || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("%+v", c)
	}
}

func TestSatisfied(t *testing.T) {
	now := newClock().Now()
	at := func(ago time.Duration) access.Login { return access.Login{Time: now.Add(-ago)} }
	age := access.LoginRequire{MaxAge: access.Duration(time.Minute)}
	for i, c := range []struct {
		login access.Login
		ask   access.LoginRequire
		want  bool
	}{
		{access.Login{}, access.LoginRequire{}, true},
		{access.Login{}, access.LoginRequire{ACR: []string{"mfa"}}, false},
		{access.Login{ACR: "mfa"}, access.LoginRequire{ACR: []string{"phr", "mfa"}}, true},
		{access.Login{ACR: "phrh"}, access.LoginRequire{ACR: []string{"phr"}}, true},
		{access.Login{ACR: "phr"}, access.LoginRequire{ACR: []string{"phrh"}}, false},
		{access.Login{ACR: "MFA"}, access.LoginRequire{ACR: []string{"mfa"}}, false},
		{access.Login{}, access.LoginRequire{ACR: []string{""}}, false},
		{access.Login{AMR: []string{"otp", "pwd"}}, access.LoginRequire{AMR: []string{"hwk", "otp"}}, true},
		{access.Login{AMR: []string{"pwd"}}, access.LoginRequire{AMR: []string{"hwk"}}, false},
		{access.Login{}, age, false},
		{at(time.Minute), age, true},
		{at(61 * time.Second), age, false},
	} {
		if got := satisfied(&c.login, c.ask, now); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}

func TestDemandSurvivesOurOwnURLs(t *testing.T) {
	in := loginRequest{
		Return: "/x?y=z", Provider: "corp", Switch: true, Again: true,
		Ask: access.LoginRequire{ACR: []string{"phr", "mfa"}, AMR: []string{"hwk"}, MaxAge: access.Duration(90 * time.Second)},
	}
	s := world(t, nil)
	out, err := s.auth.parseLogin(in.values(), app)
	if err != nil || fmt.Sprint(out) != fmt.Sprint(in) {
		t.Errorf("%+v, %v", out, err)
	}
}

// Whatever comes in the cookie, nothing but what we sealed is believed.
func FuzzFlowCookie(f *testing.F) {
	// A key of its own for every process: fuzz workers run this again, and what
	// one process sealed is a stranger's cookie to the next.
	key := make([]byte, 32)
	rand.Read(key)
	sealer, err := newSealer(key, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	a := &Authenticator{seal: sealer, now: newClock().Now}
	good, err := a.seal.seal(jar{Pending: []pending{{ID: "i", Started: now0, Verifier: "v"}}}, forCookie, app)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, good[1:], good + "A", "", "A", strings.Repeat("A", 5000), `{"p":[]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		r := httptest.NewRequest(http.MethodGet, app, nil)
		r.Header.Set("Cookie", LoginCookieName("https")+"="+value)
		if j := a.openJar(r, app); len(j.Pending) > 0 && value != good && !strings.Contains(value, good) {
			t.Fatalf("%q opened as %+v", value, j)
		}
	})
}

// The callback's query is the most exposed input there is.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{"code=a&state=b&iss=c", "flow=a&handover=b", "flow=a&refused=b", "error=access_denied&state=x", "state=%zz", "code=1&code=2", "flow="} {
		f.Add(seed)
	}
	a := &Authenticator{seal: testSealer(f), now: newClock().Now, emit: func(*access.Event) {}}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, app+access.CallbackPath, nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		err := a.Serve(w, r, &access.Request{Path: access.CallbackPath, Scheme: "https", Host: "app.corp.test"})
		if reason := access.ReasonOf(err); reason != access.LoginStateUnknown && reason != access.BadRequest && reason != access.LoginFailed {
			t.Fatalf("%q: %v", query, err)
		}
		if len(w.Result().Cookies()) != 0 {
			t.Fatalf("%q set a cookie", query)
		}
	})
}

func TestDemandForAMethod(t *testing.T) {
	ask, table := access.LoginRequire{AMR: []string{"hwk"}}, new(Assurance).table()
	if v := stepUpParams(ask, true, &table); v.Get("prompt") != "login" || v.Get("claims") != `{"id_token":{"amr":{"essential":true}}}` {
		t.Errorf("%v", v)
	}
	ask.ACR = []string{"phr"} // a class says it better than a repeated password
	if v := stepUpParams(ask, false, &table); v.Has("prompt") || v.Get("acr_values") != "phr" || v.Has("claims") {
		t.Errorf("%v", v)
	}
}
