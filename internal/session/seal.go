package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
)

// encoding is how secrets, hashes and ids are written. Strict, so that no two
// spellings stand for one value.
var encoding = base64.RawURLEncoding.Strict()

const (
	secretBytes = 32
	// secretSize is the length of a written secret or SHA-256.
	secretSize = 43
)

// digest returns the SHA-256 of a written secret. Anything that cannot be a
// secret of ours is refused before it costs a hash.
func digest(secret string) (hash [sha256.Size]byte, ok bool) {
	if len(secret) != secretSize {
		return hash, false
	}
	var written [secretSize]byte
	copy(written[:], secret)
	var raw [secretBytes]byte
	// The length, because the decoder skips line ends.
	if n, err := encoding.Decode(raw[:], written[:]); err != nil || n != secretBytes {
		return hash, false
	}
	return sha256.Sum256(written[:]), true
}

// derive returns a 32-byte key for one purpose (RFC 5869).
func derive(secret []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "doorward "+purpose, 32)
}

// The purposes of keys derived from a secret the browser holds. Keys of Key
// begin with another word, so that none of them can ever be one of these.
const (
	forTicket = "ticket"
	forCode   = "code"
	forKey    = "key "
)

// seal encrypts plain (AES-256-GCM, random nonce). What is opened must have been
// sealed for the same place, so that sealed values cannot be moved.
func seal(key, plain []byte, place string) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, []byte(place)), nil
}

func open(key, sealed []byte, place string) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(place))
	if err != nil {
		return nil, fmt.Errorf("%w: it was not sealed for this place", errDamaged)
	}
	return plain, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealUnder and openUnder seal a data key under a secret the browser holds.
func sealUnder(secret, purpose string, dataKey []byte, place string) ([]byte, error) {
	key, err := derive([]byte(secret), purpose)
	if err != nil {
		return nil, err
	}
	return seal(key, dataKey, place)
}

func openUnder(secret, purpose string, sealed []byte, place string) ([]byte, error) {
	key, err := derive([]byte(secret), purpose)
	if err != nil {
		return nil, err
	}
	return open(key, sealed, place)
}

// redacted keeps a struct that embeds it, and with it the secrets inside, out of
// every log and error text.
type redacted struct{}

// Format implements fmt.Formatter.
func (redacted) Format(s fmt.State, _ rune) { io.WriteString(s, "[redacted]") }

// MarshalText implements encoding.TextMarshaler, which JSON and slog use.
func (redacted) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }
