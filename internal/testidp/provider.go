// Package testidp answers the question: who would the identity provider say
// this is, on a good day and on every kind of bad one?
//
// It is a small OpenID provider for demonstrations and tests ONLY: users and
// their passwords are in memory in the clear, the second factor is a fixed code,
// and faults can be switched on at run time. The protocol itself is not
// simplified: authorization code flow with PKCE S256, discovery, rotating keys,
// single sign-on, step-up by acr_values or the claims parameter, refresh token
// rotation with reuse detection, userinfo, revocation (RFC 7009), issuer
// identification (RFC 9207), RP-initiated and back-channel logout, device codes
// (RFC 8628).
//
// Inventory answers the same question about devices: what would the inventory of
// a vendor say, on good days and on bad ones?
package testidp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// User is a person who can log in.
type User struct {
	// Username and Password are what the login form asks for. Username is
	// required and unique; it is also the preferred_username claim.
	Username, Password string
	// Subject is the sub claim. Default: the Username.
	Subject string
	// Email and Name are claims; an Email counts as verified.
	Email, Name string
	// Groups is the groups claim.
	Groups []string
	// MFA tells that the person can do a second factor when a client asks.
	MFA bool
	// Claims are further ID token and userinfo claims, such as deviceid. They
	// do not replace claims the protocol defines.
	Claims map[string]any
}

// Client is a registered relying party.
type Client struct {
	// ID is the client_id. Required.
	ID string
	// Secret authenticates the client by client_secret_basic or
	// client_secret_post. Empty: a public client (method none).
	Secret string
	// RedirectURI reports whether a redirect_uri is registered. Nil: none is.
	RedirectURI func(uri string) bool
	// PostLogoutURI reports whether a post_logout_redirect_uri is registered.
	// Nil: none is.
	PostLogoutURI func(uri string) bool
	// BackchannelLogoutURI is told, with a logout token, when a session ends in
	// which the client got tokens. Empty: nobody is told.
	BackchannelLogoutURI string
}

// Exactly accepts the listed addresses, compared byte by byte.
func Exactly(uris ...string) func(string) bool {
	return func(uri string) bool { return slices.Contains(uris, uri) }
}

// Options configures a provider. Only Users and Clients are needed.
type Options struct {
	// Issuer is the issuer URL; a path in it prefixes all endpoints. Default:
	// the address that Start listens on.
	Issuer string
	// Name is shown on the pages. Default "Sample sign-in".
	Name string
	// Users may log in, Clients may ask them to.
	Users   []User
	Clients []Client
	// Hints shows usernames and passwords on the login page.
	Hints bool

	// Algorithms are the signature algorithms with keys, the first one signs.
	// Of "RS256" and "ES256", the default is both in this order.
	Algorithms []string
	// AccessTokenLifetime is also the lifetime of ID tokens. Default 10 minutes.
	AccessTokenLifetime time.Duration
	// SessionLifetime is how long the provider's own single sign-on session
	// and refresh tokens last. Default 8 hours.
	SessionLifetime time.Duration
	// DeviceInterval is how often a program may ask whether its device code was
	// entered. Default 5 seconds.
	DeviceInterval time.Duration
	// OfflineOnly gives refresh tokens only with the scope offline_access.
	// Default: always.
	OfflineOnly bool
	// StateFile keeps keys, sessions and refresh tokens over restarts. Default:
	// they end with the process.
	StateFile string

	// Transport reaches the clients' BackchannelLogoutURI. Default:
	// http.DefaultTransport.
	Transport http.RoundTripper

	// Now is the clock, Rand the source of secrets, Log tells what happens.
	// Defaults: time.Now, crypto/rand, nowhere.
	Now  func() time.Time
	Rand io.Reader
	Log  *slog.Logger
}

// DemoUsers returns the four people of the demo, all with the password "demo":
// alice (eng, finance; second factor on request), bob (sales), carol (finance;
// second factor on request) and dave (eng). The claim deviceid names the laptop
// of everyone but bob, who has none.
func DemoUsers() []User {
	person := func(username, name string, mfa bool, device string, groups ...string) User {
		u := User{
			Username: username, Password: "demo", Subject: username, Email: username + "@example.com",
			Name: name, Groups: groups, MFA: mfa,
		}
		if device != "" {
			u.Claims = map[string]any{"deviceid": device}
		}
		return u
	}
	return []User{
		person("alice", "Alice Adams", true, "laptop-alice", "eng", "finance"),
		person("bob", "Bob Brown", false, "", "sales"),
		person("carol", "Carol Clark", true, "laptop-carol", "finance"),
		person("dave", "Dave Davis", false, "laptop-dave", "eng"),
	}
}

// Provider is an OpenID provider. It is an http.Handler for its issuer's URL
// space. Its methods are safe for concurrent use.
type Provider struct {
	issuer  string
	options Options
	clients map[string]*Client
	pages   *template.Template
	handler http.Handler

	trouble trouble // faults on demand

	mu        sync.Mutex // guards everything below
	users     map[string]User
	state     state
	flows     shelf[*flow]
	codes     shelf[code]
	devices   shelf[*device]
	tokens    shelf[accessToken]
	algorithm string
}

