package testidp

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// code is what an authorization code stands for.
type code struct {
	*authRequest
	session session
	acr     string
	spent   string // the grant it was redeemed for: a second use ends that
}

// token is the token endpoint (RFC 6749 §4.1.3 and §6).
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	err := r.ParseForm()
	endpoint := Token
	if r.PostForm.Get("grant_type") == "refresh_token" {
		endpoint = Refresh
	}
	if p.trouble.meet(w, r, endpoint) {
		return
	}
	if err != nil {
		p.fail(w, r, refuse("invalid_request", "the form cannot be read"))
		return
	}
	client, err := p.authenticate(r)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	var out *issued
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		out, err = p.redeemCode(client, r.PostForm)
	case "refresh_token":
		out, err = p.redeemRefresh(client, r.PostForm)
	case grantDevice:
		out, err = p.redeemDevice(client, r.PostForm)
	default:
		err = refuse("unsupported_grant_type", "only authorization_code and refresh_token")
	}
	if err == nil {
		out.tokens["id_token"], err = p.idToken(out)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if mutate := p.trouble.current().MutateTokens; mutate != nil {
		mutate(out.tokens)
	}
	writeJSON(w, http.StatusOK, out.tokens)
}

// authenticate returns the client of a token, refresh or revocation request by
// exactly one method (RFC 6749 §2.3).
func (p *Provider) authenticate(r *http.Request) (*Client, error) {
	if r.ParseForm() != nil {
		return nil, refuse("invalid_request", "the form cannot be read")
	}
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return nil, refuse("invalid_request", "%s occurs more than once", name)
		}
	}
	id, secret, basic := r.BasicAuth()
	if basic {
		var errID, errSecret error
		id, errID = url.QueryUnescape(id)
		secret, errSecret = url.QueryUnescape(secret)
		if errID != nil || errSecret != nil || r.PostForm.Has("client_secret") {
			return nil, refuse("invalid_request", "more than one client authentication, or a malformed one")
		}
		if posted := r.PostForm.Get("client_id"); posted != "" && posted != id {
			return nil, refuse("invalid_request", "client_id differs from the authenticated client")
		}
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	client := p.clients[id]
	if client == nil || subtle.ConstantTimeCompare([]byte(client.Secret), []byte(secret)) != 1 {
		return nil, &oauthError{http.StatusUnauthorized, "invalid_client", "unknown client or wrong secret"}
	}
	return client, nil
}

func (p *Provider) redeemCode(client *Client, form url.Values) (*issued, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.options.Now()
	name := digest(form.Get("code"))
	c, ok := p.codes.get(name, now)
	if !ok || c.client != client {
		return nil, refuse("invalid_grant", "unknown code")
	}
	if c.spent != "" {
		delete(p.state.Grants, c.spent)
		p.saved()
		return nil, refuse("invalid_grant", "the code was used before; its tokens are revoked")
	}
	c.spent = digest(p.secret())[:22] // whatever comes now, the code is spent
	p.codes.put(name, c, now.Add(codeLifetime), now)
	if form.Get("redirect_uri") != c.redirectURI {
		return nil, refuse("invalid_grant", "redirect_uri is not the one of the authorization request")
	}
	verifier := form.Get("code_verifier")
	if len(verifier) < 43 || len(verifier) > 128 || !unreserved(verifier) || challengeS256(verifier) != c.challenge {
		return nil, refuse("invalid_grant", "code_verifier does not fit")
	}
	u, ok := p.user(c.session.Subject)
	if !ok {
		return nil, refuse("invalid_grant", "the user is gone")
	}
	return p.issue(c.spent, grant{
		Client: client.ID, Subject: u.Subject, SID: c.session.SID, Scope: strings.Join(c.scope, " "),
		ACR: c.acr, AuthTime: c.session.AuthTime,
	}, u, c.nonce), nil
}

// redeemRefresh rotates a refresh token. One that was used before means that
// two parties have it, so the whole grant ends (RFC 9700 §4.14.2).
func (p *Provider) redeemRefresh(client *Client, form url.Values) (*issued, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	token := form.Get("refresh_token")
	id, _, _ := strings.Cut(token, ".")
	g, ok := p.state.Grants.get(id, p.options.Now())
	if !ok || g.Client != client.ID || g.Refresh == "" {
		return nil, refuse("invalid_grant", "unknown refresh token")
	}
	if subtle.ConstantTimeCompare([]byte(g.Refresh), []byte(digest(token))) != 1 {
		delete(p.state.Grants, id)
		p.saved()
		return nil, refuse("invalid_grant", "the refresh token was used before; its grant is revoked")
	}
	granted := scopes(strings.Fields(g.Scope))
	for _, s := range strings.Fields(form.Get("scope")) {
		if !granted.has(s) {
			return nil, refuse("invalid_scope", "scope exceeds what was granted")
		}
	}
	u, ok := p.user(g.Subject)
	if !ok {
		return nil, refuse("invalid_grant", "the user is gone")
	}
	return p.issue(id, g, u, ""), nil
}

// issued is a token response with what its ID token is made of.
type issued struct {
	tokens map[string]any
	grant  grant
	user   User
	nonce  string
	access string
	at     time.Time
}

