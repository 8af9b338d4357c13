package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Options are what a Door is made of. Signer and Recorder are required.
type Options struct {
	// Signer signs the assertions upstreams get.
	Signer *Signer
	// Recorder keeps one event per request.
	Recorder Recorder
	// Dial connects to upstreams. Default: a net.Dialer with a limit of 5s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Resolve looks up the addresses that tunnels lead to. Default: the system's
	// resolver.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Rand is the source of request ids, which are no secrets. Default: the
	// generator of math/rand/v2, ChaCha8 with a seed of the system's.
	Rand io.Reader
	// Log gets what the operator has to know beyond the events. Default: none.
	Log *slog.Logger
	// Tracer follows requests. Default: nobody does, and it costs nothing.
	Tracer Tracer
}

// Door is the standalone door: an http.Handler that takes a request from the
// visitor's browser to the upstream, or refuses it.
type Door struct {
	signer   *Signer
	recorder Recorder
	dial     dialer
	resolve  resolver
	now      func() time.Time
	since    func(time.Time) time.Duration
	rand     io.Reader
	log      *slog.Logger
	tracer   Tracer // nil: nothing is followed

	buffers buffers
	budgets *budgets

	live atomic.Pointer[generation]
	// candidate is decided with, and not enforced. Nil: there is none.
	candidate atomic.Pointer[Candidate]
	streams   streams
	tunnels   tunnelCounts
	inFlight  atomic.Int64
	leaving   atomic.Bool
	base      context.Context
	close     context.CancelFunc
}

// New returns a door that answers 503 until the first Swap.
func New(opts Options) *Door {
	d := &Door{signer: opts.Signer, recorder: opts.Recorder, dial: opts.Dial, now: opts.Now, rand: opts.Rand, log: opts.Log, resolve: opts.Resolve, tracer: opts.Tracer}
	if d.dial == nil {
		d.dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	if d.resolve == nil {
		d.resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	d.since = func(start time.Time) time.Duration { return d.now().Sub(start) }
	if d.now == nil {
		d.now, d.since = time.Now, time.Since // which looks at one clock, not at two
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.budgets = new(budgets)
	d.base, d.close = context.WithCancel(context.Background())
	return d
}

// Swap puts a configuration in force. Requests in flight end with the one they
// began with, unless the new one would not let them in: then they end now. If a file the configuration names cannot be used, the error says
// so and the old configuration stays in force.
func (d *Door) Swap(s *Snapshot) error {
	next := &generation{Snapshot: s, hsts: compileHSTS(s.Server.TLS.HSTS, access.NewFaults("hsts"))}
	for _, text := range s.Server.TrustedProxies {
		prefix, err := parsePrefix(text)
		if err != nil {
			return err
		}
		next.trusted = append(next.trusted, prefix)
	}
	for _, text := range s.Server.TraceparentFrom {
		prefix, err := parsePrefix(text)
		if err != nil {
			return err
		}
		next.tracers = append(next.tracers, prefix)
	}
	var err error
	if next.certHops, err = newCertHops(s.Server.ClientCertFrom, next.trusted); err != nil {
		return err
	}
	if s.Server.AuthURL != "" {
		if next.authScheme, next.authHost, err = parseOrigin(s.Server.AuthURL); err != nil {
			return err
		}
	}
	if next.limits, err = newLimits(&s.Server.Limits); err != nil {
		return err
	}
	old := d.live.Load()
	if err := next.connect(d.dial, d.log, old); err != nil {
		return err
	}
	d.live.Store(next)
	next.startChecks(d.base)
	if old != nil {
		old.retire(next)
		d.Signal(access.Signal{}) // what the new policy still allows goes on
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := d.begin(w, r)
	defer p.finish()
	if r.TLS != nil {
		p.event.Response.TLS = negotiated(r.TLS)
	}
	p.travel()
}

// travel takes a request past the stations.
func (p *passage) travel() {
	if !p.arrive() {
		return
	}
	if p.tunnel != nil {
		p.serveTunnel()
		return
	}
	if p.isReserved() {
		p.serveReserved()
		return
	}
	if !p.admit() {
		return
	}
	if p.answersItself() {
		if err := p.answerItself(); err != nil {
			p.refuseServing(err)
		}
		return
	}
	if len(p.entry.targets) == 0 {
		p.refuseServing(access.Because(access.ServedElsewhere, errNoTarget))
		return
	}
	// Last, because a kept form comes back only once.
	if err := p.sendAgain(); err != nil {
		p.refuseServing(err)
		return
	}
	if err := p.limitBody(); err != nil {
		p.refuseServing(err)
		return
	}
	p.forward()
}

// Leave has every answer from here on ask its client to connect anew: by
// `Connection: close`, over HTTP/2 by GOAWAY. Connections that are open can be
// used once more, so that no client finds one closed under a request.
func (d *Door) Leave() { d.leaving.Store(true) }

// InFlight returns how many requests, upgraded connections included, have not
// ended yet.
func (d *Door) InFlight() int { return int(d.inFlight.Load()) }

// Drain waits until no request is in flight or ctx ends, which it returns as an
// error. The listener should be closed before.
func (d *Door) Drain(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for d.InFlight() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// Close ends every request still in flight, each in the way its client
// understands: a WebSocket is told that the server is going away (1001). What does
// not end by itself within two seconds is cut. Then it closes the connections to
// upstreams. It works for servers made by NewServer.
func (d *Door) Close() {
	d.streams.stop()
	d.streams.endAll(access.ShuttingDown)
	d.close()
	if g := d.live.Load(); g != nil {
		g.retire(nil)
	}
}
