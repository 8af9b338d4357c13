package lane

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/await"
	"github.com/doorward/doorward/internal/yield"
)

// answer is the http.ResponseWriter of a plain request. It keeps to what the one of
// http.Server does, so that a visitor cannot tell them apart by what an answer
// says and where it ends: only the order of the fields differs, and where a body is
// cut into pieces.
type answer struct {
	conn   *conn
	ctx    await.Context
	desk   *desk
	header http.Header // nil: nobody has asked for it
	head   bool        // the request was HEAD
	over   atomic.Bool

	status int         // 0: not said yet
	said   said        // by the header, at that time
	length int64       // of the body, as the handler says; -1: it does not
	wrote  int64       // of the body
	out    []byte      // not sent yet
	begun  bool        // the head is complete, in out
	chunks bool        // the body goes in chunks
	closes bool        // the connection ends with this answer
	broken error       // the connection is
	timed  atomic.Bool // it has a deadline for writing
}

var (
	errOver = errors.New("lane: the handler has returned")
	crlf    = []byte("\r\n")
)

func newAnswer(c *conn, method string) *answer {
	a := &answer{conn: c, ctx: await.Context{Context: c.ctx, Asked: c.watch.start}, desk: desks.Get().(*desk), head: method == http.MethodHead, length: -1}
	a.out = a.desk.out[:0]
	a.desk.early.Reset((*frames)(a))
	return a
}

// leave gives up what the next answer takes, of whatever connection.
func (a *answer) leave() {
	a.ctx.End(nil)
	a.desk.leave()
	a.desk, a.out = nil, nil
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// Take makes a header the answer's, so that it need not be copied. It reports false
// if the answer has one already.
func (a *answer) Take(header http.Header) bool {
	if a.header != nil {
		return false
	}
	a.header = header
	return true
}

// WriteHeader implements http.ResponseWriter. What the header says later counts for
// trailers only.
func (a *answer) WriteHeader(status int) {
	switch {
	case a.over.Load():
		return
	case a.status != 0:
		a.conn.server.logf("http: superfluous response.WriteHeader call")
		return
	case status < 100 || status > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case interim(status):
		a.out = new(said).appendFields(appendStatus(a.out, status), a.header, status)
		a.out = append(a.out, crlf...)
		a.push()
		return
	}
	a.status = status
	a.out = a.said.appendFields(appendStatus(a.out, status), a.header, status)
	if a.said.length != "" {
		if n, err := strconv.ParseUint(a.said.length, 10, 63); err == nil {
			a.length = int64(n)
		} else {
			a.conn.server.logf("http: invalid Content-Length of %q", a.said.length)
		}
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	if a.over.Load() {
		return 0, errOver
	}
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if len(b) == 0 {
		return 0, nil
	}
	if !hasBody(a.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if a.wrote += int64(len(b)); a.length >= 0 && a.wrote > a.length {
		return 0, http.ErrContentLength
	}
	if a.length >= 0 && !a.said.guessed() {
		return (*frames)(a).Write(b) // nothing about it can change
	}
	return a.desk.early.Write(b)
}

// FlushError is found by http.ResponseController.
func (a *answer) FlushError() error {
	if a.over.Load() {
		return errOver
	}
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.desk.early.Flush()
	a.begin(nil)
	return a.push()
}

// Flush implements http.Flusher.
func (a *answer) Flush() { a.FlushError() }

// SetReadDeadline is found by http.ResponseController.
func (a *answer) SetReadDeadline(t time.Time) error {
	if a.over.Load() {
		return errOver
	}
	return a.conn.watch.setDeadline(t)
}

// SetWriteDeadline is found by http.ResponseController.
func (a *answer) SetWriteDeadline(t time.Time) error {
	if a.over.Load() {
		return errOver
	}
	a.timed.Store(true)
	return a.conn.Conn.SetWriteDeadline(t)
}

// finish sends what has not been sent, and reports whether the visitor knows where
// the answer ends, so that another request may follow.
func (a *answer) finish() bool {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.over.Store(true)
	a.desk.early.Flush()
	a.begin(nil)
	if a.chunks {
		a.out = append(a.out, "0\r\n"...)
		a.out = appendTrailers(a.out, a.header, a.said.trailers)
		a.out = append(a.out, crlf...)
	}
	a.push()
	if a.timed.Load() {
		a.conn.Conn.SetWriteDeadline(time.Time{})
	}
	short := !a.head && a.length >= 0 && hasBody(a.status) && a.length != a.wrote
	return a.broken == nil && !a.closes && !short
}

// breakOff sends what a visitor can see to be a part, and nothing more. As from
// http.Server, an answer that has hardly begun is none.
func (a *answer) breakOff() {
	a.over.Store(true)
	if a.begun && a.wrote > earlyRoom {
		a.push()
	}
}

// frames is where the body goes once it is known how it is sent.
type frames answer

// Write implements io.Writer.
func (f *frames) Write(b []byte) (int, error) {
	a := (*answer)(f)
	a.begin(b)
	if a.head {
		return len(b), nil
	}
	end := crlf
	if a.chunks {
		a.out = strconv.AppendInt(a.out, int64(len(b)), 16)
		a.out = append(a.out, crlf...)
	} else {
		end = nil
	}
	if len(a.out)+len(b)+len(end) <= cap(a.out) {
		a.out = append(append(a.out, b...), end...)
	} else if err := a.send(b, end); err != nil {
		return 0, err
	}
	return len(b), a.broken
}

// push sends what is gathered.
func (a *answer) push() error {
	if len(a.out) > 0 && a.broken == nil {
		yield.InARow() // under load many answers go out in a row
		_, err := a.conn.Conn.Write(a.out)
		a.wroteTo(err)
	}
	a.out = a.out[:0]
	return a.broken
}

// send sends what is gathered and two more pieces, without copying them.
func (a *answer) send(b, end []byte) error {
	if a.broken == nil {
		a.desk.parts = [3][]byte{a.out, b, end}
		pieces := net.Buffers(a.desk.parts[:])
		_, err := pieces.WriteTo(a.conn.Conn)
		a.wroteTo(err)
	}
	a.out = a.out[:0]
	return a.broken
}

// wroteTo notes that the visitor cannot be reached any more.
func (a *answer) wroteTo(err error) {
	if err != nil {
		a.broken = err
		a.conn.lost()
	}
}
