package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lane is the prototype behind docs/decisions/fast-lane.md: a server that serves
// plain HTTP/1.1 requests itself, one read and one write each and no goroutine
// beside the connection's, and hands a connection to net/http with every byte it
// has read as soon as anything on it is not plain. It is measured, not shipped.
type lane struct {
	net.Listener
	handler http.Handler
	others  *handedOver
}

const laneRoom = 4 << 10 // of a plain request, and of an answer that is one write

// serve accepts connections until the listener is closed.
func (l *lane) serve(ctx context.Context) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go l.serveConn(ctx, conn)
	}
}

func (l *lane) serveConn(ctx context.Context, conn net.Conn) {
	ctx, left := context.WithCancel(ctx)
	defer left()
	c := &laneConn{Conn: conn, left: left, from: conn.RemoteAddr().String(), buf: make([]byte, laneRoom), watched: make(chan struct{}, 1)}
	c.watch = time.AfterFunc(time.Hour, c.startWatching)
	c.watch.Stop()
	for {
		conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		n, err := conn.Read(c.buf[c.have:])
		if err != nil && n == 0 && c.have == 0 {
			conn.Close()
			return
		}
		r, ok := plain(ctx, c.buf[:c.have+n], c.from)
		if !ok || err != nil {
			conn.SetReadDeadline(time.Time{})
			l.others.give(&begun{conn, c.buf[:c.have+n]})
			return
		}
		c.have = 0
		w := laneWriter{conn: c, header: http.Header{}, head: r.Method == http.MethodHead}
		c.watch.Reset(watchAfter)
		l.handler.ServeHTTP(&w, r)
		if !c.watch.Stop() {
			c.stopWatching()
		}
		if err := w.finish(); err != nil || ctx.Err() != nil {
			conn.Close()
			return
		}
	}
}

// laneConn is a connection in the lane.
type laneConn struct {
	net.Conn
	left func() // the visitor has left
	from string
	buf  []byte
	have int // bytes of the next request, which a watch has met

	// watch looks for a visitor who leaves, once an answer takes some time.
	watch    *time.Timer
	watched  chan struct{} // it has looked
	mu       sync.Mutex
	answered bool // it need not look any more
}

const watchAfter = 10 * time.Millisecond

// startWatching runs in a goroutine of its own, the timer's.
func (c *laneConn) startWatching() {
	defer func() { c.watched <- struct{}{} }()
	c.mu.Lock()
	if c.answered {
		c.mu.Unlock()
		return
	}
	c.SetReadDeadline(time.Time{})
	c.mu.Unlock()
	n, err := c.Read(c.buf[:1])
	c.have = n
	var timeout net.Error
	if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
		c.left()
	}
}

func (c *laneConn) stopWatching() {
	c.mu.Lock()
	c.answered = true
	c.SetReadDeadline(time.Unix(1, 0))
	c.mu.Unlock()
	<-c.watched
	c.answered = false
}

