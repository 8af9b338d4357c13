package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/issuance"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/proxy"
)

// Options say what to run.
type Options struct {
	// Config is the path of the configuration file.
	Config string
	// Version is the version of the program.
	Version string
	// LogTo receives the operator's log, as the section `log` of the
	// configuration wants it. Default os.Stderr.
	LogTo io.Writer
	// Shadow is the path of a configuration file that is decided with and not
	// enforced, instead of the one that `shadow` names. May be empty.
	Shadow string
	// Reload asks for the configuration to be loaded again, as SIGHUP does.
	// May be nil.
	Reload <-chan os.Signal
	// Ready is called once everything listens. May be nil.
	Ready func()
	// Now is the clock of everything that decides. Default time.Now.
	Now func() time.Time
}

// Run serves until ctx ends, then drains and returns nil. It returns
// config.Problems, without having opened anything, where the configuration is
// wrong, and any other error where a part could not be opened or has failed.
func Run(ctx context.Context, opts Options) error {
	cfg, err := config.Load(opts.Config)
	if err != nil {
		return err
	}
	if opts.LogTo == nil {
		opts.LogTo = os.Stderr
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	log, err := telemetry.NewLogger(opts.LogTo, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}

	// What happened, and how it is doing. Everything below reports through emit.
	auditLog, err := audit.Open(cfg.Audit, audit.Options{Log: log, Version: opts.Version})
	if err != nil {
		return err
	}
	metrics := telemetry.New(telemetry.Options{Version: opts.Version})
	metrics.WatchAudit(auditLog)
	metrics.WatchReceivers(func() (list []telemetry.Receiver) {
		for _, s := range auditLog.Sinks() {
			list = append(list, telemetry.Receiver(s))
		}
		return list
	})
	tracing, err := telemetry.NewTracing(telemetry.TracingOptions{Version: opts.Version, Log: log})
	if err != nil {
		// Who injects variables into every process should not take the door down.
		log.Error("requests are not traced", "error", err)
	}
	metrics.WatchTracing(tracing)
	defer closeTracing(tracing, log)
	records := &recorder{audit: auditLog, metrics: metrics, log: log}
	defer records.close()

	// What is open is decided on again when somebody says that facts have changed.
	news := new(news)

	// Who is logged in.
	backend, err := store.Open(cfg.Sessions.Store, opts.Now)
	if err != nil {
		return err
	}
	defer backend.Close()
	shared, _ := backend.(sharedStore)
	if shared != nil {
		metrics.WatchStore(shared.Err)
	}
	kept := observedStore{backend, metrics, tracing}
	sessions, err := session.New(session.Options{Config: cfg.Sessions, Store: kept, Now: opts.Now, Log: log, Emit: records.Record, Signal: news.send})
	if err != nil {
		return err
	}
	defer sessions.Close()

	// The road, not yet open: it gets its configuration from install.
	signingKey, err := sessions.Key(ctx, "assertion keys")
	if err != nil {
		return err
	}
	signer, err := proxy.NewSigner(ctx, proxy.SignerOptions{Store: kept, Key: signingKey, Now: opts.Now})
	if err != nil {
		return err
	}
	door := proxy.New(proxy.Options{Signer: signer, Recorder: records, Now: opts.Now, Log: log, Tracer: tracerOf(tracing)})
	defer door.Close()
	news.door.Store(door)
	metrics.WatchUpstreams(func() []telemetry.RouteUpstreams { return upstreams(door) })

	// Certificates that are in no file.
	certificateKey, err := sessions.Key(ctx, "certificates")
	if err != nil {
		return err
	}
	issuer := issuance.New(issuance.Options{Store: kept, Keep: session.NewVault(kept, "acme", certificateKey), Now: opts.Now, Log: log})

	// The live configuration: installed now, and again whenever it changes.
	live := &live{
		opts: opts, log: log, metrics: metrics, records: records, door: door, sessions: sessions, store: kept, shared: shared, news: news, issuer: issuer, tracing: tracing,
	}
	live.candidate.live = live
	defer live.stop()
	if err := live.install(ctx, cfg); err != nil {
		return err
	}
	go live.follow(ctx)

	// The listeners. A failed one ends the run.
	failed := make(chan error, 8)
	server := proxy.NewServer(cfg.Server.Config, door)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer metrics.Begin(access.Standalone)()
		door.ServeHTTP(w, r)
	})
	if live.tls != nil {
		server.TLSConfig = live.tls.Config()
	}
	ready := &readiness{live: live}
	metrics.WatchReady(ready.checks)
	metrics.WatchSessions(sessions.Cached)
	adminServer := &http.Server{
		Handler: admin.New(admin.Options{
			Config: cfg.Server.Admin, Checks: ready.checks, Metrics: metrics.Handler(),
			Version: opts.Version, Status: live.status, Token: live.adminToken, Sessions: adminSessions{live}, Decisions: adminDecisions{live},
			Revocations: adminRevocations{live}, Devices: adminDevices{live},
			Emit: records.Record, Log: log,
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	if err := listen(serveHTTP(adminServer), tcp(cfg.Server.Admin.Address()), "server.admin.listen", failed); err != nil {
		return err
	}
	defer adminServer.Close()
	visitors := func() (net.Listener, error) {
		l, err := net.Listen("tcp", cfg.Server.Address())
		if err != nil {
			return nil, err
		}
		return cfg.Server.Preambles(l, log), nil
	}
	if err := listen(serveHTTP(server), visitors, "server.listen", failed); err != nil {
		return err
	}
	defer server.Close()
	issuing, stopIssuing := context.WithCancel(ctx)
	issued := make(chan struct{})
	go func() { defer close(issued); issuer.Run(issuing) }()
	defer func() { stopIssuing(); <-issued }() // before the store is closed
	sides, err := live.openSides(cfg, failed)
	if err != nil {
		return err
	}
	defer sides.close()
	ready.set(true)
	log.Info("serving", "address", cfg.Server.Address(), "tls", cfg.Server.TLS.Enabled(), "admin", cfg.Server.Admin.Address(),
		"routes", len(cfg.Routes), "config", cfg.Version)
	if opts.Ready != nil {
		opts.Ready()
	}

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}

	// Stopping: tell load balancers first, let requests finish, then close.
	ready.set(false)
	limit := live.current.Load().cfg.Server.Drain()
	log.Info("draining", "limit", limit)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	// Shutdown does not wait for upgraded connections, Drain does.
	if err := errors.Join(server.Shutdown(drain), sides.shutdown(drain), door.Drain(drain)); err != nil {
		log.Warn("some requests were cut off", "error", err, "in_flight", door.InFlight())
		door.Close()
		// What was cut off still leaves its record.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		door.Drain(last)
	}
	return nil
}

// tcp opens a listener on an address.
func tcp(address string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return net.Listen("tcp", address) }
}

