package proxy

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// socket is the visitor's side of a WebSocket. httputil.ReverseProxy copies from
// and to it once the upstream has switched protocols. It knows where the frames
// of both directions end, so that the connection can be closed in good form
// (RFC 6455 §7): a close frame to the visitor, one to the upstream, and some time
// for the visitor to answer. Nothing the visitor sends meanwhile is passed on.
//
// Each direction has a goroutine that copies. The last words to the visitor may
// come from a third one, under the lock that every write holds.
type socket struct {
	net.Conn
	meter *meter

	ending  atomic.Pointer[access.Reason] // why the connection is to end
	goodbye chan struct{}                 // closed when the visitor has been told
	heard   chan struct{}                 // closed when nothing is read from the visitor any more

	writing sync.Mutex // protects what follows
	head    int        // how much of the empty line behind the 101 has passed
	down    frames     // upstream to visitor
	said    bool       // the visitor has been told, nothing may follow

	up frames // visitor to upstream; only WriteTo looks at it
}

const (
	statusPolicyViolation = 1008 // RFC 6455 §7.4.1
	statusGoingAway       = 1001
	maxControlPayload     = 125 // §5.5
	endOfHead             = "\r\n\r\n"
	// idleBuffer is what a direction of a connection holds on to while nothing
	// comes. While much comes, a large buffer is lent to it.
	idleBuffer = 1 << 10
)

// newSocket wraps a hijacked connection. The answer to the handshake goes
// through the writer that is returned.
func newSocket(conn net.Conn, rw *bufio.ReadWriter, m *meter) (*socket, *bufio.ReadWriter) {
	s := &socket{Conn: conn, meter: m, goodbye: make(chan struct{}), heard: make(chan struct{})}
	return s, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(s, idleBuffer))
}

// Write implements io.Writer, towards the visitor.
func (s *socket) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.said {
		return 0, errEnded
	}
	n := s.passHead(b)
	stop := s.ending.Load() != nil
	if !stop || !s.whole() {
		head := n
		n += s.down.follow(b[head:], stop)
		sent, err := s.Conn.Write(b[:n])
		s.meter.written.Add(int64(max(0, sent-head)))
		if err != nil {
			return sent, err
		}
	}
	if s.ending.Load() != nil && s.whole() {
		s.sayGoodbye()
		return n, errEnded
	}
	return n, nil
}

// passHead returns how many bytes still belong to the answer to the handshake.
func (s *socket) passHead(b []byte) int {
	n := 0
	for s.head < len(endOfHead) && n < len(b) {
		switch b[n] {
		case endOfHead[s.head]:
			s.head++
		case '\r':
			s.head = 1
		default:
			s.head = 0
		}
		n++
	}
	return n
}

// whole reports whether a frame may be put in. The lock is held.
func (s *socket) whole() bool { return s.head == len(endOfHead) && s.down.between() }

// sayGoodbye tells the visitor, unless the upstream has closed already. The lock
// is held.
func (s *socket) sayGoodbye() {
	s.said = true
	if !s.down.closed {
		s.Conn.Write(closeFrame(*s.ending.Load(), nil))
	}
	close(s.goodbye)
}

// end implements ender.
func (s *socket) end(why access.Reason) {
	s.ending.Store(&why)
	s.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes WriteTo, which says the rest
	s.Conn.SetWriteDeadline(time.Now().Add(cutWait))
	// Whatever keeps either side from ending in good form.
	time.AfterFunc(3*cutWait, func() {
		s.Conn.Close()
		s.meter.passage.cut(errEnded)
	})
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.whole() && !s.said {
		s.sayGoodbye()
	} // otherwise the write that completes the frame does
}

// ReadFrom implements io.ReaderFrom: it copies from the upstream.
func (s *socket) ReadFrom(src io.Reader) (n int64, err error) {
	defer func() {
		if s.ending.Load() != nil {
			<-s.heard // the connection is closed when the first direction returns
		}
	}()
	buffer := lent{from: &s.meter.passage.door.buffers}
	defer buffer.giveBack()
	for {
		b := buffer.next()
		got, readErr := src.Read(b)
		if got > 0 {
			sent, err := s.Write(b[:got])
			n += int64(sent)
			if err != nil {
				return n, err
			}
		}
		switch {
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return n, readErr
		}
		buffer.read(got)
	}
}

// WriteTo implements io.WriterTo: it copies to the upstream.
func (s *socket) WriteTo(dst io.Writer) (n int64, err error) {
	defer close(s.heard)
	buffer := lent{from: &s.meter.passage.door.buffers}
	defer buffer.giveBack()
	for {
		b := buffer.next()
		got, readErr := s.Conn.Read(b)
		if s.ending.Load() != nil {
			s.farewell(dst, b)
			return n, errEnded
		}
		if got > 0 {
			s.meter.read.Add(int64(got))
			s.up.follow(b[:got], false)
			sent, err := dst.Write(b[:got])
			n += int64(sent)
			if err != nil {
				return n, err
			}
		}
		switch {
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return n, readErr
		}
		buffer.read(got)
	}
}

// farewell tells the upstream, once the visitor has been told, and waits for the
// visitor to answer: a connection that is closed while something arrives may
// lose what was sent last.
func (s *socket) farewell(upstream io.Writer, b []byte) {
	wait := time.NewTimer(cutWait)
	defer wait.Stop()
	select {
	case <-s.goodbye:
	case <-wait.C:
	}
	if s.up.between() && !s.up.closed {
		var mask [4]byte
		rand.Read(mask[:])
		upstream.Write(closeFrame(*s.ending.Load(), &mask))
	}
	s.Conn.SetReadDeadline(time.Now().Add(cutWait))
	for !s.up.closed {
		n, err := s.Conn.Read(b)
		s.up.follow(b[:n], false)
		if err != nil {
			return
		}
	}
}

// CloseWrite ends one direction, where the connection can do that.
func (s *socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// closeFrame writes a close frame (§5.5.1), masked as a client has to (§5.3).
func closeFrame(why access.Reason, mask *[4]byte) []byte {
	code := uint16(statusPolicyViolation)
	if why == access.ShuttingDown {
		code = statusGoingAway
	}
	payload := binary.BigEndian.AppendUint16(nil, code)
	payload = append(payload, why...)
	payload = append(payload, ": "...)
	payload = append(payload, why.Info().Title...) // ASCII, so it can be cut anywhere
	payload = payload[:min(len(payload), maxControlPayload)]
	frame := []byte{finBit | opClose, byte(len(payload))}
	if mask != nil {
		frame[1] |= maskBit
		frame = append(frame, mask[:]...)
		for i := range payload {
			payload[i] ^= mask[i%len(mask)]
		}
	}
	return append(frame, payload...)
}

// lent is a buffer that is small while little comes, so that connections which
// wait cost little.
type lent struct {
	from  *buffers
	small [idleBuffer]byte
	large []byte
}

func (l *lent) next() []byte {
	if l.large != nil {
		return l.large
	}
	return l.small[:]
}

// read notes how much came.
func (l *lent) read(n int) {
	switch {
	case l.large == nil && n == len(l.small):
		l.large = l.from.Get()
	case n < len(l.small):
		l.giveBack()
	}
}

func (l *lent) giveBack() {
	if l.large != nil {
		l.from.Put(l.large)
		l.large = nil
	}
}
