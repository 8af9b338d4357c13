package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/tunnel"
)

// tokenBearer knows whoever sends a token by it.
type tokenBearer struct{}

func (tokenBearer) Identify(r *http.Request, req *access.Request) error {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		if len(r.Header["Cookie"]) > 0 {
			return errors.New("a cookie opens a tunnel")
		}
		return nil
	}
	req.Credential.Scheme = "Bearer"
	req.Identity = access.Identity{Provider: "corp", Issuer: "https://idp", Subject: name, Email: name + "@corp.example"}
	req.Credential.Expires = req.Time.Add(time.Hour)
	return nil
}

func (b tokenBearer) IdentifyAgain(r *http.Request, req *access.Request, _ bool) error {
	return b.Identify(r, req)
}

func withTokens(w *world) { w.snapshot.Identify = tokenBearer{} }

// echoServer sends back what it gets, and ends when its client has.
func echoServer(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l
}

func newTunnelWorld(t *testing.T, target string, changes ...change) *world {
	t.Helper()
	return newWorld(t, []access.Route{tunnelRoute("echo", "tcp://echo.corp.example:7", []string{"tcp://" + target})}, append([]change{withTokens}, changes...)...)
}

// client is a client of the door as token.
func (w *world) client(form, token string) *tunnel.Door {
	w.t.Helper()
	opts := tunnel.Options{Server: "http://" + w.server.Listener.Addr().String(), Form: form, Proxy: direct,
		Token: func(context.Context) (string, error) { return token, nil }}
	if w.secure {
		pool := x509.NewCertPool()
		pool.AddCert(w.server.Certificate())
		opts.Server, opts.TLS = "https://"+w.server.Listener.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "example.com"}
	}
	d, err := tunnel.New(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

var tunnelForms = []string{tunnel.Token, tunnel.WebSocketToken, http.MethodConnect}

const echoName = "echo.corp.example:7"

func frameOf(text string) []byte { return append(make([]byte, tunnel.Headroom), text...) }

// In every form, plain and over TLS, bytes go there and back, each direction ends
// by itself, and one event tells all of it.
func TestTunnelForms(t *testing.T) {
	target := echoServer(t)
	for _, secure := range []bool{false, true} {
		for _, form := range tunnelForms {
			t.Run(fmt.Sprintf("%s tls=%v", form, secure), func(t *testing.T) {
				w := newTunnelWorld(t, target.Addr().String(), func(w *world) { w.secure = secure })
				s, err := w.client(form, "alice").Open(t.Context(), echoName)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Send(frameOf("hello")); err != nil {
					t.Fatal(err)
				}
				if err := s.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
					t.Fatalf("%q, %v", got, err)
				}
				s.Close()
				e := w.rec.event(t)
				want := access.Request{Door: access.Tunnel, Method: "CONNECT", Scheme: "tcp", Host: echoName, Path: "/", Route: "echo"}
				if r := e.Request; r.Door != want.Door || r.Method != want.Method || r.Scheme != want.Scheme || r.Host != want.Host || r.Path != want.Path || r.Route != want.Route {
					t.Errorf("%+v", r)
				}
				if res := e.Response; res.BytesIn != 5 || res.BytesOut != 5 || res.Upstream != "tcp://"+target.Addr().String() || res.Reason != "" || e.Decision.Outcome != access.Allow {
					t.Errorf("%+v", res)
				}
			})
		}
	}
}

// Classic CONNECT works over HTTP/2, with prior knowledge and over TLS.
func TestTunnelOverHTTP2(t *testing.T) {
	target := echoServer(t)
	w := newTunnelWorld(t, target.Addr().String(), overHTTP2)
	read, write := io.Pipe()
	req, _ := http.NewRequest(http.MethodConnect, "https://"+echoName, read)
	req.Host = echoName
	req.Header.Set("Proxy-Authorization", "Bearer alice")
	res, err := w.transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 || res.ProtoMajor != 2 || res.Header.Get("Proxy-Status") != "doorward" {
		t.Fatalf("%+v", res)
	}
	go func() {
		io.WriteString(write, "hello")
		write.Close()
	}()
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if e := w.rec.event(t); e.Response.BytesIn != 5 || e.Response.BytesOut != 5 || e.Response.Reason != "" {
		t.Errorf("%+v", e.Response)
	}
}

