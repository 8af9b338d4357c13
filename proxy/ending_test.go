package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/doorward/doorward/internal/access"
)

// Pitfall: open connections never checked again. Both ends of a WebSocket are
// told why it ends, by close frames of their own.
func TestWebSocketOfAnEndedSessionIsClosed(t *testing.T) {
	for _, change := range []change{func(*world) {}, overTLS} {
		ends := make(chan error, 2)
		o := &office{}
		probe := &world{}
		change(probe)
		w := newWorld(t, []access.Route{wsRoute(probe.scheme()+"://app.example", wsHold(t, ends))}, withOffice(o), change)
		ws := strings.Replace(probe.scheme(), "http", "ws", 1) + "://app.example/chat"
		alice, bob := w.dial(ws, "alice"), w.dial(ws, "bob")
		for _, conn := range []*websocket.Conn{alice, bob} {
			conn.Write(t.Context(), websocket.MessageText, []byte("hello"))
			if _, data, err := conn.Read(t.Context()); err != nil || string(data) != "hello" {
				t.Fatal(err)
			}
		}
		if n := w.door.OpenStreams("s-alice"); n != 1 {
			t.Errorf("%d open streams", n)
		}
		w.revoke(o, "alice")
		_, _, err := alice.Read(t.Context())
		var end websocket.CloseError
		if !errors.As(err, &end) || end.Code != websocket.StatusPolicyViolation || end.Reason != "session_ended: Your session was ended" {
			t.Errorf("the visitor is told %v", err)
		}
		if err := <-ends; websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("the upstream is told %v", err)
		}
		closed, own := w.rec.event(t), w.rec.event(t)
		if closed.Kind != access.EventClosed || closed.Reason != access.SessionEnded || own.RequestID != closed.RequestID ||
			own.Response.Reason != access.SessionEnded || own.Response.BytesIn < 5 || own.Response.BytesOut < 5 {
			t.Errorf("%+v %+v", closed, own)
		}
		// Whoever is not meant notices nothing.
		bob.Write(t.Context(), websocket.MessageText, []byte("still here"))
		if _, data, err := bob.Read(t.Context()); err != nil || string(data) != "still here" {
			t.Error(err)
		}
		bob.Close(websocket.StatusNormalClosure, "")
		w.rec.event(t)
		w.nothingOpen()
	}
}

// Whoever has a WebSocket open when the door closes learns that it may come back.
func TestWebSocketIsToldThatTheDoorCloses(t *testing.T) {
	ends := make(chan error, 1)
	w := newWorld(t, []access.Route{wsRoute("http://app.example", wsHold(t, ends))}, withPolicy(allowAll))
	alice := w.dial("ws://app.example/chat", "alice")
	told := make(chan error, 1)
	go func() {
		_, _, err := alice.Read(context.Background())
		told <- err
	}()
	w.door.Close()
	var end websocket.CloseError
	if err := <-told; !errors.As(err, &end) || end.Code != websocket.StatusGoingAway || !strings.HasPrefix(end.Reason, "shutting_down: ") {
		t.Errorf("the visitor is told %v", err)
	}
	if err := <-ends; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the upstream is told %v", err)
	}
	if e := w.rec.event(t); e.Response.Reason != access.ShuttingDown {
		t.Errorf("%+v", e.Response)
	}
	w.nothingOpen()
}

// rawSocket is a WebSocket without a library on either side.
func (w *world) rawSocket(target string) (visitor net.Conn, answer *bufio.Reader) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: app.example\r\nCookie: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", target, asAlice)
	answer = bufio.NewReader(conn)
	res, err := http.ReadResponse(answer, nil)
	if err != nil || res.StatusCode != 101 {
		w.t.Fatal(res, err)
	}
	return conn, answer
}

// rawUpstream accepts one WebSocket and hands over its connection.
func rawUpstream(t *testing.T) (*httptest.Server, <-chan net.Conn) {
	conns := make(chan net.Conn, 1)
	return upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		conns <- conn
	}), conns
}

