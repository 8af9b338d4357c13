package issuance

import (
	"net/mail"
	"net/netip"
	"net/url"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Config is the section `server.tls.acme:`: who issues the certificates of the
// listener.
type Config struct {
	// Directory is the address of an authority that speaks ACME (RFC 8555), such
	// as `https://acme-v02.api.letsencrypt.org/directory`. It proves who owns a
	// host by connecting to its port 443 (TLS-ALPN-01), which has to lead to this
	// listener. Default: certificates come from files only.
	Directory string `yaml:"directory"`
	// Email is where the authority writes to about the account. Default: nobody.
	Email string `yaml:"email"`
	// AcceptTerms says that you accept the authority's terms of service. Required.
	AcceptTerms bool `yaml:"accept_terms"`
	// Hosts lists the hosts to obtain certificates for. Default: those of the
	// https routes and of auth_url, as far as no file holds a certificate for them
	// and without wildcards, which cannot be proven this way.
	Hosts []string `yaml:"hosts"`
	// CA is a PEM file with the authorities that vouch for the directory itself,
	// for an authority of your own. Default: those of the system.
	CA string `yaml:"ca" doorward:"file"`
	// KeyType is the kind of key in new certificates, `ecdsa` (P-256) or `rsa`
	// (2048 bits). Default `ecdsa`.
	KeyType string `yaml:"key_type"`
}

// Enabled reports whether certificates are obtained.
func (c *Config) Enabled() bool { return c.Directory != "" }

// Validate reports every mistake in the section.
func (c *Config) Validate(f access.Faults) {
	if !c.Enabled() {
		if c.Email != "" || c.AcceptTerms || len(c.Hosts) > 0 || c.CA != "" || c.KeyType != "" {
			f.At("directory").Add("add directory: https://acme-v02.api.letsencrypt.org/directory", "nobody is named who issues certificates")
		}
		return
	}
	if u, err := url.Parse(c.Directory); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		f.At("directory").Add("write https://acme-v02.api.letsencrypt.org/directory", "%q is no https address", c.Directory)
	}
	if !c.AcceptTerms {
		f.At("accept_terms").Add("read the authority's terms and write accept_terms: true", "no authority issues certificates to an account that has not accepted its terms")
	}
	if address, err := mail.ParseAddress(c.Email); c.Email != "" && (err != nil || address.Address != c.Email) {
		f.At("email").Add("write ops@example.com", "%q is no e-mail address", c.Email)
	}
	for i, host := range c.Hosts {
		at := f.At("hosts[%d]", i)
		_, notIP := netip.ParseAddr(host)
		switch {
		case strings.HasPrefix(host, "*"):
			at.Add("put a certificate for it into server.tls.certificates", "%q: nobody can prove a wildcard by TLS-ALPN-01", host)
		case notIP == nil || !hostname(host):
			at.Add("write app.example.com, in small letters and without scheme and port", "%q is no host name", host)
		}
	}
	if c.KeyType != "" && c.KeyType != "ecdsa" && c.KeyType != "rsa" {
		f.At("key_type").Add("write ecdsa or rsa", "%q is no kind of key", c.KeyType)
	}
}

// hostname reports whether a name may stand in a certificate: ASCII letters in
// their small form, digits, hyphens and dots.
func hostname(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}
