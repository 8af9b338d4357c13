package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	drainTimeout      = 30 * time.Second
	quietTime         = 5 * time.Minute
	concurrentStreams = 250

	// standardServer is the value of http1 that stands for net/http alone.
	standardServer = "standard"
)

// NewServer returns a server for a door with limits against slow and flooding
// clients. Its TLSConfig is set by the caller, from TLS.Config. Without TLS it
// also takes HTTP/2 with prior knowledge (RFC 9113 §3.3), as proxies in front
// of it speak for gRPC.
func NewServer(c Config, d *Door) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(!c.TLS.Enabled())
	return &http.Server{
		Addr:              c.Address(),
		Handler:           d,
		ReadHeaderTimeout: c.ReadHeaderTimeout.Or(readHeaderTimeout),
		IdleTimeout:       c.IdleTimeout.Or(idleTimeout),
		// net/http answers on its own, without a record. It is given more room,
		// so that what is merely too large gets a page and an audit event.
		MaxHeaderBytes: 4 * c.headerBytes(),
		Protocols:      &protocols,
		// "OPTIONS *" is answered, and recorded, like everything else.
		DisableGeneralOptionsHandler: true,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: concurrentStreams,
			SendPingTimeout:      time.Minute,
			PingTimeout:          15 * time.Second,
		},
		ErrorLog:    slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return d.base },
	}
}

// Drain returns how long requests in flight may go on after the end.
func (c *Config) Drain() time.Duration { return c.DrainTimeout.Or(drainTimeout) }

// Quiet is how long next to nothing must have happened before memory is given back.
func (c *Config) Quiet() time.Duration { return c.ReturnMemoryAfter.Or(quietTime) }

// Lane reports whether plain requests have a fast lane: over plaintext, unless the
// configuration says otherwise.
func (c *Config) Lane() bool { return c.HTTP1 != standardServer }

func (c *Config) validateHTTP1(f access.Faults) {
	if c.HTTP1 != "" && c.HTTP1 != standardServer {
		f.Add("write standard, or leave it out", "%q is no server", c.HTTP1)
	}
}
