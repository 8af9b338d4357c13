package devicecheck

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Options are what an Inspector needs.
type Options struct {
	// Config is the section `devices`, already validated.
	Config Config
	// ClientCAs are the authorities device certificates must chain to. Nil: no
	// certificate is accepted.
	ClientCAs *x509.CertPool
	// Authorities are the certificates in ClientCAs. Their revocation lists can be
	// verified before the first device comes; those of authorities in between
	// wait for it.
	Authorities []*x509.Certificate
	// Previous is the Inspector this one replaces at a reload of the
	// configuration. Sources that did not change keep what it has read.
	Previous *Inspector
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log receives one line whenever a source fails, recovers or changes.
	// Default: discarded.
	Log *slog.Logger
	// OnChange is called by Run after a source was swapped, failed or
	// recovered. It must not block. Default: nothing.
	OnChange func(SourceStatus)
	// Reports narrows what the inventories say by what others reported since.
	// Nil: nobody does.
	Reports Reports
	// Keep keeps the last good snapshot of every inventory over restarts. Nil:
	// nothing is kept.
	Keep Keeper
	// Signal is called after facts about devices have changed, so that whatever
	// is open on them can be decided on again: once per device, or once without
	// a device where they are many or an inventory went away. It is called from
	// several goroutines and must not block. Default: nothing.
	Signal func(access.Signal)
	// Transport sends the requests to remote inventories. Default: one of its
	// own, which honours the proxy of the environment.
	Transport http.RoundTripper
	// Rand returns numbers in [0,1), which spread those requests. Default
	// math/rand/v2.
	Rand func() float64
}

// Reports are what others than the inventories said of devices.
type Reports interface {
	// Apply narrows the facts: it makes a device worse, or leaves it as it is. It
	// may replace the lists of a device and must not write into them. It performs
	// no input or output.
	Apply(*access.Device)
}

// Inspector tells on which device a request was made. Its methods may be called
// from several goroutines.
type Inspector struct {
	match []proof
	owner ownerKey
	// revocation is nil where nobody asks whether certificates were revoked.
	revocation *revocation
	signal     func(access.Signal) // may be nil
	sources    []*source
	verifier   *verifier
	log        *slog.Logger
	onChange   func(SourceStatus)
	reports    Reports
}

// SourceStatus is the state of one inventory, for metrics and operators.
type SourceStatus struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	// Devices is how many devices the inventory lists, as last read.
	Devices int `json:"devices"`
	// UnknownValues is how many values of the last reading had no meaning here,
	// so that the facts are unknown. The log has each of them once.
	UnknownValues int `json:"unknown_values,omitempty"`
	// ObservedAt is when the inventory was last read without a fault. Zero: never.
	ObservedAt time.Time `json:"observed_at,omitzero"`
	// FailingSince is set while the inventory cannot be read, and Err says why.
	FailingSince time.Time `json:"failing_since,omitzero"`
	Err          string    `json:"error,omitempty"`
}

// New reads every source once, all at the same time, and returns the Inspector.
// It does not wait for a remote inventory whose kept snapshot still counts. A
// source that cannot be read is no error: it is failing until it can. An error
// means that the configuration is invalid.
func New(opts Options) (*Inspector, error) {
	faults := access.NewFaults("devices")
	opts.Config.Validate(faults)
	var errs []error
	for _, f := range faults.List() {
		errs = append(errs, fmt.Errorf("%s: %s", f.Path, f.Text))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("devicecheck: %w", errors.Join(errs...))
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.OnChange == nil {
		opts.OnChange = func(SourceStatus) {}
	}
	world := outside{transport: opts.Transport, now: opts.Now, rand: opts.Rand}.orReal()
	revocation := startRevocation(opts.Config.Certificates.Revocation, opts, world)
	verifier, err := newVerifier(opts.ClientCAs, revocation)
	if err != nil {
		return nil, fmt.Errorf("devicecheck: %w", err)
	}
	i := &Inspector{verifier: verifier, revocation: revocation, signal: opts.Signal, log: opts.Log, onChange: opts.OnChange, reports: opts.Reports}
	i.owner, _ = parseOwner(opts.Config.Owner) // Validate has tried it
	i.owner.from = opts.Config.ClaimsFrom
	for _, entry := range opts.Config.Match {
		p, _ := parseProof(entry) // Validate has tried it
		if p.part != noPart && opts.ClientCAs == nil {
			i.log.Warn("no device can be found by its certificate, because no certificate authority for devices is configured", "match", entry)
		}
		p.from = opts.Config.ClaimsFrom
		i.match = append(i.match, p)
	}
	for _, s := range opts.Config.Sources {
		fetcher, err := newFetcher(s, world)
		if err != nil {
			return nil, fmt.Errorf("devicecheck: %w", err)
		}
		i.sources = append(i.sources, &source{
			Source: s, fetcher: fetcher, now: opts.Now, log: opts.Log, rand: world.rand, signal: opts.Signal,
			useLastKnown: opts.Config.OnUnavailable.UseLastKnown.Std(), readings: readings{wanted: make(chan struct{}, 1)},
			kept: newKept(opts.Keep, s, opts.Now, opts.Log),
		})
	}
	var started sync.WaitGroup
	for _, s := range i.sources {
		started.Go(func() { s.start(opts.Previous) })
	}
	started.Wait()
	return i, nil
}

// Run keeps the inventories current until ctx ends. Call it once.
func (i *Inspector) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range i.sources {
		all.Go(func() { s.run(ctx, i.onChange) })
	}
	if i.revocation != nil {
		all.Go(func() { i.revocation.run(ctx, i.revoked) })
	}
	all.Wait()
}

