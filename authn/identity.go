package authn

import (
	"context"
	"maps"
	"slices"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// protocolClaims are about the token rather than the person, or have a field of
// their own in access.Identity. Userinfo may state none of them.
var protocolClaims = []string{
	"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "c_hash", "s_hash", "sid",
	"auth_time", "acr", "amr", "acrs", "session_expiry", "_claim_names", "_claim_sources", "hasgroups",
}

// profileClaims have a field of their own and may also come from userinfo.
var profileClaims = []string{"email", "email_verified", "name", "preferred_username"}

// identity makes of a verified ID token what decisions know of a person. Where
// groups or the e-mail address are missing, userinfo is asked once.
func (c *client) identity(ctx context.Context, token *idToken, g *grant) access.Identity {
	claims := maps.Clone(token.claims)
	groupsMissing := false
	if more, asked, err := c.userinfo(ctx, token, g); err != nil {
		c.log.Warn("userinfo was not usable", "provider", c.cfg.ID, "error", err)
		_, have := claims[c.cfg.groupsClaim()]
		groupsMissing = asked && !have
	} else {
		for name, value := range more {
			if _, have := claims[name]; !have && !slices.Contains(protocolClaims, name) {
				claims[name] = value
			}
		}
	}

	id := access.Identity{
		Provider: c.cfg.ID, Issuer: c.cfg.Issuer, Subject: token.subject,
		Email: text(claims, "email"), EmailVerified: isTrue(claims["email_verified"]),
		Name: text(claims, "name"), Username: text(claims, "preferred_username"),
		Login: access.Login{Time: token.authTime, ACR: text(token.claims, "acr")},
	}
	id.Login.AMR, _ = token.claims.TextOrTexts("amr")
	id.Login.Levels = c.levels.levels(token.claims)
	if c.cfg.Trust.OfGroups() {
		id.Groups, id.GroupsIncomplete = groupsOf(claims, c.cfg.groupsClaim())
		id.GroupsIncomplete = id.GroupsIncomplete || groupsMissing
	}
	id.Claims = remaining(claims, c.cfg.groupsClaim())
	id.Normalize()
	return id
}

// groupsOf reads the groups and notices where the provider kept some back
// (Entra's overage). A claim we cannot read counts as kept back, too: what a
// person may do must not depend on groups we failed to understand.
func groupsOf(claims jose.Object, name string) (groups []string, incomplete bool) {
	if sources, ok := claims["_claim_names"].(map[string]any); ok {
		_, named := sources[name]
		_, usual := sources["groups"]
		incomplete = named || usual
	}
	incomplete = incomplete || isTrue(claims["hasgroups"])
	groups, err := claims.TextOrTexts(name)
	return groups, incomplete || err != nil
}

// remaining returns the claims that have no field of their own, for rules that
// name them. Groups are left out also where they are not trusted.
func remaining(claims jose.Object, groupsClaim string) map[string]any {
	rest := map[string]any{}
	for name, value := range claims {
		if name != groupsClaim && !slices.Contains(protocolClaims, name) && !slices.Contains(profileClaims, name) {
			rest[name] = jose.Plain(value)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return rest
}

// text returns a claim that is for display, "" if it is something else.
func text(claims jose.Object, name string) string {
	s, _ := claims.Text(name)
	return s
}

// isTrue accepts the spellings of true that are in use.
func isTrue(value any) bool { return value == true || value == "true" }
