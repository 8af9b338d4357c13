package devicecheck

import (
	"context"
	"crypto/x509"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	// Bounds on what certificates make us remember. Only those that chain to the
	// device CA come this far.
	maxAuthorities = 256
	maxPoints      = 256
	// firstWait is how long the first request with a certificate waits until
	// something is known about it. No later one waits.
	firstWait = 3 * time.Second
	// statusTimeout bounds one question to a responder or one reading of a list.
	statusTimeout = 10 * time.Second
	maxAtOnce     = 32 // questions
	maxFaultText  = 512
)

// revocation knows which certificates were taken back. It reads lists and asks
// responders ahead of need; status, which requests call, looks at memory.
type revocation struct {
	Revocation
	client *http.Client
	now    func() time.Time
	rand   func() float64
	log    *slog.Logger

	// listed is what the lists say. It is swapped as a whole.
	listed atomic.Pointer[listed]

	mu          sync.Mutex // guards the rest; not taken for a certificate that was seen before
	authorities map[authorityID]*x509.Certificate
	lists       []*listSource // configured, then those that certificates named
	points      map[string]*listSource
	more        chan struct{} // lists has grown
	answers     answers
}

// listed holds the lists by the authority whose signature they bear.
type listed struct {
	lists map[authorityID][]*list
	// incomplete is set while a list that was asked for was never read.
	incomplete bool
}

func newRevocation(cfg Revocation, opts Options, world outside) *revocation {
	r := &revocation{
		Revocation: cfg, now: opts.Now, rand: world.rand, log: opts.Log,
		client:      &http.Client{Transport: world.transport, CheckRedirect: stayHome},
		authorities: map[authorityID]*x509.Certificate{}, points: map[string]*listSource{}, more: make(chan struct{}, 1),
		answers: answers{byCertificate: map[answerKey]*answer{}, room: make(chan struct{}, maxAtOnce)},
	}
	for _, entry := range cfg.CRLs {
		r.lists = append(r.lists, newListSource(entry))
	}
	r.listed.Store(&listed{incomplete: len(r.lists) > 0})
	return r
}

// startRevocation returns what knows about revocation, nil where nobody asked
// for it: what the Inspector before knows, if it was asked the same.
func startRevocation(cfg Revocation, opts Options, world outside) *revocation {
	if !cfg.enabled() {
		return nil
	}
	if before := opts.Previous; before != nil && before.revocation != nil && reflect.DeepEqual(before.revocation.Revocation, cfg) {
		before.revocation.meet(opts.Authorities...)
		return before.revocation
	}
	r := newRevocation(cfg, opts, world)
	r.meet(opts.Authorities...)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range r.lists {
		all.Go(func() { r.read(ctx, s) })
	}
	all.Wait()
	return r
}

