package authn

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// RFC 9207: the answer names who it is from, and that is who was asked.
func TestMixUp(t *testing.T) {
	for name, fault := range map[string]func(*testidp.Faults){
		"another issuer":     func(f *testidp.Faults) { f.CallbackIssuer = "https://partners.test" },
		"almost the issuer":  func(f *testidp.Faults) { f.CallbackIssuer = "https://corp.test/" },
		"announced, missing": func(f *testidp.Faults) { f.OmitCallbackIssuer = true },
	} {
		s := world(t, withTwoProviders)
		s.provider = "corp"
		b := s.browser()
		v := b.get(app + "/x")
		s.corp.Fault(fault)
		b.password(v, "alice").refused(t, access.LoginMixUp)
		if n := s.corp.Requests(testidp.Token) + s.partners.Requests(testidp.Token); n != 0 {
			t.Errorf("%s: the code was sent to a token endpoint", name)
		}
		s.wantReasons(access.LoginMixUp)
	}
}

// The attack itself: the visitor begins with one provider, the answer of another
// arrives. The code of the honest one must not reach the other's token endpoint.
func TestAnswerOfOneProviderToALoginWithAnother(t *testing.T) {
	s := world(t, withTwoProviders)
	b := s.browser()
	s.provider = "partners"
	begun, _ := url.Parse(b.getUntil(app+"/x", "partners.test/authorize"))
	s.provider = "corp"
	honest, _ := url.Parse(b.callback(app+"/y", "alice"))
	q := honest.Query()
	q.Set("state", begun.Query().Get("state"))
	b.get(app+access.CallbackPath+"?"+q.Encode()).refused(t, access.LoginMixUp)
	if s.partners.Requests(testidp.Token) != 0 {
		t.Error("the code of corp was sent to partners")
	}
}

// RFC 9700 §4.4 from end to end, between providers that do not name themselves.
// partners leads a visitor on to corp, gets corp's code from us, and brings it
// back in a login of its own.
func TestMixUpBetweenProvidersThatDoNotNameThemselves(t *testing.T) {
	s := world(t, withTwoProviders)
	for _, p := range []*testidp.Provider{s.corp, s.partners} {
		p.Fault(func(f *testidp.Faults) {
			f.OmitCallbackIssuer = true
			f.MutateDiscovery = func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") }
		})
	}
	evil, visitor := s.browser(), s.browser()
	s.provider = "partners"
	begun, _ := url.Parse(visitor.getUntil(app+"/", "partners.test/authorize"))
	s.provider = "corp"
	forged, _ := url.Parse(evil.getUntil(app+"/", "corp.test/authorize"))
	state := forged.Query().Get("state")
	q := forged.Query()
	q.Set("state", begun.Query().Get("state"))
	forged.RawQuery = q.Encode()
	visitor.stop = access.CallbackPath
	answer, err := visitor.password(visitor.get(forged.String()), "alice").Location()
	if err != nil {
		t.Fatal(err)
	}
	visitor.stop = ""
	visitor.get(answer.String()).refused(t, access.LoginFailed)
	if s.partners.Requests(testidp.Token) != 1 {
		t.Fatal("the code did not reach partners")
	}
	stolen := url.Values{"code": answer.Query()["code"], "state": {state}, "iss": {"https://corp.test"}}
	evil.get(app+access.CallbackPath+"?"+stolen.Encode()).refused(t, access.LoginMixUp)
}

func TestMixUpIsCheckedOnErrorsToo(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	begun, _ := url.Parse(b.getUntil(app+"/x", "corp.test/authorize"))
	q := url.Values{"error": {"access_denied"}, "state": {begun.Query().Get("state")}, "iss": {"https://evil.example"}}
	b.get(app+access.CallbackPath+"?"+q.Encode()).refused(t, access.LoginMixUp)
}

func TestProviderRefusals(t *testing.T) {
	s := world(t, nil)
	for code, want := range map[string]access.Reason{
		"access_denied": access.LoginRefused, "login_required": access.LoginRefused, "interaction_required": access.LoginRefused,
		"unmet_authentication_requirements": access.StepUpFailed, "temporarily_unavailable": access.ProviderUnavailable,
		"server_error": access.ProviderUnavailable, "invalid_request": access.LoginFailed, "<script>": access.LoginFailed, "": access.LoginFailed,
	} {
		b := s.browser()
		begun, _ := url.Parse(b.getUntil(app+"/x", "corp.test/authorize"))
		q := url.Values{"error": {code}, "state": {begun.Query().Get("state")}, "iss": {"https://corp.test"}}
		b.get(app+access.CallbackPath+"?"+q.Encode()).refused(t, want)
	}
}

func TestMalformedCallbacks(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	good := b.callback(app+"/x", "alice")
	b.get(good+"&code=second").refused(t, access.LoginFailed)
	b.get(app+access.CallbackPath+"?state=%zz").refused(t, access.BadRequest)
	r, _ := http.NewRequest(http.MethodPost, good, nil)
	b.do(r).refused(t, access.BadRequest)
	b.get(good).want(t, "hello") // none of it used the login up
}

