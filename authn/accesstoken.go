package authn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// verifyJWT accepts an access token that a provider signed (RFC 9068 §4), and
// returns whose it is. The payload is decoded once, strictly, as an ID token's is.
func (t *tokens) verifyJWT(ctx context.Context, raw string) (*client, *accessToken, error) {
	header, claims, payload, err := jose.Parse(raw)
	if err != nil {
		return nil, nil, access.Because(access.TokenInvalid, err)
	}
	c, err := t.issuer(ctx, claims)
	if err != nil {
		return nil, nil, err
	}
	typed, err := c.checkTokenType(header)
	if err != nil {
		return nil, nil, err
	}
	if err := c.checkSigned(ctx, raw, header, payload); err != nil {
		return nil, nil, err
	}
	token, err := c.checkAccessToken(claims, typed)
	return c, token, err
}

// issuer finds the provider that a token says it is from. Of several with the
// same issuer, the one whose audience it has.
func (t *tokens) issuer(ctx context.Context, claims jose.Object) (found *client, err error) {
	iss, err := claims.Text("iss")
	if err != nil || iss == "" {
		return nil, access.Becausef(access.TokenInvalid, "the token does not say who issued it")
	}
	aud, err := claims.TextOrTexts("aud")
	if err != nil {
		return nil, access.Because(access.TokenInvalid, err)
	}
	var unknown error
	for _, c := range t.issuers {
		issuer, err := c.issuerName(ctx)
		if err != nil {
			unknown = err
		}
		if err != nil || issuer != iss {
			continue
		}
		if found == nil || c.hears(aud) && !found.hears(aud) {
			found = c
		}
	}
	switch {
	case found != nil:
		return found, nil
	case unknown != nil:
		return nil, access.Because(access.ProviderUnavailable, unknown)
	}
	return nil, access.Becausef(access.TokenInvalid, "no provider that accepts access tokens is %.100q", iss)
}

// issuerName is what the provider's tokens say as iss. For a cluster its own
// metadata tell.
func (c *client) issuerName(ctx context.Context) (string, error) {
	if c.cluster == nil {
		return c.cfg.Issuer, nil
	}
	meta, err := c.metadata.Get(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %w", jose.ErrNoKeys, err)
	}
	return meta.issuer, nil
}

// hears reports whether we are meant by one of a token's audiences.
func (c *client) hears(aud []string) bool {
	return slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(c.cfg.Audiences, a) })
}

// checkTokenType wants the type of access tokens (RFC 9068 §2.1). Kubernetes has
// none; other providers need a switch, because then nothing but the audience
// tells their access tokens from their other tokens.
func (c *client) checkTokenType(header jose.Object) (typed bool, err error) {
	typ, err := header.Text("typ")
	if err != nil {
		return false, access.Because(access.TokenInvalid, err)
	}
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "at+jwt":
		return true, nil
	case "", "jwt", "jose":
		if c.cluster != nil || c.cfg.InsecureAnyTokenType {
			return false, nil
		}
	}
	return false, access.Becausef(access.TokenNotAccessToken, "a token of type %.40q", typ)
}

// checkSigned checks that one of the provider's keys signed the token.
func (c *client) checkSigned(ctx context.Context, raw string, header jose.Object, payload []byte) error {
	plain := maps.Clone(header)
	delete(plain, "typ") // judged already
	alg, kid, err := jose.CheckHeader(plain, c.cfg.algorithms())
	if err != nil {
		return access.Because(access.TokenInvalid, err)
	}
	if _, err := c.metadata.Get(ctx); err != nil {
		return access.Becausef(access.ProviderUnavailable, "%w: %w", jose.ErrNoKeys, err)
	}
	keys, err := c.keys.Find(ctx, kid, alg)
	switch {
	case errors.Is(err, jose.ErrNoKeys):
		return access.Because(access.ProviderUnavailable, err)
	case err != nil:
		return access.Because(access.TokenInvalid, err)
	}
	if err := jose.Verify(ctx, raw, payload, keys); err != nil {
		return access.Because(access.TokenInvalid, err)
	}
	return nil
}

