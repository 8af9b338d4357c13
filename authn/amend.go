package authn

import (
	"maps"
	"slices"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// Amend puts claims that have changed since the login into an identity, read as
// those of an ID token are, and reports whether that changed it. What is about a
// token or a login rather than the person is left out: only a login says that. A
// claim without a value (null) is gone.
func (a *Authenticator) Amend(id *access.Identity, changed map[string]any) bool {
	c := a.clients[id.Provider]
	if c == nil || c.cfg.Issuer != id.Issuer {
		return false
	}
	before := len(changed)
	changed = maps.Clone(changed)
	maps.DeleteFunc(changed, func(name string, _ any) bool {
		return slices.Contains(protocolClaims, name) || name == c.cfg.groupsClaim() && c.cfg.Trust.Groups == trustNone
	})
	if before == 0 || len(changed) == 0 {
		return false
	}
	claims := jose.Object(changed)
	for name, into := range map[string]*string{"email": &id.Email, "name": &id.Name, "preferred_username": &id.Username} {
		if _, there := claims[name]; there {
			*into = text(claims, name)
		}
	}
	if _, there := claims["email"]; there {
		id.EmailVerified = false // of another address, until the event says so
	}
	if value, there := claims["email_verified"]; there {
		id.EmailVerified = isTrue(value)
	}
	if _, there := claims[c.cfg.groupsClaim()]; there {
		id.Groups, id.GroupsIncomplete = groupsOf(claims, c.cfg.groupsClaim())
	}
	rest := maps.Clone(id.Claims)
	if rest == nil {
		rest = map[string]any{}
	}
	for name, value := range remaining(claims, c.cfg.groupsClaim()) {
		if rest[name] = value; value == nil {
			delete(rest, name)
		}
	}
	id.Claims = rest
	id.Normalize()
	return true
}
