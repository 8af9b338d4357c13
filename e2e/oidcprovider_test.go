package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// externalProvider is a running oidc-provider, the certified OpenID provider of
// npm. It knows the people of the demo.
type externalProvider struct {
	Issuer       string
	ClientID     string
	ClientSecret string

	mu  sync.Mutex
	log []string
}

// requests returns the lines the provider printed about requests.
func (p *externalProvider) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

// externalOptions says what a story wants of its provider.
type externalOptions struct {
	RedirectURIs   []string
	PostLogoutURIs []string
	// Address is where it listens. Default: a free loopback address.
	Address string
	// TokenLifetime is that of access and ID tokens. Default 10 minutes.
	TokenLifetime time.Duration
	// BackchannelURI is told of logouts. Empty: nobody is.
	BackchannelURI string
	// SigningKey is the provider's RSA key. Default: one that nobody else has.
	SigningKey *issuerKey
	// FAPI makes it demand all that FAPI 2.0 does.
	FAPI bool
	// ClientAuth is how the client proves itself, if not in the usual way;
	// ClientJWKS are its keys.
	ClientAuth, ClientJWKS string
	// Certificate and Key are files for TLS, CA is one with who certifies clients.
	Certificate, Key, CA string
}

// startOIDCProvider runs oidc-provider until the test ends. Where node or its
// modules are missing the test is skipped, or fails if `make test` promised
// them.
func startOIDCProvider(t *testing.T, opts externalOptions) *externalProvider {
	t.Helper()
	node := part(t, "node")
	if _, err := os.Stat(filepath.Join("oidc-provider", "node_modules", "oidc-provider")); err != nil {
		if os.Getenv("DOORWARD_REQUIRE_PARTS") != "" {
			t.Fatalf("oidc-provider is not installed: %v", err)
		}
		t.Skip("oidc-provider is not installed; `npm ci` in e2e/oidc-provider installs it")
	}
	if opts.Address == "" {
		opts.Address = freeAddress(t)
	}
	if opts.TokenLifetime == 0 {
		opts.TokenLifetime = 10 * time.Minute
	}
	_, port, err := net.SplitHostPort(opts.Address)
	if err != nil {
		t.Fatal(err)
	}
	p := &externalProvider{Issuer: "http://" + opts.Address, ClientID: "doorward", ClientSecret: rand.Text()}

	if opts.Certificate != "" {
		p.Issuer = "https://" + opts.Address
	}
	cmd := exec.Command(node, "server.mjs")
	cmd.Dir = "oidc-provider"
	cmd.Env = append(os.Environ(),
		"PORT="+port, "ISSUER="+p.Issuer, "CLIENT_ID="+p.ClientID, "CLIENT_SECRET="+p.ClientSecret,
		"REDIRECT_URIS="+strings.Join(opts.RedirectURIs, " "), "POST_LOGOUT_URIS="+strings.Join(opts.PostLogoutURIs, " "),
		fmt.Sprintf("ACCESS_TOKEN_TTL=%d", int(opts.TokenLifetime.Seconds())),
	)
	if opts.BackchannelURI != "" {
		cmd.Env = append(cmd.Env, "BACKCHANNEL_URI="+opts.BackchannelURI)
	}
	if opts.SigningKey == nil {
		opts.SigningKey = new(newIssuerKey(t))
	}
	cmd.Env = append(cmd.Env, "SIGNING_KEYS="+opts.SigningKey.jwks())
	if opts.FAPI {
		cmd.Env = append(cmd.Env, "FAPI=1", "CLIENT_JWKS="+opts.ClientJWKS)
	}
	if opts.ClientAuth != "" {
		cmd.Env = append(cmd.Env, "CLIENT_AUTH="+opts.ClientAuth)
	}
	if opts.Certificate != "" {
		cmd.Env = append(cmd.Env, "TLS_CERT="+opts.Certificate, "TLS_KEY="+opts.Key, "CLIENT_CA="+opts.CA)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		once := sync.OnceFunc(func() { close(ready) })
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if lines.Text() == "ready" {
				once()
				continue
			}
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			p.mu.Unlock()
		}
		done <- cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(patience):
			cmd.Process.Kill()
			<-done
		}
		if t.Failed() {
			t.Logf("oidc-provider printed:\n%s", complaints.String())
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("oidc-provider ended early: %v\n%s", err, complaints.String())
	case <-time.After(patience):
		t.Fatal("oidc-provider is not ready")
	}
	return p
}

