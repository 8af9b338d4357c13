package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// errSwitched tells that the answer is taken care of.
var errSwitched = errors.New("the connection has switched protocols")

// forwardUpgrade is forward for the opening handshake of a WebSocket. Once both
// sides have switched, the connection goes on without its handler, because all
// that the handler and the server would hold on to is of no more use: for a
// connection that says nothing, that is most of what it costs.
func (p *passage) forwardUpgrade() {
	stay, done := p.outlast()
	ctx, leave := p.open()
	end := func() {
		p.leaveTarget()
		leave()
		done()
	}
	var carry func()
	defer func() {
		if carry == nil {
			end()
		}
	}()
	p.switched = func(res *http.Response) (err error) {
		carry, err = p.switchWith(ctx, res)
		return err
	}
	p.noticed = true // the connection goes on
	newCourier(p).send(ctx)
	p.switched = nil
	if carry == nil {
		return
	}
	stay()
	p.outlives, p.out.ResponseWriter = true, nil
	p.berth.lighten()
	go func(carry func()) {
		defer p.finishTunnel()
		defer end()
		carry()
	}(carry)
}

// switchWith hands the upstream's 101 to the visitor, and returns what carries the
// frames until the connection ends. With an error, nothing has been switched.
func (p *passage) switchWith(ctx context.Context, res *http.Response) (carry func(), err error) {
	if len(res.Header["Upgrade"]) != 1 || !strings.EqualFold(res.Header["Upgrade"][0], "websocket") {
		return nil, errUnasked
	}
	upstream, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return nil, fmt.Errorf("a connection that cannot be written to: %T", res.Body)
	}
	h := p.out.Header()
	for name, values := range res.Header {
		h[name] = append(h[name], values...)
	}
	conn, rw, err := http.NewResponseController(p.out.ResponseWriter).Hijack()
	if err != nil {
		return nil, err
	}
	// From here on the visitor gets no other answer.
	p.out.hijacked, p.out.status = true, http.StatusSwitchingProtocols
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Time{}); err != nil { // those of the request are over
		return nil, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, err
	}
	early = bytes.Clone(early) // the reader goes, with its buffer
	head := bytes.NewBufferString("HTTP/1.1 101 Switching Protocols\r\n")
	h.Write(head)
	head.WriteString("\r\n")
	// Whoever ends the connection from here on ends a WebSocket, and waits until the
	// visitor knows that it is one.
	s := newSocket(conn, early, &p.out)
	s.writing.Lock()
	p.stream.becomes("WebSocket", s)
	_, err = conn.Write(head.Bytes())
	s.writing.Unlock()
	if err != nil {
		return nil, err
	}
	res.Body = http.NoBody // the courier would close it
	return func() { s.carry(ctx, upstream) }, nil
}

// carry copies both directions until one of them has failed or both have ended.
func (s *socket) carry(ctx context.Context, upstream io.ReadWriteCloser) {
	cut := func() {
		upstream.Close()
		s.Conn.Close()
	}
	defer cut()
	stop := context.AfterFunc(ctx, cut)
	defer stop()
	up := make(chan struct{})
	go func() {
		defer close(up)
		defer func() {
			if v := recover(); v != nil {
				s.meter.passage.logPanic(v)
				s.meter.passage.event.Response.Reason = access.InternalError
				cut()
			}
		}()
		if err := s.toUpstream(upstream); err != nil || closeWrite(upstream) != nil {
			cut()
		}
	}()
	if err := s.fromUpstream(upstream); err != nil || closeWrite(s.Conn) != nil {
		cut()
	}
	<-up
}
