package proxy

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// frame writes a WebSocket frame.
func frame(op byte, masked bool, payload []byte) []byte {
	b := []byte{finBit | op, 0}
	switch n := len(payload); {
	case n < length16Bit:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = length16Bit
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = length64Bit
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if masked {
		b[1] |= maskBit
		b = append(b, 1, 2, 3, 4)
		payload = slices.Clone(payload)
		for i := range payload {
			payload[i] ^= byte(i%4 + 1)
		}
	}
	return append(b, payload...)
}

func message(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload))), payload...)
}

// ends returns where units end, found by stopping at each.
func ends(f follower, stream []byte) []int {
	var list []int
	for at := 0; at < len(stream); {
		at += f.follow(stream[at:], true)
		if f.between() {
			list = append(list, at)
		}
	}
	return list
}

func TestUnitsEndWhereTheyEnd(t *testing.T) {
	var sockets, calls []byte
	var wantSockets, wantCalls []int
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 70000} {
		for _, masked := range []bool{false, true} {
			sockets = append(sockets, frame(2, masked, make([]byte, size))...)
			wantSockets = append(wantSockets, len(sockets))
		}
		calls = append(calls, message(make([]byte, size))...)
		wantCalls = append(wantCalls, len(calls))
	}
	if got := ends(&frames{}, sockets); !slices.Equal(got, wantSockets) {
		t.Errorf("frames end at %v, want %v", got, wantSockets)
	}
	if got := ends(&messages{}, calls); !slices.Equal(got, wantCalls) {
		t.Errorf("messages end at %v, want %v", got, wantCalls)
	}

	for text, want := range map[string][]int{
		"data: a\n\ndata: b\ndata: c\n\n":    {9, 26},
		"data: a\r\n\r\ndata: b\r\n\r\n":     {10, 21, 22}, // before the LF of the empty line is as good as behind it
		"data: a\r\rdata: b\r\r":             {9, 18},
		": only a comment\n":                 {17},
		"data: a\n: in between\ndata: b\n\n": {30},
		"data: a\n":                          nil,
		"data: a\n\ndata":                    {9},
	} {
		if got := ends(&events{}, []byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: events end at %v, want %v", text, got, want)
		}
	}

	var f frames
	if f.follow(frame(1, false, []byte("hello")), false); f.closed {
		t.Error("a text frame closes")
	}
	if f.follow(frame(opClose, false, []byte{3, 0xe8}), false); !f.closed {
		t.Error("a close frame does not")
	}
}

// However a stream is cut into reads, its units end at the same places, and
// whatever it is made of, every byte is taken once.
func FuzzFollow(f *testing.F) {
	f.Add(frame(1, false, []byte("hello")), uint8(1))
	f.Add(append(frame(1, true, make([]byte, 300)), frame(opClose, false, nil)...), uint8(7))
	f.Add([]byte{0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3}, uint8(2))
	f.Add(append(message([]byte("one")), message(nil)...), uint8(3))
	f.Add([]byte("data: a\r\n\r\n: c\nid: 1\n\ndata"), uint8(5))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		size := int(step%16) + 1
		for _, make := range []func() follower{
			func() follower { return &frames{} }, func() follower { return &messages{} }, func() follower { return &events{} },
		} {
			whole := ends(make(), stream)
			bytewise := make()
			var pieces []int
			for i := range stream {
				if n := bytewise.follow(stream[i:i+1], false); n != 1 {
					t.Fatalf("%T took %d of 1", bytewise, n)
				}
				if bytewise.between() {
					pieces = append(pieces, i+1)
				}
			}
			if _, sse := bytewise.(*events); !sse && !slices.Equal(whole, pieces) {
				t.Fatalf("%T: at once %v, by bytes %v", bytewise, whole, pieces)
			}
			chunked, plain := make(), make()
			for chunk := range slices.Chunk(stream, size) {
				if n := chunked.follow(chunk, false); n != len(chunk) {
					t.Fatalf("%T took %d of %d", chunked, n, len(chunk))
				}
			}
			plain.follow(bytes.Clone(stream), false)
			if chunked.between() != plain.between() {
				t.Fatalf("%T ends differently in chunks of %d", chunked, size)
			}
			for _, end := range whole {
				if !slices.Contains(pieces, end) {
					t.Fatalf("%T finds an end at %d that is none", bytewise, end)
				}
			}
		}
	})
}
