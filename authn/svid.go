package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// x509Issuer is the word that stands for the authorities of a SPIFFE trust
// domain: workloads show a certificate instead of a token.
const x509Issuer = "x509"

const (
	maxChain     = 8
	maxSVIDs     = 4 << 10
	svidKnownFor = 5 * time.Minute
)

// authority recognises the workloads of one trust domain by their certificates
// (X509-SVID).
type authority struct {
	cfg    Provider
	roots  *x509.CertPool
	known  *lru.Cache[tokenKey, svid]
	prefix string // of every id: spiffe://TRUST-DOMAIN/
}

// svid is what became of one chain of certificates, until a moment.
type svid struct {
	id    string // "": refused
	until time.Time
}

func newAuthority(p Provider) (*authority, error) {
	roots, err := jose.Authorities(p.CA)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", p.ID, err)
	}
	if roots == nil || p.TrustDomain == "" {
		return nil, fmt.Errorf("provider %s: issuer x509 needs ca and trust_domain", p.ID)
	}
	known, err := lru.New[tokenKey, svid](maxSVIDs)
	return &authority{cfg: p, roots: roots, known: known, prefix: "spiffe://" + p.TrustDomain + "/"}, err
}

// identifyWorkload fills req.Identity from the client certificate of the
// connection, which TLS has proved possession of. A certificate that is none of a
// workload's, such as that of a device, leaves Nobody, and so does one that was
// issued before the workload was revoked.
func (a *Authenticator) identifyWorkload(r *http.Request, req *access.Request) error {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	for _, one := range a.authorities {
		id, err := one.find(r.TLS.PeerCertificates, a.now())
		if err != nil {
			a.log.Debug("a client certificate names no workload", "request", req.ID, "provider", one.cfg.ID, "error", err)
		}
		if id == "" {
			continue
		}
		revoked, err := a.sessions.Revoked(one.cfg.IssuerName(), id, r.TLS.PeerCertificates[0].NotBefore)
		if revoked || err != nil {
			return err
		}
		req.Identity = access.Identity{
			Kind: access.Service, Provider: one.cfg.ID, Issuer: one.cfg.IssuerName(), Subject: id,
			Workload: access.Workload{SPIFFE: id},
		}
		return nil
	}
	return nil
}

// find returns the id of the workload that a chain of certificates belongs to.
func (a *authority) find(chain []*x509.Certificate, now time.Time) (string, error) {
	if len(chain) > maxChain {
		return "", fmt.Errorf("%d certificates", len(chain))
	}
	hash := sha256.New()
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		hash.Write(sum[:])
	}
	key := tokenKey(hash.Sum(nil))
	if known, ok := a.known.Get(key); ok && now.Before(known.until) {
		return known.id, nil
	}
	id, until, err := a.verify(chain, now)
	if err != nil {
		id, until = "", now.Add(refusedFor)
	}
	a.known.Add(key, svid{id, until})
	return id, err
}

// verify accepts an X509-SVID (§4, §5): a leaf with one URI, which is an id of the
// trust domain, that signs nothing and that an authority of the domain vouches
// for. The answer may be relied on until a moment within its validity.
func (a *authority) verify(chain []*x509.Certificate, now time.Time) (string, time.Time, error) {
	leaf := chain[0]
	id, err := access.SVID(leaf)
	switch {
	case err != nil:
		return "", now, err
	case !strings.HasPrefix(id, a.prefix):
		return "", now, fmt.Errorf("%.200q is no id of this trust domain", id)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	verified, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", now, err
	}
	until := now.Add(svidKnownFor)
	for _, c := range verified[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return id, until, nil
}
