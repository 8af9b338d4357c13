package signals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/store"
)

// transmitter is one configured transmitter with what is known of it.
type transmitter struct {
	cfg Transmitter
	// issuers are the issuers its events may be about, each with the id of a provider.
	issuers map[string]string
	http    *http.Client
	// manage is http with our access token. Nil: the stream was set up by hand.
	manage   *http.Client
	now      func() time.Time
	log      *slog.Logger
	store    store.Store
	endpoint string // where events are pushed to
	key      []byte

	published jose.Document[*configuration]
	keys      jose.KeySet

	mu     sync.Mutex
	state  Status
	recent []spell // of the last minutes, for max_sessions
}

// configuration is what a transmitter says about itself (SSF 1.0 §7.1).
type configuration struct {
	jwks                    string
	streams, status, verify string // may be empty
	deliveries              []string
	criticalSubjectMembers  []string
}

// newTransmitter makes one. Its configuration has been validated.
func newTransmitter(opts *Options, cfg Transmitter) (*transmitter, error) {
	t := &transmitter{
		cfg: cfg, issuers: opts.issuersOf(&cfg), now: opts.Now, log: opts.Log.With("transmitter", cfg.ID), store: opts.Store,
		endpoint: opts.endpointOf(&cfg), key: opts.Key,
	}
	base, err := jose.NewTransport(opts.Transport, cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("signals: %s: %w", cfg.ID, err)
	}
	t.http = &http.Client{Transport: base, CheckRedirect: jose.StayOnHost}
	switch {
	case !cfg.Token.IsZero():
		t.manage = t.withToken(oauth2.StaticTokenSource(&oauth2.Token{AccessToken: cfg.Token.Reveal()}))
	case cfg.ClientID != "":
		scopes := cfg.Scopes
		if len(scopes) == 0 {
			scopes = []string{"ssf.manage"}
		}
		credentials := clientcredentials.Config{ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret.Reveal(), TokenURL: cfg.TokenURL, Scopes: scopes}
		t.manage = t.withToken(credentials.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{
			Transport: base, CheckRedirect: jose.StayOnHost, Timeout: manageTimeout,
		})))
	}
	t.published = jose.Document[*configuration]{Now: t.now, Fetch: t.discover}
	t.keys = jose.KeySet{Document: jose.Document[[]jose.Key]{Now: t.now, Fetch: t.fetchKeys}}
	t.state.ID, t.state.Delivery = cfg.ID, "push"
	if cfg.polls() {
		t.state.Delivery = "poll"
	}
	return t, nil
}

func (t *transmitter) withToken(source oauth2.TokenSource) *http.Client {
	return &http.Client{Transport: &oauth2.Transport{Source: source, Base: t.http.Transport}, CheckRedirect: jose.StayOnHost}
}

// adopt takes over what an earlier instance of the same transmitter knows.
func (t *transmitter) adopt(from *transmitter) {
	if from == nil || from.cfg.Issuer != t.cfg.Issuer || from.cfg.CA != t.cfg.CA {
		return
	}
	t.published.Adopt(&from.published)
	t.keys.Adopt(&from.keys.Document)
	from.mu.Lock()
	defer from.mu.Unlock()
	t.recent = slices.Clone(from.recent)
	if from.cfg.Delivery == t.cfg.Delivery {
		t.state = from.state
	}
}

// discoveryURL puts the well-known part between host and path (SSF 1.0 §7.2).
func discoveryURL(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	return u.Scheme + "://" + u.Host + "/.well-known/ssf-configuration" + strings.TrimSuffix(u.EscapedPath(), "/"), nil
}

