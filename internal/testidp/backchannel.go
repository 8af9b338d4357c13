package testidp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// LogoutEvent is the one member of a logout token's events claim.
const LogoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logoutNotice is one back-channel logout to be sent.
type logoutNotice struct {
	client       *Client
	subject, sid string
}

// LogoutUser ends all single sign-on sessions and grants of a person, as an
// administrator would, and tells the clients that took part in them. The error
// says which of them did not accept it.
func (p *Provider) LogoutUser(ctx context.Context, subject string) error {
	p.mu.Lock()
	notices := p.endSessions(func(s session) bool { return s.Subject == subject }, func(g grant) bool { return g.Subject == subject })
	p.mu.Unlock()
	return p.send(ctx, notices)
}

// endSessions ends sessions and grants and returns who has to be told. The
// caller holds p.mu and sends the notices without it: clients may call back.
func (p *Provider) endSessions(ends func(session) bool, endsGrant func(grant) bool) (notices []logoutNotice) {
	for name, s := range p.state.Sessions {
		if ends(s.Value) {
			delete(p.state.Sessions, name)
		}
	}
	told := map[logoutNotice]bool{}
	for _, g := range p.state.Grants {
		n := logoutNotice{p.clients[g.Value.Client], g.Value.Subject, g.Value.SID}
		if endsGrant(g.Value) && n.client != nil && n.client.BackchannelLogoutURI != "" && !told[n] {
			told[n] = true
			notices = append(notices, n)
		}
	}
	p.endGrants(endsGrant)
	return notices
}

// LogoutClaims returns the claims of a lawful logout token for a client (OpenID
// Connect Back-Channel Logout 1.0 §2.4). Tests change them and Sign the result.
func (p *Provider) LogoutClaims(client, subject, sid string) map[string]any {
	now := p.options.Now()
	claims := map[string]any{
		"iss": p.issuer, "aud": client, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": p.secret(),
		"events": map[string]any{LogoutEvent: map[string]any{}},
	}
	if subject != "" {
		claims["sub"] = subject
	}
	if sid != "" {
		claims["sid"] = sid
	}
	return claims
}

// LogoutToken signs LogoutClaims.
func (p *Provider) LogoutToken(client, subject, sid string) (string, error) {
	header := p.Header()
	header["typ"] = "logout+jwt"
	return p.Sign(header, p.LogoutClaims(client, subject, sid))
}

// logoutPatience is how long one client may take to accept a logout.
const logoutPatience = 5 * time.Second

// send tells clients that sessions have ended (§2.5).
func (p *Provider) send(ctx context.Context, notices []logoutNotice) error {
	var failed []error
	for _, n := range notices {
		if err := p.sendOne(ctx, n); err != nil {
			p.options.Log.Warn("client not told of a logout", "client", n.client.ID, "err", err)
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (p *Provider) sendOne(ctx context.Context, n logoutNotice) error {
	token, err := p.LogoutToken(n.client.ID, n.subject, n.sid)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, logoutPatience)
	defer cancel()
	form := url.Values{"logout_token": {token}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.client.BackchannelLogoutURI, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("testidp: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := p.options.Transport.RoundTrip(r) // follows no redirect
	if err != nil {
		return fmt.Errorf("testidp: %w", err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("testidp: %s answered %d %q", n.client.BackchannelLogoutURI, resp.StatusCode, answer)
	}
	return nil
}
