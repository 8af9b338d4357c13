package testidp

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func TestProviderIsDown(t *testing.T) {
	p := meet(t, nil)
	p.idp.Fault(func(f *Faults) { f.Down = true })
	for _, path := range []string{".well-known/openid-configuration", "jwks", "authorize", "userinfo"} {
		if pg := p.get(p.idp.at(path)); pg.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", path, pg.status)
		}
	}
	p.idp.Fault(func(f *Faults) { *f = Faults{Hangup: true} })
	if resp, err := p.browser.Get(p.idp.at("jwks")); err == nil {
		resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	p.idp.Heal()
	if pg := p.get(p.idp.at("jwks")); pg.status != http.StatusOK {
		t.Errorf("healed: %d", pg.status)
	}
	// The client tries an idempotent request again when the connection drops.
	if got := p.idp.Requests(JWKS); got < 3 {
		t.Errorf("%d requests counted", got)
	}
}

func TestCannedAnswers(t *testing.T) {
	p := meet(t, nil)
	answer := func(e Endpoint, a Answer) { p.idp.Fault(func(f *Faults) { f.Answers[e] = a }) }

	answer(JWKS, EmptyKeys())
	if pg := p.get(p.idp.at("jwks")); pg.status != 200 || pg.body != `{"keys":[]}` {
		t.Errorf("%d %s", pg.status, pg.body)
	}
	answer(JWKS, NotJSON())
	if pg := p.get(p.idp.at("jwks")); pg.header.Get("Content-Type") != "text/html" || json.Valid([]byte(pg.body)) {
		t.Errorf("%s %s", pg.header, pg.body)
	}
	answer(JWKS, Huge())
	resp, err := p.browser.Get(p.idp.at("jwks"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil || n < 64<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}

	p.idp.Heal()
	token, _ := p.redeem(p.code(p.enter("alice")))
	answer(Refresh, Fails(http.StatusServiceUnavailable, "temporarily_unavailable"))
	if _, err := p.refresh(token.RefreshToken); err == nil || !strings.Contains(err.Error(), "temporarily_unavailable") {
		t.Errorf("refresh: %v", err)
	}
	p.idp.Heal() // the fault came before the redemption: the token is still good
	if _, err := p.refresh(token.RefreshToken); err != nil {
		t.Errorf("healed: %v", err)
	}
}

func TestHeldRequests(t *testing.T) {
	p := meet(t, nil)
	hold := p.idp.Hold(JWKS)
	done := make(chan int)
	go func() { done <- p.get(p.idp.at("jwks")).status }()
	<-hold.Arrived()
	select {
	case status := <-done:
		t.Fatalf("answered %d although held", status)
	default:
	}
	hold.Release()
	hold.Release()
	if status := <-done; status != http.StatusOK {
		t.Errorf("released: %d", status)
	}

	hold = p.idp.Hold(JWKS)
	ctx, giveUp := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.idp.at("jwks"), nil)
		resp, err := p.browser.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-hold.Arrived()
	giveUp()
	if err := <-failed; err == nil {
		t.Error("an answer came although the client gave up")
	}
	p.idp.Heal()
	if pg := p.get(p.idp.at("jwks")); pg.status != http.StatusOK {
		t.Errorf("healed: %d", pg.status)
	}
}

