package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// steady is a steady stream of requests from clients of every kind that keep their
// connections: GET and POST, over HTTP/1.1 and over HTTP/2 with several requests
// at once. What comes back has to be what was sent.
//
// Over HTTP/1.1 nothing may be sent twice, not even what may be repeated. Over
// HTTP/2 a client may send again what the server said it did not look at (GOAWAY,
// RFC 9113 §6.8), and is counted.
type steady struct {
	t       *testing.T
	address string
	header  func(client int) http.Header
	done    chan struct{}

	connections, again atomic.Int32

	mu       sync.Mutex
	answered sync.Cond
	requests int
	failures []string
	last     time.Time
	pause    time.Duration // the longest time without an answer to anybody
	slowest  time.Duration
}

const (
	steadyClients = 20
	steadyRate    = 500 // requests per second of all together, as far as the machine can
)

// whileSteady runs a story while requests go on, and prints what became of them.
func whileSteady(t *testing.T, address string, roots *x509.CertPool, header func(client int) http.Header, story func(*steady)) {
	t.Helper()
	s := &steady{t: t, address: address, header: header, done: make(chan struct{})}
	s.answered.L = &s.mu
	transport := func(h2 bool) *http.Transport {
		var protocols http.Protocols
		protocols.SetHTTP1(!h2)
		protocols.SetHTTP2(h2)
		return &http.Transport{DialContext: dialLocalhost, TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: &protocols}
	}
	shared := []*http.Transport{transport(true), transport(true)}
	var clients sync.WaitGroup
	began := time.Now()
	for i := range steadyClients {
		h2, method := i%2 == 1, []string{http.MethodGet, http.MethodPost}[i/2%2]
		tr := shared[i/2%2] // five requests at once over one connection
		if !h2 {
			tr = transport(false)
		}
		clients.Go(func() {
			defer tr.CloseIdleConnections()
			s.client(i, tr, method, h2)
		})
	}
	defer func() {
		close(s.done)
		clients.Wait()
		took := time.Since(began)
		t.Logf("%d requests in %.1f s (%.0f/s) from %d clients over %d connections: %d failed; %d sent again after GOAWAY; slowest %s, longest pause %s",
			s.requests, took.Seconds(), float64(s.requests)/took.Seconds(), steadyClients, s.connections.Load(), len(s.failures), s.again.Load(), round(s.slowest), round(s.pause))
		for _, failure := range s.failures[:min(3, len(s.failures))] {
			t.Error(failure)
		}
	}()
	s.last = time.Now()
	story(s)
}

func (s *steady) client(i int, tr *http.Transport, method string, h2 bool) {
	pace := time.NewTicker(time.Second * steadyClients / steadyRate)
	defer pace.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.done:
			return
		case <-pace.C:
		}
		began := time.Now()
		err := s.send(tr, i, method, h2, fmt.Sprintf("client %d, request %d", i, n))
		s.count(began, err)
	}
}

func (s *steady) send(tr *http.Transport, client int, method string, h2 bool, text string) error {
	var body io.Reader
	if method == http.MethodPost {
		body = bytes.NewReader([]byte(text))
		if !h2 {
			body = io.NopCloser(body) // which nobody can send again
		}
	}
	req, err := http.NewRequest(method, s.address+"/echo?"+strings.ReplaceAll(text, " ", "+"), body)
	if err != nil {
		return err
	}
	if body != nil {
		req.ContentLength = int64(len(text))
	}
	req.Header = s.header(client)
	sent := 0
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if !info.Reused {
				s.connections.Add(1)
			}
			sent++
		},
	}))
	res, err := tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s %s (HTTP/2 %v): %w", method, text, h2, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s (HTTP/2 %v): the answer: %w", method, text, h2, err)
	case res.StatusCode != http.StatusOK || string(answer) != method+" "+text:
		return fmt.Errorf("%s %s (HTTP/2 %v): answered %s %q", method, text, h2, res.Status, answer)
	case sent > 1 && h2:
		s.again.Add(int32(sent - 1))
	case sent > 1:
		return fmt.Errorf("%s %s was sent %d times", method, text, sent)
	}
	return nil
}

// echo is the application.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	text := strings.ReplaceAll(r.URL.RawQuery, "+", " ")
	if err != nil || r.Method == http.MethodPost && string(body) != text {
		text = fmt.Sprintf("%q with the body %q, %v", text, body, err)
	}
	fmt.Fprintf(w, "%s %s", r.Method, text)
}

func (s *steady) count(began time.Time, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if err != nil {
		s.failures = append(s.failures, err.Error())
	}
	s.pause, s.last = max(s.pause, now.Sub(s.last)), now
	s.slowest = max(s.slowest, now.Sub(began))
	s.answered.Broadcast()
}

// wait returns after so many further requests, and ends the story at the first
// that failed.
func (s *steady) wait(n int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for end := s.requests + n; s.requests < end && len(s.failures) == 0; {
		s.answered.Wait()
	}
	if len(s.failures) > 0 {
		s.t.FailNow()
	}
}
