package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/lane"
)

// Plain requests have the lane, unless the configuration wants net/http alone. They
// are answered the same.
func TestVisitorsOfBothServers(t *testing.T) {
	echo := newEcho(t)
	for _, http1 := range []string{"", standardServer} {
		w := newWorld(t, []access.Route{routeTo("http://app.example", echo)}, withServer(func(c *Config) { c.HTTP1 = http1 }))
		served := make(chan string, 1)
		handler := w.server.Config.Handler
		w.server.Config.Handler = http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
			served <- fmt.Sprintf("%T", out)
			handler.ServeHTTP(out, in)
		})
		res, body := w.raw("GET /a?b=c HTTP/1.1\r\nHost: app.example\r\nCookie: " + asAlice + "\r\nX-A: 1\r\nX-A: 2\r\n\r\n")
		if by, want := <-served, map[string]string{"": "*lane.answer", standardServer: "*http.response"}[http1]; by != want {
			t.Errorf("http1 %q: served by %s", http1, by)
		}
		if e := decode(t, body); res.StatusCode != http.StatusOK || e.Method != http.MethodGet || e.URI != "/a?b=c" || len(e.Header["X-A"]) != 2 {
			t.Errorf("http1 %q: %s %q", http1, res.Status, body)
		}
		if e := w.rec.event(t); e.Response.Status != http.StatusOK || e.Request.Identity.Subject != "alice" {
			t.Errorf("http1 %q: %+v", http1, e)
		}
	}
}

// Behind a load balancer that speaks the PROXY protocol, there is a lane too, with the
// visitor's address.
func TestProxyProtocolInTheLane(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf := Config{ProxyProtocol: []string{"127.0.0.0/8"}}
	server := lane.New(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%T %s", w, r.RemoteAddr) })})
	go server.Serve(conf.Preambles(l, slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { server.Close() })
	const plain, closing = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for text, want := range map[string][]string{
		"PROXY TCP4 203.0.113.9 10.0.0.1 4660 443\r\n" + plain:   {"*lane.answer 203.0.113.9:4660"},
		header2(0x21, 0x21, ip6...) + plain:                      {"*lane.answer [2001:db8::9]:4660"},
		"PROXY TCP4 203.0.113.9 10.0.0.1 4660 443\r\n" + closing: {"*http.response 203.0.113.9:4660"},
		header2(0x20, 0) + plain:                                 {"*lane.answer 127.0.0.1:"},
		plain:                                                    nil,
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if want == nil && len(answer) > 0 || want != nil && !strings.Contains(string(answer), "\r\n\r\n"+want[0]) {
			t.Errorf("%q: %q", text, answer)
		}
	}
}

// Memory is given back after five minutes, or when the operator says; not all the time.
func TestWhenMemoryIsGivenBack(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{0: 5 * time.Minute, time.Second: time.Second, time.Hour: time.Hour} {
		c := &Config{Listen: "127.0.0.1:1", ReturnMemoryAfter: access.Duration(after)}
		f := access.NewFaults("server")
		if c.Validate(f); len(f.List()) != 0 || c.Quiet() != want {
			t.Errorf("%s: %s, %+v", after, c.Quiet(), f.List())
		}
	}
	for _, after := range []time.Duration{-1, time.Millisecond} {
		f := access.NewFaults("server")
		(&Config{Listen: "127.0.0.1:1", ReturnMemoryAfter: access.Duration(after)}).Validate(f)
		if list := f.List(); len(list) != 1 || list[0].Path != "server.return_memory_after" {
			t.Errorf("%s: %+v", after, list)
		}
	}
}
