package issuance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/doorward/doorward/internal/store"
)

const (
	attemptLimit = 3 * time.Minute // one order, from beginning to end
	lockLimit    = 5 * time.Minute // a replica that died lets go after this
	elsewhere    = 2 * time.Second // looking whether another replica is ready
	storeDown    = time.Minute
	longestWait  = 12 * time.Hour
	shortestRest = time.Hour // between a certificate and the next
	atOnce       = 4         // orders at the same time
	answerLimit  = 5 * time.Second
)

// lockFolder is where the replica that orders says so.
const lockFolder = "acme-lock/"

// Keeper keeps values sealed, so that whoever reads the store reads no keys.
type Keeper interface {
	// Get returns the value of a name, nil if there is none. An error other than
	// store.ErrUnavailable tells that this value is lost.
	Get(ctx context.Context, name string) ([]byte, error)
	// Put keeps a value until it expires.
	Put(ctx context.Context, name string, value []byte, expires time.Time) error
}

// Options are what an Issuer is given.
type Options struct {
	Store store.Store // for the locks between replicas
	Keep  Keeper      // for keys and certificates
	Now   func() time.Time
	Log   *slog.Logger
}

// Issuer obtains certificates and renews them.
type Issuer struct {
	opts  Options
	slots chan struct{}
	// order obtains a certificate and its key, as PEM.
	order func(ctx context.Context, a *authority, host string) ([]byte, error)

	hosts     atomic.Pointer[map[string]*held]
	authority atomic.Pointer[authority]

	mu      sync.Mutex
	running context.Context // nil before Run
	tending sync.WaitGroup
}

// held is what is known of one host.
type held struct {
	host string
	cert atomic.Pointer[tls.Certificate]
	// paused is why the last attempt failed and when the next may be made.
	paused atomic.Pointer[pause]
	poke   chan struct{}
	stop   context.CancelFunc
}

// New returns an Issuer that has no hosts yet.
func New(opts Options) *Issuer {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	i := &Issuer{opts: opts, slots: make(chan struct{}, atOnce)}
	i.order = i.obtain
	i.hosts.Store(&map[string]*held{})
	return i
}

// Configure says whom to ask and for which hosts, and reads from the store what
// there is already. Hosts that are no longer named are forgotten; their
// certificates stay in the store until they expire. On an error nothing changes.
func (i *Issuer) Configure(ctx context.Context, conf Config, hosts []string) error {
	take, err := i.Prepare(conf)
	if err != nil {
		return err
	}
	take(ctx, hosts)
	return nil
}

// Prepare does what of Configure can fail, and changes nothing; take does the
// rest.
func (i *Issuer) Prepare(conf Config) (take func(ctx context.Context, hosts []string), err error) {
	authority, err := newAuthority(conf)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, hosts []string) { i.take(ctx, authority, hosts) }, nil
}

func (i *Issuer) take(ctx context.Context, authority *authority, hosts []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	before, next := *i.hosts.Load(), map[string]*held{}
	for _, host := range hosts {
		h := before[host]
		if h == nil {
			h = &held{host: host, poke: make(chan struct{}, 1), stop: func() {}}
			if cert, err := i.kept(ctx, host); err == nil {
				h.take(cert)
			}
		}
		next[host] = h
	}
	i.authority.Store(authority)
	i.hosts.Store(&next)
	for host, h := range next {
		if before[host] == nil && i.running != nil {
			i.begin(h)
		}
		select {
		case h.poke <- struct{}{}:
		default:
		}
	}
	for host, h := range before {
		if next[host] == nil {
			h.stop()
		}
	}
}

// Run obtains and renews until ctx ends. The listener has to be open: authorities
// ask there.
func (i *Issuer) Run(ctx context.Context) {
	i.mu.Lock()
	i.running = ctx
	for _, h := range *i.hosts.Load() {
		i.begin(h)
	}
	i.mu.Unlock()
	<-ctx.Done()
	i.mu.Lock() // whoever is being added is among those waited for
	defer i.mu.Unlock()
	i.tending.Wait()
}

func (i *Issuer) begin(h *held) {
	ctx, stop := context.WithCancel(i.running)
	h.stop = stop
	i.tending.Go(func() {
		for {
			timer := time.NewTimer(min(i.look(ctx, h), longestWait))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			case <-h.poke:
				timer.Stop()
			}
		}
	})
}

// Certificate answers a handshake (tls.Config.GetCertificate), also that of an
// authority that asks. It returns nothing, without an error, for a host that is
// not its own.
func (i *Issuer) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	h := (*i.hosts.Load())[strings.ToLower(hello.ServerName)]
	if h == nil {
		return nil, nil
	}
	if Asks(hello) {
		ctx, cancel := context.WithTimeout(hello.Context(), answerLimit)
		defer cancel()
		return i.answer(ctx, h.host)
	}
	if cert := h.cert.Load(); cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("there is no certificate for %s yet", h.host)
}