// otherTokens are claims of ID tokens and security events. No access token has
// them.
var otherTokens = []string{"events", "nonce", "at_hash", "c_hash", "s_hash"}

// checkAccessToken judges the claims. typed tells that the header has already
// said what the token is.
func (c *client) checkAccessToken(claims jose.Object, typed bool) (*accessToken, error) {
	for _, name := range otherTokens {
		if _, present := claims[name]; present {
			return nil, access.Becausef(access.TokenNotAccessToken, "the token has %q", name)
		}
	}
	aud, err := claims.TextOrTexts("aud")
	if err != nil {
		return nil, access.Because(access.TokenInvalid, err)
	}
	if !typed {
		if err := c.checkPlain(claims, aud); err != nil {
			return nil, err
		}
	}
	if !c.hears(aud) {
		return nil, access.Becausef(access.TokenAudience, "the token is for %.200q", aud)
	}
	if _, ok := claims["exp"]; !ok {
		return nil, access.Becausef(access.TokenInvalid, "the token does not say when it ends")
	}
	if _, ok := claims["iat"]; !ok {
		return nil, access.Becausef(access.TokenInvalid, "the token does not say when it was issued")
	}
	if typed {
		for _, name := range []string{"client_id", "jti"} {
			if value, err := claims.Text(name); err != nil || value == "" {
				return nil, access.Becausef(access.TokenInvalid, "the token has no %s", name)
			}
		}
	}
	return c.accessToken(claims)
}

// checkPlain tells an access token from an ID token that does not look like one:
// those are for the client itself, and some providers say so in a claim.
func (c *client) checkPlain(claims jose.Object, aud []string) error {
	if c.cfg.ClientID != "" && slices.Contains(aud, c.cfg.ClientID) {
		return access.Becausef(access.TokenNotAccessToken, "the token is for the client itself, as ID tokens are")
	}
	for name, accept := range map[string][]string{"typ": {"bearer", "dpop"}, "token_use": {"access"}} {
		value, err := claims.Text(name)
		if err != nil {
			return access.Because(access.TokenInvalid, err)
		}
		if value != "" && !slices.Contains(accept, strings.ToLower(value)) {
			return access.Becausef(access.TokenNotAccessToken, "the token says %s %.40q", name, value)
		}
	}
	return nil
}

// accessToken makes of verified claims, of a token or of an introspection answer,
// what decisions know.
func (c *client) accessToken(claims jose.Object) (*accessToken, error) {
	var token accessToken
	if err := c.checkTokenTimes(claims, &token); err != nil {
		return nil, err
	}
	id := &token.identity
	id.Provider, id.Issuer = c.cfg.ID, text(claims, "iss")
	if id.Issuer == "" {
		id.Issuer = c.cfg.Issuer
	}
	var err error
	if id.ClientID, err = clientID(claims); err != nil {
		return nil, access.Because(access.TokenInvalid, err)
	}
	if id.Scopes, err = scopesOf(claims); err != nil {
		return nil, access.Because(access.TokenInvalid, err)
	}
	if id.Subject, err = claims.Text("sub"); err != nil || id.Subject == "" || len(id.Subject) > maxTokenSubject {
		return nil, access.Becausef(access.TokenInvalid, "the token names no subject")
	}
	if token.binding, err = parseBinding(claims); err != nil {
		return nil, access.Because(access.TokenBindingMismatch, err)
	}
	id.Email, id.EmailVerified = text(claims, "email"), isTrue(claims["email_verified"])
	id.Name, id.Username = text(claims, "name"), text(claims, "preferred_username")
	id.Login.ACR = text(claims, "acr")
	if id.Login.AMR, err = claims.TextOrTexts("amr"); err != nil {
		return nil, access.Because(access.TokenInvalid, err)
	}
	if c.cfg.Trust.OfGroups() {
		id.Groups, id.GroupsIncomplete = groupsOf(claims, c.cfg.groupsClaim())
	}
	id.Kind = c.kindOf(claims, id)
	if domain := c.cfg.TrustDomain; domain != "" && access.IsSPIFFE(id.Subject) && strings.HasPrefix(id.Subject, "spiffe://"+domain+"/") {
		id.SPIFFE, id.Kind = id.Subject, access.Service
	}
	if c.cluster != nil {
		if id.ServiceAccount, err = serviceAccount(id.Subject); err != nil {
			return nil, access.Because(access.TokenInvalid, err)
		}
		id.Kind = access.Service
	}
	if id.Kind == access.Person {
		id.Login.Levels = c.levels.levels(claims)
	}
	rest := maps.Clone(claims)
	for _, name := range []string{"client_id", "scope", "scp", "cnf", "active", "token_type"} {
		delete(rest, name)
	}
	id.Claims = remaining(rest, c.cfg.groupsClaim())
	id.Normalize()
	return &token, nil
}