// A close frame never stands inside another frame: it waits for the frame that
// has begun, and nothing behind it is sent.
func TestCloseFrameWaitsForTheFrameThatHasBegun(t *testing.T) {
	up, conns := rawUpstream(t)
	o := &office{}
	w := newWorld(t, []access.Route{wsRoute("http://app.example", up)}, withOffice(o))
	visitor, answer := w.rawSocket("/")
	upstream := <-conns
	whole := frame(2, false, bytes.Repeat([]byte("x"), 300))
	upstream.Write(whole[:100])
	begun := make([]byte, 100)
	if _, err := io.ReadFull(answer, begun); err != nil {
		t.Fatal(err)
	}
	w.revoke(o, "alice")
	w.rec.event(t) // the decision to close
	// What the visitor sends from now on goes nowhere.
	visitor.Write(frame(2, true, []byte("too late")))
	upstream.Write(append(slices.Clone(whole[100:]), frame(2, false, []byte("secret"))...))
	rest, err := io.ReadAll(answer)
	if err != nil || len(rest) < len(whole)-100+4 || !bytes.HasPrefix(rest, whole[100:]) {
		t.Fatalf("%q %v", rest, err)
	}
	if last := rest[len(whole)-100:]; last[0] != finBit|opClose || int(last[1]) != len(last)-2 || binary.BigEndian.Uint16(last[2:]) != statusPolicyViolation {
		t.Errorf("%q", last)
	}
	told, err := io.ReadAll(upstream)
	if err != nil || len(told) < 6 || told[0] != finBit|opClose || told[1]&maskBit == 0 || bytes.Contains(told, []byte("too late")) {
		t.Errorf("%q %v", told, err)
	}
	w.rec.event(t)
	w.nothingOpen()
}

// A visitor who reads nothing does not hold a connection open.
func TestVisitorWhoDoesNotReadIsCutOff(t *testing.T) {
	up, conns := rawUpstream(t)
	o := &office{}
	w := newWorld(t, []access.Route{wsRoute("http://app.example", up)}, withOffice(o))
	w.rawSocket("/")
	upstream := <-conns
	upstream.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	flood := frame(2, false, make([]byte, 1<<20))
	for {
		if _, err := upstream.Write(flood); err != nil {
			break // everything between is full
		}
	}
	w.revoke(o, "alice")
	w.closed(access.SessionEnded, "WebSocket")

	// The same of a download.
	down := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(flood); err != nil {
				return
			}
		}
	})
	o = &office{}
	w = newWorld(t, []access.Route{routeTo("http://app.example", down)}, withOffice(o))
	w.stream("GET", "http://app.example/", nil)
	w.revoke(o, "alice")
	w.closed(access.SessionEnded, "response")
}

func TestEventStreamEndsWithAnEventOfItsOwn(t *testing.T) {
	for scheme, changes := range map[string][]change{"http": nil, "https": {overHTTP2}} {
		up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			io.WriteString(w, "data: one\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		o := &office{}
		w := newWorld(t, []access.Route{routeTo(scheme+"://app.example", up)}, append(changes, withOffice(o))...)
		res := w.stream("GET", scheme+"://app.example/", nil)
		first := make([]byte, len("data: one\n\n"))
		io.ReadFull(res.Body, first)
		w.revoke(o, "alice")
		rest, err := io.ReadAll(res.Body)
		want := "event: doorward-closed\ndata: {\"reason\":\"session_ended\",\"title\":\"Your session was ended\"}\n\n"
		if err != nil || string(rest) != want {
			t.Errorf("%s: %q %v", scheme, rest, err)
		}
		if own := w.closed(access.SessionEnded, "event stream"); own.Response.BytesOut != int64(len(first)+len(want)) {
			t.Errorf("%+v", own.Response)
		}
	}
}

// Who reads half an event must not take it for a whole one.
func TestEventStreamInTheMiddleOfAnEventIsBrokenOff(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: ha")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	o := &office{}
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withOffice(o))
	res := w.stream("GET", "http://app.example/", nil)
	io.ReadFull(res.Body, make([]byte, 8))
	w.revoke(o, "alice")
	if rest, err := io.ReadAll(res.Body); err == nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
	w.closed(access.SessionEnded, "event stream")
}

