package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/doorward/doorward/internal/access"
)

// upstreamOf starts an application.
func upstreamOf(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestUpstreamIsAddressedByItsOwnNameUnlessTheRoutePreservesTheHost(t *testing.T) {
	echo := newEcho(t)
	preserved := routeTo("http://p.example", echo)
	preserved.ID, preserved.PreserveHost = "p", true
	w := newWorld(t, []access.Route{routeTo("http://app.example", echo), preserved}, withPolicy(allowAll))
	_, body := w.ask("GET", "http://app.example/")
	if saw := decode(t, body); "http://"+saw.Host != echo.URL || saw.Header.Get("X-Forwarded-Host") != "app.example" {
		t.Errorf("%+v", saw)
	}
	if _, body = w.ask("GET", "http://p.example/"); decode(t, body).Host != "p.example" {
		t.Error(body)
	}
}

func TestEventStreamsAreFlushedAtOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		scheme  string
		changes []change
	}{{"HTTP/1.1", "http", nil}, {"HTTP/2", "https", []change{overHTTP2}}} {
		t.Run(c.name, func(t *testing.T) {
			next := make(chan string)
			up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for text := range next {
					fmt.Fprintf(w, "data: %s\n\n", text)
					http.NewResponseController(w).Flush()
				}
			})
			w := newWorld(t, []access.Route{routeTo(c.scheme+"://app.example", up)}, append(c.changes, withPolicy(allowAll))...)
			go func() { next <- "0" }()
			req, _ := http.NewRequest("GET", c.scheme+"://app.example/", nil)
			res, err := w.transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			lines := bufio.NewScanner(res.Body)
			for i := range 3 {
				// The next event is sent only after this one was read.
				if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
					t.Fatalf("%q %v", lines.Text(), lines.Err())
				}
				if i < 2 {
					next <- fmt.Sprint(i + 1)
				}
			}
			close(next)
			io.Copy(io.Discard, res.Body)
			if e := w.rec.event(t); e.Response.BytesOut != int64(len("data: 0\n\n")*3) {
				t.Errorf("%+v", e.Response)
			}
		})
	}
}

func wsEcho(t *testing.T) *httptest.Server {
	return upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, data, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			conn.Write(r.Context(), kind, append([]byte(r.Header.Get("X-Forwarded-User")+" said "), data...))
		}
	})
}

func TestWebSocket(t *testing.T) {
	for _, change := range []change{func(*world) {}, overTLS} {
		route := access.Route{ID: "ws", To: []string{wsEcho(t).URL}, WebSocket: true, Headers: map[string]string{"X-Forwarded-User": "sub"}}
		probe := &world{}
		change(probe)
		route.From = probe.scheme() + "://app.example"
		w := newWorld(t, []access.Route{route}, change)
		client := &http.Client{Transport: w.transport()}
		ctx := t.Context()
		conn, _, err := websocket.Dial(ctx, strings.Replace(route.From, "http", "ws", 1)+"/chat", &websocket.DialOptions{
			HTTPClient: client, HTTPHeader: http.Header{"Cookie": {asAlice, "__Host-doorward=alice"}}})
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(ctx, websocket.MessageText, []byte("hello"))
		if _, data, err := conn.Read(ctx); err != nil || string(data) != "alice said hello" {
			t.Errorf("%s %v", data, err)
		}
		if w.door.InFlight() != 1 {
			t.Error("an open WebSocket is not in flight")
		}
		conn.Close(websocket.StatusNormalClosure, "")
		e := w.rec.event(t)
		if e.Response.Status != 101 || e.Response.BytesIn < 5 || e.Response.BytesOut < 15 || e.Decision.Outcome != access.Allow {
			t.Errorf("%+v", e.Response)
		}
	}
}

// An upgrade to anything but WebSocket would tunnel past every check: "h2c
// smuggling".
func TestOnlyWebSocketUpgradesPassAndOnlyWhereTheRouteSaysSo(t *testing.T) {
	asked := make(chan string, 10)
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path })
	open := routeTo("http://open.example", up)
	open.ID, open.WebSocket = "open", true
	w := newWorld(t, []access.Route{open, routeTo("http://closed.example", up)}, withPolicy(allowAll))
	for name, raw := range map[string]string{
		"closed route": "GET / HTTP/1.1\r\nHost: closed.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"h2c":          "GET / HTTP/1.1\r\nHost: open.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"two protocol": "GET / HTTP/1.1\r\nHost: open.example\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
		"two headers":  "GET / HTTP/1.1\r\nHost: open.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
		"POST":         "POST / HTTP/1.1\r\nHost: open.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
		"with a body":  "GET / HTTP/1.1\r\nHost: open.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
		"TLS":          "GET / HTTP/1.1\r\nHost: open.example\r\nConnection: upgrade\r\nUpgrade: TLS/1.2\r\n\r\n",
		"HTTP/1.0":     "GET / HTTP/1.0\r\nHost: open.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		res, _ := w.raw(raw)
		e := w.rec.event(t)
		if res.StatusCode != 403 || e.Response.Reason != access.UpgradeRefused {
			t.Errorf("%s: %s %+v", name, res.Status, e.Response)
		}
	}
	if len(asked) != 0 {
		t.Errorf("the upstream was asked %d times", len(asked))
	}
}

