package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// watch puts an outlet before the upstream's answer, so that it can be ended.
// Upgraded connections have a socket of their own. It reports whether the answer
// is one that goes on for as long as its reader stays.
func (p *passage) watch(res *http.Response) (endless bool) {
	if res.StatusCode == http.StatusSwitchingProtocols || res.Body == nil || res.Body == http.NoBody {
		return false
	}
	o := &p.berth.outlet
	o.ReadCloser, o.response, o.passage, o.patience = res.Body, res, p, p.patience(res)
	kind := "response"
	media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	switch media = strings.ToLower(strings.TrimSpace(media)); {
	case media == "text/event-stream" && res.Header.Get("Content-Encoding") == "" && res.ContentLength < 0:
		kind, o.follower, o.lastWords, o.patience = "event stream", &events{}, lastEvent, 0
	case isGRPC(p.in) && strings.HasPrefix(media, "application/grpc"):
		kind, o.follower, o.lastWords, o.patience = "gRPC call", &messages{}, o.lastStatus, 0
	}
	res.Body = o
	p.stream.becomes(kind, o)
	return media == "text/event-stream"
}

// outlet is the body of an upstream's answer on its way to the visitor. It can
// be ended while it is read: behind whole events or messages with last words
// that its reader understands; anything else by breaking it off, so that nobody
// takes a part for the whole: over HTTP/2 with RST_STREAM, over HTTP/1.1 by
// closing the connection before the end.
//
// Everything is written by the one goroutine that copies the body, so last words
// never get between its bytes.
type outlet struct {
	io.ReadCloser
	response *http.Response
	passage  *passage
	follower follower // nil: there is no place to end it in good form
	// lastWords returns what to send at the end, and may set trailers.
	lastWords func(why access.Reason) []byte
	// patience is how long the upstream may bring nothing; 0: as long as it likes.
	patience uint32

	mu    sync.Mutex
	why   access.Reason
	words []byte // still to be sent
	said  bool
}

// Ready reports whether something can be read without waiting.
func (o *outlet) Ready() bool { return ready(o.ReadCloser) }

// end implements ender.
func (o *outlet) end(why access.Reason) {
	o.mu.Lock()
	o.why = why
	whole := o.follower == nil || o.follower.between()
	o.mu.Unlock()
	if whole {
		o.passage.cutOff()
	} else {
		time.AfterFunc(cutWait, o.passage.cutOff)
	}
	o.passage.stream.whileOpen(func() { // a visitor who reads nothing does not hold it open
		http.NewResponseController(o.passage.out.ResponseWriter).SetWriteDeadline(time.Now().Add(cutWait))
	})
}

// Read implements io.Reader.
func (o *outlet) Read(b []byte) (int, error) {
	o.mu.Lock()
	if o.ending() {
		defer o.mu.Unlock()
		return o.finish(b)
	}
	o.mu.Unlock()
	o.passage.stream.awaits(o.patience)
	n, err := o.ReadCloser.Read(b)
	o.passage.stream.awaits(0)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.follower != nil {
		stop := o.why != ""
		if whole := o.follower.follow(b[:n], stop); stop && o.follower.between() {
			return whole, nil // what follows is not sent any more
		}
	}
	if o.why != "" && err != nil && err != io.EOF {
		if n > 0 {
			return n, nil
		}
		return o.finish(b)
	}
	return n, err
}

// ending reports whether it is time to end the answer.
func (o *outlet) ending() bool {
	return o.why != "" && (o.said || o.follower == nil || o.follower.between())
}

// finish ends the answer: with last words where there is room for them.
func (o *outlet) finish(b []byte) (int, error) {
	if o.follower == nil || !o.said && !o.follower.between() {
		return 0, errEnded
	}
	if !o.said {
		o.said, o.words = true, o.lastWords(o.why)
	}
	n := copy(b, o.words)
	o.words = o.words[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// lastEvent is the last event of a stream. Pages listen for its name.
func lastEvent(why access.Reason) []byte {
	return fmt.Appendf(nil, "event: doorward-closed\ndata: {\"reason\":%q,\"title\":%q}\n\n", why, why.Info().Title)
}

// lastStatus sets the status of a gRPC call in place of the upstream's.
func (o *outlet) lastStatus(why access.Reason) []byte {
	h := o.passage.out.Header()
	h.Set(http.TrailerPrefix+"Grpc-Status", grpcStatus(why.Info().Status))
	h.Set(http.TrailerPrefix+"Grpc-Message", why.Info().Title)
	o.response.Trailer = nil
	return nil
}
