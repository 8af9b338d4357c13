package authn

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

func TestOneLoginOpensEveryApplication(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	b.enter(app+"/a?b=c", "alice").want(t, "hello corp:alice at /a?b=c")
	s.wantReasons(access.Allowed, access.Allowed) // on the login host, and handed over
	logins := s.corp.Requests(testidp.Authorize)
	b.get(wiki+"/page").want(t, "hello corp:alice at /page")
	if s.corp.Requests(testidp.Authorize) != logins {
		t.Error("the second application asked the provider")
	}
	name := CookieName("https")
	secrets := map[string]bool{}
	for _, origin := range []string{app, wiki, authURL} {
		secrets[b.cookies(origin)[name]] = true
	}
	if len(secrets) != 3 || secrets[""] {
		t.Errorf("sessions of three hosts share a cookie: %d different ones", len(secrets))
	}
	// The cookie of one application opens no other, and not the login host.
	stolen := b.cookies(app)[name]
	for _, origin := range []string{wiki, authURL} {
		thief := s.browser()
		thief.setCookie(origin, name, stolen)
		thief.stop = "corp.test"
		if v := thief.get(origin + "/x"); strings.Contains(v.body, "hello") {
			t.Errorf("the cookie of %s opens %s", app, origin)
		}
	}
}

// Sessions handed over to it before cannot be handed on, which must be no dead end.
func TestApplicationsHostBecomesTheLoginHost(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	b.enter(wiki+"/", "alice").want(t, "hello corp:alice")
	s.options.AuthURL = wiki
	s.reload()
	b.get(app+"/x").want(t, "hello corp:alice at /x")
}

func TestHandoverCodeIsUselessInAnotherBrowser(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	page := b.get(app + "/secret")
	b.stop = "handover="
	v := b.password(page, "alice")
	stolen, err := v.Location()
	if err != nil {
		t.Fatal(v.body)
	}
	thief := s.browser()
	thief.stop = "corp.test/authorize"
	thief.get(stolen.String())
	if thief.cookies(app)[CookieName("https")] != "" {
		t.Fatal("the thief is logged in")
	}
	// Nor with a login of the thief's own in flight.
	thief.stop = ""
	own, _ := url.Parse(thief.getUntil(app+"/", authURL))
	q := url.Values{"flow": {own.Query().Get("flow")}, "handover": {stolen.Query().Get("handover")}}
	thief.stop = "corp.test/authorize"
	thief.get(app + access.CallbackPath + "?" + q.Encode())
	if thief.cookies(app)[CookieName("https")] != "" {
		t.Fatal("the thief is logged in")
	}
}

func TestHandoverCodeWorksOnceAndNotForLong(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	page := b.get(app + "/x")
	b.stop = "handover="
	v := b.password(page, "alice")
	b.stop = ""
	to, _ := v.Location()
	s.clock.Advance(2 * time.Minute)
	// The login host is asked for another code, silently.
	b.get(to.String()).want(t, "hello corp:alice at /x")
	b.get(to.String()).want(t, "hello corp:alice at /x")
}

// Lured into the login host's page by someone else's flow, a visitor hands
// nothing over: the code comes to their own browser, which did not ask for it.
func TestVisitorLuredToTheLoginHostHandsNothingOver(t *testing.T) {
	s := world(t, withLoginHost)
	victim := s.browser()
	victim.enter(app+"/", "alice").want(t, "hello")
	bait := s.browser().getUntil(wiki+"/", authURL)
	victim.stop = "again=1"
	v := victim.get(bait)
	if !strings.Contains(v.Header.Get("Location"), "again=1") || victim.cookies(wiki)[CookieName("https")] != "" {
		t.Errorf("%d %s %s", v.StatusCode, v.Header.Get("Location"), v.body)
	}
}

func TestLoginIsHandedOverToOurOwnHostsOnly(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	good, _ := url.Parse(b.getUntil(wiki+"/", authURL))
	for _, to := range []string{
		"https://evil.example", "//evil.example", "https:evil.example", "https://wiki.corp.test.evil.example",
		"https://wiki.corp.test@evil.example", "https://evil.example#.corp.test", `https://evil.example\.corp.test`,
		"https://wiki.corp.test/", "https://wiki.corp.test/path", "https://wiki.corp.test?", "https://WIKI.corp.test",
		"https://wiki.corp.test:443", "https://wiki.corp.test\r\nX: y", "https://wikí.corp.test", "https://xn--wik-qma.corp.test",
		"http://wiki.corp.test", "javascript:alert(1)", " https://wiki.corp.test", "",
	} {
		q := good.Query()
		q.Set("to", to)
		v := b.get(authURL + access.LoginPath + "?" + q.Encode())
		v.refused(t, access.ReturnURLInvalid)
		if len(b.trail) != 0 {
			t.Errorf("%q was sent to %s", to, b.trail)
		}
	}
	// An application's host hands nothing over.
	b.get(app+access.LoginPath+"?"+good.RawQuery).refused(t, access.ReturnURLInvalid)
}

func TestIncompleteHandoverIsRefused(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	good, _ := url.Parse(b.getUntil(app+"/", authURL))
	for name, value := range map[string]string{
		"challenge": "short", "flow": strings.Repeat("a", maxSealed), "acr": "a\x00b", "max_age": "-1", "provider": "nobody",
	} {
		q := good.Query()
		q.Set(name, value)
		b.get(authURL+access.LoginPath+"?"+q.Encode()).refused(t, access.BadRequest)
	}
	b.get(good.String()+"&to=x").refused(t, access.BadRequest)
}

func TestStepUpReachesTheApplication(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	b.submit(b.get(app+"/pay"), map[string]string{"code": testidp.DemoCode}).want(t, "hello corp:alice at /pay")
	b.get(wiki+"/").want(t, "hello corp:alice at /") // stronger, and no question asked
}

func TestFailureIsToldWhereTheVisitorCameFrom(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	page := b.get(app + "/x")
	s.corp.Fault(func(f *testidp.Faults) { f.CallbackIssuer = "https://evil.example" })
	v := b.password(page, "alice")
	v.refused(t, access.LoginMixUp)
	if v.at.Host != "app.corp.test" {
		t.Errorf("told at %s", v.at)
	}
	s.wantReasons(access.LoginMixUp, access.LoginMixUp)
	// The answer means nothing to any other browser, and cannot be made up.
	other := s.browser()
	other.stop = "corp.test/authorize"
	if w := other.get(v.at.String()); strings.Contains(w.body, "refused") {
		t.Error("another browser is shown the refusal")
	}
}

func TestCookieLostOnTheLoginHost(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	back := b.callback(app+"/there?a=b", "alice")
	b.setCookie(authURL, LoginCookieName("https"), "")
	b.get(back).want(t, "hello corp:alice at /there?a=b")
}
