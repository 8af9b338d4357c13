package tunnel

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Options say which door to go through, and as whom.
type Options struct {
	// Server is the address of the door, https://HOST[:PORT]. Plain http is taken
	// for this machine only. Required.
	Server string
	// TLS holds whom to trust and which certificate to present. The door's
	// certificate is verified in any case. Default: the system's authorities.
	TLS *tls.Config
	// Token returns a valid access token, empty if there is none to send. Nil: none.
	Token func(context.Context) (string, error)
	// Form is Token, WebSocketToken or "CONNECT". Default: Token, and WebSocket
	// where something on the way does not let it pass.
	Form string
	// Proxy is the HTTP proxy on the way. Default: http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)
	// Wait is a pause between attempts that ends with its context. Default: a timer.
	Wait func(context.Context, time.Duration) error
}

// Door opens tunnels through a door.
type Door struct {
	Options
	base   *url.URL
	client *http.Client
	// webSocket is set once nothing else has passed.
	webSocket atomic.Bool
}

const (
	reachTimeout = 15 * time.Second // to the door
	openTimeout  = 60 * time.Second // to its answer
	maxAnswer    = 1 << 20
	// formConnect is the classic CONNECT among the forms.
	formConnect = http.MethodConnect
)

// Unreachable is the error where the door does not answer as one.
type Unreachable struct {
	Server string
	Err    error
}

// Error implements error.
func (e *Unreachable) Error() string {
	return fmt.Sprintf("cannot reach the door %s: %v", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *Unreachable) Unwrap() error { return e.Err }

// New returns a client of a door. The error says which option cannot be used.
func New(opts Options) (*Door, error) {
	base, err := url.Parse(opts.Server)
	switch {
	case err != nil || base.Hostname() == "" || base.User != nil || base.Path != "" && base.Path != "/" || base.RawQuery != "":
		return nil, fmt.Errorf("%.200q is no address of a door, such as https://door.corp.example.com", opts.Server)
	case base.Scheme == "http" && !access.Loopback(base.Hostname()):
		return nil, fmt.Errorf("%s is reached without TLS, so that anybody on the way could use your token", opts.Server)
	case base.Scheme != "http" && base.Scheme != "https":
		return nil, fmt.Errorf("%.200q is no address of a door, such as https://door.corp.example.com", opts.Server)
	}
	switch opts.Form {
	case "", Token, WebSocketToken, formConnect:
	default:
		return nil, fmt.Errorf("%.40q is no form of a tunnel: choose %s, %s or %s", opts.Form, Token, WebSocketToken, formConnect)
	}
	if opts.TLS == nil {
		opts.TLS = &tls.Config{}
	}
	if opts.Proxy == nil {
		opts.Proxy = http.ProxyFromEnvironment
	}
	if opts.Wait == nil {
		opts.Wait = wait
	}
	d := &Door{Options: opts, base: &url.URL{Scheme: base.Scheme, Host: base.Host}}
	d.client = &http.Client{
		Transport: &http.Transport{TLSClientConfig: opts.TLS.Clone(), Proxy: opts.Proxy, DialContext: dialLocalhost, DisableKeepAlives: true, TLSHandshakeTimeout: reachTimeout},
		Timeout:   openTimeout,
		// The token is for this door alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dialLocalhost dials, with names below localhost being this machine, as
// browsers see them. Connections show soon that the other side has gone, as
// after a sleep.
func dialLocalhost(ctx context.Context, network, address string) (net.Conn, error) {
	if host, port, err := net.SplitHostPort(address); err == nil && strings.HasSuffix(host, ".localhost") {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	dialer := net.Dialer{Timeout: reachTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	return dialer.DialContext(ctx, network, address)
}

// request makes a request to the door with the caller's credentials.
func (d *Door) request(ctx context.Context, method string, at *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "doorward-connect")
	if d.Token != nil {
		token, err := d.Token(ctx)
		if err != nil {
			return nil, err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	return req, nil
}

// Granted asks which tunnels the caller may open now.
func (d *Door) Granted(ctx context.Context) (*Granted, error) {
	at := *d.base
	at.Path = access.TunnelsPath
	req, err := d.request(ctx, http.MethodGet, &at)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, &Unreachable{d.base.String(), unwrapURL(err)}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, d.refused(resp, "the list of tunnels")
	}
	answer := new(Granted)
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer); err != nil {
		return nil, &Unreachable{d.base.String(), errors.New("what answers there is no door with tunnels")}
	}
	return answer, nil
}

// unwrapURL leaves out the address, which the message has already.
func unwrapURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Open opens a tunnel to host:port. The error is a *Refusal where the door said
// no, *Unreachable where there was no door, or what kept the token from being had.
func (d *Door) Open(ctx context.Context, target string) (Stream, error) {
	forms := []string{d.Form}
	switch {
	case d.Form != "":
	case d.webSocket.Load():
		forms = []string{WebSocketToken}
	default:
		forms = []string{Token, WebSocketToken}
	}
	var first error
	for _, form := range forms {
		s, err := d.open(ctx, target, form)
		if err == nil {
			if len(forms) > 1 {
				d.webSocket.Store(form == WebSocketToken)
			}
			return s, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, errNotPassed) {
			return nil, first
		}
	}
	return nil, first
}

// errNotPassed tells that the door, or somebody in front of it, answered without
// switching and without saying why not.
var errNotPassed = errors.New("what answers there opens no tunnels")

// open opens a tunnel in one form.
func (d *Door) open(ctx context.Context, target, form string) (Stream, error) {
	req, err := d.opening(ctx, target, form)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, &Unreachable{d.base.String(), err}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	s, err := d.switchOver(conn, req, target, form)
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = &Unreachable{d.base.String(), context.Cause(ctx)}
		}
		return nil, err
	}
	if !stop() {
		s.Abort()
		return nil, &Unreachable{d.base.String(), context.Cause(ctx)}
	}
	return s, nil
}

// opening is the request that opens a tunnel.
func (d *Door) opening(ctx context.Context, target, form string) (*http.Request, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("%.200q is not HOST:PORT", target)
	}
	if form == formConnect {
		req, err := d.request(ctx, http.MethodConnect, d.base)
		if err != nil {
			return nil, err
		}
		req.URL, req.Host = &url.URL{Opaque: target}, target
		return req, nil
	}
	at, err := d.base.Parse(pathOf(host, port))
	if err != nil {
		return nil, fmt.Errorf("%.200q is not HOST:PORT", target)
	}
	req, err := d.request(ctx, http.MethodGet, at)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", form)
	if form == WebSocketToken {
		req.Header.Set("Sec-WebSocket-Version", "13")
		req.Header.Set("Sec-WebSocket-Protocol", SubProtocol)
		var nonce [16]byte
		rand.Read(nonce[:])
		req.Header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString(nonce[:]))
	} else {
		req.Header.Set("Capsule-Protocol", "?1")
	}
	return req, nil
}

