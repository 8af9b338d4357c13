package authn

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// ClientAuth is how we prove to a provider that we are the client registered
// there. The zero value is `basic`.
type ClientAuth struct {
	// PrivateKeyJWT names a PEM file with the private key that signs our
	// assertions (private_key_jwt, RFC 7523): RSA of 2048 bits or more, P-256 or
	// Ed25519. The public half is at `/.doorward/client-jwks.json`. Further keys
	// in the file are published there and not used yet, so that a new key can be
	// announced before its turn.
	PrivateKeyJWT access.Secret `yaml:"private_key_jwt"`
	// MTLS is the certificate we present to the provider (tls_client_auth and
	// self_signed_tls_client_auth, RFC 8705).
	MTLS ClientCertificate `yaml:"mtls"`

	word string
}

// ClientCertificate is a certificate with its key, both PEM files.
type ClientCertificate struct {
	// Cert is the file with the certificate and what leads to its authority.
	Cert string `yaml:"cert"`
	// Key is the file with the private key.
	Key string `yaml:"key"`
}

// The ways of client authentication. The first three are words of the
// configuration, the others have something to name.
const (
	clientAuthBasic = "basic"
	clientAuthPost  = "post"
	clientAuthNone  = "none"
	clientAuthKey   = "private_key_jwt"
	clientAuthMTLS  = "mtls"
)

// UnmarshalText accepts the words `basic`, `post` and `none`.
func (a *ClientAuth) UnmarshalText(text []byte) error {
	word := string(text)
	if !slices.Contains([]string{clientAuthBasic, clientAuthPost, clientAuthNone}, word) {
		return fmt.Errorf("%q is no way to authenticate a client: choose basic, post, none, {private_key_jwt: {file: PATH}} or {mtls: {cert: FILE, key: FILE}}", word)
	}
	*a = ClientAuth{word: word}
	return nil
}

func (a *ClientAuth) method() string {
	switch {
	case !a.PrivateKeyJWT.IsZero():
		return clientAuthKey
	case a.MTLS != ClientCertificate{}:
		return clientAuthMTLS
	case a.word == "":
		return clientAuthBasic
	}
	return a.word
}

// profileFAPI2 is the FAPI 2.0 Security Profile.
const profileFAPI2 = "fapi2"

func (p *Provider) fapi2() bool { return p.Profile == profileFAPI2 }

// bound tells that tokens are asked for that only the holder of a key can use.
// A certificate is such a key already.
func (p *Provider) bound() bool {
	return p.DPoP || p.fapi2() && p.ClientAuth.method() != clientAuthMTLS
}

// validateClient reports every mistake in how we act as a client.
func (p *Provider) validateClient(f access.Faults) {
	auth := &p.ClientAuth
	at := f.At("client_auth")
	method := auth.method()
	if method == clientAuthKey && auth.MTLS != (ClientCertificate{}) {
		at.Add("keep one of them", "a client proves itself in one way, not in two")
	}
	switch method {
	case clientAuthBasic, clientAuthPost:
		if p.ClientSecret.IsZero() {
			f.At("client_secret").Add("add client_secret: {file: PATH}, or client_auth: none for a public client", "the client secret is missing")
		}
	case clientAuthNone:
		if !p.ClientSecret.IsZero() {
			f.At("client_secret").Add("remove it, or choose client_auth: basic", "a public client sends no secret")
		}
	default:
		if !p.ClientSecret.IsZero() {
			f.At("client_secret").Add("remove it", "with client_auth %s no secret is sent", method)
		}
	}
	if method == clientAuthMTLS {
		if auth.MTLS.Cert == "" {
			at.At("mtls").At("cert").Add("name the PEM file of the certificate", "the certificate is missing")
		}
		if auth.MTLS.Key == "" {
			at.At("mtls").At("key").Add("name the PEM file of the private key", "the key of the certificate is missing")
		}
	}
	// An empty value was not read yet, or could not be; whoever reads it says so.
	if pem := auth.PrivateKeyJWT.Reveal(); pem != "" {
		if _, err := parseClientKeys(pem); err != nil {
			at.At("private_key_jwt").Add("make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", "%s", err)
		}
	}
	switch p.Profile {
	case "":
	case profileFAPI2:
		if method != clientAuthKey && method != clientAuthMTLS {
			at.Add("add client_auth: {private_key_jwt: {file: PATH}} or {mtls: {cert: FILE, key: FILE}}", "the profile fapi2 needs a client that proves itself with a key")
		}
		if i := slices.Index(p.Algorithms, "RS256"); i >= 0 {
			f.At("algorithms[%d]", i).Add("remove it", "the profile fapi2 does not accept RS256")
		}
	default:
		f.At("profile").Add("choose fapi2 or remove it", "%q is not a profile", p.Profile)
	}
}

