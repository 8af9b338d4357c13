package devicecheck

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	defaultRevocationRefresh = 15 * time.Minute
	maxLists                 = 64 // configured
)

// Certificates says what is asked of a device certificate beyond a valid chain
// to server.tls.client_ca, its dates and its purpose.
type Certificates struct {
	// Revocation says where it is written which certificates were taken back.
	// Without it revoked certificates are accepted until they expire.
	Revocation Revocation `yaml:"revocation"`
}

// Revocation says how to learn which certificates their authorities have
// revoked. With any source, a certificate counts only while a revocation list
// or an OCSP answer says that it is good and none says that it is revoked. What
// a source says counts until the moment it names itself (nextUpdate).
type Revocation struct {
	// CRLs lists revocation lists: files (watched; replace one by renaming a
	// complete file onto it) and addresses, each in DER or PEM and signed by the
	// authority it is about. Plain http:// will do, because of the signature.
	CRLs []string `yaml:"crls"`
	// CRLHosts lists hosts, such as `pki.corp.example.com`, whose revocation
	// lists are used where a certificate names them as its distribution point.
	// Default: addresses in certificates are not followed.
	CRLHosts []string `yaml:"crl_hosts"`
	// OCSP says whom to ask about single certificates.
	OCSP OCSP `yaml:"ocsp"`
	// Refresh is how often lists are read and the answers about certificates in
	// use renewed, so that no revocation takes longer to be noticed. Default 15m,
	// at least 10s.
	Refresh access.Duration `yaml:"refresh"`
	// OnUnavailable says what holds when there is no newer list or answer after
	// nextUpdate: `deny` (the default) or `{use_last_known: 4h}`, which lets the
	// last ones count for so much longer. What was revoked stays revoked, and of
	// what nothing was ever heard nothing counts.
	OnUnavailable access.OnUnavailable `yaml:"on_unavailable"`
}

// OCSP says which responders are asked about single certificates (RFC 6960).
type OCSP struct {
	// URL is the responder that is asked about every certificate.
	URL string `yaml:"url"`
	// Hosts lists hosts, such as `ocsp.corp.example.com`, that are asked where a
	// certificate names them as its responder and `url` is not set. Default:
	// addresses in certificates are not followed.
	Hosts []string `yaml:"hosts"`
	// Get asks with GET instead of POST, so that caches on the way may answer
	// (RFC 5019 §5).
	Get bool `yaml:"get"`
}

// enabled reports whether the revocation of certificates matters.
func (c *Revocation) enabled() bool {
	return len(c.CRLs)+len(c.CRLHosts)+len(c.OCSP.Hosts) > 0 || c.OCSP.URL != ""
}

func (c *Revocation) validate(f access.Faults) {
	for n, entry := range c.CRLs {
		at := f.At("crls[%d]", n)
		switch err := checkAddress(entry); {
		case entry == "":
			at.Add("name a file or an address", "the entry is empty")
		case isAddress(entry) && err != nil:
			at.Add("write http://pki.example.com/devices.crl, or the name of a file", "%s", err)
		case slices.Index(c.CRLs, entry) < n:
			at.Add("remove one of them", "%q is listed twice", clip(entry))
		}
	}
	if len(c.CRLs) > maxLists {
		f.At("crls").Add("use OCSP, or crl_hosts", "there are more than %d lists", maxLists)
	}
	validateHosts(f.At("crl_hosts"), c.CRLHosts)
	validateHosts(f.At("ocsp.hosts"), c.OCSP.Hosts)
	if err := checkAddress(c.OCSP.URL); c.OCSP.URL != "" && err != nil {
		f.At("ocsp.url").Add("write http://ocsp.example.com/", "%s", err)
	}
	if c.OCSP.URL != "" && len(c.OCSP.Hosts) > 0 {
		f.At("ocsp.hosts").Add("remove url or hosts", "url is asked about every certificate, so hosts has no meaning")
	}
	if c.OCSP.Get && c.OCSP.URL == "" && len(c.OCSP.Hosts) == 0 {
		f.At("ocsp.get").Add("add url or hosts", "nobody is asked")
	}
	if c.Refresh != 0 && c.Refresh < minRemote {
		f.At("refresh").Add(fmt.Sprintf("use %s or more", minRemote), "%s is too short", c.Refresh)
	}
	if c.OnUnavailable.UseLastKnown < 0 {
		f.At("on_unavailable.use_last_known").Add("write 4h", "a negative duration")
	}
	if (c.Refresh != 0 || c.OnUnavailable != access.OnUnavailable{}) && !c.enabled() {
		f.Add("add crls, crl_hosts or ocsp", "nothing says which certificates are revoked")
	}
}

func validateHosts(f access.Faults, hosts []string) {
	for n, host := range hosts {
		at := f.At("[%d]", n)
		if u, err := url.Parse("http://" + host); err != nil || host == "" || u.Host != host || hostOf(u) != host || u.User != nil {
			at.Add("write a host, such as pki.example.com, with a port where it is not the usual one, in small letters", "%q is no host", clip(host))
		}
	}
}

// checkAddress accepts what may be asked in plaintext too, because the answers
// are signed.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("the address does not begin with http:// or https://")
	case u.User != nil || u.Fragment != "":
		return errors.New("the address holds a user or a fragment")
	}
	return nil
}

// hostOf returns the host as hosts are listed: in small letters, without the
// scheme's own port.
func hostOf(u *url.URL) string {
	return strings.TrimSuffix(strings.ToLower(u.Host), map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
}

// permitted returns the first of the addresses that stands in a certificate and
// on one of the hosts. Empty: none.
func permitted(addresses, hosts []string) string {
	for _, address := range addresses {
		if u, err := url.Parse(address); err == nil && checkAddress(address) == nil && slices.Contains(hosts, hostOf(u)) {
			return address
		}
	}
	return ""
}
