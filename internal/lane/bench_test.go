package lane

import (
	"context"
	"net"
	"net/http"
	"testing"
)

// BenchmarkRequest is what the lane adds to a request and its answer of 1 KiB, without
// the system calls.
func BenchmarkRequest(b *testing.B) {
	const head = "GET /a/b?c=d HTTP/1.1\r\nHost: app.localhost:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n" +
		"Cookie: doorward=0123456789012345678901234567890123456789012\r\nConnection: keep-alive\r\n\r\n"
	body := long(1 << 10)
	s := New(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Content-Type"], h["Content-Length"] = []string{"text/plain"}, []string{"1024"}
		w.Write(body)
	})})
	visitor := start(b, true, where).visitor()
	c := &conn{Conn: unheard{visitor.Conn}, server: s, socket: socketOf(visitor.Conn)}
	c.ctx, c.lost = context.WithCancel(context.Background())
	defer c.lost()
	c.watch.init(c)
	b.ReportAllocs()
	for b.Loop() {
		c.room = rooms.Get().(*room)
		r := c.room.request(copy(c.room.in[:], head), s.http)
		if r == nil || !c.answer(r) {
			b.Fatal("not served")
		}
	}
}

// unheard is a connection over which nothing is sent.
type unheard struct{ net.Conn }

func (unheard) Write(b []byte) (int, error) { return len(b), nil }
