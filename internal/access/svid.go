package access

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// SVID returns the id of the workload whose certificate this is, by the rules for
// the leaf of an X509-SVID (§4, §5): it has one URI, which is a SPIFFE ID, and
// signs nothing but messages. Who vouches for it is for the caller to verify.
func SVID(leaf *x509.Certificate) (string, error) {
	switch {
	case len(leaf.URIs) != 1:
		return "", fmt.Errorf("the certificate has %d URIs", len(leaf.URIs))
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return "", errors.New("the certificate is that of an authority")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "", errors.New("the certificate is not for signatures")
	}
	id := leaf.URIs[0].String()
	if !IsSPIFFE(id) {
		return "", fmt.Errorf("%.200q is no SPIFFE ID", id)
	}
	return id, nil
}
