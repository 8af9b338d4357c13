package spoe

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/doorward/doorward/proxy"
)

const (
	version       = "2.0"
	helloTimeout  = 10 * time.Second
	idleTimeout   = 10 * time.Minute
	writeTimeout  = 10 * time.Second
	inFlight      = 200                    // questions of one connection that are being answered
	connections   = 1000                   // more are closed at once
	quiet         = 100 * time.Millisecond // without a question, before a connection is left
	statusNormal  = 0
	statusInvalid = 4 // "invalid frame received"
)

// Server is the agent that HAProxy asks.
type Server struct {
	opts proxy.SideOptions

	mu       sync.Mutex
	closing  bool
	leaving  bool
	listener net.Listener
	conns    map[*conn]bool
	open     sync.WaitGroup
}

// New returns a server that does not listen yet.
func New(opts proxy.SideOptions) *Server {
	opts = opts.WithDefaults()
	return &Server{opts: opts, conns: map[*conn]bool{}}
}

// Serve answers until Shutdown or Close, which make it return nil.
func (s *Server) Serve(l net.Listener) error {
	if s.opts.TLS != nil {
		l = tls.NewListener(l, s.opts.TLS)
	}
	s.mu.Lock()
	s.listener = l
	closing := s.closing
	s.mu.Unlock()
	if closing {
		l.Close()
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.closing || s.leaving {
				return nil
			}
			return err
		}
		s.mu.Lock()
		if s.closing || len(s.conns) >= connections {
			s.mu.Unlock()
			nc.Close()
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		c := &conn{server: s, nc: nc, ctx: ctx, cancel: cancel, slots: make(chan struct{}, inFlight)}
		s.conns[c] = true
		s.open.Add(1)
		s.mu.Unlock()
		go c.serve()
	}
}

// Leave has HAProxy connect anew, to whoever listens here then: a connection is
// closed when no question has come for a moment. It waits for the last one until
// ctx ends, and then shuts down.
func (s *Server) Leave(ctx context.Context) error {
	s.mu.Lock()
	s.leaving = true
	if s.listener != nil {
		s.listener.Close()
	}
	for c := range s.conns {
		if c.between {
			c.nc.SetReadDeadline(time.Now().Add(quiet))
		}
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return s.Shutdown(ctx)
	}
}

// Shutdown takes no more questions and waits for those under way until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop(func(c *conn) { c.nc.SetReadDeadline(time.Unix(1, 0)) })
	done := make(chan struct{})
	go func() {
		s.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.Close()
		<-done
		return ctx.Err()
	}
}

// Close ends everything at once.
func (s *Server) Close() error {
	s.stop(func(c *conn) {
		c.cancel()
		c.nc.Close()
	})
	return nil
}

func (s *Server) stop(each func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	if s.listener != nil {
		s.listener.Close()
	}
	for c := range s.conns {
		each(c)
	}
}

// conn is one connection of HAProxy's, on which many questions may be under way.
type conn struct {
	server *Server
	nc     net.Conn
	ctx    context.Context
	cancel context.CancelFunc
	// between tells that the next frame has not begun; protected by server.mu.
	between bool
	limit   uint64 // the largest frame that HAProxy takes
	slots   chan struct{}
	asked   sync.WaitGroup

	mu sync.Mutex // guards writing
}

func (c *conn) serve() {
	s := c.server
	err := c.talk()
	c.asked.Wait()
	c.cancel()
	if errors.Is(err, errProtocol) {
		s.opts.Log.Warn("a front end does not follow the protocol", "peer", c.nc.RemoteAddr().String(), "error", err)
		c.disconnect(statusInvalid, "invalid frame")
	} else {
		c.disconnect(statusNormal, "")
	}
	c.nc.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.open.Done()
}

var errProtocol = errors.New("protocol")

// talk reads frames until the connection or the server ends.
func (c *conn) talk() error {
	c.nc.SetDeadline(time.Now().Add(helloTimeout))
	r := bufio.NewReader(c.nc)
	hello, err := readFrame(r)
	if err != nil {
		return asProtocol(err)
	}
	last, err := c.hello(hello)
	if err != nil || last {
		return err
	}
	c.nc.SetWriteDeadline(time.Time{})
	for {
		if !c.expect(true) {
			return nil
		}
		if _, err := r.Peek(1); err != nil {
			return asProtocol(err)
		}
		if !c.expect(false) {
			return nil
		}
		f, err := readFrame(r)
		if err != nil {
			return asProtocol(err)
		}
		switch f.kind {
		case haproxyNotify:
			select {
			case c.slots <- struct{}{}:
			case <-c.ctx.Done():
				return nil
			}
			c.asked.Go(func() {
				defer func() { <-c.slots }()
				c.answer(f)
			})
		case haproxyDisconnect:
			return nil
		default:
			return fmt.Errorf("%w: a frame of type %d", errProtocol, f.kind)
		}
	}
}

