package lane

import (
	"bufio"
	"net/http"
	"sync"
)

const (
	// headRoom is the longest head of a plain request. Browsers send up to 2 KiB
	// without cookies, and applications make that several times as much.
	headRoom = 8 << 10
	// answerRoom is how much of an answer is gathered for one write. What does not fit
	// is sent from where it is, with the same system call.
	answerRoom = 4 << 10
	// earlyRoom is how much of a body without a length http.Server waits for before
	// it sends it in chunks.
	earlyRoom = 2 << 10
)

// room is what a request takes while it is read.
type room struct {
	in   [headRoom]byte
	head http.Request // what has been read there
}

var rooms = sync.Pool{New: func() any { return new(room) }}

func (r *room) leave() {
	r.head = http.Request{}
	rooms.Put(r)
}

// desk is what an answer takes.
type desk struct {
	out   [answerRoom]byte
	early *bufio.Writer
	parts [3][]byte // of one write
}

var desks = sync.Pool{New: func() any { return &desk{early: bufio.NewWriterSize(nil, earlyRoom)} }}

func (d *desk) leave() {
	d.early.Reset(nil)
	d.parts = [3][]byte{}
	desks.Put(d)
}
