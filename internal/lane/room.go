package lane

import (
	"bufio"
	"bytes"
	"sync"
)

const (
	// headRoom is the longest head of a plain request. Browsers send up to 2 KiB
	// without cookies, and applications make that several times as much; it is held
	// for as long as a request is answered only.
	headRoom = 8 << 10
	// answerRoom is how much of an answer is gathered for one write.
	answerRoom = 8 << 10
	// earlyRoom is how much of a body without a length http.Server waits for before
	// it sends it in chunks.
	earlyRoom = 2 << 10
)

// room is what a request takes while it is read and answered.
type room struct {
	in     [headRoom]byte
	source bytes.Reader // of what is read
	text   *bufio.Reader

	out   [answerRoom]byte
	early *bufio.Writer
	parts [3][]byte // of one write
}

var rooms = sync.Pool{New: func() any {
	return &room{text: bufio.NewReaderSize(nil, headRoom), early: bufio.NewWriterSize(nil, earlyRoom)}
}}

// leave gives a room back, with nothing in it of the one who had it.
func (r *room) leave() {
	r.source.Reset(nil)
	r.text.Reset(nil)
	r.early.Reset(nil)
	r.parts = [3][]byte{}
	rooms.Put(r)
}
