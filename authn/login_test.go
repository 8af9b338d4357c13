package authn

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/testidp"
)

func TestLoginComesBackToTheSameAddress(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	v := b.enter(app+"/reports/7?from=may&to=june", "alice")
	v.want(t, "hello corp:alice at /reports/7?from=may&to=june")
	s.wantReasons(access.Allowed)

	cookies := b.cookies(app)
	if got := slices.Sorted(maps.Keys(cookies)); !slices.Equal(got, []string{"__Host-doorward", "__Host-doorward-login"}) {
		t.Errorf("cookies %v", got)
	}
	if n := len(cookies["__Host-doorward"]); n == 0 || n > 64 {
		t.Errorf("the session cookie has %d bytes", n)
	}
	if len(b.cookies(wiki)) != 0 {
		t.Error("another host got a cookie")
	}
	b.get(app+"/again").want(t, "hello corp:alice at /again")
}

func TestRequestToTheProviderIsComplete(t *testing.T) {
	s := world(t, nil)
	s.ask = access.LoginRequire{ACR: []string{"phr", "mfa"}, MaxAge: access.Duration(15 * time.Minute)}
	b := s.browser()
	b.stop = "corp.test/authorize"
	v := b.get(app + "/x")
	if v.StatusCode != http.StatusFound || v.Header.Get("Cache-Control") != "no-store" || v.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%d %v", v.StatusCode, v.Header)
	}
	set := v.Header.Get("Set-Cookie")
	for _, attribute := range []string{"__Host-doorward-login=", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(set, attribute) {
			t.Errorf("%q lacks %s", set, attribute)
		}
	}
	to, err := v.Location()
	if err != nil {
		t.Fatal(err)
	}
	q := to.Query()
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "doorward", "redirect_uri": app + "/.doorward/callback",
		"scope": "openid email profile", "code_challenge_method": "S256", "max_age": "840",
		"claims": `{"id_token":{"acr":{"essential":true,"values":["phr","mfa"]},"auth_time":{"essential":true}}}`,
	} {
		if q.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, q.Get(name), want)
		}
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(q.Get(name)) < 22 {
			t.Errorf("%s = %q", name, q.Get(name))
		}
	}
	second, _ := url.Parse(b.getUntil(app+"/x", "corp.test/authorize"))
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if q.Get(name) == second.Query().Get(name) {
			t.Errorf("%s repeats", name)
		}
	}
}

func TestProviderWithoutClaimsParameterIsAskedByACRValues(t *testing.T) {
	s := world(t, nil)
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateDiscovery = func(m map[string]any) { delete(m, "claims_parameter_supported") }
	})
	s.ask = access.LoginRequire{ACR: []string{"phr", "mfa"}}
	to, _ := url.Parse(s.browser().getUntil(app+"/x", "corp.test/authorize"))
	if q := to.Query(); q.Get("acr_values") != "phr mfa" || q.Has("claims") {
		t.Errorf("sent to %s", to)
	}
}

// Pitfall of every proxy with one state cookie: the second tab breaks the first.
func TestSeveralTabsLogIn(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	first, second, third := b.get(app+"/1"), b.get(app+"/2"), b.get(app+"/3")
	b.password(second, "alice").want(t, "hello corp:alice at /2")
	b.password(first, "alice").want(t, "hello corp:alice at /1")
	b.password(third, "alice").want(t, "hello corp:alice at /3")
	s.wantReasons(access.Allowed, access.Allowed, access.Allowed)
}

// A browser that restores its tabs sends all requests before any answer: only
// one cookie survives. The other tabs still arrive.
func TestTabsThatLostTheCookieRaceArrive(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	lost := b.get(app + "/lost")
	b.setCookie(app, LoginCookieName("https"), "")
	kept := b.get(app + "/kept")
	b.password(kept, "alice").want(t, "hello corp:alice at /kept")
	b.password(lost, "alice").want(t, "hello corp:alice at /lost")
}

