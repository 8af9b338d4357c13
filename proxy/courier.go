package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
)

// courier takes one request to the upstream and its answer back. It keeps to what
// httputil.ReverseProxy does; where that copies, it moves.
type courier struct {
	passage *passage

	mu       sync.Mutex    // protects what follows
	answered bool          // no interim answer may follow
	waiting  []interim     // answers that are to be passed on
	passing  chan struct{} // closed when that is done. Nil: nobody does it
	done     bool          // nothing of the visitor's body may be read any more
}

// interim is an interim answer (RFC 9110 §15.2).
type interim struct {
	code   int
	header textproto.MIMEHeader
}

// mostWaiting is how many interim answers a visitor may be slow to take. Further
// ones are left out.
const mostWaiting = 32

func newCourier(p *passage) *courier {
	r := &p.berth.courier
	r.passage = p
	p.flight.courier = r
	return r
}

// isHop reports whether a header, in canonical form, is about one connection (RFC
// 9110 §7.6.1). Those that Connection names are as well.
func isHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// dropNamed removes the headers that the values of Connection name.
func dropNamed(h http.Header, connection []string) {
	for _, value := range connection {
		for name := range strings.SplitSeq(value, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
}

// noAgent keeps net/http from naming itself.
var noAgent = []string{""}

// send asks the upstream, and answers with what it says.
func (r *courier) send(ctx context.Context) {
	var out *http.Request
	if in := r.passage.in; r.passage.entry.ownClient() { // which finds interim by itself
		out = r.passage.berth.request(in)
	} else {
		r.passage.noticed = true // net/http may look at a request after its end
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: r.passLater})
		out = in.WithContext(ctx)
		out.Header = make(http.Header, len(in.Header)+8)
	}
	r.outgoing(out)
	defer r.leaveBody()
	res, err := r.ask(out)
	if err != nil {
		r.passage.failed(nil, nil, err)
		return
	}
	if err := r.passage.received(res); err != nil {
		res.Body.Close()
		r.passage.failed(nil, nil, err)
		return
	}
	r.passBack(res)
}

// outgoing makes the request to the upstream, whose header is empty. It shares no
// map with the visitor's.
func (r *courier) outgoing(out *http.Request) {
	h, from := out.Header, r.passage.in.Header
	for name, values := range from {
		if !isHop(name) {
			h[name] = values
		}
	}
	dropNamed(h, from["Connection"])
	delete(h, "Forwarded")
	if hasToken(from["Te"], "trailers") {
		h["Te"] = []string{"trailers"}
	}
	if r.passage.upgrade { // prepare has looked at it
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, from["Upgrade"]
	}
	out.Close = false
	switch {
	case out.ContentLength == 0:
		out.Body = nil
	case out.Body != nil:
		out.Body = &visitorsBody{out.Body, r}
	}
	r.passage.address(out)
	if _, named := h["User-Agent"]; !named {
		h["User-Agent"] = noAgent
	}
}

// ask asks the upstream. When it returns, all interim answers have been passed on.
func (r *courier) ask(out *http.Request) (*http.Response, error) {
	defer func() {
		r.mu.Lock()
		r.answered = true
		passing := r.passing
		r.mu.Unlock()
		if passing != nil {
			<-passing
		}
	}()
	return r.passage.RoundTrip(out)
}

// interim passes an interim answer on, to a visitor who can tell it from the answer.
// Over HTTP/1.0 nobody can.
func (r *courier) interim(code int, header textproto.MIMEHeader) error {
	if !r.passage.in.ProtoAtLeast(1, 1) {
		return nil
	}
	cleanResponse(http.Header(header), false)
	h := r.passage.out.Header()
	move(h, http.Header(header))
	r.passage.out.WriteHeader(code)
	clear(h)
	return nil
}

// passLater is interim for a client that tells of interim answers while it reads for
// others as well: a visitor who takes nothing would hold all of them up.
func (r *courier) passLater(code int, header textproto.MIMEHeader) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answered || len(r.waiting) == mostWaiting {
		return nil
	}
	r.waiting = append(r.waiting, interim{code, header})
	if r.passing == nil {
		r.passing = make(chan struct{})
		go r.passWaiting(r.passing)
	}
	return nil
}

