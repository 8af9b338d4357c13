package authn

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/jose"
)

const (
	maxSubject = 255 // bytes of sub (OpenID Connect Core §2)
	skew       = time.Minute
)

// expectation is what one particular ID token has to fit to.
type expectation struct {
	// nonce of the attempt. Empty only when refreshing, where providers need
	// not repeat it (OpenID Connect Core §12.2).
	nonce string
	// authTime must be stated, because max_age was asked for.
	authTime bool
	// accessToken came along; its hash is compared where the ID token has one.
	accessToken string
}

// idToken is a verified ID token.
type idToken struct {
	raw      string
	subject  string
	authTime time.Time
	claims   jose.Object
}

// verify accepts an ID token of this provider for this client, or says why not.
//
// The payload is decoded once, strictly, and every claim is judged on that; the
// libraries are used for the signature, which has to cover the very same bytes.
func (c *client) verify(ctx context.Context, raw string, want expectation) (*idToken, error) {
	claims, alg, err := c.signed(ctx, raw, "JWT")
	if err != nil {
		return nil, err
	}
	token, err := c.checkClaims(claims, alg, want)
	if err != nil {
		return nil, err
	}
	token.raw = raw
	return token, nil
}

// signed returns the claims of a token that this provider signed, and the
// algorithm. types are the accepted values of typ; a token without one may be of
// any type. The claims are not judged yet.
func (c *client) signed(ctx context.Context, raw string, types ...string) (claims jose.Object, alg string, err error) {
	header, claims, payload, err := jose.Parse(raw)
	if err != nil {
		return nil, "", err
	}
	meta, err := c.metadata.Get(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", jose.ErrNoKeys, err)
	}
	alg, kid, err := jose.CheckHeader(header, meta.accepted(&c.cfg), types...)
	if err != nil {
		return nil, "", err
	}
	keys, err := c.keys.Find(ctx, kid, alg)
	if err != nil {
		return nil, "", err
	}
	if err := jose.Verify(ctx, raw, payload, keys); err != nil {
		return nil, "", err
	}
	return claims, alg, nil
}

// checkClaims applies OpenID Connect Core §3.1.3.7 without leaving anything to
// discretion.
func (c *client) checkClaims(claims jose.Object, alg string, want expectation) (*idToken, error) {
	if iss, err := claims.Text("iss"); err != nil || iss != c.cfg.Issuer {
		return nil, errors.New("the token is from another issuer")
	}
	if err := c.checkAudience(claims); err != nil {
		return nil, err
	}
	if _, present := claims["events"]; present {
		return nil, errors.New("a security event is no ID token")
	}
	token := &idToken{claims: claims}
	var err error
	if token.subject, err = claims.Text("sub"); err != nil || token.subject == "" || len(token.subject) > maxSubject {
		return nil, errors.New("the token names no subject")
	}
	if token.authTime, err = c.checkTimes(claims, want.authTime); err != nil {
		return nil, err
	}
	if want.nonce != "" {
		nonce, err := claims.Text("nonce")
		if err != nil || subtle.ConstantTimeCompare([]byte(nonce), []byte(want.nonce)) != 1 {
			return nil, errors.New("the token answers another login: its nonce differs")
		}
	}
	if err := checkHash(claims, alg, want.accessToken); err != nil {
		return nil, err
	}
	return token, nil
}

// checkAudience wants us among the audiences, and as the authorized party where
// there are others or where the token names one.
func (c *client) checkAudience(claims jose.Object) error {
	aud, err := claims.TextOrTexts("aud")
	if err != nil {
		return err
	}
	if !slices.Contains(aud, c.cfg.ClientID) {
		return errors.New("the token is for another client")
	}
	azp, err := claims.Text("azp")
	if err != nil {
		return err
	}
	if _, present := claims["azp"]; (present || len(aud) > 1) && azp != c.cfg.ClientID {
		return errors.New("the token was issued to another client")
	}
	return nil
}

func (c *client) checkTimes(claims jose.Object, authTimeNeeded bool) (authTime time.Time, err error) {
	now := c.now()
	exp, present, err := claims.Time("exp")
	if err != nil || !present {
		return authTime, errors.Join(errors.New("the token does not say when it ends"), err)
	}
	if !now.Before(exp.Add(skew)) {
		return authTime, fmt.Errorf("the token ended at %s", exp.Format(time.RFC3339))
	}
	iat, present, err := claims.Time("iat")
	if err != nil || !present {
		return authTime, errors.Join(errors.New("the token does not say when it was issued"), err)
	}
	if iat.After(now.Add(skew)) {
		return authTime, fmt.Errorf("the token was issued in the future, at %s", iat.Format(time.RFC3339))
	}
	nbf, present, err := claims.Time("nbf")
	if err != nil {
		return authTime, err
	}
	if present && nbf.After(now.Add(skew)) {
		return authTime, fmt.Errorf("the token is valid from %s on", nbf.Format(time.RFC3339))
	}
	authTime, present, err = claims.Time("auth_time")
	switch {
	case err != nil:
		return authTime, err
	case authTimeNeeded && !present:
		return authTime, errors.New("the token does not say when the person logged in, although max_age was asked for")
	case authTime.After(now.Add(skew)):
		return authTime, errors.New("the token says the person logged in in the future")
	}
	return authTime, nil
}

// checkHash compares at_hash (OpenID Connect Core §3.1.3.6) with the access
// token that came along.
func checkHash(claims jose.Object, alg, accessToken string) error {
	if _, present := claims["at_hash"]; !present || accessToken == "" {
		return nil
	}
	got, err := claims.Text("at_hash")
	if err != nil {
		return err
	}
	sum := hashOf(alg, accessToken)
	want := base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return errors.New("the access token does not belong to the ID token")
	}
	return nil
}

// hashOf is the hash that the algorithm signs with; Ed25519 uses SHA-512.
func hashOf(alg, text string) []byte {
	if alg == "EdDSA" {
		sum := sha512.Sum512([]byte(text))
		return sum[:]
	}
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}
