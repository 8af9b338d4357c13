package authn

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// Introspection asks the provider about access tokens (RFC 7662).
type Introspection struct {
	// Cache is how long an answer counts, at most 5m: how long a revoked token
	// goes on working. Setting it turns introspection on, for opaque tokens and,
	// after their signature, for all other tokens of this provider. Only one
	// provider may have it.
	Cache access.Duration `yaml:"cache"`
}

const maxIntrospectionCache = 5 * time.Minute

// introspect asks a provider about a token. Only an answer counts as one: while
// the provider cannot be asked, the token is neither good nor bad.
func (t *tokens) introspect(ctx context.Context, c *client, raw string) (*accessToken, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, jose.FetchTimeout)
	defer cancel()
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return nil, 0, access.Becausef(access.ProviderUnavailable, "introspection: %w", ctx.Err())
	}
	answer, err := c.askAbout(ctx, raw)
	if err != nil {
		return nil, 0, access.Becausef(access.ProviderUnavailable, "introspection: %w", err)
	}
	token, err := c.introspected(answer)
	return token, c.cfg.Introspection.Cache.Std(), err
}

// askAbout sends one introspection request (RFC 7662 §2.1).
func (c *client) askAbout(ctx context.Context, raw string) (jose.Object, error) {
	meta, err := c.metadata.Get(ctx)
	if err != nil {
		return nil, err
	}
	if meta.introspection == "" {
		return nil, errors.New("the provider announces no introspection_endpoint")
	}
	return c.post(ctx, meta, meta.introspection, url.Values{"token": {raw}, "token_type_hint": {"access_token"}}, nil)
}

// introspected judges an answer (RFC 7662 §2.2) as strictly as a signed token.
func (c *client) introspected(answer jose.Object) (*accessToken, error) {
	active, err := answer.Flag("active")
	if err != nil {
		return nil, access.Becausef(access.ProviderUnavailable, "introspection: %w", err)
	}
	if !active {
		return nil, access.Becausef(access.TokenRevoked, "the provider says that the token is not active")
	}
	if iss, err := answer.Text("iss"); err != nil || iss != "" && iss != c.cfg.Issuer {
		return nil, access.Becausef(access.TokenInvalid, "the token is from another issuer")
	}
	// A refresh token is active, too, and says something else or nothing here.
	if typ, err := answer.Text("token_type"); err != nil || !strings.EqualFold(typ, schemeBearer) && !strings.EqualFold(typ, schemeDPoP) {
		return nil, access.Becausef(access.TokenNotAccessToken, "the provider says token_type %.40q", typ)
	}
	aud, err := answer.TextOrTexts("aud")
	if err != nil {
		return nil, access.Because(access.TokenInvalid, err)
	}
	if !c.hears(aud) {
		return nil, access.Becausef(access.TokenAudience, "the token is for %.200q", aud)
	}
	if sub, err := answer.Text("sub"); err == nil && sub == "" {
		answer["sub"] = answer["client_id"] // a token of the client itself; nil is refused
		if answer["sub"] == nil {
			delete(answer, "sub")
		}
	}
	return c.accessToken(answer)
}
