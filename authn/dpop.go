package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// proofAlgorithm signs DPoP proofs; every server that knows DPoP has it.
const proofAlgorithm = "ES256"

// proofKey is the key of one login that its tokens are bound to (RFC 9449).
// Whoever steals the tokens can do nothing with them without it.
type proofKey struct {
	private *ecdsa.PrivateKey
	public  publicJWK
}

func newProofKey() (*proofKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, access.Becausef(access.InternalError, "making a DPoP key: %w", err)
	}
	public, err := newPublicJWK(&private.PublicKey)
	return &proofKey{private, public}, err
}

// parseProofKey is the inverse of text.
func parseProofKey(text string) (*proofKey, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("a DPoP key that cannot be read")
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		return nil, errors.New("a DPoP key that is none")
	}
	public, err := newPublicJWK(&private.PublicKey)
	return &proofKey{private, public}, err
}

// text is the private key in 43 characters, for a place that is sealed; "" for
// no key.
func (k *proofKey) text() string {
	if k == nil {
		return ""
	}
	raw, err := k.private.Bytes()
	if err != nil {
		return "" // never: the key is on P-256
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// proofKey returns the key that a login's tokens are bound to, or are to be; nil
// if they are bound to none. Tokens once bound stay so, whatever the
// configuration says by now.
func (c *client) proofKey(held string) (*proofKey, error) {
	switch {
	case held != "":
		key, err := parseProofKey(held)
		if err != nil {
			return nil, access.Because(access.InternalError, err)
		}
		return key, nil
	case c.cfg.bound():
		return newProofKey()
	}
	return nil, nil
}

// proof returns a DPoP proof for one request (RFC 9449 §4.2), also of an access
// token if there is one.
func (c *client) proof(key *proofKey, method, address, accessToken string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	id, err := c.random(16)
	if err != nil {
		return "", err
	}
	claims := jwt.MapClaims{"jti": id, "htm": method, "htu": proofTarget(u), "iat": c.now().Unix()}
	if accessToken != "" {
		claims["ath"] = tokenHash(accessToken)
	}
	if nonce := c.nonces.of(u); nonce != "" {
		claims["nonce"] = nonce
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["typ"], token.Header["jwk"] = "dpop+jwt", key.public
	return token.SignedString(key.private)
}

// proofTarget is the address without query and fragment.
func proofTarget(u *url.URL) string {
	target := *u
	target.RawQuery, target.ForceQuery, target.Fragment, target.RawFragment = "", false, "", ""
	return target.String()
}

// tokenHash is the claim `ath`.
func tokenHash(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// nonces remembers what each server wants to read in the next proof (RFC 9449
// §8). The servers are those that the provider's metadata name.
type nonces struct {
	mu   sync.Mutex
	last map[string]string // by origin
}

const (
	maxNonce   = 512
	maxServers = 16
)

func (n *nonces) of(u *url.URL) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last[u.Scheme+"://"+u.Host]
}

// note keeps the nonce of an answer and reports whether there is one.
func (n *nonces) note(resp *http.Response) bool {
	values := resp.Header.Values("DPoP-Nonce")
	if len(values) != 1 || values[0] == "" || len(values[0]) > maxNonce || !isScope(values[0]) { // NQCHAR, as scopes are
		return false
	}
	u := resp.Request.URL
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == nil || len(n.last) >= maxServers {
		n.last = map[string]string{}
	}
	n.last[u.Scheme+"://"+u.Host] = values[0]
	return true
}

// fetch reads a JSON object that an access token opens (RFC 6750 §2.1; RFC 9449
// §7.1 if the token is bound to a key).
func (c *client) fetch(ctx context.Context, address string, g *grant) (jose.Object, error) {
	if g.key == nil {
		return jose.GetJSON(ctx, c.http, address, g.access)
	}
	ctx, cancel := context.WithTimeout(ctx, jose.FetchTimeout)
	defer cancel()
	for try := 1; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		proof, err := c.proof(g.key, req.Method, address, g.access)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "application/json")
		req.Header.Set("Authorization", "DPoP "+g.access)
		req.Header.Set("DPoP", proof)
		resp, answer, err := jose.AskJSON(c.http, req)
		if resp == nil {
			return nil, err
		}
		renewed := c.nonces.note(resp)
		switch {
		case resp.StatusCode == http.StatusOK:
			return answer, err
		case resp.StatusCode == http.StatusUnauthorized && renewed && try == 1 && wantsNonce(resp):
		default:
			return nil, fmt.Errorf("%s answered %d", address, resp.StatusCode)
		}
	}
}

// wantsNonce reads the challenge of a resource server (RFC 9449 §9).
func wantsNonce(resp *http.Response) bool {
	for _, challenge := range resp.Header.Values("WWW-Authenticate") {
		if strings.Contains(challenge, `error="`+errorUseNonce+`"`) {
			return true
		}
	}
	return false
}
