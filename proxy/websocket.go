package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// socket is the visitor's side of a WebSocket, once the upstream has switched
// protocols. It knows where the frames
// of both directions end, so that the connection can be closed in good form
// (RFC 6455 §7): a close frame to the visitor, one to the upstream, and some time
// for the visitor to answer. Nothing the visitor sends meanwhile is passed on.
//
// Each direction has a goroutine that copies. The last words to the visitor may
// come from a third one, under the lock that every write holds.
type socket struct {
	net.Conn
	meter *meter
	early []byte // came from the visitor before the connection was switched

	ending  atomic.Pointer[access.Reason] // why the connection is to end
	goodbye chan struct{}                 // closed when the visitor has been told
	heard   chan struct{}                 // closed when nothing is read from the visitor any more

	writing sync.Mutex // protects what follows
	down    frames     // upstream to visitor
	said    bool       // the visitor has been told, nothing may follow

	up frames // visitor to upstream; only toUpstream looks at it
}

const (
	statusPolicyViolation = 1008 // RFC 6455 §7.4.1
	statusGoingAway       = 1001
	maxControlPayload     = 125 // §5.5
	// idleBuffer is what a direction of a connection holds on to while nothing
	// comes. While much comes, a large buffer is lent to it.
	idleBuffer = 1 << 10
)

// newSocket wraps a connection that has been switched.
func newSocket(conn net.Conn, early []byte, m *meter) *socket {
	return &socket{Conn: conn, meter: m, early: early, goodbye: make(chan struct{}), heard: make(chan struct{})}
}

// Write implements io.Writer, towards the visitor.
func (s *socket) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.said {
		return 0, errEnded
	}
	n := 0
	stop := s.ending.Load() != nil
	if !stop || !s.down.between() {
		n = s.down.follow(b, stop)
		sent, err := s.Conn.Write(b[:n])
		s.meter.written.Add(int64(sent))
		if err != nil {
			return sent, err
		}
	}
	if s.ending.Load() != nil && s.down.between() {
		s.sayGoodbye()
		return n, errEnded
	}
	return n, nil
}

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
	s.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes toUpstream, which says the rest
	s.Conn.SetWriteDeadline(time.Now().Add(cutWait))
	// Whatever keeps either side from ending in good form.
	time.AfterFunc(3*cutWait, func() {
		s.Conn.Close()
		s.meter.passage.flight.End(errEnded)
	})
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.down.between() && !s.said {
		s.sayGoodbye()
	} // otherwise the write that completes the frame does
}

// fromUpstream copies to the visitor.
func (s *socket) fromUpstream(src io.Reader) error {
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
			if _, err := s.Write(b[:got]); err != nil {
				return err
			}
		}
		switch {
		case readErr == io.EOF:
			return nil
		case readErr != nil:
			return readErr
		}
		buffer.read(got)
	}
}

// toUpstream copies from the visitor.
func (s *socket) toUpstream(dst io.Writer) error {
	defer close(s.heard)
	if len(s.early) > 0 {
		if err := s.pass(dst, s.early); err != nil {
			return err
		}
		s.early = nil
	}
	buffer := lent{from: &s.meter.passage.door.buffers}
	defer buffer.giveBack()
	for {
		b := buffer.next()
		got, readErr := s.Conn.Read(b)
		if s.ending.Load() != nil {
			s.farewell(dst, b)
			return errEnded
		}
		if got > 0 {
			if err := s.pass(dst, b[:got]); err != nil {
				return err
			}
		}
		switch {
		case readErr == io.EOF:
			return nil
		case readErr != nil:
			return readErr
		}
		buffer.read(got)
	}
}

// pass hands to the upstream what has come from the visitor.
func (s *socket) pass(dst io.Writer, b []byte) error {
	s.meter.read.Add(int64(len(b)))
	s.up.follow(b, false)
	_, err := dst.Write(b)
	return err
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
