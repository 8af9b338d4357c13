package proxy

import "encoding/binary"

// follower knows where the units of a byte stream end: frames, messages, events.
// Between two of them something of ours can be put in, or the stream ended,
// without breaking any. It keeps no bytes.
type follower interface {
	// follow takes the next bytes of the stream. With stop it takes no more than
	// reach the end of a unit. It returns how many it took, all without stop.
	follow(b []byte, stop bool) int
	// between reports whether no unit is unfinished.
	between() bool
}

// frames follows one direction of a WebSocket connection (RFC 6455 §5.2). What
// the frames mean does not matter: control frames may stand between any two.
type frames struct {
	header [14]byte
	have   int    // bytes of the header
	left   uint64 // bytes of the payload that are to come
	// closed tells that a close frame has passed, after which no frame may follow
	// (§5.5.1).
	closed bool
}

const (
	opClose     = 8
	maskBit     = 0x80
	finBit      = 0x80
	lengthBits  = 0x7f
	length16Bit = 126
	length64Bit = 127
)

func (f *frames) between() bool { return f.have == 0 && f.left == 0 }

func (f *frames) follow(b []byte, stop bool) int {
	taken := 0
	for taken < len(b) {
		if f.left > 0 { // in the payload, whose header has been dealt with
			n := min(f.left, uint64(len(b)-taken))
			f.left -= n
			taken += int(n)
		} else {
			f.header[f.have] = b[taken]
			f.have++
			taken++
			if f.have < f.headerSize() {
				continue
			}
			f.closed = f.closed || f.header[0]&0x0f == opClose
			f.left = f.payload()
			f.have = 0
		}
		if stop && f.left == 0 {
			break
		}
	}
	return taken
}

// headerSize returns how long the header is, as far as what is there tells.
func (f *frames) headerSize() int {
	if f.have < 2 {
		return 2
	}
	size := 2
	switch f.header[1] & lengthBits {
	case length16Bit:
		size += 2
	case length64Bit:
		size += 8
	}
	if f.header[1]&maskBit != 0 {
		size += 4
	}
	return size
}

func (f *frames) payload() uint64 {
	switch n := f.header[1] & lengthBits; n {
	case length16Bit:
		return uint64(binary.BigEndian.Uint16(f.header[2:]))
	case length64Bit:
		return binary.BigEndian.Uint64(f.header[2:])
	default:
		return uint64(n)
	}
}

// messages follows one direction of a gRPC call: each message has a flag and its
// length in front (gRPC over HTTP2, "Length-Prefixed-Message").
type messages struct {
	header [5]byte
	have   int
	left   uint32
}

func (m *messages) between() bool { return m.have == 0 && m.left == 0 }

func (m *messages) follow(b []byte, stop bool) int {
	taken := 0
	for taken < len(b) {
		if m.left > 0 {
			n := min(uint64(m.left), uint64(len(b)-taken))
			m.left -= uint32(n)
			taken += int(n)
		} else {
			m.header[m.have] = b[taken]
			m.have++
			taken++
			if m.have < len(m.header) {
				continue
			}
			m.left = binary.BigEndian.Uint32(m.header[1:])
			m.have = 0
		}
		if stop && m.left == 0 {
			break
		}
	}
	return taken
}

// events follows server-sent events (HTML, "Server-sent events"). An event ends
// with an empty line; comments are part of none.
type events struct {
	inLine  bool // the line has begun
	pending bool // the event has a line that is no comment
	cr      bool // the last byte was a CR, so that an LF would belong to it
}

func (e *events) between() bool { return !e.inLine && !e.pending }

func (e *events) follow(b []byte, stop bool) int {
	for i, c := range b {
		afterCR := e.cr
		e.cr = c == '\r'
		switch {
		case c == '\n' && afterCR:
			continue
		case c == '\n' || c == '\r':
			if !e.inLine {
				e.pending = false
			}
			e.inLine = false
		case !e.inLine:
			e.inLine = true
			e.pending = e.pending || c != ':'
			continue
		default:
			continue
		}
		if stop && e.between() {
			return i + 1
		}
	}
	return len(b)
}
