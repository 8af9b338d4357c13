package proxy

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/issuance"
)

// Config is the section `server:` of the configuration: where Doorward listens
// and whom it believes.
type Config struct {
	// Listen is the address to listen on, such as `:443` or `127.0.0.1:8080`.
	// Default `:443`.
	Listen string `yaml:"listen"`
	// AuthURL is the address of the login host, such as
	// `https://auth.corp.example.com`. Identity providers send visitors back to
	// this one host, and applications get sessions of their own from there.
	// Default: each application's host does its own logins.
	AuthURL string `yaml:"auth_url"`
	// TLS holds the certificates to serve with. Without it Doorward listens for
	// plaintext HTTP.
	TLS TLSConfig `yaml:"tls"`
	// InsecureListen is the written reason why visitors reach this address
	// without TLS although it is not on this machine only and no listed proxy
	// stands in front.
	InsecureListen string `yaml:"insecure_listen"`
	// TrustedProxies lists the addresses (`10.0.0.7`, `10.1.0.0/24`) of proxies
	// whose word counts about whom a request is from (forwarded), and whose
	// X-Request-Id is taken over. Default: nobody's.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// Forwarded says by which headers listed proxies tell whom they speak for:
	// `x-forwarded` (X-Forwarded-For, -Proto and -Host) or `forwarded` (Forwarded,
	// RFC 7239). The others count for nothing. Default `x-forwarded`.
	Forwarded string `yaml:"forwarded"`
	// TraceparentFrom lists the addresses (`10.0.0.7`, `10.1.0.0/24`) of proxies that
	// trace and whose word about it counts: `traceparent` and `tracestate` (W3C Trace
	// Context) continue their traces, and other headers of tracing systems, such as
	// `baggage`, pass. `0.0.0.0/0` and `::/0` believe visitors. Default: nobody; such
	// headers are removed, and traces begin here.
	TraceparentFrom []string `yaml:"traceparent_from"`
	// ProxyProtocol lists the addresses (`10.0.0.7`, `10.1.0.0/24`) of load balancers
	// that pass connections on and say in front of each whom it is from (PROXY
	// protocol, version 1 or 2). They have to, on every connection to this address,
	// and nobody else is let in. Default: the protocol is not spoken.
	ProxyProtocol []string `yaml:"proxy_protocol"`
	// ClientCertFrom says that listed proxies hand on the certificates of
	// visitors, and how. Default: headers that look like a certificate are
	// removed, whoever sends them, and identify nobody.
	ClientCertFrom ClientCertFrom `yaml:"client_cert_from"`

	// ForwardAuth is the listener for front ends that ask Doorward about requests
	// and forward them themselves: nginx (auth_request), Caddy and Traefik
	// (forward_auth). See deploy/forward-auth.
	ForwardAuth SideDoor `yaml:"forward_auth"`
	// ExtAuthz is the listener for Envoy and everything built on it: ext_authz v3
	// over gRPC. The certificates of visitors that Envoy tells of
	// (include_peer_certificate) are verified with tls.client_ca. See deploy/envoy.
	ExtAuthz SideDoor `yaml:"ext_authz"`
	// SPOE is the listener for HAProxy, as an agent of its Stream Processing Offload
	// Engine. See deploy/forward-auth/haproxy.
	SPOE SideDoor `yaml:"spoe"`

	// MaxHeaderBytes is the most header data a request may bring. More is
	// answered 431. Default 65536.
	MaxHeaderBytes int `yaml:"max_header_bytes"`
	// MaxURLBytes is the longest path and query a request may name. More is
	// answered 414. Default 8192.
	MaxURLBytes int `yaml:"max_url_bytes"`
	// MaxBodyBytes is the largest body a request may bring: a larger one is answered
	// 413. Bodies are streamed and never kept, so the limit is for the sake of
	// applications; a gRPC call is one body, however long it lasts. Default 0: no
	// limit.
	MaxBodyBytes int64 `yaml:"max_body_bytes"`
	// ReplayBodyBytes is the largest form that is kept, sealed, while the person
	// who posted it logs in, and offered to be sent again afterwards. Larger ones
	// have to be filled in again; -1 keeps none. At most 524288. Default 65536.
	ReplayBodyBytes int `yaml:"replay_body_bytes"`
	// ReadHeaderTimeout is how long a client may take to send its request
	// headers. Default 10s.
	ReadHeaderTimeout access.Duration `yaml:"read_header_timeout"`
	// IdleTimeout is how long a connection may wait for its next request.
	// Default 2m.
	IdleTimeout access.Duration `yaml:"idle_timeout"`
	// HTTP1 says who serves HTTP/1.1 where Doorward listens for plaintext: `standard`
	// is the server of Go's standard library alone. Default: one with a fast lane
	// before it for plain requests, which costs less; see docs/decisions/fast-lane.md.
	HTTP1 string `yaml:"http1"`
	// Recheck is how long anything open (a WebSocket, a stream, a download) goes on
	// at most before it is decided on again, besides at once whenever something is
	// known to have changed. At least 1s. Default 60s.
	Recheck access.Duration `yaml:"recheck"`
	// Tunnels limits tunnels of TCP connections.
	Tunnels Tunnels `yaml:"tunnels"`
	// Limits is how much of this door one person, machine or network may use.
	Limits Limits `yaml:"limits"`
	// DrainTimeout is how long requests in flight may go on when Doorward
	// stops, before their connections are closed. Default 30s.
	DrainTimeout access.Duration `yaml:"drain_timeout"`
	// ReturnMemoryAfter is how long next to nothing must have happened before memory
	// that is not in use is given back to the system. What comes after it has to get
	// every page again, which a virtual machine may have to ask its host for. At least
	// 1s; a change takes effect at the next start. Default 5m.
	ReturnMemoryAfter access.Duration `yaml:"return_memory_after"`
}

