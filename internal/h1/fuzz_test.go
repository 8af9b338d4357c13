package h1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

// script is a connection whose other side says what is written down, in pieces of
// a size, and then hangs up.
type script struct {
	net.Conn
	text   []byte
	piece  int
	sent   bytes.Buffer
	closed bool
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.text) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.piece)], s.text)
	s.text = s.text[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error)      { return s.sent.Write(b) }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { s.closed = true; return nil }

// read is what a reader made of an answer.
type read struct {
	Proto, Status   string
	Code            int
	Header, Trailer http.Header
	Length          int64
	Codings         []string
	Body            string
	whole           bool // its end was found
	keep            bool // the connection can be used again
}

// readByUs lets this client read, and returns nil if it refuses the head.
func readByUs(text []byte, piece int, req *http.Request) *read {
	conn := &script{text: bytes.Clone(text), piece: piece}
	client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil }})
	res, err := client.RoundTrip(req)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusSwitchingProtocols {
		res.Body.Close()
	}
	// What is still to come would be seen before the connection is used again.
	kept := len(client.pools[req.URL.Host].idle) > 0 && len(conn.text) == 0
	client.CloseIdleConnections()
	return &read{res.Proto, res.Status, res.StatusCode, res.Header, res.Trailer, res.ContentLength, res.TransferEncoding, string(body), err == nil, kept}
}

// readByNetHTTP does the same with the reader of net/http.
func readByNetHTTP(text []byte, req *http.Request) *read {
	rest := bytes.NewReader(text)
	in := bufio.NewReader(rest)
	for {
		res, err := http.ReadResponse(in, req)
		if err != nil {
			return nil
		}
		if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		var body []byte
		if res.StatusCode == http.StatusSwitchingProtocols {
			body, err = io.ReadAll(in)
		} else {
			body, err = io.ReadAll(res.Body)
		}
		if h := res.Header; h.Get("Pragma") == "no-cache" {
			h.Del("Cache-Control") // net/http adds one
		}
		keep := err == nil && !res.Close && in.Buffered() == 0 && rest.Len() == 0
		return &read{res.Proto, res.Status, res.StatusCode, res.Header, res.Trailer, res.ContentLength, res.TransferEncoding, string(body), err == nil, keep}
	}
}

// agreed returns what both readers have to see the same way. net/http takes
// Connection away where it says close, and adds Cache-Control to Pragma.
func (r *read) agreed() read {
	c := *r
	c.whole, c.keep = false, false
	c.Header = maps.Clone(r.Header)
	delete(c.Header, "Connection")
	if c.Header.Get("Pragma") == "no-cache" {
		delete(c.Header, "Cache-Control")
	}
	return c
}

// Whatever this client takes for an answer, net/http reads the same way: the same
// status, fields, content and end. It may refuse more. And it makes no difference
// in which pieces an answer arrives.
func FuzzAnswer(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, seed := range []string{
		ok + "Content-Length: 5\r\n\r\nhello", ok + "Content-Length: 5\r\n\r\nhello" + ok, ok + "\r\nto the end",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ok + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", ok + "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0;x\r\n\r\n",
		ok + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ok + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", ok + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\r\n0\r\n\r\n", ok + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		ok + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", ok + "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ok + "X: y\rTransfer-Encoding: chunked\r\n\r\n",
		ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		ok + "Content-Length: 5,5\r\n\r\nhello", ok + "Content-Length: +5\r\n\r\nhello", ok + "Content-Length: 0x5\r\n\r\nhello", ok + "Content-Length: 5\x0b\r\n\r\nhello",
		ok + "Content_Length: 5\r\n\r\nhello", ok + "Content-Length: 00005\r\n\r\nhello", ok + "Content-Length: \r\n\r\nhello",
		ok + "Transfer-Encoding: chunked\r\n\r\n05\r\nhello\r\n00\r\n\r\n", ok + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\nabc",
		ok + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nhello", ok + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 205\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + ok + "\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframes",
		"HTTP/1.1 200\r\nPragma: no-cache\r\nConnection: close, x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "\r\n" + ok + "\r\n",
		ok + "x-a: 1\r\nX-A: 2\r\nx_a: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", ok + "A: \x00\r\n\r\n", ok + "A: \x80\xff\r\nContent-Length: 0\r\n\r\n",
		ok + " X: folded\r\n\r\n", ok + "X: a\r\n\tb\r\n\r\n", ok + ": a\r\n\r\n", ok + "a b: c\r\n\r\n", ok + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(1))
		f.Add([]byte(seed), uint8(2))
	}
	f.Fuzz(func(t *testing.T, text []byte, how uint8) {
		req, err := http.NewRequest([]string{"GET", "HEAD", "GET", "POST"}[how%4], "http://app.example/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if how%4 == 2 {
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "websocket")
		}
		ours := readByUs(text, 1<<20, req)
		if pieces := readByUs(text, 1+int(how)/4, req); !reflect.DeepEqual(ours, pieces) {
			t.Fatalf("in one piece %+v\nin several  %+v", ours, pieces)
		}
		if ours == nil {
			return
		}
		theirs := readByNetHTTP(text, req)
		if theirs == nil {
			t.Fatalf("net/http refuses what we read as %+v", ours)
		}
		if !ours.whole {
			if !strings.HasPrefix(theirs.Body, ours.Body) {
				t.Fatalf("we have handed on %q, net/http %q", ours.Body, theirs.Body)
			}
			return
		}
		if a, b := ours.agreed(), theirs.agreed(); !theirs.whole || !reflect.DeepEqual(a, b) {
			t.Fatalf("we read      %+v\nnet/http %+v", ours, theirs)
		}
		if ours.keep && !theirs.keep {
			t.Fatalf("the connection is kept though net/http would not: %+v", ours)
		}
	})
}

