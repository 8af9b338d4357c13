package testidp

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// The vector of RFC 7636 appendix B.
func TestPKCEVector(t *testing.T) {
	if got := challengeS256(verifier); got != "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" {
		t.Error(got)
	}
}

func TestCodeIsBoundAndSingleUse(t *testing.T) {
	p := meet(t, nil)
	form := func(code string, change ...string) url.Values {
		values := url.Values{
			"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier},
			"client_id": {"app"}, "client_secret": {"s3cret&:"},
		}
		for i := 0; i < len(change); i += 2 {
			values.Set(change[i], change[i+1])
		}
		return values
	}
	p.enter("alice")
	fresh := func() string { return p.code(p.get(p.ask())) }
	for name, change := range map[string][]string{
		"another verifier":     {"code_verifier", strings.Repeat("a", 43)},
		"no verifier":          {"code_verifier", ""},
		"the challenge itself": {"code_verifier", challengeS256(verifier)},
		"another address":      {"redirect_uri", callback + "2"},
		"no address":           {"redirect_uri", ""},
		"another client":       {"client_id", "public", "client_secret", ""},
		"another code":         {"code", "x"},
	} {
		code := fresh()
		if status, got := p.tokenError(form(code, change...)); status != 400 || got != "invalid_grant" {
			t.Errorf("%s: %d %s", name, status, got)
		}
		// Whoever stole a code may guess once, except that only its own client
		// can use it up.
		_, err := p.oauth.Exchange(p.context(), code, oauth2.VerifierOption(verifier))
		if mine := name == "another client" || name == "another code"; mine != (err == nil) {
			t.Errorf("%s, then the right request: %v", name, err)
		}
	}
	old := fresh()
	p.clock.Advance(codeLifetime)
	if _, got := p.tokenError(form(old)); got != "invalid_grant" {
		t.Errorf("an old code: %s", got)
	}
}

// A code that is used twice was stolen: what the first use got ends too (RFC
// 6749 §4.1.2).
func TestReplayedCodeEndsItsTokens(t *testing.T) {
	p := meet(t, nil)
	code := p.code(p.enter("alice"))
	token, _ := p.redeem(code)
	if _, err := p.oauth.Exchange(p.context(), code, oauth2.VerifierOption(verifier)); err == nil {
		t.Error("the code worked twice")
	}
	if _, err := p.refresh(token.RefreshToken); err == nil {
		t.Error("the refresh token of the first use still works")
	}
}

// A refresh token that is used twice is with two parties; neither may go on.
func TestReusedRefreshTokenEndsTheGrant(t *testing.T) {
	p := meet(t, nil)
	first, _ := p.redeem(p.code(p.enter("alice")))
	second, err := p.refresh(first.RefreshToken)
	if err != nil || second.RefreshToken == first.RefreshToken {
		t.Fatalf("not rotated: %v", err)
	}
	for _, token := range []string{first.RefreshToken, second.RefreshToken} {
		if _, err := p.refresh(token); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
			t.Errorf("reuse: %v", err)
		}
	}
	if got := p.idp.Requests(Refresh); got != 3 {
		t.Errorf("%d refreshes counted", got)
	}
	if got := p.idp.Requests(Token); got != 1 {
		t.Errorf("%d code exchanges counted", got)
	}
}

func TestRefreshSeesThePersonOfNow(t *testing.T) {
	p := meet(t, nil)
	token, _ := p.redeem(p.code(p.enter("bob")))
	bob := DemoUsers()[1]
	bob.Groups = []string{"finance"}
	if err := p.idp.SetUser(bob); err != nil {
		t.Fatal(err)
	}
	token, err := p.refresh(token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.verify(token)["groups"].([]any); !slices.Equal(got, []any{"finance"}) {
		t.Errorf("groups %v", got)
	}
	p.idp.RemoveUser("bob")
	if _, err := p.refresh(token.RefreshToken); err == nil {
		t.Error("somebody who is gone refreshes")
	}
}

func TestGrantsEndForOnePerson(t *testing.T) {
	p := meet(t, nil)
	alice, _ := p.redeem(p.code(p.enter("alice")))
	bob, _ := p.redeem(p.code(p.enter("bob", "prompt", "login")))
	if n := p.idp.EndGrants("alice"); n != 1 {
		t.Errorf("%d grants ended", n)
	}
	if _, err := p.refresh(alice.RefreshToken); err == nil {
		t.Error("alice refreshes")
	}
	if _, err := p.refresh(bob.RefreshToken); err != nil {
		t.Errorf("bob: %v", err)
	}
}

func TestOfflineOnly(t *testing.T) {
	p := meet(t, func(o *Options) { o.OfflineOnly = true })
	if token, _ := p.redeem(p.code(p.enter("alice"))); token.RefreshToken != "" {
		t.Error("a refresh token without offline_access")
	}
	if token, _ := p.redeem(p.code(p.get(p.ask("scope", "openid offline_access")))); token.RefreshToken == "" {
		t.Error("no refresh token with offline_access")
	}
}

func TestClientAuthentication(t *testing.T) {
	p := meet(t, nil)
	p.enter("alice")
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		p.oauth.Endpoint.AuthStyle = style
		p.redeem(p.code(p.get(p.ask())))
	}
	public := p.oauth
	public.ClientID, public.ClientSecret = "public", ""
	if _, err := public.Exchange(p.context(), p.code(p.get(p.ask("client_id", "public"))), oauth2.VerifierOption(verifier)); err != nil {
		t.Errorf("public client: %v", err)
	}
	for name, form := range map[string]url.Values{
		"wrong secret":           {"client_id": {"app"}, "client_secret": {"x"}},
		"no secret":              {"client_id": {"app"}},
		"nobody":                 {},
		"public with a secret":   {"client_id": {"public"}, "client_secret": {"x"}},
		"secret of another case": {"client_id": {"app"}, "client_secret": {"S3CRET&:"}},
	} {
		form.Set("grant_type", "refresh_token")
		if status, got := p.tokenError(form); status != http.StatusUnauthorized || got != "invalid_client" {
			t.Errorf("%s: %d %s", name, status, got)
		}
	}
	good := url.Values{"client_id": {"app"}, "client_secret": {"s3cret&:"}}
	for want, changes := range map[string]url.Values{
		"unsupported_grant_type": {"grant_type": {"password"}},
		"invalid_request":        {"grant_type": {"refresh_token", "refresh_token"}},
		"invalid_grant":          {"grant_type": {"refresh_token"}, "refresh_token": {"x"}},
	} {
		for name, values := range good {
			changes[name] = values
		}
		if status, got := p.tokenError(changes); status != http.StatusBadRequest || got != want {
			t.Errorf("%d %s, want %s", status, got, want)
		}
	}
}

