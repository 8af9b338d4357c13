package tunnel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// capsules is a stream of capsules (RFC 9297 §3.2): DATA, and FINAL_DATA in
// place of a FIN, so that a connection that breaks is no end. Unknown capsules
// are skipped. Nothing is kept but what a header needs.
type capsules struct {
	wire
	in    *bufio.Reader
	left  uint64 // bytes of the capsule that are to come
	final bool   // it is the last one
	err   error  // of every further Read
}

var (
	errTruncated   = errors.New("the tunnel broke off")
	errCapsuleSize = errors.New("a capsule that is too long")
	errCapsuleWord = errors.New("a reason that is too long")
)

const (
	// capsuleBuffer is what a stream reads headers through. Data goes past it.
	capsuleBuffer = 512
	// maxSkipped is the longest capsule of an unknown type that is skipped.
	maxSkipped = 64 << 10
)

// NewCapsules returns the stream of a connection that has switched to
// connect-tcp. early is what has been read from it already.
func NewCapsules(conn net.Conn, early []byte) Stream {
	return &capsules{wire: wire{Conn: conn}, in: bufio.NewReaderSize(buffered(conn, early), capsuleBuffer)}
}

// Read implements Stream.
func (c *capsules) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for c.err == nil && c.left == 0 {
		if c.final {
			c.err = io.EOF
			break
		}
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.in.Read(b[:min(uint64(len(b)), c.left)])
	c.left -= uint64(n)
	if n == 0 && err != nil {
		c.err = broken(err)
	}
	return n, c.err
}

// broken turns an end where none may be into an error.
func broken(err error) error {
	if err == io.EOF {
		return errTruncated
	}
	return err
}

// next reads the header of the next capsule, and the whole of one that is no
// data.
func (c *capsules) next() error {
	kind, err := readVarint(c.in)
	if err != nil {
		return broken(err)
	}
	size, err := readVarint(c.in)
	if err != nil {
		return broken(err)
	}
	switch kind {
	case capsuleData:
		c.left = size
	case capsuleFinal:
		c.left, c.final = size, true
	case capsuleEnded:
		if size > maxWord {
			return errCapsuleWord
		}
		word := make([]byte, size)
		if _, err := io.ReadFull(c.in, word); err != nil {
			return errTruncated
		}
		return &Ended{string(word)}
	default:
		if size > maxSkipped {
			return errCapsuleSize
		}
		if _, err := c.in.Discard(int(size)); err != nil {
			return broken(err)
		}
	}
	return nil
}

// readVarint reads a QUIC variable-length integer (RFC 9000 §16).
func readVarint(r io.ByteReader) (uint64, error) {
	first, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	v := uint64(first & 0x3f)
	for range 1<<(first>>6) - 1 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, broken(err)
		}
		v = v<<8 | uint64(b)
	}
	return v, nil
}

// Send implements Stream.
func (c *capsules) Send(frame []byte) error {
	return c.send(frame[putCapsule(frame, capsuleData):])
}

// putCapsule writes a header right before the data of a frame and returns where
// it begins.
func putCapsule(frame []byte, kind uint32) int {
	size := uint64(len(frame) - Headroom)
	at := Headroom - 4
	if size < 1<<30 {
		binary.BigEndian.PutUint32(frame[at:], uint32(size)|2<<30)
	} else {
		at -= 4
		binary.BigEndian.PutUint64(frame[at:], size|3<<62)
	}
	at -= 4
	binary.BigEndian.PutUint32(frame[at:], kind|2<<30)
	return at
}

// CloseWrite implements Stream.
func (c *capsules) CloseWrite() error {
	return c.send(appendVarint(appendVarint(nil, capsuleFinal), 0))
}

// End implements Stream.
func (c *capsules) End(word string, wait time.Duration) {
	word = word[:min(len(word), maxWord)]
	b := appendVarint(appendVarint(nil, capsuleEnded), uint64(len(word)))
	c.lastWords(append(b, word...), wait)
}
