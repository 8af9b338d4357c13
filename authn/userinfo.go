package authn

import (
	"context"
	"errors"
	"slices"

	"github.com/doorward/doorward/internal/jose"
)

// userinfo asks the provider's userinfo endpoint (OpenID Connect Core §5.3) for
// what many providers leave out of ID tokens: groups and e-mail address. It is
// asked only where one of them is missing and the token does not say that groups
// were kept back. asked tells whether it was.
func (c *client) userinfo(ctx context.Context, token *idToken, g *grant) (claims jose.Object, asked bool, err error) {
	meta, ok := c.metadata.Last()
	if !ok || meta.userinfo == "" || g.access == "" || !c.lacks(token.claims) {
		return nil, false, nil
	}
	claims, err = c.fetch(ctx, meta.userinfo, g)
	if err != nil {
		return nil, true, err
	}
	// The answer is not signed. It counts only for the person of the ID token,
	// or a swapped access token could bring someone else's groups (§5.3.4).
	if sub, err := claims.Text("sub"); err != nil || sub != token.subject {
		return nil, true, errors.New("userinfo is about another person")
	}
	return claims, true, nil
}

func (c *client) lacks(claims jose.Object) bool {
	groups, incomplete := groupsOf(claims, c.cfg.groupsClaim())
	if c.cfg.Trust.OfGroups() && groups == nil && !incomplete {
		return true
	}
	return text(claims, "email") == "" && slices.Contains(c.cfg.scopes(), "email")
}
