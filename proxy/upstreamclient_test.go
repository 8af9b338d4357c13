package proxy

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/h1"
)

// Which client speaks to an upstream depends on the route alone.
func TestUpstreamClient(t *testing.T) {
	for _, c := range []struct {
		to, client string
		own        bool
	}{
		{"http://127.0.0.1:1", "", true},
		{"http://127.0.0.1:1", "standard", false},
		{"https://127.0.0.1:1", "", false},
		{"h2c://127.0.0.1:1", "", false},
	} {
		route := access.Route{ID: "app", From: "http://app.example", To: []string{c.to}, Upstream: access.Upstream{Client: c.client}}
		for entry := range table(t, route).entries {
			u, err := newUpstream(entry, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if _, own := u.transport.(*h1.Client); own != c.own {
				t.Errorf("%s %q: %T", c.to, c.client, u.transport)
			}
		}
	}
	if _, faults := NewTable([]access.Route{{ID: "app", From: "http://app.example", To: []string{"http://127.0.0.1"}, Upstream: access.Upstream{Client: "fast"}}}); len(faults) != 1 {
		t.Errorf("%+v", faults)
	}
}

// Frames of every size pass unchanged in both directions, whichever client has
// made the connection.
func TestWebSocketFramesOfEverySize(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(-1)
		for {
			kind, data, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			conn.Write(r.Context(), kind, data)
		}
	})
	for _, client := range []string{"", standardClient} {
		t.Run("client "+client, func(t *testing.T) {
			route := routeTo("http://app.example", up)
			route.WebSocket, route.Upstream.Client = true, client
			w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
			ctx := t.Context()
			conn, _, err := websocket.Dial(ctx, "ws://app.example/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: w.transport()}})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			conn.SetReadLimit(-1)
			random := rand.NewChaCha8([32]byte{})
			for _, size := range []int{0, 1, 125, 126, 4095, 4096, 4097, 65535, 65536, 1 << 20, 5 << 20} {
				data := make([]byte, size)
				random.Read(data)
				sent := make(chan error, 1)
				go func() { sent <- conn.Write(ctx, websocket.MessageBinary, data) }()
				_, got, err := conn.Read(ctx)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes became %d: %v", size, len(got), err)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// What an upstream's answer must not do to the next visitor's: both come over the
// same connection, unless something was said that nobody asked for.
func TestAnswersDoNotMix(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
				len(r.URL.Path), r.URL.Path)
			if r, err = http.ReadRequest(rw.Reader); err != nil {
				return
			}
		}
	})
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withPolicy(allowAll))
	for i := range 20 {
		path := fmt.Sprint("/", i)
		if res, body := w.ask("GET", "http://app.example"+path); body != path {
			t.Fatalf("%s %q for %s", res.Status, body, path)
		}
		w.rec.event(t)
	}
}

// An answer that could be read in two ways is none.
func TestDoubtfulAnswersOfUpstreams(t *testing.T) {
	for name, raw := range map[string]string{
		"two lengths":   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"both framings": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bare LF":       "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"folded":        "HTTP/1.1 200 OK\r\nX: a\r\n Content-Length: 2\r\n\r\nok",
	} {
		up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				io.WriteString(conn, raw)
				conn.Close()
			}
		})
		w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withPolicy(allowAll))
		res, body := w.ask("GET", "http://app.example/")
		if e := w.rec.event(t); res.StatusCode != 502 || e.Response.Reason != access.UpstreamBroken || strings.Contains(body, "ok\"") {
			t.Errorf("%s: %s %+v", name, res.Status, e.Response)
		}
	}
}

// BenchmarkUpstreamClient is a whole allowed request with either client, in turns;
// the figure to quote is x-standard, the ratio of the two.
func BenchmarkUpstreamClient(b *testing.B) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1<<10)) }))
	defer up.Close()
	ask := func(client string) func() {
		d := New(Options{Signer: newTestSigner(b), Recorder: nullRecorder{}})
		b.Cleanup(d.Close)
		route := routeTo("http://app.example", up)
		route.Upstream.Client = client
		if err := d.Swap(&Snapshot{Version: "v1", Routes: table(b, route), Policy: policy(allowAll), Identify: identify{}}); err != nil {
			b.Fatal(err)
		}
		w := &nullWriter{http.Header{}}
		return func() {
			r := httptest.NewRequest("GET", "/x", nil)
			r.Host = "app.example"
			clear(w.h)
			d.ServeHTTP(w, r)
		}
	}
	inTurns(b, ask(""), ask(standardClient), "x-standard")
}
