package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
)

// serveCallback answers /.doorward/callback: a provider's answer, or the login
// host's.
func (a *Authenticator) serveCallback(w http.ResponseWriter, r *http.Request, req *access.Request) error {
	if r.Method != http.MethodGet {
		return access.Becausef(access.BadRequest, "a callback by %.20q", r.Method)
	}
	form, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return access.Because(access.BadRequest, err)
	}
	for name, values := range form {
		if len(values) > 1 {
			return access.Becausef(access.LoginFailed, "the callback says %.20q twice", name) // RFC 6749 §3.1
		}
	}
	if form.Has("flow") {
		return a.takeOver(w, r, req, form)
	}
	return a.finish(w, r, req, form)
}

// finish ends a login with a provider (OpenID Connect Core §3.1.2.5 on).
func (a *Authenticator) finish(w http.ResponseWriter, r *http.Request, req *access.Request, form url.Values) error {
	origin := req.Origin()
	var f flow
	if err := a.seal.open(form.Get("state"), &f, forProvider, origin); err != nil {
		return access.Because(access.LoginStateUnknown, err)
	}
	j := a.openJar(r, origin)
	p, ok := j.take(f.ID)
	if !ok || outdated(f.Started, a.now(), flowLife) {
		return a.restart(w, req, &f, &p, "the login was not begun in this browser, or answered before")
	}
	secret, err := a.complete(r, req, form, &f, &p)
	if err == nil {
		j.Last = f.Provider
	}
	// The login is over, whatever came of it.
	if err := a.closeJar(w, origin, j); err != nil {
		return err
	}
	if err == nil {
		setSession(w, origin, secret)
		if f.To == "" {
			redirect(w, origin+f.goal(&p))
			return nil
		}
		err = a.handOver(w, r, req, secret, &f)
	}
	if err != nil && f.To != "" {
		return a.sendBack(w, req, &f, err)
	}
	return err
}

// complete judges a provider's answer to a login of this browser, and returns
// the secret of the session that it led to.
func (a *Authenticator) complete(r *http.Request, req *access.Request, form url.Values, f *flow, p *pending) (secret string, err error) {
	origin := req.Origin()
	c := a.clients[f.Provider]
	if c == nil {
		return "", access.Becausef(access.LoginFailed, "provider %q was removed meanwhile", f.Provider)
	}
	meta, err := c.metadata.Get(r.Context())
	if err != nil {
		return "", access.Becausef(access.ProviderUnavailable, "provider %s: %w", c.cfg.ID, err)
	}
	if err := checkSender(form, meta, c.cfg.Issuer); err != nil {
		return "", err
	}
	if form.Has("error") {
		return "", providerRefusal(form.Get("error"), f.Ask)
	}
	code := form.Get("code")
	if code == "" {
		return "", access.Because(access.LoginFailed, errors.New("the callback holds neither a code nor an error"))
	}
	if err := a.burn(r.Context(), meta, code); err != nil {
		return "", err
	}
	start, err := c.redeem(r, meta, origin+access.CallbackPath, code, p, f.Ask)
	if err != nil {
		return "", err
	}
	if !satisfied(&start.Identity.Login, f.Ask, a.now()) {
		login := &start.Identity.Login
		return "", &failedLogin{start.Identity.User(), access.Becausef(access.StepUpFailed, "asked for %+v, got acr %.40q, amr %.80q, auth_time %s",
			f.Ask, login.ACR, login.AMR, login.Time)}
	}
	start.Origin, start.Previous = origin, soleCookie(r, CookieName(req.Scheme))
	secret, entry, err := a.sessions.Start(r.Context(), start)
	if err != nil {
		return "", err
	}
	a.recordLogin(req, entry, "by "+c.cfg.ID)
	return secret, nil
}

// checkSender makes sure that the answer comes from the provider this login went
// to, before the code goes anywhere (RFC 9207 §2.4). It applies to errors, too.
func checkSender(form url.Values, meta *metadata, issuer string) error {
	if !form.Has("iss") {
		if meta.callbackIssuer {
			return access.Because(access.LoginMixUp, errors.New("the callback does not name its issuer, although the provider says it does"))
		}
		return nil
	}
	if subtle.ConstantTimeCompare([]byte(form.Get("iss")), []byte(issuer)) != 1 {
		return access.Becausef(access.LoginMixUp, "the callback is from %.200q, the login went to %q", form.Get("iss"), issuer)
	}
	return nil
}