// switchOver sends the request and turns the connection into a stream.
func (d *Door) switchOver(conn net.Conn, req *http.Request, target, form string) (Stream, error) {
	if err := req.Write(conn); err != nil {
		return nil, &Unreachable{d.base.String(), err}
	}
	in := bufio.NewReaderSize(conn, 4<<10)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, &Unreachable{d.base.String(), broken(err)}
	}
	switched := resp.StatusCode == http.StatusSwitchingProtocols && UpgradeOf(resp.Header) == form
	if form == WebSocketToken {
		switched = switched && resp.Header.Get("Sec-WebSocket-Accept") == AcceptKey(req.Header.Get("Sec-WebSocket-Key"))
	} else if form == formConnect {
		switched = resp.StatusCode/100 == 2
	}
	if !switched {
		return nil, d.refused(resp, target)
	}
	early, err := in.Peek(in.Buffered())
	if err != nil {
		return nil, &Unreachable{d.base.String(), err}
	}
	early = append([]byte(nil), early...)
	switch form {
	case formConnect:
		return NewPlain(conn, early), nil
	case WebSocketToken:
		return pinged(newWebSocket(conn, early, true)), nil
	}
	return NewCapsules(conn, early), nil
}

// dial connects to the door, through a proxy if there is one on the way.
func (d *Door) dial(ctx context.Context) (net.Conn, error) {
	address := d.base.Host
	if d.base.Port() == "" {
		address = net.JoinHostPort(d.base.Hostname(), map[string]string{"http": "80", "https": "443"}[d.base.Scheme])
	}
	conn, err := d.dialThrough(ctx, address)
	if err != nil || d.base.Scheme == "http" {
		return conn, err
	}
	conf := d.TLS.Clone()
	if conf.ServerName == "" {
		conf.ServerName = d.base.Hostname()
	}
	conf.NextProtos = []string{"http/1.1"}
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

func (d *Door) dialThrough(ctx context.Context, address string) (net.Conn, error) {
	via, err := d.Proxy(&http.Request{URL: d.base})
	if err != nil || via == nil {
		if err != nil {
			return nil, fmt.Errorf("the proxy on the way: %w", err)
		}
		return dialLocalhost(ctx, "tcp", address)
	}
	if via.Scheme != "http" {
		return nil, fmt.Errorf("the proxy on the way, %s, is not reached by http", via.Redacted())
	}
	proxy := via.Host
	if via.Port() == "" {
		proxy = net.JoinHostPort(via.Hostname(), "80")
	}
	conn, err := dialLocalhost(ctx, "tcp", proxy)
	if err != nil {
		return nil, fmt.Errorf("the proxy on the way: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if user := via.User; user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("the proxy on the way: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByOne{conn}, 16), req)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answered %s", resp.Status)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("the proxy on the way: %w", err)
	}
	return conn, nil
}

// oneByOne reads single bytes, so that nothing is read that comes after the
// answer of a proxy.
type oneByOne struct{ io.Reader }

// Read implements io.Reader.
func (o oneByOne) Read(b []byte) (int, error) { return o.Reader.Read(b[:min(1, len(b))]) }

// pingEvery is less than proxies on the way commonly wait for.
const pingEvery = 25 * time.Second

// pingedStream sends pings until it is closed, for proxies on the way that close
// what seems to be idle.
type pingedStream struct {
	*webSocket
	stop func()
}

func pinged(s *webSocket) *pingedStream {
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(pingEvery, func() {
		<-ready
		if s.Ping() == nil {
			timer.Reset(pingEvery)
		}
	})
	close(ready)
	return &pingedStream{s, func() { timer.Stop() }}
}

// Abort implements Stream.
func (p *pingedStream) Abort() {
	p.stop()
	p.webSocket.Abort()
}

// Close implements Stream.
func (p *pingedStream) Close() error {
	p.stop()
	return p.webSocket.Close()
}
