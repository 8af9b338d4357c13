package issuance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

// authority is whom certificates are ordered from.
type authority struct {
	conf   Config
	client *http.Client
}

func newAuthority(conf Config) (*authority, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if conf.CA != "" {
		text, err := os.ReadFile(conf.CA)
		if err != nil {
			return nil, fmt.Errorf("acme.ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("acme.ca: %s holds no certificate", conf.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &authority{conf: conf, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}, nil
}

const mostRetries = 4

// retryAfter is how long to wait before a request is sent again. An authority
// that limits us is left alone: the pause of the host takes care of that.
func retryAfter(n int, _ *http.Request, res *http.Response) time.Duration {
	if n > mostRetries || res != nil && res.StatusCode == http.StatusTooManyRequests {
		return -1
	}
	return time.Duration(n) * time.Second
}

// obtain orders a certificate for one host (RFC 8555 §7), proves that the host is
// ours by an answer that every replica can give, and returns it with its new key.
func (i *Issuer) obtain(ctx context.Context, a *authority, host string) ([]byte, error) {
	account, err := i.account(ctx)
	if err != nil {
		return nil, fmt.Errorf("the account's key: %w", err)
	}
	client := &acme.Client{Key: account, DirectoryURL: a.conf.Directory, HTTPClient: a.client, RetryBackoff: retryAfter, UserAgent: "doorward"}
	var contact []string
	if a.conf.Email != "" {
		contact = []string{"mailto:" + a.conf.Email}
	}
	// That the terms are accepted is part of the configuration.
	if _, err := client.Register(ctx, &acme.Account{Contact: contact}, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("the account: %w", err)
	}
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(host))
	if err != nil {
		return nil, err
	}
	for _, url := range order.AuthzURLs {
		if err := i.prove(ctx, client, url, host); err != nil {
			return nil, err
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		return nil, err
	}
	var key crypto.Signer
	if a.conf.KeyType == "rsa" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{host}}, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := client.CreateCertFromOrder(ctx, order, request, true)
	if err != nil {
		return nil, err
	}
	return encode(chain, key)
}

// prove answers one question of the authority and waits until it has asked.
func (i *Issuer) prove(ctx context.Context, client *acme.Client, url, host string) error {
	authz, err := client.GetAuthorization(ctx, url)
	if err != nil {
		return err
	}
	if authz.Status == acme.StatusValid {
		return nil // proven not long ago
	}
	for _, challenge := range authz.Challenges {
		if challenge.Type != "tls-alpn-01" {
			continue
		}
		proof, err := client.TLSALPN01ChallengeCert(challenge.Token, host)
		if err != nil {
			return err
		}
		text, err := encode(proof.Certificate, proof.PrivateKey)
		if err != nil {
			return err
		}
		if err := i.opts.Keep.Put(ctx, challengeName(host), text, i.opts.Now().Add(2*attemptLimit)); err != nil {
			return err
		}
		if _, err := client.Accept(ctx, challenge); err != nil {
			return err
		}
		_, err = client.WaitAuthorization(ctx, authz.URI)
		return err
	}
	return errNoChallenge
}

var errNoChallenge = errors.New("the authority offers no proof by TLS-ALPN-01")

// explain says what went wrong and what to do about it.
func explain(err error) string {
	var (
		refused   *acme.Error
		unproven  *acme.AuthorizationError
		untrusted x509.UnknownAuthorityError
		cure      string
	)
	errors.As(err, &refused)
	limited := false
	if refused != nil {
		_, limited = acme.RateLimit(refused)
	}
	switch {
	case limited:
		cure = "nothing to do but wait; the next attempt is made when the authority allows it"
	case errors.As(err, &unproven):
		cure = "the authority connects to port 443 of the host: see that its name leads there, that the firewall lets it in, and that nothing in between ends TLS"
	case errors.Is(err, errNoChallenge):
		cure = "use an authority that does, or put a certificate into server.tls.certificates"
	case errors.As(err, &untrusted):
		cure = "name the authorities that vouch for the directory in server.tls.acme.ca"
	case refused != nil && refused.ProblemType == "urn:ietf:params:acme:error:caa":
		cure = "a CAA record of the domain names other authorities; add this one"
	case refused != nil && refused.ProblemType == "urn:ietf:params:acme:error:rejectedIdentifier":
		cure = "this authority issues nothing for the host; list the others in server.tls.acme.hosts"
	case refused != nil:
		cure = "the authority refuses; see its words"
	case errors.Is(err, context.DeadlineExceeded):
		cure = "the authority or the store took too long; see whether the directory can be reached from here"
	default:
		cure = "see whether the directory can be reached from here"
	}
	text := err.Error()
	if len(text) > longestText {
		text = strings.ToValidUTF8(text[:longestText], "") + " …"
	}
	return text + "; " + cure
}

// longestText is the most of an authority's words that is repeated.
const longestText = 500
