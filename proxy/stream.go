package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	// recheckTimeout is how long gathering the facts of an open stream may take.
	recheckTimeout = 2 * time.Second
	// doubtRetry is how soon a stream is looked at again whose facts could not be
	// gathered.
	doubtRetry = 5 * time.Second
	// cutWait is how long a stream may take to end in good form: to come to the
	// end of a frame, to take the last words, to answer them. Then it is cut.
	cutWait = time.Second
	// longestGrace bounds what a route may give: whoever may not go on is not to
	// go on for long.
	longestGrace = 10 * time.Minute
)

// stream is a request that was let in and is open: a WebSocket, an event stream,
// a gRPC call, a download or an upload, or just a request on its way.
//
// It is decided on again by check, with facts as they are then. One that no
// longer passes is ended after the grace its route gives; what could be cured
// can be cured within that time. While facts cannot be gathered, it goes on for
// as long as it might have gone on unchecked, and no longer; a grace that is over
// then is over.
type stream struct {
	passage *passage
	shard   *streamShard
	waiting bool // for a checker; protected by streams.mu

	// What the last decision used, and when the next is due; protected by the
	// shard's lock, as its place among the young ones is, counted from 1 (0: it is
	// none of them).
	facts *access.Request
	due   time.Time
	place int
	found bool // somebody has it from the shard, and may have it for longer

	// until is the last round in which what the upstream is awaited to bring may
	// come; 0: nothing is awaited, or for as long as it takes.
	until   atomic.Uint32
	starved atomic.Bool

	checking sync.Mutex // one decision at a time; protects what follows
	heard    int64      // bytes the visitor had sent at the last look
	doubtful time.Time  // since when facts cannot be gathered
	refused  bool       // the grace is running

	mu    sync.Mutex // protects what follows
	kind  string     // in words, for the record
	ender ender
	why   access.Reason // it has been ended
	left  bool          // it has come to its own end
	grace *time.Timer
}

// ender ends one kind of stream, in the way its client understands. It is called
// once, may take cutWait, and is called while the stream is in use.
type ender interface{ end(why access.Reason) }

// errEnded is why a connection is cut off.
var errEnded = errors.New("access has ended")

// open registers a request that is about to be forwarded, and returns a context for
// it that ends when it is ended.
func (p *passage) open() (ctx context.Context, leave func()) {
	p.flight.Context.Context = p.in.Context()
	l := &p.door.streams
	st := &p.stream
	*st = stream{passage: p, shard: &l.shards[p.lane], facts: p.req, kind: "request", ender: canceller{p}}
	st.due = p.gen.next(p.entry, p.req, p.start)
	l.register(st, p.signals)
	p.door.tickWhileOpen()
	return &p.flight, func() {
		if st.leave() != "" {
			// The next request of the connection has a deadline of its own, or none.
			http.NewResponseController(p.out.ResponseWriter).SetWriteDeadline(time.Time{})
		}
		if l.unregister(st) {
			p.noticed = true
		}
		p.flight.End(nil)
	}
}

// canceller ends a request that has no answer yet.
type canceller struct{ *passage }

func (c canceller) end(access.Reason) { c.cutOff() }

// cutOff ends the wait for the upstream, and for the body of the request: over
// HTTP/2 the one is not over before the other.
func (p *passage) cutOff() {
	p.flight.End(errEnded)
	if p.in.ContentLength != 0 {
		p.stream.whileOpen(func() {
			http.NewResponseController(p.out.ResponseWriter).SetReadDeadline(time.Unix(1, 0))
		})
	}
}

// becomes says what kind of stream the request has turned out to be.
func (st *stream) becomes(kind string, e ender) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.kind, st.ender = kind, e
	if st.why != "" { // a moment too early
		go e.end(st.why)
	}
}

// ended returns why the stream was ended, "" if it was not.
func (st *stream) ended() access.Reason {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.why
}

// whileOpen calls f unless the request has come to its end, and keeps it from
// doing so meanwhile.
func (st *stream) whileOpen(f func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.left {
		f()
	}
}

