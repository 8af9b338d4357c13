package tunnel

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// webSocket is a stream of binary messages (RFC 6455). How the bytes are cut
// into messages means nothing, except that an empty message stands for a FIN:
// nothing more comes in that direction. A close frame without one ends both.
type webSocket struct {
	wire
	in     *bufio.Reader
	client bool
	left   uint64
	mask   [4]byte // of the frame that is read; zero: none
	masked int     // how far into the mask
	fin    bool    // the frame is the last of its message
	inside bool    // a message has begun
	got    bool    // and holds something
	err    error   // of every further Read
}

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10

	finBit, maskBit = 0x80, 0x80

	closeNormal    = 1000
	closeGoingAway = 1001
	closeProtocol  = 1002
	closePolicy    = 1008
	maxControl     = 125
)

var errWebSocket = errors.New("a frame that does not follow RFC 6455")

// NewWebSocket returns the stream of a connection that has switched to
// WebSocket. client says which side this is. early is what has been read already.
func NewWebSocket(conn net.Conn, early []byte, client bool) Stream {
	return newWebSocket(conn, early, client)
}

func newWebSocket(conn net.Conn, early []byte, client bool) *webSocket {
	return &webSocket{wire: wire{Conn: conn}, in: bufio.NewReaderSize(buffered(conn, early), capsuleBuffer), client: client}
}

// AcceptKey returns what a server answers to the key of a handshake (RFC 6455
// §4.2.2), empty if the key is none.
func AcceptKey(key string) string {
	if nonce, err := base64.StdEncoding.DecodeString(key); err != nil || len(nonce) != 16 {
		return ""
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Read implements Stream.
func (s *webSocket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for s.err == nil && s.left == 0 {
		if s.inside && s.fin {
			s.inside = false
			if !s.got {
				s.err = io.EOF
				break
			}
		}
		s.err = s.next()
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.in.Read(b[:min(uint64(len(b)), s.left)])
	s.unmask(b[:n])
	s.left -= uint64(n)
	if n == 0 && err != nil {
		s.err = broken(err)
	}
	return n, s.err
}

func (s *webSocket) unmask(b []byte) {
	if !s.client {
		s.masked = xor(b, s.mask, s.masked)
	}
}

// xor masks or unmasks, beginning at a place in the mask, and returns the next.
func xor(b []byte, mask [4]byte, at int) int {
	for len(b) > 0 && at != 0 {
		b[0] ^= mask[at]
		b, at = b[1:], (at+1)&3
	}
	word := uint64(binary.LittleEndian.Uint32(mask[:]))
	word |= word << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= mask[i&3]
	}
	return (at + len(b)) & 3
}

// next reads the header of the next frame, and the whole of a control frame.
func (s *webSocket) next() error {
	var h [8]byte
	if _, err := io.ReadFull(s.in, h[:2]); err != nil {
		return errTruncated
	}
	fin, op, masked, size := h[0]&finBit != 0, h[0]&0x0f, h[1]&maskBit != 0, uint64(h[1]&0x7f)
	if h[0]&0x70 != 0 || masked == s.client {
		return s.protocolError()
	}
	switch size {
	case 126:
		if _, err := io.ReadFull(s.in, h[:2]); err != nil {
			return errTruncated
		}
		size = uint64(binary.BigEndian.Uint16(h[:]))
	case 127:
		if _, err := io.ReadFull(s.in, h[:8]); err != nil {
			return errTruncated
		}
		if size = binary.BigEndian.Uint64(h[:]); size > 1<<63-1 {
			return s.protocolError()
		}
	}
	s.mask, s.masked = [4]byte{}, 0
	if masked {
		if _, err := io.ReadFull(s.in, s.mask[:]); err != nil {
			return errTruncated
		}
	}
	switch op {
	case opBinary, opContinuation:
		if (op == opContinuation) != s.inside {
			return s.protocolError()
		}
		s.got = s.inside && s.got || size > 0
		s.inside, s.fin, s.left = true, fin, size
		return nil
	case opClose, opPing, opPong:
		if !fin || size > maxControl {
			return s.protocolError()
		}
		return s.control(op, int(size))
	}
	return s.protocolError() // text among them
}

func (s *webSocket) protocolError() error {
	s.lastWords(s.frame(opClose, closePayload(closeProtocol, "")), time.Second)
	return errWebSocket
}

// control answers a control frame. left is not used meanwhile: it is zero
// between frames, where control frames stand.
func (s *webSocket) control(op byte, size int) error {
	payload := make([]byte, size)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		return errTruncated
	}
	s.unmask(payload)
	switch op {
	case opPing:
		return s.send(s.frame(opPong, payload))
	case opClose:
		if size == 1 {
			return s.protocolError()
		}
		code := closeNormal
		if size >= 2 {
			code = int(binary.BigEndian.Uint16(payload))
		}
		s.lastWords(s.frame(opClose, payload[:min(size, 2)]), time.Second) // §5.5.1
		switch code {
		case closeNormal:
			return io.EOF
		case closePolicy, closeGoingAway:
			word, _, _ := strings.Cut(string(payload[2:]), ":")
			return &Ended{word[:min(len(word), maxWord)]}
		}
		return errTruncated
	}
	return nil
}

// Send implements Stream.
func (s *webSocket) Send(frame []byte) error {
	return s.send(frame[s.putHeader(frame):])
}

// putHeader writes a header right before the data of a frame, masks the data if
// this side has to, and returns where the header begins.
func (s *webSocket) putHeader(frame []byte) int {
	at := Headroom
	bit := byte(0)
	if s.client {
		bit = maskBit
		at -= 4
		rand.Read(frame[at:Headroom])
		xor(frame[Headroom:], [4]byte(frame[at:Headroom]), 0)
	}
	switch size := len(frame) - Headroom; {
	case size < 126:
		at -= 2
		frame[at+1] = bit | byte(size)
	case size < 1<<16:
		at -= 4
		frame[at+1] = bit | 126
		binary.BigEndian.PutUint16(frame[at+2:], uint16(size))
	default:
		at -= 10
		frame[at+1] = bit | 127
		binary.BigEndian.PutUint64(frame[at+2:], uint64(size))
	}
	frame[at] = finBit | opBinary
	return at
}

// frame returns a whole short frame.
func (s *webSocket) frame(op byte, payload []byte) []byte {
	b := append(make([]byte, Headroom), payload...)
	at := s.putHeader(b)
	b[at] = finBit | op
	return b[at:]
}

func closePayload(code uint16, text string) []byte {
	b := append(binary.BigEndian.AppendUint16(nil, code), text...)
	return b[:min(len(b), maxControl)]
}

// CloseWrite implements Stream.
func (s *webSocket) CloseWrite() error { return s.send(s.frame(opBinary, nil)) }

// Ping shows everything on the way that the connection is in use.
func (s *webSocket) Ping() error { return s.send(s.frame(opPing, nil)) }

// End implements Stream.
func (s *webSocket) End(word string, wait time.Duration) {
	s.lastWords(s.frame(opClose, closePayload(closePolicy, word)), wait)
}

// Close implements Stream: with the closing handshake, as far as the other side
// does not keep it waiting.
func (s *webSocket) Close() error {
	s.lastWords(s.frame(opClose, closePayload(closeNormal, "")), time.Second)
	return s.Conn.Close()
}
