package serve

import (
	"context"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/signals"
)

// receiver makes the receiver of shared signals.
func (l *live) receiver(ctx context.Context, cfg *config.Config, who *authn.Authenticator, before *signals.Receiver) (*signals.Receiver, error) {
	key, err := l.sessions.Key(ctx, "signal streams")
	if err != nil {
		return nil, err
	}
	return signals.New(signals.Options{
		Transmitters: cfg.Signals, Providers: speakers(cfg.Providers), AuthURL: cfg.Server.AuthURL, Sessions: l.sessions,
		Revoke: l.sessions.ReportedNotBefore, Claims: who.Amend, Signal: l.news.send, Store: l.store, Key: key, Previous: before, Log: l.log, Emit: l.records.Record,
	})
}

// streams are how the transmitters are doing.
func streams(told *signals.Receiver) (list []telemetry.Stream) {
	for _, s := range told.Status() {
		list = append(list, telemetry.Stream{ID: s.ID, Failing: s.Problem != ""})
	}
	return list
}

// speakers are the providers as signals know them: by the issuer that the
// identities of their people have.
func speakers(providers []authn.Provider) (list []signals.Provider) {
	for i := range providers {
		list = append(list, signals.Provider{ID: providers[i].ID, Issuer: providers[i].IssuerName()})
	}
	return list
}
