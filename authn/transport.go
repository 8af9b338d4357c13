package authn

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/doorward/doorward/internal/jose"

	"github.com/doorward/doorward/internal/access"
)

// tokenTimeout is how long redeeming a code or a refresh token may take.
const tokenTimeout = 10 * time.Second

// newHTTPClient returns the client for one provider. A transport that was given
// is used as it is, except that the provider's own authorities apply if it is an
// *http.Transport.
func newHTTPClient(given http.RoundTripper, p *Provider) (*http.Client, error) {
	pool, err := p.rootCAs()
	if err != nil {
		return nil, err
	}
	transport := given
	if transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.Proxy = proxyUnlessLocal
		own.DialContext = jose.DialLocal
		own.MaxIdleConnsPerHost = 8
		transport = own
	}
	mtls := p.ClientAuth.MTLS
	if pool != nil || mtls != (ClientCertificate{}) {
		base, ok := transport.(*http.Transport)
		if !ok {
			return nil, fmt.Errorf("provider %s: ca and mtls cannot be combined with a transport of type %T", p.ID, transport)
		}
		base = base.Clone()
		if base.TLSClientConfig == nil {
			base.TLSClientConfig = &tls.Config{}
		}
		if pool != nil {
			base.TLSClientConfig.RootCAs = pool
		}
		if mtls != (ClientCertificate{}) {
			pair, err := tls.LoadX509KeyPair(mtls.Cert, mtls.Key)
			if err != nil {
				return nil, fmt.Errorf("provider %s: client_auth: mtls: %w", p.ID, err)
			}
			// Whatever authorities the provider names: a self-signed certificate
			// is registered by itself.
			base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &pair, nil
			}
		}
		transport = base
	}
	return &http.Client{Transport: transport, CheckRedirect: jose.StayOnHost}, nil
}

func proxyUnlessLocal(r *http.Request) (*url.URL, error) {
	if access.Loopback(r.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}
