package h1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// outgoing is a request as it goes over the wire: its head, and its body if it
// has one.
type outgoing struct {
	head   []byte
	method string
	body   io.ReadCloser // nil: none
	length int64         // of the body; -1: it goes in chunks
	// unsure tells that a body of unknown length may turn out to be none.
	unsure bool
	// touched tells that something of the body may have been read.
	touched  bool
	expects  bool // 100 (Continue)
	upgrades bool
	close_   bool // the connection is not to be used again
}

var outgoings = sync.Pool{New: func() any { return &outgoing{head: make([]byte, 0, 2<<10)} }}

// free gives the memory back, unless it goes with the body.
func (o *outgoing) free() {
	if o.body == nil && cap(o.head) <= 64<<10 {
		*o = outgoing{head: o.head[:0]}
		outgoings.Put(o)
	}
}

// close closes the body.
func (o *outgoing) close() {
	if o.body != nil {
		o.body.Close()
	}
}

// prepare writes down the head of a request, but for how its body is framed, the
// way net/http does. Whatever could end a line or a field too early is refused,
// not mended, and nothing is added: no User-Agent, no Accept-Encoding.
func prepare(req *http.Request) (*outgoing, error) {
	u := req.URL
	switch {
	case u == nil || u.Host == "":
		return nil, errors.New("the request is for no host")
	case u.Scheme != "http":
		return nil, fmt.Errorf("the scheme is %q, not http", u.Scheme)
	case req.Method == http.MethodConnect:
		return nil, errors.New("CONNECT is no request to forward")
	case !all(req.Method, tokenByte):
		return nil, errors.New("the method is no token")
	case len(req.TransferEncoding) > 1 || len(req.TransferEncoding) == 1 && req.TransferEncoding[0] != "chunked":
		return nil, errors.New("the transfer coding of the request is not chunked")
	}
	o := outgoings.Get().(*outgoing)
	o.method, o.close_ = req.Method, req.Close
	if o.method == "" {
		o.method = http.MethodGet
	}
	err := o.frame(req)
	if err == nil {
		err = o.writeHead(req)
	}
	if err != nil {
		o.body = nil
		o.free()
		return nil, err
	}
	return o, nil
}

// frame finds out how the body goes over the wire.
func (o *outgoing) frame(req *http.Request) error {
	if req.Body == nil || req.Body == http.NoBody {
		if req.ContentLength != 0 {
			return errors.New("the request has a length but no body")
		}
		return nil
	}
	o.body, o.length = req.Body, req.ContentLength
	if len(req.TransferEncoding) > 0 {
		o.length = -1
	} else if o.length <= 0 {
		o.length = -1
		o.unsure = lacksBody(o.method)
	}
	return nil
}

// lacksBody reports whether requests of a method seldom have a body, so that an
// empty one of unknown length would confuse servers.
func lacksBody(method string) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "SEARCH":
		return true
	}
	return false
}

