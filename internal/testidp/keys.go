package testidp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// key is a signing key with its name in the key set.
type key struct {
	ID        string
	Algorithm string
	signer    crypto.Signer
}

// storedKey is how a key lies in the state file.
type storedKey struct {
	ID, Algorithm string
	PKCS8         []byte
}

// MarshalJSON implements json.Marshaler.
func (k *key) MarshalJSON() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, err
	}
	return json.Marshal(storedKey{k.ID, k.Algorithm, der})
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *key) UnmarshalJSON(text []byte) error {
	var stored storedKey
	if err := json.Unmarshal(text, &stored); err != nil {
		return err
	}
	private, err := x509.ParsePKCS8PrivateKey(stored.PKCS8)
	if err != nil {
		return err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return fmt.Errorf("key %s cannot sign", stored.ID)
	}
	*k = key{stored.ID, stored.Algorithm, signer}
	return nil
}

// newKey makes a key. Key generation takes its randomness from the system,
// since crypto/rsa and crypto/ecdsa use no other.
func newKey(algorithm string) (*key, error) {
	var signer crypto.Signer
	var err error
	switch algorithm {
	case "RS256":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return nil, fmt.Errorf("testidp: algorithm %q is neither RS256 nor ES256", algorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("testidp: %s key: %w", algorithm, err)
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("testidp: %s key: %w", algorithm, err)
	}
	return &key{digest(string(der))[:16], algorithm, signer}, nil
}

func (p *Provider) addKey(algorithm string) error {
	k, err := newKey(algorithm)
	if err == nil {
		p.state.Keys = append(p.state.Keys, k)
	}
	return err
}

// signingKey returns the newest key of an algorithm or nil.
func (p *Provider) signingKey(algorithm string) *key {
	for _, k := range slices.Backward(p.state.Keys) {
		if k.Algorithm == algorithm {
			return k
		}
	}
	return nil
}

// RotateKeys makes new keys and signs with them from now on. The old ones stay
// published, so that tokens under way can be verified, until RetireKeys.
func (p *Provider) RotateKeys() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, algorithm := range p.options.Algorithms {
		if err := p.addKey(algorithm); err != nil {
			return err
		}
	}
	return p.save()
}

// RetireKeys withdraws all keys but those that sign now.
func (p *Provider) RetireKeys() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Keys = slices.DeleteFunc(p.state.Keys, func(k *key) bool { return p.signingKey(k.Algorithm) != k })
	p.saved()
}

// SignWith chooses which of Options.Algorithms signs ID tokens.
func (p *Provider) SignWith(algorithm string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signingKey(algorithm) == nil {
		return fmt.Errorf("testidp: no key for %s", algorithm)
	}
	p.algorithm = algorithm
	return nil
}

// PublicKey returns the public half of the key that signs now, for tests that
// misuse it.
func (p *Provider) PublicKey() crypto.PublicKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.signingKey(p.algorithm).signer.Public()
}

// Header returns the JOSE header of the next ID token.
func (p *Provider) Header() map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.signingKey(p.algorithm)
	return map[string]any{"alg": k.Algorithm, "kid": k.ID, "typ": "JWT"}
}

// Sign signs any claims, whatever the header says about the algorithm: with the
// key that its kid names or, where that is none of ours, the one that signs
// now. Start from Header for a lawful token.
func (p *Provider) Sign(header, claims map[string]any) (string, error) {
	p.mu.Lock()
	k := p.signingKey(p.algorithm)
	if i := slices.IndexFunc(p.state.Keys, func(k *key) bool { return k.ID == header["kid"] }); i >= 0 {
		k = p.state.Keys[i]
	}
	p.mu.Unlock()
	token := jwt.Token{Header: header, Claims: jwt.MapClaims(claims), Method: jwt.GetSigningMethod(k.Algorithm)}
	signed, err := token.SignedString(k.signer)
	if err != nil {
		return "", fmt.Errorf("testidp: sign: %w", err)
	}
	return signed, nil
}

// jwk is a public key in a key set (RFC 7517, RFC 7518 §6).
type jwk struct {
	Type      string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

func (k *key) public() (jwk, error) {
	out := jwk{Use: "sig", Algorithm: k.Algorithm, ID: k.ID}
	encode := base64.RawURLEncoding.EncodeToString
	switch public := k.signer.Public().(type) {
	case *rsa.PublicKey:
		out.Type, out.N, out.E = "RSA", encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, X, Y
		if err != nil {
			return jwk{}, err
		}
		half := (len(point) - 1) / 2
		out.Type, out.Curve, out.X, out.Y = "EC", "P-256", encode(point[1:1+half]), encode(point[1+half:])
	}
	return out, nil
}

func (p *Provider) jwks(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	keys := slices.Clone(p.state.Keys)
	p.mu.Unlock()
	set := struct {
		Keys []jwk `json:"keys"`
	}{[]jwk{}}
	for _, k := range keys {
		public, err := k.public()
		if err != nil {
			p.options.Log.Error("key not published", "kid", k.ID, "err", err)
			continue
		}
		set.Keys = append(set.Keys, public)
	}
	writeJSON(w, http.StatusOK, set)
}

// discovery serves the metadata (OpenID Connect Discovery §3, RFC 8414).
func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	metadata := map[string]any{
		"issuer":                           p.issuer,
		"authorization_endpoint":           p.at("authorize"),
		"token_endpoint":                   p.at("token"),
		"userinfo_endpoint":                p.at("userinfo"),
		"jwks_uri":                         p.at("jwks"),
		"revocation_endpoint":              p.at("revoke"),
		"device_authorization_endpoint":    p.at("device_authorization"),
		"end_session_endpoint":             p.at("logout"),
		"response_types_supported":         []string{"code"},
		"response_modes_supported":         []string{"query"},
		"grant_types_supported":            []string{"authorization_code", "refresh_token", grantDevice},
		"subject_types_supported":          []string{"public"},
		"scopes_supported":                 []string{"openid", "profile", "email", "groups", "offline_access"},
		"code_challenge_methods_supported": []string{"S256"},
		"prompt_values_supported":          []string{"none", "login", "consent", "select_account"},
		"acr_values_supported":             []string{acrPassword, acrMFA},
		"claim_types_supported":            []string{"normal"},
		"claims_supported": []string{
			"sub", "auth_time", "acr", "amr", "sid", "email", "email_verified", "name", "preferred_username", "groups",
		},
		"claims_parameter_supported":                     true,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false,
		"id_token_signing_alg_values_supported":          p.options.Algorithms,
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post", "none"},
		"revocation_endpoint_auth_methods_supported":     []string{"client_secret_basic", "client_secret_post", "none"},
		"authorization_response_iss_parameter_supported": true,
		"backchannel_logout_supported":                   true,
		"backchannel_logout_session_supported":           true,
	}
	if mutate := p.trouble.current().MutateDiscovery; mutate != nil {
		mutate(metadata)
	}
	writeJSON(w, http.StatusOK, metadata)
}
