package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// bodies is an application that notes what it was sent, whole or not, and by which
// connection.
type bodies struct {
	mu     sync.Mutex
	conns  map[string]bool
	whole  []int
	broken int
	came   chan struct{}
}

func newBodies(t *testing.T, h2 bool) (*bodies, *httptest.Server) {
	b := &bodies{conns: map[string]bool{}, came: make(chan struct{}, 100)}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		b.mu.Lock()
		b.conns[r.RemoteAddr] = true
		if err != nil {
			b.broken++
		} else {
			b.whole = append(b.whole, len(body))
		}
		b.mu.Unlock()
		b.came <- struct{}{}
		fmt.Fprint(w, len(body))
	}))
	if h2 {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		srv.Config.Protocols = &protocols
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return b, srv
}

func (b *bodies) counts() (whole, broken, conns int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.whole), b.broken, len(b.conns)
}

// A body that says to be too large reaches nobody, not even its beginning.
func TestDeclaredBodiesThatAreTooLarge(t *testing.T) {
	b, up := newBodies(t, false)
	small, any := routeTo("http://app.example", up), routeTo("http://any.example", up)
	small.MaxBodyBytes, any.MaxBodyBytes, any.ID = 10, -1, "any"
	general := routeTo("http://general.example", up)
	general.ID = "general"
	w := newWorld(t, []access.Route{small, any, general}, withPolicy(allowAll), withServer(func(c *Config) { c.MaxBodyBytes = 20 }))
	for _, c := range []struct {
		host   string
		size   int
		status int
	}{
		{"app", 10, 200}, {"app", 11, 413}, {"app", 0, 200}, {"general", 20, 200}, {"general", 21, 413}, {"any", 100_000, 200},
	} {
		before, _, _ := b.counts()
		req, _ := http.NewRequest("POST", "http://"+c.host+".example/", strings.NewReader(strings.Repeat("x", c.size)))
		res, body := w.do(req)
		e := w.rec.event(t)
		after, broken, _ := b.counts()
		switch {
		case res.StatusCode != c.status:
			t.Errorf("%s, %d bytes: %s", c.host, c.size, res.Status)
		case c.status == 413 && (after != before || broken > 0 || e.Response.Reason != access.BodyTooLarge || e.Response.Upstream != "" || e.Decision.Outcome != access.Allow || !strings.Contains(body, "body_too_large")):
			t.Errorf("%s, %d bytes: %+v %s", c.host, c.size, e.Response, body)
		case c.status == 200 && (after != before+1 || body != fmt.Sprint(c.size)):
			t.Errorf("%s, %d bytes: the application got %s", c.host, c.size, body)
		}
	}
	// Nobody waits for who does not send, and does not wait for leave to.
	if res, _ := w.raw("POST / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\nContent-Length: 11\r\n\r\n"); res.StatusCode != 413 {
		t.Errorf("not sending: %s", res.Status)
	}
	if res, _ := w.raw("POST / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"); res.StatusCode != 413 {
		t.Errorf("expecting 100, closing: %s", res.Status)
	}
	// Who waits for leave to send gets none.
	if res, _ := w.raw("POST / HTTP/1.1\r\nHost: app.example\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"); res.StatusCode != 413 {
		t.Errorf("expecting 100: %s", res.Status)
	}
}

// A body that does not say how large it is is cut off in the middle. The
// application sees a request that broke off, whatever it speaks.
func TestStreamedBodiesThatAreTooLarge(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		b, up := newBodies(t, h2)
		route := routeTo("http://app.example", up)
		if h2 {
			route.To = []string{strings.Replace(up.URL, "http", "h2c", 1)}
		}
		route.MaxBodyBytes = 1 << 20
		w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
		send := func(size int) (*http.Response, string) {
			req, _ := http.NewRequest("POST", "http://app.example/", io.MultiReader(strings.NewReader(strings.Repeat("x", size)))) // of no known length
			return w.do(req)
		}
		if res, body := send(1 << 20); res.StatusCode != 200 || body != fmt.Sprint(1<<20) {
			t.Fatalf("%s: %s %s", name, res.Status, body)
		}
		<-b.came
		w.rec.event(t)
		res, body := send(1<<20 + 1)
		e := w.rec.event(t)
		if res.StatusCode != 413 || e.Response.Reason != access.BodyTooLarge || e.Decision.Outcome != access.Allow || !strings.Contains(body, "body_too_large") {
			t.Errorf("%s: %s %+v %s", name, res.Status, e.Response, body)
		}
		<-b.came
		if whole, broken, _ := b.counts(); whole != 1 || broken != 1 {
			t.Errorf("%s: %d whole bodies, %d broken", name, whole, broken)
		}
		send(1)
		<-b.came
		if _, _, conns := b.counts(); !h2 && conns != 2 {
			t.Errorf("the connection that a body broke off on was used again: %d", conns)
		}
	}
}

// Chunks that never end do not keep an application busy: it is cut off by then,
// and so is the visitor.
func TestEndlessBody(t *testing.T) {
	b, up := newBodies(t, false)
	route := routeTo("http://app.example", up)
	route.MaxBodyBytes = 1000
	w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() {
		for {
			if _, err := io.WriteString(conn, "400\r\n"+strings.Repeat("x", 0x400)+"\r\n"); err != nil {
				return
			}
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != 413 {
		t.Fatalf("%v %v", res, err)
	}
	<-b.came
	if whole, broken, _ := b.counts(); whole != 0 || broken != 1 {
		t.Errorf("%d whole bodies, %d broken", whole, broken)
	}
}