// The harness itself: what the stories with the external provider rest on is
// that it logs people in, steps up, refreshes and logs out.
func TestExternalProviderWorks(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(app.Close)
	idp := startOIDCProvider(t, externalOptions{
		RedirectURIs: []string{app.URL + "/callback"}, PostLogoutURIs: []string{app.URL + "/bye"},
	})
	ctx := t.Context()
	provider, err := oidc.NewProvider(ctx, idp.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	var metadata struct {
		ISS        bool     `json:"authorization_response_iss_parameter_supported"`
		EndSession string   `json:"end_session_endpoint"`
		ACR        []string `json:"acr_values_supported"`
		PKCE       []string `json:"code_challenge_methods_supported"`
	}
	if err := provider.Claims(&metadata); err != nil {
		t.Fatal(err)
	}
	if !metadata.ISS || metadata.EndSession == "" || len(metadata.ACR) != 2 || !reflect.DeepEqual(metadata.PKCE, []string{"S256"}) {
		t.Errorf("metadata %+v", metadata)
	}
	client := oauth2.Config{
		ClientID: idp.ClientID, ClientSecret: idp.ClientSecret, Endpoint: provider.Endpoint(),
		RedirectURL: app.URL + "/callback", Scopes: []string{"openid", "profile", "email", "offline_access"},
	}
	verify := func(token *oauth2.Token) map[string]any {
		t.Helper()
		raw, _ := token.Extra("id_token").(string)
		id, err := provider.Verifier(&oidc.Config{ClientID: idp.ClientID}).Verify(ctx, raw)
		if err != nil {
			t.Fatal(err)
		}
		claims := map[string]any{}
		if err := id.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		return claims
	}
	login := func(v *visitor, name string, options ...oauth2.AuthCodeOption) (url.Values, *oauth2.Token) {
		t.Helper()
		verifier := oauth2.GenerateVerifier()
		options = append(options, oauth2.S256ChallengeOption(verifier), oidc.Nonce("n-1"))
		end := v.login(client.AuthCodeURL("s-1", options...), name)
		answer := end.url.Query()
		if answer.Get("state") != "s-1" || answer.Get("iss") != idp.Issuer {
			t.Fatalf("ended at %s: %s", end.url, end.body)
		}
		if answer.Has("error") {
			return answer, nil
		}
		token, err := client.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			t.Fatal(err)
		}
		return answer, token
	}
	mfa := oauth2.SetAuthURLParam("acr_values", "mfa")
	essential := oauth2.SetAuthURLParam("claims", `{"id_token":{"acr":{"essential":true,"values":["mfa"]}}}`)

	alice := newVisitor(t)
	_, token := login(alice, "alice")
	claims := verify(token)
	for name, want := range map[string]any{
		"sub": "alice", "nonce": "n-1", "email": "alice@example.com", "email_verified": true, "name": "Alice Adams",
		"preferred_username": "alice", "groups": []any{"eng", "finance"}, "deviceid": "laptop-alice",
		"acr": "pwd", "amr": []any{"pwd"},
	} {
		if !reflect.DeepEqual(claims[name], want) {
			t.Errorf("%s = %v, want %v", name, claims[name], want)
		}
	}
	if claims["auth_time"] == nil || token.RefreshToken == "" {
		t.Errorf("no auth_time or no refresh token: %v", claims)
	}

	for name, ask := range map[string]oauth2.AuthCodeOption{"voluntary": mfa, "essential": essential} {
		v := newVisitor(t)
		login(v, "alice")
		_, stepped := login(v, "alice", ask)
		if claims := verify(stepped); claims["acr"] != "mfa" || fmt.Sprint(claims["amr"]) != "[pwd otp mfa]" {
			t.Errorf("%s step-up: acr %v, amr %v", name, claims["acr"], claims["amr"])
		}
	}
	bob := newVisitor(t)
	_, voluntary := login(bob, "bob", mfa)
	if claims := verify(voluntary); claims["acr"] != "pwd" || claims["deviceid"] != nil {
		t.Errorf("bob: %v", claims)
	}
	if answer, _ := login(bob, "bob", essential); answer.Get("error") != "unmet_authentication_requirements" {
		t.Errorf("bob without a second factor: %v", answer)
	}

	token, refused := refreshTwice(ctx, client, token.RefreshToken)
	if token == nil || !strings.Contains(fmt.Sprint(refused), "invalid_grant") {
		t.Fatalf("refresh: %v, again with the old token: %v", token, refused)
	}
	bye := metadata.EndSession + "?" + url.Values{
		"id_token_hint": {token.Extra("id_token").(string)}, "post_logout_redirect_uri": {app.URL + "/bye"}, "state": {"s-2"},
	}.Encode()
	end := alice.submit(alice.open(bye), nil)
	if end.url.String() != app.URL+"/bye?state=s-2" {
		t.Errorf("logout ended at %s: %s", end.url, end.body)
	}
	if again := alice.open(client.AuthCodeURL("s-3", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))); !strings.Contains(again.body, `name="password"`) {
		t.Errorf("still logged in at %s: %s", again.url, again.body)
	}
}

// refreshTwice redeems a refresh token and then tries the same one again.
func refreshTwice(ctx context.Context, client oauth2.Config, refresh string) (*oauth2.Token, error) {
	token, err := client.TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	if err != nil {
		return nil, err
	}
	_, again := client.TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	return token, again
}
