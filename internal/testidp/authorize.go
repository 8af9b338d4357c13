package testidp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The authentication context classes this provider knows.
const (
	acrPassword = "pwd"
	acrMFA      = "mfa"
)

// authRequest is one valid authorization request (OpenID Connect Core §3.1.2.1).
type authRequest struct {
	client      *Client
	redirectURI string
	state       string
	nonce       string
	challenge   string
	scope       scopes
	prompt      []string
	loginHint   string
	subject     string        // who the client expects, from id_token_hint or claims
	maxAge      time.Duration // negative: any
	acr         []string      // wanted classes, the best liked first
	acrRequired bool          // the client called acr essential
}

// scopes is a set of scope values.
type scopes []string

func (s scopes) has(v string) bool { return slices.Contains(s, v) }

// noRedirect is a fault in what says where to redirect to, so that the answer
// has to be a page (RFC 6749 §4.1.2.1).
type noRedirect struct{ text string }

func (e *noRedirect) Error() string { return e.text }

// oauthError is an error response in the terms of OAuth 2.0.
type oauthError struct {
	status      int
	code        string
	description string
}

func (e *oauthError) Error() string { return e.code + ": " + e.description }

func refuse(code, format string, args ...any) *oauthError {
	return &oauthError{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

// parseAuthorize validates a request. Together with a redirectable error it
// returns as much of the request as the error response needs.
func (p *Provider) parseAuthorize(form url.Values) (*authRequest, error) {
	client := p.clients[form.Get("client_id")]
	if client == nil || len(form["client_id"]) != 1 {
		return nil, &noRedirect{"The application that sent you here is not registered with this provider."}
	}
	uri := form.Get("redirect_uri")
	if u, err := url.Parse(uri); err != nil || !absoluteHTTP(u) || len(form["redirect_uri"]) != 1 ||
		client.RedirectURI == nil || !client.RedirectURI(uri) {
		return nil, &noRedirect{"The application that sent you here asked for an answer at an address that is not registered."}
	}
	req := &authRequest{
		client: client, redirectURI: uri, state: form.Get("state"), nonce: form.Get("nonce"),
		challenge: form.Get("code_challenge"), loginHint: form.Get("login_hint"),
		scope: strings.Fields(form.Get("scope")), prompt: strings.Fields(form.Get("prompt")),
		maxAge: -1, acr: strings.Fields(form.Get("acr_values")),
	}
	for name, values := range form {
		if len(values) > 1 {
			return req, refuse("invalid_request", "%s occurs more than once", name)
		}
	}
	return req, errors.Join(req.checkForm(form), p.readExpectations(req, form))
}

func (req *authRequest) checkForm(form url.Values) error {
	switch {
	case form.Has("request"):
		return refuse("request_not_supported", "request objects are not supported")
	case form.Has("request_uri"):
		return refuse("request_uri_not_supported", "request objects are not supported")
	case form.Get("response_type") != "code":
		return refuse("unsupported_response_type", "only the authorization code flow is supported")
	case form.Has("response_mode") && form.Get("response_mode") != "query":
		return refuse("invalid_request", "only response_mode query is supported")
	case !req.scope.has("openid"):
		return refuse("invalid_scope", "scope openid is missing")
	case form.Get("code_challenge_method") != "S256":
		return refuse("invalid_request", "PKCE with code_challenge_method S256 is required")
	case len(req.challenge) != 43 || !unreserved(req.challenge):
		return refuse("invalid_request", "code_challenge is not a SHA-256 in base64url")
	case slices.Contains(req.prompt, "none") && len(req.prompt) > 1:
		return refuse("invalid_request", "prompt none excludes all others")
	}
	for _, v := range req.prompt {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, v) {
			return refuse("invalid_request", "unknown prompt value")
		}
	}
	if text := form.Get("max_age"); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return refuse("invalid_request", "max_age is not a number of seconds")
		}
		req.maxAge = time.Duration(seconds) * time.Second
	}
	return nil
}

