package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// A visitor in a hurry sends its first frame with the handshake. It waits in the
// server's reader when the connection is switched, and reaches the upstream as
// what comes later does.
func TestFrameBehindTheHandshakeIsPassedOn(t *testing.T) {
	up, conns := rawUpstream(t)
	w := newWorld(t, []access.Route{wsRoute("http://app.example", up)})
	visitor, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer visitor.Close()
	first, second := append([]byte{0x81, 0x83, 0, 0, 0, 0}, "one"...), append([]byte{0x81, 0x83, 0, 0, 0, 0}, "two"...)
	fmt.Fprintf(visitor, "GET /chat HTTP/1.1\r\nHost: app.example\r\nCookie: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%s", asAlice, first)
	upstream := <-conns
	defer upstream.Close()
	got := make([]byte, len(first)+len(second))
	if _, err := io.ReadFull(upstream, got[:len(first)]); err != nil {
		t.Fatal(err)
	}
	visitor.Write(second)
	if _, err := io.ReadFull(upstream, got[len(first):]); err != nil || !bytes.Equal(got, append(first, second...)) {
		t.Errorf("%q, %v", got, err)
	}
	visitor.Close()
	if e := w.rec.event(t); e.Response.BytesIn != int64(len(got)) || e.Response.Status != 101 || e.Response.Reason != "" {
		t.Errorf("%+v", e.Response)
	}
	w.nothingOpen()
}

// One side that has nothing more to say still hears the other.
func TestHalfAWebSocketGoesOn(t *testing.T) {
	up, conns := rawUpstream(t)
	w := newWorld(t, []access.Route{wsRoute("http://app.example", up)})
	visitor, answer := w.rawSocket("/chat")
	upstream := <-conns
	defer upstream.Close()
	visitor.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(upstream); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	upstream.Write(append([]byte{0x81, 3}, "bye"...))
	upstream.Close()
	if rest, err := io.ReadAll(answer); err != nil || string(rest) != "\x81\x03bye" {
		t.Errorf("%q, %v", rest, err)
	}
	visitor.Close()
	w.rec.event(t)
	w.nothingOpen()
}
