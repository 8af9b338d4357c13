package authn

import (
	"context"
	"errors"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
)

// Refresh implements session.Refresher: it redeems a refresh token with the
// session's own provider (RFC 6749 §6) and returns what the provider now says of
// the person, and the tokens to keep.
//
// The error carries SessionEnded if the provider ended the grant, or answered
// about somebody else; any other error is temporary. How and when the person
// logged in stays what it was at login.
func (a *Authenticator) Refresh(ctx context.Context, provider string, held session.Tokens, id *access.Identity) (access.Identity, session.Tokens, error) {
	c := a.clients[provider]
	if c == nil || c.cfg.Issuer != id.Issuer {
		return access.Identity{}, session.Tokens{}, access.Becausef(access.SessionEnded, "provider %q is not configured any more", provider)
	}
	return c.refresh(ctx, held, id)
}

func (c *client) refresh(ctx context.Context, held session.Tokens, old *access.Identity) (none access.Identity, _ session.Tokens, _ error) {
	meta, err := c.metadata.Get(ctx)
	if err != nil {
		return none, session.Tokens{}, access.Becausef(access.ProviderUnavailable, "provider %s: %w", c.cfg.ID, err)
	}
	answer, err := c.redeemRefresh(ctx, meta, held)
	if errors.Is(err, errInvalidGrant) {
		return none, session.Tokens{}, access.Becausef(access.SessionEnded, "provider %s: %w", c.cfg.ID, err)
	}
	if err != nil {
		return none, session.Tokens{}, err
	}
	kept := c.tokens(answer)
	if answer.idToken == "" {
		return *old, kept, nil // nothing new about the person
	}
	token, err := c.verify(ctx, answer.idToken, expectation{accessToken: answer.access})
	switch {
	case errors.Is(err, jose.ErrNoKeys) || errors.Is(err, jose.ErrUnknownKey):
		// The old refresh token is spent: the new one must not be lost because
		// the provider's keys cannot be read right now.
		c.log.Warn("a refreshed ID token cannot be verified yet", "provider", c.cfg.ID, "error", err)
		kept.ID = ""
		return *old, kept, nil
	case err != nil:
		return none, session.Tokens{}, access.Becausef(access.TokenInvalid, "ID token of %s: %w", c.cfg.ID, err)
	case token.subject != old.Subject:
		return none, session.Tokens{}, access.Becausef(access.SessionEnded, "provider %s refreshed the session with another person's token", c.cfg.ID)
	}
	id := c.identity(ctx, token, answer)
	// A refresh authenticates nobody. If it could move auth_time, a token renewed
	// in the background would pass for a person who logged in again.
	id.Login = old.Login
	return id, kept, nil
}
