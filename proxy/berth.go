package proxy

import (
	"net/http"
	"net/url"
	"sync"

	"github.com/doorward/doorward/internal/access"
)

// berth is the memory of a passage and of what it takes to go to an upstream and
// back. Most requests are over in a moment and have told nobody else about
// themselves: then the next one has it. A third of all memory that requests take
// is not garbage for that.
//
// Who holds on to a passage, a flight or a stream for longer than the request
// lasts has to be known: see leave. Whatever is in doubt is left to the garbage
// collector.
type berth struct {
	passage passage
	account account
	courier courier
	outlet  outlet

	// What the upstream is asked, if by our own client, which is done with it when
	// the answer has been read. Its context is the flight of the passage.
	out    http.Request
	blank  *http.Request // the same, empty
	url    url.URL
	header http.Header
	values []string // of the header, those that Doorward sets
}

// keptFields is the most that a header may have whose memory is kept.
const keptFields = 64

// account is the event of a request, with what it points to.
type account struct {
	event access.Event
	req   access.Request
	dec   access.Decision
}

var berths = sync.Pool{New: func() any {
	b := &berth{}
	b.blank = new(http.Request).WithContext(&b.passage.flight)
	return b
}}

// request returns the request to the upstream with what is the same as in the
// visitor's; its header is empty.
func (b *berth) request(in *http.Request) *http.Request {
	if b.header == nil {
		b.header = make(http.Header, 16)
	}
	b.out = *b.blank
	b.out.Method, b.out.Header = in.Method, b.header
	b.out.Proto, b.out.ProtoMajor, b.out.ProtoMinor = in.Proto, in.ProtoMajor, in.ProtoMinor
	b.out.Body, b.out.ContentLength, b.out.TransferEncoding = in.Body, in.ContentLength, in.TransferEncoding
	return &b.out
}

// room returns an array for so many values of fields. A question has several headers,
// which each have their own.
func (b *berth) room(n int) []string {
	if b.passage.answering != ourselves {
		return make([]string, 0, n)
	}
	if cap(b.values) < n {
		b.values = make([]string, 0, n)
	}
	return b.values[:0]
}

// lighten lets go of what it took to ask, where the answer goes on for long.
func (b *berth) lighten() {
	b.out, b.url, b.header, b.values = http.Request{}, url.URL{}, nil, nil
}

// leave gives the berth to another passage, if nobody can know this one any more.
func (b *berth) leave() {
	p := &b.passage
	if !p.returned || !p.recorded || p.noticed || p.answering != ourselves || p.trace != nil || p.in.ContentLength != 0 || p.flight.Waited() {
		return
	}
	*p, b.account, b.courier, b.outlet, b.out, b.url = passage{}, account{}, courier{}, outlet{}, http.Request{}, url.URL{}
	if len(b.header) > keptFields || cap(b.values) > keptFields {
		b.header, b.values = nil, nil
	}
	clear(b.header)
	clear(b.values[:cap(b.values)])
	berths.Put(b)
}
