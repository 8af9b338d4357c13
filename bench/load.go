package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// load is what is sent to a participant: over and over, on connections that are
// kept.
type load struct {
	scheme, address string
	host            string // the Host header
	path            string
	header          http.Header
	size            int // of the body of each answer

	// cycle makes each request carry another value of a header.
	cycle *cycle
}

// cycle is a header that has one of many values in turn.
type cycle struct {
	header, prefix string
	values         string // path of a file with one value in each line
	hosts          string // path of one with the Host that goes with it; may be empty

	lines []string // of values, once they have been read
}

// readCycle reads the values, for a load that is made here.
func (l *load) readCycle() error {
	if l.cycle == nil {
		return nil
	}
	text, err := os.ReadFile(l.cycle.values)
	l.cycle.lines = strings.Fields(string(text))
	return err
}

// headerOf returns the header of request i. The values have been read.
func (l *load) headerOf(i int) http.Header {
	header := l.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if c := l.cycle; c != nil {
		header.Set(c.header, c.prefix+c.lines[i%len(c.lines)])
	}
	return header
}

// inFlight is how many requests are under way at the same time.
const inFlight = 64

// sample is what one round has shown.
type sample struct {
	requests int
	failed   int // connections that broke
	elapsed  time.Duration
	bytes    int64
	p50, p99 time.Duration
}

// check sends one request as the load does and wants it to be answered in full:
// a login page is answered fast, too.
func (l *load) check(ctx context.Context) error {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, l.address)
	}
	transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: hostname(l.host)}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.scheme+"://"+l.host+l.path, nil)
	if err != nil {
		return err
	}
	if err := l.readCycle(); err != nil {
		return err
	}
	req.Header = l.headerOf(0)
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || len(body) != l.size {
		return fmt.Errorf("%s answers %d with %d bytes, and not 200 with %d: %.300s", req.URL, res.StatusCode, len(body), l.size, body)
	}
	return nil
}

func hostname(host string) string {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return host
	}
	return name
}

// firstBearer returns the header that carries the first token of a file.
func firstBearer(path string) (http.Header, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	token, _, _ := strings.Cut(string(text), "\n")
	return bearer(token), nil
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
