package authn

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/doorward/doorward/internal/access"
)

// loginRequest is a login somebody wants to begin. All of it may come from a
// URL, so nothing in it decides anything.
type loginRequest struct {
	// Return is where to go afterwards, a local path on this host.
	Return   string
	Ask      access.LoginRequire
	Provider string
	Hint     string // e-mail address for the provider's login page
	Email    string // typed on the chooser
	Switch   bool   // let the visitor choose another account
	Again    bool   // the one silent second try

	// To, Flow and Challenge come from an application's host, for the login host
	// to hand the login over.
	To, Flow, Challenge string
}

// Begin answers a navigation with the redirect that logs the visitor in, or
// steps the login up to what ask demands, and that comes back to the same
// address. provider is the route's provider, or empty.
//
// It returns an *access.Error without having written a body if no login can
// begin: ProviderUnavailable, LoginLoop, LoginFailed or TooManyLogins where the
// request is pushed to the provider, or InternalError.
func (a *Authenticator) Begin(w http.ResponseWriter, r *http.Request, req *access.Request, ask access.LoginRequire, provider string) error {
	lr := loginRequest{Return: returnOf(r.URL), Ask: ask, Provider: provider}
	if known := a.clients[req.Identity.Provider]; known != nil {
		if provider == "" {
			lr.Provider = known.cfg.ID // a step-up is for the same person
		}
		if lr.Provider == known.cfg.ID {
			lr.Hint = req.Identity.Email // which is no other provider's business
		}
	}
	return a.recordFailure(req, a.start(w, r, req, lr))
}

// serveLogin answers /.doorward/login. These links are public:
//
//	/.doorward/login?return=/path            log in and go to /path on this host
//	/.doorward/login?return=/path&switch=1   the same with another account
//
// A live session that will do is not asked to log in again, except by switch=1.
func (a *Authenticator) serveLogin(w http.ResponseWriter, r *http.Request, req *access.Request) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	lr, err := a.parseLogin(form, req.Origin())
	if err != nil {
		return err
	}
	if err := a.identifySession(r, req); err != nil {
		return err
	}
	here := !lr.Switch && !req.Identity.Nobody() &&
		(lr.Provider == "" || lr.Provider == req.Identity.Provider) && satisfied(&req.Identity.Login, lr.Ask, a.now())
	switch {
	case here && lr.To != "":
		err := a.handOver(w, r, req, soleCookie(r, CookieName(req.Scheme)), &flow{To: lr.To, Remote: lr.Flow, Challenge: lr.Challenge})
		// A session that has just ended, or that was handed over to this host before
		// it became the login host, cannot be handed on: that takes a new login.
		if !access.ReasonOf(err).CuredByLogin() {
			return err
		}
	case here:
		redirect(w, req.Origin()+lr.Return)
		return nil
	}
	return a.start(w, r, req, lr)
}

// parseLogin reads the parameters of the login page, each at most once.
func (a *Authenticator) parseLogin(form url.Values, origin string) (lr loginRequest, err error) {
	for name, values := range form {
		if len(values) != 1 {
			return lr, access.Becausef(access.BadRequest, "%.20q is given %d times", name, len(values))
		}
	}
	lr = loginRequest{
		Return: "/", Provider: form.Get("provider"), Email: form.Get("email"),
		Switch: form.Get("switch") != "", Again: form.Get("again") != "",
		To: form.Get("to"), Flow: form.Get("flow"), Challenge: form.Get("challenge"),
	}
	var ok bool
	if lr.Ask, ok = readAsk(form); !ok {
		return lr, access.Because(access.BadRequest, errors.New("a malformed demand on the login"))
	}
	if text := form.Get("return"); text != "" {
		if lr.Return, ok = parseGoal(text); !ok {
			return lr, access.Becausef(access.ReturnURLInvalid, "return address %.100q", text)
		}
	}
	if lr.Provider != "" && a.clients[lr.Provider] == nil {
		return lr, access.Becausef(access.BadRequest, "there is no provider %.40q", lr.Provider)
	}
	if lr.To == "" && lr.Flow == "" && lr.Challenge == "" {
		return lr, nil
	}
	to, ok := parseOrigin(lr.To)
	if !ok || origin != a.authURL || !a.owns(to) {
		return lr, access.Becausef(access.ReturnURLInvalid, "a login for %.100q", lr.To)
	}
	if len(lr.Challenge) != 43 || lr.Flow == "" || len(lr.Flow) > maxSealed/2 || !isScope(lr.Flow) || !isScope(lr.Challenge) {
		return lr, access.Because(access.BadRequest, errors.New("an incomplete handover"))
	}
	return lr, nil
}

// values is the inverse of parseLogin, for links to the login page.
func (lr *loginRequest) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{
		"return": lr.Return, "provider": lr.Provider, "to": lr.To, "flow": lr.Flow, "challenge": lr.Challenge,
	} {
		if value != "" && value != "/" {
			v.Set(name, value)
		}
	}
	if lr.Switch {
		v.Set("switch", "1")
	}
	if lr.Again {
		v.Set("again", "1")
	}
	addAsk(v, lr.Ask)
	return v
}