func TestOldestLoginIsDroppedAndStillArrives(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	oldest := b.get(app + "/oldest")
	long := "/" + strings.Repeat("long", 400)
	for range maxPending {
		b.get(app + long)
		if n := len(b.cookies(app)[LoginCookieName("https")]); n > maxCookie {
			t.Fatalf("the cookie has %d bytes", n)
		}
	}
	b.password(oldest, "alice").want(t, "hello corp:alice at /oldest")
}

func TestLongAddressSurvives(t *testing.T) {
	s := world(t, nil)
	long := "/q?" + strings.Repeat("x=1&", 400)
	s.browser().enter(app+long, "alice").want(t, "at "+long)
}

func TestSlowLoginWorksAndAnOutdatedOneStartsAgain(t *testing.T) {
	s := world(t, nil)
	for _, pause := range []time.Duration{50 * time.Minute, 61 * time.Minute} {
		b := s.browser()
		to := b.getUntil(app+"/slow", "corp.test/authorize")
		s.clock.Advance(pause)
		b.enter(to, "alice").want(t, "hello corp:alice at /slow")
	}
}

// callback returns the address by which the provider answers a login.
func (b *browser) callback(address, username string) string {
	b.Helper()
	page := b.get(address)
	b.stop = access.CallbackPath
	v := b.password(page, username)
	b.stop = ""
	to, err := v.Location()
	if err != nil {
		b.Fatalf("no callback: %d %s", v.StatusCode, v.body)
	}
	return to.String()
}

func TestCallbackCountsOnce(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	back := b.callback(app+"/once", "alice")
	b.get(back).want(t, "hello corp:alice at /once")
	before := s.corp.Requests(testidp.Token)
	b.get(back).want(t, "hello corp:alice at /once") // nothing left to do
	if got := s.corp.Requests(testidp.Token); got != before {
		t.Error("the code was sent again")
	}
}

// Login CSRF: an attacker's answer must not log a victim in.
func TestCallbackOfAnotherBrowserLogsNobodyIn(t *testing.T) {
	s := world(t, nil)
	back := s.browser().callback(app+"/x", "bob")
	victim := s.browser()
	victim.stop = "corp.test/authorize"
	v := victim.get(back)
	if v.StatusCode != http.StatusFound || victim.cookies(app)[CookieName("https")] != "" {
		t.Errorf("%d, cookies %v", v.StatusCode, victim.cookies(app))
	}
	if s.corp.Requests(testidp.Token) != 0 {
		t.Error("the code was redeemed")
	}
	// The victim's own login begins instead, and a second foreign answer ends it.
	location, _ := v.Location()
	q := url.Values{"code": {"x"}, "iss": {"https://corp.test"}, "state": {location.Query().Get("state")}}
	s.browser().get(app+access.CallbackPath+"?"+q.Encode()).refused(t, access.LoginStateUnknown)
}

func TestBrowserWithoutCookiesIsToldAfterOneSilentTry(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	back := b.callback(app+"/x", "alice") // the provider remembers alice from here on
	drop := func() { b.setCookie(app, LoginCookieName("https"), "") }
	drop()
	again := b.getUntil(back, "corp.test/authorize")
	second := b.getUntil(again, app+access.CallbackPath)
	drop()
	b.get(second).refused(t, access.LoginStateUnknown)
}

// spoilt returns a sealed text with another first letter, whatever that was.
func spoilt(sealed string) string {
	if sealed[0] == 'A' {
		return "B" + sealed[1:]
	}
	return "A" + sealed[1:]
}

func TestForgedStateIsRefused(t *testing.T) {
	s := world(t, withLoginHost)
	b := s.browser()
	back, _ := url.Parse(b.callback(app+"/x", "alice"))
	for name, state := range map[string]string{
		"none": "", "junk": "junk", "changed": spoilt(back.Query().Get("state")), "long": strings.Repeat("a", 20000),
	} {
		q := back.Query()
		q.Set("state", state)
		if v := b.get(authURL + access.CallbackPath + "?" + q.Encode()); !strings.Contains(v.body, string(access.LoginStateUnknown)) {
			t.Errorf("%s: %s", name, v.body)
		}
	}
	// A state of one host is none on another, nor for another purpose.
	b.get(app+access.CallbackPath+"?"+back.RawQuery).refused(t, access.LoginStateUnknown)
	b.get(authURL+access.CallbackPath+"?handover=x&flow="+url.QueryEscape(back.Query().Get("state"))).refused(t, access.LoginStateUnknown)
	for _, e := range s.reasons() {
		if e != access.LoginStateUnknown {
			t.Errorf("event %s", e)
		}
	}
}

