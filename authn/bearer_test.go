package authn

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/testidp"
)

// withTokens lets the provider corp send access tokens.
func withTokens(o *Options) {
	o.Providers[0].Audiences = []string{"https://app.corp.test", "doorward-api"}
}

// accessClaims are those of a good access token of a machine.
func (s *stage) accessClaims() map[string]any {
	now := s.clock.Now().Unix()
	return map[string]any{
		"iss": "https://corp.test", "sub": "batch", "client_id": "batch", "aud": "doorward-api", "jti": "1",
		"iat": now, "exp": now + 600, "scope": "orders.write orders.read",
	}
}

// accessToken signs a good access token after a change.
func (s *stage) accessToken(change func(header, claims map[string]any)) string {
	s.Helper()
	header, claims := s.corp.Header(), s.accessClaims()
	header["typ"] = "at+jwt"
	if change != nil {
		change(header, claims)
	}
	raw, err := s.corp.Sign(header, claims)
	if err != nil {
		s.Fatal(err)
	}
	return raw
}

// present makes a request with an Authorization header and tells who it is.
func (s *stage) present(authorization string, change func(*http.Request)) *access.Request {
	s.Helper()
	r := httptest.NewRequest(http.MethodGet, app+"/orders?x=1", nil)
	r.TLS = nil
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	if change != nil {
		change(r)
	}
	req := &access.Request{ID: "r", Time: s.clock.Now(), Method: r.Method, Scheme: "https", Host: "app.corp.test", Path: "/orders"}
	if err := s.auth.Identify(r, req); err != nil {
		s.Fatal(err)
	}
	if (req.Credential.Problem != "") && !req.Identity.Nobody() {
		s.Errorf("%+v is somebody and refused", req)
	}
	return req
}

// refuses wants a token to be nobody's, for a reason.
func (s *stage) refuses(raw string, want access.Reason) {
	s.Helper()
	if req := s.present("Bearer "+raw, nil); req.Credential.Problem != want || !req.Identity.Nobody() {
		s.Errorf("%s: got %q, want %q", req.Identity.User(), req.Credential.Problem, want)
	}
}

func TestAccessTokenOfAMachine(t *testing.T) {
	s := world(t, withTokens)
	req := s.present("bearer "+s.accessToken(nil), nil)
	id := req.Identity
	if id.User() != "corp:batch" || id.Kind != access.Service || id.ClientID != "batch" || !slices.Equal(id.Scopes, []string{"orders.read", "orders.write"}) {
		t.Fatalf("%+v, %q", id, req.Credential.Problem)
	}
	if req.Credential.Scheme != "Bearer" || !req.Credential.Expires.Equal(s.clock.Now().Add(10*time.Minute)) {
		t.Errorf("%+v", req.Credential)
	}
	if _, ok := id.Claims["scope"]; ok || len(id.Login.Levels) > 0 {
		t.Errorf("%+v", id)
	}
}

// A header that is for the application is none of ours, whatever is in it.
func TestWhichTokensAreRead(t *testing.T) {
	for authorization, want := range map[string]bool{"": false, "Basic YTpi": false, "Bearer x": true, "dpop x": true} {
		r := httptest.NewRequest(http.MethodGet, app+"/", nil)
		r.Header.Set("Authorization", authorization)
		if world(t, withTokens).auth.ReadsToken(r) != want {
			t.Errorf("%q is read: %v", authorization, !want)
		}
		if world(t, nil).auth.ReadsToken(r) {
			t.Errorf("%q is read, though no provider sends tokens", authorization)
		}
	}
}

