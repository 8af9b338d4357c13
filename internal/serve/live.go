package serve

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/devicecheck"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/issuance"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/proxy"
	"github.com/doorward/doorward/signals"
)

// live holds the configuration in force and replaces it whole, or not at all.
type live struct {
	opts     Options
	log      *slog.Logger
	metrics  *telemetry.Metrics
	records  *recorder
	door     *proxy.Door
	sessions *session.Manager
	store    store.Store
	shared   sharedStore // nil: the store is this process's own
	tracing  *telemetry.Tracing
	news     *news
	tls      *proxy.TLS // nil: plaintext
	sideTLS  [len(sideKeys)]proxy.SideTLS
	issuer   *issuance.Issuer

	connections connections // of those who speak HTTP

	candidate candidate // decided with, not enforced

	// known is what was learnt in a rehearsal, before anything is installed. May be
	// nil.
	known *installed
	// rehearsal says that nothing but what providers say is followed: somebody else
	// serves.
	rehearsal bool

	installing sync.Mutex // one reload at a time
	current    atomic.Pointer[installed]
	refused    atomic.Pointer[refused] // nil: the latest configuration is in force
}

// installed is one configuration with the parts that were made for it.
type installed struct {
	cfg     *config.Config
	authn   *authn.Authenticator
	devices *devicecheck.Inspector
	signals *signals.Receiver
	stop    context.CancelFunc // ends the parts' background work

	at          time.Time // since when it is in force
	adminOrigin string    // of the route to the admin pages; empty: there is none
}

// install makes the parts a configuration asks for and swaps them in. Parts
// that did not change hand over what they know: keys, metadata, inventories.
func (l *live) install(ctx context.Context, cfg *config.Config) error {
	l.installing.Lock()
	defer l.installing.Unlock()
	before := l.current.Load()
	if before == nil {
		before = l.known
	}
	if before == nil {
		before = &installed{stop: func() {}}
	}

	// Everything that can fail comes before anything that changes.
	clientCAs, authorities, err := cfg.Server.TLS.ClientCAs()
	if err != nil {
		return fmt.Errorf("server.tls.client_ca: %w", err)
	}
	flowKey, err := l.sessions.Key(ctx, "login flows")
	if err != nil {
		return err
	}
	who, err := authn.New(authn.Options{
		Providers: cfg.Providers, AuthURL: cfg.Server.AuthURL, Owns: cfg.Table.Owns,
		Sessions: l.sessions, Forms: l.store, Follow: l.followProvider, Previous: before.authn, FlowKey: flowKey, Now: l.opts.Now, Log: l.log, Emit: l.records.Record,
	})
	if err != nil {
		return err
	}
	told, err := l.receiver(ctx, cfg, who, before.signals)
	if err != nil {
		return err
	}
	snapshotKey, err := l.sessions.Key(ctx, "device snapshots")
	if err != nil {
		return err
	}
	devices, err := devicecheck.New(devicecheck.Options{Config: cfg.Devices, ClientCAs: clientCAs, Authorities: authorities, Reports: told.Reports(),
		Keep: session.NewVault(l.store, "device", snapshotKey), Previous: before.devices, Signal: l.news.send, Now: l.opts.Now, Log: l.log})
	if err != nil {
		return err
	}
	takeTLS, err := l.prepareTLS(cfg)
	if err != nil {
		return err
	}
	err = l.door.Swap(&proxy.Snapshot{
		Version: cfg.Version, Server: cfg.Server.Config, Routes: cfg.Table, Policy: cfg.Policy,
		Identify: who, Inspect: devices, Recheck: devices, Login: who, Sessions: l.sessions, Forms: who, Signals: told, Revoked: l.sessions, AuditRequired: cfg.Audit.Required,
		Listeners: []string{cfg.Server.Admin.Address()},
	})
	if err != nil {
		return err
	}

	takeTLS(ctx)
	l.sessions.SetRefresher(who)
	running, stop := context.WithCancel(ctx)
	go who.Run(running)
	if !l.rehearsal {
		go devices.Run(running)
		go told.Run(running)
	}
	l.current.Store(&installed{cfg: cfg, authn: who, devices: devices, signals: told, stop: stop, at: l.opts.now(), adminOrigin: adminOrigin(cfg)})
	before.stop()
	if l.rehearsal {
		return nil
	}
	l.records.tally.Restart()
	l.candidate.follow(ctx, cfg)
	l.metrics.WatchProviders(who.Ready)
	l.metrics.WatchSources(func() []telemetry.Source { return sources(devices) })
	l.metrics.WatchSignals(func() []telemetry.Stream { return streams(told) })
	l.metrics.WatchCertificates(l.certificates)
	l.metrics.Loaded(cfg.Version, routeIDs(cfg), providerIDs(cfg))
	if before.cfg != nil {
		l.warnOfRestart(before.cfg, cfg)
	}
	return nil
}

// follow loads the configuration again when a file changes or someone asks, until
// ctx ends. What it has installed lives for as long as the run.
func (l *live) follow(ctx, run context.Context) {
	changed := make(chan struct{}, 1)
	go func() {
		err := config.Watch(ctx, l.current.Load().cfg, config.WatchOptions{Log: l.log}, func() {
			select {
			case changed <- struct{}{}:
			default: // a reload that has not begun yet will see this change too
			}
		})
		if err != nil {
			l.log.Error("changes of the configuration are not noticed; send SIGHUP", "error", err)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-l.opts.Reload:
			if err := l.records.reopen(); err != nil {
				l.log.Error("the audit log was not reopened; the old file goes on", "error", err)
			}
		}
		l.reload(run)
	}
}

