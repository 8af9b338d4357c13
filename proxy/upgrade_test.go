package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
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

// listeningFor calls said when a visitor has been told that the protocol is switched.
type listeningFor struct {
	net.Listener
	said func()
}

func (l listeningFor) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tellingOf101{conn.(*net.TCPConn), l.said}, nil
}

type tellingOf101 struct {
	*net.TCPConn
	said func()
}

func (c tellingOf101) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	if bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) {
		c.said()
	}
	return n, err
}

// Access that ends at the very moment at which the protocol is switched ends like
// that of any other WebSocket: with a close frame, not with a connection that breaks.
func TestAccessEndsWhileTheProtocolIsSwitched(t *testing.T) {
	for range 20 { // the fault showed itself every third time
		t.Run("", accessEndsWhileTheProtocolIsSwitched)
	}
}

func accessEndsWhileTheProtocolIsSwitched(t *testing.T) {
	up, conns := rawUpstream(t)
	o := &office{}
	w := newWorld(t, []access.Route{wsRoute("http://app.example", up)}, withOffice(o))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan *access.Event, 1)
	server := NewServer(w.snapshot.Server, w.door)
	go server.Serve(listeningFor{l, func() {
		w.revoke(o, "alice")
		ended <- w.rec.event(t) // it has been decided how
	}})
	defer server.Close()
	visitor, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer visitor.Close()
	fmt.Fprintf(visitor, "GET /chat HTTP/1.1\r\nHost: app.example\r\nCookie: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", asAlice)
	upstream := <-conns
	defer upstream.Close()
	answer := bufio.NewReader(visitor)
	if res, err := http.ReadResponse(answer, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	if e := <-ended; e.Kind != access.EventClosed || e.Reason != access.SessionEnded {
		t.Errorf("%+v", e)
	}
	frame := make([]byte, 4)
	if _, err := io.ReadFull(answer, frame); err != nil || frame[0] != finBit|opClose || frame[2] != 1008>>8 || frame[3] != 1008&0xff {
		t.Errorf("%x %v", frame, err)
	}
	visitor.Close()
	w.rec.event(t)
	w.nothingOpen()
}
