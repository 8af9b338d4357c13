package proxy

import (
	"context"
	"net"
	"time"

	"github.com/doorward/doorward/internal/h1"
)

// standardClient is the value of upstream.client that stands for net/http.
const standardClient = "standard"

const (
	expectContinue = time.Second
	idleUpstream   = 90 * time.Second
)

// ownClient reports whether the upstreams of a route are spoken to by our own
// client: those that speak HTTP/1.1 without TLS, unless the route says otherwise.
func (e *Entry) ownClient() bool {
	return len(e.targets) > 0 && e.targets[0].Scheme == "http" && !e.h2c && !e.settings.standardClient
}

// newOwnTransport returns connections of our own client.
func newOwnTransport(dial dialer, timeout time.Duration) transport {
	return h1.New(h1.Options{
		Dial:                  dial,
		ResponseHeaderTimeout: timeout,
		ExpectContinueTimeout: expectContinue,
		IdleTimeout:           idleUpstream,
		IdlePerHost:           idlePerUpstream,
		HeadBytes:             responseHeaders,
	})
}

// telling makes a dialer say of its errors what they mean.
func telling(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
}
