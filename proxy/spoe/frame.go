package spoe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The types of frames (SPOE specification §3.2).
const (
	haproxyHello      = 1
	haproxyDisconnect = 2
	haproxyNotify     = 3
	agentHello        = 101
	agentDisconnect   = 102
	agentAck          = 103
)

const (
	flagFin   = 1
	flagAbort = 2
)

// The types of values, in the low four bits; the high ones are flags.
const (
	typeNull = iota
	typeBool
	typeInt32
	typeUint32
	typeInt64
	typeUint64
	typeIPv4
	typeIPv6
	typeString
	typeBinary
	typeBits = 0x0f
	flagTrue = 0x10
)

const (
	// maxFrame is the largest frame that is read: more than a buffer of HAProxy
	// (tune.bufsize, 16 KiB unless it was told otherwise) may hold.
	maxFrame = 64 << 10
	// minFrame is the smallest limit that the protocol lets a peer set.
	minFrame = 256
)

var (
	errShort      = errors.New("the frame ends in the middle")
	errFrameSize  = fmt.Errorf("the frame is not between 7 and %d bytes", maxFrame)
	errFragmented = errors.New("the frame is a fragment, which was not agreed on")
	errType       = errors.New("a value is of no type that is known")
)

// frame is one frame: what the ids mean is the matter of HAProxy.
type frame struct {
	kind          byte
	stream, frame uint64
	payload       []byte
}

// readFrame reads a whole frame. Fragments are refused: the agent does not offer
// to put them together.
func readFrame(r io.Reader) (*frame, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 7 || n > maxFrame {
		return nil, errFrameSize
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	flags := binary.BigEndian.Uint32(b[1:5])
	if flags&flagFin == 0 || flags&flagAbort != 0 {
		return nil, errFragmented
	}
	f := &frame{kind: b[0]}
	d := decoder{b: b[5:]}
	f.stream, f.frame = d.varint(), d.varint()
	f.payload = d.b
	return f, d.err
}

// append writes the frame behind b, with its length in front.
func (f *frame) append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, f.kind, 0, 0, 0, flagFin)
	b = appendVarint(b, f.stream)
	b = appendVarint(b, f.frame)
	b = append(b, f.payload...)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// decoder reads the parts of a payload. The first error stays, and everything
// after it is empty.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// varint reads an integer in HAProxy's own form (specification §3.1): four bits
// in the first byte, seven in each of the others, which a high bit announces.
func (d *decoder) varint() uint64 {
	v := uint64(d.byte())
	if v < 240 {
		return v
	}
	for shift := 4; shift < 64; shift += 7 {
		c := d.byte()
		v += uint64(c) << shift
		if c < 128 {
			return v
		}
	}
	d.fail(errShort)
	return 0
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail(errShort)
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) text() string { return string(d.take(d.varint())) }

// value reads a typed value: nil, bool, uint64, netip.Addr, string or []byte.
func (d *decoder) value() any {
	kind := d.byte()
	switch kind & typeBits {
	case typeNull:
		return nil
	case typeBool:
		return kind&flagTrue != 0
	case typeInt32, typeUint32, typeInt64, typeUint64:
		return d.varint()
	case typeIPv4, typeIPv6:
		n := uint64(4)
		if kind&typeBits == typeIPv6 {
			n = 16
		}
		addr, _ := netip.AddrFromSlice(d.take(n))
		return addr
	case typeString:
		return d.text()
	case typeBinary:
		return d.take(d.varint())
	}
	d.fail(errType)
	return nil
}

// list reads names and values to the end of n of them, or of the payload if n is
// negative. A name that is there twice is an error.
func (d *decoder) list(n int) map[string]any {
	values := map[string]any{}
	for ; n != 0 && (n > 0 || len(d.b) > 0) && d.err == nil; n-- {
		name := d.text()
		value := d.value()
		if _, twice := values[name]; twice {
			d.fail(fmt.Errorf("%q is there twice", name))
		}
		values[name] = value
	}
	return values
}

func appendVarint(b []byte, v uint64) []byte {
	if v < 240 {
		return append(b, byte(v))
	}
	b = append(b, byte(v)|240)
	v = (v - 240) >> 4
	for v >= 128 {
		b = append(b, byte(v)|128)
		v = (v - 128) >> 7
	}
	return append(b, byte(v))
}

func appendText(b []byte, s string) []byte { return append(appendVarint(b, uint64(len(s))), s...) }

func appendString(b []byte, name, value string) []byte {
	return appendText(append(appendText(b, name), typeString), value)
}

func appendUint(b []byte, name string, value uint64) []byte {
	return appendVarint(append(appendText(b, name), typeUint32), value)
}

// The scope of variables that live as long as a request and its answer.
const scopeTransaction = 2

// appendVariable writes the action that sets a variable to a text.
func appendVariable(b []byte, name, value string) []byte {
	const set, arguments = 1, 3
	return appendString(append(b, set, arguments, scopeTransaction), name, value)
}
