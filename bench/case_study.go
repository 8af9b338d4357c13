package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/h1"
	"github.com/doorward/doorward/internal/lane"
)

// study is what docs/decisions/fast-lane.md quotes: how much each part of a
// proxy in Go costs, from the standard library's on both sides to two exchanges of
// bytes that nobody looks at.
var study = benchCase{
	id: "study", onRequest: true,
	title: "Where a proxy in Go spends its time, plain HTTP/1.1, answers of 1 KiB",
	about: "No participant checks anything. `lane` serves plain requests itself and leaves the rest to net/http;\n" +
		"`loop` is a forwarding loop of a few lines in place of httputil.ReverseProxy; the last one copies bytes. See decisions/fast-lane.md.",
	run: func(b *bench) (*table, error) {
		results, err := b.compare([]participant{
			bareServer(false, smallPath, smallSize),
			studied("net/http + ReverseProxy + our client", "http,reverse-proxy"),
			studied("net/http + loop + our client", "http,loop"),
			studied("lane + ReverseProxy + our client", "lane,reverse-proxy"),
			studied("lane + loop + our client", "lane,loop"),
			studied("two exchanges of bytes", "bytes"),
		}, b.wrk)
		if err != nil {
			return nil, err
		}
		return loadTable(results, bare+", no check", "net/http + ReverseProxy + our client"), nil
	},
}

func studied(name, made string) participant {
	return participant{name, func(b *bench) (*server, error) {
		address, err := b.freeAddress()
		if err != nil {
			return nil, err
		}
		p, err := start(b.proxyCore, b.dir, nil, b.self, "role", "study", made, address, b.backend)
		if err != nil {
			return nil, err
		}
		return b.ready(p, load{scheme: "http", address: address, host: "app.localhost", path: smallPath, size: smallSize})
	}}
}

// serveStudied is the process of one of them.
func serveStudied(ctx context.Context, made, address, target string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	if made == "bytes" {
		return copyBytes(listener, target)
	}
	front, forward, _ := strings.Cut(made, ",")
	client := h1.New(h1.Options{Dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, ResponseHeaderTimeout: time.Minute, IdlePerHost: 4 * inFlight})
	to := &url.URL{Scheme: "http", Host: target}
	buffers := sync.Pool{New: func() any { return new([32 << 10]byte) }}
	var handler http.Handler = loop(client, to, &buffers)
	if forward == "reverse-proxy" {
		handler = &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				r.SetXForwarded()
			},
			Transport: client, BufferPool: pool{&buffers}, ErrorLog: log.Default(),
		}
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	if front == "http" {
		return server.Serve(listener)
	}
	return lane.New(server).Serve(listener)
}

// loop forwards requests without bodies and their answers, in as few steps as
// there can be. It knows nothing of trailers, upgrades and answers before the
// answer.
func loop(client http.RoundTripper, to *url.URL, buffers *sync.Pool) http.HandlerFunc {
	hop := []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}
	return func(w http.ResponseWriter, r *http.Request) {
		header := r.Header
		for _, name := range hop {
			delete(header, name)
		}
		ip, _, _ := net.SplitHostPort(r.RemoteAddr)
		header["X-Forwarded-For"] = []string{ip}
		header["X-Forwarded-Host"] = []string{r.Host}
		header["X-Forwarded-Proto"] = []string{"http"}
		at := *r.URL
		at.Scheme, at.Host = to.Scheme, to.Host
		out := *r
		out.URL, out.Host = &at, to.Host
		res, err := client.RoundTrip(&out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		answer := w.Header()
		for name, values := range res.Header {
			answer[name] = values
		}
		for _, name := range hop {
			delete(answer, name)
		}
		w.WriteHeader(res.StatusCode)
		buffer := buffers.Get().(*[32 << 10]byte)
		defer buffers.Put(buffer)
		io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{res.Body}, buffer[:])
	}
}

// copyBytes passes on what it reads: the limit of every proxy that has a
// connection to the backend for each of its visitors. It takes for granted that
// a request is one read and an answer as long as the first one.
func copyBytes(listener net.Listener, target string) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			backend, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer backend.Close()
			var room [8 << 10]byte
			for length := 0; ; {
				n, err := conn.Read(room[:])
				if err != nil {
					return
				}
				if _, err := backend.Write(room[:n]); err != nil {
					return
				}
				n, err = backend.Read(room[:])
				for length == 0 && err == nil && n < smallSize {
					var more int
					more, err = backend.Read(room[n:])
					n += more
				}
				length = max(length, n)
				for err == nil && n < length {
					var more int
					more, err = backend.Read(room[n:])
					n += more
				}
				if err != nil {
					return
				}
				if _, err := conn.Write(room[:n]); err != nil {
					return
				}
			}
		}()
	}
}