func TestAccessTokenOfAPerson(t *testing.T) {
	s := world(t, withTokens)
	person := func(header, claims map[string]any) {
		claims["sub"], claims["auth_time"], claims["groups"] = "alice", s.clock.Now().Unix()-5, []string{"ops", "eng"}
		claims["email"], claims["Email"] = "alice@example.com", "root@example.com"
	}
	id := s.present("Bearer "+s.accessToken(person), nil).Identity
	if id.Kind != access.Person || id.User() != "corp:alice" || !slices.Equal(id.Groups, []string{"eng", "ops"}) || id.Email != "alice@example.com" {
		t.Errorf("%+v", id)
	}
	for name, change := range map[string]func(claims map[string]any){
		"no login is told":       func(c map[string]any) { delete(c, "auth_time") },
		"the client itself":      func(c map[string]any) { c["sub"] = "batch" },
		"an application (Entra)": func(c map[string]any) { c["idtyp"] = "app" },
		"an account of Keycloak": func(c map[string]any) { c["preferred_username"] = "service-account-batch" },
	} {
		raw := s.accessToken(func(h, c map[string]any) { person(h, c); change(c) })
		if id := s.present("Bearer "+raw, nil).Identity; id.Kind != access.Service {
			t.Errorf("%s is taken for a person: %+v", name, id)
		}
	}
}

// Some providers never say when a person logged in; then it is the client that
// tells, but not where the token is about the client itself.
func TestAccessTokenOfALoginClient(t *testing.T) {
	s := world(t, func(o *Options) { withTokens(o); o.Providers[0].LoginClients = []string{"cli"} })
	for sub, want := range map[string]access.Kind{"alice": access.Person, "cli": access.Service} {
		raw := s.accessToken(func(_, c map[string]any) { c["sub"], c["client_id"] = sub, "cli" })
		if id := s.present("Bearer "+raw, nil).Identity; id.Kind != want || id.Subject != sub {
			t.Errorf("%s: %+v", sub, id)
		}
	}
}

// Every kind of bad token is refused for what is wrong with it. The rows of the
// table of what libraries accept are among them.
func TestBadAccessTokens(t *testing.T) {
	s := world(t, withTokens)
	now := s.clock.Now().Unix()
	set := func(name string, value any) func(h, c map[string]any) {
		return func(_, c map[string]any) { c[name] = value }
	}
	head := func(name string, value any) func(h, c map[string]any) {
		return func(h, _ map[string]any) { h[name] = value }
	}
	without := func(name string) func(h, c map[string]any) {
		return func(_, c map[string]any) { delete(c, name) }
	}
	for name, c := range map[string]struct {
		change func(header, claims map[string]any)
		want   access.Reason
	}{
		"no exp":                    {without("exp"), access.TokenInvalid},
		"exp as string":             {set("exp", "9999999999"), access.TokenInvalid},
		"exp null":                  {set("exp", nil), access.TokenInvalid},
		"expired":                   {set("exp", now-1), access.TokenExpired},
		"expires now":               {set("exp", now), access.TokenExpired},
		"iat tomorrow":              {set("iat", now+86400), access.TokenInvalid},
		"no iat":                    {without("iat"), access.TokenInvalid},
		"nbf in 4 minutes":          {set("nbf", now+240), access.TokenInvalid},
		"no sub":                    {without("sub"), access.TokenInvalid},
		"sub is a number":           {set("sub", 7), access.TokenInvalid},
		"no client_id":              {without("client_id"), access.TokenInvalid},
		"no jti":                    {without("jti"), access.TokenInvalid},
		"no aud":                    {without("aud"), access.TokenAudience},
		"other aud":                 {set("aud", []string{"other", "doorward-api2"}), access.TokenAudience},
		"aud of the client itself":  {set("aud", "doorward"), access.TokenAudience},
		"AUD ours":                  {func(_, c map[string]any) { c["aud"], c["AUD"] = "x", "doorward-api" }, access.TokenAudience},
		"aud is an object":          {set("aud", map[string]any{"doorward-api": true}), access.TokenInvalid},
		"ISS ours":                  {func(_, c map[string]any) { c["iss"], c["ISS"] = "https://evil.test", "https://corp.test" }, access.TokenInvalid},
		"EXP in the future":         {func(_, c map[string]any) { c["exp"], c["EXP"] = now-10, now+10 }, access.TokenExpired},
		"a member twice":            {set("x", json.RawMessage(`{"a":1,"a":2}`)), access.TokenInvalid},
		"other issuer":              {set("iss", "https://corp.test/"), access.TokenInvalid},
		"unknown crit":              {head("crit", []string{"x"}), access.TokenInvalid},
		"b64 false":                 {head("b64", false), access.TokenInvalid},
		"embedded jwk":              {head("jwk", map[string]any{"kty": "EC"}), access.TokenInvalid},
		"jku":                       {head("jku", "https://evil.test/jwks"), access.TokenInvalid},
		"kid path":                  {head("kid", "../../etc/passwd"), access.TokenInvalid},
		"typ JWT":                   {head("typ", "JWT"), access.TokenNotAccessToken},
		"no typ":                    {func(h, _ map[string]any) { delete(h, "typ") }, access.TokenNotAccessToken},
		"logout token":              {head("typ", "logout+jwt"), access.TokenNotAccessToken},
		"proof":                     {head("typ", "dpop+jwt"), access.TokenNotAccessToken},
		"typ is a list":             {head("typ", []string{"at+jwt"}), access.TokenInvalid},
		"event with our typ":        {set("events", map[string]any{}), access.TokenNotAccessToken},
		"ID token with our typ":     {set("at_hash", "x"), access.TokenNotAccessToken},
		"nonce":                     {set("nonce", "x"), access.TokenNotAccessToken},
		"scope is a list":           {set("scope", []string{"a"}), access.TokenInvalid},
		"cnf is not understood":     {set("cnf", map[string]any{"kid": "1"}), access.TokenBindingMismatch},
		"cnf empty":                 {set("cnf", map[string]any{}), access.TokenBindingMismatch},
		"cnf a string":              {set("cnf", "x"), access.TokenBindingMismatch},
		"cnf null":                  {set("cnf", nil), access.TokenBindingMismatch},
		"login in the future":       {set("auth_time", now+3600), access.TokenInvalid},
		"application/ of something": {head("typ", "application/jwt"), access.TokenNotAccessToken},
	} {
		t.Run(name, func(t *testing.T) {
			raw := s.accessToken(c.change)
			for range 2 { // also when it is known
				s.refuses(raw, c.want)
			}
		})
	}
	if req := s.present("Bearer "+s.accessToken(head("typ", "application/at+jwt")), nil); req.Identity.Nobody() {
		t.Errorf("RFC 9068 allows the long form: %q", req.Credential.Problem)
	}
}