// codeLife is how long a provider's code is good at most (RFC 6749 §4.1.2).
const codeLife = 10 * time.Minute

// burn makes a code count once, before it goes anywhere, where nothing tells who
// it is from: several providers, of which this one does not name itself. Any of
// them could lead a visitor on to another one, whose code we would then carry to
// its own token endpoint (RFC 9700 §4.4). Brought back in a login of somebody
// else's, that code must not count again.
func (a *Authenticator) burn(ctx context.Context, meta *metadata, code string) error {
	if meta.callbackIssuer || len(a.order) < 2 {
		return nil
	}
	err := a.sessions.Once(ctx, "code", code, a.now().Add(codeLife), func() error { return nil })
	if errors.Is(err, session.ErrRepeated) {
		return access.Becausef(access.LoginMixUp, "the code was in a callback before: %w", err)
	}
	return err
}

// providerRefusal gives an error response (OpenID Connect Core §3.1.2.6) its reason.
func providerRefusal(code string, ask access.LoginRequire) error {
	reason := access.LoginFailed
	switch code {
	case "access_denied", "login_required", "interaction_required", "consent_required", "account_selection_required":
		reason = access.LoginRefused
		if !ask.IsZero() && code != "access_denied" {
			reason = access.StepUpFailed
		}
	case "unmet_authentication_requirements":
		reason = access.StepUpFailed
	case "temporarily_unavailable", "server_error":
		reason = access.ProviderUnavailable
	}
	return access.Becausef(reason, "the provider answered %.60q", code)
}

// redeem exchanges the code for tokens and verifies who they are about.
func (c *client) redeem(r *http.Request, meta *metadata, redirect, code string, p *pending, ask access.LoginRequire) (session.Start, error) {
	ctx := r.Context()
	answer, err := c.exchange(ctx, meta, redirect, code, p)
	if err != nil {
		return session.Start{}, err
	}
	if answer.idToken == "" {
		return session.Start{}, access.Because(access.LoginFailed, errors.New("the token endpoint gave no ID token"))
	}
	token, err := c.verify(ctx, answer.idToken, expectation{nonce: p.Nonce, authTime: ask.MaxAge > 0, accessToken: answer.access})
	if errors.Is(err, jose.ErrNoKeys) {
		return session.Start{}, access.Because(access.ProviderUnavailable, err)
	}
	if err != nil {
		return session.Start{}, access.Becausef(access.LoginFailed, "ID token of %s: %w", c.cfg.ID, err)
	}
	start := session.Start{Identity: c.identity(ctx, token, answer), Tokens: c.tokens(answer), SID: text(token.claims, "sid")}
	if end, present, err := token.claims.Time("session_expiry"); err != nil {
		return session.Start{}, access.Because(access.LoginFailed, err)
	} else if present {
		start.NotAfter = end // the provider's own limit (IPSIE SL1)
	}
	return start, nil
}

// goal is where the visitor was going.
func (f *flow) goal(p *pending) string {
	for _, text := range []string{p.Return, f.Return} {
		if to, ok := parseGoal(text); ok {
			return to
		}
	}
	return "/"
}

// restart begins a login again that cannot be finished: begun too long ago, in a
// browser that lost its cookie, or answered before. It does so once and silently;
// often another tab has logged in meanwhile and nothing is left to do.
func (a *Authenticator) restart(w http.ResponseWriter, req *access.Request, f *flow, p *pending, why string) error {
	err := access.Becausef(access.LoginStateUnknown, "%s, started %s", why, time.Unix(f.Started, 0).UTC().Format(time.RFC3339))
	if f.Again {
		return err
	}
	a.log.Info("login begins again", "request", req.ID, "error", err)
	if f.To != "" {
		// The application's host knows where the visitor was going.
		redirect(w, f.To+access.CallbackPath+"?"+url.Values{"flow": {f.Remote}}.Encode())
		return nil
	}
	lr := loginRequest{Return: f.goal(p), Again: true, Ask: f.Ask}
	if a.clients[f.Provider] != nil {
		lr.Provider = f.Provider
	}
	redirect(w, req.Origin()+access.LoginPath+"?"+lr.values().Encode())
	return nil
}