// A refusal comes before anything is looked up or dialed, says why, and tells
// strangers no more than that.
func TestTunnelsAreRefusedBeforeAnyDial(t *testing.T) {
	for name, c := range map[string]struct {
		token, target string
		policy        policy
		status        int
		reason        access.Reason
	}{
		"nobody":                        {"", echoName, loginFirst, 401, access.LoginRequired},
		"nobody, where there is none":   {"", "other.corp.example:7", loginFirst, 401, access.LoginRequired},
		"somebody, where there is none": {"alice", "other.corp.example:7", loginFirst, 404, access.NoRoute},
		"the policy says no":            {"alice", echoName, deny(access.NotAllowed), 403, access.NotAllowed},
		"the policy fails":              {"alice", echoName, func(*access.Request) access.Decision { panic("bug") }, 500, access.InternalError},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTunnelWorld(t, "127.0.0.1:9", withPolicy(c.policy))
			touched := false
			w.door.dial = func(context.Context, string, string) (net.Conn, error) {
				touched = true
				return nil, errors.New("no")
			}
			w.door.resolve = func(context.Context, string) ([]netip.Addr, error) {
				touched = true
				return nil, errors.New("no")
			}
			for _, form := range tunnelForms {
				_, err := w.client(form, c.token).Open(t.Context(), c.target)
				refused, ok := errors.AsType[*tunnel.Refusal](err)
				status := c.status
				if status == 401 && form == http.MethodConnect {
					status = 407
				}
				if !ok || refused.Reason != c.reason || refused.Status != status {
					t.Errorf("%s: %v", form, err)
				}
				if e := w.rec.event(t); e.Request.Scheme != "tcp" || e.Decision == nil || e.Decision.Outcome == access.Allow {
					t.Errorf("%s: recorded %+v", form, e)
				}
			}
			if touched {
				t.Error("something was looked up or dialed")
			}
		})
	}
}

// What is no tunnel as the standards have it is answered and not guessed at.
func TestTunnelsThatAreNone(t *testing.T) {
	w := newTunnelWorld(t, "127.0.0.1:9")
	const head, upgrade = " HTTP/1.1\r\nHost: door.example\r\nAuthorization: Bearer alice\r\n", "Connection: Upgrade\r\nUpgrade: "
	const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	at := "GET " + tunnel.Template
	for request, status := range map[string]int{
		at + "echo.corp.example/7/" + head:                                                                           426,
		at + "echo.corp.example/7/" + head + upgrade + "h2c\r\n":                                                     426,
		at + "echo.corp.example/7/" + head + "Upgrade: connect-tcp\r\n":                                              426,
		"POST " + tunnel.Template + "echo.corp.example/7/" + head + upgrade + "connect-tcp\r\nContent-Length: 0\r\n": 426,
		at + "echo.corp.example/7/?x=1" + head + upgrade + "connect-tcp\r\n":                                         400,
		at + "echo.corp.example/7/" + head + upgrade + "connect-tcp\r\nOrigin: https://evil.example\r\n":             400,
		at + "echo.corp.example/7/" + head + upgrade + "connect-tcp\r\nContent-Length: 3\r\n":                        400,
		at + "echo.corp.example/7/" + head + upgrade + "websocket\r\n":                                               400,
		at + "echo.corp.example/7/" + head + upgrade + "websocket\r\n" + strings.Replace(key, "13", "12", 1):         400,
		at + "2130706433/7/" + head + upgrade + "connect-tcp\r\n":                                                    400,
		at + "echo.corp.example/" + head + upgrade + "connect-tcp\r\n":                                               400,
		at + "echo.corp.example/70000/" + head + upgrade + "connect-tcp\r\n":                                         400,
		"CONNECT 0177.0.0.1:7" + head:                                                                                400,
		"CONNECT echo.corp.example" + head:                                                                           400,
		"CONNECT echo.corp.example:7" + head + "Content-Length: 3\r\n":                                               400,
		"CONNECT echo.corp.example:7" + strings.Replace(head, "1.1", "1.0", 1):                                       501,
	} {
		request += "\r\n"
		if strings.Contains(request, "Length: 3") {
			request += "abc"
		}
		res, body := w.raw(request)
		if res.StatusCode != status {
			t.Errorf("%q: %d %s", request, res.StatusCode, body)
		}
		if e := w.rec.event(t); e.Response.Upstream != "" {
			t.Errorf("%q: %+v", request, e.Response)
		}
		if status == 426 && res.Header.Get("Upgrade") == "" {
			t.Errorf("%q: not a word about what to upgrade to", request)
		}
	}
	// Cookies are not looked at, whoever sends them.
	if res, _ := w.raw("CONNECT echo.corp.example:7 HTTP/1.1\r\nHost: x\r\nCookie: doorward=alice\r\n\r\n"); res.StatusCode != 407 || res.Header.Get("Proxy-Authenticate") == "" {
		t.Errorf("%+v", res)
	}
}

