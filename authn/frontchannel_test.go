package authn

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// frame opens the front-channel address as a frame on the provider's page does:
// without cookies, unless a browser is given.
func (s *stage) frame(b *browser, query string) view {
	s.Helper()
	if b == nil {
		b = s.browser()
	}
	return b.get(authURL + access.FrontChannelPath + "?" + query)
}

func frontQuery(iss, sid string) string {
	return url.Values{"iss": {iss}, "sid": {sid}}.Encode()
}

// The provider's logout page opens us in a frame. Browsers send no cookie there;
// the name of the session is enough.
func TestFrontChannelLogout(t *testing.T) {
	s := world(t, withLoginHost)
	alice, sid := s.sidOf("alice")
	alice.get(wiki+"/").want(t, "hello corp:alice")
	phone, _ := s.sidOf("alice")
	s.logouts()
	for range 2 { // a session that is gone is fine
		v := s.frame(nil, frontQuery("https://corp.test", sid))
		h := v.Header
		if v.StatusCode != 200 || h.Get("Cache-Control") != "no-store" || h.Get("X-Frame-Options") != "" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors https://corp.test;") || h.Get("Set-Cookie") != "" {
			t.Errorf("%d %v\n%s", v.StatusCode, h, v.body)
		}
	}
	s.wantLogouts(access.SessionEnded, access.SessionEnded)
	alice.wantLoggedIn(false, app+"/", wiki+"/")
	phone.wantLoggedIn(true, app+"/")
}

// Where the browser does send its cookie, the session has to be its own.
func TestFrontChannelLogoutWithCookie(t *testing.T) {
	s := world(t, withLoginHost)
	alice, sid := s.sidOf("alice")
	bob, bobs := s.sidOf("bob")
	s.logouts()
	s.frame(alice, frontQuery("https://corp.test", bobs)).refused(t, access.LogoutMismatch)
	s.wantLogouts(access.LogoutMismatch)
	alice.wantLoggedIn(true, app+"/")
	bob.wantLoggedIn(true, app+"/")
	v := s.frame(alice, frontQuery("https://corp.test", sid))
	if v.StatusCode != 200 || alice.cookies(authURL)[CookieName("https")] != "" {
		t.Errorf("%d, cookies %v", v.StatusCode, alice.cookies(authURL))
	}
	alice.wantLoggedIn(false, app+"/")
	bob.wantLoggedIn(true, app+"/")
}

func TestFrontChannelLogoutIsStrict(t *testing.T) {
	s := world(t, func(o *Options) { withLoginHost(o); withTwoProviders(o) })
	s.provider = "corp"
	alice, sid := s.sidOf("alice")
	s.logouts()
	good := frontQuery("https://corp.test", sid)
	for name, c := range map[string]struct {
		query  string
		reason access.Reason
	}{
		"nothing":         {"", access.BadRequest},
		"no sid":          {"iss=https://corp.test", access.BadRequest},
		"sid empty":       {"iss=https://corp.test&sid=", access.BadRequest},
		"no iss":          {"sid=" + sid, access.BadRequest},
		"two sids":        {good + "&sid=x", access.BadRequest},
		"two issuers":     {good + "&iss=x", access.BadRequest},
		"a broken escape": {good + "&x=%zz", access.BadRequest},
		"sid too long":    {frontQuery("https://corp.test", strings.Repeat("s", maxJTI+1)), access.BadRequest},
		"no provider":     {frontQuery("https://evil.example", sid), access.LogoutMismatch},
		"guessable":       {frontQuery("https://corp.test", "7"), access.LogoutMismatch},
	} {
		v := s.frame(nil, c.query)
		v.refused(t, c.reason)
		if strings.Contains(v.Header.Get("Content-Security-Policy"), "corp.test") {
			t.Errorf("%s: a refusal may be framed", name)
		}
		s.wantLogouts(c.reason)
	}
	if v := s.frame(nil, frontQuery("https://partners.test", sid)); v.StatusCode != 200 {
		t.Errorf("the other provider: %d", v.StatusCode)
	}
	alice.wantLoggedIn(true, app+"/")
	rec := httptest.NewRecorder()
	s.door(rec, httptest.NewRequest(http.MethodPost, authURL+access.FrontChannelPath+"?"+good, nil))
	if rec.Code != 400 {
		t.Errorf("POST: %d", rec.Code)
	}
	alice.wantLoggedIn(true, app+"/")
}

// logoutFrom posts the logout form as a page of some site would.
func (b *browser) logoutFrom(site, address, body string) view {
	b.Helper()
	r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", formType)
	r.Header.Set("Sec-Fetch-Site", site)
	b.stop = "corp.test/logout"
	defer func() { b.stop = "" }()
	return b.do(r)
}

// Logging out everywhere ends the sessions of all browsers, and only the
// person's own; the link asks, and no other site can do it.
func TestLogOutEverywhere(t *testing.T) {
	s := world(t, withLoginHost)
	laptop, phone, bob := s.browser(), s.browser(), s.browser()
	laptop.enter(app+"/", "alice").want(t, "hello corp:alice")
	phone.enter(wiki+"/", "alice").want(t, "hello corp:alice")
	bob.enter(app+"/", "bob").want(t, "hello corp:bob")

	for name, v := range map[string]view{
		"the link":                     laptop.get(app + access.LogoutPath + "?everywhere=1"),
		"another site's form":          laptop.logoutFrom("cross-site", app+access.LogoutPath, "everywhere=1"),
		"another site's form, by link": laptop.logoutFrom("same-site", app+access.LogoutPath+"?everywhere=1", ""),
	} {
		if v.StatusCode != 200 || !strings.Contains(v.body, `name="everywhere" value="1"`) {
			t.Errorf("%s does not ask: %d\n%s", name, v.StatusCode, v.body)
		}
	}
	laptop.wantLoggedIn(true, app+"/")
	phone.wantLoggedIn(true, wiki+"/")

	v := laptop.logoutFrom("same-origin", app+access.LogoutPath, "everywhere=1")
	if to := v.Header.Get("Location"); v.StatusCode != 302 || !strings.HasPrefix(to, "https://corp.test/logout?") || !strings.Contains(to, "id_token_hint=") {
		t.Errorf("%d to %q\n%s", v.StatusCode, to, v.body)
	}
	laptop.wantLoggedIn(false, app+"/", wiki+"/")
	phone.wantLoggedIn(false, app+"/", wiki+"/")
	bob.wantLoggedIn(true, app+"/")
}

// The ordinary logout leaves other browsers alone.
func TestLogOutHereOnly(t *testing.T) {
	s := world(t, withLoginHost)
	laptop, phone := s.browser(), s.browser()
	laptop.enter(app+"/", "alice").want(t, "hello corp:alice")
	phone.enter(app+"/", "alice").want(t, "hello corp:alice")
	for _, body := range []string{"", "everywhere=0", "everywhere="} {
		laptop.logoutFrom("same-origin", app+access.LogoutPath, body)
		laptop.wantLoggedIn(false, app+"/")
		phone.wantLoggedIn(true, app+"/")
	}
}

// Who has no session on an application's host is sent to the login host, and the
// wish goes along.
func TestLogOutEverywhereFromAHostWithoutSession(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello corp:alice")
	v := b.get(wiki + access.LogoutPath + "?everywhere=1")
	if v.at.Host != "auth.corp.test" || !strings.Contains(v.body, `name="everywhere" value="1"`) {
		t.Errorf("at %s: %d\n%s", v.at, v.StatusCode, v.body)
	}
}