func TestTamperedCookiesOpenNothing(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	good := b.cookies(app)
	for name, value := range good {
		for i, bad := range []string{spoilt(value), value[:len(value)-2], value + "A", strings.ToUpper(value), "", strings.Repeat("A", 5000)} {
			other := s.browser()
			for n, v := range good {
				other.setCookie(app, n, v)
			}
			other.setCookie(app, name, bad)
			v := other.get(app + "/")
			if logged := strings.Contains(v.body, "hello"); logged != (name == LoginCookieName("https")) || v.StatusCode >= 400 {
				t.Errorf("%s, change %d: %d %.60s", name, i, v.StatusCode, v.body)
			}
		}
	}
}

func TestTossedCookieCountsAsNone(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	secret := b.cookies(app)[CookieName("https")]
	for header, nobody := range map[string]bool{
		CookieName("https") + "=" + secret:                                             false,
		CookieName("https") + "=" + secret + "; " + CookieName("https") + "=" + secret: false,
		CookieName("https") + "=" + secret + "; " + CookieName("https") + "=planted":   true,
		CookieName("https") + "=planted; " + CookieName("https") + "=" + secret:        true,
	} {
		r, _ := http.NewRequest(http.MethodGet, app+"/", nil)
		r.Header.Set("Cookie", header)
		req := &access.Request{Time: s.clock.Now(), Scheme: "https", Host: "app.corp.test"}
		if err := s.auth.Identify(r, req); err != nil || req.Identity.Nobody() != nobody {
			t.Errorf("%s: %v, nobody %v", header, err, req.Identity.Nobody())
		}
	}
}

func TestSessionOfARemovedProviderIsNobodys(t *testing.T) {
	s := world(t, withTwoProviders)
	s.provider = "partners"
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello partners:alice")
	s.options.Providers, s.provider = s.options.Providers[:1], ""
	s.reload()
	b.stop = "authorize"
	if v := b.get(app + "/"); v.StatusCode != http.StatusFound {
		t.Errorf("%d %s", v.StatusCode, v.body)
	}
}

// Fixation: the session id changes at login and at step-up, and the old one is dead.
func TestSessionIDChangesAtStepUp(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.setCookie(app, CookieName("https"), strings.Repeat("A", 43))
	b.enter(app+"/", "alice").want(t, "hello")
	before := b.cookies(app)[CookieName("https")]
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	b.submit(b.get(app+"/pay"), map[string]string{"code": testidp.DemoCode}).want(t, "hello corp:alice at /pay")
	after := b.cookies(app)[CookieName("https")]
	if before == after || before == strings.Repeat("A", 43) {
		t.Error("the session cookie did not change")
	}
	thief := s.browser()
	thief.setCookie(app, CookieName("https"), before)
	thief.stop = "authorize"
	if v := thief.get(app + "/"); v.StatusCode != http.StatusFound {
		t.Errorf("the old cookie still opens: %s", v.body)
	}
}

// A provider that ignores what it was asked for must not cause a loop.
func TestStepUpFailsOnce(t *testing.T) {
	for _, loginHost := range []bool{false, true} {
		s := world(t, func(o *Options) {
			if loginHost {
				withLoginHost(o)
			}
		})
		b := s.browser()
		b.enter(app+"/", "alice").want(t, "hello")
		s.reasons()
		s.corp.Fault(func(f *testidp.Faults) { f.IgnoreACR = true })
		s.ask = access.LoginRequire{ACR: []string{"mfa"}}
		v := b.get(app + "/pay")
		v.refused(t, access.StepUpFailed)
		if v.at.Host != "app.corp.test" {
			t.Errorf("told on %s, where there is no way on", v.at)
		}
		for _, e := range s.reasons() {
			if e != access.StepUpFailed {
				t.Errorf("event %s", e)
			}
		}
		// The session that was there before is still good for what it was good for.
		s.ask = access.LoginRequire{}
		b.get(app+"/").want(t, "hello")
	}
}

