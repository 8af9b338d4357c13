package testidp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// The whole way, as an independent relying party goes it: discovery, login,
// code, ID token, userinfo, refresh.
func TestIndependentRelyingPartyLogsIn(t *testing.T) {
	for _, algorithm := range []string{"RS256", "ES256"} {
		t.Run(algorithm, func(t *testing.T) {
			p := meet(t, func(o *Options) { o.Algorithms = nil })
			if err := p.idp.SignWith(algorithm); err != nil {
				t.Fatal(err)
			}
			pg := p.enter("alice")
			if q := pg.back.Query(); q.Get("state") != "st" || q.Get("iss") != p.idp.Issuer() {
				t.Errorf("sent back to %s", pg.back)
			}
			token, claims := p.redeem(p.code(pg))
			for name, want := range map[string]any{
				"iss": p.idp.Issuer(), "sub": "alice", "aud": "app", "nonce": "n0", "acr": "pwd", "amr": []any{"pwd"},
				"auth_time": float64(p.clock.Now().Unix()), "email": "alice@example.com", "email_verified": true,
				"name": "Alice Adams", "preferred_username": "alice", "groups": []any{"eng", "finance"}, "deviceid": "laptop-alice",
			} {
				if !reflect.DeepEqual(claims[name], want) {
					t.Errorf("%s = %v, want %v", name, claims[name], want)
				}
			}
			if sid, _ := claims["sid"].(string); sid == "" {
				t.Error("no sid")
			}
			provider, err := oidc.NewProvider(p.context(), p.idp.Issuer())
			if err != nil {
				t.Fatal(err)
			}
			info, err := provider.UserInfo(p.context(), p.oauth.TokenSource(p.context(), token))
			if err != nil || info.Subject != "alice" || info.Email != "alice@example.com" {
				t.Errorf("userinfo: %+v, %v", info, err)
			}

			p.clock.Advance(5 * time.Minute)
			fresh, err := p.refresh(token.RefreshToken)
			if err != nil {
				t.Fatal(err)
			}
			again := p.verify(fresh)
			for _, name := range []string{"iss", "sub", "aud", "auth_time", "acr", "sid"} {
				if again[name] != claims[name] {
					t.Errorf("after the refresh %s = %v, was %v", name, again[name], claims[name])
				}
			}
			if again["iat"] == claims["iat"] || again["nonce"] != nil {
				t.Errorf("iat %v, nonce %v after the refresh", again["iat"], again["nonce"])
			}
		})
	}
}

func TestSingleSignOnAndPrompts(t *testing.T) {
	p := meet(t, nil)
	p.refused(p.get(p.ask("prompt", "none")), "login_required")
	_, first := p.redeem(p.code(p.enter("alice")))
	p.clock.Advance(time.Minute)

	_, second := p.redeem(p.code(p.get(p.ask("prompt", "none")))) // no page in between
	if second["auth_time"] != first["auth_time"] || second["sid"] != first["sid"] {
		t.Errorf("single sign-on made another login: %v, was %v", second, first)
	}
	for name, change := range map[string][]string{
		"prompt=login":           {"prompt", "login"},
		"max_age=0":              {"max_age", "0"},
		"max_age over":           {"max_age", "30"},
		"another person awaited": {"claims", `{"id_token":{"sub":{"value":"bob"}}}`},
	} {
		pg := p.get(p.ask(change...))
		if !strings.Contains(pg.body, `name="password"`) {
			t.Errorf("%s: no login page: %d, back to %v", name, pg.status, pg.back)
		}
	}
	p.refused(p.get(p.ask("prompt", "none", "max_age", "30")), "login_required")
	p.code(p.get(p.ask("max_age", "3600")))

	_, third := p.redeem(p.code(p.enter("alice", "prompt", "login")))
	if third["auth_time"] == first["auth_time"] {
		t.Error("auth_time did not move although the password was given again")
	}

	choice := p.get(p.ask("prompt", "select_account"))
	if !strings.Contains(choice.body, "Continue as alice") || !strings.Contains(choice.body, `name="username"`) {
		t.Errorf("nothing to choose from:\n%s", choice.body)
	}
	flow := inputValue.FindStringSubmatch(choice.body[strings.Index(choice.body, `name="flow"`):])[1]
	p.code(p.post(p.idp.at("login"), url.Values{"flow": {flow}, "continue": {"yes"}}))
	_, other := p.redeem(p.code(p.enter("bob", "prompt", "select_account")))
	if other["sub"] != "bob" {
		t.Errorf("chose bob, got %v", other["sub"])
	}

	p.clock.Advance(9 * time.Hour)
	p.refused(p.get(p.ask("prompt", "none")), "login_required")
}

