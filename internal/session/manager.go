package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// Options is what a Manager works with. Store is required.
type Options struct {
	Config Config
	// Store keeps the sessions. The Manager does not close it.
	Store store.Store
	// Refresher redeems refresh tokens. Without one, identities stay as they
	// were at login. SetRefresher replaces it.
	Refresher Refresher
	// Now is the clock, default time.Now.
	Now func() time.Time
	// Rand is the source of secrets, default crypto/rand.
	Rand io.Reader
	// Log receives what an operator should know. Default: nothing.
	Log *slog.Logger
	// Emit receives audit events; it is called from several goroutines and must
	// not call back. Default: nobody does.
	Emit func(*access.Event)
	// Room is how many bytes of memory the sessions in it may take, about; the store
	// has the others. Default 256 MiB, some seventy thousand.
	Room int
	// Signal is told when a login has ended or changed, here or on another replica,
	// and without a session when that may be true of any. Load already knows then.
	// It is called from several goroutines and must return soon. Default: nobody is.
	Signal func(access.Signal)
}

// Refresher redeems the refresh token of a login with the provider the login
// came from, and returns who the provider says it is now. id is what is known
// so far; it must not be changed. An error whose access.ReasonOf is SessionEnded
// says that the provider has ended the session (invalid_grant, RFC 6749 §5.2)
// and ends it here; any other error leaves it alive to be tried again.
//
// Of the returned identity, Provider and Login are ignored: a refresh changes
// neither, since nobody has authenticated. Of the returned tokens, an empty
// Refresh or ID keeps the one before.
type Refresher interface {
	Refresh(ctx context.Context, provider string, held Tokens, id *access.Identity) (access.Identity, Tokens, error)
}

// Tokens are what the provider handed out with an identity.
type Tokens struct {
	redacted
	// Refresh is the refresh token, empty if there is none.
	Refresh string
	// Key is the private key the refresh token is bound to, in the refresher's
	// own form; empty if it is bound to none. It is sealed like the token and
	// kept as long.
	Key string
	// ID is the ID token as received, for the provider's logout.
	ID string
	// Expires is when the access token ends, and with it the trust in what the
	// provider said. Zero, or no refresh token: the identity is never refreshed.
	Expires time.Time
}

// Entry is one session as a request sees it. It is shared by many requests and
// must not be changed.
type Entry struct {
	// Session names the login; its ID is the same for all tickets of a login.
	Session  access.Session
	Identity *access.Identity
	// Origin is the origin the ticket was made for, empty from Reopen.
	Origin string
}

// Manager keeps logins. All methods may be called at the same time. Errors are
// *access.Error and contain no secret.
type Manager struct {
	store          store.Store
	now            func() time.Time
	rand           io.Reader
	log            *slog.Logger
	emit           func(*access.Event)
	signal         func(access.Signal)
	lifetime, idle time.Duration
	cache          *cache
	revocations    *revocations
	refresher      atomic.Pointer[Refresher]

	keyMu  sync.Mutex
	master []byte

	// The watch and other work that may stop at once run until stop; refreshes,
	// which must not lose the token they are about to receive, until abort.
	watching context.Context
	stop     context.CancelFunc
	working  context.Context
	abort    context.CancelFunc

	work   sync.WaitGroup
	workMu sync.Mutex
	closed bool
	// touches bounds the writes of last use that wait for the store.
	touches chan struct{}
}

const defaultRoom = 256 << 20

// closeGrace is how long Close lets a refresh finish whose token is being redeemed.
const closeGrace = 5 * time.Second

// Cached returns how many logins are in memory.
func (m *Manager) Cached() (n int) {
	for i := range m.cache.logins {
		n += m.cache.logins[i].len()
	}
	return n
}

// New returns a Manager. It watches the store until Close.
func New(opts Options) (*Manager, error) {
	if opts.Store == nil {
		return nil, errors.New("session: no store")
	}
	m := &Manager{
		store:    opts.Store,
		now:      opts.Now,
		rand:     opts.Rand,
		log:      opts.Log,
		emit:     opts.Emit,
		signal:   opts.Signal,
		lifetime: opts.Config.lifetime(),
		idle:     opts.Config.idle(),
		cache:    newCache(cmp.Or(opts.Room, defaultRoom)),
		touches:  make(chan struct{}, 32),
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.rand == nil {
		m.rand = rand.Reader
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.emit == nil {
		m.emit = func(*access.Event) {}
	}
	if m.signal == nil {
		m.signal = func(access.Signal) {}
	}
	if !opts.Config.Key.IsZero() {
		m.master = []byte(opts.Config.Key.Reveal())
		if len(m.master) < minKey {
			return nil, fmt.Errorf("session: sessions.key has %d bytes, at least %d are needed", len(m.master), minKey)
		}
	}
	m.revocations = &revocations{store: m.store, now: m.now, log: m.log}
	m.SetRefresher(opts.Refresher)
	m.watching, m.stop = context.WithCancel(context.Background())
	m.working, m.abort = context.WithCancel(context.Background())
	changes, err := m.watch()
	if err != nil {
		m.stop()
		m.abort()
		return nil, fmt.Errorf("session: watching the store: %w", err)
	}
	m.background(func() { m.follow(changes) })
	return m, nil
}

// SetRefresher replaces the Refresher, as after a reload of the configuration.
// Refreshes under way finish with the old one. nil means none.
func (m *Manager) SetRefresher(r Refresher) {
	if r == nil {
		m.refresher.Store(nil)
		return
	}
	m.refresher.Store(&r)
}

// Close ends the background work. It waits for refreshes under way, at most
// 5 seconds for the provider. The store stays open.
func (m *Manager) Close() error {
	m.workMu.Lock()
	m.closed = true
	m.workMu.Unlock()
	m.stop()
	timer := time.AfterFunc(closeGrace, m.abort)
	m.work.Wait()
	timer.Stop()
	m.abort()
	return nil
}

// background runs f unless the Manager is closed, and reports whether it does.
func (m *Manager) background(f func()) bool {
	m.workMu.Lock()
	defer m.workMu.Unlock()
	if m.closed {
		return false
	}
	m.work.Go(f)
	return true
}

// random returns n fresh random bytes.
func (m *Manager) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(m.rand, b); err != nil {
		return nil, access.Becausef(access.InternalError, "session: no randomness: %w", err)
	}
	return b, nil
}

// The refusals of Load. They are the same for every request, so that the path
// an attacker can take as often as they like costs nothing.
var (
	errUnknown = access.Because(access.LoginRequired, errors.New("session: no such session"))
	errExpired = access.Because(access.SessionExpired, errors.New("session: the session has expired"))
	errEnded   = access.Because(access.SessionEnded, errors.New("session: the session was ended"))
)

// storeError gives an error of the store its reason.
func storeError(err error) error {
	var known *access.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled):
		return access.Becausef(access.ClientGone, "session: %w", err)
	default:
		return access.Becausef(access.StoreUnavailable, "session: %w", err)
	}
}