func (r *courier) passWaiting(done chan struct{}) {
	defer close(done)
	for {
		r.mu.Lock()
		if len(r.waiting) == 0 {
			r.passing = nil
			r.mu.Unlock()
			return
		}
		next := r.waiting[0]
		r.waiting = r.waiting[1:]
		r.mu.Unlock()
		r.interim(next.code, next.header)
	}
}

// move puts the values of one header behind those of another, which then may
// share them.
func move(to, from http.Header) {
	for name, values := range from {
		if have := to[name]; len(have) > 0 {
			values = append(have[:len(have):len(have)], values...)
		}
		to[name] = values
	}
}

// taker is a http.ResponseWriter that needs no copy of a header.
type taker interface{ Take(http.Header) bool }

// passBack passes the answer on to the visitor.
func (r *courier) passBack(res *http.Response) {
	h := res.Header
	if to, takes := r.passage.out.ResponseWriter.(taker); !takes || !to.Take(h) {
		h = r.passage.out.Header()
		move(h, res.Header)
	}
	announced := len(res.Trailer)
	if announced > 0 {
		names := make([]string, 0, announced)
		for name := range res.Trailer {
			names = append(names, name)
		}
		h["Trailer"] = append(h["Trailer"], strings.Join(names, ", "))
	}
	r.passage.out.WriteHeader(res.StatusCode)
	if err := r.copyBody(res); err != nil {
		p := r.passage
		p.door.log.LogAttrs(context.WithoutCancel(p.in.Context()), slog.LevelDebug, "answer broken off",
			slog.String("request", p.req.ID), slog.String("route", p.req.Route), slog.Any("error", err))
		res.Body.Close()
		if r.passage.in.Context().Value(http.ServerContextKey) == nil {
			return // nobody would catch it
		}
		panic(http.ErrAbortHandler) // a part is not to be taken for the whole
	}
	res.Body.Close() // now, which completes the trailer
	if len(res.Trailer) > 0 {
		r.passage.out.FlushError() // in chunks, without which there is no trailer
	}
	for name, values := range res.Trailer {
		if len(res.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		if len(values) > 0 {
			h[name] = append(h[name], values...)
		}
	}
	r.passage.returned = true
}

// copyBody copies the body of an answer. What may be a stream is flushed at once:
// the headers as well, unless something follows that is there already.
func (r *courier) copyBody(res *http.Response) error {
	stream := res.ContentLength == -1 || isEventStream(res)
	if stream && !ready(res.Body) {
		r.passage.out.FlushError()
	}
	buf := r.passage.door.buffers.Get()
	defer r.passage.door.buffers.Put(buf)
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			wrote, failed := r.passage.out.Write(buf[:n])
			if failed != nil {
				return failed
			}
			if wrote < n {
				return io.ErrShortWrite
			}
			if stream && err == nil {
				r.passage.out.FlushError()
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// isEventStream reports whether an answer is one of server-sent events.
func isEventStream(res *http.Response) bool {
	media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(media), "text/event-stream")
}

// ready reports whether a body has something to read without waiting, as far as
// it can tell.
func ready(body io.Reader) bool {
	tells, ok := body.(interface{ Ready() bool })
	return ok && tells.Ready()
}

// visitorsBody is the body of the request for as long as the request lasts. Its
// owner, the server, closes it: transports do so when they cannot connect, and
// the server would then wait for the rest.
type visitorsBody struct {
	io.Reader
	courier *courier
}

var errLeft = errors.New("the request is over")

// Read implements io.Reader.
func (b *visitorsBody) Read(p []byte) (int, error) {
	b.courier.mu.Lock()
	done := b.courier.done
	b.courier.mu.Unlock()
	if done {
		return 0, errLeft
	}
	return b.Reader.Read(p)
}

// Close implements io.Closer.
func (b *visitorsBody) Close() error {
	b.courier.leaveBody()
	return nil
}

// leaveBody ends the reading of the visitor's body.
func (r *courier) leaveBody() {
	r.mu.Lock()
	r.done = true
	r.mu.Unlock()
}
