package main

import (
	"context"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// bare is the reference that shows what a proxy in Go costs that checks nothing:
// the standard library's ReverseProxy, with a transport that keeps enough
// connections, a pool of buffers, and the garbage collector as it comes.
const bare = "ReverseProxy"

func bareServer(tls bool, path string, size int) participant {
	return participant{bare + ", no check", func(b *bench) (*server, error) {
		address, err := b.freeAddress()
		if err != nil {
			return nil, err
		}
		cert, key, scheme := "-", "-", "http"
		if tls {
			cert, key, scheme = b.cert.cert, b.cert.key, "https"
		}
		p, err := start(b.proxyCore, b.dir, nil, b.self, "role", "reverse-proxy", address, "http://"+b.backend, cert, key)
		if err != nil {
			return nil, err
		}
		return b.ready(p, load{scheme: scheme, address: address, host: "app.localhost", path: path, size: size})
	}}
}

// ready waits until a program listens, and ends it if it does not.
func (b *bench) ready(p *process, l load) (*server, error) {
	if err := p.listens(b.ctx, l.address); err != nil {
		p.stop()
		return nil, err
	}
	return &server{process: p, load: l}, nil
}

// serveReverseProxy is the process of that reference. Without TLS, cert and key
// are "-".
func serveReverseProxy(ctx context.Context, address, target, cert, key string) error {
	to, err := url.Parse(target)
	if err != nil {
		return err
	}
	buffers := sync.Pool{New: func() any { return new([32 << 10]byte) }}
	server := &http.Server{
		Addr: address,
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				r.SetXForwarded()
			},
			Transport:  &http.Transport{MaxIdleConnsPerHost: 4 * inFlight, IdleConnTimeout: 90 * time.Second, DisableCompression: true},
			BufferPool: pool{&buffers},
			ErrorLog:   log.Default(),
		},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	context.AfterFunc(ctx, func() { server.Close() })
	if cert == "-" {
		return server.ListenAndServe()
	}
	return server.ListenAndServeTLS(cert, key)
}

// pool implements httputil.BufferPool.
type pool struct{ *sync.Pool }

// Get implements httputil.BufferPool.
func (p pool) Get() []byte { return p.Pool.Get().(*[32 << 10]byte)[:] }

// Put implements httputil.BufferPool.
func (p pool) Put(b []byte) { p.Pool.Put((*[32 << 10]byte)(b)) }
