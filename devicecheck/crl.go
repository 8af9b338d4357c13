package devicecheck

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// maxList bounds a revocation list: some 500,000 revoked certificates.
const maxList = 16 << 20

var (
	oidReasonCode        = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidDeltaIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingPoint      = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
)

// authorityID is a hash over the name and the key of an authority: whoever signs
// for both is that authority, in whichever certificate of it.
type authorityID [sha256.Size]byte

func idOf(authority *x509.Certificate) authorityID {
	h := sha256.New()
	for _, part := range [][]byte{authority.RawSubject, authority.RawSubjectPublicKeyInfo} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return authorityID(h.Sum(nil))
}

// list is a revocation list (RFC 5280 §5). It is not changed after parseList.
type list struct {
	issuer  []byte // the name, in DER
	number  *big.Int
	serials map[string]struct{} // as bytes
	// thisUpdate is when it was made. nextUpdate is when there will be a newer
	// one; until then it says which certificates are good.
	thisUpdate, nextUpdate time.Time

	// points, if any, restrict the list to certificates that name one of them as
	// their distribution point; the other two restrict it to a kind.
	points                   []string
	onlyUsers, onlyAuthority bool

	// signed is all that is needed to verify the signature.
	signed x509.RevocationList
}

// parseList reads a revocation list in DER or PEM. Whatever it does not
// understand in full is an error, since what it overlooked could be a
// revocation.
func parseList(data []byte) (*list, error) {
	if len(data) > maxList {
		return nil, fmt.Errorf("the revocation list is larger than %d MiB", maxList>>20)
	}
	if trimmed := bytes.TrimSpace(data); bytes.HasPrefix(trimmed, []byte("-----BEGIN")) {
		block, rest := pem.Decode(trimmed)
		if block == nil || block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("the file is not one PEM block of the type X509 CRL")
		}
		data = block.Bytes
	}
	raw, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, fmt.Errorf("this is no revocation list: %w", err)
	}
	if len(raw.Raw) != len(data) {
		return nil, errors.New("something follows the revocation list")
	}
	if raw.NextUpdate.IsZero() || !raw.NextUpdate.After(raw.ThisUpdate) {
		return nil, errors.New("the revocation list does not say until when it counts (nextUpdate)")
	}
	l := &list{
		issuer: raw.RawIssuer, number: raw.Number, thisUpdate: raw.ThisUpdate, nextUpdate: raw.NextUpdate,
		serials: make(map[string]struct{}, len(raw.RevokedCertificateEntries)),
		signed: x509.RevocationList{
			RawTBSRevocationList: raw.RawTBSRevocationList, Signature: raw.Signature, SignatureAlgorithm: raw.SignatureAlgorithm,
		},
	}
	for _, extension := range raw.Extensions {
		switch {
		case extension.Id.Equal(oidDeltaIndicator):
			return nil, errors.New("this is a delta list, which holds changes only; configure the complete list")
		case extension.Id.Equal(oidIssuingPoint):
			if err := l.restrict(extension.Value); err != nil {
				return nil, err
			}
		case extension.Critical:
			return nil, fmt.Errorf("the revocation list has a critical extension %s, whose meaning is not known here", extension.Id)
		}
	}
	for _, entry := range raw.RevokedCertificateEntries {
		for _, extension := range entry.Extensions {
			switch {
			case extension.Id.Equal(oidReasonCode):
			case extension.Id.Equal(oidCertificateIssuer):
				return nil, errIndirect
			case extension.Critical:
				return nil, fmt.Errorf("an entry has a critical extension %s, whose meaning is not known here", extension.Id)
			}
		}
		// Every reason counts, also a hold: the certificate is not to be used now.
		l.serials[string(entry.SerialNumber.Bytes())] = struct{}{}
	}
	return l, nil
}

var errIndirect = errors.New("this is an indirect list, which is about certificates of other authorities; configure each authority's own list")

