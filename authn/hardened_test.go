package authn

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/testidp"
)

// gate stands in front of the sample provider and demands of clients what a
// hardened provider does. The provider behind it sees an ordinary client.
type gate struct {
	t    *testing.T
	idp  http.Handler
	keys func() map[string]crypto.PublicKey
	now  func() time.Time

	pushed map[string]url.Values
	// nonce is what proofs must hold; "" for none. Each request gets a new one.
	nonce  string
	serial int

	assertions, proofs []jwt.MapClaims
	jkt                []string
	// answer replaces that of a path.
	answer map[string]testidp.Answer
}

// hardened sets the stage with a provider that accepts nothing but FAPI 2.0.
func hardened(t *testing.T, key string, change func(*Provider)) (*stage, *gate) {
	t.Helper()
	s := world(t, func(o *Options) {
		p := &o.Providers[0]
		p.ClientSecret, p.ClientAuth.PrivateKeyJWT, p.Profile = access.Secret{}, access.NewSecret(key), "fapi2"
		if change != nil {
			change(p)
		}
	})
	g := &gate{t: t, idp: s.corp, keys: s.published, now: s.clock.Now, pushed: map[string]url.Values{}, nonce: "n0", answer: map[string]testidp.Answer{}}
	s.net["corp.test"] = g
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateDiscovery = func(m map[string]any) {
			m["pushed_authorization_request_endpoint"] = "https://corp.test/par"
			m["require_pushed_authorization_requests"] = true
			m["dpop_signing_alg_values_supported"] = []string{"ES256"}
			m["token_endpoint_auth_signing_alg_values_supported"] = []string{"PS256", "ES256", "EdDSA"}
		}
	})
	return s, g
}

// published reads the client keys where the provider would.
func (s *stage) published() map[string]crypto.PublicKey {
	v := s.browser().get(app + access.ClientKeysPath)
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal([]byte(v.body), &set); err != nil || v.StatusCode != 200 {
		s.Fatalf("client keys: %d %s", v.StatusCode, v.body)
	}
	keys := map[string]crypto.PublicKey{}
	for _, k := range set.Keys {
		fields := jose.Object{}
		for name, value := range k {
			fields[name] = value
		}
		parsed, err := jose.ParseKey(fields)
		if err != nil || k["d"] != "" || k["use"] != "sig" {
			s.Fatalf("%v: %v", k, err)
		}
		keys[parsed.ID] = parsed.Public
	}
	return keys
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a, ok := g.answer[r.URL.Path]; ok {
		w.WriteHeader(a.Status)
		fmt.Fprint(w, a.Body)
		return
	}
	switch r.URL.Path {
	case "/par":
		if !g.admit(w, r) {
			return
		}
		uri := fmt.Sprintf("urn:ietf:params:oauth:request_uri:%d", len(g.pushed))
		form := maps.Clone(r.PostForm)
		form.Del("client_assertion")
		form.Del("client_assertion_type")
		g.pushed[uri] = form
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]any{"request_uri": uri, "expires_in": 60})
	case "/authorize":
		query := r.URL.Query()
		form, ok := g.pushed[query.Get("request_uri")]
		if !ok || len(query) != 2 || query.Get("client_id") != "doorward" {
			http.Error(w, "not a pushed request", http.StatusBadRequest)
			return
		}
		delete(g.pushed, query.Get("request_uri"))
		r.URL.RawQuery = form.Encode()
		g.idp.ServeHTTP(w, r)
	case "/token":
		if !g.admit(w, r) {
			return
		}
		r.SetBasicAuth("doorward", url.QueryEscape("s3cret&:"))
		for _, name := range []string{"client_id", "client_assertion", "client_assertion_type"} {
			r.PostForm.Del(name)
			r.Form.Del(name)
		}
		rec := httptest.NewRecorder()
		g.idp.ServeHTTP(rec, r)
		w.WriteHeader(rec.Code)
		w.Write(bytes.Replace(rec.Body.Bytes(), []byte(`"Bearer"`), []byte(`"DPoP"`), 1))
	case "/userinfo":
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "DPoP ")
		if !ok || !g.proven(w, r, token) {
			return
		}
		r.Header.Set("Authorization", "Bearer "+token)
		g.idp.ServeHTTP(w, r)
	default:
		g.idp.ServeHTTP(w, r)
	}
}

