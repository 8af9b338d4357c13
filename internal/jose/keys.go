package jose

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

// Key is one usable public key of a set.
type Key struct {
	ID string
	// Alg is the one algorithm the key is for. Empty: the set does not say.
	Alg    string
	Public crypto.PublicKey
}

// Serves reports whether a key may verify signatures of an algorithm: the kind
// of key must fit, so that no algorithm is ever used with another one's key.
func (k *Key) Serves(alg string) bool {
	if k.Alg != "" && k.Alg != alg {
		return false
	}
	switch k.Public.(type) {
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

// KeySet is a provider's JSON Web Key Set (RFC 7517), kept fresh.
//
// A token with an unknown kid leads to at most one fetch, paced by the document;
// a bad signature under a known kid leads to none. Neither can be used to make
// us flood the provider, and nothing but a set with usable keys replaces the keys.
type KeySet struct {
	Document[[]Key]

	missing sync.Mutex
	missed  map[string]time.Time // kid to when it may be looked for again
}

// The errors of Find that callers tell apart.
var (
	// ErrUnknownKey tells that the set has no such key, ErrNoKeys that there is
	// no set: nothing may be concluded about the token then.
	ErrUnknownKey = errors.New("signed with a key that the provider does not publish")
	ErrNoKeys     = errors.New("the provider's keys are not known")
)

// Find returns the keys a token may have been signed with.
func (s *KeySet) Find(ctx context.Context, kid, alg string) ([]crypto.PublicKey, error) {
	keys, err := s.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	found, err := pick(keys, kid, alg)
	if err == nil || !errors.Is(err, ErrUnknownKey) || s.recentlyMissed(kid) {
		return found, err
	}
	if s.Refresh(ctx) == nil {
		keys, _ = s.Last()
		if found, err = pick(keys, kid, alg); err == nil {
			return found, nil
		}
		s.miss(kid)
	}
	return nil, err
}

// pick selects by kid. Without one there is a choice only if there is one key:
// trying all of them would let any key of the set sign for any other.
func pick(keys []Key, kid, alg string) ([]crypto.PublicKey, error) {
	var found []crypto.PublicKey
	for i := range keys {
		if k := &keys[i]; k.Serves(alg) && (kid == "" || k.ID == kid) {
			found = append(found, k.Public)
		}
	}
	switch {
	case len(found) == 0:
		return nil, ErrUnknownKey
	case kid == "" && len(found) > 1:
		return nil, errors.New("the token does not say which of several keys signed it")
	}
	return found, nil
}

func (s *KeySet) recentlyMissed(kid string) bool {
	s.missing.Lock()
	defer s.missing.Unlock()
	return s.Now().Before(s.missed[kid])
}

func (s *KeySet) miss(kid string) {
	s.missing.Lock()
	defer s.missing.Unlock()
	if s.missed == nil || len(s.missed) >= maxMissedKIDs {
		s.missed = map[string]time.Time{} // the pause between fetches still holds
	}
	s.missed[kid] = s.Now().Add(missedFor)
}

// ParseKeys reads a key set. Keys that are not for signatures, or of a kind or
// strength we do not use, are left out; a set without a usable key is an error.
func ParseKeys(doc Object) ([]Key, error) {
	list, ok := doc["keys"].([]any)
	if !ok {
		return nil, errors.New("a key set without a list of keys")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("a key set with more than %d keys", maxKeys)
	}
	var keys []Key
	var unusable error
	for _, member := range list {
		fields, _ := member.(map[string]any)
		key, err := ParseKey(fields)
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

// ParseKey reads one public key for signatures (RFC 7517 §4, RFC 7518 §6).
func ParseKey(jwk Object) (k Key, err error) {
	var text [5]string
	for i, name := range []string{"kid", "alg", "kty", "use", "crv"} {
		if text[i], err = jwk.Text(name); err != nil {
			return k, err
		}
	}
	k.ID, k.Alg = text[0], text[1]
	kty, use, crv := text[2], text[3], text[4]
	if use != "" && use != "sig" {
		return k, errors.New("a key that is not for signatures")
	}
	if ops, err := jwk.Texts("key_ops"); err != nil || ops != nil && !slices.Contains(ops, "verify") {
		return k, errors.New("a key that is not for verifying")
	}
	if k.Alg != "" && !slices.Contains(Algorithms(), k.Alg) {
		return k, fmt.Errorf("a key for %.20q", k.Alg)
	}
	switch {
	case kty == "RSA":
		k.Public, err = rsaKey(jwk)
	case kty == "EC" && crv == "P-256":
		k.Public, err = p256Key(jwk)
	case kty == "OKP" && crv == "Ed25519":
		k.Public, err = ed25519Key(jwk)
	default:
		err = fmt.Errorf("a key of kind %.20q %.20q", kty, crv)
	}
	return k, err
}

// Bytes decodes a base64url member of a key.
func (o Object) Bytes(name string) ([]byte, error) {
	text, err := o.Text(name)
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) == 0 {
		return nil, fmt.Errorf("a key without a proper %q", name)
	}
	return raw, nil
}

func rsaKey(jwk Object) (*rsa.PublicKey, error) {
	n, err := jwk.Bytes("n")
	if err != nil {
		return nil, err
	}
	e, err := jwk.Bytes("e")
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

func p256Key(jwk Object) (*ecdsa.PublicKey, error) {
	x, err := jwk.Bytes("x")
	if err != nil {
		return nil, err
	}
	y, err := jwk.Bytes("y")
	if err != nil {
		return nil, err
	}
	if len(x) != 32 || len(y) != 32 {
		return nil, errors.New("a P-256 key of the wrong length")
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
}

func ed25519Key(jwk Object) (ed25519.PublicKey, error) {
	x, err := jwk.Bytes("x")
	if err == nil && len(x) != ed25519.PublicKeySize {
		err = errors.New("an Ed25519 key of the wrong length")
	}
	return ed25519.PublicKey(x), err
}
