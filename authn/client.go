package authn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/jose"
)

// client is what we are to one provider: its registered client, with what the
// provider has published about itself.
type client struct {
	cfg    Provider
	issuer *url.URL
	http   *http.Client
	levels levelTable
	now    func() time.Time
	rand   io.Reader
	log    *slog.Logger
	// clientKeys sign our assertions, the first one does; nil unless the
	// provider knows us by a key.
	clientKeys []clientKey
	nonces     nonces
	pushing    chan struct{} // a place for each pushed request under way

	// cluster is set for service accounts of Kubernetes, nil for everyone else.
	cluster *cluster

	metadata jose.Document[*metadata]
	keys     jose.KeySet
}

func newClient(p Provider, opts *Options) (*client, error) {
	if p.Issuer == kubernetesIssuer {
		return newCluster(p, opts)
	}
	issuer, err := parseIssuer(p.Issuer)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", p.ID, err)
	}
	hc, err := newHTTPClient(opts, &p)
	if err != nil {
		return nil, err
	}
	c := &client{cfg: p, issuer: issuer, http: hc, levels: p.Assurance.table(), now: opts.Now, rand: opts.Rand, log: opts.Log, pushing: make(chan struct{}, maxPushes)}
	if !p.ClientAuth.PrivateKeyJWT.IsZero() {
		if c.clientKeys, err = parseClientKeys(p.ClientAuth.PrivateKeyJWT.Reveal()); err != nil {
			return nil, fmt.Errorf("provider %s: client_auth: private_key_jwt: %w", p.ID, err)
		}
	}
	c.metadata.Now, c.keys.Now = opts.Now, opts.Now
	c.metadata.Fetch = func(ctx context.Context) (*metadata, error) {
		find := discover
		if !p.interactive() {
			find = discoverTokens
		}
		m, err := find(ctx, hc, issuer, p.Issuer)
		if err != nil {
			return nil, err
		}
		return m.seenBy(&p), nil
	}
	c.keys.Fetch = c.fetchKeys
	return c, nil
}

// adopt takes over metadata and keys of the same provider.
func (c *client) adopt(from *client) {
	if from == nil || from.cfg.Issuer != c.cfg.Issuer || from.cfg.CA != c.cfg.CA || from.cfg.Kubernetes != c.cfg.Kubernetes ||
		from.cfg.interactive() != c.cfg.interactive() ||
		from.cfg.Profile != c.cfg.Profile || from.cfg.ClientAuth.MTLS != c.cfg.ClientAuth.MTLS {
		return
	}
	c.metadata.Adopt(&from.metadata)
	c.keys.Adopt(&from.keys.Document)
}

// ready tells whether logins can be verified, or why not.
func (c *client) ready() error {
	meta, ok := c.metadata.Last()
	if !ok {
		return c.metadata.Problem()
	}
	if len(meta.accepted(&c.cfg)) == 0 {
		return fmt.Errorf("the provider signs with %s only, none of which is accepted", strings.Join(meta.algorithms, ", "))
	}
	if err := c.agree(meta); err != nil {
		return err
	}
	return c.keys.Problem()
}

const (
	keysEvery     = 15 * time.Minute
	metadataEvery = time.Hour
	maxBackoff    = time.Minute
)

// run keeps metadata and keys fresh, ahead of need, until ctx ends. While the
// provider fails it is asked less and less often, down to once a minute.
func (c *client) run(ctx context.Context) {
	var metadataDue time.Time
	if _, ok := c.metadata.Last(); ok {
		metadataDue = c.now().Add(metadataEvery)
	}
	for failures := 0; ctx.Err() == nil; {
		err := c.renew(ctx, &metadataDue)
		wait := keysEvery
		switch {
		case err == nil || errors.Is(err, jose.ErrTooSoon):
			if failures > 0 {
				c.log.Info("the provider answers again", "provider", c.cfg.ID)
			}
			failures = 0
		case ctx.Err() == nil:
			wait = min(time.Second<<min(failures, 10), maxBackoff)
			failures++
			c.log.Warn("the provider cannot be read", "provider", c.cfg.ID, "error", err, "failures", failures)
		}
		// Jitter, so that replicas do not ask in step.
		timer := time.NewTimer(wait + rand.N(wait/5))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (c *client) renew(ctx context.Context, metadataDue *time.Time) error {
	if !c.now().Before(*metadataDue) {
		if err := c.metadata.Refresh(ctx); err != nil {
			return err
		}
		*metadataDue = c.now().Add(metadataEvery)
	}
	return c.keys.Refresh(ctx)
}