// issue makes the token response of a grant, without the ID token. The caller
// holds p.mu.
func (p *Provider) issue(id string, g grant, u User, nonce string) *issued {
	now := p.options.Now()
	lifetime := p.options.AccessTokenLifetime
	access := p.secret()
	granted := scopes(strings.Fields(g.Scope))
	tokens := map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": int(lifetime / time.Second), "scope": g.Scope,
	}
	if !p.options.OfflineOnly || granted.has("offline_access") {
		refresh := id + "." + p.secret()
		g.Refresh = digest(refresh)
		tokens["refresh_token"] = refresh
	}
	p.tokens.put(digest(access), accessToken{grant: id, scope: granted}, now.Add(lifetime), now)
	p.state.Grants.put(id, g, now.Add(p.options.SessionLifetime), now)
	p.saved()
	return &issued{tokens, g, u, nonce, access, now}
}

// idToken makes an ID token (OpenID Connect Core §2). No lock is held, so that
// the fault hooks may call the provider.
func (p *Provider) idToken(out *issued) (string, error) {
	faults := p.trouble.current()
	g := out.grant
	claims := userClaims(out.user, strings.Fields(g.Scope), faults.GroupOverage)
	half := sha256.Sum256([]byte(out.access))
	amr := []string{"pwd"}
	if g.ACR == acrMFA {
		amr = []string{"pwd", "otp", "mfa"}
	}
	maps.Copy(claims, map[string]any{
		"iss": p.issuer, "aud": g.Client, "iat": out.at.Unix(), "exp": out.at.Add(p.options.AccessTokenLifetime).Unix(),
		"auth_time": g.AuthTime.Unix(), "acr": g.ACR, "amr": amr, "sid": g.SID,
		"at_hash": base64.RawURLEncoding.EncodeToString(half[:16]),
	})
	if out.nonce != "" {
		claims["nonce"] = out.nonce
	}
	header := p.Header()
	if faults.MutateIDToken != nil {
		faults.MutateIDToken(header, claims)
	}
	if faults.ForgeIDToken != nil {
		return faults.ForgeIDToken(claims), nil
	}
	return p.Sign(header, claims)
}

// userClaims returns what is said about a person. Groups need no scope, as with
// most providers that companies run.
func userClaims(u User, granted scopes, overage bool) map[string]any {
	claims := maps.Clone(u.Claims)
	if claims == nil {
		claims = map[string]any{}
	}
	claims["sub"] = u.Subject
	if granted.has("email") && u.Email != "" {
		claims["email"], claims["email_verified"] = u.Email, true
	}
	if granted.has("profile") {
		claims["name"], claims["preferred_username"] = u.Name, u.Username
	}
	switch {
	case overage:
		claims["_claim_names"] = map[string]any{"groups": "src1"}
		claims["_claim_sources"] = map[string]any{"src1": map[string]any{"endpoint": "https://graph.invalid/groups"}}
	case len(u.Groups) > 0:
		claims["groups"] = u.Groups
	}
	return claims
}

// userinfo answers OpenID Connect Core §5.3.
func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	p.mu.Lock()
	t, known := p.tokens.get(digest(token), p.options.Now())
	g, granted := p.state.Grants.get(t.grant, p.options.Now())
	u, there := p.user(g.Subject)
	p.mu.Unlock()
	if !strings.EqualFold(scheme, "Bearer") || !known || !granted || !there {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_token"})
		return
	}
	writeJSON(w, http.StatusOK, userClaims(u, t.scope, p.trouble.current().GroupOverage))
}

// revoke answers RFC 7009: revoking either token ends the grant.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) {
	client, err := p.authenticate(r)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	token := r.PostForm.Get("token")
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.options.Now()
	id, _, _ := strings.Cut(token, ".")
	if t, ok := p.tokens.get(digest(token), now); ok {
		id = t.grant
	} else if g, ok := p.state.Grants.get(id, now); !ok || g.Refresh != digest(token) {
		id = "" // unknown tokens need no revocation
	}
	if g, ok := p.state.Grants.get(id, now); ok && g.Client == client.ID {
		delete(p.state.Grants, id)
		p.saved()
	}
	w.WriteHeader(http.StatusOK)
}

// challengeS256 is the PKCE transformation (RFC 7636 §4.2).
func challengeS256(verifier string) string { return digest(verifier) }

// unreserved reports whether s consists of unreserved characters (RFC 3986 §2.3).
func unreserved(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0) {
			return false
		}
	}
	return true
}

// fail sends an error response (RFC 6749 §5.2).
func (p *Provider) fail(w http.ResponseWriter, r *http.Request, err error) {
	fault, ok := err.(*oauthError)
	if !ok {
		fault = &oauthError{http.StatusInternalServerError, "server_error", "the provider failed"}
	}
	p.options.Log.Info("refused", "path", r.URL.Path, "err", err)
	if _, _, basic := r.BasicAuth(); basic && fault.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
	}
	writeJSON(w, fault.status, map[string]string{"error": fault.code, "error_description": fault.description})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}