func TestSecondFactor(t *testing.T) {
	const (
		mfa = `{"id_token":{"acr":{"essential":true,"values":["phr","mfa"]}}}`
		phr = `{"id_token":{"acr":{"essential":true,"value":"phr"}}}`
	)
	t.Run("step up keeps the login and changes the cookie", func(t *testing.T) {
		p := meet(t, nil)
		_, before := p.redeem(p.code(p.enter("alice")))
		site, _ := url.Parse(p.idp.Issuer())
		cookie := p.browser.Jar.Cookies(site)[0].Value
		pg := p.get(p.ask("acr_values", "phr mfa"))
		if !strings.Contains(pg.body, `name="otp"`) || !strings.Contains(pg.body, `value="`+DemoCode+`"`) {
			t.Fatalf("no page for the second factor:\n%s", pg.body)
		}
		if wrong := p.submit(pg, map[string]string{"otp": "000000"}); wrong.status != http.StatusUnprocessableEntity {
			t.Errorf("a wrong code: %d", wrong.status)
		}
		_, after := p.redeem(p.code(p.submit(pg, nil))) // the form as it is
		if after["acr"] != "mfa" || fmt.Sprint(after["amr"]) != "[pwd otp mfa]" || after["sid"] != before["sid"] {
			t.Errorf("claims %v", after)
		}
		if p.browser.Jar.Cookies(site)[0].Value == cookie {
			t.Error("the cookie of before the step-up is still in use")
		}
		_, again := p.redeem(p.code(p.get(p.ask("claims", mfa, "prompt", "none"))))
		if again["acr"] != "mfa" {
			t.Errorf("acr %v", again["acr"])
		}
	})
	t.Run("both at once", func(t *testing.T) {
		p := meet(t, nil)
		_, claims := p.redeem(p.code(p.submit(p.enter("alice", "claims", mfa, "prompt", "login"), nil)))
		if claims["acr"] != "mfa" {
			t.Errorf("acr %v", claims["acr"])
		}
	})
	t.Run("the best liked class first", func(t *testing.T) {
		p := meet(t, nil)
		if _, claims := p.redeem(p.code(p.enter("alice", "acr_values", "pwd mfa"))); claims["acr"] != "pwd" {
			t.Errorf("acr %v", claims["acr"])
		}
	})
	t.Run("silently it cannot be done", func(t *testing.T) {
		p := meet(t, nil)
		p.code(p.enter("alice"))
		p.refused(p.get(p.ask("acr_values", "mfa", "prompt", "none")), "interaction_required")
	})
	t.Run("who has none gets pwd if asked nicely", func(t *testing.T) {
		p := meet(t, nil)
		if _, claims := p.redeem(p.code(p.enter("bob", "acr_values", "mfa"))); claims["acr"] != "pwd" {
			t.Errorf("acr %v", claims["acr"])
		}
	})
	t.Run("and an error if it is essential", func(t *testing.T) {
		p := meet(t, nil)
		p.refused(p.enter("bob", "claims", mfa), "unmet_authentication_requirements")
		p.refused(p.enter("alice", "claims", phr, "prompt", "login"), "unmet_authentication_requirements")
	})
	t.Run("a provider that ignores acr", func(t *testing.T) {
		p := meet(t, nil)
		p.idp.Fault(func(f *Faults) { f.IgnoreACR = true })
		if _, claims := p.redeem(p.code(p.enter("alice", "claims", mfa))); claims["acr"] != "pwd" {
			t.Errorf("acr %v", claims["acr"])
		}
	})
}

// Without a registered redirect_uri nobody is redirected anywhere: the provider
// would be an open redirector that hands out codes (RFC 6749 §10.15).
func TestUnregisteredRedirectURIIsAPage(t *testing.T) {
	p := meet(t, nil)
	for name, change := range map[string][]string{
		"unknown client":      {"client_id", "other"},
		"no client":           {"client_id", "-"},
		"none registered":     {"client_id", "shut"},
		"no address":          {"redirect_uri", "-"},
		"another host":        {"redirect_uri", "http://evil.example/callback"},
		"a path more":         {"redirect_uri", callback + "/x"},
		"a query more":        {"redirect_uri", callback + "?x"},
		"a fragment":          {"redirect_uri", callback + "#x"},
		"a script":            {"redirect_uri", "javascript:alert(1)"},
		"userinfo":            {"redirect_uri", "http://app.example@evil.example/callback"},
		"relative":            {"redirect_uri", "/callback"},
		"other upper case":    {"redirect_uri", "http://APP.example/callback"},
		"a CRLF":              {"redirect_uri", callback + "\r\nX: y"},
		"a space at the end":  {"redirect_uri", callback + " "},
		"percent for a plain": {"redirect_uri", "http://app.example/%63allback"},
	} {
		if pg := p.get(p.ask(change...)); pg.status != http.StatusBadRequest || pg.back != nil {
			t.Errorf("%s: %d, back to %v", name, pg.status, pg.back)
		}
	}
	if pg := p.get(p.ask() + "&redirect_uri=http://evil.example/"); pg.status != http.StatusBadRequest || pg.back != nil {
		t.Errorf("twice: %d, back to %v", pg.status, pg.back)
	}
}

