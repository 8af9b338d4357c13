package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
)

const (
	// backChannelEvent is the one event a logout token may be about.
	backChannelEvent = "http://schemas.openid.net/event/backchannel-logout"

	maxLogoutForm = 64 << 10
	maxJTI        = 512 // bytes of jti, sub and sid
	// maxLogoutAge bounds how long a jti has to be remembered, whatever exp says.
	maxLogoutAge = 24 * time.Hour
	// logoutTimeout is how long ending the sessions may take. It does not depend
	// on how long the provider waits: some give up after two seconds.
	logoutTimeout = 10 * time.Second
)

// serveBackChannel answers /.doorward/backchannel-logout (OpenID Connect
// Back-Channel Logout 1.0 §2.5 on). Anyone may call it, without a cookie: the
// token alone says who asks and for what. It ends logins, and with them the
// sessions of all applications.
//
// The answer goes to a program of the provider's. It is 200 only if the sessions
// have ended and the token can never count again.
func (a *Authenticator) serveBackChannel(w http.ResponseWriter, r *http.Request, req *access.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		answerLogout(w, http.StatusMethodNotAllowed, access.BadRequest)
		return
	}
	event := &access.Event{Kind: access.EventLogout, RequestID: req.ID, Reason: access.SessionEnded}
	err := a.backChannel(w, r, event)
	if err != nil {
		event.Reason, event.Note = access.ReasonOf(err), "a back-channel logout was refused"
		a.log.Warn("back-channel logout refused", "request", req.ID, "reason", event.Reason, "error", err)
	}
	event.Time = a.now()
	a.emit(event)
	if err != nil {
		answerLogout(w, event.Reason.Info().Status, event.Reason)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// backChannel does what a logout token says, and notes it in the event.
func (a *Authenticator) backChannel(w http.ResponseWriter, r *http.Request, event *access.Event) error {
	raw, err := readLogoutForm(w, r)
	if err != nil {
		return access.Because(access.BadRequest, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), logoutTimeout)
	defer cancel()
	c, err := a.sender(raw)
	if err != nil {
		return access.Because(access.LogoutTokenInvalid, err)
	}
	token, err := c.verifyLogout(ctx, raw)
	switch {
	case errors.Is(err, jose.ErrNoKeys):
		return access.Becausef(access.ProviderUnavailable, "logout token of %s: %w", c.cfg.ID, err)
	case err != nil:
		return access.Becausef(access.LogoutTokenInvalid, "logout token of %s: %w", c.cfg.ID, err)
	}
	if token.subject != "" {
		event.Actor = c.cfg.ID + ":" + token.subject
	}
	ended := 0
	err = a.sessions.Once(ctx, c.cfg.Issuer, token.id, token.forget, func() (err error) {
		ended, err = a.sessions.Revoke(ctx, token.match(c.cfg.Issuer), access.SessionEnded, "back-channel logout of "+c.cfg.ID)
		return err
	})
	if errors.Is(err, session.ErrRepeated) {
		return access.Becausef(access.LogoutTokenRepeated, "logout token of %s: %w", c.cfg.ID, err)
	}
	event.Note = fmt.Sprintf("back-channel logout of %s: %d logins ended", c.cfg.ID, ended)
	return err
}

// readLogoutForm returns the logout token of a request (§2.5). What else the form
// holds is ignored, as the specification wants it; the address is not looked at,
// since tokens do not belong there.
func readLogoutForm(w http.ResponseWriter, r *http.Request) (string, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return "", fmt.Errorf("a logout in a body of type %.60q", r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLogoutForm))
	if err != nil {
		return "", err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", errors.New("the form cannot be read") // the parser's own words quote it
	}
	tokens := form["logout_token"]
	if len(tokens) != 1 || tokens[0] == "" {
		return "", fmt.Errorf("a form with %d logout tokens", len(tokens))
	}
	return tokens[0], nil
}