func TestRefreshMayNotWidenTheScope(t *testing.T) {
	p := meet(t, nil)
	token, _ := p.redeem(p.code(p.enter("alice")))
	_, got := p.tokenError(url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {token.RefreshToken}, "scope": {"openid admin"},
		"client_id": {"app"}, "client_secret": {"s3cret&:"},
	})
	if got != "invalid_scope" {
		t.Error(got)
	}
}

func TestUserinfoNeedsALivingToken(t *testing.T) {
	p := meet(t, nil)
	token, _ := p.redeem(p.code(p.enter("alice")))
	ask := func(authorization string) int {
		req, err := http.NewRequest(http.MethodGet, p.idp.at("userinfo"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		return p.read(p.browser.Do(req)).status
	}
	for authorization, want := range map[string]int{
		"Bearer " + token.AccessToken: 200, "bearer " + token.AccessToken: 200,
		"": 401, "Bearer ": 401, "Bearer x": 401, "Basic " + token.AccessToken: 401, "Bearer " + token.RefreshToken: 401,
	} {
		if got := ask(authorization); got != want {
			t.Errorf("%.12q: %d", authorization, got)
		}
	}
	p.clock.Advance(10 * time.Minute)
	if got := ask("Bearer " + token.AccessToken); got != 401 {
		t.Errorf("an expired token: %d", got)
	}
}

func TestRevocation(t *testing.T) {
	for _, which := range []string{"refresh", "access"} {
		p := meet(t, nil)
		token, _ := p.redeem(p.code(p.enter("alice")))
		value := token.RefreshToken
		if which == "access" {
			value = token.AccessToken
		}
		form := url.Values{"token": {value}, "client_id": {"public"}}
		if pg := p.post(p.idp.at("revoke"), form); pg.status != 200 {
			t.Errorf("%d", pg.status)
		}
		token2, err := p.refresh(token.RefreshToken)
		if err != nil {
			t.Fatalf("another client revoked it: %v", err)
		}
		if which == "refresh" {
			form.Set("token", token2.RefreshToken)
		}
		form.Set("client_id", "app")
		if pg := p.post(p.idp.at("revoke"), form); pg.status != 401 {
			t.Errorf("without the secret: %d", pg.status)
		}
		form.Set("client_secret", "s3cret&:")
		if pg := p.post(p.idp.at("revoke"), form); pg.status != 200 {
			t.Errorf("%d", pg.status)
		}
		if _, err := p.refresh(token2.RefreshToken); err == nil {
			t.Errorf("refreshed after the %s token was revoked", which)
		}
		form.Set("token", "unknown")
		if pg := p.post(p.idp.at("revoke"), form); pg.status != 200 {
			t.Errorf("an unknown token: %d (RFC 7009 §2.2)", pg.status)
		}
	}
}

func TestShelvesAreBounded(t *testing.T) {
	now := time.Now()
	s := shelf[int]{}
	for i := range maxKept {
		s.put(digest(string(rune(i))), i, now.Add(time.Hour+time.Duration(i)), now)
	}
	s.put("one more", 1, now.Add(2*time.Hour), now)
	if _, first := s.get(digest("\x00"), now); len(s) != maxKept || first {
		t.Errorf("%d kept, the oldest among them: %v", len(s), first)
	}
	s.put("later", 1, now.Add(9*time.Hour), now.Add(3*time.Hour))
	if len(s) != 1 {
		t.Errorf("%d kept although all others expired", len(s))
	}
}