// Whatever is wrong with the ID token, nobody is logged in, one event tells why,
// and the browser gets no session.
func TestBadIDTokensLogNobodyIn(t *testing.T) {
	for name, mutate := range badClaims() {
		t.Run(name, func(t *testing.T) {
			s := world(t, nil)
			b := s.browser()
			v := b.get(app + "/x")
			s.corp.Fault(func(f *testidp.Faults) { f.MutateIDToken = mutate })
			b.password(v, "alice").refused(t, access.LoginFailed)
			if b.cookies(app)[CookieName("https")] != "" {
				t.Error("a session began")
			}
			s.wantReasons(access.LoginFailed)
			s.corp.Heal()
			b.get(app+"/x").want(t, "hello corp:alice") // and the next login works
		})
	}
}

// badClaims are changes to a good ID token that are expressible as JSON objects.
func badClaims() map[string]func(header, claims map[string]any) {
	set := func(name string, value any) func(_, claims map[string]any) {
		return func(_, claims map[string]any) { claims[name] = value }
	}
	without := func(name string) func(_, claims map[string]any) {
		return func(_, claims map[string]any) { delete(claims, name) }
	}
	return map[string]func(header, claims map[string]any){
		"no nonce":                   without("nonce"),
		"another nonce":              set("nonce", "n"),
		"no sub":                     without("sub"),
		"no exp":                     without("exp"),
		"no iat":                     without("iat"),
		"no iss":                     without("iss"),
		"no aud":                     without("aud"),
		"another issuer":             set("iss", "https://partners.test"),
		"another audience":           set("aud", "wiki"),
		"a foreign azp":              set("azp", "wiki"),
		"the hash of another token":  set("at_hash", "AAAA"),
		"a token for back channels":  set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}),
		"two audiences without azp":  set("aud", []string{"wiki", "doorward"}),
		"two audiences, foreign azp": func(_, c map[string]any) { c["aud"], c["azp"] = []string{"wiki", "doorward"}, "wiki" },
	}
}

func TestCanceledTokenEndpoints(t *testing.T) {
	for name, c := range map[string]struct {
		answer testidp.Answer
		want   access.Reason
	}{
		"refused":     {testidp.Fails(400, "invalid_grant"), access.LoginFailed},
		"no client":   {testidp.Fails(401, "invalid_client"), access.LoginFailed},
		"down":        {testidp.Fails(503, "temporarily_unavailable"), access.ProviderUnavailable},
		"not JSON":    {testidp.NotJSON(), access.ProviderUnavailable},
		"huge":        {testidp.Huge(), access.ProviderUnavailable},
		"no ID token": {testidp.Answer{Body: `{"access_token":"a","token_type":"Bearer"}`}, access.LoginFailed},
		"ID token is a number": {
			testidp.Answer{Body: `{"access_token":"a","token_type":"Bearer","id_token":7}`}, access.LoginFailed},
		"foreign token type": {
			testidp.Answer{Body: `{"access_token":"a","token_type":"DPoP","id_token":"x"}`}, access.LoginFailed},
		"redirected": {testidp.Answer{Status: 307, Header: http.Header{"Location": {"https://evil.example/"}}}, access.ProviderUnavailable},
	} {
		s := world(t, nil)
		b := s.browser()
		v := b.get(app + "/x")
		s.corp.Fault(func(f *testidp.Faults) { f.Answers[testidp.Token] = c.answer })
		v = b.password(v, "alice")
		if want := "refused: " + string(c.want); v.body != want {
			t.Errorf("%s: %s, want %s", name, v.body, want)
		}
	}
}