// sender finds the provider that a token claims to be from. Nothing is verified
// by that: the claim only chooses whose keys and rules apply. Of several clients
// at one provider it is the one the token claims to be for.
func (a *Authenticator) sender(raw string) (*client, error) {
	_, claims, _, err := jose.Parse(raw)
	if err != nil {
		return nil, err
	}
	iss, err := claims.Text("iss")
	if err != nil {
		return nil, err
	}
	aud, err := claims.TextOrTexts("aud")
	if err != nil {
		return nil, err
	}
	var found *client
	for _, c := range a.order {
		if c.cfg.Issuer == iss && (found == nil || slices.Contains(aud, c.cfg.ClientID) && !slices.Contains(aud, found.cfg.ClientID)) {
			found = c
		}
	}
	if found == nil {
		return nil, errors.New("the token is from no provider of ours")
	}
	return found, nil
}

// logoutToken is a verified logout token.
type logoutToken struct {
	id, subject, sid string
	// forget is when the token has ended by itself.
	forget time.Time
}

// match selects the logins the token is about: the one session it names, or
// without a name all of the person's (§2.7).
func (t *logoutToken) match(issuer string) session.Match {
	if t.sid != "" {
		return session.Match{Issuer: issuer, SID: t.sid}
	}
	return session.Match{Issuer: issuer, Subject: t.subject}
}

// verifyLogout accepts a logout token of this provider for this client, or says
// why not (§2.6). A typ is not demanded, as many providers send none or JWT; the
// event keeps ID tokens out, and the absence of it keeps logout tokens from being
// ID tokens.
func (c *client) verifyLogout(ctx context.Context, raw string) (*logoutToken, error) {
	claims, _, err := c.signed(ctx, raw, "logout+jwt", "JWT")
	if err != nil {
		return nil, err
	}
	if iss, err := claims.Text("iss"); err != nil || iss != c.cfg.Issuer {
		return nil, errors.New("the token is from another issuer")
	}
	if err := c.checkAudience(claims); err != nil {
		return nil, err
	}
	if _, err := c.checkTimes(claims, false); err != nil {
		return nil, err
	}
	events, ok := claims["events"].(map[string]any)
	if !ok {
		return nil, errors.New("the token is not about events")
	}
	if _, ok := events[backChannelEvent].(map[string]any); !ok {
		return nil, errors.New("the token is not about a logout")
	}
	if _, present := claims["nonce"]; present {
		return nil, errors.New("the token has a nonce, which belongs to ID tokens")
	}
	t := new(logoutToken)
	for name, into := range map[string]*string{"jti": &t.id, "sub": &t.subject, "sid": &t.sid} {
		if *into, err = claims.Text(name); err != nil {
			return nil, err
		}
		if _, present := claims[name]; present && *into == "" || len(*into) > maxJTI {
			return nil, fmt.Errorf("%s is empty or too long", name)
		}
	}
	if t.id == "" {
		return nil, errors.New("the token has no jti, so it could be used twice")
	}
	if t.subject == "" && t.sid == "" {
		return nil, errors.New("the token names neither a person nor a session")
	}
	exp, _, _ := claims.Time("exp") // checkTimes has read both
	iat, _, _ := claims.Time("iat")
	oldest := iat.Add(maxLogoutAge)
	if !c.now().Before(oldest.Add(skew)) {
		return nil, fmt.Errorf("the token was issued at %s, too long ago", iat.Format(time.RFC3339))
	}
	if t.forget = exp; oldest.Before(exp) {
		t.forget = oldest
	}
	t.forget = t.forget.Add(skew)
	return t, nil
}

// answerLogout writes an error response (§2.8).
func answerLogout(w http.ResponseWriter, status int, reason access.Reason) {
	code := "invalid_request"
	if status >= http.StatusInternalServerError {
		code = "server_error"
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	info := reason.Info()
	_ = json.NewEncoder(w).Encode(map[string]string{ // an error means that the caller is gone
		"error": code, "error_description": info.Title + ". " + info.Text,
	})
}
