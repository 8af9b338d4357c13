package testidp

import (
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
	"golang.org/x/oauth2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	callback  = "http://app.example/callback"
	signedOut = "http://app.example/bye?x=1"
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636 appendix B
)

// party is a browser and an independent relying party around one provider.
type party struct {
	*testing.T
	idp     *Provider
	clock   *Clock
	browser *http.Client
	oauth   oauth2.Config
}

// meet starts a provider. Most tests need no RSA key, which is slow to make.
func meet(t *testing.T, change func(*Options)) *party {
	t.Helper()
	p := &party{T: t, clock: NewClock(time.Now().Truncate(time.Second))}
	options := Options{
		Users: DemoUsers(),
		Clients: []Client{
			{ID: "app", Secret: "s3cret&:", RedirectURI: Exactly(callback), PostLogoutURI: Exactly(signedOut)},
			{ID: "public", RedirectURI: Exactly(callback)},
			{ID: "shut", Secret: "x"},
		},
		Algorithms: []string{"ES256"}, Now: p.clock.Now,
	}
	if change != nil {
		change(&options)
	}
	idp, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	_, stop, err := idp.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	p.idp, p.browser = idp, newBrowser(t)
	p.oauth = oauth2.Config{
		ClientID: "app", ClientSecret: "s3cret&:", RedirectURL: callback,
		Scopes:   []string{"openid", "profile", "email"},
		Endpoint: oauth2.Endpoint{AuthURL: idp.at("authorize"), TokenURL: idp.at("token"), AuthStyle: oauth2.AuthStyleInHeader},
	}
	return p
}

// newBrowser returns a client that stops where the provider sends it away.
func newBrowser(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "app.example" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// page is what the browser sees: a page of the provider or a way back.
type page struct {
	status int
	body   string
	header http.Header
	back   *url.URL // the redirect to the client, or nil
}

func (p *party) get(address string) page {
	p.Helper()
	resp, err := p.browser.Get(address)
	return p.read(resp, err)
}

func (p *party) post(address string, form url.Values) page {
	p.Helper()
	resp, err := p.browser.PostForm(address, form)
	return p.read(resp, err)
}

func (p *party) read(resp *http.Response, err error) page {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	pg := page{status: resp.StatusCode, body: string(body), header: resp.Header}
	if at, err := resp.Location(); err == nil {
		pg.back = at
	}
	return pg
}

var (
	formAction = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
	formInput  = regexp.MustCompile(`<input[^>]* name="([^"]*)"[^>]*>`)
	inputValue = regexp.MustCompile(` value="([^"]*)"`)
)

// submit sends the last form of a page with some fields filled in.
func (p *party) submit(pg page, fields map[string]string) page {
	p.Helper()
	at := strings.LastIndex(pg.body, "<form")
	if at < 0 {
		p.Fatalf("no form on the page:\n%s", pg.body)
	}
	rest := pg.body[at:]
	form := url.Values{}
	for _, input := range formInput.FindAllStringSubmatch(rest, -1) {
		form.Set(input[1], "")
		if value := inputValue.FindStringSubmatch(input[0]); value != nil {
			form.Set(input[1], html.UnescapeString(value[1]))
		}
	}
	for name, value := range fields {
		form.Set(name, value)
	}
	return p.post(html.UnescapeString(formAction.FindStringSubmatch(rest)[1]), form)
}

// ask returns the address of an authorization request with changes to a good one.
func (p *party) ask(change ...string) string {
	values := url.Values{
		"response_type": {"code"}, "client_id": {"app"}, "redirect_uri": {callback}, "scope": {"openid profile email"},
		"state": {"st"}, "nonce": {"n0"}, "code_challenge": {challengeS256(verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(change); i += 2 {
		values.Set(change[i], change[i+1])
		if change[i+1] == "-" {
			values.Del(change[i])
		}
	}
	return p.idp.at("authorize") + "?" + values.Encode()
}

// enter logs in by password and returns what comes next.
func (p *party) enter(username string, change ...string) page {
	p.Helper()
	return p.submit(p.get(p.ask(change...)), map[string]string{"username": username, "password": "demo"})
}

// code returns the code of a page that leads back to the client.
func (p *party) code(pg page) string {
	p.Helper()
	if pg.back == nil || pg.back.Query().Get("code") == "" {
		p.Fatalf("no code: %d, back to %v\n%s", pg.status, pg.back, pg.body)
	}
	return pg.back.Query().Get("code")
}

// refused checks that the client is told of an error.
func (p *party) refused(pg page, want string) {
	p.Helper()
	if pg.back == nil {
		p.Fatalf("not sent back: %d\n%s", pg.status, pg.body)
	}
	q := pg.back.Query()
	if q.Get("error") != want || q.Get("state") != "st" || q.Get("iss") != p.idp.Issuer() || q.Has("code") {
		p.Errorf("sent back to %s, want error %s", pg.back, want)
	}
}

// redeem exchanges a code and returns the response and the ID token's claims,
// verified by go-oidc.
func (p *party) redeem(code string) (*oauth2.Token, map[string]any) {
	p.Helper()
	token, err := p.oauth.Exchange(p.context(), code, oauth2.VerifierOption(verifier))
	if err != nil {
		p.Fatal(err)
	}
	return token, p.verify(token)
}

func (p *party) refresh(token string) (*oauth2.Token, error) {
	return p.oauth.TokenSource(p.context(), &oauth2.Token{RefreshToken: token}).Token()
}

func (p *party) context() context.Context {
	return oidc.ClientContext(p.Context(), p.browser)
}

func (p *party) verify(token *oauth2.Token) map[string]any {
	p.Helper()
	raw, _ := token.Extra("id_token").(string)
	provider, err := oidc.NewProvider(p.context(), p.idp.Issuer())
	if err != nil {
		p.Fatal(err)
	}
	id, err := provider.VerifierContext(p.context(), &oidc.Config{ClientID: "app", Now: p.clock.Now}).Verify(p.context(), raw)
	if err != nil {
		p.Fatal(err)
	}
	if err := id.VerifyAccessToken(token.AccessToken); err != nil {
		p.Error(err)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		p.Fatal(err)
	}
	return claims
}

// tokenError posts to the token endpoint and returns status and error code.
func (p *party) tokenError(form url.Values) (int, string) {
	p.Helper()
	pg := p.post(p.idp.at("token"), form)
	var answer struct{ Error string }
	if err := json.Unmarshal([]byte(pg.body), &answer); err != nil {
		p.Fatal(err)
	}
	return pg.status, answer.Error
}

// decodeUnverified reads the claims of a token that a fault may have broken.
func decodeUnverified(t *testing.T, token string, claims *map[string]any) {
	t.Helper()
	if _, _, err := jwt.NewParser().ParseUnverified(token, (*jwt.MapClaims)(claims)); err != nil {
		t.Fatal(err)
	}
}