func TestBadAuthorizationRequests(t *testing.T) {
	p := meet(t, nil)
	for want, changes := range map[string][][]string{
		"invalid_request": {
			{"code_challenge", "-"}, {"code_challenge_method", "-"}, {"code_challenge_method", "plain"},
			{"code_challenge", "short"}, {"code_challenge", strings.Repeat("=", 43)},
			{"prompt", "none login"}, {"prompt", "create"}, {"max_age", "-1"}, {"max_age", "soon"}, {"max_age", "99999999999"},
			{"claims", "{"}, {"claims", `{"id_token":{"acr":{"values":"mfa"}}}`}, {"id_token_hint", "x.y.z"}, {"response_mode", "fragment"},
		},
		"invalid_scope":             {{"scope", "-"}, {"scope", "profile"}, {"scope", "openidx"}},
		"unsupported_response_type": {{"response_type", "token"}, {"response_type", "code id_token"}, {"response_type", "-"}},
		"request_not_supported":     {{"request", "x"}},
		"request_uri_not_supported": {{"request_uri", "http://app.example/r"}},
	} {
		for _, change := range changes {
			p.refused(p.get(p.ask(change...)), want)
		}
	}
	p.refused(p.get(p.ask()+"&nonce=2"), "invalid_request")
}

func TestWrongPassword(t *testing.T) {
	p := meet(t, nil)
	login := p.get(p.ask("login_hint", "alice"))
	if !strings.Contains(login.body, `name="username" value="alice"`) {
		t.Errorf("login_hint not shown:\n%s", login.body)
	}
	for _, fields := range []map[string]string{
		{"username": "alice", "password": ""}, {"username": "alice", "password": "Demo"},
		{"username": "nobody", "password": ""}, {"username": "", "password": "demo"},
	} {
		pg := p.submit(login, fields)
		if pg.status != http.StatusUnprocessableEntity || !strings.Contains(pg.body, `role="alert"`) || pg.header.Get("Set-Cookie") != "" {
			t.Errorf("%v: %d", fields, pg.status)
		}
	}
	p.code(p.submit(login, map[string]string{"username": "alice", "password": "demo"}))
	if pg := p.submit(login, map[string]string{"username": "alice", "password": "demo"}); pg.status != http.StatusBadRequest {
		t.Errorf("a finished login went on: %d", pg.status)
	}
	slow := p.get(p.ask("prompt", "login"))
	p.clock.Advance(flowLifetime)
	if pg := p.submit(slow, map[string]string{"username": "alice", "password": "demo"}); pg.status != http.StatusBadRequest {
		t.Errorf("an old login went on: %d", pg.status)
	}
}

// A login form that another site fills in and sends would log the visitor in
// as the attacker.
func TestForeignFormsAreRefused(t *testing.T) {
	p := meet(t, nil)
	for _, path := range []string{"login", "otp", "logout/confirm"} {
		req, err := http.NewRequest(http.MethodPost, p.idp.at(path), strings.NewReader("flow=x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		if pg := p.read(p.browser.Do(req)); pg.status != http.StatusForbidden {
			t.Errorf("%s: %d", path, pg.status)
		}
	}
}

// An ID that the attacker planted before the login must not become the session.
func TestSessionFixation(t *testing.T) {
	p := meet(t, nil)
	site, _ := url.Parse(p.idp.Issuer())
	p.browser.Jar.SetCookies(site, []*http.Cookie{{Name: p.idp.cookieName(), Value: "planted", Path: "/"}})
	p.code(p.enter("alice"))
	cookies := p.browser.Jar.Cookies(site)
	if len(cookies) != 1 || cookies[0].Value == "planted" {
		t.Errorf("cookies %v", cookies)
	}
}

func TestSessionCookieIsNotForScripts(t *testing.T) {
	p := meet(t, nil)
	p.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cookie := p.enter("alice").header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Lax", "Path=/"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("%s is missing in %s", want, cookie)
		}
	}
}

