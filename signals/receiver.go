package signals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
)

// Sessions are the logins that events are about. *session.Manager is one.
type Sessions interface {
	// List returns live logins that match, at most limit; an empty match is all.
	List(ctx context.Context, match session.Match, limit int) (list []access.SessionInfo, more bool, err error)
	// Revoke ends all matching logins.
	Revoke(ctx context.Context, match session.Match, why access.Reason, by string) (int, error)
	// Amend changes what is known of a login's person, and reports whether it did.
	Amend(ctx context.Context, id string, change func(*access.Identity) bool, by string) (bool, error)
	// Once runs do unless that was done before: the error is session.ErrRepeated then.
	Once(ctx context.Context, issuer, name string, until time.Time, do func() error) error
}

// Provider is an identity provider whose people events may be about.
type Provider struct{ ID, Issuer string }

// Options are what a Receiver needs. Sessions and Store are required.
type Options struct {
	// Transmitters is the section `signals`, already validated.
	Transmitters []Transmitter
	Providers    []Provider
	// AuthURL is server.auth_url; events are pushed there.
	AuthURL string

	Sessions Sessions
	// Revoke makes whatever was issued to somebody or used on a device before a
	// moment count no more, tokens included. Nil: only logins end.
	Revoke func(context.Context, access.Revocation) (access.Revocation, error)
	// Claims puts claims that have changed into an identity, and reports whether
	// that changed it. Nil: such events change nothing.
	Claims func(id *access.Identity, claims map[string]any) bool
	// Signal is told which device is seen with other eyes now. May be nil.
	Signal func(access.Signal)
	Store  store.Store
	// Key keeps what the store holds of secrets from being guessed.
	Key []byte

	// Previous is the Receiver this one replaces at a reload of the configuration.
	Previous *Receiver
	// Transport reaches the transmitters. Default: one of our own.
	Transport http.RoundTripper
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log receives what an operator should know. Default: nothing.
	Log *slog.Logger
	// Emit receives audit events. Default: nobody does.
	Emit func(*access.Event)
}

// Receiver receives shared signals. Its methods may be called at the same time.
type Receiver struct {
	opts         Options
	transmitters []*transmitter // as configured
	reports      *Reports
}

// New returns a Receiver that knows what was reported of devices; an error says
// that this cannot be read. No transmitter is asked and nothing watched before Run.
func New(opts Options) (*Receiver, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Emit == nil {
		opts.Emit = func(*access.Event) {}
	}
	r := &Receiver{opts: opts}
	if opts.Previous != nil {
		r.reports = opts.Previous.reports
	} else {
		r.reports = newReports(&opts)
		if err := r.reports.begin(); err != nil {
			return nil, fmt.Errorf("signals: reports about devices: %w", err)
		}
	}
	for _, cfg := range opts.Transmitters {
		t, err := newTransmitter(&opts, cfg)
		if err != nil {
			return nil, err
		}
		t.adopt(opts.Previous.named(cfg.ID))
		r.transmitters = append(r.transmitters, t)
	}
	r.opts.Previous = nil // or every reload would keep all before it
	return r, nil
}

func (r *Receiver) named(id string) *transmitter {
	if r == nil {
		return nil
	}
	i := slices.IndexFunc(r.transmitters, func(t *transmitter) bool { return t.cfg.ID == id })
	if i < 0 {
		return nil
	}
	return r.transmitters[i]
}

// Reports returns what was said of devices, for package devicecheck. It outlives
// the Receiver: the next one goes on with it.
func (r *Receiver) Reports() *Reports { return r.reports }

// Status returns how it stands with each transmitter, in the order of the
// configuration.
func (r *Receiver) Status() []Status {
	list := make([]Status, len(r.transmitters))
	for i, t := range r.transmitters {
		t.mu.Lock()
		list[i] = t.state
		t.mu.Unlock()
	}
	return list
}

// Run sets up streams, keeps them alive, polls, and follows what other replicas
// were told, until ctx ends.
func (r *Receiver) Run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() { r.reports.follow(ctx) })
	for _, t := range r.transmitters {
		work.Go(func() { t.run(ctx) })
		if t.cfg.polls() {
			work.Go(func() { r.poll(ctx, t) })
		}
	}
	work.Wait()
}

const (
	keysEvery  = 15 * time.Minute
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
)

