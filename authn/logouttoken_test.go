package authn

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/testidp"
)

// Every rule of OpenID Connect Back-Channel Logout 1.0 §2.6, one broken at a
// time. Nothing of it ends a session.
func TestLogoutTokenRules(t *testing.T) {
	s := backChannelWorld(t, func(o *Options) { withLoginHost(o); withTwoProviders(o) })
	s.provider = "corp"
	alice, sid := s.sidOf("alice")
	s.logouts()
	now := s.clock.Now().Unix()
	signed := func(p *testidp.Provider, change func(header, claims map[string]any)) string {
		t.Helper()
		header, claims := s.corp.Header(), s.corp.LogoutClaims("doorward", "alice", sid)
		header["typ"] = "logout+jwt"
		if change != nil {
			change(header, claims)
		}
		token, err := p.Sign(header, claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	set := func(name string, value any) string {
		return signed(s.corp, func(_, claims map[string]any) { claims[name] = value })
	}
	without := func(name string) string {
		return signed(s.corp, func(_, claims map[string]any) { delete(claims, name) })
	}
	head := func(name string, value any) string {
		return signed(s.corp, func(header, _ map[string]any) { header[name] = value })
	}
	event := func(value any) map[string]any { return map[string]any{testidp.LogoutEvent: value} }
	lawful := signed(s.corp, nil)
	parts := strings.Split(lawful, ".")

	refused := map[string]string{
		"not a token":                  "hello",
		"two parts":                    parts[0] + "." + parts[1],
		"another key":                  signed(s.partners, nil),
		"another key, unknown kid":     signed(s.partners, func(header, _ map[string]any) { header["kid"] = "unknown" }),
		"changed payload":              parts[0] + "." + strings.Split(set("sub", "bob"), ".")[1] + "." + parts[2],
		"no signature":                 parts[0] + "." + parts[1] + ".",
		"alg none":                     unsigned(t, parts[1], "none", nil),
		"HS256 with the public key":    unsigned(t, parts[1], "HS256", s.corp),
		"payload encoded twice":        parts[0] + "." + parts[1] + "=." + parts[2],
		"crit":                         head("crit", []string{"exp"}),
		"a key of its own":             head("jwk", map[string]string{"kty": "EC"}),
		"jku":                          head("jku", "https://evil.example/keys"),
		"typ of an access token":       head("typ", "at+jwt"),
		"typ of a security event":      head("typ", "secevent+jwt"),
		"typ no string":                head("typ", 1),
		"no iss":                       without("iss"),
		"another issuer":               set("iss", "https://evil.example"),
		"the other provider":           set("iss", "https://partners.test"),
		"the issuer and a slash":       set("iss", "https://corp.test/"),
		"iss a list":                   set("iss", []string{"https://corp.test"}),
		"no aud":                       without("aud"),
		"aud empty":                    set("aud", []string{}),
		"for another client":           set("aud", "dw"),
		"for others, too":              set("aud", []string{"doorward", "dw"}),
		"of another authorized party":  signed(s.corp, func(_, c map[string]any) { c["aud"] = []string{"doorward", "dw"}; c["azp"] = "dw" }),
		"no iat":                       without("iat"),
		"iat in the future":            set("iat", now+3600),
		"iat in a string":              set("iat", "1"),
		"no exp":                       without("exp"),
		"expired":                      set("exp", now-61),
		"exp in a string":              set("exp", "99999999999"),
		"issued two days ago":          signed(s.corp, func(_, c map[string]any) { c["iat"], c["exp"] = now-2*86400, now+1e9 }),
		"not valid yet":                set("nbf", now+3600),
		"no jti":                       without("jti"),
		"jti empty":                    set("jti", ""),
		"jti a number":                 set("jti", 7),
		"jti too long":                 set("jti", strings.Repeat("x", maxJTI+1)),
		"no events":                    without("events"),
		"events a list":                set("events", []string{testidp.LogoutEvent}),
		"events a string":              set("events", testidp.LogoutEvent),
		"no event":                     set("events", map[string]any{}),
		"another event":                set("events", map[string]any{"https://schemas.openid.net/secevent/risc/event-type/account-disabled": map[string]any{}}),
		"the event in capitals":        set("events", map[string]any{strings.ToUpper(testidp.LogoutEvent): map[string]any{}}),
		"the event true":               set("events", event(true)),
		"the event null":               set("events", event(nil)),
		"the event a list":             set("events", event([]string{})),
		"a nonce":                      set("nonce", "n"),
		"an empty nonce":               set("nonce", ""),
		"a nonce that is null":         set("nonce", nil),
		"neither sub nor sid":          signed(s.corp, func(_, c map[string]any) { delete(c, "sub"); delete(c, "sid") }),
		"sub empty":                    set("sub", ""),
		"sid empty":                    set("sid", ""),
		"sub a list":                   set("sub", []string{"alice"}),
		"sid a number":                 set("sid", 1),
		"an ID token":                  signed(s.corp, func(h, c map[string]any) { h["typ"] = "JWT"; delete(c, "events"); c["nonce"] = "n" }),
		"an ID token without a nonce":  signed(s.corp, func(h, c map[string]any) { h["typ"] = "JWT"; delete(c, "events") }),
		"an ID token as it was issued": s.aliceIDToken(),
	}
	s.logouts()
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		if code := s.deliver(refused[name]); code != http.StatusBadRequest {
			t.Errorf("%s: answered %d", name, code)
		}
		if got := s.logouts(); !slices.Equal(got, []access.Reason{access.LogoutTokenInvalid}) {
			t.Errorf("%s: events %v", name, got)
		}
	}
	alice.wantLoggedIn(true, app+"/", wiki+"/")

	accepted := map[string]string{
		"typ logout+jwt":              lawful,
		"typ in capitals":             head("typ", "LOGOUT+JWT"),
		"typ JWT":                     head("typ", "JWT"),
		"no typ":                      signed(s.corp, func(h, _ map[string]any) { delete(h, "typ") }),
		"aud a list":                  set("aud", []string{"doorward"}),
		"we the authorized party":     signed(s.corp, func(_, c map[string]any) { c["aud"] = []string{"dw", "doorward"}; c["azp"] = "doorward" }),
		"only sid":                    without("sub"),
		"only sub":                    without("sid"),
		"expired within the skew":     set("exp", now-30),
		"an event with members":       set("events", event(map[string]any{"reason": "test"})),
		"with another event":          set("events", map[string]any{testidp.LogoutEvent: map[string]any{}, "https://example.com/x": true}),
		"with other claims":           set("trace_id", "x"),
		"valid for longer than a day": set("exp", now+1e6),
	}
	for _, name := range slices.Sorted(maps.Keys(accepted)) {
		if code := s.deliver(accepted[name]); code != http.StatusOK {
			t.Errorf("%s: answered %d", name, code)
		}
		if got := s.logouts(); !slices.Equal(got, []access.Reason{access.SessionEnded}) {
			t.Errorf("%s: events %v", name, got)
		}
		if code := s.deliver(accepted[name]); code != http.StatusBadRequest {
			t.Errorf("%s, repeated: answered %d", name, code)
		}
		if got := s.logouts(); !slices.Equal(got, []access.Reason{access.LogoutTokenRepeated}) {
			t.Errorf("%s, repeated: events %v", name, got)
		}
	}
	alice.wantLoggedIn(false, app+"/", wiki+"/")
}

// aliceIDToken returns an ID token as corp issues it.
func (s *stage) aliceIDToken() (raw string) {
	s.Helper()
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateTokens = func(answer map[string]any) { raw, _ = answer["id_token"].(string) }
	})
	s.browser().enter(app+"/", "alice").want(s.T, "hello")
	s.corp.Fault(func(f *testidp.Faults) { f.MutateTokens = nil })
	return raw
}