// readExpectations reads who the client expects and how sure it wants to be:
// the claims parameter (OpenID Connect Core §5.5) and id_token_hint.
func (p *Provider) readExpectations(req *authRequest, form url.Values) error {
	if text := form.Get("claims"); text != "" {
		type wanted struct {
			Essential bool     `json:"essential"`
			Value     string   `json:"value"`
			Values    []string `json:"values"`
		}
		var claims struct {
			IDToken struct {
				ACR *wanted `json:"acr"`
				Sub *wanted `json:"sub"`
			} `json:"id_token"`
		}
		if err := json.Unmarshal([]byte(text), &claims); err != nil {
			return refuse("invalid_request", "the claims parameter is not the JSON it should be")
		}
		if acr := claims.IDToken.ACR; acr != nil {
			req.acrRequired = acr.Essential
			req.acr = acr.Values
			if acr.Value != "" {
				req.acr = []string{acr.Value}
			}
		}
		if sub := claims.IDToken.Sub; sub != nil {
			req.subject = sub.Value
		}
	}
	if hint := form.Get("id_token_hint"); hint != "" {
		claims, err := p.readHint(hint)
		if err != nil {
			return refuse("invalid_request", "id_token_hint is not one of our ID tokens")
		}
		req.subject, _ = claims["sub"].(string)
	}
	return nil
}

// step is what has to happen next in a login.
type step int

const (
	askPassword step = iota
	askFactor
	done
)

// next decides what a login still needs, given the browser's session, if any.
// entered tells that the person gave a password within this login; only that
// satisfies prompt=login. On done it also returns the class to report.
func (req *authRequest) next(s *session, u User, entered, ignoreACR bool, now time.Time) (step, string, error) {
	silent := slices.Contains(req.prompt, "none")
	again := slices.Contains(req.prompt, "login") || slices.Contains(req.prompt, "select_account") ||
		req.maxAge == 0 || s != nil && req.maxAge > 0 && now.Sub(s.AuthTime) > req.maxAge
	if s == nil || again && !entered || req.subject != "" && req.subject != s.Subject {
		if silent {
			return 0, "", refuse("login_required", "nobody is logged in as asked")
		}
		return askPassword, "", nil
	}
	if ignoreACR {
		return done, acrPassword, nil
	}
	for _, class := range req.acr {
		switch {
		case class == acrPassword, class == acrMFA && s.MFA:
			return done, class, nil
		case class == acrMFA && u.MFA && silent:
			return 0, "", refuse("interaction_required", "a second factor is needed")
		case class == acrMFA && u.MFA:
			return askFactor, "", nil
		}
	}
	if req.acrRequired && len(req.acr) > 0 {
		return 0, "", refuse("unmet_authentication_requirements", "%s cannot log in in the way asked for", u.Username)
	}
	if s.MFA {
		return done, acrMFA, nil
	}
	return done, acrPassword, nil
}

// authorize begins a login (OpenID Connect Core §3.1.2).
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.errorPage(w, "The request that sent you here cannot be read.")
		return
	}
	req, err := p.parseAuthorize(r.Form)
	if page, ok := errors.AsType[*noRedirect](err); ok {
		p.errorPage(w, page.text)
		return
	}
	if err != nil {
		p.redirectError(w, r, req, err)
		return
	}
	id := p.secret()
	f := &flow{id: id, authRequest: req}
	now := p.options.Now()
	p.mu.Lock()
	p.flows.put(digest(id), f, now.Add(flowLifetime), now)
	p.mu.Unlock()
	p.proceed(w, r, f)
}

// answer sends the browser back to the client (RFC 9207 adds iss).
func (p *Provider) answer(w http.ResponseWriter, r *http.Request, req *authRequest, params url.Values) {
	if req.state != "" {
		params.Set("state", req.state)
	}
	switch faults := p.trouble.current(); {
	case faults.OmitCallbackIssuer:
	case faults.CallbackIssuer != "":
		params.Set("iss", faults.CallbackIssuer)
	default:
		params.Set("iss", p.issuer)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer") // the address holds a code
	http.Redirect(w, r, withQuery(req.redirectURI, params), http.StatusSeeOther)
}

func (p *Provider) redirectError(w http.ResponseWriter, r *http.Request, req *authRequest, err error) {
	fault, ok := errors.AsType[*oauthError](err)
	if !ok {
		fault = refuse("server_error", "the provider failed")
	}
	p.options.Log.Info("login refused", "client", req.client.ID, "err", err)
	p.answer(w, r, req, url.Values{"error": {fault.code}, "error_description": {fault.description}})
}

// withQuery adds parameters to a registered address, which may have a query of
// its own. The caller has parsed the address before.
func withQuery(address string, params url.Values) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	if len(params) == 0 {
		return address
	}
	return address + separator + params.Encode()
}

// at returns the address of an endpoint.
func (p *Provider) at(path string) string { return strings.TrimSuffix(p.issuer, "/") + "/" + path }
