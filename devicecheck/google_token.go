package devicecheck

import (
	"context"
	"crypto/rsa"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
)

const (
	googleTokens   = "https://oauth2.googleapis.com/token"
	googleMetadata = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
	grantJWT       = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	// assertionLife is how long the proof for a token counts.
	assertionLife = 10 * time.Minute
	minRSA        = 2048 // bits
)

// serviceAccount is the key of a service account, as Google writes it to a file.
type serviceAccount struct {
	email, keyID string
	tokenURL     *url.URL
	key          *rsa.PrivateKey
}

// parseServiceAccount reads that file. Its errors repeat nothing of it.
func parseServiceAccount(secret access.Secret) (*serviceAccount, error) {
	file, err := readObject([]byte(secret.Reveal()))
	if err != nil {
		return nil, errors.New("the key of the service account is no JSON object")
	}
	text := func(name string) string { s, _ := file[name].(string); return s }
	if text("type") != "service_account" || text("client_email") == "" {
		return nil, errors.New("the file is no key of a service account")
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(text("private_key")))
	if err != nil || key.N.BitLen() < minRSA {
		return nil, errors.New("the private key of the service account is no RSA key of 2048 bits or more")
	}
	address, err := parseHome(orText(text("token_uri"), googleTokens))
	if err != nil {
		return nil, errors.New("the token_uri of the service account does not begin with https://")
	}
	return &serviceAccount{email: text("client_email"), keyID: text("private_key_id"), tokenURL: address, key: key}, nil
}

// parseTokenURL parses the address of a metadata server, which speaks plain
// http by design: it is reached without leaving the machine's own network.
func parseTokenURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err == nil && u.Scheme == "http" && u.Host == "metadata.google.internal" && u.User == nil && u.Fragment == "" {
		return u, nil
	}
	return parseHome(address)
}

// useGoogleTokens gets tokens by a signed assertion (RFC 7523), or from a
// metadata server.
func (r *remote) useGoogleTokens(s Source) error {
	if s.TokenURL != "" {
		address, err := parseTokenURL(s.TokenURL)
		if err != nil {
			return err
		}
		r.useTokens(func(ctx context.Context) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
			if err != nil {
				return nil, errors.New("the address for tokens is invalid")
			}
			req.Header.Set("Metadata-Flavor", "Google")
			return req, nil
		})
		return nil
	}
	account, err := parseServiceAccount(s.ServiceAccount)
	if err != nil {
		return err
	}
	r.useTokens(func(ctx context.Context) (*http.Request, error) {
		assertion, err := account.assertion(s.Subject, r.now())
		if err != nil {
			return nil, errors.New("the assertion of the service account cannot be signed")
		}
		return postForm(ctx, account.tokenURL.String(), url.Values{"grant_type": {grantJWT}, "assertion": {assertion}})
	})
	return nil
}

func (a *serviceAccount) assertion(subject string, now time.Time) (string, error) {
	claims := jwt.MapClaims{
		"iss": a.email, "scope": googleScope, "aud": a.tokenURL.String(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	}
	if subject != "" {
		claims["sub"] = subject
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	if a.keyID != "" {
		token.Header["kid"] = a.keyID
	}
	return token.SignedString(a.key)
}