func TestGRPCCallEndsWithAStatus(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(echoStream))
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	o := &office{}
	route := access.Route{ID: "grpc", From: "https://app.example", To: []string{"h2c://" + listener.Addr().String()}}
	w := newWorld(t, []access.Route{route}, overHTTP2, withOffice(o))
	conn := w.grpc(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "cookie", "__Host-doorward=alice")
	talk := func() grpc.ClientStream {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/chat.Chat/Talk")
		if err != nil {
			t.Fatal(err)
		}
		stream.SendMsg(wrapperspb.String("hello"))
		if err := stream.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	stream := talk()
	w.revoke(o, "alice")
	err = stream.RecvMsg(&wrapperspb.StringValue{})
	if status.Code(err) != codes.Unauthenticated || status.Convert(err).Message() != access.SessionEnded.Info().Title {
		t.Error(err)
	}
	w.closed(access.SessionEnded, "gRPC call")

	o.set(func() { clear(o.over) })
	stream = talk()
	o.set(func() { o.unsound["laptop-of-alice"] = true })
	w.door.Signal(access.Signal{Device: "laptop-of-alice"})
	if err = stream.RecvMsg(&wrapperspb.StringValue{}); status.Code(err) != codes.PermissionDenied {
		t.Error(err)
	}
	w.closed(access.DeviceNotCompliant, "gRPC call")
}

// Nobody takes the part of a download for the whole.
func TestDownloadIsBrokenOffVisibly(t *testing.T) {
	for _, c := range []struct {
		scheme, length string
		changes        []change
	}{{"http", "", nil}, {"http", "1000000", nil}, {"https", "", []change{overHTTP2}}} {
		up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
			if c.length != "" {
				w.Header().Set("Content-Length", c.length)
			}
			w.Write(make([]byte, 64<<10))
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		o := &office{}
		w := newWorld(t, []access.Route{routeTo(c.scheme+"://app.example", up)}, append(c.changes, withOffice(o))...)
		res := w.stream("GET", c.scheme+"://app.example/", nil)
		io.ReadFull(res.Body, make([]byte, 4))
		w.revoke(o, "alice")
		got, err := io.ReadAll(res.Body)
		var reset http2.StreamError
		switch {
		case c.scheme == "http" && !errors.Is(err, io.ErrUnexpectedEOF):
			t.Errorf("length %q: %d bytes, %v", c.length, len(got), err)
		case c.scheme == "https" && !errors.As(err, &reset) && !strings.Contains(fmt.Sprint(err), "stream error"):
			t.Errorf("HTTP/2: %v", err)
		}
		if own := w.closed(access.SessionEnded, "response"); own.Response.BytesOut == 0 {
			t.Errorf("%+v", own.Response)
		}
	}
}

func TestUploadIsCutOffAndRefused(t *testing.T) {
	began := make(chan bool, 1)
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 4))
		began <- true
		io.Copy(io.Discard, r.Body)
	})
	for scheme, changes := range map[string][]change{"http": nil, "https": {overHTTP2}} {
		o := &office{}
		w := newWorld(t, []access.Route{routeTo(scheme+"://app.example", up)}, append(changes, withOffice(o))...)
		body, send := io.Pipe()
		go io.WriteString(send, "part of something long")
		answer := make(chan *http.Response, 1)
		go func() { answer <- w.stream("POST", scheme+"://app.example/", body) }()
		<-began
		w.revoke(o, "alice")
		if res := <-answer; res.StatusCode != 401 {
			t.Errorf("%s: %s", scheme, res.Status)
		}
		send.Close()
		if own := w.closed(access.SessionEnded, "request"); own.Response.BytesIn == 0 {
			t.Errorf("%+v", own.Response)
		}
	}
}

// An answer that has not begun when access ends never begins.
func TestWaitingRequestIsRefused(t *testing.T) {
	asked := make(chan bool, 1)
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		<-r.Context().Done()
	})
	o := &office{}
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withOffice(o))
	answer := make(chan *http.Response, 1)
	go func() { answer <- w.stream("GET", "http://app.example/", nil) }()
	<-asked
	o.set(func() { o.unsound["laptop-of-alice"] = true })
	w.door.Signal(access.Signal{Device: "laptop-of-bob"})
	w.door.Signal(access.Signal{Device: "laptop-of-alice"})
	if res := <-answer; res.StatusCode != 403 {
		t.Error(res.Status)
	}
	w.closed(access.DeviceNotCompliant, "request")
}
