package h1

import (
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// body is the content of an answer. It gives the connection back with its last
// byte, and closes it if it is closed before that. It may be closed while it is
// read, which ends that.
type body struct {
	nc    net.Conn // to close while somebody reads
	state atomic.Uint32

	mu   sync.Mutex // held while somebody reads; protects what follows
	c    *conn      // nil: given back
	res  *http.Response
	how  framing
	left int64 // of the content, or of the chunk
	part part
	err  error // what Read returns from now on
}

// The states of a body. Whoever leaves open first decides on the connection.
const (
	open uint32 = iota
	over        // by the one who reads
	closing
)

// part is where in chunked content (RFC 9112 §7.1) the reader is.
type part uint8

const (
	beforeSize part = iota
	inChunk
	afterChunk
	inTrailer
)

const (
	// sizeLine is how long the line with the size of a chunk may be: fewer digits than
	// could overflow. Extensions are
	// refused: nobody has defined one, and readers disagree on where they end.
	sizeLine = 15 + len("\r\n")
	// trailerBytes is how long a trailer may be.
	trailerBytes = 2 << 10
)

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.read(p)
	if err != nil {
		b.finish(err)
		err = b.err
	}
	return n, err
}

func (b *body) read(p []byte) (int, error) {
	switch b.how {
	case chunked:
		return b.readChunks(p)
	case untilClose:
		return b.c.Read(p)
	}
	n, err := b.c.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == nil && b.left == 0 {
		err = io.EOF
	} else {
		err = unexpected(err)
	}
	return n, err
}

// readChunks reads as much as is there without waiting for more than the first
// byte.
func (b *body) readChunks(p []byte) (n int, err error) {
	for {
		if n > 0 && !b.ready() {
			return n, nil
		}
		switch b.part {
		case beforeSize:
			if b.left, err = b.readSize(); err != nil {
				return n, err
			}
			b.part = inChunk
			if b.left == 0 {
				b.part = inTrailer
			}
		case inChunk:
			if n == len(p) {
				return n, nil
			}
			var m int
			if m, err = b.c.Read(p[n:][:min(int64(len(p)-n), b.left)]); err != nil {
				return n, unexpected(err)
			}
			n += m
			if b.left -= int64(m); b.left == 0 {
				b.part = afterChunk
			}
		case afterChunk:
			line, err := b.line(len("\r\n"), errChunkEnd)
			if err != nil {
				return n, err
			}
			if len(line) > 0 {
				return n, errChunkEnd
			}
			b.part = beforeSize
		case inTrailer:
			if err := b.readTrailer(); err != nil {
				return n, err
			}
			return n, io.EOF
		}
	}
}

// ready reports whether the next step waits for nothing.
func (b *body) ready() bool {
	have := b.c.buffered()
	switch b.part {
	case inChunk:
		return len(have) > 0
	case inTrailer:
		return bytes.HasPrefix(have, []byte("\r\n")) || bytes.Contains(have, []byte("\r\n\r\n"))
	default:
		return bytes.IndexByte(have, '\n') >= 0
	}
}

// Ready reports whether content, or its end, can be read without waiting.
func (b *body) Ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		return true
	}
	have := b.c.buffered()
	if b.how == chunked && b.part != inChunk {
		_, have, _ = bytes.Cut(have, []byte("\n")) // what follows the size
	}
	return len(have) > 0
}

// line reads a line, which ends with CRLF and is not longer than most with it.
// What it returns is good until something else is read.
func (b *body) line(most int, long error) ([]byte, error) {
	c := b.c
	for {
		have := c.buffered()
		i := bytes.IndexByte(have[:min(len(have), most)], '\n')
		switch {
		case i > 0 && have[i-1] == '\r':
			c.r += i + 1
			return have[:i-1], nil
		case i >= 0:
			return nil, errBareLF
		case len(have) >= most:
			return nil, long
		}
		if err := c.fill(0); err != nil {
			return nil, unexpected(err)
		}
	}
}

// readSize reads the size of a chunk.
func (b *body) readSize() (int64, error) {
	line, err := b.line(sizeLine, errChunkSize)
	if err != nil {
		return 0, err
	}
	if len(line) == 0 {
		return 0, errChunkSize
	}
	var n int64
	for _, c := range line {
		if class[c]&hexByte == 0 {
			return 0, errChunkSize
		}
		digit := c - '0'
		if c >= 'A' {
			digit = c&^0x20 - 'A' + 10
		}
		n = n<<4 | int64(digit)
	}
	return n, nil
}

// readTrailer reads what follows the last chunk.
func (b *body) readTrailer() error {
	text, n, err := b.c.section(trailerBytes, errLongTrailer, nil)
	if err != nil || n == 0 {
		return err
	}
	fields, err := parseFields(text, n)
	if err != nil {
		return err
	}
	for name := range fields {
		if neverInTrailer(name) {
			return bad("%s is in the trailer", name)
		}
	}
	if b.res.Trailer == nil {
		b.res.Trailer = fields
	} else {
		maps.Copy(b.res.Trailer, fields)
	}
	return nil
}

// finish gives the connection back, or closes it. The lock is held.
func (b *body) finish(err error) {
	c := b.c
	b.c = nil
	b.err = err
	if !b.state.CompareAndSwap(open, over) {
		b.err = http.ErrBodyReadAfterClose
		c.done(false)
		return
	}
	c.done(err == io.EOF && b.how != untilClose)
}

// Close implements io.Closer.
func (b *body) Close() error {
	if !b.mu.TryLock() {
		if b.state.CompareAndSwap(open, closing) {
			b.nc.Close()
		}
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	if b.c != nil {
		b.finish(http.ErrBodyReadAfterClose)
	}
	b.err = http.ErrBodyReadAfterClose
	return nil
}