// Without routes for tunnels the door is no proxy, as before.
func TestNoTunnelsNoConnect(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))})
	res, _ := w.raw("CONNECT app.example:80 HTTP/1.1\r\nHost: app.example:80\r\n\r\n")
	if res.StatusCode != 400 {
		t.Errorf("%d", res.StatusCode)
	}
}

// When the visitor may not go on, the tunnel is cut: the client learns why, the
// target that something broke.
func TestTunnelEndsWhenAccessDoes(t *testing.T) {
	for _, form := range tunnelForms {
		t.Run(form, func(t *testing.T) {
			target := echoServer(t)
			revoked := make(chan struct{})
			w := newTunnelWorld(t, target.Addr().String(), withPolicy(func(req *access.Request) access.Decision {
				select {
				case <-revoked:
					return access.Decision{Reason: access.NotAllowed}
				default:
					return allowAll(req)
				}
			}))
			s, err := w.client(form, "alice").Open(t.Context(), echoName)
			if err != nil {
				t.Fatal(err)
			}
			s.Send(frameOf("x"))
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			close(revoked)
			w.door.Signal(access.Signal{Issuer: "https://idp", Subject: "alice"})
			_, err = io.ReadAll(s)
			if form != http.MethodConnect && tunnel.ReasonOf(err) != access.NotAllowed || err == nil {
				t.Errorf("the client ends with %v", err)
			}
			s.Abort()
			closed, decision := w.rec.event(t), w.rec.event(t)
			if closed.Kind != access.EventClosed || !strings.HasPrefix(closed.Note, "tunnel ended") || closed.Reason != access.NotAllowed || decision.Response.Reason != access.NotAllowed {
				t.Errorf("%+v, %+v", closed, decision.Response)
			}
		})
	}
}

// A tunnel through which nothing is sent is closed, and so is every tunnel of a
// door that closes.
func TestTunnelsEndWhenIdleAndWhenTheDoorCloses(t *testing.T) {
	target := echoServer(t)
	w := newTunnelWorld(t, target.Addr().String())
	w.snapshot.Server.Tunnels.IdleTimeout = access.Duration(20 * time.Millisecond) // less than a configuration may say
	s, err := w.client("", "alice").Open(t.Context(), echoName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); tunnel.ReasonOf(err) != access.TunnelIdle {
		t.Errorf("%v", err)
	}
	if e := w.rec.event(t); e.Response.Reason != access.TunnelIdle {
		t.Errorf("%+v", e.Response)
	}
	w = newTunnelWorld(t, target.Addr().String())
	if s, err = w.client("", "alice").Open(t.Context(), echoName); err != nil {
		t.Fatal(err)
	}
	w.door.Close()
	if _, err := io.ReadAll(s); tunnel.ReasonOf(err) != access.ShuttingDown {
		t.Errorf("%v", err)
	}
	if e := w.rec.event(t); e.Response.Reason != access.ShuttingDown {
		t.Errorf("%+v", e.Response)
	}
}

