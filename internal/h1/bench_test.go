package h1

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

// BenchmarkForward forwards a request with httputil.ReverseProxy over loopback,
// once with this client and once with a tuned http.Transport, in turns, so that
// both see the same machine. The figure to quote is x-standard, the ratio of the
// times; allocations are those of one client with the proxy and the upstream.
func BenchmarkForward(b *testing.B) {
	for _, c := range []struct {
		name   string
		method string
		answer int
	}{{"1KiB", "GET", 1 << 10}, {"1MiB", "GET", 1 << 20}, {"post", "POST", 1 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			content := []byte(strings.Repeat("x", c.answer))
			up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Cache-Control", "no-store")
				w.Write(content)
			}))
			defer up.Close()
			target, err := url.Parse(up.URL)
			if err != nil {
				b.Fatal(err)
			}
			through := func(rt http.RoundTripper) func() {
				rp := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: rt, BufferPool: &copyBuffers{}}
				w := &discard{http.Header{}}
				return func() {
					var body io.Reader
					if c.method == "POST" {
						body = strings.NewReader("a=b")
					}
					r := httptest.NewRequest(c.method, "/x", body)
					r.Header["Accept"] = []string{"*/*"}
					r.Header["Cookie"] = []string{"a=b"}
					ctx, cancel := context.WithCancel(r.Context()) // as a server has it
					clear(w.h)
					rp.ServeHTTP(w, r.WithContext(ctx))
					cancel()
				}
			}
			ours := New(Options{Dial: (&net.Dialer{}).DialContext, ResponseHeaderTimeout: time.Minute})
			defer ours.CloseIdleConnections()
			standard := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ResponseHeaderTimeout: time.Minute}
			defer standard.CloseIdleConnections()
			mine, theirs := through(ours), through(standard)
			b.Run("standard", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					theirs()
				}
			})
			b.Run("ours", func(b *testing.B) {
				b.ReportAllocs()
				var us, them time.Duration
				for b.Loop() {
					start := time.Now()
					mine()
					us += time.Since(start)
					b.StopTimer()
					start = time.Now()
					theirs()
					them += time.Since(start)
					b.StartTimer()
				}
				b.ReportMetric(us.Seconds()/them.Seconds(), "x-standard")
			})
		})
	}
}

// BenchmarkRoundTrip is the client alone, over a pipe that answers at once: what
// is left is what the client itself costs.
func BenchmarkRoundTrip(b *testing.B) {
	client := New(Options{ResponseHeaderTimeout: time.Minute, Dial: func(context.Context, string, string) (net.Conn, error) { return &canned{}, nil }})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://app.example/x?a=b", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header = http.Header{"Accept": {"*/*"}, "Cookie": {"a=b"}, "Doorward-Assertion": {strings.Repeat("x", 400)}, "X-Forwarded-For": {"127.0.0.1"}}
	buf := make([]byte, 32<<10)
	b.ReportAllocs()
	for b.Loop() {
		res, err := client.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = res.Body.Read(buf)
		}
		res.Body.Close()
	}
}

// canned is a connection whose other side always says the same.
type canned struct{ net.Conn }

const cannedAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n" +
	"Date: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello"

func (c *canned) Read(b []byte) (int, error)       { return copy(b, cannedAnswer), nil }
func (c *canned) Write(b []byte) (int, error)      { return len(b), nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }
func (c *canned) Close() error                     { return nil }

// discard is a response writer.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Flush()                      {}

type copyBuffers struct{ free [][]byte }

func (c *copyBuffers) Get() []byte {
	if n := len(c.free); n > 0 {
		b := c.free[n-1]
		c.free = c.free[:n-1]
		return b
	}
	return make([]byte, 32<<10)
}

func (c *copyBuffers) Put(b []byte) { c.free = append(c.free, b) }
