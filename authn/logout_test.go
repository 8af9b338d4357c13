package authn

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// logout asks to log out and stops where the browser would go to the provider.
func (b *browser) logout(origin, method string, header ...string) view {
	b.Helper()
	r, err := http.NewRequest(method, origin+access.LogoutPath, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	b.stop = "corp.test/"
	defer func() { b.stop = "" }()
	return b.do(r)
}

func (b *browser) isIn(origin string) bool {
	b.Helper()
	b.stop = "corp.test"
	defer func() { b.stop = "" }()
	return strings.Contains(b.get(origin+"/").body, "hello")
}

func TestLogoutEndsTheSessionHereAndAtTheProvider(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	secret := b.cookies(app)[CookieName("https")]
	v := b.logout(app, http.MethodGet, "Sec-Fetch-Site", "same-origin")
	to, err := v.Location()
	if err != nil {
		t.Fatalf("%d %s", v.StatusCode, v.body)
	}
	q := to.Query()
	if to.Host != "corp.test" || q.Get("client_id") != "doorward" || q.Get("post_logout_redirect_uri") != app+access.LogoutPath ||
		strings.Count(q.Get("id_token_hint"), ".") != 2 || q.Get("state") == "" {
		t.Errorf("sent to %s", to)
	}
	if v.Header.Get("Cache-Control") != "no-store" || v.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Error(v.Header)
	}
	if len(b.cookies(app)) != 0 {
		t.Errorf("cookies remain: %v", b.cookies(app))
	}
	// A copy of the cookie is worth nothing: the session ended on the server.
	b.setCookie(app, CookieName("https"), secret)
	if b.isIn(app) {
		t.Error("the session lives on")
	}
	last := b.get(to.String())
	last.want(t, "You are logged out")
	if last.at.Host != "app.corp.test" {
		t.Errorf("ended at %s", last.at)
	}
}

func TestLogoutOfOneApplicationIsLogoutOfAll(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	b.get(wiki+"/").want(t, "hello")
	v := b.logout(app, http.MethodPost, "Sec-Fetch-Site", "same-origin")
	to, err := v.Location()
	if err != nil || to.Query().Get("post_logout_redirect_uri") != authURL+access.LogoutPath {
		t.Fatalf("%v, sent to %s", err, to)
	}
	b.get(to.String()).want(t, app+"/") // the way back in
	for _, origin := range []string{app, wiki} {
		if b.isIn(origin) {
			t.Errorf("still logged in at %s", origin)
		}
	}
}

// A visitor whose session at the application has ended may still have one at the
// login host, which would let them in again without a question.
func TestLogoutWithoutAppSessionReachesTheLoginHost(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	b.setCookie(app, CookieName("https"), "")
	v := b.logout(app, http.MethodGet)
	if len(b.trail) == 0 || b.trail[0] != authURL+access.LogoutPath {
		t.Errorf("went %v: %s", b.trail, v.body)
	}
	if b.isIn(wiki) {
		t.Error("still logged in")
	}
}

func TestNobodyElseLogsVisitorsOut(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	for _, c := range [][]string{
		{http.MethodGet, "Sec-Fetch-Site", "cross-site"},
		{http.MethodGet, "Sec-Fetch-Site", "same-site"},
		{http.MethodGet, "Sec-Fetch-Site", "none", "Sec-Purpose", "prefetch"},
		{http.MethodPost, "Sec-Fetch-Site", "cross-site"},
		{http.MethodPost, "Origin", "https://evil.example"},
	} {
		b.logout(app, c[0], c[1:]...).want(t, "Log out?")
		if !b.isIn(app) {
			t.Fatalf("%v logged out", c)
		}
	}
	b.logout(app, http.MethodDelete).refused(t, access.BadRequest)
	// The page that asks has the button that works.
	v := b.logout(app, http.MethodGet, "Sec-Fetch-Site", "cross-site")
	b.stop = "corp.test"
	b.submit(v, nil)
	if b.isIn(app) {
		t.Error("the button does not log out")
	}
}

func TestLogoutWithoutSessionSaysSo(t *testing.T) {
	s := world(t, nil)
	v := s.browser().logout(app, http.MethodGet, "Sec-Fetch-Site", "cross-site")
	v.want(t, "You are logged out")
}

func TestLogoutWhereTheProviderHasNone(t *testing.T) {
	s := world(t, nil)
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateDiscovery = func(m map[string]any) { delete(m, "end_session_endpoint") }
	})
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	b.logout(app, http.MethodGet).want(t, "You are logged out")
	if b.isIn(app) {
		t.Error("still logged in")
	}
}

func TestForgedLogoutStateLeadsNowhere(t *testing.T) {
	s := world(t, nil)
	v := s.browser().get(app + access.LogoutPath + "?state=" + url.QueryEscape("https://evil.example"))
	if strings.Contains(v.body, "evil") {
		t.Error(v.body)
	}
}