// leave notes that the request has come to its end: nothing ends it any more. It
// returns why something has.
func (st *stream) leave() access.Reason {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.left = true
	if st.grace != nil {
		st.grace.Stop()
	}
	return st.why
}

// interval is how long a stream of a route may go on without being decided on.
func (g *generation) interval(entry *Entry) time.Duration {
	return entry.Route.Recheck.Or(g.Server.Recheck.Or(defaultRecheck))
}

// next returns when to decide again: after the interval, a little early by
// chance, so that streams that began together do not stay together; when the
// session, the token or the certificate ends; and where a rule has a weekly
// window, at the next whole minute.
func (g *generation) next(entry *Entry, facts *access.Request, now time.Time) time.Time {
	interval := g.interval(entry)
	due := now.Add(interval - rand.N(interval/8+1))
	if entry.timed {
		if minute := now.Truncate(time.Minute).Add(time.Minute); minute.Before(due) {
			due = minute
		}
	}
	for _, end := range []time.Time{facts.Session.Expires, facts.Credential.Expires, facts.Device.Certificate.NotAfter} {
		if end.After(now) && end.Before(due) {
			due = end
		}
	}
	return due
}

// check decides on the stream again.
func (st *stream) check() { st.decide(false) }

// decide decides on the stream again. last says that the grace is over.
func (st *stream) decide(last bool) {
	st.checking.Lock()
	defer st.checking.Unlock()
	if st.over() || st.refused && !last {
		return
	}
	p := st.passage
	heard := p.heard()
	again := p.again(heard != st.heard)
	st.heard = heard
	again.reconsider()
	now := again.start
	gone := p.in.Context().Err() != nil // whatever was found out is about nothing
	doubt := again.doubt()
	switch {
	case gone:
	case again.dec.Outcome == access.Allow:
		st.refused, st.doubtful = false, time.Time{}
		moved := p.door.streams.settled(st, again.req, again.gen.next(again.entry, again.req, now))
		if moved && p.door.streams.signals.Load() != again.signals {
			p.door.streams.check(st)
		}
	case doubt && !last && (st.doubtful.IsZero() || now.Sub(st.doubtful) < again.interval()):
		if st.doubtful.IsZero() {
			st.doubtful = now
		}
		p.door.streams.settled(st, st.facts, now.Add(min(doubtRetry, again.interval())))
	case !last && again.grace() > 0:
		st.refused = true
		p.door.streams.settled(st, st.facts, now.Add(again.grace()+again.interval())) // the grace comes first
		st.endLater(again.grace())
	default:
		st.end(again)
	}
}

// endAll ends everything that is open, and returns when that has come about or
// has taken too long. It leaves no event: each request has one of its own.
func (l *streams) endAll(why access.Reason) {
	for i := range l.shards {
		shard := &l.shards[i]
		shard.mu.Lock()
		shard.each(func(st *stream) {
			st.found = true
			st.endFor(why)
		})
		shard.mu.Unlock()
	}
	for end := time.Now().Add(2 * cutWait); l.any() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// endFor ends the stream for a reason that is no decision.
func (st *stream) endFor(why access.Reason) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.left && st.why == "" {
		st.why = why
		go st.ender.end(why)
	}
}

func (st *stream) over() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.left || st.why != ""
}

func (st *stream) endLater(grace time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.left {
		st.grace = time.AfterFunc(grace, func() { st.decide(true) })
	}
}

// end ends the stream for the reason of a decision, and leaves one event.
func (st *stream) end(again *passage) {
	why := again.reason()
	st.mu.Lock()
	if st.left || st.why != "" {
		st.mu.Unlock()
		return
	}
	st.why = why
	kind, ender := st.kind, st.ender
	st.mu.Unlock()
	p := st.passage
	p.door.recorder.Record(&access.Event{
		Kind: access.EventClosed, Time: again.req.Time, Request: again.req, Decision: again.dec,
		Reason: why, Actor: p.req.Identity.User(), RequestID: p.req.ID, Session: p.req.Session.ID,
		Note: fmt.Sprintf("%s ended after %s", kind, again.start.Sub(p.start).Round(time.Millisecond)),
	})
	go ender.end(why) // may wait for a slow client
}

