package authn

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
)

// errorResponse is an error response of a provider's endpoint (RFC 6749 §5.2).
type errorResponse struct {
	status int
	code   string // "" if the answer does not say
	// nonce tells that a new DPoP nonce came along.
	nonce bool
}

func (r *errorResponse) Error() string { return fmt.Sprintf("answered %d %q", r.status, r.code) }

const errorUseNonce = "use_dpop_nonce"

var errInvalidGrant = errors.New("invalid_grant")

// post sends a form to one of the provider's endpoints for clients, with the
// proof that we are the client and, if there is a key, that we hold it. A server
// that wants a nonce in that proof gets it at once (RFC 9449 §8).
//
// Errors are *access.Error. What the endpoint answered is never part of them,
// except for an error code: it may hold tokens.
func (c *client) post(ctx context.Context, meta *metadata, endpoint string, form url.Values, key *proofKey) (jose.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	answer, err := c.postOnce(ctx, meta, endpoint, form, key)
	refused, ok := errors.AsType[*errorResponse](err)
	if ok && key != nil && refused.nonce && refused.code == errorUseNonce {
		answer, err = c.postOnce(ctx, meta, endpoint, form, key)
		refused, ok = errors.AsType[*errorResponse](err)
	}
	if known, is := errors.AsType[*access.Error](err); is {
		return nil, known
	}
	switch {
	case err == nil:
		return answer, nil
	case !ok || refused.status >= 500 || refused.status == http.StatusTooManyRequests:
		return nil, access.Becausef(access.ProviderUnavailable, "%s: %w", endpoint, err)
	case refused.code == "invalid_grant":
		return nil, access.Becausef(access.LoginFailed, "%s: %w", endpoint, errInvalidGrant)
	}
	return nil, access.Becausef(access.LoginFailed, "%s: %w", endpoint, err)
}

func (c *client) postOnce(ctx context.Context, meta *metadata, endpoint string, form url.Values, key *proofKey) (jose.Object, error) {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}
	form = maps.Clone(form)
	if err := c.authenticate(meta, form, header); err != nil {
		return nil, err
	}
	if key != nil {
		proof, err := c.proof(key, http.MethodPost, endpoint, "")
		if err != nil {
			return nil, access.Becausef(access.InternalError, "making a DPoP proof: %w", err)
		}
		header.Set("DPoP", proof)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, answer, err := jose.AskJSON(c.http, req)
	if resp == nil {
		return nil, err
	}
	nonce := c.nonces.note(resp)
	switch {
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return nil, &errorResponse{resp.StatusCode, errorCode(answer), nonce}
	case err != nil:
		return nil, errors.New("the answer is not one JSON object of a sensible size")
	case answer["error"] != nil: // some say 200 even then
		return nil, &errorResponse{http.StatusBadRequest, errorCode(answer), nonce}
	}
	return answer, nil
}

// errorCode returns the error code of an answer if it looks like one. An answer
// may quote what we sent, and the code is logged.
func errorCode(answer jose.Object) string {
	code := text(answer, "error")
	if len(code) > 64 || strings.ContainsFunc(code, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }) {
		return ""
	}
	return code
}

// grant is what the token endpoint gives (RFC 6749 §5.1, OpenID Connect Core
// §3.1.3.3).
type grant struct {
	access, refresh, idToken string
	expiresIn                int64 // seconds, 0 if it does not say
	// key is what the tokens are bound to, nil if to nothing.
	key *proofKey
}

// redeemAt asks the token endpoint.
func (c *client) redeemAt(ctx context.Context, meta *metadata, form url.Values, key *proofKey) (*grant, error) {
	answer, err := c.post(ctx, meta, meta.token, form, key)
	if err != nil {
		return nil, err
	}
	g, err := parseGrant(answer, key)
	if err != nil {
		return nil, access.Becausef(access.LoginFailed, "%s: %w", meta.token, err)
	}
	return g, nil
}

func parseGrant(answer jose.Object, key *proofKey) (*grant, error) {
	g := &grant{key: key}
	var kind string
	for name, to := range map[string]*string{
		"access_token": &g.access, "refresh_token": &g.refresh, "id_token": &g.idToken, "token_type": &kind,
	} {
		var err error
		if *to, err = answer.Text(name); err != nil {
			return nil, err
		}
	}
	if g.access == "" {
		return nil, errors.New("the answer holds no access token")
	}
	// A provider that knows nothing of DPoP ignores the proof and gives tokens
	// that anyone can use (RFC 9449 §5).
	wanted := "Bearer"
	if key != nil {
		wanted = "DPoP"
	}
	if !strings.EqualFold(kind, wanted) && (kind != "" || key != nil) {
		return nil, fmt.Errorf("the answer holds a token of type %.20q, wanted was %s", kind, wanted)
	}
	switch life := answer["expires_in"].(type) {
	case json.Number:
		g.expiresIn, _ = life.Int64()
	case string: // seen in the wild
		g.expiresIn, _ = strconv.ParseInt(life, 10, 64)
	}
	return g, nil
}

// defaultTokenLife applies to access tokens whose lifetime is not stated.
const defaultTokenLife = time.Hour

// tokens returns what the session keeps.
func (c *client) tokens(g *grant) session.Tokens {
	life := defaultTokenLife
	if g.expiresIn > 0 && g.expiresIn < int64((365*24*time.Hour).Seconds()) {
		life = time.Duration(g.expiresIn) * time.Second
	}
	// The end counts without a refresh token, too: some providers give one at the
	// first login only, and the session still has it.
	return session.Tokens{Refresh: g.refresh, ID: g.idToken, Key: g.key.text(), Expires: c.now().Add(life)}
}

// exchange redeems an authorization code (RFC 6749 §4.1.3) with the verifier of
// its challenge (RFC 7636 §4.5).
func (c *client) exchange(ctx context.Context, meta *metadata, redirect, code string, p *pending) (*grant, error) {
	key, err := c.proofKey(p.Key)
	if err != nil {
		return nil, err
	}
	return c.redeemAt(ctx, meta, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {p.Verifier},
	}, key)
}

// redeemRefresh redeems a refresh token (RFC 6749 §6).
func (c *client) redeemRefresh(ctx context.Context, meta *metadata, held session.Tokens) (*grant, error) {
	key, err := c.proofKey(held.Key)
	if err != nil {
		return nil, err
	}
	g, err := c.redeemAt(ctx, meta, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {held.Refresh}}, key)
	if err != nil {
		return nil, err
	}
	g.refresh = cmp.Or(g.refresh, held.Refresh) // a provider need not send a new one
	return g, nil
}