func (o *outgoing) writeHead(req *http.Request) error {
	b := append(o.head, o.method...)
	b = append(b, ' ')
	u := req.URL
	start := len(b)
	if u.Opaque != "" {
		b = append(b, u.RequestURI()...)
	} else {
		path := u.EscapedPath()
		if path == "" {
			path = "/"
		}
		b = append(b, path...)
		if u.ForceQuery || u.RawQuery != "" {
			b = append(b, '?')
			b = append(b, u.RawQuery...)
		}
	}
	for _, c := range b[start:] {
		if class[c]&targetByte == 0 {
			return errors.New("the address of the request has a byte that none may have")
		}
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host := req.Host
	if host == "" {
		host = u.Host
	}
	if !validHost(host) {
		return errors.New("the host of the request has a byte that none may have")
	}
	b = append(b, withoutZone(host)...)
	b = append(b, "\r\n"...)
	if req.Close && !hasToken(req.Header["Connection"], "close") {
		b = append(b, "Connection: close\r\n"...)
	}
	for name, values := range req.Header {
		var err error
		if b, err = o.appendField(b, name, values); err != nil {
			return err
		}
	}
	o.head = b
	return nil
}

// appendField writes a field once for each of its values. The framing is ours to
// say, and so is the host.
func (o *outgoing) appendField(b []byte, name string, values []string) ([]byte, error) {
	switch canonical, ok := fieldName(name); {
	case !ok:
		return nil, errors.New("the name of a header field has a character that none may have")
	case canonical == "User-Agent":
		if len(values) > 0 && values[0] == "" {
			return b, nil // says that there is none
		}
		values = values[:min(1, len(values))]
	case canonical == "Host", canonical == "Content-Length", canonical == "Transfer-Encoding", canonical == "Trailer":
		if name != canonical {
			return nil, fmt.Errorf("the header field %s is not in canonical form", canonical)
		}
		return b, nil
	case canonical == "Expect":
		o.expects = len(values) > 0 && hasToken(values[:1], "100-continue")
	case canonical == "Upgrade":
		o.upgrades = true
	}
	for _, value := range values {
		if value = trimmed(value); !isValue(value) {
			return nil, fmt.Errorf("the value of %s has a control character", name)
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return b, nil
}

// settle ends the head with the framing of the body. It touches the body only if
// nobody knows whether there is one.
func (o *outgoing) settle(ctx context.Context) error {
	if o.unsure {
		o.touched = true
		body, err := probe(ctx, o.body)
		if err != nil {
			return err
		}
		o.body = body
	}
	switch {
	case o.body == nil:
		o.length = 0
		if o.method == "POST" || o.method == "PUT" || o.method == "PATCH" {
			o.head = append(o.head, "Content-Length: 0\r\n"...) // many servers expect it
		}
	case o.length < 0:
		o.head = append(o.head, "Transfer-Encoding: chunked\r\n"...)
	default:
		o.head = append(o.head, "Content-Length: "...)
		o.head = strconv.AppendInt(o.head, o.length, 10)
		o.head = append(o.head, "\r\n"...)
	}
	o.head = append(o.head, "\r\n"...)
	o.expects = o.expects && o.body != nil
	return nil
}

// validHost reports whether a host has only bytes that one may have, in a URL or
// with a zone.
func validHost(host string) bool {
	for i := range len(host) {
		c := host[i]
		if class[c]&targetByte == 0 || strings.IndexByte(`/?#@\<>"{}|^`+"`", c) >= 0 {
			return false
		}
	}
	return host != ""
}

// withoutZone returns a host without the zone of its address, which means
// something on this machine only (RFC 6874).
func withoutZone(host string) string {
	if from, to := strings.LastIndexByte(host, '%'), strings.IndexByte(host, ']'); from > 0 && to > from {
		return host[:from] + host[to:]
	}
	return host
}

// probeWait is how long a request waits for the first byte of a body that may be
// none.
const probeWait = 200 * time.Millisecond

// probed is a body whose first byte has been asked for.
type probed struct {
	io.ReadCloser
	first chan firstByte // nil: has been read
}

type firstByte struct {
	b   byte
	n   int
	err error
}

// probe returns the body, or nil if it turns out to be empty. It waits a little
// for that. Who sends nothing at first has a body for all we know.
func probe(ctx context.Context, body io.ReadCloser) (io.ReadCloser, error) {
	p := &probed{body, make(chan firstByte, 1)}
	go func() {
		var b [1]byte
		var f firstByte
		for f.n == 0 && f.err == nil {
			f.n, f.err = body.Read(b[:])
		}
		f.b = b[0]
		p.first <- f
	}()
	timer := time.NewTimer(probeWait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
	case f := <-p.first:
		if f.n == 0 && f.err == io.EOF {
			body.Close()
			return nil, nil
		}
		p.first <- f
	}
	return p, nil
}

// Read implements io.Reader.
func (p *probed) Read(b []byte) (int, error) {
	if p.first == nil || len(b) == 0 {
		return p.ReadCloser.Read(b)
	}
	f := <-p.first
	p.first = nil
	return copy(b, []byte{f.b}[:f.n]), f.err
}