// reload replaces the configuration, or reports why the running one stays.
func (l *live) reload(ctx context.Context) {
	cfg, err := config.Load(l.opts.Config)
	if err == nil {
		err = l.install(ctx, cfg)
	}
	event := &access.Event{Kind: access.EventConfig, Time: time.Now()}
	if err != nil {
		l.refused.Store(&refused{l.opts.now(), err.Error()})
		l.metrics.LoadFailed()
		l.log.Error("the configuration was not loaded; the running one stays", "error", err)
		event.Reason, event.Note = access.InternalError, "the configuration was not loaded; the running one stays"
	} else {
		l.refused.Store(nil)
		l.log.Info("configuration loaded", "version", cfg.Version, "routes", len(cfg.Routes))
		event.Reason, event.Note = access.Allowed, "configuration "+cfg.Version+" is in force"
	}
	l.records.Record(event)
}

// warnOfRestart names what a reload cannot change.
func (l *live) warnOfRestart(before, now *config.Config) {
	for key, same := range map[string]bool{
		"server.proxy_protocol":  slices.Equal(before.Server.ProxyProtocol, now.Server.ProxyProtocol),
		"server.listen":          before.Server.Address() == now.Server.Address(),
		"server.forward_auth":    sameSide(&before.Server.ForwardAuth, &now.Server.ForwardAuth),
		"server.ext_authz":       sameSide(&before.Server.ExtAuthz, &now.Server.ExtAuthz),
		"server.spoe":            sameSide(&before.Server.SPOE, &now.Server.SPOE),
		"server.admin":           before.Server.Admin.Listen == now.Server.Admin.Listen && slices.Equal(before.Server.Admin.Hosts, now.Server.Admin.Hosts),
		"server.tls (on/off)":    before.Server.TLS.Enabled() == now.Server.TLS.Enabled(),
		"sessions":               reflect.DeepEqual(before.Sessions, now.Sessions),
		"audit.to":               reflect.DeepEqual(before.Audit.To, now.Audit.To),
		"audit.key":              reflect.DeepEqual(before.Audit.Key, now.Audit.Key),
		"audit.pseudonym_period": before.Audit.PseudonymPeriod == now.Audit.PseudonymPeriod,
		"log":                    before.Log == now.Log,
		// The listener's own limits; whatever the door checks takes effect at once.
		"server.read_header_timeout": before.Server.ReadHeaderTimeout == now.Server.ReadHeaderTimeout,
		"server.http1":               before.Server.HTTP1 == now.Server.HTTP1,
		"server.idle_timeout":        before.Server.IdleTimeout == now.Server.IdleTimeout,
		"server.max_header_bytes":    before.Server.MaxHeaderBytes == now.Server.MaxHeaderBytes,
		"audit.required":             before.Audit.Required == now.Audit.Required,
	} {
		if !same {
			l.log.Warn("this change takes effect at the next start", "key", key, "cure", "send SIGUSR2, which restarts without a failed request")
		}
	}
}

func sources(devices *devicecheck.Inspector) []telemetry.Source {
	var list []telemetry.Source
	for _, s := range devices.Status() {
		list = append(list, telemetry.Source{ID: s.ID, ObservedAt: s.ObservedAt, FailingSince: s.FailingSince, UnknownValues: s.UnknownValues, Devices: s.Devices})
	}
	for _, s := range devices.Revocations() {
		list = append(list, telemetry.Source{ID: s.ID, ObservedAt: s.ObservedAt, FailingSince: s.FailingSince, Devices: -1})
	}
	return list
}

func upstreams(door *proxy.Door) (list []telemetry.RouteUpstreams) {
	for _, u := range door.Upstreams() {
		route := telemetry.RouteUpstreams{Route: u.Route, Repeated: u.Repeated, Refused: u.Refused}
		for i := range u.Targets {
			t := &u.Targets[i]
			route.Targets = append(route.Targets, telemetry.Upstream{Address: t.Address, Used: t.Used(), Open: t.Open, Waiting: t.Waiting, Ejections: t.Ejections})
		}
		list = append(list, route)
	}
	return list
}

// status is what the admin listener shows of the configuration in force.
func (l *live) status() any {
	now := l.current.Load()
	providers := map[string]string{}
	for id, err := range now.authn.Ready() {
		providers[id] = "ready"
		if err != nil {
			providers[id] = err.Error()
		}
	}
	status := map[string]any{
		"config":     now.cfg.Version,
		"routes":     routeIDs(now.cfg),
		"providers":  providers,
		"devices":    now.devices.Status(),
		"revocation": now.devices.Revocations(),
		"signals":    now.signals.Status(),
		"upstreams":  l.door.Upstreams(),
		"in_flight":  l.door.InFlight(),
	}
	if now.cfg.Server.TLS.ACME.Enabled() {
		status["certificates"] = l.issuer.Status()
	}
	if candidate := l.candidate.status(); candidate != nil {
		status["candidate"] = candidate
	}
	return status
}

func routeIDs(cfg *config.Config) []string {
	var ids []string
	for i := range cfg.Routes {
		ids = append(ids, cfg.Routes[i].ID)
	}
	return ids
}

func providerIDs(cfg *config.Config) []string {
	var ids []string
	for i := range cfg.Providers {
		ids = append(ids, cfg.Providers[i].ID)
	}
	return ids
}

// sameSide reports whether two listeners are opened alike. Who may ask there, and
// the certificates, take effect at once.
func sameSide(a, b *proxy.SideDoor) bool {
	return a.Listen == b.Listen && (a.Cert == "") == (b.Cert == "")
}
