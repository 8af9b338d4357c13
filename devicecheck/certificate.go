package devicecheck

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/doorward/doorward/internal/access"
)

const (
	maxCachedCertificates = 16 << 10
	maxChain              = 8
	// A refused certificate is looked at again after this time.
	refusedFor = time.Minute
)

// certificate is a client certificate that was verified.
type certificate struct {
	facts      access.Certificate
	commonName string
	sans       []string // those of facts.SANs that can name a device

	// Where to learn whether it, or an authority above it, was revoked: how each
	// is known to its own authority, the lists that they name, and the answer
	// about the first.
	chain  []issued
	lists  []*listSource
	answer *answer
}

// verifier verifies client certificates. The TLS listener only asks for one and
// makes sure that the client holds the key; whether to believe the certificate
// is decided here, so that a visitor without a device still gets a page.
type verifier struct {
	roots      *x509.CertPool
	revocation *revocation // nil: nobody asks
	cache      *lru.Cache[chainKey, verdict]
}

// chainKey is a hash over every certificate the client sent, since the
// intermediate ones contribute to the verdict.
type chainKey [sha256.Size]byte

// verdict is the result of one verification, good from one time until another.
type verdict struct {
	cert        *certificate // nil: refused
	err         error
	from, until time.Time
}

func newVerifier(roots *x509.CertPool, revocation *revocation) (*verifier, error) {
	cache, err := lru.New[chainKey, verdict](maxCachedCertificates)
	if err != nil {
		return nil, err
	}
	return &verifier{roots: roots, revocation: revocation, cache: cache}, nil
}

// verify returns the leaf of chain as it is at the time of the request.
func (v *verifier) verify(chain []*x509.Certificate, at time.Time) (*certificate, error) {
	if len(chain) > maxChain {
		return nil, access.Becausef(access.DeviceCertInvalid, "the client sent %d certificates, more than %d", len(chain), maxChain)
	}
	fingerprint := sha256.Sum256(chain[0].Raw)
	key := chainKey(fingerprint)
	for _, c := range chain[1:] {
		var both [2 * sha256.Size]byte
		copy(both[:], key[:])
		sum := sha256.Sum256(c.Raw)
		copy(both[sha256.Size:], sum[:])
		key = sha256.Sum256(both[:])
	}
	if known, ok := v.cache.Get(key); ok && !at.Before(known.from) && !at.After(known.until) {
		return known.cert, known.err
	}
	var now verdict
	var verified []*x509.Certificate
	if verified, now.from, now.until, now.err = v.check(chain, at); now.err != nil {
		// Only the text is kept: the errors of x509 hold on to certificates, and
		// anybody can send as many as they like.
		now.err = access.Because(reasonOf(now.err, at), errors.New(clip(now.err.Error())))
		now.from, now.until = at, at.Add(refusedFor)
	} else {
		now.cert = describe(chain[0], fingerprint)
		v.revocation.introduce(now.cert, verified)
	}
	v.cache.Add(key, now)
	return now.cert, now.err
}

// check verifies the chain and returns it, from the leaf to an authority that is
// trusted, with the span in which its certificates are valid.
func (v *verifier) check(chain []*x509.Certificate, at time.Time) (verified []*x509.Certificate, from, until time.Time, err error) {
	leaf := chain[0]
	switch {
	case v.roots == nil: // x509 would fall back on the system's authorities
		return nil, from, until, access.Becausef(access.DeviceCertAuthority, "no certificate authority for devices is configured")
	case at.IsZero(): // x509 would fall back on the clock
		return nil, from, until, errors.New("the time of the request is not known")
	case leaf.IsCA:
		return nil, from, until, access.Becausef(access.DeviceCertPurpose, "the certificate is that of an authority")
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		// x509 accepts a leaf without the extension for every purpose.
		return nil, from, until, access.Becausef(access.DeviceCertPurpose, "the certificate does not name client authentication as its purpose")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, from, until, err
	}
	from, until = leaf.NotBefore, leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return chains[0], from, until, nil
}

// reasonOf tells what an error of the verification means.
func reasonOf(err error, at time.Time) access.Reason {
	var ours *access.Error
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &ours):
		return ours.Reason
	case errors.As(err, &unknown):
		return access.DeviceCertAuthority
	case !errors.As(err, &invalid):
		return access.DeviceCertInvalid
	}
	switch invalid.Reason {
	case x509.Expired: // x509 calls the future expired as well
		if at.Before(invalid.Cert.NotBefore) {
			return access.DeviceCertNotYetValid
		}
		return access.DeviceCertExpired
	case x509.IncompatibleUsage:
		return access.DeviceCertPurpose
	}
	return access.DeviceCertInvalid
}

// describe takes from a verified certificate what policy may see.
func describe(leaf *x509.Certificate, fingerprint [sha256.Size]byte) *certificate {
	names := slices.Concat(leaf.DNSNames, leaf.EmailAddresses)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range leaf.URIs {
		names = append(names, uri.String())
	}
	return &certificate{
		facts: access.Certificate{
			Serial:      serialText(leaf),
			Issuer:      leaf.Issuer.String(),
			Subject:     leaf.Subject.String(),
			SANs:        names,
			NotAfter:    leaf.NotAfter.UTC(),
			Fingerprint: hex.EncodeToString(fingerprint[:]),
		},
		commonName: leaf.Subject.CommonName,
		sans:       slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !canName(name) }),
	}
}

func serialText(leaf *x509.Certificate) string {
	raw := leaf.SerialNumber.Bytes()
	if len(raw) == 0 {
		raw = []byte{0}
	}
	return hex.EncodeToString(raw)
}
