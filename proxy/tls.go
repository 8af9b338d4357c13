package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync/atomic"
)

// TLS holds the listener's TLS configuration. It can be replaced while the
// listener serves; connections that are open keep the one they were made with.
type TLS struct {
	current atomic.Pointer[tls.Config]
}

// NewTLS reads the certificate files of a configuration.
func NewTLS(c TLSConfig) (*TLS, error) {
	t := &TLS{}
	return t, t.Reload(c)
}

// Reload reads the files again. On an error the old configuration stays.
func (t *TLS) Reload(c TLSConfig) error {
	conf, err := serverTLS(&c)
	if err != nil {
		return err
	}
	t.current.Store(conf)
	return nil
}

// Config returns the configuration for the listener. It always uses what was
// loaded last.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12, // the loaded one may ask for more
		NextProtos:         nextProtos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current.Load(), nil },
	}
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
		conf.Certificates = append(conf.Certificates, cert)
	}
	if len(conf.Certificates) == 0 {
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
