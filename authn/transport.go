package authn

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/doorward/doorward/internal/jose"
)

// tokenTimeout is how long redeeming a code or a refresh token may take.
const tokenTimeout = 10 * time.Second

// newHTTPClient returns the client for one provider. A transport that was given
// is used as it is, except that the provider's own authorities apply if it is an
// *http.Transport.
func newHTTPClient(opts *Options, p *Provider) (*http.Client, error) {
	transport, err := jose.NewTransport(opts.Transport, p.CA)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", p.ID, err)
	}
	if mtls := p.ClientAuth.MTLS; mtls != (ClientCertificate{}) {
		base, ok := transport.(*http.Transport)
		if !ok {
			return nil, fmt.Errorf("provider %s: mtls cannot be combined with a transport of type %T", p.ID, transport)
		}
		base = base.Clone()
		if base.TLSClientConfig == nil {
			base.TLSClientConfig = &tls.Config{}
		}
		pair, err := tls.LoadX509KeyPair(mtls.Cert, mtls.Key)
		if err != nil {
			return nil, fmt.Errorf("provider %s: client_auth: mtls: %w", p.ID, err)
		}
		// Whatever authorities the provider names: a self-signed certificate
		// is registered by itself.
		base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &pair, nil
		}
		transport = base
	}
	if opts.Follow != nil {
		transport = opts.Follow(p.ID, transport)
	}
	return &http.Client{Transport: transport, CheckRedirect: jose.StayOnHost}, nil
}