// start begins a login on this host: with a provider, or by way of the login host.
func (a *Authenticator) start(w http.ResponseWriter, r *http.Request, req *access.Request, lr loginRequest) error {
	origin := req.Origin()
	j := a.openJar(r, origin)
	away := a.authURL != "" && origin != a.authURL
	var c *client
	if !away {
		if c = a.choose(&lr, j); c == nil {
			return a.askWhere(w, req, lr)
		}
	}
	// The login host does not count: it sees an application, not an address, and
	// many tabs of one application are no loop.
	if lr.To == "" && j.looping(lr.Return, a.now()) {
		return access.Becausef(access.LoginLoop, "more than %d logins within %s for the same address", maxAttempts, loopWindow)
	}
	if away {
		return a.goToLoginHost(w, origin, j, lr)
	}
	return a.goToProvider(w, r, origin, j, c, lr)
}

// begin makes the two halves of a login in flight and puts one into the jar.
func (a *Authenticator) begin(j *jar, lr *loginRequest) (*flow, *pending, error) {
	id, err := a.seal.token(16)
	if err != nil {
		return nil, nil, err
	}
	verifier, err := a.seal.token(32) // 43 characters, as RFC 7636 §4.1 wants
	if err != nil {
		return nil, nil, err
	}
	nonce, err := a.seal.token(16)
	if err != nil {
		return nil, nil, err
	}
	now := a.now().Unix()
	f := &flow{
		ID: id, Started: now, Ask: lr.Ask, Again: lr.Again, Return: lr.Return,
		To: lr.To, Remote: lr.Flow, Challenge: lr.Challenge,
	}
	p := pending{ID: id, Started: now, Verifier: verifier, Nonce: nonce}
	if len(lr.Return) > maxInURL {
		f.Return, p.Return = "", lr.Return
	}
	j.Pending = append(j.Pending, p)
	return f, &j.Pending[len(j.Pending)-1], nil
}

// goToProvider sends the authorization request (OpenID Connect Core §3.1.2.1).
func (a *Authenticator) goToProvider(w http.ResponseWriter, r *http.Request, origin string, j *jar, c *client, lr loginRequest) error {
	meta, err := c.metadata.Get(r.Context())
	if err != nil {
		return access.Becausef(access.ProviderUnavailable, "provider %s: %w", c.cfg.ID, err)
	}
	f, p, err := a.begin(j, &lr)
	if err != nil {
		return err
	}
	f.Provider = c.cfg.ID
	state, err := a.seal.seal(f, forProvider, origin)
	if err != nil {
		return err
	}
	params := stepUpParams(lr.Ask, meta.claimsParameter, &c.levels)
	params.Set("nonce", p.Nonce)
	if lr.Switch {
		params.Set("prompt", "select_account")
	} else if lr.Hint != "" {
		params.Set("login_hint", lr.Hint)
	}
	params.Set("state", state)
	params.Set("redirect_uri", origin+access.CallbackPath)
	to, err := c.authorizationURL(r.Context(), meta, params, p)
	if err != nil {
		return err
	}
	if err := a.closeJar(w, origin, j); err != nil {
		return err
	}
	redirect(w, to)
	return nil
}

// authorizationURL is where the browser takes an authorization request
// (RFC 6749 §4.1.1) with a challenge for the code (RFC 7636 §4.3). Pushed, the
// request itself stays between the provider and us.
func (c *client) authorizationURL(ctx context.Context, meta *metadata, params url.Values, p *pending) (string, error) {
	if err := c.agree(meta); err != nil {
		return "", access.Becausef(access.LoginFailed, "provider %s: %w", c.cfg.ID, err)
	}
	key, err := c.proofKey("")
	if err != nil {
		return "", err
	}
	p.Key = key.text()
	params.Set("response_type", "code")
	params.Set("client_id", c.cfg.ClientID)
	params.Set("scope", strings.Join(c.cfg.scopes(), " "))
	params.Set("code_challenge", oauth2.S256ChallengeFromVerifier(p.Verifier))
	params.Set("code_challenge_method", "S256")
	switch {
	case c.pushes(meta):
		if params, err = c.push(ctx, meta, params, key); err != nil {
			return "", err
		}
	case key != nil:
		params.Set("dpop_jkt", key.public.thumbprint()) // RFC 9449 §10
	}
	u, err := url.Parse(meta.authorization)
	if err != nil {
		return "", access.Because(access.LoginFailed, err)
	}
	query := u.Query()
	maps.Copy(query, params)
	u.RawQuery = query.Encode()
	return u.String(), nil
}

const maxForm = 16 << 10

// readForm returns the query of a GET or the form of a POST.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		form, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return nil, access.Because(access.BadRequest, err)
		}
		return form, nil
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			return nil, access.Because(access.BadRequest, err)
		}
		return r.PostForm, nil
	}
	return nil, access.Becausef(access.BadRequest, "method %.20q", r.Method)
}