// revoked tells that certificates may have been revoked, of whichever device.
func (i *Inspector) revoked() {
	if i.signal != nil {
		i.signal(access.Signal{Reason: access.DeviceCertRevoked})
	}
}

// Status returns the state of every source, in the order of the configuration.
func (i *Inspector) Status() []SourceStatus {
	list := make([]SourceStatus, len(i.sources))
	for n, s := range i.sources {
		list[n] = s.status()
	}
	return list
}

// Inspect fills req.Device from the claims of req.Identity, the client
// certificate of r and the inventories, as of req.Time. It reads no header.
//
// The lists in req.Device are shared with other requests and must not be
// changed. Where req.Device.Problem is set, no fact is: a rule that forgets to
// ask about the problem finds nothing to rely on. The error is always nil; what
// cannot be found out stays unknown.
func (i *Inspector) Inspect(r *http.Request, req *access.Request) error {
	cert, problem := i.certificate(r, req)

	// Each source is looked at once, so that all proofs see the same inventory.
	var room [4]*state
	states := i.states(room[:0])
	failing := slices.ContainsFunc(states, (*state).failing)

	var found evidence
	for n := range i.match {
		p := &i.match[n]
		var one [1]string
		for _, value := range p.values(&req.Identity, cert, &one) {
			device, in := lookup(states, p.key, value)
			found.add(p, value, device, in)
		}
	}
	if problem == "" && found.contradictory(cert, !failing) {
		problem = access.DeviceMismatch
	}

	d := &req.Device
	switch {
	case problem != "":
		*d = access.Device{ID: found.id, Problem: problem}
	case found.device != nil:
		*d = report(states, found.device, found.state)
		d.ByCertificate, d.ByClaim = access.TriOf(found.certificate != nil), access.TriOf(found.claims != nil)
		i.complete(d)
		d.Owned = i.owner.owned(&req.Identity, d.Owner)
	case found.id != "":
		*d = access.Device{ID: found.id}
		for _, s := range states {
			s.failFor(d)
		}
		// Only inventories that can be read can say that they do not know it.
		if !failing && len(states) > 0 {
			d.Known, d.ObservedAt = access.No, oldest(states)
		}
	default:
		*d = access.Device{}
	}
	d.MatchedBy = found.matchedBy
	d.Certificate = access.Certificate{}
	if cert != nil {
		d.Certificate = cert.facts
	}
	if i.reports != nil && d.Problem == "" {
		if i.reports.Apply(d); d.Problem != "" { // what identified it does no more
			*d = access.Device{ID: d.ID, MatchedBy: d.MatchedBy, Certificate: d.Certificate, Problem: d.Problem}
		}
	}
	return nil
}

// certificate returns the client certificate if it could be verified, and what
// is wrong with it, which may also be that it was revoked.
func (i *Inspector) certificate(r *http.Request, req *access.Request) (*certificate, access.Reason) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, ""
	}
	cert, err := i.verifier.verify(r.TLS.PeerCertificates, req.Time)
	if err != nil {
		i.log.Debug("device certificate refused", "request", req.ID, "err", err)
		return nil, access.ReasonOf(err)
	}
	return cert, i.revocation.status(r.Context(), cert, req.Time)
}

// lookup returns the device as the first source lists it that knows it.
func lookup(states []*state, by key, value string) (*access.Device, *state) {
	for _, s := range states {
		if s.inv == nil {
			continue
		}
		if d := s.inv.find(by, value); d != nil {
			return d, s
		}
	}
	return nil, nil
}

// failFor notes with a device that a source which has a say cannot be read,
// unless another one fails for longer.
func (s *state) failFor(d *access.Device) {
	if s.failing() && (d.SourceFailingSince.IsZero() || s.failingSince.Before(d.SourceFailingSince)) {
		d.SourceFailingSince, d.SourceFailing = s.failingSince, s.source
	}
}

// oldest returns when the source that was not read for the longest time was.
func oldest(states []*state) time.Time {
	at := states[0].observedAt
	for _, s := range states[1:] {
		if s.observedAt.Before(at) {
			at = s.observedAt
		}
	}
	return at
}