// discover reads the transmitter's configuration. It must be that of the issuer
// that was asked for.
func (t *transmitter) discover(ctx context.Context) (*configuration, error) {
	address, err := discoveryURL(t.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	doc, err := jose.GetJSON(ctx, t.http, address, "")
	if err != nil {
		return nil, fmt.Errorf("its configuration: %w", err)
	}
	if iss, err := doc.Text("issuer"); err != nil || iss != t.cfg.Issuer {
		return nil, fmt.Errorf("%s is the configuration of another issuer, %.100q", address, iss)
	}
	c := new(configuration)
	for key, into := range map[string]*string{
		"jwks_uri": &c.jwks, "configuration_endpoint": &c.streams, "status_endpoint": &c.status, "verification_endpoint": &c.verify,
	} {
		if *into, err = doc.Text(key); err != nil {
			return nil, err
		}
		if *into == "" {
			continue
		}
		if err := checkAddress(*into); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.jwks == "" {
		return nil, errors.New("its configuration names no keys (jwks_uri), so no event could be verified")
	}
	if c.deliveries, err = doc.Texts("delivery_methods_supported"); err != nil {
		return nil, err
	}
	c.criticalSubjectMembers, err = doc.Texts("critical_subject_members")
	return c, err
}

func (t *transmitter) fetchKeys(ctx context.Context) ([]jose.Key, error) {
	about, err := t.published.Get(ctx)
	if err != nil {
		return nil, err
	}
	doc, err := jose.GetJSON(ctx, t.http, about.jwks, "")
	if err != nil {
		return nil, fmt.Errorf("its keys: %w", err)
	}
	return jose.ParseKeys(doc)
}

// audience returns what tokens for us may name.
func (t *transmitter) audience(ctx context.Context) ([]string, error) {
	if t.cfg.Audience != "" {
		return []string{t.cfg.Audience}, nil
	}
	s, err := t.stream(ctx)
	if err != nil {
		return nil, err
	}
	return s.Audience, nil
}

// critical reports a member of the subject that must be understood and is not
// (SSF 1.0 §3.4).
func (t *transmitter) critical(s *subject) (string, bool) {
	about, ok := t.published.Last()
	if !ok {
		return "", false
	}
	for _, member := range s.unread {
		if slices.Contains(about.criticalSubjectMembers, member) {
			return member, true
		}
	}
	return "", false
}

// Status is how it stands with one transmitter.
type Status struct {
	ID       string `json:"id"`
	Delivery string `json:"delivery"`
	Stream   string `json:"stream,omitempty"`
	// Verified is when an event came back that we had asked for.
	Verified time.Time `json:"verified,omitzero"`
	// Heard is when the last event arrived, or the last poll was answered.
	Heard time.Time `json:"heard,omitzero"`
	// FailingSince and Problem are set while something is wrong with it.
	FailingSince time.Time `json:"failing_since,omitzero"`
	Problem      string    `json:"problem,omitempty"`
}

func (t *transmitter) note(change func(*Status)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.state)
}

// outcome notes how talking to the transmitter went.
func (t *transmitter) outcome(err error) {
	t.note(func(s *Status) {
		switch {
		case err == nil && s.Problem != "":
			t.log.Info("the transmitter answers again")
			s.Problem, s.FailingSince = "", time.Time{}
		case err != nil && s.Problem == "":
			s.FailingSince = t.now()
			fallthrough
		case err != nil:
			if text := err.Error(); text != s.Problem {
				t.log.Warn("the transmitter does not work as it should", "error", err)
				s.Problem = text
			}
		}
	})
}

// issuersOf maps the issuers that a transmitter speaks for to their providers.
func (o *Options) issuersOf(cfg *Transmitter) map[string]string {
	issuers := map[string]string{}
	for _, p := range o.Providers {
		if len(cfg.Providers) == 0 && len(o.Providers) == 1 || slices.Contains(cfg.Providers, p.ID) {
			issuers[p.Issuer] = p.ID
		}
	}
	return issuers
}

func (o *Options) endpointOf(cfg *Transmitter) string {
	if cfg.Endpoint != "" || o.AuthURL == "" {
		return cfg.Endpoint
	}
	return strings.TrimSuffix(o.AuthURL, "/") + access.SignalsPath
}
