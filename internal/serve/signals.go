package serve

import (
	"context"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/signals"
)

// receiver makes the receiver of shared signals.
func (l *live) receiver(ctx context.Context, cfg *config.Config, who *authn.Authenticator, before *signals.Receiver) (*signals.Receiver, error) {
	key, err := l.sessions.Key(ctx, "signal streams")
	if err != nil {
		return nil, err
	}
	var providers []signals.Provider
	for i := range cfg.Providers {
		providers = append(providers, signals.Provider{ID: cfg.Providers[i].ID, Issuer: cfg.Providers[i].Issuer})
	}
	return signals.New(signals.Options{
		Transmitters: cfg.Signals, Providers: providers, AuthURL: cfg.Server.AuthURL, Sessions: l.sessions,
		Revoke: l.sessions.NotBefore, Claims: who.Amend, Signal: l.news.send, Store: l.store, Key: key, Previous: before, Log: l.log, Emit: l.records.Record,
	})
}