// run keeps keys fresh and, where we may, the stream alive.
func (t *transmitter) run(ctx context.Context) {
	var verifyDue time.Time
	for failures := 0; ctx.Err() == nil; {
		before := verifyDue
		err := t.maintain(ctx, &verifyDue)
		if ctx.Err() != nil {
			return
		}
		t.outcome(err)
		wait := keysEvery
		if err == nil {
			failures = 0
			if due := verifyDue.Sub(t.now()); t.manage != nil && due < wait {
				wait = max(due, time.Second)
			}
			if verifyDue != before {
				wait = statePatience // to see whether the event has come
			}
		} else {
			wait = min(firstRetry<<min(failures, 10), lastRetry)
			failures++
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (t *transmitter) maintain(ctx context.Context, verifyDue *time.Time) error {
	if err := t.published.Refresh(ctx); err != nil && !errors.Is(err, jose.ErrTooSoon) {
		return err
	}
	if err := t.keys.Refresh(ctx); err != nil && !errors.Is(err, jose.ErrTooSoon) {
		return err
	}
	if t.manage == nil {
		return nil
	}
	if t.now().Before(*verifyDue) {
		return t.missed(ctx)
	}
	s, err := t.ensure(ctx)
	if err != nil {
		return fmt.Errorf("setting up the stream: %w", err)
	}
	if err := t.inspect(ctx, s); err != nil {
		return fmt.Errorf("the status of the stream: %w", err)
	}
	if err := t.challenge(ctx, s); err != nil && statusOf(err) != http.StatusTooManyRequests {
		return fmt.Errorf("asking for an event: %w", err)
	}
	every := verifyEvery
	if half := time.Duration(s.Inactivity) * time.Second / 2; s.Inactivity > 0 && half < every {
		every = max(half, time.Minute)
	}
	*verifyDue = t.now().Add(every)
	return nil
}

// pause waits, and reports false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// take verifies a token and does what it asks for, once. The error is a refusal
// for the transmitter to read, or tells that it should send the token again.
func (r *Receiver) take(ctx context.Context, t *transmitter, raw, request string) error {
	id, e, err := t.verify(ctx, raw)
	if err != nil {
		var no *refusal
		if errors.As(err, &no) {
			r.record(t, nil, request, outcome{access.SignalInvalid, "a token was refused: " + no.code})
			t.log.Warn("a security event token was refused", "code", no.code, "error", no.err)
		}
		return err
	}
	t.note(func(s *Status) { s.Heard = t.now() })
	if e == nil {
		r.record(t, nil, request, ignored("a type of event that we do not know"))
		return nil
	}
	if e.family == ssf {
		return r.handshake(ctx, t, e, request)
	}
	var out outcome
	err = r.opts.Sessions.Once(ctx, t.cfg.Issuer, "set "+id, e.issued.Add(remembered+skew), func() (err error) {
		out, err = r.carryOut(ctx, t, e)
		return err
	})
	if errors.Is(err, session.ErrRepeated) {
		return nil // it is answered like the first time
	}
	if err != nil {
		return err
	}
	r.record(t, e, request, out)
	return nil
}

// handshake is for events about the stream itself.
func (r *Receiver) handshake(ctx context.Context, t *transmitter, e *event, request string) error {
	if s, err := t.stream(ctx); err == nil && s.ID != e.stream {
		return refuse(invalidRequest, "the event is about another stream")
	}
	if e.name == "verification" {
		return t.expected(ctx, e)
	}
	status, why := e.text("status"), e.text("reason")
	t.log.Warn("the transmitter changed the stream", "status", status)
	if status != "enabled" {
		t.outcome(fmt.Errorf("the transmitter has %s the stream %.100q", status, why))
	} else {
		t.outcome(nil)
	}
	r.record(t, e, request, outcome{access.SignalApplied, "the stream is " + status})
	return nil
}

// record leaves an audit event.
func (r *Receiver) record(t *transmitter, e *event, request string, out outcome) {
	event := &access.Event{Kind: access.EventSignal, Time: t.now(), Reason: out.reason, RequestID: request, Note: t.cfg.ID + ": " + out.note}
	if e != nil {
		event.Note = t.by(e) + ": " + out.note
		if len(e.subject.user) == 1 && !e.subject.user[0].email {
			for issuer, provider := range t.issuers {
				if n := e.subject.user[0]; n.issuer == issuer || n.issuer == "" && len(t.issuers) == 1 {
					event.Actor = provider + ":" + n.value
				}
			}
		}
		t.log.Info("shared signal", "event", e.name, "result", out.reason, "what", out.note, "after", t.now().Sub(e.at))
	}
	r.opts.Emit(event)
}
