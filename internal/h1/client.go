package h1

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options are what a Client is made of. Dial is required.
type Options struct {
	// Dial connects to an address, a host and a port. Its errors are found in those
	// of RoundTrip, which then say that nothing was sent.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// ResponseHeaderTimeout is how long an upstream may take, once it has the whole
	// request, to send the head of its answer. Default: for ever.
	ResponseHeaderTimeout time.Duration
	// ExpectContinueTimeout is how long the body of a request that expects 100
	// (Continue) is held back. Default 1s.
	ExpectContinueTimeout time.Duration
	// IdleTimeout is how long a connection is kept that carries nothing. Default
	// 90s.
	IdleTimeout time.Duration
	// IdlePerHost is how many such connections are kept to one address. Default 256.
	IdlePerHost int
	// HeadBytes is the most that the head of an answer may have. Default 256 KiB.
	HeadBytes int
}

// Client sends requests to upstreams that speak HTTP/1.1 without TLS. It is safe
// for use by many goroutines.
type Client struct {
	Options

	mu    sync.Mutex // protects what follows
	pools map[string]*pool
	// keepNone tells that connections that become idle are closed, until there is
	// another request.
	keepNone bool
}

// New returns a client.
func New(opts Options) *Client {
	opts.ExpectContinueTimeout = orDefault(opts.ExpectContinueTimeout, time.Second)
	opts.IdleTimeout = orDefault(opts.IdleTimeout, 90*time.Second)
	opts.IdlePerHost = orDefault(opts.IdlePerHost, 256)
	opts.HeadBytes = orDefault(opts.HeadBytes, 256<<10)
	return &Client{Options: opts, pools: map[string]*pool{}}
}

func orDefault[T time.Duration | int](n, def T) T {
	if n == 0 {
		return def
	}
	return n
}

// RoundTrip implements http.RoundTripper. The body of the request is closed in
// any case, maybe after the return. An error is an *Error.
//
// A request is sent a second time, over a new connection, if the first one went
// over a connection that had been idle and that the upstream, as it turned out,
// had closed: if not a byte could be sent, or if the method is safe and not a byte
// came back, and only if it has no body.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	out, err := prepare(req)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, &Error{Err: err}
	}
	defer out.free()
	ctx := req.Context()
	p := c.pool(req.URL)
	sent := false
	for again := false; ; again = true {
		if ctx.Err() != nil {
			out.close()
			return nil, &Error{context.Cause(ctx), sent || out.touched}
		}
		cn, err := c.connect(ctx, p, again)
		if err != nil {
			out.close()
			return nil, &Error{err, sent || out.touched}
		}
		if !again {
			if err := out.settle(ctx); err != nil {
				out.close()
				cn.nc.Close()
				return nil, &Error{err, true}
			}
		}
		res, err := cn.exchange(req, out)
		if err == nil {
			return res, nil
		}
		nothing := cn.wrote == 0 && out.body == nil
		sent = sent || !nothing
		if again || !cn.reused || out.body != nil || cn.heard || ctx.Err() != nil || isTimeout(err) || !nothing && !isSafe(req.Method) {
			return nil, &Error{err, sent}
		}
	}
}

// CloseIdleConnections closes the connections that carry nothing.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	c.keepNone = true
	var idle []*conn
	for _, p := range c.pools {
		idle = append(idle, p.empty()...)
	}
	c.mu.Unlock()
	closeAll(idle)
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// isSafe reports whether a request can be made twice without harm (RFC 9110
// §9.2.1).
func isSafe(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}
