package h1

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"time"

	"github.com/doorward/doorward/internal/yield"
)

// maxInterim is how many interim answers (RFC 9110 §15.2) a request may get.
const maxInterim = 32

// answer is a response with what its body needs to be read.
type answer struct {
	http.Response
	content body
}

// exchange sends a request and reads the head of its answer. The connection is
// the answer's until that has been read, and lost after an error.
func (c *conn) exchange(req *http.Request, o *outgoing) (*http.Response, error) {
	c.ctx, c.wrote, c.heard, c.spoilt = req.Context(), 0, false, o.close_
	err := c.send(o)
	var res *http.Response
	if err == nil {
		yield.ToOthers() // under load the answer is there when it is our turn again: one read, and no waiting
		res, err = c.answer(req, o)
	}
	if err != nil {
		err = c.explain(err)
		c.done(false)
		return nil, err
	}
	return res, nil
}

// send sends the head, or has it sent with the body. A body that is held back
// waits for the whole head, however long the upstream takes to read it: what gets
// into the middle of a head is a part of it.
func (c *conn) send(o *outgoing) error {
	now := time.Now()
	opts := &c.pool.client.Options
	c.limit = time.Time{}
	if o.body != nil {
		c.watch()
	}
	if o.body != nil && !o.expects {
		c.up = newUpload(c, o.head, o)
		c.nc.SetWriteDeadline(time.Time{}) // the upload waits without one
		go c.up.run()
		return c.nc.SetReadDeadline(now.Add(patience))
	}
	if opts.ResponseHeaderTimeout > 0 {
		c.limit = now.Add(opts.ResponseHeaderTimeout)
	}
	first := c.limit
	if c.stop == nil {
		first = now.Add(watchAfter)
	}
	err := c.nc.SetDeadline(first)
	if err == nil {
		err = c.write(o.head)
	}
	if !o.expects {
		return err
	}
	c.held = newUpload(c, nil, o) // done closes its body
	if err == nil {
		c.limit = time.Now().Add(opts.ExpectContinueTimeout)
		err = c.nc.SetDeadline(c.limit)
	}
	return err
}

// answer reads the head of the answer, and the interim ones before it.
func (c *conn) answer(req *http.Request, o *outgoing) (*http.Response, error) {
	for interim := 0; ; interim++ {
		head, lines, err := c.section(c.pool.client.HeadBytes, errLongHead, begins)
		if err != nil {
			return nil, err
		}
		a := &answer{}
		how, err := parseHead(&a.Response, head, lines-1, o.method)
		if err != nil {
			return nil, err
		}
		a.Request = req
		switch {
		case a.StatusCode == http.StatusSwitchingProtocols:
			return c.switched(&a.Response, o)
		case a.StatusCode < 200:
			if interim == maxInterim {
				return nil, errInterim
			}
			if err := c.interim(&a.Response); err != nil {
				return nil, err
			}
			continue
		}
		c.listen()
		c.spoilt = c.spoilt || a.Close
		if how == noContent {
			a.Body = http.NoBody
			c.done(true)
			return &a.Response, nil
		}
		a.content = body{c: c, nc: c.nc, res: &a.Response, how: how, left: max(0, a.ContentLength)}
		a.Body = &a.content
		return &a.Response, nil
	}
}

// begins refuses at once what cannot become a status line, rather than to wait
// for its end.
func begins(line []byte) error {
	const version = "HTTP/1."
	if n := min(len(line), len(version)); string(line[:n]) != version[:n] {
		return errNotHTTP1
	}
	return nil
}

// InterimKey finds the Interim of a request among the values of its context.
type InterimKey struct{}

// Interim is told of the interim answers to a request, as by an
// httptrace.ClientTrace, which works as well and costs more.
type Interim func(status int, header textproto.MIMEHeader) error

// interim hands on an interim answer, the way net/http does.
func (c *conn) interim(res *http.Response) error {
	told, _ := c.ctx.Value(InterimKey{}).(Interim)
	trace := httptrace.ContextClientTrace(c.ctx)
	if res.StatusCode == http.StatusContinue {
		if trace != nil && trace.Got100Continue != nil {
			trace.Got100Continue()
		}
		if c.held != nil {
			c.begin()
		}
	}
	if told != nil {
		return told(res.StatusCode, textproto.MIMEHeader(res.Header))
	}
	if trace != nil && trace.Got1xxResponse != nil {
		return trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header))
	}
	return nil
}

// switched makes the connection the body of an answer with the status 101, if
// the request has asked for that (RFC 9110 §7.8). Nobody is told any more of the
// end of the request's context.
func (c *conn) switched(res *http.Response, o *outgoing) (*http.Response, error) {
	if !o.upgrades || o.body != nil || res.ProtoMinor == 0 || len(res.Header["Upgrade"]) == 0 || !hasToken(res.Header["Connection"], "upgrade") {
		return nil, errUnasked
	}
	if c.stop != nil && !c.stop() || c.ctx.Err() != nil {
		return nil, context.Cause(c.ctx)
	}
	c.stop = nil
	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	s := &switched{Conn: c.nc}
	if c.r < c.w {
		s.rest = append(s.rest, c.buffered()...)
	}
	res.Body = s
	return res, nil
}

// switched is a connection that speaks another protocol now. httputil.ReverseProxy
// needs an io.ReadWriteCloser.
type switched struct {
	net.Conn
	rest []byte // has come with the answer
}

// Read implements io.Reader.
func (s *switched) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		return s.Conn.Read(b)
	}
	n := copy(b, s.rest)
	if s.rest = s.rest[n:]; len(s.rest) == 0 {
		s.rest = nil
	}
	return n, nil
}

// CloseWrite ends one direction, where the connection can do that.
func (s *switched) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}