func TestProviderThatCannotStepUpSaysSo(t *testing.T) {
	s := world(t, nil)
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	s.browser().enter(app+"/pay", "bob").refused(t, access.StepUpFailed)
}

// The URL asks, the ID token decides: what a visitor removes on the way to the
// provider is missing in the end.
func TestRemovingTheDemandFromTheURLGainsNothing(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	to, _ := url.Parse(b.getUntil(app+"/pay", "corp.test/authorize"))
	q := to.Query()
	q.Del("acr_values")
	q.Del("claims")
	to.RawQuery = q.Encode()
	b.password(b.get(to.String()), "alice").refused(t, access.StepUpFailed)
}

func TestMaxAgeAsksForAFreshLogin(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	s.clock.Advance(30 * time.Minute)
	s.ask = access.LoginRequire{MaxAge: access.Duration(15 * time.Minute)}
	b.password(b.get(app+"/pay"), "alice").want(t, "hello corp:alice at /pay")
}

func TestLoopIsNoticed(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	for range maxAttempts {
		b.getUntil(app+"/loop", "corp.test/authorize")
	}
	b.getUntil(app+"/other", "corp.test/authorize")
	b.get(app+"/loop").refused(t, access.LoginLoop)
	s.clock.Advance(loopWindow + time.Second)
	b.getUntil(app+"/loop", "corp.test/authorize")
}

func TestProviderDownAtStartComesBackByItself(t *testing.T) {
	s := world(t, nil)
	s.corp.Fault(func(f *testidp.Faults) { f.Down = true })
	b := s.browser()
	v := b.get(app + "/x")
	v.refused(t, access.ProviderUnavailable)
	if v.StatusCode != http.StatusServiceUnavailable {
		t.Error(v.StatusCode)
	}
	if s.auth.Ready()["corp"] == nil {
		t.Error("ready without metadata")
	}
	s.corp.Heal()
	s.clock.Advance(jose.MinPause)
	b.enter(app+"/x", "alice").want(t, "hello corp:alice")
	if err := s.auth.Ready()["corp"]; err != nil {
		t.Error(err)
	}
}

func TestReloadAsksNobody(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/x", "alice").want(t, "hello")
	s.options.Previous = s.auth
	s.reload()
	if err := s.auth.Ready()["corp"]; err != nil {
		t.Error(err)
	}
	s.corp.Fault(func(f *testidp.Faults) { f.Answers[testidp.Discovery] = testidp.NotJSON() })
	s.browser().getUntil(app+"/x", "corp.test/authorize")
	b.get(app+"/x").want(t, "hello")
}

// A step-up is for the same person, so it goes to the session's own provider
// although others could be chosen.
func TestAddressOfAPersonIsNotToldToAnotherProvider(t *testing.T) {
	s := world(t, withTwoProviders)
	s.provider = "corp"
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello corp:alice")
	s.provider, s.ask = "partners", access.LoginRequire{ACR: []string{"gold"}}
	to, _ := url.Parse(b.getUntil(app+"/x", "partners.test/authorize"))
	if hint := to.Query().Get("login_hint"); hint != "" {
		t.Errorf("partners was told %q", hint)
	}
}

func TestStepUpGoesToTheSessionsProvider(t *testing.T) {
	s := world(t, withTwoProviders)
	s.provider = "partners"
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello partners:alice")
	b.setCookie(app, LoginCookieName("https"), "")
	s.provider, s.ask = "", access.LoginRequire{ACR: []string{"mfa"}}
	to, _ := url.Parse(b.getUntil(app+"/pay", "/authorize"))
	if to.Host != "partners.test" || to.Query().Get("login_hint") == "" {
		t.Errorf("sent to %s", to)
	}
	s.provider = "corp" // unless the route says otherwise
	b.getUntil(app+"/pay", "corp.test/authorize")
}
