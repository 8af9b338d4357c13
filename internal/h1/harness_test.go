package h1

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTripper is what both implementations of the contract are.
type roundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

// bothClients runs a test with this client and with the one of net/http, set up
// alike.
func bothClients(t *testing.T, test func(t *testing.T, with func(dial, Options) roundTripper)) {
	t.Run("ours", func(t *testing.T) {
		test(t, func(d dial, o Options) roundTripper {
			o.Dial = d
			c := New(o)
			t.Cleanup(c.CloseIdleConnections)
			return c
		})
	})
	t.Run("net/http", func(t *testing.T) {
		test(t, func(d dial, o Options) roundTripper {
			c := &http.Transport{DialContext: d, ResponseHeaderTimeout: o.ResponseHeaderTimeout, ExpectContinueTimeout: time.Second,
				DisableCompression: true, MaxResponseHeaderBytes: 256 << 10, MaxIdleConnsPerHost: 256}
			if o.ExpectContinueTimeout > 0 {
				c.ExpectContinueTimeout = o.ExpectContinueTimeout
			}
			t.Cleanup(c.CloseIdleConnections)
			return c
		})
	})
}

// upstream is an application that a test writes down byte by byte.
type upstream struct {
	net.Listener
	conns  atomic.Int32 // made so far
	ended  chan struct{}
	closes chan struct{}
}

// newUpstream calls serve with every connection, which is closed when that
// returns.
func newUpstream(t *testing.T, serve func(net.Conn, *bufio.Reader)) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{Listener: l, ended: make(chan struct{}), closes: make(chan struct{}, 1000)}
	open := make(chan net.Conn, 1000)
	go func() {
		defer close(u.ended)
		defer close(open)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			u.conns.Add(1)
			open <- conn
			go func() {
				serve(conn, bufio.NewReader(conn))
				conn.Close()
				u.closes <- struct{}{}
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-u.ended
		for conn := range open {
			conn.Close()
			<-u.closes
		}
	})
	return u
}

// answering answers every request with the same bytes, once its body is there, and
// goes on until the other side ends. With hangUp it closes after one.
func answering(t *testing.T, raw string, hangUp bool) *upstream {
	return newUpstream(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			io.WriteString(conn, raw)
			if hangUp {
				return
			}
		}
	})
}

func (u *upstream) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", u.Addr().String())
}

func request(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://app.example/x", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// roundTrip returns the answer with its body read.
func roundTrip(c http.RoundTripper, req *http.Request) (*http.Response, string, error) {
	res, err := c.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	return res, string(body), err
}