// unsigned returns a token with a header of its own and no signature of a
// provider's; with p it is signed as if p's public key were a shared secret.
func unsigned(t *testing.T, payload, alg string, p *testidp.Provider) string {
	t.Helper()
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"`+alg+`","typ":"logout+jwt"}`)) + "." + payload
	if p == nil {
		return token + "."
	}
	der, err := x509.MarshalPKIXPublicKey(p.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	mac.Write([]byte(token))
	return token + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Whatever is sent, the answer is 400 in the prescribed form, unless it holds
// the one token that the provider signed.
func FuzzBackChannelLogout(f *testing.F) {
	clock := newClock()
	memory := store.NewMemory(clock.Now)
	f.Cleanup(func() { memory.Close() })
	sessions, err := session.New(session.Options{Store: memory, Now: clock.Now})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { sessions.Close() })
	corp, err := testidp.New(testidp.Options{
		Issuer: "https://corp.test", Algorithms: []string{"ES256"}, Now: clock.Now, Clients: []testidp.Client{{ID: "doorward", Secret: "s"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	auth, err := New(Options{
		Providers: []Provider{corpProvider()}, Owns: func(string) bool { return true }, Sessions: sessions,
		Transport: network{"corp.test": corp}, FlowKey: make([]byte, 32), Now: clock.Now,
	})
	if err != nil {
		f.Fatal(err)
	}
	token, err := corp.LogoutToken("doorward", "alice", "sid")
	if err != nil {
		f.Fatal(err)
	}
	foreign, err := corp.LogoutToken("other", "alice", "sid")
	if err != nil {
		f.Fatal(err)
	}
	for _, body := range []string{
		"logout_token=" + token, "logout_token=" + foreign, "logout_token=" + token + "&logout_token=" + token, "logout_token=a.b.c",
		"logout_token=" + token[:len(token)-1], "x=%00&logout_token=" + strings.Replace(token, ".", "%2E", 1), "logout_token=e30.e30.", "", "=", "&;&",
		"logout_token=eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2NvcnAudGVzdCJ9.", "logout_token=eyJhbGciOiJFUzI1NiJ9.W10.AA",
	} {
		f.Add(formType, body)
	}
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r := httptest.NewRequest(http.MethodPost, "https://app.test"+access.BackChannelPath, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		rec := httptest.NewRecorder()
		req := &access.Request{Scheme: "https", Host: "app.test", Path: access.BackChannelPath, Time: clock.Now()}
		if err := auth.Serve(rec, r, req); err != nil {
			t.Fatal(err)
		}
		form, _ := url.ParseQuery(body)
		switch {
		case rec.Code == http.StatusOK && slices.Equal(form["logout_token"], []string{token}):
		case rec.Code == http.StatusBadRequest && json.Valid(rec.Body.Bytes()):
		default:
			t.Errorf("%q %q: %d %s", contentType, body, rec.Code, rec.Body)
		}
	})
}
