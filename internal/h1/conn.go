package h1

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	// patience is how long the head of a request waits for the beginning of its
	// body, to go with it.
	patience = 5 * time.Millisecond
	// watchAfter is how long a request without a body is on its way before the end
	// of its context is waited for: most are over by then, and never have to.
	watchAfter = 10 * time.Millisecond
	// bufferBytes is what a connection holds on to. It grows for a long head.
	bufferBytes = 4 << 10
	// uploadWait is how long the connection waits for the rest of a request's body
	// to be sent when the answer is over. After that it is not used again.
	uploadWait = 50 * time.Millisecond
)

// conn is a connection to an upstream. One goroutine at a time uses it: the one
// that asks, and then whoever reads the answer.
type conn struct {
	nc     net.Conn
	pool   *pool
	reused bool
	since  time.Time // idle, or not at all

	raw   syscall.RawConn // nil: nobody can look into it
	look  func(fd uintptr)
	quiet bool // what look saw

	buf  []byte
	r, w int // buf[r:w] has come and was not read

	// What follows belongs to the request that is on its way.
	ctx    context.Context
	stop   func() bool // keeps the end of ctx from closing the connection. Nil: it would not; see watch
	limit  time.Time   // until when the head of the answer has to be there; zero: for ever
	up     *upload     // the body on its way. Nil: none, or not yet
	held   *upload     // is to be begun at the limit, or when the upstream asks for it
	wrote  int         // bytes of the head
	heard  bool        // something has come
	spoilt bool        // not to be used again
}

func newConn(nc net.Conn, p *pool) *conn {
	c := &conn{nc: nc, pool: p, buf: make([]byte, bufferBytes)}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw, c.look = raw, func(fd uintptr) { c.quiet = peek(fd) }
		}
	}
	return c
}

// usable reports whether an idle connection is still open and silent. What an
// upstream says without being asked would be taken for the next answer.
func (c *conn) usable() bool {
	if c.raw == nil {
		return true
	}
	c.quiet = false
	return c.raw.Control(c.look) == nil && c.quiet
}

// read reads what has come, and waits for something to come.
func (c *conn) read(b []byte) (int, error) {
	for {
		n, err := c.nc.Read(b)
		if n > 0 {
			c.heard = true
			return n, nil // an error comes again
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, c.explain(err)
		}
		if err := c.overdue(); err != nil {
			return 0, err
		}
	}
}

// write writes all of b, and waits while the upstream does not take it.
func (c *conn) write(b []byte) (err error) {
	for c.wrote < len(b) {
		n, err := c.nc.Write(b[c.wrote:])
		c.wrote += n
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.overdue(); err != nil {
			return err
		}
	}
	return nil
}

// explain returns what is behind an error of the connection that we have caused.
func (c *conn) explain(err error) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if c.up != nil {
		if broken := c.up.broken(); broken != nil {
			return broken
		}
	}
	return err
}

// overdue is called when a deadline of the connection has passed.
func (c *conn) overdue() error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if c.stop == nil {
		c.watch()
	}
	if c.up != nil {
		return c.uploadOverdue()
	}
	if !c.limit.IsZero() && !time.Now().Before(c.limit) {
		if c.held == nil {
			return errHeaderTimeout
		}
		c.begin()
		return c.uploadOverdue()
	}
	return c.nc.SetDeadline(c.limit)
}

// watch has the end of the request's context close the connection from here on.
func (c *conn) watch() {
	nc := c.nc
	c.stop = context.AfterFunc(c.ctx, func() { nc.Close() })
}

func (c *conn) uploadOverdue() error {
	if err := c.up.overdue(); err != nil {
		return c.explain(err)
	}
	return nil
}

// begin begins to send the body that was held back.
func (c *conn) begin() {
	c.up, c.held, c.limit = c.held, nil, time.Time{}
	c.nc.SetWriteDeadline(time.Time{}) // the upload waits without one
	go c.up.run()
}

// listen removes the limit: the head of the answer is there. The deadline of the
// connection stands; overdue removes it, if it is ever due.
func (c *conn) listen() {
	c.limit = time.Time{}
	if c.up != nil {
		c.up.answered()
	}
}

// buffered returns what has come and was not read.
func (c *conn) buffered() []byte { return c.buf[c.r:c.w] }

// fill reads more into the buffer, which then may hold as much as most.
func (c *conn) fill(most int) error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.buf) {
		grown := make([]byte, min(2*len(c.buf), max(most, len(c.buf)+1)))
		copy(grown, c.buf)
		c.buf = grown
	}
	n, err := c.read(c.buf[c.w:])
	c.w += n
	return err
}

// Read reads content: what is buffered, or else from the connection.
func (c *conn) Read(b []byte) (int, error) {
	if c.r == c.w {
		if len(b) >= bufferBytes {
			return c.read(b)
		}
		if err := c.fill(0); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}

// section reads the lines up to an empty one, which is taken away, and returns
// how many there are. Lines end with CRLF. The connection's end before that is
// io.ErrUnexpectedEOF. first is called with the beginning of the first line,
// whenever more of it is there.
func (c *conn) section(most int, long error, first func(begin []byte) error) (text string, n int, err error) {
	line, seen := 0, 0 // offsets: the current line begins, nothing to find before
	for {
		have := c.buffered()
		if n == 0 && first != nil {
			if err := first(have); err != nil {
				return "", 0, err
			}
		}
		i := bytes.IndexByte(have[seen:], '\n')
		if i < 0 {
			if seen = len(have); seen > most {
				return "", 0, long
			}
			if err := c.fill(most + 1); err != nil {
				return "", 0, unexpected(err)
			}
			continue
		}
		end := seen + i
		switch {
		case end == line || have[end-1] != '\r':
			return "", 0, errBareLF
		case end > most:
			return "", 0, long
		case end == line+1:
			text = string(have[:line])
			c.r += end + 1
			return text, n, nil
		}
		n++
		if n > maxFields {
			return "", 0, errManyFields
		}
		line, seen = end+1, end+1
	}
}

// maxFields is how many lines a section may have.
const maxFields = 1000

// unexpected says that the connection's end came before that of something.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// done ends a request. The connection is kept for another if that one may be
// sent, or else closed.
func (c *conn) done(keep bool) {
	keep = keep && !c.spoilt && c.r == c.w
	if c.held != nil {
		c.held.body.Close()
		keep = false // the upstream may expect the body, which will not come
	}
	if c.up != nil && keep {
		keep = c.up.finished()
	}
	if c.stop != nil && !c.stop() {
		keep = false // it is being closed
	}
	if !keep {
		c.nc.Close()
		return
	}
	c.ctx, c.stop, c.up, c.held = nil, nil, nil, nil
	c.r, c.w, c.reused = 0, 0, true
	if len(c.buf) > 4*bufferBytes {
		c.buf = make([]byte, bufferBytes)
	}
	if !c.pool.put(c) {
		c.nc.Close()
	}
}
