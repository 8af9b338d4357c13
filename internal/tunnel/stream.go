package tunnel

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Stream is the HTTP side of a tunnel. Read is called by one goroutine, Send and
// CloseWrite by another; End, Abort and Close by any.
type Stream interface {
	// Read returns io.EOF where the other side has said that nothing more comes,
	// an *Ended where it gave a reason, and any other error where the stream broke
	// off: what came may be a part only.
	io.Reader
	// Send sends frame[Headroom:], and may write to the bytes before.
	Send(frame []byte) error
	// CloseWrite says that nothing more comes from this side.
	CloseWrite() error
	// End tells why the tunnel ends, as far as the form has words for it and the
	// other side takes them within wait. Nothing can be sent afterwards.
	End(word string, wait time.Duration)
	// Abort cuts the connection so that the other side notices that it was cut.
	Abort()
	// Close closes the connection after both directions have ended.
	Close() error
}

var errSaid = errors.New("the tunnel has ended")

// wire is a connection that has become a tunnel, and who may write to it.
type wire struct {
	net.Conn
	writing sync.Mutex // protects what follows, and writes
	said    bool       // the last words are out, or there is nobody to say them to
}

// send writes, unless the last words are out.
func (w *wire) send(b []byte) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	if w.said {
		return errSaid
	}
	_, err := w.Write(b)
	return err
}

// lastWords writes what nothing follows.
func (w *wire) lastWords(b []byte, wait time.Duration) {
	w.SetWriteDeadline(time.Now().Add(wait)) // also for a write that is under way
	w.writing.Lock()
	defer w.writing.Unlock()
	if !w.said {
		w.said = true
		w.Write(b)
	}
}

// Abort implements Stream: no close_notify, no FIN.
func (w *wire) Abort() {
	conn := w.Conn
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

func (w *wire) closeWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// buffered reads what has been read already, then from the connection.
func buffered(conn net.Conn, early []byte) io.Reader {
	if len(early) == 0 {
		return conn
	}
	return &earlyReader{early, conn}
}

type earlyReader struct {
	early []byte
	conn  net.Conn
}

// Read implements io.Reader.
func (r *earlyReader) Read(b []byte) (int, error) {
	if len(r.early) == 0 {
		return r.conn.Read(b)
	}
	n := copy(b, r.early)
	if r.early = r.early[n:]; len(r.early) == 0 {
		r.early = nil
	}
	return n, nil
}

// plain is the stream of a classic CONNECT: the connection itself.
type plain struct {
	wire
	in io.Reader
}

// NewPlain returns the stream of a connection that a classic CONNECT has opened.
// early is what has been read from it already.
func NewPlain(conn net.Conn, early []byte) Stream {
	return &plain{wire{Conn: conn}, buffered(conn, early)}
}

// Read implements Stream.
func (p *plain) Read(b []byte) (int, error) { return p.in.Read(b) }

// Send implements Stream.
func (p *plain) Send(frame []byte) error { return p.send(frame[Headroom:]) }

// CloseWrite implements Stream: a FIN, and close_notify before it over TLS.
func (p *plain) CloseWrite() error { return p.closeWrite() }

// End implements Stream: there are no words.
func (p *plain) End(_ string, wait time.Duration) { p.lastWords(nil, wait) }
