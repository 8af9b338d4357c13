package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/tunnel"
)

// carry switches the connection and returns what copies until the tunnel ends.
func (p *passage) carry(conn net.Conn) (run func(), err error) {
	target := tunnel.TCP(conn)
	s, err := p.switchTo()
	if err != nil {
		target.Abort()
		return nil, err
	}
	ended := &tunnelEnd{passage: p, stream: s, target: target}
	p.stream.becomes("tunnel", ended)
	return func() { p.copy(s, target, ended) }, nil
}

func (p *passage) copy(s tunnel.Stream, target tunnel.Conn, ended *tunnelEnd) {
	// The door closes, or over HTTP/2 the visitor has left.
	stop := context.AfterFunc(p.in.Context(), func() {
		if p.door.base.Err() != nil {
			ended.end(access.ShuttingDown)
			return
		}
		ended.cut()
	})
	defer stop()
	traffic := &tunnel.Traffic{Up: &p.out.read, Down: &p.out.written}
	stopIdle := whenIdle(traffic, p.gen.Server.Tunnels.IdleTimeout.Or(defaultTunnelIdle), func() { ended.end(access.TunnelIdle) })
	defer stopIdle()
	p.notice(ended, tunnel.Relay(s, target, traffic))
	if h2, ok := s.(*http2Stream); ok && h2.cut() {
		panic(http.ErrAbortHandler) // resets the stream
	}
}

// notice records why a tunnel ended, unless both sides had come to their end.
func (p *passage) notice(ended *tunnelEnd, err error) {
	if p.event.Response.Reason = p.stream.ended(); p.event.Response.Reason != "" || err == nil {
		return
	}
	switch why := ended.because.Load(); {
	case why != nil:
		p.event.Response.Reason = *why
	case p.door.base.Err() != nil:
		p.event.Response.Reason = access.ShuttingDown
	default:
		p.event.Response.Reason = access.ClientGone
		if _, behind := errors.AsType[*tunnel.ConnError](err); behind {
			p.event.Response.Reason = access.UpstreamBroken
		}
	}
}

// tunnelEnd ends a tunnel.
type tunnelEnd struct {
	passage *passage
	stream  tunnel.Stream
	target  tunnel.Conn
	because atomic.Pointer[access.Reason] // the first one
}

// end implements ender: the reason goes out first, if the visitor takes it.
func (e *tunnelEnd) end(why access.Reason) {
	e.because.CompareAndSwap(nil, &why)
	e.stream.End(string(why), cutWait)
	e.cut()
}

func (e *tunnelEnd) cut() {
	e.stream.Abort()
	e.target.Abort()
}

// switchTo answers that the tunnel is open and returns the visitor's side of it.
// Nothing is switched before the connection behind it stands.
func (p *passage) switchTo() (tunnel.Stream, error) {
	if p.in.ProtoMajor == 2 {
		h := p.out.Header()
		clear(h)
		h.Set("Proxy-Status", "doorward")
		h.Set(requestIDHeader, p.req.ID)
		p.out.WriteHeader(http.StatusOK)
		s := &http2Stream{in: p.in.Body, out: p.out.ResponseWriter, control: http.NewResponseController(p.out.ResponseWriter)}
		return s, s.control.Flush()
	}
	conn, rw, err := http.NewResponseController(p.out.ResponseWriter).Hijack()
	if err != nil {
		return nil, err
	}
	p.out.hijacked = true
	conn.SetDeadline(time.Time{}) // those of the request are over
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, err
	}
	early = append([]byte(nil), early...) // the reader goes, with its buffer
	if _, err := io.WriteString(conn, p.switching()); err != nil {
		conn.Close()
		return nil, err
	}
	switch p.tunnel.form {
	case "":
		return tunnel.NewPlain(conn, early), nil
	case tunnel.WebSocketToken:
		return tunnel.NewWebSocket(conn, early, false), nil
	}
	return tunnel.NewCapsules(conn, early), nil
}

// switching is the answer that opens a tunnel over HTTP/1.1.
func (p *passage) switching() string {
	p.out.status = http.StatusSwitchingProtocols
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + p.tunnel.form + "\r\n"
	switch p.tunnel.form {
	case "":
		p.out.status = http.StatusOK
		head = "HTTP/1.1 200 Connection Established\r\n"
	case tunnel.WebSocketToken:
		head += "Sec-WebSocket-Accept: " + tunnel.AcceptKey(p.in.Header.Get("Sec-Websocket-Key")) + "\r\n"
		if hasToken(p.in.Header["Sec-Websocket-Protocol"], tunnel.SubProtocol) {
			head += "Sec-WebSocket-Protocol: " + tunnel.SubProtocol + "\r\n"
		}
	default:
		head += "Capsule-Protocol: ?1\r\n"
	}
	return head + "Proxy-Status: doorward\r\n" + requestIDHeader + ": " + p.req.ID + "\r\n\r\n"
}

// http2Stream is a classic CONNECT over HTTP/2 (RFC 9113 §8.5). Go ends the
// answer only where the handler returns, so that a FIN from behind ends both
// directions.
type http2Stream struct {
	in      io.ReadCloser
	out     http.ResponseWriter
	control *http.ResponseController

	mu      sync.Mutex // protects what follows, and writes
	aborted bool
	over    bool // the target has ended
}

var errAborted = errors.New("the stream was reset")

// Read implements tunnel.Stream.
func (s *http2Stream) Read(b []byte) (int, error) {
	n, err := s.in.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.over && !s.aborted {
			err = io.EOF
		}
	}
	return n, err
}

// Send implements tunnel.Stream.
func (s *http2Stream) Send(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return errAborted
	}
	if _, err := s.out.Write(frame[tunnel.Headroom:]); err != nil {
		return err
	}
	return s.control.Flush()
}

// CloseWrite implements tunnel.Stream.
func (s *http2Stream) CloseWrite() error {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.control.SetReadDeadline(time.Unix(1, 0))
	return nil
}

// End implements tunnel.Stream: there are no words.
func (s *http2Stream) End(string, time.Duration) {}

// Abort implements tunnel.Stream. The reset is sent when the handler ends.
func (s *http2Stream) Abort() {
	s.control.SetReadDeadline(time.Unix(1, 0))
	s.control.SetWriteDeadline(time.Unix(1, 0))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
}

// cut reports whether the stream is to be reset.
func (s *http2Stream) cut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted
}

// Close implements tunnel.Stream.
func (s *http2Stream) Close() error { return nil }

// whenIdle calls f once nothing has been sent in either direction for a while,
// or up to a quarter of it longer. stop ends the watch.
func whenIdle(t *tunnel.Traffic, idle time.Duration, f func()) (stop func()) {
	step, last, still, over := idle/4, int64(-1), 0, false
	var mu sync.Mutex // protects them
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(step, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if now := t.Up.Load() + t.Down.Load(); now != last {
			last, still = now, 0
		} else if still++; still >= 4 {
			go f()
			return
		}
		timer.Reset(step)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}
