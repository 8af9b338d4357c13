package lane

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// net/http keeps some connections for half a second before it closes them.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// served is a server on a listener, with the lane or without.
type served struct {
	t    testing.TB
	addr string
	lane *Server // nil: http.Server alone
	http *http.Server
	done chan error // what Serve has returned
	log  *lines
}

// lines keeps what a server logs.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t testing.TB, inLane bool, h http.Handler, edits ...func(*http.Server)) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, addr: l.Addr().String(), log: &lines{}, done: make(chan error, 1)}
	s.http = &http.Server{Handler: h, ErrorLog: log.New(s.log, "", 0)}
	for _, edit := range edits {
		edit(s.http)
	}
	serve, end := s.http.Serve, s.http.Close
	if inLane {
		s.lane = New(s.http)
		serve, end = s.lane.Serve, s.lane.Close
	}
	go func() { s.done <- serve(l) }()
	t.Cleanup(func() { end() })
	return s
}

// both runs a test with the lane and with http.Server alone, set up alike.
func both(t *testing.T, test func(t *testing.T, inLane bool)) {
	t.Run("lane", func(t *testing.T) { test(t, true) })
	t.Run("net/http", func(t *testing.T) { test(t, false) })
}

// visitor is a connection to a server.
type visitor struct {
	net.Conn
	t    testing.TB
	text *bufio.Reader
}

func (s *served) visitor() *visitor {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &visitor{conn, s.t, bufio.NewReader(conn)}
}

func (v *visitor) say(text string) *visitor {
	v.t.Helper()
	if _, err := io.WriteString(v, text); err != nil {
		v.t.Fatal(err)
	}
	return v
}

// hear reads one answer to a request with a method.
func (v *visitor) hear(method string) (*http.Response, string) {
	v.t.Helper()
	res, body, err := v.listen(method)
	if err != nil {
		v.t.Fatal(err)
	}
	return res, body
}

func (v *visitor) listen(method string) (*http.Response, string, error) {
	res, err := http.ReadResponse(v.text, &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// ended waits for the end of the connection, before which nothing comes any more.
func (v *visitor) ended() {
	v.t.Helper()
	if b, err := v.text.ReadByte(); err == nil {
		v.t.Errorf("%q came in place of the end", b)
	} else if late, ok := err.(net.Error); ok && late.Timeout() {
		v.t.Errorf("the connection stays open: %v", err)
	}
}

// inLane reports whether an answer is one of the lane.
func inLane(w http.ResponseWriter) bool {
	_, ok := w.(*answer)
	return ok
}

// where answers with who serves the request.
var where = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	if inLane(w) {
		fmt.Fprintf(w, "lane %s", r.URL.Path)
	} else {
		fmt.Fprintf(w, "net/http %s", r.URL.Path)
	}
})

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }
