package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"
)

// publicKey is one usable key of a provider.
type publicKey struct {
	id  string
	alg string // "" if the set does not bind the key to one
	key crypto.PublicKey
}

// serves reports whether a key may verify signatures of an algorithm: the kind
// of key must fit, so that no algorithm is ever used with another one's key.
func (k *publicKey) serves(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch k.key.(type) {
	case *rsa.PublicKey:
		return alg == "RS256" || alg == "PS256"
	case *ecdsa.PublicKey:
		return alg == "ES256"
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

const (
	maxKeys       = 100
	missedFor     = time.Minute // how long an unknown kid causes no further fetch
	maxMissedKIDs = 256
)

// keySet is a provider's JSON Web Key Set (RFC 7517), kept fresh.
//
// A token with an unknown kid leads to at most one fetch, paced by the document;
// a bad signature under a known kid leads to none. Neither can be used to make
// us flood the provider, and nothing but a set with usable keys replaces the keys.
type keySet struct {
	document[[]publicKey]

	missing sync.Mutex
	missed  map[string]time.Time // kid to when it may be looked for again
}

var (
	errUnknownKey = errors.New("signed with a key that the provider does not publish")
	errNoKeys     = errors.New("the provider's keys are not known")
)

// find returns the keys a token may have been signed with.
func (s *keySet) find(ctx context.Context, kid, alg string) ([]crypto.PublicKey, error) {
	keys, err := s.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKeys, err)
	}
	found, err := pick(keys, kid, alg)
	if err == nil || !errors.Is(err, errUnknownKey) || s.recentlyMissed(kid) {
		return found, err
	}
	if s.refresh(ctx) == nil {
		keys, _ = s.last()
		if found, err = pick(keys, kid, alg); err == nil {
			return found, nil
		}
		s.miss(kid)
	}
	return nil, err
}

// pick selects by kid. Without one there is a choice only if there is one key:
// trying all of them would let any key of the set sign for any other.
func pick(keys []publicKey, kid, alg string) ([]crypto.PublicKey, error) {
	var found []crypto.PublicKey
	for i := range keys {
		if k := &keys[i]; k.serves(alg) && (kid == "" || k.id == kid) {
			found = append(found, k.key)
		}
	}
	switch {
	case len(found) == 0:
		return nil, errUnknownKey
	case kid == "" && len(found) > 1:
		return nil, errors.New("the token does not say which of several keys signed it")
	}
	return found, nil
}

func (s *keySet) recentlyMissed(kid string) bool {
	s.missing.Lock()
	defer s.missing.Unlock()
	return s.now().Before(s.missed[kid])
}

func (s *keySet) miss(kid string) {
	s.missing.Lock()
	defer s.missing.Unlock()
	if s.missed == nil || len(s.missed) >= maxMissedKIDs {
		s.missed = map[string]time.Time{} // the pause between fetches still holds
	}
	s.missed[kid] = s.now().Add(missedFor)
}

// parseKeys reads a key set. Keys that are not for signatures, or of a kind or
// strength we do not use, are left out; a set without a usable key is an error.
func parseKeys(doc object) ([]publicKey, error) {
	list, ok := doc["keys"].([]any)
	if !ok {
		return nil, errors.New("a key set without a list of keys")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("a key set with more than %d keys", maxKeys)
	}
	var keys []publicKey
	var unusable error
	for _, member := range list {
		fields, _ := member.(map[string]any)
		key, err := parseKey(fields)
		if err != nil {
			unusable = err
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.Join(errors.New("a key set without a usable key"), unusable)
	}
	return keys, nil
}

func parseKey(jwk object) (k publicKey, err error) {
	var text [5]string
	for i, name := range []string{"kid", "alg", "kty", "use", "crv"} {
		if text[i], err = jwk.text(name); err != nil {
			return k, err
		}
	}
	k.id, k.alg = text[0], text[1]
	kty, use, crv := text[2], text[3], text[4]
	if use != "" && use != "sig" {
		return k, errors.New("a key that is not for signatures")
	}
	if ops, err := jwk.texts("key_ops"); err != nil || ops != nil && !slices.Contains(ops, "verify") {
		return k, errors.New("a key that is not for verifying")
	}
	if k.alg != "" && !slices.Contains(algorithms, k.alg) {
		return k, fmt.Errorf("a key for %.20q", k.alg)
	}
	switch {
	case kty == "RSA":
		k.key, err = rsaKey(jwk)
	case kty == "EC" && crv == "P-256":
		k.key, err = p256Key(jwk)
	case kty == "OKP" && crv == "Ed25519":
		k.key, err = ed25519Key(jwk)
	default:
		err = fmt.Errorf("a key of kind %.20q %.20q", kty, crv)
	}
	return k, err
}

// member decodes a base64url member of a key.
func (o object) member(name string) ([]byte, error) {
	text, err := o.text(name)
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) == 0 {
		return nil, fmt.Errorf("a key without a proper %q", name)
	}
	return raw, nil
}

func rsaKey(jwk object) (*rsa.PublicKey, error) {
	n, err := jwk.member("n")
	if err != nil {
		return nil, err
	}
	e, err := jwk.member("e")
	if err != nil {
		return nil, err
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if bits := modulus.BitLen(); bits < 2048 || bits > 8192 {
		return nil, fmt.Errorf("an RSA key of %d bits", bits)
	}
	if exponent.BitLen() > 31 || exponent.Int64() < 3 || exponent.Bit(0) == 0 {
		return nil, errors.New("an RSA key with an unusual exponent")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

func p256Key(jwk object) (*ecdsa.PublicKey, error) {
	x, err := jwk.member("x")
	if err != nil {
		return nil, err
	}
	y, err := jwk.member("y")
	if err != nil {
		return nil, err
	}
	if len(x) != 32 || len(y) != 32 {
		return nil, errors.New("a P-256 key of the wrong length")
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
}

func ed25519Key(jwk object) (ed25519.PublicKey, error) {
	x, err := jwk.member("x")
	if err == nil && len(x) != ed25519.PublicKeySize {
		err = errors.New("an Ed25519 key of the wrong length")
	}
	return ed25519.PublicKey(x), err
}