// run keeps lists and answers current until ctx ends. changed is called after
// something that may be a revocation.
func (r *revocation) run(ctx context.Context, changed func()) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { r.renew(ctx, changed) })
	following := map[*listSource]bool{}
	for {
		r.mu.Lock()
		lists := slices.Clone(r.lists)
		r.mu.Unlock()
		for _, s := range lists {
			if !following[s] {
				following[s] = true
				all.Go(func() { r.follow(ctx, s, changed) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-r.more:
		case <-time.After(r.refresh()): // at a reload, the run before may have heard of it instead
		}
	}
}

// status returns why a verified certificate does not count at this moment, or
// nothing. It neither locks nor allocates, and waits only with a certificate
// about which nobody has been asked yet.
func (r *revocation) status(ctx context.Context, c *certificate, at time.Time) access.Reason {
	if r == nil {
		return ""
	}
	if c.cold(at, 2*r.refresh()) {
		r.ask(ctx, c, at)
	}
	now := r.listed.Load()
	reason := access.Reason("")
	for n := range c.chain {
		link := &c.chain[n]
		var until time.Time // until when somebody says that it is good
		// An authority in between needs a word of its own only where somebody is
		// asked about it, or may have to be.
		needed := n == 0 || link.named || now.incomplete
		for _, l := range now.lists[link.by] {
			if !l.covers(link) {
				continue
			}
			if l.revokes(link) {
				return access.DeviceCertRevoked
			}
			needed = true
			until = later(until, l.nextUpdate)
		}
		if n == 0 && c.answer != nil {
			switch a := c.answer.last.Load(); {
			case a == nil:
			case a.revoked:
				return access.DeviceCertRevoked
			case a.good:
				until = later(until, a.until)
			}
		}
		if needed && (until.IsZero() || at.After(until.Add(r.OnUnavailable.UseLastKnown.Std()))) {
			reason = access.DeviceCertStatusUnknown // unless another one of the chain is revoked
		}
	}
	return reason
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (r *revocation) refresh() time.Duration { return r.Refresh.Or(defaultRevocationRefresh) }

// meet remembers authorities, whose signatures lists may bear.
func (r *revocation) meet(authorities ...*x509.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	grown := false
	for _, a := range authorities {
		id := idOf(a)
		if r.authorities[id] != nil || !a.IsCA || len(r.authorities) == maxAuthorities {
			continue
		}
		r.authorities[id] = a
		grown = true
	}
	if grown {
		r.publish()
	}
}

// publish makes what the lists say known. r.mu is held.
func (r *revocation) publish() {
	next := &listed{lists: map[authorityID][]*list{}}
	for _, s := range r.lists {
		signers := r.signers(s.last)
		for _, id := range signers {
			next.lists[id] = append(next.lists[id], s.last)
		}
		if len(signers) == 0 && !s.named {
			next.incomplete = true
		}
	}
	r.listed.Store(next)
}

// signers returns the authorities whose signature a list bears. Nobody else may
// say what they revoked.
func (r *revocation) signers(l *list) (ids []authorityID) {
	if l == nil {
		return nil
	}
	for id, a := range r.authorities {
		if string(a.RawSubject) == string(l.issuer) && l.signed.CheckSignatureFrom(a) == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// introduce makes the revocation of a certificate that was just verified
// known, as far as it can be without asking anybody.
func (r *revocation) introduce(c *certificate, chain []*x509.Certificate) {
	if r == nil {
		return
	}
	for n := range chain[:len(chain)-1] {
		c.chain = append(c.chain, issuedBy(chain[n+1], chain[n]))
	}
	if len(chain) < 2 { // trusted by itself: it has no authority that could revoke it
		c.chain = append(c.chain, issuedBy(chain[0], chain[0]))
		return
	}
	r.meet(chain[1:]...)
	for n := range c.chain {
		address := permitted(c.chain[n].points, r.CRLHosts)
		if address == "" {
			continue
		}
		c.chain[n].named = true
		if s := r.listAt(address); s != nil {
			c.lists = append(c.lists, s)
		}
	}
	c.answer = r.answerAbout(chain[0], chain[1])
}

// listAt returns the list at the distribution point that a certificate names,
// nil if there are too many.
func (r *revocation) listAt(address string) *listSource {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.points[address]
	if s == nil && len(r.points) < maxPoints {
		s = newListSource(address)
		s.named = true
		r.points[address] = s
		r.lists = append(r.lists, s)
		go func() { // it ends by itself, and requests wait for no longer
			ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
			defer cancel()
			r.read(ctx, s)
		}()
		select {
		case r.more <- struct{}{}:
		default:
		}
	}
	return s
}

// cold tells whether nobody was asked about the certificate yet, or not for so
// long that it was not in use any more.
func (c *certificate) cold(at time.Time, idle time.Duration) bool {
	for _, s := range c.lists {
		if !s.read.Load() {
			return true
		}
	}
	return c.answer != nil && c.answer.cold(at, idle)
}

// ask waits until something is known about a cold certificate, but not for long.
func (r *revocation) ask(ctx context.Context, c *certificate, at time.Time) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	wait := make([]<-chan struct{}, 0, len(c.lists)+1)
	for _, s := range c.lists {
		wait = append(wait, s.first)
	}
	if c.answer != nil && c.answer.cold(at, 2*r.refresh()) {
		r.keep(c.answer)
		wait = append(wait, r.askSoon(c.answer))
	}
	for _, done := range wait {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// RevocationStatus is the state of one source of revocations, for metrics and
// operators.
type RevocationStatus struct {
	// ID is the file or address of a list, or the host of a responder.
	ID string `json:"id"`
	// Type is `crl` or `ocsp`.
	Type string `json:"type"`
	// Revoked is how many certificates a list revokes.
	Revoked int `json:"revoked"`
	// ObservedAt is when the source last answered without a fault, NextUpdate
	// until when its answer counts. Zero: never.
	ObservedAt time.Time `json:"observed_at,omitzero"`
	NextUpdate time.Time `json:"next_update,omitzero"`
	// FailingSince is set while the source cannot be read, and Err says why.
	FailingSince time.Time `json:"failing_since,omitzero"`
	Err          string    `json:"error,omitempty"`
}

// Revocations returns the state of every source of revocations: lists first,
// then responders.
func (i *Inspector) Revocations() []RevocationStatus {
	r := i.revocation
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []RevocationStatus
	for _, s := range r.lists {
		one := s.health.status(s.entry, "crl")
		if s.last != nil {
			one.Revoked, one.NextUpdate = len(s.last.serials), s.last.nextUpdate
		}
		all = append(all, one)
	}
	for _, host := range slices.Sorted(maps.Keys(r.answers.responders)) {
		all = append(all, r.answers.responders[host].status(host, "ocsp"))
	}
	return all
}

// health is how a source of revocations is doing.
type health struct {
	observedAt, failingSince time.Time
	err                      string
}

func (h *health) status(id, kind string) RevocationStatus {
	return RevocationStatus{ID: id, Type: kind, ObservedAt: h.observedAt, FailingSince: h.failingSince, Err: h.err}
}

// heard notes how an attempt ended and reports whether that is news.
func (h *health) heard(err error, at time.Time) (news bool) {
	before := h.err
	if err == nil {
		*h = health{observedAt: at}
		return before != ""
	}
	text := err.Error()
	h.err = strings.ToValidUTF8(text[:min(len(text), maxFaultText)], "")
	if h.failingSince.IsZero() {
		h.failingSince = at
	}
	return h.err != before
}

// shortened spreads what is done every d, by up to a tenth.
func (r *revocation) shortened(d time.Duration) time.Duration {
	return d - time.Duration(r.rand()*float64(d)/10)
}

// report logs a change, once.
func (r *revocation) report(h *health, kind, name string, news bool, args ...any) {
	switch {
	case h.err != "" && news:
		r.log.Warn(kind+" cannot be asked", append(args, "source", name, "err", h.err, "since", h.failingSince)...)
	case news:
		r.log.Info(kind+" answers again", append(args, "source", name)...)
	}
}
