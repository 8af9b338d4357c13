package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// finish is station 9. It is deferred before anything else happens to a
// request, and records every one exactly once, whatever became of it.
func (p *passage) finish() {
	if p.outlives {
		return // finishTunnel does it
	}
	defer p.berth.leave()
	defer p.door.inFlight.Add(-1)
	defer p.record()
	defer p.settle()
	v := recover()
	p.noticed = p.noticed || v != nil
	switch {
	case v == nil:
	case v == http.ErrAbortHandler:
		p.aborted()
		panic(v)
	default:
		p.panicked(v)
	}
}

// aborted notes why an answer was cut off in the middle.
func (p *passage) aborted() {
	if p.event.Response.Reason != "" {
		return
	}
	switch ended := p.stream.ended(); {
	case ended != "":
		p.event.Response.Reason = ended
	case p.stream.starved.Load():
		p.event.Response.Reason = access.UpstreamTimeout
	case p.door.base.Err() != nil:
		p.event.Response.Reason = access.ShuttingDown
	case p.in.Context().Err() != nil || p.out.failed:
		p.event.Response.Reason = access.ClientGone
	default:
		p.event.Response.Reason = access.UpstreamBroken
	}
}

// panicked answers for a bug. The visitor learns that there was one; a request
// that was not decided yet is refused.
func (p *passage) panicked(v any) {
	p.logPanic(v)
	if !p.decided && !p.reserved {
		p.req.Fault = access.InternalError
		*p.dec = access.Decision{Reason: access.InternalError, Policy: p.version()}
	}
	p.event.Response.Reason = access.InternalError
	p.refuse(access.InternalError) // aborts the connection if an answer has begun
}

func (p *passage) logPanic(v any) {
	p.door.log.LogAttrs(context.WithoutCancel(p.in.Context()), slog.LevelError, "panic while serving a request",
		slog.String("request", p.req.ID), slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
}

// record hands the event over. Requests for our own addresses are recorded
// without a decision, since no policy was asked.
func (p *passage) record() {
	e := p.event
	e.Kind, e.Time, e.Request, e.RequestID = access.EventDecision, p.req.Time, p.req, p.req.ID
	e.Session = p.req.Session.ID
	if !p.reserved || p.decided {
		e.Decision = p.dec
	}
	e.Response.Status = p.out.status
	e.Response.BytesOut = p.out.written.Load()
	e.Response.BytesIn = p.out.read.Load()
	e.Response.BytesIn += p.body.n.Load()
	if e.Response.Reason == "" {
		e.Response.Reason = p.stream.ended()
	}
	e.Response.Duration = p.door.since(p.start)
	p.compare()
	p.endTrace()
	p.door.recorder.Record(e)
	p.recorded = true
}

// meter is the response writer of a passage. It counts, and keeps the abilities
// of the one it wraps for http.ResponseController.
type meter struct {
	http.ResponseWriter
	passage  *passage
	status   int
	hijacked bool
	failed   bool // the visitor's connection broke
	written  atomic.Int64
	read     atomic.Int64 // only after a hijack
}

// Unwrap lets http.ResponseController reach what the server offers.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// started reports whether part of an answer is out.
func (m *meter) started() bool { return m.status != 0 || m.hijacked }

// WriteHeader implements http.ResponseWriter.
func (m *meter) WriteHeader(status int) {
	if status == http.StatusContinue {
		return // the server says so itself, when the body is read
	}
	if status > 100 && status < 200 {
		m.ResponseWriter.WriteHeader(status)
		return
	}
	if m.status == 0 {
		m.status = status
		m.passage.finishHeader(m.Header())
		if m.passage.door.leaving.Load() {
			m.Header().Set("Connection", "close")
		}
	}
	m.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (m *meter) Write(b []byte) (int, error) {
	if m.status == 0 {
		m.WriteHeader(http.StatusOK)
	}
	n, err := m.ResponseWriter.Write(b)
	m.written.Add(int64(n))
	if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		m.failed = true
	}
	return n, err
}

// FlushError is found by http.ResponseController.
func (m *meter) FlushError() error {
	if m.status == 0 {
		m.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(m.ResponseWriter).Flush()
}

// tally counts a request body while it is read. It wraps the body of the
// request to the upstream: the server recognises its own by the type, and would
// wait for the body of a refused request that expects 100 (Continue).
type tally struct {
	io.ReadCloser
	limit  int64 // of bytes; 0: none
	n      atomic.Int64
	failed atomic.Bool // the visitor broke off
	over   atomic.Bool // more came than the limit

	// For knowing who keeps whom waiting.
	began   time.Time
	moved   atomic.Int64 // when it was last read, after began
	reading atomic.Bool
}

// Read implements io.Reader.
func (t *tally) Read(b []byte) (int, error) {
	t.reading.Store(true)
	n, err := t.ReadCloser.Read(b)
	t.moved.Store(int64(time.Since(t.began)))
	t.reading.Store(false)
	if total := t.n.Add(int64(n)); t.limit > 0 && total > t.limit {
		t.over.Store(true)
		return 0, errBodyTooLarge
	}
	if err != nil && err != io.EOF && err != errLeft {
		t.failed.Store(true)
	}
	return n, err
}

// idle returns how long ago the upstream took the last of the body, or had it
// whole; 0 while it waits for the visitor.
func (t *tally) idle() time.Duration {
	if t.reading.Load() {
		return 0
	}
	return time.Since(t.began) - time.Duration(t.moved.Load())
}
