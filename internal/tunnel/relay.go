package tunnel

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Conn is the TCP side of a tunnel.
type Conn interface {
	io.ReadWriteCloser
	// CloseWrite says that nothing more comes: a FIN.
	CloseWrite() error
	// Abort cuts the connection so that the other side notices: a RST.
	Abort()
}

// TCP returns the TCP side of a tunnel on a connection.
func TCP(conn net.Conn) Conn { return &tcp{wire{Conn: conn}} }

type tcp struct{ wire }

// CloseWrite implements Conn. A connection that has no such thing is closed when
// the other direction ends, too.
func (t *tcp) CloseWrite() error {
	if err := t.closeWrite(); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// Traffic counts the bytes of a tunnel: up from the Stream to the Conn, down the
// other way.
type Traffic struct{ Up, Down *atomic.Int64 }

// ConnError is an error of the TCP side.
type ConnError struct{ Err error }

// Error implements error.
func (e *ConnError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConnError) Unwrap() error { return e.Err }

// Relay copies between the two sides until both directions have ended, and then
// closes both. A direction that breaks breaks everything at once, so that nobody
// takes a part for the whole; its error is returned, a *ConnError if it was the
// TCP side's. Whatever is under way in a direction is one buffer, so whoever
// reads slowly is written slowly.
func Relay(s Stream, c Conn, t *Traffic) error {
	var (
		once  sync.Once
		first error
	)
	broke := func(err error) {
		if err != nil {
			once.Do(func() {
				first = err
				s.Abort()
				c.Abort()
			})
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		broke(send(s, c, t.Down))
	}()
	broke(receive(s, c, t.Up))
	<-done
	s.Close()
	c.Close()
	return first
}

// send copies from the TCP side to the HTTP side.
func send(s Stream, c Conn, count *atomic.Int64) error {
	var l lent
	defer l.giveBack()
	for {
		frame := l.next()
		n, readErr := c.Read(frame[Headroom:])
		if n > 0 {
			if err := s.Send(frame[:Headroom+n]); err != nil {
				return err
			}
			count.Add(int64(n))
		}
		switch {
		case readErr == io.EOF:
			if err := s.CloseWrite(); !errors.Is(err, errSaid) {
				return err
			}
			return nil // both directions were closed at once
		case readErr != nil:
			return &ConnError{readErr}
		}
		l.read(n)
	}
}

// receive copies from the HTTP side to the TCP side.
func receive(s Stream, c Conn, count *atomic.Int64) error {
	var l lent
	defer l.giveBack()
	for {
		b := l.next()[Headroom:]
		n, readErr := s.Read(b)
		if n > 0 {
			if _, err := c.Write(b[:n]); err != nil {
				return &ConnError{err}
			}
			count.Add(int64(n))
		}
		switch {
		case readErr == io.EOF:
			return c.CloseWrite()
		case readErr != nil:
			return readErr
		}
		l.read(n)
	}
}

const (
	// idleBytes is what a direction holds on to while little comes, busyBytes what
	// it is lent while much does: four records of TLS.
	idleBytes = 1 << 10
	busyBytes = 64 << 10
)

var busy sync.Pool

// lent is the buffer of one direction, small while little comes, so that tunnels
// which wait cost little.
type lent struct {
	small [idleBytes]byte
	large *[busyBytes]byte
}

func (l *lent) next() []byte {
	if l.large != nil {
		return l.large[:]
	}
	return l.small[:]
}

// read notes how much came.
func (l *lent) read(n int) {
	switch {
	case l.large == nil && n == idleBytes-Headroom:
		if l.large, _ = busy.Get().(*[busyBytes]byte); l.large == nil {
			l.large = new([busyBytes]byte)
		}
	case n < idleBytes-Headroom:
		l.giveBack()
	}
}

func (l *lent) giveBack() {
	if l.large != nil {
		busy.Put(l.large)
		l.large = nil
	}
}
