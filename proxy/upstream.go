package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 10 * time.Second
	defaultTimeout   = 60 * time.Second
	idlePerUpstream  = 256
	responseHeaders  = 256 << 10
)

// upstream is the way to one route's application: its addresses and the
// connections to them.
type upstream struct {
	targets   []url.URL
	transport transport
	next      atomic.Uint32
	made      [sha256.Size]byte // digest of everything it was made from
}

// transport is the connections to the addresses of one upstream.
type transport interface {
	// RoundTrip sends one request to the host of its URL. An error says by
	// NeverSent (see neverSent) that nothing of the request can have reached anybody.
	http.RoundTripper
	// CloseIdleConnections closes the connections that carry no request now.
	CloseIdleConnections()
}

// dialError tells that a connection was never made, so that nothing of the
// request can have reached anybody.
type dialError struct{ err error }

func (e *dialError) Error() string   { return e.err.Error() }
func (e *dialError) Unwrap() error   { return e.err }
func (e *dialError) NeverSent() bool { return true }

// neverSent reports whether an error of a transport tells that nothing of the
// request can have reached anybody. One that does not say so may mean anything.
func neverSent(err error) bool {
	var tells interface{ NeverSent() bool }
	return errors.As(err, &tells) && tells.NeverSent()
}

// connect gives every route of a generation its upstream. One that did not
// change keeps its connections.
func (g *generation) connect(dial dialer, old *generation) error {
	g.upstreams = map[*Entry]*upstream{}
	have := map[[sha256.Size]byte]*upstream{}
	if old != nil {
		for _, u := range old.upstreams {
			have[u.made] = u
		}
	}
	for entry := range g.Routes.entries {
		if entry.tunnel != nil {
			continue // every tunnel has a connection of its own
		}
		u, err := newUpstream(entry, dial)
		if err != nil {
			return fmt.Errorf("route %s: %w", entry.Route.ID, err)
		}
		if same := have[u.made]; same != nil {
			u = same
		}
		g.upstreams[entry] = u
	}
	return nil
}

// retire closes the idle connections that the next generation does not use.
// Those in use close when they have been idle for a while.
func (g *generation) retire(next *generation) {
	kept := map[*upstream]bool{}
	if next != nil {
		for _, u := range next.upstreams {
			kept[u] = true
		}
	}
	for _, u := range g.upstreams {
		if !kept[u] {
			u.transport.CloseIdleConnections()
		}
	}
}

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

func newUpstream(entry *Entry, dial dialer) (*upstream, error) {
	route := entry.Route
	conf, digest, err := clientTLS(&route.UpstreamTLS)
	if err != nil {
		return nil, err
	}
	timeout := route.Timeout.Or(defaultTimeout)
	made := sha256.New()
	fmt.Fprintf(made, "%q %q %v %x", route.ID, route.To, timeout, digest)
	u := &upstream{targets: entry.targets, transport: newTransport(entry, dial, conf, timeout)}
	made.Sum(u.made[:0])
	return u, nil
}

// newTransport returns the connections to an upstream. Headers of an answer that
// do not come within the timeout are an error.
func newTransport(entry *Entry, dial dialer, conf *tls.Config, timeout time.Duration) transport {
	var protocols http.Protocols
	if entry.h2c {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	}
	return &http.Transport{
		// No Proxy: the environment must not redirect requests that carry
		// assertions.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		},
		TLSClientConfig:        conf,
		Protocols:              &protocols,
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  timeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    idlePerUpstream,
		MaxResponseHeaderBytes: responseHeaders,
		DisableCompression:     true, // bodies pass as they are
	}
}

// roundTrip sends a request to the next upstream address in turn, and to
// another one only while no connection could be made: then nothing was sent,
// and nobody is asked twice.
func (u *upstream) roundTrip(req *http.Request, trying func(*url.URL)) (*http.Response, error) {
	body := req.Body
	turn := int(u.next.Add(1) % uint32(len(u.targets)))
	var err error
	for i := range u.targets {
		target := &u.targets[(turn+i)%len(u.targets)]
		trying(target)
		attempt := req.WithContext(req.Context())
		at := *req.URL
		at.Scheme, at.Host = target.Scheme, target.Host
		attempt.URL = &at
		if attempt.Host == "" {
			attempt.Host = target.Host
		}
		if body != nil && len(u.targets) > 1 {
			attempt.Body = stayOpen{body}
		}
		var res *http.Response
		if res, err = tracedRoundTrip(u.transport, attempt); err == nil {
			return res, nil
		}
		if !neverSent(err) || req.Context().Err() != nil {
			break
		}
	}
	return nil, err
}

// stayOpen keeps a body readable for the next attempt: a transport closes it
// when it cannot connect. Its owner closes it in the end.
type stayOpen struct{ io.Reader }

// Close implements io.Closer.
func (stayOpen) Close() error { return nil }

// upstreamReason says what went wrong on the way to an upstream.
func upstreamReason(err error) access.Reason {
	var (
		unreached *dialError
		timeout   interface{ Timeout() bool }
		wrong     *wrongUpstream
		badCert   *tls.CertificateVerificationError
		badRecord tls.RecordHeaderError
		op        *net.OpError
		known     *access.Error
	)
	switch {
	case errors.As(err, &known):
		return known.Reason
	case errors.As(err, &unreached):
		return access.UpstreamUnreachable
	case errors.As(err, &wrong):
		return access.UpstreamIdentityWrong
	case errors.As(err, &badCert), errors.As(err, &badRecord), errors.Is(err, http.ErrSchemeMismatch),
		errors.As(err, &op) && slices.Contains([]string{"remote error", "local error"}, op.Op): // a TLS alert
		return access.UpstreamTLSFailed
	case errors.As(err, &timeout) && timeout.Timeout():
		return access.UpstreamTimeout
	default:
		return access.UpstreamBroken
	}
}

// buffers lends out the buffers that bodies are copied through.
type buffers struct{ pool sync.Pool }

const bufferBytes = 32 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferBytes]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferBytes)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferBytes]byte)(buf)) }
