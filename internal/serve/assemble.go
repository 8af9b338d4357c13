package serve

import (
	"context"
	"log/slog"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/issuance"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/proxy"
)

// parts are what the rest is made of.
type parts struct {
	opts    Options
	cfg     *config.Config
	log     *slog.Logger
	metrics *telemetry.Metrics
	tracing *telemetry.Tracing // may be nil
	records *recorder
	store   store.Store
}

// assemble joins what needs the store: who is logged in, and the road, which is
// not open before a configuration is installed.
func assemble(ctx context.Context, p parts) (*live, error) {
	// What is open is decided on again when somebody says that facts have changed.
	news := new(news)

	// Who is logged in.
	sessions, err := session.New(session.Options{Config: p.cfg.Sessions, Store: p.store, Now: p.opts.Now, Log: p.log, Emit: p.records.Record, Signal: news.send, Room: sessionRoom(memory())})
	if err != nil {
		return nil, err
	}
	l := &live{opts: p.opts, log: p.log, metrics: p.metrics, tracing: p.tracing, records: p.records, sessions: sessions, store: p.store, news: news}
	l.candidate.live = l

	// The road.
	signingKey, err := sessions.Key(ctx, "assertion keys")
	if err != nil {
		l.close()
		return nil, err
	}
	signer, err := proxy.NewSigner(ctx, proxy.SignerOptions{Store: p.store, Key: signingKey, Now: p.opts.Now})
	if err != nil {
		l.close()
		return nil, err
	}
	l.door = proxy.New(proxy.Options{Signer: signer, Recorder: p.records, Now: p.opts.Now, Log: p.log, Tracer: tracerOf(p.tracing)})
	news.door.Store(l.door)

	// Certificates that are in no file.
	certificateKey, err := sessions.Key(ctx, "certificates")
	if err != nil {
		l.close()
		return nil, err
	}
	l.issuer = issuance.New(issuance.Options{Store: p.store, Keep: session.NewVault(p.store, "acme", certificateKey), Now: p.opts.Now, Log: p.log})
	return l, nil
}

// close ends everything, the latest first.
func (l *live) close() {
	if now := l.current.Load(); now != nil {
		now.stop()
	}
	if l.door != nil {
		l.door.Close()
	}
	l.sessions.Close()
}
