package lane

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves plaintext connections: plain requests itself, everything else by an
// http.Server.
type Server struct {
	http  *http.Server
	rest  *rest
	clock clock
	begin sync.Once
	over  atomic.Bool // ended is set

	mu        sync.Mutex // protects what follows
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{} // in the lane
	ended     error              // why nothing is accepted any more; nil: it is
	empty     chan struct{}      // closed when ended and the last of conns has left
}

// New returns a server for what an http.Server would serve, which from then on is
// served, shut down and closed by this one. Its hooks are called as ever, once for
// each connection and change of its state, whoever of the two serves it.
//
// Of its settings the lane knows ReadHeaderTimeout, IdleTimeout and MaxHeaderBytes;
// a server with ReadTimeout or WriteTimeout, or without HTTP/1, gets none. Its
// SetKeepAlivesEnabled has no effect on the lane.
func New(h *http.Server) *Server {
	s := &Server{http: h, rest: newRest(), listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}, empty: make(chan struct{})}
	s.rest.hook(h)
	return s
}

// Serve accepts connections until the listener fails or is closed, and returns why;
// http.ErrServerClosed after Shutdown and Close. Connections that are open then go
// on being served, by both.
func (s *Server) Serve(l net.Listener) error {
	s.begin.Do(func() {
		go func() { s.end(s.http.Serve(s.rest)) }()
	})
	defer l.Close()
	if err := s.listen(l); err != nil {
		return err
	}
	defer s.forget(l)
	ctx := context.Background()
	if s.http.BaseContext != nil {
		ctx = s.http.BaseContext(l)
	}
	ctx = context.WithValue(ctx, http.ServerContextKey, s.http)
	for pause := time.Duration(0); ; {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.accept(ctx, nc)
			continue
		}
		if ended := s.why(); ended != nil {
			return ended
		}
		var passing interface{ Temporary() bool } // such as too many open files
		if !errors.As(err, &passing) || !passing.Temporary() {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.logf("http: Accept error: %v; retrying in %v", err, pause)
		time.Sleep(pause)
	}
}

// accept serves a connection in a goroutine of its own.
func (s *Server) accept(ctx context.Context, nc net.Conn) {
	if s.http.ConnContext != nil {
		ctx = s.http.ConnContext(ctx, nc)
	}
	c := &conn{Conn: nc, server: s, base: ctx}
	s.mu.Lock()
	if s.ended != nil { // accepted a moment too late
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.note(http.StateNew)
	go c.serve()
}

// Shutdown accepts nothing any more, closes what is idle, waits until what is not
// has been answered or ctx ends, and then returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end(http.ErrServerClosed)
	s.each((*conn).closeIdle)
	if err := s.http.Shutdown(ctx); err != nil {
		return err
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all listeners and connections.
func (s *Server) Close() error {
	s.end(http.ErrServerClosed)
	s.each(func(c *conn) { c.Conn.Close() })
	return s.http.Close()
}

// end closes the listeners, for the first reason that is given.
func (s *Server) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return
	}
	s.ended = why
	s.over.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	s.left()
}

// why returns why nothing is accepted any more.
func (s *Server) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

func (s *Server) listen(l net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.listeners[l] = struct{}{}
	}
	return s.ended
}

func (s *Server) forget(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// each calls f for every connection in the lane.
func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
}

// remove takes a connection out of the lane.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.left()
}

// left tells who waits whether all have left. The caller holds mu.
func (s *Server) left() {
	if s.ended != nil && len(s.conns) == 0 {
		select {
		case <-s.empty:
		default:
			close(s.empty)
		}
	}
}

// logf writes to the log of the http.Server.
func (s *Server) logf(format string, args ...any) {
	if s.http.ErrorLog != nil {
		s.http.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}