// Tunnels limits tunnels of TCP connections.
type Tunnels struct {
	// IdleTimeout is how long nothing may be sent through a tunnel before it is
	// closed. At least 1s. Default 1h.
	IdleTimeout access.Duration `yaml:"idle_timeout"`
	// PerIdentity is how many tunnels one person or machine may have open. Default
	// 256.
	PerIdentity int `yaml:"per_identity"`
	// PerDestination is how many tunnels to one name and port may be open, for all
	// together. Default 1024.
	PerDestination int `yaml:"per_destination"`
}

const (
	defaultTunnelIdle     = time.Hour
	defaultPerIdentity    = 256
	defaultPerDestination = 1024
)

// TLSConfig says how to speak TLS with visitors.
type TLSConfig struct {
	// Certificates are the server certificates; the name a visitor asks for
	// (SNI) selects one, the first is used where none fits.
	Certificates []Certificate `yaml:"certificates"`
	// ACME obtains and renews the certificates that are in no file.
	ACME issuance.Config `yaml:"acme"`
	// ClientCA is a PEM file with the authorities that issue device
	// certificates. With it visitors are asked for a certificate; those who have
	// none are let in as far as policy lets unknown devices. It also verifies the
	// certificates that proxies hand on (client_cert_from).
	ClientCA string `yaml:"client_ca" doorward:"file"`
	// MinVersion is the lowest version of TLS to speak, `1.2` or `1.3`. Default
	// `1.3`.
	MinVersion string `yaml:"min_version"`
	// HSTS has browsers come back by https only. Default: they do, for a year.
	HSTS access.HSTS `yaml:"hsts"`
}

// Certificate is one server certificate.
type Certificate struct {
	// Cert is a PEM file with the certificate and its intermediates.
	Cert string `yaml:"cert" doorward:"file"`
	// Key is the PEM file with the private key.
	Key string `yaml:"key" doorward:"file"`
}

// Asked reports whether front ends forward requests and only ask.
func (c *Config) Asked() bool {
	return c.ForwardAuth.Enabled() || c.ExtAuthz.Enabled() || c.SPOE.Enabled()
}

// Enabled reports whether the listener speaks TLS.
func (c *TLSConfig) Enabled() bool { return len(c.Certificates) > 0 || c.ACME.Enabled() }

const (
	defaultListen      = ":443"
	defaultHeaderBytes = 64 << 10
	defaultURLBytes    = 8 << 10
	mostHeaderBytes    = 1 << 20
	shortestRecheck    = time.Second
	shortestQuiet      = time.Second
)

// Address returns Listen or its default.
func (c *Config) Address() string {
	if c.Listen == "" {
		return defaultListen
	}
	return c.Listen
}