// plain reads a request that there is only one way to read: all of it and not a
// byte more, without a body, with no field that says anything about the connection
// or the framing. It returns false for every other.
func plain(ctx context.Context, b []byte, from string) (*http.Request, bool) {
	if !bytes.HasSuffix(b, []byte("\r\n\r\n")) || bytes.Count(b, []byte("\r\n\r\n")) != 1 || bytes.Count(b, []byte{'\n'}) != bytes.Count(b, []byte("\r\n")) {
		return nil, false
	}
	line, rest, _ := strings.Cut(string(b[:len(b)-2]), "\r\n")
	method, line, _ := strings.Cut(line, " ")
	target, ok := strings.CutSuffix(line, " HTTP/1.1")
	if !ok || method != "GET" && method != "HEAD" || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
		return nil, false
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] >= 0x7f {
			return nil, false
		}
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, false
	}
	fields := strings.Count(rest, "\n")
	header, values := make(http.Header, fields), make([]string, fields)
	host := ""
	for rest != "" {
		var field string
		field, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(field, ":")
		if !ok || !isToken(name) || !isValue(value) {
			return nil, false
		}
		value = strings.Trim(value, " \t")
		switch name = http.CanonicalHeaderKey(name); name {
		case "Host":
			if host != "" || value == "" {
				return nil, false
			}
			host = value
			continue
		case "Connection", "Upgrade", "Transfer-Encoding", "Content-Length", "Expect", "Te", "Trailer", "Keep-Alive", "Proxy-Connection", "Http2-Settings":
			return nil, false
		}
		values[0] = value
		if have := header[name]; have != nil {
			header[name] = append(have, value)
		} else {
			header[name] = values[:1:1]
		}
		values = values[1:]
	}
	if host == "" {
		return nil, false
	}
	r := http.Request{Method: method, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header, Body: http.NoBody,
		Host: host, RemoteAddr: from, RequestURI: target}
	return r.WithContext(ctx), true
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// laneWriter is the http.ResponseWriter of a plain request. An answer that fits
// into its room is one write.
type laneWriter struct {
	conn   *laneConn
	header http.Header
	status int
	head   bool // the request was HEAD
	room   [laneRoom]byte
	have   int
	sent   bool // the head is
	chunks bool
	err    error
}

// Header implements http.ResponseWriter.
func (w *laneWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *laneWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	if status >= 100 && status < 200 {
		w.put(appendHead(nil, status, w.header))
		return
	}
	w.status = status
}

// Write implements http.ResponseWriter.
func (w *laneWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.head {
		return len(b), nil
	}
	if w.have+len(b) > len(w.room) {
		w.Flush()
	}
	if len(b) > len(w.room) {
		w.body(b)
		return len(b), w.err
	}
	w.have += copy(w.room[w.have:], b)
	return len(b), w.err
}

// Flush implements http.Flusher.
func (w *laneWriter) Flush() {
	w.WriteHeader(http.StatusOK)
	if !w.sent {
		w.sent = true
		if w.header["Content-Length"] == nil && w.status != http.StatusNoContent && w.status != http.StatusNotModified {
			w.chunks = true
			w.header["Transfer-Encoding"] = []string{"chunked"}
		}
		w.put(appendHead(nil, w.status, w.header))
	}
	if w.have > 0 {
		w.body(w.room[:w.have])
		w.have = 0
	}
}

func (w *laneWriter) body(b []byte) {
	if w.chunks {
		w.put(append(strconv.AppendInt(nil, int64(len(b)), 16), "\r\n"...))
		defer w.put([]byte("\r\n"))
	}
	w.put(b)
}

func (w *laneWriter) put(b []byte) {
	if w.err == nil {
		_, w.err = w.conn.Write(b)
	}
}

var answers = sync.Pool{New: func() any { return new([2 * laneRoom]byte) }}

// finish sends what has not been sent.
func (w *laneWriter) finish() error {
	w.WriteHeader(http.StatusOK)
	if w.sent {
		w.Flush()
		if w.chunks {
			w.put([]byte("0\r\n\r\n"))
		}
		return w.err
	}
	if w.header["Content-Length"] == nil && !w.head {
		w.header["Content-Length"] = []string{strconv.Itoa(w.have)}
	}
	room := answers.Get().(*[2 * laneRoom]byte)
	w.put(append(appendHead(room[:0], w.status, w.header), w.room[:w.have]...))
	answers.Put(room)
	return w.err
}

func appendHead(b []byte, status int, h http.Header) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	b = append(b, "\r\n"...)
	if status >= 200 && h["Date"] == nil {
		b = append(b, "Date: "...)
		b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
		b = append(b, "\r\n"...)
	}
	for name, values := range h {
		for _, value := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	read []byte
}

// Read implements io.Reader.
func (c *begun) Read(b []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(b, c.read)
		c.read = c.read[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// handedOver is the net.Listener by which net/http gets the connections that are
// not plain.
type handedOver struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (h *handedOver) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, io.EOF
	}
}

// Close implements net.Listener.
func (h *handedOver) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handedOver) Addr() net.Addr { return h.address }
