package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// trip is the way of one request to an upstream and back.
type trip struct {
	target   *target // counts the request; nil: none does
	answered bool
	state    atomic.Uint32
}

// How the wait for an answer ended.
const (
	underWay uint32 = iota
	over            // with an answer, or without
	tooLate         // the time is up
)

// leaveTarget tells the target that the request has come to its end.
func (p *passage) leaveTarget() {
	t := p.trip.target
	if t == nil {
		return
	}
	if p.stream.starved.Load() {
		p.gen.upstreams[p.entry].note(t, errStarved)
	}
	less := int64(loadOpen)
	if !p.trip.answered {
		less += loadUnanswered
	}
	t.load.Add(-less)
	t.giveBack()
	p.trip.target = nil
}

// lateError tells that headers of an answer did not come in time.
type lateError struct {
	after time.Duration
	key   string // of the configuration
}

func (e *lateError) Error() string {
	return fmt.Sprintf("no answer within %s (%s)", e.after, e.key)
}

// Timeout tells upstreamReason.
func (e *lateError) Timeout() bool { return true }

// roundTrip sends a request to a target of the upstream, and to another one
// where nobody can be asked twice by that: no connection could be made; or the
// request changes nothing, has no body, has got no headers of an answer, and the
// allowance for such has something left. The latter happens to a request once, and
// only where another target is known to be well.
func (u *upstream) roundTrip(req *http.Request, p *passage) (*http.Response, error) {
	once(req)
	several := len(u.targets) > 1
	var turn uint64
	var began time.Time
	if several {
		turn, began = u.asked.Add(1), time.Now()
	}
	if req.Body != nil {
		p.body.began = time.Now()
	}
	// The transport limits how long headers take behind the last of the request.
	// What may take longer than that needs another limit.
	if several || req.Body != nil || u.mostOpen > 0 {
		p.noticed = true
		limit := time.AfterFunc(u.timeout, func() { u.late(p) })
		defer limit.Stop()
	}
	host, body := req.Host, req.Body
	var (
		room    [2]*target
		tried   = room[:0]
		failure error
		twice   bool // one that was tried may have had the request
	)
	for {
		t, err := u.enter(p, turn, req.Context(), tried, twice)
		if t == nil {
			p.trip.state.CompareAndSwap(underWay, over)
			if failure == nil {
				failure = err
			}
			return nil, failure
		}
		p.trip.target, p.event.Response.Upstream = t, t.name
		if failure != nil {
			// What is left of the try before may still look at its request.
			req = req.Clone(req.Context())
		}
		req.URL.Scheme, req.URL.Host = t.url.Scheme, t.url.Host
		if req.Host = host; host == "" {
			req.Host = t.url.Host
		}
		var whole *upload
		if body != nil && several {
			whole = &upload{ReadCloser: body}
			req.Body = whole
		}
		if several {
			tried = append(tried, t)
		}
		res, err := u.try(t, req, p, !twice && u.tryTimeout > 0 && u.hasOther(tried))
		if err == nil {
			return res, nil
		}
		p.leaveTarget()
		sent := !neverSent(err)
		noTime := several && time.Since(began) >= u.timeout // another target would be blamed for that
		if !several || noTime || req.Context().Err() != nil || sent && (twice || !u.hasOther(tried)) || !u.mayRepeat(sent, req, whole) {
			p.trip.state.CompareAndSwap(underWay, over)
			return nil, err
		}
		failure, twice = err, twice || sent
	}
}

// try sends a request to one target. hurried tells that another one could have it
// when the time for one try is up.
func (u *upstream) try(t *target, req *http.Request, p *passage, hurried bool) (*http.Response, error) {
	term := t.term.Load()
	var hurry *hurry
	if hurried && repeatable(req) {
		req, hurry = inTime(req, u.tryTimeout)
	}
	res, err := tracedRoundTrip(u.transport, req)
	if hurry != nil && hurry.over(err) {
		if res != nil {
			res.Body.Close()
		}
		res, err = nil, &lateError{u.tryTimeout, "try_timeout"}
	}
	if err == nil && !p.trip.state.CompareAndSwap(underWay, over) {
		res.Body.Close()
		err = context.Canceled
	}
	if err == nil {
		p.trip.answered = true
		t.load.Add(-loadUnanswered)
		switch res.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			u.failed(t, term, fmt.Errorf("it answered %d", res.StatusCode))
		default:
			u.succeeded(t, term)
		}
		return res, nil
	}
	switch {
	case p.trip.state.Load() == tooLate:
		err = &lateError{u.timeout, "timeout"}
		u.failed(t, term, err)
	case p.in.Context().Err() != nil, p.stream.ended() != "", p.body.failed.Load(), p.body.over.Load():
		// The visitor left, or has no access any more, or broke off: it says nothing
		// about the target.
	default:
		u.failed(t, term, err)
	}
	return nil, err
}