// serveHTTP is what a server does with its listener, until it is shut down.
func serveHTTP(server *http.Server) func(net.Listener) error {
	return func(l net.Listener) error {
		serve := server.Serve
		if server.TLSConfig != nil {
			serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
		}
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

// listen opens a listener and serves it until that ends without an error.
func listen(serve func(net.Listener) error, open func() (net.Listener, error), key string, failed chan<- error) error {
	listener, err := open()
	if err != nil {
		return fmt.Errorf("%s: %w; choose another address or stop what uses this one", key, err)
	}
	go func() {
		if err := serve(listener); err != nil {
			failed <- fmt.Errorf("%s: %w", key, err)
		}
	}()
	return nil
}

// recorder sends each event to everyone who counts or keeps it.
type recorder struct {
	audit   *audit.Log
	metrics *telemetry.Metrics
	log     *slog.Logger
	recent  recent
}

// Record implements proxy.Recorder.
func (r *recorder) Record(e *access.Event) {
	r.metrics.Event(e)
	telemetry.LogEvent(context.Background(), r.log, e)
	r.recent.add(e)
	r.audit.Record(e) // last: the event is the log's from here on
}

// Err implements proxy.Recorder.
func (r *recorder) Err() error { return r.audit.Err() }

func (r *recorder) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.audit.Close(ctx); err != nil {
		r.log.Error("the audit log could not be completed", "error", err)
	}
}