// expect sets how long the next frame may take to begin, or to be whole once it has
// begun, unless the server is shutting down, which has put an end to that.
func (c *conn) expect(next bool) bool {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.server.closing {
		return false
	}
	limit := idleTimeout
	if next && c.server.leaving {
		limit = quiet
	}
	c.between = next
	c.nc.SetReadDeadline(time.Now().Add(limit))
	return true
}

// asProtocol tells a malformed frame from the end of the connection.
func asProtocol(err error) error {
	var network net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network) {
		return err
	}
	return fmt.Errorf("%w: %w", errProtocol, err)
}

// hello agrees on version and frame size (specification §3.2.4). It reports
// whether that was all: HAProxy only looked whether the agent is there.
func (c *conn) hello(f *frame) (last bool, err error) {
	d := decoder{b: f.payload}
	said := d.list(-1)
	versions, _ := said["supported-versions"].(string)
	size, _ := said["max-frame-size"].(uint64)
	switch {
	case d.err != nil:
		return false, fmt.Errorf("%w: %w", errProtocol, d.err)
	case f.kind != haproxyHello || f.stream != 0 || f.frame != 0:
		return false, fmt.Errorf("%w: it does not begin with HAPROXY-HELLO", errProtocol)
	case !slices.ContainsFunc(strings.Split(versions, ","), func(v string) bool { return strings.TrimSpace(v) == version }):
		return false, fmt.Errorf("%w: version %s is not offered", errProtocol, version)
	case size < minFrame:
		return false, fmt.Errorf("%w: no frame of useful size is allowed", errProtocol)
	}
	c.limit = min(size, maxFrame)
	payload := appendString(nil, "version", version)
	payload = appendUint(payload, "max-frame-size", c.limit)
	payload = appendString(payload, "capabilities", "pipelining")
	last, _ = said["healthcheck"].(bool)
	return last, c.write(&frame{kind: agentHello, payload: payload})
}

// answer decides on one question. An answer that HAProxy could not take, because
// it is larger than a frame, is no answer, so that HAProxy's own refusal stands.
func (c *conn) answer(f *frame) {
	ack := &frame{kind: agentAck, stream: f.stream, frame: f.frame, payload: variables(c.verdict(f))}
	if uint64(len(ack.append(nil))-4) > c.limit {
		c.server.opts.Log.Warn("an answer is larger than HAProxy takes", "peer", c.nc.RemoteAddr().String(), "cure", "raise tune.bufsize, or let the route tell less")
		ack.payload = variables(proxy.Refused(errors.New("too large")))
	}
	if err := c.write(ack); err != nil {
		c.nc.Close()
	}
}

func (c *conn) verdict(f *frame) (v *proxy.Verdict) {
	s := c.server
	defer s.opts.Begin()()
	defer func() {
		if bug := recover(); bug != nil {
			s.opts.Log.Error("panic while answering a front end", "panic", fmt.Sprint(bug), "stack", string(debug.Stack()))
			v = proxy.Refused(errors.New("internal error"))
		}
	}()
	who, from := c.asker()
	if err := s.opts.Door.MayAsk(func(c *proxy.Config) *proxy.SideDoor { return &c.SPOE }, who); err != nil {
		return proxy.Refused(err)
	}
	q, err := question(c.ctx, from, f.payload)
	if err != nil {
		s.opts.Log.Warn("a front end asked in a way that means nothing", "peer", from, "error", err)
		return proxy.Refused(err)
	}
	return s.opts.Door.Authorize(q)
}

// asker returns who is at the other end of the connection, and its address.
func (c *conn) asker() (who proxy.Asker, from string) {
	from = c.nc.RemoteAddr().String()
	if ap, err := netip.ParseAddrPort(from); err == nil {
		who.Addr = ap.Addr().Unmap().WithZone("")
	}
	if secure, ok := c.nc.(*tls.Conn); ok {
		state := secure.ConnectionState()
		who.TLS = &state
	}
	return who, from
}

func (c *conn) write(f *frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.nc.Write(f.append(nil))
	return err
}

func (c *conn) disconnect(status uint64, message string) {
	c.write(&frame{kind: agentDisconnect, payload: appendString(appendUint(nil, "status-code", status), "message", cmp.Or(message, "bye"))})
}