// One person cannot take all tunnels, and one destination not all there are.
func TestTunnelsAreLimited(t *testing.T) {
	target := echoServer(t)
	w := newTunnelWorld(t, target.Addr().String(), withServer(func(c *Config) { c.Tunnels = Tunnels{PerIdentity: 2, PerDestination: 3} }))
	open := func(who string) (tunnel.Stream, access.Reason) {
		s, err := w.client("", who).Open(t.Context(), echoName)
		return s, tunnel.ReasonOf(err)
	}
	first, why := open("alice")
	if _, why2 := open("alice"); why != "" || why2 != "" {
		t.Fatal(why, why2)
	}
	if _, why := open("alice"); why != access.TooManyTunnels {
		t.Errorf("a third one of hers: %q", why)
	}
	if _, why := open("bob"); why != "" {
		t.Errorf("his first: %q", why)
	}
	if _, why := open("bob"); why != access.TooManyTunnels {
		t.Errorf("a fourth one to the same place: %q", why)
	}
	first.Abort()
	for e := w.rec.event(t); e.Response.Reason != access.ClientGone; e = w.rec.event(t) {
	}
	if _, why := open("bob"); why != "" {
		t.Errorf("after one was closed: %q", why)
	}
}

// A target that is not there is said to be so.
func TestTunnelTargetsThatAreAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	w := newWorld(t, []access.Route{tunnelRoute("gone", "tcp://gone.example:7", []string{"tcp://" + l.Addr().String()}),
		tunnelRoute("range", "tcp://*.corp.example:7", nil, "10.0.0.0/8")}, withTokens)
	for target, want := range map[string]string{
		"gone.example:7": "connection_refused upstream_unreachable", "evil.corp.example:7": "destination_ip_prohibited target_prohibited",
		"unknown.corp.example:7": "dns_error upstream_unreachable", "slow.corp.example:7": "dns_timeout upstream_timeout",
	} {
		w.door.resolve = func(_ context.Context, name string) ([]netip.Addr, error) {
			switch name {
			case "evil.corp.example":
				return []netip.Addr{netip.MustParseAddr("::ffff:169.254.169.254")}, nil
			case "slow.corp.example":
				return nil, &net.DNSError{IsTimeout: true}
			}
			return nil, &net.DNSError{IsNotFound: true}
		}
		res, _ := w.raw("CONNECT " + target + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n\r\n")
		e := w.rec.event(t)
		if got := strings.TrimPrefix(res.Header.Get("Proxy-Status"), "doorward; error=") + " " + string(e.Response.Reason); got != want {
			t.Errorf("%s: %s", target, got)
		}
	}
}

