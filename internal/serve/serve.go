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
	"strconv"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
	"github.com/doorward/doorward/internal/audit"
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
	// Upgrade asks for another process to take over, as SIGUSR2 does: Program with
	// Args. May be nil.
	Upgrade <-chan os.Signal
	Program string
	Args    []string
	// Ready is called once everything listens. May be nil.
	Ready func()
	// Now is the clock of everything that decides. Default time.Now.
	Now func() time.Time
}

// now looks at that clock.
func (o *Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// running is what handing over to another process has to do with.
type running struct {
	opts    Options
	cfg     *config.Config // at the start
	log     *slog.Logger
	metrics *telemetry.Metrics
	open    *listeners
	before  *predecessor  // nil: this one took over from nobody
	moving  *store.Moving // the store, if only one process can have it
	records *recorder
	live    *live

	startIssuing func(context.Context)
	stopIssuing  func()
}

// Run serves until ctx ends or another process has taken over, then drains and
// returns nil. It returns config.Problems, without having opened anything, where
// the configuration is wrong, and any other error where a part could not be opened
// or has failed.
func Run(ctx context.Context, opts Options) (failure error) {
	before, err := findPredecessor()
	if err != nil {
		return err
	}
	defer func() { before.fail(failure) }()
	cfg, err := config.Load(opts.Config)
	if err != nil {
		return err
	}
	if opts.LogTo == nil {
		opts.LogTo = os.Stderr
	}
	log, err := telemetry.NewLogger(opts.LogTo, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	r := &running{opts: opts, cfg: cfg, log: log, before: before, open: &listeners{log: log}}
	defer r.open.close()
	if r.open.given, err = systemdListeners(); err != nil {
		return err
	}

	// Another doorward serves: everything that it does not have to let go of first.
	var known *installed
	if before != nil {
		r.open.given = append(r.open.given, before.given...)
		if known, err = r.prepare(ctx); err != nil {
			return err
		}
		if err := before.open(); err != nil {
			return fmt.Errorf("taking over: %w", err)
		}
	}

	// What happened, and how it is doing. Everything below reports through emit.
	r.metrics = telemetry.New(telemetry.Options{Version: opts.Version})
	auditLog, err := r.openAudit()
	if err != nil {
		return err
	}
	tracing, err := telemetry.NewTracing(telemetry.TracingOptions{Version: opts.Version, Log: log})
	if err != nil {
		// Who injects variables into every process should not take the door down.
		log.Error("requests are not traced", "error", err)
	}
	r.metrics.WatchTracing(tracing)
	defer closeTracing(tracing, log)
	r.records = &recorder{audit: auditLog, metrics: r.metrics, log: log, tally: admin.NewTally(opts.Now)}
	defer r.records.close()

	// Who is logged in.
	backend, err := r.openStore()
	if err != nil {
		return err
	}
	defer backend.Close()
	kept := observedStore{backend, r.metrics, tracing}

	// The road, not yet open: it gets its configuration from install.
	live, err := assemble(ctx, parts{opts, cfg, log, r.metrics, tracing, r.records, kept})
	if err != nil {
		return err
	}
	defer live.close()
	live.known, r.live = known, live
	live.shared, _ = backend.(sharedStore)
	r.metrics.WatchUpstreams(func() []telemetry.RouteUpstreams { return upstreams(live.door) })

	// The live configuration: installed now, and again whenever it changes.
	if err := live.install(ctx, cfg); err != nil {
		return err
	}
	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	go live.follow(following, ctx)
	go keepMemory(ctx, cfg.Server.Quiet())

	// The listeners. A failed one ends the run.
	failed := make(chan error, 8)
	ready := &readiness{live: live}
	r.metrics.WatchReady(ready.checks)
	r.metrics.WatchSessions(live.sessions.Cached)
	servers, err := r.serve(ready, failed)
	if err != nil {
		return err
	}
	defer servers.close()
	r.open.refuseRest()
	r.startIssuing, r.stopIssuing = live.issuing()
	r.startIssuing(ctx)
	defer func() { r.stopIssuing() }() // before the store is closed
	ready.set(true)
	log.Info("serving", "address", cfg.Server.Address(), "tls", cfg.Server.TLS.Enabled(), "admin", cfg.Server.Admin.Address(),
		"routes", len(cfg.Routes), "config", cfg.Version, "pid", os.Getpid())
	if before != nil {
		if err := before.lend(context.WithoutCancel(ctx), backend, auditLog, log); err != nil {
			return fmt.Errorf("taking over: %w", err)
		}
	}
	tellSystemd(log, "READY=1", "MAINPID="+strconv.Itoa(os.Getpid()))
	if opts.Ready != nil {
		opts.Ready()
	}

	next, err := r.wait(ctx, failed)
	if err != nil {
		return err
	}
	stopFollowing()
	limit := live.current.Load().cfg.Server.Drain()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if next != nil {
		r.open.leave()
		go servers.admin.Shutdown(drain)
		log.Info("leaving", "limit", limit)
		live.leave(drain, next, servers.sides)
		cancel() // whoever is left has had the time
	} else {
		// Stopping: tell load balancers first, let requests finish, then close.
		ready.set(false)
		tellSystemd(log, "STOPPING=1")
		log.Info("draining", "limit", limit)
	}
	// Shutdown does not wait for upgraded connections, Drain does.
	if err := errors.Join(servers.visitors.Shutdown(drain), servers.sides.shutdown(drain), live.door.Drain(drain)); err != nil && live.door.InFlight() > 0 {
		log.Warn("some requests were cut off", "error", err, "in_flight", live.door.InFlight())
		live.door.Close()
		// What was cut off still leaves its record.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		live.door.Drain(last)
	}
	return nil
}

// wait returns when the run is over: with the process that has taken over, if one
// has.
func (r *running) wait(ctx context.Context, failed <-chan error) (*successor, error) {
	for {
		select {
		case err := <-failed:
			return nil, err
		case <-ctx.Done():
			return nil, nil
		case <-r.opts.Upgrade:
			next, err := r.handOver(ctx)
			if err == nil {
				return next, nil
			}
			r.log.Error("no other process has taken over; this one goes on", "error", err)
			select {
			case <-r.opts.Upgrade: // asked while it was under way
			default:
			}
		}
	}
}

// prepare does what can be done before the doorward before this one lets go of
// anything, so that nothing is left that is likely to fail.
func (r *running) prepare(ctx context.Context) (*installed, error) {
	known, err := rehearse(ctx, r.opts, r.cfg, r.log, r.before.providers)
	if err != nil {
		return nil, err
	}
	for _, one := range r.addresses() {
		if _, err := r.open.get(one.key, one.address, one.open); err != nil {
			return nil, err
		}
	}
	return known, nil
}

// openAudit opens the audit log, which one process has.
func (r *running) openAudit() (*audit.Log, error) {
	log, err := audit.Open(r.cfg.Audit, audit.Options{Log: r.log, Version: r.opts.Version})
	if err != nil {
		return nil, err
	}
	r.metrics.WatchAudit(log)
	r.metrics.WatchReceivers(func() (list []telemetry.Receiver) {
		for _, s := range log.Sinks() {
			list = append(list, telemetry.Receiver(s))
		}
		return list
	})
	return log, nil
}

// openStore opens the store. A local file can go to another process later.
func (r *running) openStore() (store.Store, error) {
	kept, err := store.Open(r.cfg.Sessions.Store, r.opts.Now)
	if err != nil {
		return nil, err
	}
	if shared, ok := kept.(sharedStore); ok {
		r.metrics.WatchStore(shared.Err)
	}
	if file, ok := kept.(*store.File); ok {
		r.moving = store.NewMoving(file)
		return r.moving, nil
	}
	return kept, nil
}

// address is one that a configuration listens on.
type address struct {
	key, address string
	open         func() (net.Listener, error)
}

// addresses lists all of them.
func (r *running) addresses() []address {
	admin, visitors := r.cfg.Server.Admin.Address(), r.cfg.Server.Address()
	list := []address{{adminKey, admin, tcp(admin)}, {visitorsKey, visitors, tcp(visitors)}}
	for i, conf := range sideSections(r.cfg) {
		if conf.Enabled() {
			list = append(list, address{sideKeys[i] + ".listen", conf.Listen, conf.Open})
		}
	}
	return list
}

const (
	adminKey    = "server.admin.listen"
	visitorsKey = "server.listen"
)

// servers are those of all listeners.
type servers struct {
	visitors side
	admin    *http.Server
	sides    sides
}

func (s *servers) close() {
	s.sides.close()
	s.visitors.Close()
	s.admin.Close()
}

// serve begins to accept connections.
func (r *running) serve(ready *readiness, failed chan<- error) (_ *servers, err error) {
	cfg, live, log := r.cfg, r.live, r.log
	server := proxy.NewServer(cfg.Server.Config, live.door)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			growStack(0)
		}
		defer live.metrics.Begin(access.Standalone)()
		live.door.ServeHTTP(w, r)
	})
	server.ConnState = live.connections.note
	if live.tls != nil {
		server.TLSConfig = live.tls.Config()
	}
	s := &servers{}
	var serve func(net.Listener) error
	s.visitors, serve = withLane(server, &cfg.Server.Config)
	formKey, err := live.sessions.Key(context.Background(), "admin forms")
	if err != nil {
		return nil, err
	}
	instance := adminInstance{live, r.opts.now()}
	s.admin = &http.Server{
		Handler: admin.New(admin.Options{
			Config: cfg.Server.Admin, Checks: ready.checks, Metrics: live.metrics.Handler(),
			Version: r.opts.Version, Status: live.status, Token: live.adminToken, Sessions: adminSessions{live}, Decisions: adminDecisions{live},
			Revocations: adminRevocations{live}, Devices: adminDevices{live}, Door: adminDoor{live},
			Instance: instance, Activity: instance, Tally: r.records.tally, FormKey: formKey, Now: r.opts.Now,
			Emit: r.records.Record, Log: log,
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := r.open.serve(adminKey, cfg.Server.Admin.Address(), tcp(cfg.Server.Admin.Address()), serveHTTP(s.admin), failed); err != nil {
		return nil, err
	}
	visitors := func(l net.Listener) error { return serve(cfg.Server.Preambles(l, log)) }
	if err := r.open.serve(visitorsKey, cfg.Server.Address(), tcp(cfg.Server.Address()), visitors, failed); err != nil {
		return nil, err
	}
	s.sides, err = live.openSides(cfg, r.open, failed)
	return s, err
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
			serve = func(l net.Listener) error { return server.ServeTLS(proxy.Gathering(l), "", "") }
		}
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

// growStack makes the stack of a goroutine as large as serving a request needs, in
// one step and while there is next to nothing on it to move. net/http serves each
// HTTP/2 request in a new goroutine, whose stack would otherwise grow three times
// on the way. What the compiler inlines by a profile needs more than 8 KiB.
//
//go:noinline
func growStack(i int) byte {
	var room [9 << 10]byte
	return room[i]
}