// oauth2-proxy #1347: a connection is a tunnel only after the upstream said so.
func TestNoTunnelBeforeTheUpstreamAgrees(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				switch r.URL.Path {
				case "/no":
					io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
				case "/unasked":
					io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\ntunnel")
				case "/other":
					io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\ntunnel")
				}
			}()
		}
	}()
	route := access.Route{ID: "app", From: "http://app.example", To: []string{"http://" + listener.Addr().String()}, WebSocket: true}
	w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	for path, want := range map[string]struct {
		headers string
		status  int
	}{"/no": {upgrade, 400}, "/unasked": {"", 502}, "/other": {upgrade, 502}} {
		res, body := w.raw("GET " + path + " HTTP/1.1\r\nHost: app.example\r\n" + want.headers + "\r\n")
		if res.StatusCode != want.status || strings.Contains(body, "tunnel") {
			t.Errorf("%s: %s %s", path, res.Status, body)
		}
		w.rec.event(t)
	}
}

func TestUpstreamTroubleHasReasons(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	slow := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	rude := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		io.WriteString(conn, "SSH-2.0-OpenSSH\r\n")
		conn.Close()
	})
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	t.Cleanup(stranger.Close)
	plain := newEcho(t)
	for name, c := range map[string]struct {
		to     string
		reason access.Reason
	}{
		"unreachable":          {"http://" + dead.Addr().String(), access.UpstreamUnreachable},
		"slow":                 {slow.URL, access.UpstreamTimeout},
		"not HTTP":             {rude.URL, access.UpstreamBroken},
		"unknown certificate":  {stranger.URL, access.UpstreamTLSFailed},
		"plaintext behind TLS": {strings.Replace(plain.URL, "http", "https", 1), access.UpstreamTLSFailed},
	} {
		route := access.Route{ID: "app", From: "http://app.example", To: []string{c.to}, Timeout: access.Duration(100 * time.Millisecond)}
		w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
		res, body := w.ask("GET", "http://app.example/")
		e := w.rec.event(t)
		if res.StatusCode != c.reason.Info().Status || e.Response.Reason != c.reason || e.Decision.Outcome != access.Allow || e.Response.Upstream != c.to {
			t.Errorf("%s: %s %+v", name, res.Status, e.Response)
		}
		if strings.Contains(body, "127.0.0.1") || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", name, body)
		}
	}
}

func TestAnotherUpstreamIsAskedOnlyIfTheFirstWasNotReached(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	asked := make(chan string, 100)
	answer := func(name string) *httptest.Server {
		return upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			asked <- name + ":" + string(body)
			if r.URL.Path == "/cut" {
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, name)
		})
	}
	a, b := answer("a"), answer("b")
	t.Run("round robin", func(t *testing.T) {
		w := newWorld(t, []access.Route{{ID: "app", From: "http://app.example", To: []string{a.URL, b.URL}}}, withPolicy(allowAll))
		count := map[string]int{}
		for range 6 {
			_, body := w.ask("GET", "http://app.example/")
			count[body]++
			<-asked
		}
		if count["a"] != 3 || count["b"] != 3 {
			t.Error(count)
		}
	})
	t.Run("dead one is skipped, bodies arrive whole", func(t *testing.T) {
		w := newWorld(t, []access.Route{{ID: "app", From: "http://app.example", To: []string{"http://" + dead.Addr().String(), b.URL}}}, withPolicy(allowAll))
		for range 4 {
			res, body := w.withBody("POST", "http://app.example/")
			if res.StatusCode != 200 || body != "b" || <-asked != "b:body" {
				t.Errorf("%s %s", res.Status, body)
			}
			if e := w.rec.event(t); e.Response.Upstream != b.URL || e.Response.BytesIn != 4 {
				t.Errorf("%+v", e.Response)
			}
		}
	})
	t.Run("nothing is sent twice", func(t *testing.T) {
		w := newWorld(t, []access.Route{{ID: "app", From: "http://app.example", To: []string{a.URL, b.URL}}}, withPolicy(allowAll))
		res, _ := w.withBody("POST", "http://app.example/cut")
		if res.StatusCode != 502 || len(asked) != 1 {
			t.Errorf("%s, asked %d times", res.Status, len(asked))
		}
		<-asked
	})
}