// The list of tunnels holds what the caller may open, and nothing of the rest.
func TestListOfTunnels(t *testing.T) {
	w := newWorld(t, []access.Route{tunnelRoute("a", "tcp://a.example:22", []string{"tcp://10.1.2.3:22"}), tunnelRoute("secret", "tcp://secret.example:22", []string{"tcp://10.1.2.4:22"}),
		tunnelRoute("range", "tcp://*.b.example:22", nil, "10.0.0.0/8")}, withTokens, withPolicy(func(req *access.Request) access.Decision {
		if req.Route == "secret" || req.Scheme != "tcp" {
			return access.Decision{Reason: access.NotAllowed}
		}
		return loginFirst(req)
	}))
	granted, err := w.client("", "alice").Granted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(granted.Tunnels)
	if string(text) != `[{"route":"range","target":"*.b.example:22"},{"route":"a","target":"a.example:22"}]` || granted.User != "alice@corp.example" || granted.Until.IsZero() {
		t.Errorf("%+v %s", granted, text)
	}
	if !granted.Tunnels[0].Covers("x.b.example:22") || granted.Tunnels[0].Covers("x.y.b.example:22") || granted.Tunnels[0].Covers("b.example:22") {
		t.Error("a range covers something else")
	}
	if _, err := w.client("", "").Granted(t.Context()); tunnel.ReasonOf(err) != access.LoginRequired {
		t.Errorf("nobody: %v", err)
	}
}

// Where something on the way does not let connect-tcp pass, WebSocket is used,
// from then on at once.
func TestClientFallsBackToWebSocket(t *testing.T) {
	target := echoServer(t)
	w := newTunnelWorld(t, target.Addr().String())
	door := w.client("", "alice")
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	refused := 0
	go func() { // a proxy that knows WebSocket only
		for {
			conn, err := front.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(conn)
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if req.Header.Get("Upgrade") != "websocket" {
				refused++
				io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
				conn.Close()
				continue
			}
			behind, err := net.Dial("tcp", w.server.Listener.Addr().String())
			if err != nil {
				return
			}
			req.Write(behind)
			go io.Copy(behind, in)
			go io.Copy(conn, behind)
		}
	}()
	door2, err := tunnel.New(tunnel.Options{Server: "http://" + front.Addr().String(), Token: door.Token, Proxy: direct})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := door2.Open(t.Context(), echoName)
		if err != nil {
			t.Fatal(err)
		}
		s.Send(frameOf("hello"))
		if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if refused != 1 {
		t.Errorf("tried in vain %d times", refused)
	}
}

// direct is the way to the door without a proxy, whatever the environment says.
func direct(*http.Request) (*url.URL, error) { return nil, nil }

// The client goes through the HTTP proxy that its environment names, with the
// proxy's own password, and speaks TLS with the door behind it.
func TestClientGoesThroughAProxy(t *testing.T) {
	target := echoServer(t)
	w := newTunnelWorld(t, target.Addr().String(), overTLS)
	asked := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host + " " + r.Header.Get("Proxy-Authorization") + " " + r.Header.Get("Authorization")
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		behind, err := net.Dial("tcp", w.server.Listener.Addr().String())
		if err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(behind, conn)
		go io.Copy(conn, behind)
	}))
	t.Cleanup(proxy.Close)
	through, err := url.Parse("http://user:secret@" + proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	door := w.client("", "alice")
	door.Proxy = func(*http.Request) (*url.URL, error) { return through, nil }
	s, err := door.Open(t.Context(), echoName)
	if err != nil {
		t.Fatal(err)
	}
	s.Send(frameOf("hello"))
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	s.Abort()
	if got := <-asked; got != "CONNECT "+w.server.Listener.Addr().String()+" Basic dXNlcjpzZWNyZXQ= " {
		t.Errorf("the proxy was asked %q", got)
	}
}

// A door that cannot prove who it is gets no token.
func TestClientVerifiesTheDoor(t *testing.T) {
	w := newTunnelWorld(t, "127.0.0.1:9", overTLS)
	door, err := tunnel.New(tunnel.Options{Server: "https://" + w.server.Listener.Addr().String(), Proxy: direct,
		Token: func(context.Context) (string, error) { return "alice", nil }})
	if err != nil {
		t.Fatal(err)
	}
	_, opened := door.Open(t.Context(), echoName)
	_, listed := door.Granted(t.Context())
	for _, err := range []error{opened, listed} {
		if _, away := errors.AsType[*tunnel.Unreachable](err); !away || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
	}
}
