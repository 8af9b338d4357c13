package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
)

// publicJWK is the public half of a key of ours, as a JSON Web Key (RFC 7517).
// It has only the members that RFC 7638 §3.2 requires for a thumbprint, in the
// order that §3.3 does.
type publicJWK struct {
	Crv string `json:"crv,omitempty"`
	E   string `json:"e,omitempty"`
	Kty string `json:"kty"`
	N   string `json:"n,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
}

func newPublicJWK(key crypto.PublicKey) (publicJWK, error) {
	text := base64.RawURLEncoding.EncodeToString
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 {
			return publicJWK{}, fmt.Errorf("an RSA key of %d bits is too weak, it needs 2048", bits)
		}
		return publicJWK{Kty: "RSA", N: text(key.N.Bytes()), E: text(big.NewInt(int64(key.E)).Bytes())}, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return publicJWK{}, fmt.Errorf("an EC key must be on the curve P-256, not %s", key.Curve.Params().Name)
		}
		point, err := key.Bytes()
		if err != nil {
			return publicJWK{}, err
		}
		return publicJWK{Kty: "EC", Crv: "P-256", X: text(point[1:33]), Y: text(point[33:])}, nil
	case ed25519.PublicKey:
		return publicJWK{Kty: "OKP", Crv: "Ed25519", X: text(key)}, nil
	}
	return publicJWK{}, fmt.Errorf("a key of type %T is of no use here", key)
}

// thumbprint is the name of a key that follows from the key (RFC 7638).
func (k publicJWK) thumbprint() string {
	canonical, _ := json.Marshal(k) // strings only
	sum := sha256.Sum256(canonical)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// clientKey is a private key that signs our assertions.
type clientKey struct {
	private crypto.Signer
	public  publicJWK
}

const maxClientKeys = 8

// parseClientKeys reads the private keys of a PEM file: PKCS #8, or what
// OpenSSL writes for RSA and EC keys. Errors never hold a part of the file.
func parseClientKeys(text string) (keys []clientKey, err error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue // openssl writes EC PARAMETERS first
		}
		if len(keys) == maxClientKeys {
			return nil, fmt.Errorf("the file holds more than %d keys", maxClientKeys)
		}
		key, err := parseClientKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("the file holds no private key in PEM form")
	}
	return keys, nil
}

func parseClientKey(block *pem.Block) (clientKey, error) {
	var private any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return clientKey{}, fmt.Errorf("a %q cannot be read; write the key without a passphrase", block.Type)
	}
	signer, ok := private.(crypto.Signer)
	if err != nil || !ok {
		return clientKey{}, errors.New("the private key cannot be read")
	}
	public, err := newPublicJWK(signer.Public())
	return clientKey{signer, public}, err
}

// algorithm returns how to sign with the key, of what a provider supports. A
// provider that does not say what it supports gets what OpenID Connect began
// with; FAPI 2.0 rules that out (§5.4.1).
func (k *clientKey) algorithm(supported []string, fapi2 bool) (jwt.SigningMethod, error) {
	var choice []jwt.SigningMethod
	switch {
	case k.public.Kty == "EC":
		choice = []jwt.SigningMethod{jwt.SigningMethodES256}
	case k.public.Kty == "OKP":
		choice = []jwt.SigningMethod{jwt.SigningMethodEdDSA}
	case fapi2:
		choice = []jwt.SigningMethod{jwt.SigningMethodPS256}
	case supported == nil:
		choice = []jwt.SigningMethod{jwt.SigningMethodRS256}
	default:
		choice = []jwt.SigningMethod{jwt.SigningMethodPS256, jwt.SigningMethodRS256}
	}
	for _, method := range choice {
		if supported == nil || slices.Contains(supported, method.Alg()) {
			return method, nil
		}
	}
	return nil, fmt.Errorf("the provider takes no assertions signed with %s, only %s", choice[0].Alg(), strings.Join(supported, ", "))
}

// assertionLife is short: an assertion is made for one request.
const assertionLife = time.Minute

// assertion returns a signed statement that we are the client (RFC 7523 §3). Its
// audience is the issuer alone: for any other one, a provider that lies about
// its endpoints could use it elsewhere.
func (c *client) assertion(meta *metadata) (string, error) {
	key := &c.clientKeys[0]
	method, err := key.algorithm(meta.assertionAlgorithms, c.cfg.fapi2())
	if err != nil {
		return "", access.Because(access.LoginFailed, err)
	}
	id, err := c.random(16)
	if err != nil {
		return "", access.Because(access.InternalError, err)
	}
	now := c.now()
	token := jwt.NewWithClaims(method, jwt.MapClaims{
		"iss": c.cfg.ClientID, "sub": c.cfg.ClientID, "aud": c.cfg.Issuer,
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(), "jti": id,
	})
	token.Header["kid"] = key.public.thumbprint()
	signed, err := token.SignedString(key.private)
	if err != nil {
		return "", access.Becausef(access.InternalError, "signing an assertion: %w", err)
	}
	return signed, nil
}

// random returns n random bytes, base64url.
func (c *client) random(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(c.rand, b); err != nil {
		return "", fmt.Errorf("no randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// serveClientKeys publishes the public keys behind our assertions, for the
// providers to read as jwks_uri (RFC 7591 §2).
func (a *Authenticator) serveClientKeys(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return access.Becausef(access.BadRequest, "client keys by %.20q", r.Method)
	}
	type entry struct {
		publicJWK
		KID string `json:"kid"`
		Use string `json:"use"`
	}
	keys := []entry{}
	for _, c := range a.order {
		for _, key := range c.clientKeys {
			e := entry{key.public, key.public.thumbprint(), "sig"}
			if !slices.Contains(keys, e) {
				keys = append(keys, e)
			}
		}
	}
	if len(keys) == 0 {
		return access.Because(access.NoRoute, errors.New("no provider knows us by a key"))
	}
	body, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		return access.Because(access.InternalError, err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=300")
	w.Write(body) // net/http leaves it out for HEAD
	return nil
}