const (
	maxTokenSubject = 2048 // bytes; a SPIFFE ID may be that long
	maxScopes       = 500
)

// checkTokenTimes allows for no slack at the end: a finding must not outlive it.
func (c *client) checkTokenTimes(claims jose.Object, token *accessToken) error {
	var at [4]time.Time
	for i, name := range []string{"exp", "iat", "nbf", "auth_time"} {
		var err error
		if at[i], _, err = claims.Time(name); err != nil {
			return access.Because(access.TokenInvalid, err)
		}
	}
	now := c.now()
	soon := now.Add(skew)
	token.issued, token.expires, token.identity.Login.Time = at[1], at[0], at[3]
	switch {
	case !at[0].IsZero() && !now.Before(at[0]):
		return access.Becausef(access.TokenExpired, "the token ended at %s", at[0].Format(time.RFC3339))
	case at[1].After(soon):
		return access.Becausef(access.TokenInvalid, "the token was issued in the future, at %s", at[1].Format(time.RFC3339))
	case at[2].After(soon):
		return access.Becausef(access.TokenInvalid, "the token is valid from %s on", at[2].Format(time.RFC3339))
	case at[3].After(soon):
		return access.Becausef(access.TokenInvalid, "the token says the person logged in in the future")
	}
	return nil
}

// clientID returns the client a token was issued to, under the names in use:
// RFC 9068, OpenID Connect, Entra and Okta.
func clientID(claims jose.Object) (string, error) {
	for _, name := range []string{"client_id", "azp", "appid", "cid"} {
		if id, err := claims.Text(name); err != nil || id != "" {
			return id, err
		}
	}
	return "", nil
}

// scopesOf reads `scope` (RFC 9068 §2.2.3), or `scp` as Entra and Okta write it.
func scopesOf(claims jose.Object) (list []string, err error) {
	if scope, err := claims.Text("scope"); err != nil || scope != "" {
		list = strings.Fields(scope)
		return list, tooMany(list, err)
	}
	if list, err = claims.TextOrTexts("scp"); len(list) == 1 {
		list = strings.Fields(list[0])
	}
	return list, tooMany(list, err)
}

func tooMany(list []string, err error) error {
	if len(list) > maxScopes {
		return fmt.Errorf("the token has %d scopes", len(list))
	}
	return err
}

// kindOf takes nobody for a person but who has logged in: the token says when or
// how (RFC 9068 §2.2.1), or its client is one that only people use; and it is not
// about the client itself. Entra and Keycloak tell in their own ways what is an
// application.
func (c *client) kindOf(claims jose.Object, id *access.Identity) access.Kind {
	loggedIn := slices.Contains(c.cfg.LoginClients, id.ClientID) || !id.Login.Time.IsZero() || len(id.Login.AMR) > 0 || text(claims, "idtyp") == "user"
	if !loggedIn || id.ClientID == "" || id.Subject == id.ClientID ||
		text(claims, "idtyp") == "app" || strings.HasPrefix(id.Username, "service-account-") {
		return access.Service
	}
	return access.Person
}