func TestIdentityIsWhatTheProviderSaid(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	entry, err := s.sessions.Load(t.Context(), b.cookies(app)[CookieName("https")], app, s.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := entry.Identity
	if id.Provider != "corp" || id.Issuer != "https://corp.test" || id.Subject != "alice" || id.Username != "alice" ||
		id.Email == "" || !id.EmailVerified || id.Name == "" || id.GroupsIncomplete ||
		!slices.Equal(id.Groups, []string{"eng", "finance"}) || id.Login.Time.IsZero() || id.Login.ACR != "pwd" {
		t.Errorf("%+v", id)
	}
	if got := slices.Sorted(maps.Keys(id.Claims)); !slices.Equal(got, []string{"deviceid"}) {
		t.Errorf("claims %v", got)
	}
}

func TestGroupsOfAnUntrustedProviderDoNotCount(t *testing.T) {
	s := world(t, withTwoProviders)
	s.provider = "partners"
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello partners:alice")
	entry, err := s.sessions.Load(t.Context(), b.cookies(app)[CookieName("https")], app, s.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if id := entry.Identity; id.Groups != nil || id.GroupsIncomplete || id.Claims["groups"] != nil {
		t.Errorf("%+v", id)
	}
	s.partners.Fault(func(f *testidp.Faults) {
		f.MutateIDToken = func(_, claims map[string]any) { delete(claims, "groups") }
	})
	s.browser().enter(app+"/", "alice").want(t, "hello partners:alice")
	if n := s.partners.Requests(testidp.Userinfo); n != 0 {
		t.Errorf("userinfo was asked %d times for groups that do not count", n)
	}
}

func TestGroupOverageIsNoticed(t *testing.T) {
	s := world(t, nil)
	s.corp.Fault(func(f *testidp.Faults) { f.GroupOverage = true })
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello")
	entry, err := s.sessions.Load(t.Context(), b.cookies(app)[CookieName("https")], app, s.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if id := entry.Identity; !id.GroupsIncomplete || id.Groups != nil {
		t.Errorf("%+v", id)
	}
}

func TestUserinfoFillsInWhatIsMissing(t *testing.T) {
	strip := func(_, claims map[string]any) {
		for _, name := range []string{"groups", "email", "email_verified"} {
			delete(claims, name)
		}
	}
	for name, c := range map[string]struct {
		answer     *testidp.Answer
		groups     []string
		email      bool
		incomplete bool
	}{
		"good":           {nil, []string{"eng", "finance"}, true, false},
		"another person": {&testidp.Answer{Body: `{"sub":"bob","groups":["root"],"email":"bob@corp.example"}`}, nil, false, true},
		"no person":      {&testidp.Answer{Body: `{"groups":["root"]}`}, nil, false, true},
		"down":           {new(testidp.Fails(503, "x")), nil, false, true},
		"acr and iss":    {&testidp.Answer{Body: `{"sub":"alice","acr":"phrh","auth_time":9999999999,"iss":"x","groups":["eng"]}`}, []string{"eng"}, false, false},
	} {
		s := world(t, nil)
		b := s.browser()
		s.corp.Fault(func(f *testidp.Faults) {
			f.MutateIDToken = strip
			if c.answer != nil {
				f.Answers[testidp.Userinfo] = *c.answer
			}
		})
		b.enter(app+"/", "alice").want(t, "hello")
		entry, err := s.sessions.Load(t.Context(), b.cookies(app)[CookieName("https")], app, s.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		id := entry.Identity
		if !slices.Equal(id.Groups, c.groups) || (id.Email != "") != c.email || id.GroupsIncomplete != c.incomplete || id.Login.ACR != "pwd" {
			t.Errorf("%s: %+v", name, id)
		}
		if s.corp.Requests(testidp.Userinfo) != 1 {
			t.Errorf("%s: userinfo was asked %d times", name, s.corp.Requests(testidp.Userinfo))
		}
	}
}

func TestProviderThatNamesNoIssuerStillWorks(t *testing.T) {
	s := world(t, nil)
	s.corp.Fault(func(f *testidp.Faults) {
		f.OmitCallbackIssuer = true
		f.MutateDiscovery = func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") }
	})
	s.browser().enter(app+"/x", "alice").want(t, "hello corp:alice")
}

func TestProviderRemovedDuringALogin(t *testing.T) {
	s := world(t, withTwoProviders)
	s.provider = "partners"
	b, late := s.browser(), s.browser()
	inTime := b.callback(app+"/x", "alice")
	tooLate := late.callback(app+"/x", "alice")
	s.provider = ""
	s.options.Providers = s.options.Providers[:1]
	s.reload()
	b.get(inTime).refused(t, access.LoginFailed)
	// A login that has to begin again does so with a provider there is.
	late.setCookie(app, LoginCookieName("https"), "")
	late.getUntil(tooLate, "corp.test/authorize")
}

func TestStepUpRefusedByTheProvider(t *testing.T) {
	s := world(t, nil)
	s.ask = access.LoginRequire{ACR: []string{"mfa"}}
	for code, want := range map[string]access.Reason{"interaction_required": access.StepUpFailed, "access_denied": access.LoginRefused} {
		b := s.browser()
		begun, _ := url.Parse(b.getUntil(app+"/x", "corp.test/authorize"))
		q := url.Values{"error": {code}, "state": {begun.Query().Get("state")}, "iss": {"https://corp.test"}}
		b.get(app+access.CallbackPath+"?"+q.Encode()).refused(t, want)
	}
}

func TestUnreadableKeysAreTheProvidersFault(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	v := b.get(app + "/x")
	s.corp.Fault(func(f *testidp.Faults) { f.Answers[testidp.JWKS] = testidp.EmptyKeys() })
	b.password(v, "alice").refused(t, access.ProviderUnavailable)
	s.wantReasons(access.ProviderUnavailable)
}

func TestCallbackWithNeitherCodeNorError(t *testing.T) {
	s := world(t, nil)
	b := s.browser()
	begun, _ := url.Parse(b.getUntil(app+"/x", "corp.test/authorize"))
	q := url.Values{"state": {begun.Query().Get("state")}, "iss": {"https://corp.test"}}
	b.get(app+access.CallbackPath+"?"+q.Encode()).refused(t, access.LoginFailed)
	if s.corp.Requests(testidp.Token) != 0 {
		t.Error("the token endpoint was asked")
	}
}
