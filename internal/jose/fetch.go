package jose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	// FetchTimeout bounds the fetch of a document: metadata, keys, userinfo.
	FetchTimeout = 5 * time.Second
	// MaxDocument is the largest document that is read, in bytes.
	MaxDocument = 1 << 20

	maxRedirects = 3
)

// NewTransport returns given, or one of our own that keeps names below localhost
// on this machine, trusting the authorities in a PEM file if one is named.
func NewTransport(given http.RoundTripper, ca string) (http.RoundTripper, error) {
	if given == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.Proxy = proxyUnlessLocal
		own.DialContext = DialLocal
		own.MaxIdleConnsPerHost = 8
		given = own
	}
	pool, err := Authorities(ca)
	if err != nil || pool == nil {
		return given, err
	}
	base, ok := given.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("ca cannot be combined with a transport of type %T", given)
	}
	base = base.Clone()
	if base.TLSClientConfig == nil {
		base.TLSClientConfig = &tls.Config{}
	}
	base.TLSClientConfig.RootCAs = pool
	return base, nil
}

// Authorities reads a PEM file of certificate authorities. Nil, for no file,
// means the system's.
func Authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca: %s holds no certificate", file)
	}
	return pool, nil
}

func proxyUnlessLocal(r *http.Request) (*url.URL, error) {
	if access.Loopback(r.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// StayOnHost follows a redirect only for reading and only within one host: a
// provider speaks for its own address, and a code or a secret is sent nowhere else.
func StayOnHost(req *http.Request, via []*http.Request) error {
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

// DialLocal keeps names below localhost on this machine without asking a
// name server (RFC 6761 §6.3), which is what makes plain http to them harmless.
func DialLocal(ctx context.Context, network, addr string) (net.Conn, error) {
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

// GetJSON reads one JSON object, with a bearer token if there is one.
func GetJSON(ctx context.Context, client *http.Client, address, bearer string) (Object, error) {
	ctx, cancel := context.WithTimeout(ctx, FetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	// Key sets have a type of their own (RFC 7517 §8.5), which some servers insist
	// on: the API server of Kubernetes answers 406 otherwise.
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, obj, err := AskJSON(client, req)
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

// AskJSON sends a request and reads the JSON object in the answer, whatever its
// status is. The response is nil if none came; its body is closed.
func AskJSON(client *http.Client, req *http.Request) (*http.Response, Object, error) {
	resp, value, err := AskAny(client, req)
	if err != nil {
		return resp, nil, err
	}
	obj, ok := value.(map[string]any)
	if !ok {
		return resp, nil, errors.New("not a JSON object")
	}
	return resp, obj, nil
}

// AskAny is AskJSON for an answer that may be any JSON value, or for 204 none.
func AskAny(client *http.Client, req *http.Request) (*http.Response, any, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxDocument+1))
	if err != nil {
		return resp, nil, err
	}
	if len(body) > MaxDocument {
		return resp, nil, fmt.Errorf("answered more than %d bytes", MaxDocument)
	}
	if resp.StatusCode == http.StatusNoContent {
		return resp, nil, nil
	}
	value, err := ParseValue(body)
	return resp, value, err
}
