package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Tracer follows requests on behalf of a tracing system.
type Tracer interface {
	// Trace begins to follow a request that began at start. parent are headers that
	// name the trace it is a part of (W3C Trace Context), if they do; nil: it begins
	// a trace of its own. Whatever is called with the context belongs to the request.
	Trace(ctx context.Context, start time.Time, parent http.Header) (context.Context, Trace)
}

// Trace is one request that is followed. Its methods keep nobody waiting.
type Trace interface {
	// ID names the trace: 32 hexadecimal digits.
	ID() string
	// Part begins a part of the request that may have to wait for somebody, and
	// end ends it: with what kept it from succeeding, if anything did.
	Part(ctx context.Context, name string) (within context.Context, end func(access.Reason))
	// Attempt begins one attempt to have the application answer, and puts into the
	// header what tells the application which trace it belongs to. resend counts the
	// attempts before this one. end ends it with the status of the answer, or with
	// what kept it from coming.
	Attempt(out *http.Request, resend int) (end func(status int, failed access.Reason))
	// End ends the request. The event says what became of it; it must not be kept.
	End(*access.Event)
}

// traceHeaders are request headers by which somebody in front of an application
// tells it which trace a request belongs to and what else to carry along: those of
// W3C Trace Context and Baggage, and the ones that tracing systems used before.
var traceHeaders = map[string]bool{
	"Traceparent": true, "Tracestate": true, "Baggage": true,
	"B3": true, "Uber-Trace-Id": true, "X-Cloud-Trace-Context": true, "X-Amzn-Trace-Id": true, "Grpc-Trace-Bin": true, "Sw8": true,
}

// tracePrefixes are whole namespaces of such headers.
var tracePrefixes = []string{"X-B3-", "Uberctx-", "Ot-Tracer-", "Ot-Baggage-", "X-Datadog-", "Sw8-"}

// traceHeader reports whether a header is one of them.
func traceHeader(name string) bool {
	if name = http.CanonicalHeaderKey(name); traceHeaders[name] {
		return true
	}
	for _, prefix := range tracePrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// receiveTrace finds out whether what a header says about traces comes from a hop
// whose word counts: whoever can name a trace can have others' requests found
// under it, choose what is kept of them, and carry values past the door.
func (p *passage) receiveTrace(peer netip.Addr) {
	p.traced = listed(p.gen.tracers, peer)
}

// validateTraces reports what is wrong with whose word about traces counts. Unlike
// elsewhere it may be everybody's: it decides nothing.
func (c *Config) validateTraces(f access.Faults) {
	for i, text := range c.TraceparentFrom {
		if _, err := parsePrefix(text); err != nil {
			f.At("traceparent_from[%d]", i).Add("write 10.0.0.7 or 10.1.0.0/24", "%q is no address or network", text)
		}
	}
}

// traceParts is the key of a context under which the trace of its request is.
type traceParts struct{}

// attempts is the trace of a request on its way to the upstream.
type attempts struct {
	trace Trace
	made  atomic.Int32
}

// beginTrace follows the request from here on, if anybody wants to know. It costs
// nothing otherwise.
func (p *passage) beginTrace() {
	if p.door.tracer == nil {
		return
	}
	var parent http.Header
	if p.traced {
		parent = p.in.Header
	}
	var ctx context.Context
	ctx, p.trace = p.door.tracer.Trace(p.in.Context(), p.start, parent)
	p.in = p.in.WithContext(context.WithValue(ctx, traceParts{}, &attempts{trace: p.trace}))
	p.event.TraceID = p.trace.ID()
}

// endTrace ends what beginTrace began, with the event as it is recorded.
func (p *passage) endTrace() {
	if p.trace != nil {
		p.trace.End(p.event)
	}
}

// part begins a part of the request that may have to wait. What does the part gets
// the request that is returned.
func (p *passage) part(name string) (*http.Request, func(access.Reason)) {
	if p.trace == nil {
		return p.in, untraced
	}
	ctx, end := p.trace.Part(p.in.Context(), name)
	return p.in.WithContext(ctx), end
}

func untraced(access.Reason) {}

// tracedRoundTrip sends one attempt of a request, and follows it if the request is
// followed.
func tracedRoundTrip(t http.RoundTripper, attempt *http.Request) (*http.Response, error) {
	on, ok := attempt.Context().Value(traceParts{}).(*attempts)
	if !ok {
		return t.RoundTrip(attempt)
	}
	attempt.Header = attempt.Header.Clone() // an attempt that was given up may still read the other
	end := on.trace.Attempt(attempt, int(on.made.Add(1))-1)
	res, err := t.RoundTrip(attempt)
	switch {
	case err == nil:
		end(res.StatusCode, "")
	case context.Cause(attempt.Context()) == context.DeadlineExceeded:
		end(0, access.UpstreamTimeout)
	case attempt.Context().Err() != nil:
		end(0, access.ClientGone)
	default:
		end(0, upstreamReason(err))
	}
	return res, err
}