// issuingPoint is the extension of this name (RFC 5280 §5.2.5).
type issuingPoint struct {
	Point struct {
		FullName     []asn1.RawValue `asn1:"optional,tag:0"`
		RelativeName asn1.RawValue   `asn1:"optional,tag:1"`
	} `asn1:"optional,tag:0"`
	OnlyUsers       bool           `asn1:"optional,tag:1"`
	OnlyAuthority   bool           `asn1:"optional,tag:2"`
	OnlySomeReasons asn1.BitString `asn1:"optional,tag:3"`
	Indirect        bool           `asn1:"optional,tag:4"`
	OnlyAttributes  bool           `asn1:"optional,tag:5"`
}

// uriName is the kind of a GeneralName that is a URI (RFC 5280 §4.2.1.6).
const uriName = 6

// restrict narrows the list to what its issuing distribution point says.
func (l *list) restrict(der []byte) error {
	var p issuingPoint
	rest, err := asn1.Unmarshal(der, &p)
	switch {
	case err != nil || len(rest) > 0:
		return errors.New("the issuing distribution point of the revocation list is malformed")
	case p.Indirect:
		return errIndirect
	case p.OnlySomeReasons.BitLength > 0:
		return errors.New("the list holds certificates revoked for some reasons only; configure the complete list")
	case p.OnlyAttributes:
		return errors.New("the list is about attribute certificates")
	case p.OnlyUsers && p.OnlyAuthority:
		return errors.New("the list is about no certificate at all")
	case len(p.Point.RelativeName.FullBytes) > 0:
		return errors.New("the distribution point of the list is named relative to its issuer, which is not understood here")
	}
	for _, name := range p.Point.FullName {
		if name.Class == asn1.ClassContextSpecific && name.Tag == uriName {
			l.points = append(l.points, string(name.Bytes))
		}
	}
	if len(p.Point.FullName) > 0 && len(l.points) == 0 {
		return errors.New("the distribution point of the list has no address")
	}
	l.onlyUsers, l.onlyAuthority = p.OnlyUsers, p.OnlyAuthority
	return nil
}

// covers tells whether the list is about a certificate of its issuer.
func (l *list) covers(c *issued) bool {
	if l.onlyUsers && c.isCA || l.onlyAuthority && !c.isCA {
		return false
	}
	return len(l.points) == 0 || slices.ContainsFunc(l.points, func(point string) bool { return slices.Contains(c.points, point) })
}

func (l *list) revokes(c *issued) bool {
	_, revoked := l.serials[c.serial]
	return revoked
}

// check tells whether the list may be used now, in the place of the one before.
// Lists travel in plaintext, and whoever keeps one back must not bring back a
// certificate that a newer one revoked.
func (l *list) check(before *list, now time.Time) error {
	switch {
	case l.thisUpdate.After(now.Add(ahead)):
		return fmt.Errorf("the revocation list is from the future: %s", l.thisUpdate.Format(time.RFC3339))
	case before == nil:
		return nil
	case !bytes.Equal(l.issuer, before.issuer):
		return errors.New("the revocation list is of another authority than the one before")
	case l.thisUpdate.Before(before.thisUpdate),
		l.number != nil && before.number != nil && l.number.Cmp(before.number) < 0:
		return fmt.Errorf("the revocation list of %s is older than the one before", l.thisUpdate.Format(time.RFC3339))
	}
	return nil
}

// issued is a certificate as its authority knows it.
type issued struct {
	by     authorityID
	serial string // as bytes
	isCA   bool
	points []string // where its revocation lists are
	named  bool     // one of them is asked
}

func issuedBy(authority, c *x509.Certificate) issued {
	return issued{by: idOf(authority), serial: string(c.SerialNumber.Bytes()), isCA: c.IsCA, points: c.CRLDistributionPoints}
}

// isAddress tells an address of a list from a file.
func isAddress(entry string) bool { return strings.Contains(entry, "://") }
