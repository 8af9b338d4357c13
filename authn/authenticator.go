package authn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
)

// Options is what an Authenticator is made of. Sessions, Owns and FlowKey are
// required.
type Options struct {
	// Providers are the entries of the configuration, validated.
	Providers []Provider
	// AuthURL is the address of the login host. Empty: every host does its own logins.
	AuthURL string
	// Owns reports whether an origin (scheme://host) belongs to a route. Only to
	// such origins a login is handed over.
	Owns func(origin string) bool
	// Sessions keeps what a login leads to.
	Sessions *session.Manager
	// Forms keeps, sealed and for minutes, what was posted before a login. Nil:
	// such forms are not kept.
	Forms store.Store
	// Transport reaches the providers. Nil: a transport of our own, with the
	// system's certificate authorities or a provider's `ca`.
	Transport http.RoundTripper
	// Follow wraps the way to a provider, for whoever wants to know how long it takes
	// to answer. Nil: nobody does.
	Follow func(provider string, way http.RoundTripper) http.RoundTripper
	// Previous hands over metadata and keys of providers that did not change, so
	// that a reload asks nobody anything. May be nil.
	Previous *Authenticator
	// FlowKey seals logins in flight: 32 bytes, the same on all replicas.
	FlowKey []byte

	// Now is the clock, Rand the source of secrets, Log the operator's log; Emit
	// takes audit events. Defaults: time.Now, crypto/rand.Reader, nowhere, nowhere.
	Now  func() time.Time
	Rand io.Reader
	Log  *slog.Logger
	Emit func(*access.Event)
}

// Authenticator logs visitors in and tells who they are. It is safe for
// concurrent use and keeps nothing about logins in flight.
type Authenticator struct {
	clients map[string]*client // people log in with
	order   []*client          // the same, as configured
	all     []*client          // also those for machines only
	tokens  *tokens
	// authorities vouch for workloads with certificates.
	authorities []*authority
	authURL     string // origin of the login host, or ""
	owns        func(string) bool
	sessions    *session.Manager
	forms       store.Store // may be nil
	seal        *sealer
	forgery     *http.CrossOriginProtection
	now         func() time.Time
	log         *slog.Logger
	emit        func(*access.Event)
}

// New returns an Authenticator. It asks no provider anything; Run does, or the
// first login. The error names the option or the file that cannot be used.
func New(opts Options) (*Authenticator, error) {
	if opts.Sessions == nil || opts.Owns == nil {
		return nil, errors.New("authn: options Sessions and Owns are required")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Emit == nil {
		opts.Emit = func(*access.Event) {}
	}
	seal, err := newSealer(opts.FlowKey, opts.Rand)
	if err != nil {
		return nil, err
	}
	a := &Authenticator{
		clients: map[string]*client{}, owns: opts.Owns, sessions: opts.Sessions, forms: opts.Forms, seal: seal,
		forgery: http.NewCrossOriginProtection(), now: opts.Now, log: opts.Log, emit: opts.Emit,
	}
	if opts.AuthURL != "" {
		if a.authURL, err = originOfURL(opts.AuthURL); err != nil {
			return nil, fmt.Errorf("auth_url: %w", err)
		}
	}
	for _, p := range opts.Providers {
		if p.Issuer == x509Issuer {
			one, err := newAuthority(p)
			if err != nil {
				return nil, err
			}
			a.authorities = append(a.authorities, one)
			continue
		}
		c, err := newClient(p, &opts)
		if err != nil {
			return nil, err
		}
		if a.named(p.ID) != nil {
			return nil, fmt.Errorf("two providers are called %q", p.ID)
		}
		if opts.Previous != nil {
			c.adopt(opts.Previous.named(p.ID))
		}
		a.all = append(a.all, c)
		if p.interactive() {
			a.clients[p.ID] = c
			a.order = append(a.order, c)
		}
	}
	a.tokens, err = newTokens(a.all, opts.Sessions, opts.Now, opts.Previous)
	return a, err
}

// named returns the client of a provider, nil if there is none.
func (a *Authenticator) named(id string) *client {
	for _, c := range a.all {
		if c.cfg.ID == id {
			return c
		}
	}
	return nil
}

// Run keeps the providers' metadata and keys fresh, ahead of need, until ctx
// ends. Logins work without it; they wait for the provider then.
func (a *Authenticator) Run(ctx context.Context) {
	var providers sync.WaitGroup
	for _, c := range a.all {
		providers.Go(func() { c.run(ctx) })
	}
	providers.Wait()
}

// Ready tells for each provider id whether logins are possible: nil, or why not.
func (a *Authenticator) Ready() map[string]error {
	ready := make(map[string]error, len(a.all))
	for _, c := range a.all {
		ready[c.cfg.ID] = c.ready()
	}
	return ready
}

// Serve answers the reserved paths of logins and logouts below access.Prefix. For
// a refusal it returns an *access.Error and has written nothing but perhaps a
// cookie; the caller renders the page. Providers that log out by back-channel get
// their answer from it, whatever it is.
func (a *Authenticator) Serve(w http.ResponseWriter, r *http.Request, req *access.Request) error {
	var err error
	switch req.Path {
	case access.LoginPath:
		err = a.serveLogin(w, r, req)
	case access.CallbackPath:
		err = a.serveCallback(w, r, req)
	case access.ReplayPath:
		err = a.serveReplay(w, r, req)
	case access.LogoutPath:
		return a.serveLogout(w, r, req)
	case access.ClientKeysPath:
		return a.serveClientKeys(w, r)
	case access.BackChannelPath:
		a.serveBackChannel(w, r, req)
		return nil
	case access.FrontChannelPath:
		return a.serveFrontChannel(w, r, req)
	default:
		return access.Becausef(access.NoRoute, "%s is none of the login paths", req.Path)
	}
	return a.recordFailure(req, err)
}

// failedLogin is a login that failed although it is known whose it was.
type failedLogin struct {
	actor string
	error
}

func (e *failedLogin) Unwrap() error { return e.error }

// recordFailure leaves an audit event of a login that did not work, and returns
// err as an *access.Error.
func (a *Authenticator) recordFailure(req *access.Request, err error) error {
	if err == nil {
		return nil
	}
	actor := req.Identity.User()
	if failed, ok := errors.AsType[*failedLogin](err); ok {
		actor = failed.actor
	}
	a.emit(&access.Event{
		Kind: access.EventLogin, Time: a.now(), Reason: access.ReasonOf(err), Actor: actor,
		RequestID: req.ID, Session: req.Session.ID,
	})
	if known, ok := errors.AsType[*access.Error](err); ok {
		return known
	}
	return access.Because(access.InternalError, err)
}

// recordLogin leaves an audit event of a login that worked.
func (a *Authenticator) recordLogin(req *access.Request, e *session.Entry, note string) {
	a.emit(&access.Event{
		Kind: access.EventLogin, Time: a.now(), Reason: access.Allowed, Actor: e.Identity.User(),
		RequestID: req.ID, Session: e.Session.ID, Note: note,
	})
}

// redirect sends the visitor on. Where they came from and where they go is
// nobody else's business: the address may hold a code.
func redirect(w http.ResponseWriter, to string) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", to)
	w.WriteHeader(http.StatusFound)
}
