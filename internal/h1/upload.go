package h1

import (
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// upload sends a request that has a body, in a goroutine of its own, since the
// upstream may answer before it has everything.
//
// The head goes with the first piece of the body. If that is long in coming, the
// goroutine that waits for the answer sends the head alone.
type upload struct {
	nc      net.Conn
	body    io.ReadCloser
	left    int64 // of the body; -1: it goes in chunks
	timeout time.Duration
	done    chan struct{} // closed when nothing more is sent

	writing sync.Mutex // held while something is written; protects head
	head    []byte     // nil: sent

	mu       sync.Mutex // protects what follows
	sent     bool       // nothing more is sent
	err      error      // why not everything was
	visitors bool       // err is about the body, not about the connection
	limit    time.Time  // until when the head of the answer has to be there; zero: for ever
	waiting  bool       // for the answer, with no deadline but the limit
	heard    bool       // the head of the answer is there
}

// newUpload returns an upload that is to be begun; head is nil if it was sent.
func newUpload(c *conn, head []byte, o *outgoing) *upload {
	return &upload{nc: c.nc, body: o.body, left: o.length, timeout: c.pool.client.ResponseHeaderTimeout, head: head, done: make(chan struct{})}
}

// run sends everything.
func (u *upload) run() {
	defer close(u.done)
	err, visitors := u.send()
	u.body.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sent, u.err, u.visitors = true, err, visitors
	if visitors {
		u.nc.Close() // the request has no end; whoever waits for the answer is told
		return
	}
	// If it could not be sent, the upstream may have said why.
	if u.timeout > 0 && !u.heard {
		u.limit = time.Now().Add(u.timeout)
		if u.waiting {
			u.nc.SetReadDeadline(u.limit)
		}
	}
}

// pieces lends out the buffers that bodies are sent through.
var pieces = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

const (
	pieceBytes = 32 << 10
	sizeBytes  = 4 + 2 // in front of a chunk, whose size has four digits at most
	endOfChunk = "\r\n"
	lastChunk  = "0\r\n\r\n"
)

// send returns an error, and whether it is about the body.
func (u *upload) send() (err error, visitors bool) {
	buf := pieces.Get().(*[pieceBytes]byte)
	defer pieces.Put(buf)
	const room = pieceBytes - len(endOfChunk) - len(lastChunk)
	for {
		// The head is put in front of the first piece, if there is room enough.
		u.writing.Lock()
		front := sizeBytes + len(u.head)
		u.writing.Unlock()
		if front > room/2 {
			if err := u.write(buf[:], 0, 0); err != nil {
				return err, false
			}
			continue
		}
		space := buf[front:room]
		if u.left >= 0 && int64(len(space)) > u.left {
			space = space[:u.left]
		}
		n, readErr := u.body.Read(space)
		from, to := front, front+n
		switch {
		case u.left >= 0:
			u.left -= int64(n)
		default:
			if n > 0 {
				from -= len(endOfChunk)
				copy(buf[from:], endOfChunk)
				size := strconv.AppendInt(nil, int64(n), 16)
				from -= len(size)
				copy(buf[from:], size)
				to += copy(buf[to:], endOfChunk)
			}
			if readErr == io.EOF {
				to += copy(buf[to:], lastChunk)
			}
		}
		if from < to || readErr != nil { // the head at least, so that the upstream learns of a body that breaks
			if err := u.write(buf[:], from, to); err != nil {
				return err, false
			}
		}
		switch {
		case readErr != nil && readErr != io.EOF:
			return readErr, true
		case u.left == 0:
			return nil, false
		case readErr == io.EOF && u.left > 0:
			return errShortBody, true
		case readErr == io.EOF:
			return nil, false
		}
	}
}

// write sends a piece, and the head in front of it if that is still to be sent;
// buf has the room.
func (u *upload) write(buf []byte, from, to int) error {
	u.writing.Lock()
	defer u.writing.Unlock()
	if head := u.head; head != nil {
		u.head = nil
		if from < len(head) {
			if _, err := u.nc.Write(head); err != nil || from == to {
				return err
			}
		} else {
			from -= len(head)
			copy(buf[from:], head)
		}
	}
	_, err := u.nc.Write(buf[from:to])
	return err
}

// overdue is called by the one who waits for the answer, when a deadline has
// passed. It sends the head if that still waits for the body.
func (u *upload) overdue() error {
	if u.writing.TryLock() { // else it is on its way
		head := u.head
		u.head = nil
		if head != nil {
			if _, err := u.nc.Write(head); err != nil {
				u.writing.Unlock()
				return err
			}
		}
		u.writing.Unlock()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.limit.IsZero() && !u.heard && !time.Now().Before(u.limit) {
		return errHeaderTimeout
	}
	u.waiting = !u.heard
	return u.nc.SetReadDeadline(u.limit)
}

// answered notes that the head of the answer is there, which ends the limit.
func (u *upload) answered() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.heard, u.waiting, u.limit = true, false, time.Time{}
}

// broken returns the error of the body, if that is why the connection was closed.
func (u *upload) broken() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.visitors {
		return u.err
	}
	return nil
}

// finished reports whether everything was sent, and waits a little for it: an
// upstream may answer before the one who has sent it comes to know that.
func (u *upload) finished() bool {
	select {
	case <-u.done:
	default:
		timer := time.NewTimer(uploadWait)
		defer timer.Stop()
		select {
		case <-u.done:
		case <-timer.C:
			return false
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err == nil
}
