package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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

// upstream is the way to one route's application: its addresses, how they are
// doing, and the connections to them.
type upstream struct {
	settings
	route     string
	targets   []*target
	transport transport
	log       *slog.Logger
	made      [sha256.Size]byte // digest of everything it was made from
	born      time.Time
	stop      context.CancelFunc // ends the health checks. Nil: they have not begun

	asked    atomic.Uint64 // requests, where there is more than one target
	repeated atomic.Uint64 // that were sent to another target too
	refused  atomic.Uint64 // because every target had enough to do

	mu sync.Mutex // protects what is known of the targets, and the allowance
	allowance
}

// age is the upstream's own clock, which nothing sets.
func (u *upstream) age() time.Duration { return time.Since(u.born) }

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
	var (
		tells   interface{ NeverSent() bool }
		wrong   *wrongUpstream
		badCert *tls.CertificateVerificationError
	)
	return errors.As(err, &tells) && tells.NeverSent() ||
		errors.As(err, &wrong) || errors.As(err, &badCert) // we hung up
}

// connect gives every route of a generation its upstream. One that did not
// change keeps its connections.
func (g *generation) connect(dial dialer, log *slog.Logger, old *generation) error {
	g.upstreams = map[*Entry]*upstream{}
	have := map[[sha256.Size]byte]*upstream{}
	before := map[string]*upstream{}
	if old != nil {
		for _, u := range old.upstreams {
			have[u.made], before[u.route] = u, u
		}
	}
	for entry := range g.Routes.entries {
		if entry.tunnel != nil {
			continue // every tunnel has a connection of its own
		}
		u, err := newUpstream(entry, dial, log)
		if err != nil {
			return fmt.Errorf("route %s: %w", entry.Route.ID, err)
		}
		if same := have[u.made]; same != nil {
			u = same
		} else if was := before[u.route]; was != nil {
			u.inherit(was)
		}
		g.upstreams[entry] = u
	}
	return nil
}

// retire ends the health checks and closes the idle connections that the next
// generation does not use. Those in use close when they have been idle for a while.
func (g *generation) retire(next *generation) {
	kept := map[*upstream]bool{}
	if next != nil {
		for _, u := range next.upstreams {
			kept[u] = true
		}
	}
	for _, u := range g.upstreams {
		if !kept[u] {
			u.stopChecks()
			u.transport.CloseIdleConnections()
		}
	}
}

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

func newUpstream(entry *Entry, dial dialer, log *slog.Logger) (*upstream, error) {
	route := entry.Route
	conf, digest, err := clientTLS(&route.UpstreamTLS)
	if err != nil {
		return nil, err
	}
	made := sha256.New()
	fmt.Fprintf(made, "%q %q %+v %x", route.ID, route.To, entry.settings, digest)
	u := &upstream{settings: entry.settings, route: route.ID, transport: newTransport(entry, dial, conf), log: log, born: time.Now()}
	for _, at := range entry.targets {
		t := &target{url: at, name: at.Scheme + "://" + at.Host}
		t.hash = hashOf(t.name)
		if u.mostOpen > 0 {
			t.slots = make(chan struct{}, u.mostOpen)
		}
		u.targets = append(u.targets, t)
	}
	made.Sum(u.made[:0])
	return u, nil
}

// newTransport returns the connections to an upstream. Headers of an answer that
// do not come within the route's timeout are an error.
func newTransport(entry *Entry, dial dialer, conf *tls.Config) transport {
	dial = telling(dial)
	if entry.ownClient() {
		return newOwnTransport(dial, entry.settings.timeout)
	}
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
		DialContext:            dial,
		TLSClientConfig:        conf,
		Protocols:              &protocols,
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  entry.settings.timeout,
		ExpectContinueTimeout:  expectContinue,
		IdleConnTimeout:        idleUpstream,
		MaxIdleConnsPerHost:    idlePerUpstream,
		MaxResponseHeaderBytes: responseHeaders,
		DisableCompression:     true, // bodies pass as they are
	}
}

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

// Get lends a buffer out.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferBytes]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferBytes)
}

// Put takes it back.
func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferBytes]byte)(buf)) }
