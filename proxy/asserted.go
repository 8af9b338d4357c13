package proxy

import (
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
)

// Asserted is whom an assertion speaks of. The zero value is nobody.
type Asserted struct {
	// User is PROVIDER:SUB.
	User  string
	Email string
	Name  string
	// Groups are those of the route's groups that the person is in.
	Groups []string
}

// maxAsserted bounds the text of an assertion; one of ours is far below it.
const maxAsserted = 16 << 10

// assertionSkew is how far the clock of the replica that signed may be ahead.
const assertionSkew = time.Minute

// Verify reads an assertion that reached an upstream which is part of Doorward
// itself. It has to be one that a Signer of this store made, in Doorward's own
// form, for exactly this audience and in the name of exactly this issuer, and
// must not have expired. An error says why it is none.
func (s *Signer) Verify(ctx context.Context, token, issuer, audience string) (Asserted, error) {
	if issuer == "" || audience == "" || len(token) > maxAsserted {
		return Asserted{}, errors.New("assertion: nothing to compare it with, or too long")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Asserted{}, errors.New("assertion: not a signed JWT")
	}
	now := s.now()
	ring, err := s.keys(ctx, now)
	if err != nil {
		return Asserted{}, err
	}
	public, err := ring.verifier(parts[0])
	if err != nil {
		return Asserted{}, err
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return Asserted{}, fmt.Errorf("assertion: signature: %w", err)
	}
	if err := jwt.SigningMethodES256.Verify(parts[0]+"."+parts[1], signature, public); err != nil {
		return Asserted{}, fmt.Errorf("assertion: %w", err)
	}
	// Signed by us, so what follows is what we wrote; for whom it was is the question.
	var c claims
	if err := decodePart(parts[1], &c); err != nil {
		return Asserted{}, err
	}
	issued, expires := time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0)
	switch {
	case c.Issuer != issuer:
		return Asserted{}, fmt.Errorf("assertion: issued by %q", c.Issuer)
	case c.Audience != audience:
		return Asserted{}, fmt.Errorf("assertion: meant for %q", c.Audience)
	case !now.Before(expires):
		return Asserted{}, errors.New("assertion: expired")
	case issued.After(now.Add(assertionSkew)) || expires.Sub(issued) > assertionLifetime:
		return Asserted{}, errors.New("assertion: issued in the future, or for too long")
	case c.Provider == "" || !strings.HasPrefix(c.Subject, c.Provider+":") || len(c.Subject) == len(c.Provider)+1:
		return Asserted{}, errors.New("assertion: about nobody")
	}
	return Asserted{User: c.Subject, Email: c.Email, Name: c.Name, Groups: c.Groups}, nil
}

// verifier returns the key that a header names. The header has to say what sign
// writes, and nothing else: no other algorithm, no key of its own.
func (r *keyring) verifier(header string) (*ecdsa.PublicKey, error) {
	var said map[string]string
	if err := decodePart(header, &said); err != nil {
		return nil, err
	}
	if len(said) != 3 || said["alg"] != jwt.SigningMethodES256.Alg() || said["typ"] != "JWT" {
		return nil, errors.New("assertion: not made by Doorward")
	}
	for _, key := range r.keys {
		if key.public.ID == said["kid"] {
			return &key.private.PublicKey, nil
		}
	}
	return nil, errors.New("assertion: no key of ours")
}

func decodePart(part string, into any) error {
	text, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("assertion: %w", err)
	}
	return nil
}

// VerifyAssertion reads the assertion of a request that Doorward itself got from
// one of its routes, with an origin of its own, as an upstream. See Signer.Verify.
func (d *Door) VerifyAssertion(ctx context.Context, token, origin string) (Asserted, error) {
	gen := d.live.Load()
	if gen == nil {
		return Asserted{}, access.Because(access.InternalError, errors.New("no configuration yet"))
	}
	return d.signer.Verify(ctx, token, gen.issuer(origin), origin)
}
