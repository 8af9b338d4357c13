package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// wrongUpstream tells that an upstream proved to be somebody, and not the one who
// was meant. The handshake ended before anything of a request was sent.
type wrongUpstream struct{ want, got string }

func (e *wrongUpstream) Error() string {
	return fmt.Sprintf("the upstream should be %s, its certificate is for %s", e.want, e.got)
}

// clientTLS reads the files of `upstream_tls`. The digest covers their content,
// so that an upstream whose files were replaced gets new connections, while what
// is in flight finishes on the old ones.
func clientTLS(c *access.UpstreamTLS) (*tls.Config, []byte, error) {
	conf := &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	digest := sha256.New()
	fmt.Fprintf(digest, "%q", *c)
	if c.CA != "" {
		pool, pem, err := readPool(c.CA)
		if err != nil {
			return nil, nil, err
		}
		digest.Write(pem)
		conf.RootCAs = pool
	}
	if c.ClientCert != "" {
		cert, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
		if err != nil {
			return nil, nil, fmt.Errorf("client certificate %s: %w", c.ClientCert, err)
		}
		for _, der := range cert.Certificate {
			digest.Write(der)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	switch {
	case c.SPIFFE != "":
		// The certificate of a workload carries no host name, so the chain is
		// verified below, and then the id.
		conf.InsecureSkipVerify = true
		roots := conf.RootCAs
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			if err := verifyChain(s.PeerCertificates, roots); err != nil {
				return err
			}
			return verifySPIFFE(s.PeerCertificates[0], c.SPIFFE)
		}
	case len(c.SAN) > 0:
		// Runs after the chain and the host's name were verified.
		conf.VerifyConnection = func(s tls.ConnectionState) error { return verifySAN(s.PeerCertificates[0], c.SAN) }
	}
	return conf, digest.Sum(nil), nil
}

// verifyChain does what crypto/tls does, but for the host's name.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil { // for servers, unless told otherwise
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

func verifySPIFFE(leaf *x509.Certificate, want string) error {
	switch got, err := access.SVID(leaf); {
	case err != nil:
		return &wrongUpstream{want, "no workload: " + err.Error()}
	case got != want:
		return &wrongUpstream{want, got}
	}
	return nil
}

// verifySAN wants one of the names in the certificate, as it is written there: a
// wildcard is a name like any other.
func verifySAN(leaf *x509.Certificate, names []string) error {
	for _, name := range names {
		addr, err := netip.ParseAddr(name)
		for _, ip := range leaf.IPAddresses {
			if got, ok := netip.AddrFromSlice(ip); ok && err == nil && got.Unmap() == addr.Unmap() {
				return nil
			}
		}
		if slices.ContainsFunc(leaf.DNSNames, func(got string) bool { return strings.EqualFold(got, name) }) {
			return nil
		}
	}
	return &wrongUpstream{fmt.Sprintf("one of %q", names), fmt.Sprintf("%.500q %v", leaf.DNSNames, leaf.IPAddresses)}
}

// validateUpstreamTLS reports every mistake in the section.
func validateUpstreamTLS(c *access.UpstreamTLS, encrypted bool, f access.Faults) {
	if (c.ClientCert == "") != (c.ClientKey == "") {
		f.Add("give both or none", "client_cert and client_key belong together")
	}
	if !c.IsZero() && !encrypted {
		f.Add("use https in to", "the upstream is reached without TLS")
	}
	for i, name := range c.SAN {
		if _, err := netip.ParseAddr(name); err != nil && (name == "" || strings.ContainsAny(name, ":/@ ") || strings.Trim(name, ".") != name) {
			f.At("san[%d]", i).Add("write a name as it stands in the certificate, such as billing.internal, or an IP address", "%q is neither", name)
		}
	}
	if c.SPIFFE != "" && !access.IsSPIFFE(c.SPIFFE) {
		f.At("spiffe").Add("write spiffe://prod.example/billing", "%q is no SPIFFE ID", c.SPIFFE)
	}
	if c.SPIFFE != "" && c.CA == "" {
		f.At("spiffe").Add("add ca with the authorities of the trust domain", "any public authority could vouch for a workload")
	}
	if c.SPIFFE != "" && len(c.SAN) > 0 {
		f.At("spiffe").Add("keep one of them", "the certificate of a workload carries an id and no names, so san never matches")
	}
}

func readPool(file string) (*x509.CertPool, []byte, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, pem, nil
}