// Asks reports whether a handshake is an authority's question (RFC 8737 §3).
func Asks(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == Protocol
}

// Protocol is the application protocol of an authority's question.
const Protocol = acme.ALPNProto

// Status is how the certificate of a host is doing.
type Status struct {
	Host string `json:"host"`
	// NotAfter is when the certificate ends that is served; zero if there is none.
	NotAfter time.Time `json:"not_after,omitzero"`
	// Error is why the last attempt to obtain one failed, with what to do.
	Error string `json:"error,omitempty"`
	// Next is when the next attempt is made, after one that failed.
	Next time.Time `json:"next,omitzero"`
}

// Status returns how each host is doing, by name.
func (i *Issuer) Status() []Status {
	list := []Status{}
	hosts := *i.hosts.Load()
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		s := Status{Host: host}
		if cert := hosts[host].cert.Load(); cert != nil {
			s.NotAfter = cert.Leaf.NotAfter
		}
		if p := hosts[host].paused.Load(); p != nil && p.Error != "" {
			s.Error, s.Next = p.Error, p.Until
		}
		list = append(list, s)
	}
	return list
}

// look does what is to be done for a host now, and returns when to look again.
func (i *Issuer) look(ctx context.Context, h *held) time.Duration {
	if wait := i.rest(ctx, h); wait > 0 {
		return wait
	}
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		return 0
	}
	now := i.opts.Now()
	lock := store.Item{Key: lockFolder + h.host, Value: []byte("held"), Version: store.New, Expires: now.Add(lockLimit)}
	version, err := i.opts.Store.Put(ctx, lock)
	switch {
	case errors.Is(err, store.ErrConflict):
		return elsewhere
	case err != nil:
		i.opts.Log.Warn("no certificate is ordered while the store is down", "host", h.host, "error", err)
		return storeDown
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
		defer cancel()
		i.opts.Store.Delete(ctx, lock.Key, version) // or it expires
	}()
	// Whoever held the lock until now may be ready.
	if wait := i.rest(ctx, h); wait > 0 {
		return wait
	}
	i.attempt(ctx, h)
	return i.rest(ctx, h)
}

// rest takes the certificate that the store has, and returns how long nothing
// has to be done.
func (i *Issuer) rest(ctx context.Context, h *held) time.Duration {
	cert, err := i.kept(ctx, h.host)
	if errors.Is(err, store.ErrUnavailable) {
		return storeDown // what is in memory goes on
	}
	h.take(cert)
	now := i.opts.Now()
	if cert := h.cert.Load(); cert != nil {
		if wait := renewal(cert).Sub(now); wait > 0 {
			h.paused.Store(nil)
			return wait
		}
	}
	p := i.pausedUntil(ctx, h.host)
	if own := h.paused.Load(); own != nil && own.Until.After(p.Until) {
		p = own // it could not be written
	}
	h.paused.Store(p)
	return p.Until.Sub(now)
}

// attempt orders one certificate, and makes it known or says why not.
func (i *Issuer) attempt(ctx context.Context, h *held) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	a := i.authority.Load()
	text, err := i.order(ctx, a, h.host)
	var cert *tls.Certificate
	if err == nil {
		cert, err = decode(text, h.host)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return // we are ending
	}
	now := i.opts.Now()
	p := pause{}
	if err != nil {
		p = i.pausedUntil(ctx, h.host).longer(now, err)
		i.opts.Log.Error("no certificate was issued", "host", h.host, "authority", a.conf.Directory, "error", p.Error, "next", p.Until)
	} else {
		if err := i.opts.Keep.Put(ctx, certificateName(h.host), text, cert.Leaf.NotAfter); err != nil {
			i.opts.Log.Error("a certificate could not be kept; it is lost at the end, and other replicas order their own", "host", h.host, "error", err)
		}
		h.take(cert)
		i.opts.Log.Info("a certificate was issued", "host", h.host, "authority", a.conf.Directory, "serial", cert.Leaf.SerialNumber.Text(16), "until", cert.Leaf.NotAfter)
		// An authority whose certificates are old from the start is not asked
		// again and again.
		p.Until = now.Add(min(shortestRest, cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/10))
	}
	h.paused.Store(&p)
	i.keepPause(ctx, h.host, &p)
}

// take serves a certificate, unless the one being served lasts longer.
func (h *held) take(cert *tls.Certificate) {
	if cert == nil {
		return
	}
	if now := h.cert.Load(); now == nil || now.Leaf.NotAfter.Before(cert.Leaf.NotAfter) {
		h.cert.Store(cert)
	}
}

// renewal is when a certificate is to be renewed: with a third of its life left.
func renewal(cert *tls.Certificate) time.Time {
	return cert.Leaf.NotAfter.Add(-cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore) / 3)
}