func TestStoppingReleasesHeldRequests(t *testing.T) {
	idp, err := New(Options{Algorithms: []string{"ES256"}})
	if err != nil {
		t.Fatal(err)
	}
	base, stop, err := idp.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hold, browser, done := idp.Hold(Discovery), newBrowser(t), make(chan error)
	go func() {
		resp, err := browser.Get(base + "/.well-known/openid-configuration")
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	<-hold.Arrived()
	stop()
	if <-done == nil {
		t.Error("answered after the end")
	}
}

func TestLyingTokens(t *testing.T) {
	p := meet(t, nil)
	p.enter("alice")
	login := func(change func(*Faults)) (*oauth2.Token, error) {
		p.idp.Heal()
		p.idp.Fault(change)
		code := p.code(p.get(p.ask()))
		return p.oauth.Exchange(p.context(), code, oauth2.VerifierOption(verifier))
	}
	claimsOf := func(token *oauth2.Token) map[string]any {
		claims := map[string]any{}
		decodeUnverified(t, token.Extra("id_token").(string), &claims)
		return claims
	}

	token, err := login(func(f *Faults) {
		f.MutateIDToken = func(header, claims map[string]any) { delete(claims, "nonce"); header["kid"] = "../x" }
	})
	if err != nil {
		t.Fatal(err)
	}
	if claims := claimsOf(token); claims["nonce"] != nil || claims["sub"] != "alice" {
		t.Errorf("claims %v", claims)
	}
	token, err = login(func(f *Faults) {
		f.ForgeIDToken = func(claims map[string]any) string {
			header := p.idp.Header() // hooks may call the provider
			header["alg"], claims["sub"] = "none", "root"
			forged, err := p.idp.Sign(header, claims)
			if err != nil {
				t.Error(err)
			}
			return forged[:strings.LastIndex(forged, ".")+1]
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if claims := claimsOf(token); claims["sub"] != "root" {
		t.Errorf("claims %v", claims)
	}
	token, err = login(func(f *Faults) { f.MutateTokens = func(answer map[string]any) { delete(answer, "id_token") } })
	if err != nil || token.Extra("id_token") != nil {
		t.Errorf("%v %v", token, err)
	}
	token, err = login(func(f *Faults) { f.GroupOverage = true })
	if err != nil {
		t.Fatal(err)
	}
	if claims := claimsOf(token); claims["groups"] != nil || claims["_claim_names"] == nil || claims["_claim_sources"] == nil {
		t.Errorf("claims %v", claims)
	}
	if _, ok := p.idp.PublicKey().(*ecdsa.PublicKey); !ok {
		t.Errorf("public key %T", p.idp.PublicKey())
	}
}

func TestLyingCallbackAndMetadata(t *testing.T) {
	p := meet(t, nil)
	p.enter("alice")
	p.idp.Fault(func(f *Faults) { f.CallbackIssuer = "http://evil.example" })
	if got := p.get(p.ask()).back.Query().Get("iss"); got != "http://evil.example" {
		t.Errorf("iss %q", got)
	}
	p.idp.Fault(func(f *Faults) { f.OmitCallbackIssuer = true })
	if q := p.get(p.ask()).back.Query(); q.Has("iss") {
		t.Errorf("iss %q", q.Get("iss"))
	}
	p.idp.Fault(func(f *Faults) { f.MutateDiscovery = func(m map[string]any) { m["issuer"] = "http://evil.example" } })
	if _, err := oidc.NewProvider(p.context(), p.idp.Issuer()); err == nil || !strings.Contains(err.Error(), "issuer") {
		t.Errorf("discovery: %v", err)
	}
}

// Tokens of before a rotation verify until the old keys are withdrawn.
func TestKeyRotation(t *testing.T) {
	p := meet(t, func(o *Options) { o.Algorithms = nil })
	token, _ := p.redeem(p.code(p.enter("alice")))
	old := p.idp.Header()["kid"]
	if err := p.idp.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	if p.idp.Header()["kid"] == old {
		t.Error("still signs with the old key")
	}
	p.verify(token)
	p.redeem(p.code(p.get(p.ask())))
	p.idp.RetireKeys()
	keys := p.get(p.idp.at("jwks")).body
	if strings.Contains(keys, old.(string)) || strings.Count(keys, `"kid"`) != 2 || strings.Contains(keys, `"d"`) {
		t.Errorf("keys %s", keys)
	}
	if err := p.idp.SignWith("PS256"); err == nil {
		t.Error("signs with an algorithm it has no key for")
	}
}

func TestAnswersBeforeThereIsAnIssuer(t *testing.T) {
	idp, err := New(Options{Algorithms: []string{"ES256"}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	idp.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/jwks", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d", w.Code)
	}
}

func FuzzAuthorize(f *testing.F) {
	for _, seed := range []string{
		"client_id=app&redirect_uri=http%3A%2F%2Fapp.example%2Fcallback&response_type=code&scope=openid&code_challenge_method=S256" +
			"&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&claims=%7B%22id_token%22%3A%7B%22acr%22%3Anull%7D%7D",
		"client_id=app&redirect_uri=http://app.example/callback&id_token_hint=e30.e30.&max_age=-0&prompt=none+none",
		"client_id=app&client_id=app", "redirect_uri=%zz", "",
	} {
		f.Add(seed)
	}
	idp, err := New(Options{
		Issuer: "http://idp.example", Algorithms: []string{"ES256"},
		Clients: []Client{{ID: "app", RedirectURI: Exactly(callback), PostLogoutURI: Exactly(signedOut)}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		form, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		// Whatever the error: a request that can be answered by redirect goes to
		// the registered address.
		if req, err := idp.parseAuthorize(form); req != nil && (req.redirectURI != callback || req.client.ID != "app") {
			t.Errorf("%+v, %v", req, err)
		}
		if req, err := idp.parseLogout(form); err == nil && req.uri != "" && req.uri != signedOut {
			t.Errorf("%+v", req)
		}
	})
}