// Whatever this client sends, a server reads as the one request that was meant.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "app.example", "/a", "/a", "q=1", "X-A", "b", "", int64(0))
	f.Add("POST", "[::1]:80", "/a b", "", "", "x", " b\t", "hello", int64(5))
	f.Add("POST", "a", "/", "/%2f", "?", "Content-length", "5", "hello", int64(-1))
	f.Add("GET", "a\r\nX: y", "/", "", "a HTTP/1.1\r\nX: y", "X\r\nY", "a\r\nZ: b", "", int64(0))
	f.Add("GET\r\n", "a b", "//evil", "", "\xff", "Transfer-Encoding", "chunked", "0\r\n\r\n", int64(7))
	f.Add("DELETE", "a", "*", "", "", "Expect", "100-continue", "x", int64(1))
	f.Add("PUT", "a", "", "", "", "User-Agent", "", "abc", int64(2))
	f.Fuzz(func(t *testing.T, method, host, path, rawPath, query, name, value, body string, length int64) {
		if length > int64(len(body)) {
			length = int64(len(body))
		}
		conn := &script{text: []byte(empty), piece: 1 << 10}
		// The upload is over before the answer is looked at, as far as it may be sent.
		client := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil }})
		req := &http.Request{Method: method, Host: host, URL: &url.URL{Scheme: "http", Host: "app.example", Path: path, RawPath: rawPath, RawQuery: query},
			Header: http.Header{name: {value, "second"}}}
		o, err := prepare(withBody(req, body, length))
		if err != nil {
			return
		}
		if err := o.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if o.body == nil {
			conn.Write(o.head)
		} else {
			u := newUpload(newConn(conn, client.pool(req.URL)), o.head, o)
			u.run()
			if u.err != nil {
				return
			}
		}
		text := conn.sent.String()
		in := bufio.NewReader(&conn.sent)
		got, err := http.ReadRequest(in)
		if err != nil {
			// A server may refuse what it understands: an odd path or host.
			if head, _, whole := strings.Cut(text, "\r\n\r\n"); whole && strings.Count(head, "\r\n") <= 6 {
				return
			}
			t.Fatalf("%v in %q", err, text)
		}
		content, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		want := body
		if length > 0 {
			want = body[:length]
		}
		if in.Buffered() > 0 || conn.sent.Len() > 0 || string(content) != want {
			t.Fatalf("body %q, not %q, in %q", content, want, text)
		}
		if wanted := method; wanted != got.Method && wanted != "" {
			t.Fatalf("method %q in %q", got.Method, text)
		}
		if wanted := withoutZone(host); host != "" && got.Host != wanted && got.URL.Host == "" {
			t.Fatalf("host %q in %q", got.Host, text)
		}
		for field, values := range got.Header {
			canonical := http.CanonicalHeaderKey(name)
			if field == canonical || field == "Content-Length" || field == "Transfer-Encoding" {
				continue
			}
			t.Fatalf("a field nobody asked for: %s: %q in %q", field, values, text)
		}
		if have := got.Header[http.CanonicalHeaderKey(name)]; len(have) > 0 && name != "Content-Length" && have[0] != trimmed(value) {
			t.Fatalf("value %q in %q", have, text)
		}
	})
}

func withBody(req *http.Request, body string, length int64) *http.Request {
	if body != "" {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), length
	}
	return req
}
