package devicecheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// A token is renewed this long before it expires, or after three quarters
	// of its life where that is shorter.
	tokenMargin = time.Minute
	// tokenLife is how long a token counts that does not say it (RFC 6749 §5.1).
	tokenLife = 5 * time.Minute
	// maxTokenLife is the longest life that is believed.
	maxTokenLife = 24 * time.Hour
)

// tokens gets bearer tokens (RFC 6750) and keeps the current one.
type tokens struct {
	now func() time.Time
	// request makes the request that is answered with a token.
	request func(ctx context.Context) (*http.Request, error)

	token   string
	expires time.Time
}

// useTokens lets every page be asked for with a token.
func (r *remote) useTokens(request func(ctx context.Context) (*http.Request, error)) {
	t := &tokens{now: r.now, request: request}
	r.authorize = t.authorize
}

// useClientCredentials gets tokens by the grant of RFC 6749 §4.4.
func (r *remote) useClientCredentials(address *url.URL, s Source, scope string) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.ClientID}, "client_secret": {s.ClientSecret.Reveal()}}
	if scope != "" {
		form.Set("scope", scope)
	}
	r.useTokens(func(ctx context.Context) (*http.Request, error) { return postForm(ctx, address.String(), form) })
}

func postForm(ctx context.Context, address string, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the address for tokens is invalid")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// authorize adds the token, after asking for one where that is due.
func (t *tokens) authorize(ctx context.Context, p *pull, header http.Header, fresh bool) (bool, error) {
	if fresh || t.token == "" || !t.now().Before(t.expires) {
		t.token = ""
		if err := t.renew(ctx, p); err != nil {
			return false, fmt.Errorf("no token: %w", err)
		}
	}
	header.Set("Authorization", "Bearer "+t.token)
	return true, nil
}

func (t *tokens) renew(ctx context.Context, p *pull) error {
	body, err := p.ask(ctx, t.request)
	if errors.Is(err, errUnauthorized) {
		// Not that of a page, which a fresh token could cure.
		return errors.New("the client id or its secret is refused")
	}
	if err != nil {
		return err
	}
	token, life, err := readToken(body)
	if err != nil {
		return err
	}
	t.token, t.expires = token, t.now().Add(life-min(tokenMargin, life/4))
	return nil
}

// readToken reads a token answer (RFC 6749 §5.1). Its errors repeat nothing of
// it, because that could be a secret.
func readToken(body []byte) (token string, life time.Duration, err error) {
	answer, err := readObject(body)
	if err != nil {
		return "", 0, errors.New("the answer is no token")
	}
	token, _ = answer["access_token"].(string)
	kind, _ := answer["token_type"].(string)
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) || !strings.EqualFold(kind, "Bearer") {
		return "", 0, errors.New("the answer holds no bearer token")
	}
	life = tokenLife
	if seconds, ok := answer["expires_in"].(json.Number); ok {
		n, err := seconds.Int64()
		if err != nil {
			return "", 0, errors.New("the answer does not say how long the token lasts")
		}
		life = time.Duration(min(max(n, 0), int64(maxTokenLife/time.Second))) * time.Second
	}
	return token, life, nil
}