// admit checks the client and its proof.
func (g *gate) admit(w http.ResponseWriter, r *http.Request) bool {
	if err := r.ParseForm(); err != nil {
		g.t.Error(err)
	}
	_, err := jwt.Parse(r.PostForm.Get("client_assertion"), func(token *jwt.Token) (any, error) {
		claims := token.Claims.(jwt.MapClaims)
		g.assertions = append(g.assertions, claims)
		return g.keys()[token.Header["kid"].(string)], nil
	}, jwt.WithValidMethods([]string{"PS256", "ES256", "EdDSA"}), jwt.WithTimeFunc(g.now), jwt.WithAudience("https://corp.test"))
	if err != nil || r.PostForm.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || r.PostForm.Has("client_secret") || r.Header.Get("Authorization") != "" {
		g.t.Errorf("%s: client authentication: %v, %s", r.URL.Path, err, r.PostForm)
	}
	return g.proven(w, r, "")
}

// proven checks the proof and asks for another one if the nonce is old.
func (g *gate) proven(w http.ResponseWriter, r *http.Request, accessToken string) bool {
	token, err := jwt.Parse(r.Header.Get("DPoP"), func(token *jwt.Token) (any, error) {
		fields := jose.Object(token.Header["jwk"].(map[string]any))
		if _, private := fields["d"]; private || token.Header["typ"] != "dpop+jwt" {
			g.t.Errorf("proof header %v", token.Header)
		}
		key, err := jose.ParseKey(fields)
		if err != nil {
			return nil, err
		}
		public, err := newPublicJWK(key.Public)
		g.jkt = append(g.jkt, public.thumbprint())
		return key.Public, err
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithTimeFunc(g.now))
	if err != nil {
		g.t.Errorf("%s: proof: %v", r.URL.Path, err)
		return false
	}
	claims := token.Claims.(jwt.MapClaims)
	g.proofs = append(g.proofs, claims)
	want := jwt.MapClaims{"htm": r.Method, "htu": "https://corp.test" + r.URL.Path, "iat": claims["iat"], "jti": claims["jti"]}
	if accessToken != "" {
		want["ath"] = tokenHash(accessToken)
	}
	if nonce, ok := claims["nonce"]; ok {
		want["nonce"] = nonce
	}
	if !maps.Equal(claims, want) || claims["jti"] == "" {
		g.t.Errorf("%s: proof of %v, want %v", r.URL.Path, claims, want)
	}
	if g.nonce == "" {
		return true
	}
	fresh := claims["nonce"] == g.nonce
	g.serial++
	g.nonce = fmt.Sprintf("n%d", g.serial)
	w.Header().Set("DPoP-Nonce", g.nonce)
	switch {
	case fresh:
	case accessToken != "":
		w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce", error_description="again"`)
		w.WriteHeader(http.StatusUnauthorized)
	default:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
	}
	return fresh
}

func pemOf(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func ecPEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf(t, key)
}

// Every kind of key logs people in; every assertion and every proof is used once.
func TestHardenedLogin(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{"ES256": ecPEM(t), "PS256": pemOf(t, rsaKey), "EdDSA": pemOf(t, edKey)} {
		t.Run(name, func(t *testing.T) {
			s, g := hardened(t, key, nil)
			b := s.browser()
			b.enter(app+"/x?y=1", "alice").want(t, "hello corp:alice at /x?y=1")
			to, _ := url.Parse(b.getUntil(app+access.LoginPath+"?switch=1", "corp.test/authorize"))
			if q := to.Query(); len(q) != 2 || q.Get("client_id") != "doorward" || q.Get("request_uri") == "" {
				t.Errorf("the browser is sent to %s", to)
			}
			seen := map[any]bool{}
			for _, a := range g.assertions {
				if a["iss"] != "doorward" || a["sub"] != "doorward" || a["aud"] != "https://corp.test" || a["exp"].(float64)-a["iat"].(float64) > 60 || seen[a["jti"]] {
					t.Errorf("assertion %v", a)
				}
				seen[a["jti"]] = true
			}
			for _, p := range g.proofs {
				if seen[p["jti"]] {
					t.Errorf("proof used twice: %v", p)
				}
				seen[p["jti"]] = true
			}
			if len(g.assertions) < 4 { // two pushed, one of them twice for the nonce, one code
				t.Errorf("%d assertions", len(g.assertions))
			}
		})
	}
}

// A replayed request_uri leads nowhere, and the one who replays it gets no session.
func TestReplayedRequestURI(t *testing.T) {
	s, _ := hardened(t, ecPEM(t), nil)
	b := s.browser()
	to := b.getUntil(app+"/", "corp.test/authorize")
	b.password(b.get(to), "alice").want(t, "hello corp:alice")
	if v := s.browser().get(to); v.StatusCode != http.StatusBadRequest {
		t.Errorf("replayed: %d %s", v.StatusCode, v.body)
	}
	b.get(app+"/").want(t, "hello corp:alice")
}

// The key stays with the refresh token, in whichever process it is redeemed; each
// login has its own.
func TestBoundTokensAreRefreshedWithTheirKey(t *testing.T) {
	s, g := hardened(t, ecPEM(t), nil)
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello corp:alice")
	first := g.jkt[len(g.jkt)-1]
	s.browser().enter(app+"/", "alice")
	if g.jkt[len(g.jkt)-1] == first {
		t.Error("two logins share a key")
	}
	ended, err := s.sessions.End(t.Context(), b.cookies(app)["__Host-doorward"], access.SessionEnded)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newProofKey()
	if err != nil {
		t.Fatal(err)
	}
	s.reload() // another process
	id, fresh, err := s.auth.Refresh(t.Context(), "corp", session.Tokens{Refresh: ended.RefreshToken, Key: key.text()}, &ended.Identity)
	if err != nil || fresh.Key != key.text() || fresh.Refresh == "" || id.Subject != "alice" {
		t.Fatalf("%v %v", id, err)
	}
	if got := g.jkt[len(g.jkt)-1]; got != key.public.thumbprint() {
		t.Error("refreshed with another key")
	}
	if _, _, err := s.auth.Refresh(t.Context(), "corp", session.Tokens{Refresh: "r", Key: "damaged"}, &ended.Identity); access.ReasonOf(err) != access.InternalError {
		t.Errorf("a damaged key: %v", err)
	}
}

func TestUserinfoWithABoundToken(t *testing.T) {
	s, g := hardened(t, ecPEM(t), nil)
	s.corp.Fault(func(f *testidp.Faults) {
		f.MutateIDToken = func(_, claims map[string]any) { delete(claims, "groups"); delete(claims, "at_hash") }
	})
	b := s.browser()
	b.enter(app+"/", "alice").want(t, "hello corp:alice")
	last := g.proofs[len(g.proofs)-1]
	if last["ath"] == nil || last["nonce"] == nil {
		t.Errorf("the last proof is %v", last)
	}
	e, err := s.sessions.Load(t.Context(), b.cookies(app)["__Host-doorward"], app, s.clock.Now())
	if err != nil || !slices.Equal(e.Identity.Groups, []string{"eng", "finance"}) {
		t.Errorf("%+v, %v", e, err)
	}
}

// What a provider answers instead of a request_uri or of bound tokens.
func TestHardenedRefusals(t *testing.T) {
	answer := func(status int, body string) func(*gate) {
		return func(g *gate) { g.answer["/par"] = testidp.Answer{Status: status, Body: body} }
	}
	for name, c := range map[string]struct {
		change func(*gate)
		want   access.Reason
	}{
		"refused":       {answer(400, `{"error":"invalid_request"}`), access.LoginFailed},
		"unknown":       {answer(401, `{"error":"invalid_client"}`), access.LoginFailed},
		"down":          {answer(503, ``), access.ProviderUnavailable},
		"busy":          {answer(429, ``), access.ProviderUnavailable},
		"no URI":        {answer(201, `{"expires_in":60}`), access.LoginFailed},
		"odd URI":       {answer(201, `{"request_uri":"a b"}`), access.LoginFailed},
		"long URI":      {answer(201, `{"request_uri":"`+strings.Repeat("x", maxRequestURI+1)+`"}`), access.LoginFailed},
		"two URIs":      {answer(201, `{"request_uri":"a","request_uri":"b"}`), access.ProviderUnavailable},
		"no JSON":       {answer(201, `<html>`), access.ProviderUnavailable},
		"endless":       {answer(201, `{}`+strings.Repeat(" ", jose.MaxDocument)), access.ProviderUnavailable},
		"nonce, no end": {answer(400, `{"error":"use_dpop_nonce"}`), access.LoginFailed},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := hardened(t, ecPEM(t), nil)
			c.change(g)
			s.browser().get(app+"/").refused(t, c.want)
		})
	}
	t.Run("too many at once", func(t *testing.T) {
		s, g := hardened(t, ecPEM(t), nil)
		for range maxPushes {
			s.auth.clients["corp"].pushing <- struct{}{}
		}
		s.browser().get(app+"/").refused(t, access.TooManyLogins)
		<-s.auth.clients["corp"].pushing
		s.browser().enter(app+"/", "alice").want(t, "hello corp:alice")
		if len(g.assertions) == 0 {
			t.Error("nothing was pushed")
		}
	})
	t.Run("tokens that anyone can use", func(t *testing.T) {
		s, g := hardened(t, ecPEM(t), nil)
		g.answer["/token"] = testidp.Answer{Status: 200, Body: `{"access_token":"a","token_type":"Bearer","id_token":"x"}`}
		s.browser().enter(app+"/", "alice").refused(t, access.LoginFailed)
	})
	t.Run("a nonce that never holds", func(t *testing.T) {
		s, g := hardened(t, ecPEM(t), nil)
		s.net["corp.test"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/par" {
				g.nonce = "another"
			}
			g.ServeHTTP(w, r)
		})
		s.browser().get(app+"/").refused(t, access.LoginFailed)
		if len(g.proofs) != 2 {
			t.Errorf("%d tries", len(g.proofs))
		}
	})
	t.Run("no issuer in the callback", func(t *testing.T) {
		s, _ := hardened(t, ecPEM(t), nil)
		s.corp.Fault(func(f *testidp.Faults) {
			f.OmitCallbackIssuer = true
			before := f.MutateDiscovery
			f.MutateDiscovery = func(m map[string]any) {
				before(m)
				delete(m, "authorization_response_iss_parameter_supported")
			}
		})
		s.browser().enter(app+"/", "alice").refused(t, access.LoginMixUp)
	})
	for name, lacks := range map[string]func(map[string]any){
		"no endpoint for pushing": func(m map[string]any) { delete(m, "pushed_authorization_request_endpoint") },
		"no ES256 in proofs":      func(m map[string]any) { m["dpop_signing_alg_values_supported"] = []string{"RS256"} },
		"no ES256 in assertions":  func(m map[string]any) { m["token_endpoint_auth_signing_alg_values_supported"] = []string{"RS256"} },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := hardened(t, ecPEM(t), nil)
			s.corp.Fault(func(f *testidp.Faults) {
				before := f.MutateDiscovery
				f.MutateDiscovery = func(m map[string]any) { before(m); lacks(m) }
			})
			s.browser().get(app+"/").refused(t, access.LoginFailed)
			if s.auth.Ready()["corp"] == nil {
				t.Error("ready although no login can work")
			}
		})
	}
}