func TestForgedAccessTokens(t *testing.T) {
	s := world(t, func(o *Options) { withTokens(o); withTwoProviders(o) })
	good := strings.Split(s.accessToken(nil), ".")
	part := func(v any) string {
		text, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	header := map[string]any{"typ": "at+jwt", "kid": s.corp.Header()["kid"]}
	with := func(alg string) string {
		h := maps.Clone(header)
		h["alg"] = alg
		return part(h)
	}
	foreign, err := s.partners.Sign(func() map[string]any { h := s.partners.Header(); h["typ"] = "at+jwt"; return h }(), s.accessClaims())
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{
		"none":                with("none") + "." + good[1] + ".",
		"none with signature": with("none") + "." + good[1] + "." + good[2],
		"HS256":               with("HS256") + "." + good[1] + "." + good[2],
		"other payload":       good[0] + "." + part(s.accessClaims()) + "x." + good[2],
		"other signature":     good[0] + "." + good[1] + "." + strings.Repeat("A", len(good[2])),
		"no signature":        good[0] + "." + good[1] + ".",
		"another's signature": foreign,
		"opaque":              "abcdef",
		"not base64":          "a.b.c",
		"four parts":          strings.Join(good, ".") + ".x",
		"huge":                strings.Repeat("a", maxAccessToken+1),
	} {
		t.Run(name, func(t *testing.T) { s.refuses(raw, access.TokenInvalid) })
	}
	// partners lists no audiences: none of its tokens count, whatever they say.
	h := s.partners.Header()
	h["typ"] = "at+jwt"
	claims := s.accessClaims()
	claims["iss"] = "https://partners.test"
	raw, err := s.partners.Sign(h, claims)
	if err != nil {
		t.Fatal(err)
	}
	s.refuses(raw, access.TokenInvalid)
}

// A token decides, also against a session; without one the session does.
func TestTokenBeforeCookie(t *testing.T) {
	s := world(t, withTokens)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello corp:alice")
	cookie := func(r *http.Request) {
		for name, value := range b.cookies(app) {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
	}
	if req := s.present("", cookie); req.Identity.User() != "corp:alice" || req.Credential != (access.Credential{}) {
		t.Errorf("%+v", req)
	}
	if req := s.present("Basic YTpi", cookie); req.Identity.User() != "corp:alice" || req.Credential != (access.Credential{}) {
		t.Errorf("another scheme is none of our business: %+v", req)
	}
	if req := s.present("Bearer "+s.accessToken(nil), cookie); req.Identity.User() != "corp:batch" || req.Session.ID != "" {
		t.Errorf("%+v", req)
	}
	if req := s.present("Bearer x", cookie); !req.Identity.Nobody() || req.Credential.Problem != access.TokenInvalid {
		t.Errorf("a bad token fell through to the cookie: %+v", req)
	}
	two := func(r *http.Request) {
		r.Header["Authorization"] = []string{"Bearer " + s.accessToken(nil), "Basic YTpi"}
	}
	if req := s.present("", two); req.Credential.Problem != access.BadRequest {
		t.Errorf("two schemes at once: %+v", req)
	}
	for _, malformed := range []string{"Bearer", "Bearer ", "Bearer a b", "Bearer é", "Bearer =", "DPoP a,b"} {
		if req := s.present(malformed, cookie); req.Credential.Problem != access.BadRequest {
			t.Errorf("%q: %+v", malformed, req.Credential)
		}
	}
	// Where no provider's tokens are accepted, the header is the application's.
	s.options.Providers[0].Audiences = nil
	s.reload()
	if req := s.present("Bearer x", cookie); req.Identity.User() != "corp:alice" || req.Credential != (access.Credential{}) {
		t.Errorf("%+v", req)
	}
}

// What is known about a token ends with the token, and with the configuration.
func TestVerifiedTokensAreKept(t *testing.T) {
	s := world(t, withTokens)
	raw := s.accessToken(nil)
	s.present("Bearer "+raw, nil)
	s.corp.Fault(func(f *testidp.Faults) { f.Down = true })
	if req := s.present("Bearer "+raw, nil); req.Identity.Nobody() {
		t.Error(req.Credential.Problem)
	}
	s.clock.Advance(10 * time.Minute)
	s.refuses(raw, access.TokenExpired)
	s.clock.Advance(-5 * time.Minute)
	s.options.Providers[0].Audiences = []string{"another"}
	s.options.Previous = s.auth
	s.reload()
	s.refuses(raw, access.TokenAudience)

	for i := range maxFindings + 10 {
		s.present(fmt.Sprintf("Bearer nonsense-%d", i), nil)
	}
	if n := s.auth.tokens.refused.Len(); n != maxFindings {
		t.Errorf("%d refusals are kept", n)
	}
}

// While the provider's keys are not known, a token is neither good nor bad.
func TestTokensDuringAnOutage(t *testing.T) {
	s := world(t, withTokens)
	s.corp.Fault(func(f *testidp.Faults) { f.Down = true })
	raw := s.accessToken(nil)
	s.refuses(raw, access.ProviderUnavailable)
	s.corp.Heal()
	s.clock.Advance(jose.MinPause)
	if req := s.present("Bearer "+raw, nil); req.Identity.Nobody() {
		t.Errorf("the outage was kept: %q", req.Credential.Problem)
	}
}

// Tokens of providers that write no at+jwt need a switch, and then have to be
// told from ID tokens by what they say.
func TestTokensWithoutType(t *testing.T) {
	s := world(t, func(o *Options) { withTokens(o); o.Providers[0].InsecureAnyTokenType = true })
	plain := func(change func(claims map[string]any)) string {
		return s.accessToken(func(h, c map[string]any) {
			h["typ"] = "JWT"
			delete(c, "jti")
			delete(c, "client_id")
			delete(c, "scope")
			change(c)
		})
	}
	id := s.present("Bearer "+plain(func(c map[string]any) { c["azp"], c["scp"], c["typ"] = "cli", "b a", "Bearer" }), nil).Identity
	if id.ClientID != "cli" || !slices.Equal(id.Scopes, []string{"a", "b"}) {
		t.Errorf("%+v", id)
	}
	if id := s.present("Bearer "+plain(func(c map[string]any) { c["cid"], c["scp"] = "cli", []string{"y", "x"} }), nil).Identity; id.ClientID != "cli" || !slices.Equal(id.Scopes, []string{"x", "y"}) {
		t.Errorf("%+v", id)
	}
	for name, change := range map[string]func(c map[string]any){
		"for the client": func(c map[string]any) { c["aud"] = "doorward" },
		"also":           func(c map[string]any) { c["aud"] = []string{"doorward", "doorward-api"} },
		"nonce":          func(c map[string]any) { c["nonce"] = "n" },
		"at_hash":        func(c map[string]any) { c["at_hash"] = "n" },
		"Keycloak":       func(c map[string]any) { c["typ"] = "ID" },
		"Keycloak again": func(c map[string]any) { c["typ"] = "Refresh" },
		"Cognito":        func(c map[string]any) { c["token_use"] = "id" },
		"logout token":   func(c map[string]any) { c["events"] = map[string]any{} },
	} {
		t.Run(name, func(t *testing.T) { s.refuses(plain(change), access.TokenNotAccessToken) })
	}
	s.refuses(s.accessToken(func(h, _ map[string]any) { h["typ"] = "logout+jwt" }), access.TokenNotAccessToken)
}

// A workload is one only if its provider may speak for the trust domain.
func TestWorkloadTokens(t *testing.T) {
	s := world(t, func(o *Options) { withTokens(o); o.Providers[0].TrustDomain = "prod.example" })
	for sub, want := range map[string]string{
		"spiffe://prod.example/ns/billing": "spiffe://prod.example/ns/billing",
		"spiffe://other.example/billing":   "",
		"spiffe://prod.example":            "",
		"spiffe://prod.example/a/../b":     "",
		"spiffe://prod.example.evil/x":     "",
	} {
		id := s.present("Bearer "+s.accessToken(func(_, c map[string]any) { c["sub"] = sub }), nil).Identity
		if id.SPIFFE != want || id.Subject != sub || id.Kind != access.Service {
			t.Errorf("%s: %+v", sub, id)
		}
	}
}

// A token bound to a certificate works on connections with that certificate.
func TestCertificateBoundTokens(t *testing.T) {
	s := world(t, withTokens)
	sum := sha256.Sum256([]byte("certificate"))
	raw := s.accessToken(func(_, c map[string]any) {
		c["cnf"] = map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}
	})
	with := func(der string) func(*http.Request) {
		return func(r *http.Request) {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte(der)}}}
		}
	}
	if req := s.present("Bearer "+raw, with("certificate")); req.Identity.Nobody() {
		t.Error(req.Credential.Problem)
	}
	for name, change := range map[string]func(*http.Request){
		"another": with("another"), "none": nil, "no certificate": func(r *http.Request) { r.TLS = &tls.ConnectionState{} },
	} {
		if req := s.present("Bearer "+raw, change); req.Credential.Problem != access.TokenBindingMismatch {
			t.Errorf("%s: %+v", name, req.Credential)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("Bearer a.b.c", "x")
	f.Add("DPoP abc", "e30.e30.e30")
	f.Fuzz(func(t *testing.T, authorization, proof string) {
		tokenScheme([]string{authorization})
		isToken68(authorization)
		if p, err := parseProof(context.Background(), []string{proof}); (p == nil) != (err != nil) {
			t.Error("neither a proof nor an error")
		}
		if claims, err := jose.ParseObject([]byte(authorization)); err == nil {
			if b, err := parseBinding(claims); err == nil && b == (binding{}) && claims["cnf"] != nil {
				t.Error("a binding was lost")
			}
			_, _ = scopesOf(claims)
			_, _ = clientID(claims)
		}
	})
}
