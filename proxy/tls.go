package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/issuance"
)

// Issuer has the certificates that are in no file.
type Issuer interface {
	// Certificate returns the certificate for a handshake, also for one by which an
	// authority asks whether a host is ours. It returns nothing, without an error,
	// for a host that is not its own.
	Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// TLS holds the listener's TLS configuration. It can be replaced while the
// listener serves; connections that are open keep the one they were made with.
type TLS struct {
	issuer  Issuer
	current atomic.Pointer[tls.Config]
}

// NewTLS reads the certificate files of a configuration. Hosts that none of them
// names are the issuer's, which may be nil.
func NewTLS(c TLSConfig, issuer Issuer) (*TLS, error) {
	t := &TLS{issuer: issuer}
	return t, t.Reload(c)
}

// Reload reads the files again. On an error the old configuration stays.
func (t *TLS) Reload(c TLSConfig) error {
	next, err := t.Prepare(c)
	if err != nil {
		return err
	}
	t.Use(next)
	return nil
}

// Prepared is a TLS configuration whose files were read, and which is not in use
// yet.
type Prepared struct{ conf *tls.Config }

// Prepare reads the files of a configuration, and changes nothing.
func (t *TLS) Prepare(c TLSConfig) (Prepared, error) {
	conf, err := serverTLS(&c)
	if err != nil {
		return Prepared{}, err
	}
	if c.ACME.Enabled() && t.issuer != nil {
		conf.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if covered(conf, hello.ServerName) {
				return nil, nil
			}
			return t.issuer.Certificate(hello)
		}
	}
	return Prepared{conf}, nil
}

// Leaves returns the certificates from files.
func (t *TLS) Leaves() []*x509.Certificate { return leavesOf(t.current.Load()) }

func leavesOf(conf *tls.Config) (list []*x509.Certificate) {
	for _, pair := range conf.Certificates {
		list = append(list, pair.Leaf)
	}
	return list
}

// Use takes up what was prepared, for every handshake from here on.
func (t *TLS) Use(next Prepared) { t.current.Store(next.conf) }

// Covers reports whether a certificate from a file is for a host.
func (p Prepared) Covers(host string) bool { return covered(p.conf, host) }

func covered(conf *tls.Config, host string) bool {
	return slices.ContainsFunc(conf.Certificates, func(c tls.Certificate) bool { return c.Leaf.VerifyHostname(host) == nil })
}

// Config returns the configuration for the listener. It always uses what was
// loaded last.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // the loaded one may ask for more
		NextProtos: nextProtos,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			conf := t.current.Load()
			if conf.GetCertificate != nil && issuance.Asks(hello) {
				return t.answer(), nil
			}
			return conf, nil
		},
	}
}

// answer is the configuration for an authority that asks. The connection ends
// with the handshake: no request is read from it.
func (t *TLS) answer() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{issuance.Protocol}, GetCertificate: t.issuer.Certificate}
}

var nextProtos = []string{"h2", "http/1.1"}

func serverTLS(c *TLSConfig) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: nextProtos}
	if c.MinVersion == "1.2" {
		conf.MinVersion = tls.VersionTLS12
	}
	for _, file := range c.Certificates {
		cert, err := tls.LoadX509KeyPair(file.Cert, file.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", file.Cert, err)
		}
		if mustStaple(cert.Leaf) {
			return nil, fmt.Errorf("certificate %s: %w", file.Cert, errMustStaple)
		}
		conf.Certificates = append(conf.Certificates, cert)
	}
	if len(conf.Certificates) == 0 && !c.ACME.Enabled() {
		return nil, fmt.Errorf("no certificate is configured")
	}
	pool, _, err := c.ClientCAs()
	if err != nil {
		return nil, err
	}
	if pool != nil {
		// Asked for, but not verified here: a certificate that does not hold is
		// a fact about the device, with a page that says so, and no reason to
		// break the connection without a word.
		conf.ClientAuth, conf.ClientCAs = tls.RequestClientCert, pool
	}
	return conf, nil
}

var errMustStaple = errors.New("it demands a stapled OCSP response, which Doorward does not send, so that browsers would refuse it; have it issued without must-staple")

// tlsFeature is the extension by which a certificate demands features of whoever
// serves it (RFC 7633); the only one in use is must-staple.
var tlsFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

func mustStaple(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(tlsFeature) })
}

// ClientCAs reads the authorities that device certificates are verified with, as
// a pool and one by one. It returns nil if none are configured.
func (c *TLSConfig) ClientCAs() (*x509.CertPool, []*x509.Certificate, error) {
	if c.ClientCA == "" {
		return nil, nil, nil
	}
	pool, text, err := readPool(c.ClientCA)
	if err != nil {
		return nil, nil, err
	}
	var authorities []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		// The pool leaves out what it cannot use, too.
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			authorities = append(authorities, cert)
		}
	}
	return pool, authorities, nil
}

// negotiated is what the record keeps of a connection.
func negotiated(state *tls.ConnectionState) access.TLS {
	t := access.TLS{Version: tls.VersionName(state.Version)}
	if state.CurveID != 0 { // a session of TLS 1.2 that is resumed has none
		t.Group = state.CurveID.String()
	}
	return t
}