func TestOnlyDoorwardSetsDoorwardsCookiesAndHeaders(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Set-Cookie"] = []string{"a=1; Path=/", "__Host-doorward=evil; Path=/", "doorward-login=evil", " doorward =evil", "b=2"}
		h.Set("Doorward-Assertion", "x")
		h.Set("Alt-Svc", `h3=":443"`)
		h.Set("Server", "nginx")
		h.Set("X-Powered-By", "PHP")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "ok")
	})
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withPolicy(allowAll))
	res, _ := w.ask("GET", "http://app.example/")
	if got := fmt.Sprint(res.Header["Set-Cookie"]); got != "[a=1; Path=/ b=2]" {
		t.Error(got)
	}
	if res.Header.Get("Doorward-Assertion") != "" || res.Header.Get("Alt-Svc") != "" || res.Header.Get("Server") != "nginx" || res.Header.Get("X-Powered-By") != "PHP" {
		t.Error(res.Header)
	}
	if e := w.rec.event(t); e.Response.Status != 200 {
		t.Errorf("%+v", e.Response) // not 103
	}
}

func TestUpstreamTLSWithClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	serverCert, serverKey := ca.issue(t, "billing.internal")
	clientCert, clientKey := ca.issue(t, "doorward.internal")
	pair, err := tls.LoadX509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	up.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool}
	up.EnableHTTP2 = true
	up.Config.ErrorLog = log.New(io.Discard, "", 0)
	up.StartTLS()
	t.Cleanup(up.Close)
	route := access.Route{ID: "app", From: "http://app.example", To: []string{up.URL},
		UpstreamTLS: access.UpstreamTLS{CA: ca.file, ClientCert: clientCert, ClientKey: clientKey, ServerName: "billing.internal"}}
	w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
	if res, body := w.ask("GET", "http://app.example/"); body != "HTTP/2.0 doorward.internal" {
		t.Errorf("%s %s", res.Status, body)
	}
	route.UpstreamTLS.ClientCert, route.UpstreamTLS.ClientKey = "", ""
	w = newWorld(t, []access.Route{route}, withPolicy(allowAll))
	w.ask("GET", "http://app.example/")
	// In TLS 1.3 the upstream's alert may come after it has hung up.
	if e := w.rec.event(t); e.Response.Reason != access.UpstreamTLSFailed && e.Response.Reason != access.UpstreamBroken {
		t.Errorf("without a client certificate: %+v", e.Response)
	}
	route.UpstreamTLS.ServerName = "other.internal"
	w = newWorld(t, []access.Route{route}, withPolicy(allowAll))
	w.ask("GET", "http://app.example/")
	if e := w.rec.event(t); e.Response.Reason != access.UpstreamTLSFailed {
		t.Errorf("another name: %+v", e.Response)
	}
}

func TestVisitorWhoLeavesIsNotTheUpstreamsFault(t *testing.T) {
	reached := make(chan bool)
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		reached <- true
		<-r.Context().Done()
	})
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withPolicy(allowAll))
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://app.example/", nil)
	go func() {
		<-reached
		cancel()
	}()
	if _, err := w.transport().RoundTrip(req); err == nil {
		t.Fatal("an answer arrived")
	}
	if e := w.rec.event(t); e.Response.Reason != access.ClientGone || e.Response.Status != 499 {
		t.Errorf("%+v", e.Response)
	}
}

func TestBrokenRequestBodyIsNotTheUpstreamsFault(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withPolicy(allowAll))
	res, _ := w.raw("POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
	if e := w.rec.event(t); res.StatusCode != 400 || e.Response.Reason != access.BadRequest {
		t.Errorf("%s %+v", res.Status, e.Response)
	}
}

// Who is refused is not asked for the body first.
func TestExpectContinue(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))})
	const head = "POST / HTTP/1.1\r\nHost: app.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
	if res, _ := w.raw(head + "\r\n"); res.StatusCode != 401 {
		t.Errorf("nobody: %s", res.Status)
	}
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, head+"Cookie: doorward=alice\r\n\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 100 {
		t.Fatalf("%v %v", res, err)
	}
	io.WriteString(conn, "body")
	if res, err = http.ReadResponse(in, nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	body, _ := io.ReadAll(res.Body)
	if decode(t, string(body)).Body != "body" {
		t.Errorf("%s", body)
	}
}
