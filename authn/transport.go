package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	fetchTimeout = 5 * time.Second  // metadata, keys, userinfo
	tokenTimeout = 10 * time.Second // redeeming a code or a refresh token
	maxDocument  = 1 << 20          // bytes of metadata, keys or userinfo
	maxRedirects = 3
)

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
		own.DialContext = dialLocalNames
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
	return &http.Client{Transport: transport, CheckRedirect: stayOnHost}, nil
}

// stayOnHost follows a redirect only for reading and only within one host: a
// provider speaks for its own address, and a code or a secret is sent nowhere else.
func stayOnHost(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case first.Method != http.MethodGet:
		return errors.New("redirected a request that is not a GET")
	case req.URL.Scheme != first.URL.Scheme || req.URL.Host != first.URL.Host:
		return fmt.Errorf("redirected to another host, %s", req.URL.Host)
	case len(via) > maxRedirects:
		return errors.New("redirected too often")
	}
	return nil
}

func proxyUnlessLocal(r *http.Request) (*url.URL, error) {
	if access.Loopback(r.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// dialLocalNames keeps names below localhost on this machine without asking a
// name server (RFC 6761 §6.3), which is what makes plain http to them harmless.
func dialLocalNames(ctx context.Context, network, addr string) (net.Conn, error) {
	var dialer net.Dialer
	host, port, err := net.SplitHostPort(addr)
	if err != nil || net.ParseIP(host) != nil || !access.Loopback(host) {
		return dialer.DialContext(ctx, network, addr)
	}
	conn, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if conn, err6 := dialer.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return conn, nil
		}
	}
	return conn, err
}

// getJSON reads one JSON object, with a bearer token if there is one.
func getJSON(ctx context.Context, client *http.Client, address, bearer string) (object, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, obj, err := askJSON(client, req)
	switch {
	case resp == nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %d", address, resp.StatusCode)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return obj, nil
}

// askJSON sends a request and reads the JSON object in the answer, whatever its
// status is. The response is nil if none came; its body is closed.
func askJSON(client *http.Client, req *http.Request) (*http.Response, object, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return resp, nil, err
	}
	if len(body) > maxDocument {
		return resp, nil, fmt.Errorf("answered more than %d bytes", maxDocument)
	}
	obj, err := parseObject(body)
	return resp, obj, err
}