// New returns a provider. The error names the option that is wrong.
func New(options Options) (*Provider, error) {
	p := &Provider{
		issuer: options.Issuer, options: withDefaults(options),
		clients: map[string]*Client{}, users: map[string]User{},
		flows: shelf[*flow]{}, codes: shelf[code]{}, devices: shelf[*device]{}, tokens: shelf[accessToken]{},
		pages: parsePages(),
	}
	prefix := ""
	if options.Issuer != "" {
		u, err := url.Parse(options.Issuer)
		if err != nil || !absoluteHTTP(u) || u.RawQuery != "" {
			return nil, fmt.Errorf("testidp: issuer %q is not an http(s) URL without query", options.Issuer)
		}
		prefix = strings.TrimSuffix(u.Path, "/")
	}
	for i := range options.Clients {
		client := options.Clients[i]
		if client.ID == "" || p.clients[client.ID] != nil {
			return nil, fmt.Errorf("testidp: client id %q is empty or used twice", client.ID)
		}
		p.clients[client.ID] = &client
	}
	for _, u := range options.Users {
		if _, twice := p.users[u.Username]; twice {
			return nil, fmt.Errorf("testidp: username %q is used twice", u.Username)
		}
		if err := p.SetUser(u); err != nil {
			return nil, err
		}
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	p.handler = http.StripPrefix(prefix, p.routes())
	return p, nil
}

func withDefaults(o Options) Options {
	if o.Name == "" {
		o.Name = "Sample sign-in"
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []string{"RS256", "ES256"}
	}
	if o.AccessTokenLifetime == 0 {
		o.AccessTokenLifetime = 10 * time.Minute
	}
	if o.SessionLifetime == 0 {
		o.SessionLifetime = 8 * time.Hour
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.DeviceInterval == 0 {
		o.DeviceInterval = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Issuer returns the issuer URL.
func (p *Provider) Issuer() string { return p.issuer }

// SetUser adds a user or replaces the one with the same username, so that the
// next login or refresh sees other groups.
func (p *Provider) SetUser(u User) error {
	if u.Username == "" {
		return errors.New("testidp: a user needs a username")
	}
	if u.Subject == "" {
		u.Subject = u.Username
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.users {
		if other.Subject == u.Subject && other.Username != u.Username {
			return fmt.Errorf("testidp: %s and %s have the same subject", other.Username, u.Username)
		}
	}
	p.users[u.Username] = u
	return nil
}

// RemoveUser forgets a person: no login, and refreshes answer invalid_grant.
func (p *Provider) RemoveUser(username string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.users, username)
}

// user returns the user with a subject. The caller holds p.mu.
func (p *Provider) user(subject string) (User, bool) {
	for _, u := range p.users {
		if u.Subject == subject {
			return u, true
		}
	}
	return User{}, false
}

// Start serves the provider on addr, such as "127.0.0.1:0", until stop is
// called. Without an Options.Issuer the issuer becomes the returned base URL,
// which works once.
func (p *Provider) Start(addr string) (baseURL string, stop func(), err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, fmt.Errorf("testidp: %w", err)
	}
	baseURL = "http://" + listener.Addr().String()
	if p.issuer == "" {
		p.issuer = baseURL
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:           p,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(p.options.Log.Handler(), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			p.options.Log.Error("provider stopped", "err", err)
		}
	}()
	return baseURL, sync.OnceFunc(func() {
		cancel() // ends held requests, so that shutting down is quick
		grace, release := context.WithTimeout(context.Background(), time.Second)
		defer release()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
		<-done
	}), nil
}

// ServeHTTP implements http.Handler.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.issuer == "" {
		http.Error(w, "this provider has no issuer yet", http.StatusServiceUnavailable)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	p.handler.ServeHTTP(w, r)
}

const maxBody = 64 << 10

// routes wires the endpoints. What browsers post to the provider's own pages
// must come from those pages; /authorize and /logout are cross-site by nature.
func (p *Provider) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, e Endpoint, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !p.trouble.meet(w, r, e) {
				h(w, r)
			}
		})
	}
	own := http.NewCrossOriginProtection()
	ownPage := func(h http.HandlerFunc) http.HandlerFunc { return own.Handler(h).ServeHTTP }

	handle("GET /.well-known/openid-configuration", Discovery, p.discovery)
	handle("GET /jwks", JWKS, p.jwks)
	handle("GET /authorize", Authorize, p.authorize)
	handle("POST /authorize", Authorize, p.authorize)
	handle("POST /login", Login, ownPage(p.login))
	handle("POST /otp", Login, ownPage(p.secondFactor))
	mux.HandleFunc("POST /token", p.token) // meets trouble as Token or Refresh
	mux.HandleFunc("POST /device_authorization", p.deviceAuthorization)
	mux.HandleFunc("GET /device", p.enterCode)
	handle("POST /device", Login, ownPage(p.device))
	handle("GET /userinfo", Userinfo, p.userinfo)
	handle("POST /userinfo", Userinfo, p.userinfo)
	handle("POST /revoke", Revocation, p.revoke)
	handle("GET /logout", EndSession, p.endSession)
	handle("POST /logout", EndSession, p.endSession)
	handle("POST /logout/confirm", EndSession, ownPage(p.confirmedLogout))
	return mux
}

// secret returns 32 random bytes in base64url.
func (p *Provider) secret() string {
	var b [32]byte
	if _, err := io.ReadFull(p.options.Rand, b[:]); err != nil {
		panic(fmt.Errorf("testidp: no randomness: %w", err))
	}
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// digest is what is kept of a secret, so that the state file opens nothing.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func absoluteHTTP(u *url.URL) bool {
	return (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.Fragment == "" && u.User == nil
}