// again returns a passage for deciding once more on the same request, with the
// configuration of now. used says that the visitor has sent something since.
func (p *passage) again(used bool) *passage {
	record := &account{}
	q := &passage{
		door: p.door, gen: p.door.live.Load(), in: p.in, event: &record.event, req: &record.req, dec: &record.dec,
		start: p.door.now(), path: p.path, query: p.query, hasQuery: p.hasQuery, certificate: p.certificate, before: p, used: used, upgrade: p.upgrade,
		signals: p.door.streams.signals.Load(),
	}
	was := p.req
	*q.req = access.Request{
		ID: was.ID, Time: q.start.UTC().Round(0), Door: was.Door, Method: was.Method, Scheme: was.Scheme, Host: was.Host,
		Path: was.Path, Query: was.Query, Network: was.Network, Preflight: was.Preflight, Session: was.Session,
	}
	return q
}

// reconsider takes the passage through the gate. What goes wrong on the way
// refuses.
func (p *passage) reconsider() {
	defer func() {
		if v := recover(); v != nil {
			p.door.log.LogAttrs(context.Background(), slog.LevelError, "panic while deciding on an open request",
				slog.String("request", p.req.ID), slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
			p.req.Fault = access.InternalError
			*p.dec = access.Decision{Reason: access.InternalError}
		}
	}()
	ctx, cancel := context.WithTimeout(p.in.Context(), recheckTimeout)
	defer cancel()
	p.in = p.in.WithContext(ctx)
	err := p.gate()
	if err == nil {
		err = p.stillServed()
	}
	if err != nil {
		p.cannotDecide(err)
	}
}

var (
	errOtherApp   = errors.New("the address leads to another application now")
	errNoUpgrades = errors.New("the route upgrades no connections any more")
	errOtherPage  = errors.New("the page that opened the WebSocket may not any more")
)

// stillServed checks what is neither policy nor fact: that the road the stream
// took is one that the configuration of now would take.
func (p *passage) stillServed() error {
	before := p.before
	switch {
	case p.dec.Outcome != access.Allow:
		return nil
	case before.tunnel != nil:
		return p.stillLeads(before.tunnel)
	case before.upgrade && !p.entry.Route.WebSocket:
		return access.Because(access.UpgradeRefused, errNoUpgrades)
	case before.upgrade && !p.mayConnect():
		return access.Because(access.OriginRefused, errOtherPage)
	case p.entry.Route.ID != before.entry.Route.ID && !slices.Equal(p.entry.Route.To, before.entry.Route.To):
		return access.Because(access.NoRoute, errOtherApp)
	}
	return nil
}

// doubt reports whether the refusal says nothing about the visitor: a fact could
// not be gathered.
func (p *passage) doubt() bool {
	for _, reason := range []access.Reason{p.req.Fault, p.req.Credential.Problem} {
		if reason != "" && reason.Info().Status >= http.StatusInternalServerError && reason != access.ClientGone {
			return true
		}
	}
	return false
}

// reason is why the stream is ended: the decision's, or how the session ended
// that made the visitor somebody.
func (p *passage) reason() access.Reason {
	if p.dec.Reason == access.LoginRequired && p.over != "" {
		return p.over
	}
	return p.dec.Reason
}

func (p *passage) interval() time.Duration {
	if p.entry != nil {
		return p.gen.interval(p.entry)
	}
	return p.gen.interval(p.before.entry)
}

func (p *passage) grace() time.Duration {
	if p.entry != nil {
		return p.entry.Route.OnChange.CloseStreams.Std()
	}
	return p.before.entry.Route.OnChange.CloseStreams.Std()
}

// heard returns how much the visitor has sent.
func (p *passage) heard() int64 {
	return p.out.read.Load() + p.body.n.Load()
}