// late ends the wait for an answer, unless it is the visitor who lets the
// upstream wait, or the request is still on its way.
func (u *upstream) late(p *passage) {
	if p.trip.state.Load() != underWay {
		return
	}
	if !p.body.began.IsZero() {
		if left := u.timeout - p.body.idle(); left > 0 {
			time.AfterFunc(left, func() { u.late(p) })
			return
		}
	}
	if p.trip.state.CompareAndSwap(underWay, tooLate) {
		p.flight.End(context.DeadlineExceeded)
	}
}

// hurry is a time limit of one try.
type hurry struct {
	state  atomic.Uint32
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// inTime returns the request with a context that ends with the time.
func inTime(req *http.Request, limit time.Duration) (*http.Request, *hurry) {
	ctx, cancel := context.WithCancelCause(req.Context())
	h := &hurry{cancel: cancel}
	h.timer = time.AfterFunc(limit, func() {
		if h.state.CompareAndSwap(underWay, tooLate) {
			cancel(context.DeadlineExceeded)
		}
	})
	return req.WithContext(ctx), h
}

// over ends the limit, and reports whether the time was up before. The context of
// a request that was answered goes on; it ends with the visitor's.
func (h *hurry) over(err error) bool {
	h.timer.Stop()
	late := !h.state.CompareAndSwap(underWay, over)
	if late || err != nil {
		h.cancel(nil)
	}
	return late
}

// mayRepeat reports whether a request that failed may be sent to another target.
// sent tells that the first one may have had it.
func (u *upstream) mayRepeat(sent bool, req *http.Request, body *upload) bool {
	if !sent {
		return body == nil || body.untouched()
	}
	if !repeatable(req) || !u.spend() {
		return false
	}
	u.repeated.Add(1)
	return true
}

// repeatable reports whether a request may be sent again although the upstream may
// have had it: it is safe (RFC 9110 §9.2.1) and has no body. PUT and DELETE are
// idempotent as well, but the second answer tells another story than the first.
func repeatable(req *http.Request) bool {
	return safe(req.Method) && req.Body == nil && !upgrades(req.Header)
}

func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// once keeps net/http from sending a request twice over connections that break:
// it would if a header says that this is safe, and visitors set headers.
func once(req *http.Request) {
	if req.Body == nil && !safe(req.Method) && (req.Header["Idempotency-Key"] != nil || req.Header["X-Idempotency-Key"] != nil) {
		req.Body = nothing{}
	}
}

// nothing is a body of no bytes that net/http does not recognise as such.
type nothing struct{}

// Read implements io.Reader.
func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (nothing) Close() error { return nil }

// upload is the body of one try. It stays open for the next one, which may have
// it if nothing was read of it.
type upload struct {
	io.ReadCloser
	state atomic.Uint32
}

const (
	unread uint32 = iota
	begun
	givenUp
)

// Read implements io.Reader.
func (u *upload) Read(b []byte) (int, error) {
	if u.state.Load() != begun && !u.state.CompareAndSwap(unread, begun) {
		return 0, http.ErrBodyReadAfterClose
	}
	return u.ReadCloser.Read(b)
}

// Close implements io.Closer. The owner of the body closes it in the end.
func (u *upload) Close() error { return nil }

// untouched reports whether nothing was read, and sees to it that nothing will be.
func (u *upload) untouched() bool { return u.state.CompareAndSwap(unread, givenUp) }

// allowance limits how many requests are sent twice, so that an upstream that is
// overloaded does not get more to do because of that.
type allowance struct {
	from  time.Duration // when the window began, by the upstream's own clock
	asked uint64        // requests until then
	spent uint64
}

const (
	allowanceWindow = 10 * time.Second
	allowanceFloor  = 10 // in each window
)

// spend takes one from the allowance, if there is one.
func (u *upstream) spend() bool {
	if u.retryPercent == 0 {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now, asked := u.age(), u.asked.Load(); now-u.allowance.from >= allowanceWindow {
		u.allowance = allowance{from: now, asked: asked}
	}
	if u.allowance.spent >= allowanceFloor+(u.asked.Load()-u.allowance.asked)*uint64(u.retryPercent)/100 {
		return false
	}
	u.allowance.spent++
	return true
}