// authenticate adds the proof that we are the client to a form for one of the
// provider's endpoints (RFC 6749 §2.3, RFC 7523 §2.2, RFC 8705 §2).
func (c *client) authenticate(meta *metadata, form url.Values, header http.Header) error {
	switch c.cfg.ClientAuth.method() {
	case clientAuthBasic:
		req := http.Request{Header: header}
		req.SetBasicAuth(url.QueryEscape(c.cfg.ClientID), url.QueryEscape(c.cfg.ClientSecret.Reveal()))
		return nil
	case clientAuthPost:
		form.Set("client_secret", c.cfg.ClientSecret.Reveal())
	case clientAuthKey:
		assertion, err := c.assertion(meta)
		if err != nil {
			return err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	form.Set("client_id", c.cfg.ClientID)
	return nil
}

// pushes reports whether authorization requests go to the provider directly.
func (c *client) pushes(meta *metadata) bool {
	return c.cfg.PAR || c.cfg.fapi2() || meta.parRequired
}

// agree reports whether the provider offers what the configuration demands.
// Without this check the provider would say it less clearly, to a visitor.
func (c *client) agree(meta *metadata) error {
	if c.cfg.interactive() && c.pushes(meta) && meta.par == "" {
		return errors.New("authorization requests have to be pushed, but the provider has no pushed_authorization_request_endpoint")
	}
	if c.cfg.bound() && meta.dpopAlgorithms != nil && !slices.Contains(meta.dpopAlgorithms, proofAlgorithm) {
		return fmt.Errorf("the provider takes no DPoP proofs signed with %s, only %s", proofAlgorithm, strings.Join(meta.dpopAlgorithms, ", "))
	}
	if len(c.clientKeys) > 0 {
		if _, err := c.clientKeys[0].algorithm(meta.assertionAlgorithms, c.cfg.fapi2()); err != nil {
			return err
		}
	}
	return nil
}

// push hands the parameters of an authorization request to the provider itself
// (RFC 9126 §2), where nobody at the browser can read or change them, and returns
// those that the browser is sent with instead (§4).
func (c *client) push(ctx context.Context, meta *metadata, params url.Values, key *proofKey) (url.Values, error) {
	select {
	case c.pushing <- struct{}{}:
		defer func() { <-c.pushing }()
	default:
		return nil, access.Becausef(access.TooManyLogins, "%d requests are being pushed to %s", maxPushes, c.cfg.ID)
	}
	answer, err := c.post(ctx, meta, meta.par, params, key)
	if err != nil {
		return nil, err
	}
	uri := text(answer, "request_uri")
	if uri == "" || len(uri) > maxRequestURI || strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, access.Because(access.LoginFailed, errors.New("the answer to the pushed request holds no proper request_uri"))
	}
	return url.Values{"client_id": {c.cfg.ClientID}, "request_uri": {uri}}, nil
}

const (
	maxRequestURI = 1 << 10
	// maxPushes at a time: anyone can begin a login, and each costs the provider a
	// request and us a signature.
	maxPushes = 64
)