// Hostile parameters reach pages only as text.
func TestHostileParametersAreEscaped(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror="alert(2)`
	p := meet(t, func(o *Options) {
		o.Name, o.Hints = hostile, true
		o.Users = append(o.Users, User{Username: hostile, Password: hostile, Groups: []string{hostile}})
		o.Clients[0].PostLogoutURI = func(string) bool { return true }
	})
	login := p.get(p.ask("login_hint", hostile, "state", hostile, "prompt", "login"))
	pages := []page{
		login,
		p.submit(login, map[string]string{"username": hostile, "password": "no"}),
		p.get(p.ask("client_id", hostile)),
		p.get(p.ask("redirect_uri", hostile)),
	}
	p.code(p.submit(login, map[string]string{"username": hostile, "password": hostile}))
	pages = append(pages,
		p.get(p.ask("prompt", "select_account", "login_hint", hostile)),
		p.get(p.idp.at("logout")+"?"+url.Values{
			"client_id": {"app"}, "state": {hostile}, "post_logout_redirect_uri": {"http://app.example/?" + hostile},
		}.Encode()))
	for i, pg := range pages {
		if strings.Contains(pg.body, "<script") || strings.Contains(pg.body, "<img") || !strings.Contains(pg.body, "&lt;script") {
			t.Errorf("page %d lets markup through:\n%s", i, pg.body)
		}
		policy := pg.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("page %d: policy %q", i, policy)
		}
		if !strings.Contains(pg.body, "never enter a real password") {
			t.Errorf("page %d does not say what it is", i)
		}
	}
}

// Two tabs may log in at the same time, and two issuers share no cookie.
func TestTabsAndIssuersAreApart(t *testing.T) {
	p := meet(t, nil)
	tab1, tab2 := p.get(p.ask("state", "one")), p.get(p.ask("state", "two"))
	for want, tab := range map[string]page{"one": tab1, "two": tab2} {
		pg := p.submit(tab, map[string]string{"username": "alice", "password": "demo"})
		if p.code(pg); pg.back.Query().Get("state") != want {
			t.Errorf("tab %s came back as %s", want, pg.back)
		}
	}
	other := meet(t, nil)
	other.browser = p.browser
	other.refused(other.get(other.ask("prompt", "none")), "login_required")
}

func TestIssuerWithAPath(t *testing.T) {
	const address = "http://idp.example"
	p := meet(t, nil)
	idp, err := New(Options{Issuer: address + "/realms/x/", Algorithms: []string{"ES256"}})
	if err != nil {
		t.Fatal(err)
	}
	base, stop, err := idp.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var metadata map[string]any
	if err := json.Unmarshal([]byte(p.get(base+"/realms/x/.well-known/openid-configuration").body), &metadata); err != nil {
		t.Fatal(err)
	}
	if metadata["issuer"] != address+"/realms/x/" || metadata["jwks_uri"] != address+"/realms/x/jwks" {
		t.Errorf("metadata %v", metadata)
	}
}

// A demo that is started again finds its people still logged in.
func TestStateFileOutlivesTheProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "idp.json")
	keep := func(o *Options) { o.StateFile = file }
	p := meet(t, keep)
	token, claims := p.redeem(p.code(p.enter("alice")))
	header := p.idp.Header()

	reborn := meet(t, func(o *Options) { keep(o); o.Issuer = p.idp.Issuer() })
	if got := reborn.idp.Header(); !reflect.DeepEqual(got, header) {
		t.Errorf("signs with %v, before with %v", got, header)
	}
	reborn.idp.mu.Lock()
	defer reborn.idp.mu.Unlock()
	id, _, _ := strings.Cut(token.RefreshToken, ".")
	if g, ok := reborn.idp.state.Grants.get(id, p.clock.Now()); !ok || g.SID != claims["sid"] {
		t.Errorf("the grant is gone: %+v", reborn.idp.state.Grants)
	}
	if len(reborn.idp.state.Sessions) != 1 {
		t.Errorf("sessions %v", reborn.idp.state.Sessions)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, options := range map[string]Options{
		"relative issuer":     {Issuer: "/idp"},
		"issuer with query":   {Issuer: "http://idp.example/?x=1"},
		"client without id":   {Clients: []Client{{}}},
		"client twice":        {Clients: []Client{{ID: "a"}, {ID: "a"}}},
		"user without name":   {Users: []User{{Subject: "x"}}},
		"user twice":          {Users: []User{{Username: "a", Subject: "1"}, {Username: "a", Subject: "2"}}},
		"subject twice":       {Users: []User{{Username: "a", Subject: "1"}, {Username: "b", Subject: "1"}}},
		"algorithm none":      {Algorithms: []string{"none"}},
		"state file is a dir": {StateFile: t.TempDir(), Algorithms: []string{"ES256"}},
	} {
		if _, err := New(options); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