func (c *Config) headerBytes() int { return orDefault(c.MaxHeaderBytes, defaultHeaderBytes) }
func (c *Config) urlBytes() int    { return orDefault(c.MaxURLBytes, defaultURLBytes) }

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// Validate reports every mistake in the section.
func (c *Config) Validate(f access.Faults) {
	c.validateListen(f)
	if c.AuthURL != "" {
		if _, _, err := parseOrigin(c.AuthURL); err != nil {
			f.At("auth_url").Add("write https://auth.example.com", "%q: %v", c.AuthURL, err)
		}
	}
	c.TLS.validate(f.At("tls"), c.ClientCertFrom.Enabled() || c.ExtAuthz.Enabled() || c.SPOE.Enabled())
	c.ForwardAuth.Validate(f.At("forward_auth"))
	c.ExtAuthz.Validate(f.At("ext_authz"))
	c.SPOE.Validate(f.At("spoe"))
	c.ClientCertFrom.validate(c.TrustedProxies, f.At("client_cert_from"))
	if c.ClientCertFrom.Enabled() && c.TLS.ClientCA == "" {
		f.At("client_cert_from").Add("add tls.client_ca with the authorities of your devices", "no certificate that is handed on could be verified")
	}
	validatePeers(c.TrustedProxies, f, "trusted_proxies")
	validatePeers(c.ProxyProtocol, f, "proxy_protocol")
	c.validateForwarded(f.At("forwarded"))
	c.validateTraces(f)
	if n := c.MaxHeaderBytes; n != 0 && (n < 4<<10 || n > mostHeaderBytes) {
		f.At("max_header_bytes").Add("", "%d is not between 4096 and %d", n, mostHeaderBytes)
	}
	if c.MaxBodyBytes < 0 {
		f.At("max_body_bytes").Add("write 0 for no limit", "%d is no number of bytes", c.MaxBodyBytes)
	}
	if n := c.ReplayBodyBytes; n < -1 || n > mostReplayBytes {
		f.At("replay_body_bytes").Add("write -1 to keep none", "%d is not between 1 and %d", n, mostReplayBytes)
	}
	if d := c.ReturnMemoryAfter; d != 0 && d.Std() < shortestQuiet {
		f.At("return_memory_after").Add("write 5m", "%s is shorter than %s", d, shortestQuiet)
	}
	if r := c.Recheck; r != 0 && r.Std() < shortestRecheck {
		f.At("recheck").Add("write 60s", "%s is shorter than %s", r, shortestRecheck)
	}
	if idle := c.Tunnels.IdleTimeout; idle != 0 && idle.Std() < time.Second {
		f.At("tunnels.idle_timeout").Add("write 1h", "%s is shorter than 1s", idle)
	}
	c.validateHTTP1(f.At("http1"))
	c.Limits.Validate(f.At("limits"))
	if c.Tunnels.PerIdentity < 0 {
		f.At("tunnels.per_identity").Add("write 256", "%d is no number of tunnels", c.Tunnels.PerIdentity)
	}
	if c.Tunnels.PerDestination < 0 {
		f.At("tunnels.per_destination").Add("write 1024", "%d is no number of tunnels", c.Tunnels.PerDestination)
	}
	if n := c.MaxURLBytes; n != 0 && (n < 256 || n > c.headerBytes()) {
		f.At("max_url_bytes").Add("", "%d is not between 256 and max_header_bytes", n)
	}
}

func validatePeers(list []string, f access.Faults, key string) {
	for i, text := range list {
		at := f.At("%s[%d]", key, i)
		switch prefix, err := parsePrefix(text); {
		case err != nil:
			at.Add("write 10.0.0.7 or 10.1.0.0/24", "%q is no address or network", text)
		case prefix.Bits() == 0:
			at.Add("list the proxies that stand in front of Doorward", "%q would believe everybody", text)
		}
	}
}

func (c *Config) validateListen(f access.Faults) {
	host, port, err := net.SplitHostPort(c.Address())
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		f.At("listen").Add("write :443 or 127.0.0.1:8080", "%q is no address to listen on", c.Listen)
		return
	}
	if !c.TLS.Enabled() && !access.Loopback(host) && len(c.TrustedProxies) == 0 && c.InsecureListen == "" {
		f.At("listen").Add("configure server.tls, list the TLS proxy in trusted_proxies, or give the reason in insecure_listen",
			"%q takes plaintext from other machines", c.Address())
	}
}

func (c *TLSConfig) validate(f access.Faults, handedOn bool) {
	for i, cert := range c.Certificates {
		at := f.At("certificates[%d]", i)
		if cert.Cert == "" {
			at.At("cert").Add("name a PEM file", "the certificate is missing")
		}
		if cert.Key == "" {
			at.At("key").Add("name a PEM file", "the private key is missing")
		}
	}
	c.ACME.Validate(f.At("acme"))
	if c.ClientCA != "" && !c.Enabled() && !handedOn {
		f.At("client_ca").Add("add certificates or acme, client_cert_from, ext_authz or spoe", "client certificates need a listener that speaks TLS")
	}
	if !c.HSTS.IsZero() && !c.Enabled() {
		f.At("hsts").Add("add certificates or acme, or leave it to the proxy that ends TLS", "it is sent where Doorward ends TLS itself")
	}
	compileHSTS(c.HSTS, f.At("hsts"))
	if c.MinVersion != "" && c.MinVersion != "1.2" && c.MinVersion != "1.3" {
		f.At("min_version").Add("write 1.2 or 1.3", "%q is no version of TLS to start from", c.MinVersion)
	}
}

// parsePrefix reads a network or a single address.
func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		return prefix.Masked(), err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return addr.Unmap().WithZone("").Prefix(addr.Unmap().BitLen())
}

// parseOrigin reads scheme://host[:port], with at most a slash behind it, into
// a scheme and a canonical host.
func parseOrigin(text string) (scheme, host string, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", "", errNotURL
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", "", errNotHTTP
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" || u.Path != "" && u.Path != "/":
		return "", "", errNotOrigin
	}
	host, err = canonicalHost(u.Host, u.Scheme)
	return u.Scheme, host, err
}
