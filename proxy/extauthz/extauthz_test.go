package extauthz

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/proxy"
)

// people knows the visitor by the cookie "doorward".
type people struct{}

func (people) Identify(r *http.Request, req *access.Request) error {
	if c, err := r.Cookie("doorward"); err == nil {
		if c.Value == "panic" {
			panic("bug")
		}
		req.Identity = access.Identity{Provider: "corp", Issuer: "https://idp", Subject: c.Value, Email: c.Value + "@corp.example"}
	}
	return nil
}

func (p people) IdentifyAgain(r *http.Request, req *access.Request, _ bool) error {
	return p.Identify(r, req)
}

// members lets everybody in who is somebody.
type members struct{}

func (members) Decide(req *access.Request) access.Decision {
	if req.Identity.Nobody() {
		return access.Decision{Outcome: access.Challenge, Reason: access.LoginRequired, Needs: []access.Need{{Reason: access.LoginRequired}}}
	}
	return access.Decision{Outcome: access.Allow, Reason: access.Allowed, Rule: "members", Policy: "v1"}
}

func (members) Groups(string, *access.Identity) []string { return nil }

// log keeps the events.
type log struct{ events chan *access.Event }

func (l log) Record(e *access.Event) { l.events <- e.Clone() }
func (l log) Err() error             { return nil }

// envoy is the other end: a client of a server with a door behind it.
type envoy struct {
	authv3.AuthorizationClient
	health   healthv1.HealthClient
	server   *Server
	listener net.Listener
	events   chan *access.Event
}

func startEnvoy(t *testing.T, side proxy.SideDoor, changes ...func(*proxy.Snapshot)) *envoy {
	t.Helper()
	if side.Listen == "" {
		side.Listen = "unix:" + filepath.Join(t.TempDir(), "s")
	}
	table, faults := proxy.NewTable([]access.Route{{ID: "shop", From: "https://shop.example", Headers: map[string]string{"X-Forwarded-User": "user"}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	signer, err := proxy.NewSigner(t.Context(), proxy.SignerOptions{Store: store.NewMemory(time.Now), Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	e := &envoy{events: make(chan *access.Event, 100)}
	door := proxy.New(proxy.Options{Signer: signer, Recorder: log{e.events}})
	snapshot := &proxy.Snapshot{Version: "v1", Routes: table, Policy: members{}, Identify: people{}, Server: proxy.Config{ExtAuthz: side}}
	for _, change := range changes {
		change(snapshot)
	}
	if err := door.Swap(snapshot); err != nil {
		t.Fatal(err)
	}
	conf, err := side.TLS()
	if err != nil {
		t.Fatal(err)
	}
	e.server = New(proxy.SideOptions{Door: door, TLS: conf})
	if e.listener, err = side.Open(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- e.server.Serve(e.listener) }()
	t.Cleanup(func() {
		e.server.Close()
		if err := <-served; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	conn := e.dial(t, insecure.NewCredentials())
	e.AuthorizationClient, e.health = authv3.NewAuthorizationClient(conn), healthv1.NewHealthClient(conn)
	return e
}

func (e *envoy) dial(t *testing.T, c credentials.TransportCredentials) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///door", grpc.WithTransportCredentials(c),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, e.listener.Addr().Network(), e.listener.Addr().String())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// asks is a question as Envoy puts it.
func asks(method, path string, headers ...string) *authv3.CheckRequest {
	fields := map[string]string{":method": method, ":path": path, ":scheme": "https", ":authority": "shop.example", "x-forwarded-proto": "https"}
	for i := 0; i < len(headers); i += 2 {
		fields[headers[i]] = headers[i+1]
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "203.0.113.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711}}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Id: "1", Method: method, Path: path, Host: "shop.example", Scheme: "https",
			Protocol: "HTTP/2", Headers: fields, Size: -1}},
	}}
}

func (e *envoy) check(t *testing.T, q *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	res, err := e.Check(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if ok := res.GetOkResponse() != nil; ok != (res.GetStatus().GetCode() == int32(codes.OK)) || ok == (res.GetDeniedResponse() != nil) {
		t.Fatalf("the answer says two things: %v", res)
	}
	return res
}

// apply does to the headers what Envoy does with an ok response: it sets, adds,
// then removes.
func apply(t *testing.T, fields map[string]string, ok *authv3.OkHttpResponse) map[string]string {
	out := map[string]string{}
	for name, value := range fields {
		out[name] = value
	}
	for _, h := range ok.GetHeaders() {
		if h.GetAppend() == nil || h.GetAppend().GetValue() || h.GetHeader().GetKey() != strings.ToLower(h.GetHeader().GetKey()) {
			t.Errorf("%s would not be overwritten", h.GetHeader().GetKey())
		}
		out[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	for _, name := range ok.GetHeadersToRemove() {
		delete(out, name)
	}
	return out
}

// The application hears about the visitor from Doorward alone.
func TestAllowed(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{})
	q := asks("GET", "/a?b=c", "cookie", "theme=dark; doorward=alice", "x-forwarded-user", "root", "x_forwarded_user", "root", "remote-user", "root",
		"x-goog-iap-jwt-assertion", "forged", "doorward-assertion", "forged", "x-envoy-external-address", "10.0.0.1", "x-forwarded-for", "10.6.6.6, 203.0.113.7", "accept", "text/html",
		"x-envoy-auth-partial-body", "true", "x-forwarded-host", "evil.example")
	q.Attributes.Request.Http.Body = "half a body"
	res := e.check(t, q)
	event := <-e.events
	if res.GetOkResponse() == nil {
		t.Fatal(res)
	}
	if event.Request.Door != access.ExtAuthz || event.Request.Network.IP != netip.MustParseAddr("203.0.113.7") || event.Request.Path != "/a" || event.Request.Query != "b=c" {
		t.Errorf("decided on %+v", event.Request)
	}
	got := apply(t, q.Attributes.Request.Http.Headers, res.GetOkResponse())
	if got["doorward-assertion"] == "" || got["doorward-assertion"] == "forged" {
		t.Errorf("assertion %q", got["doorward-assertion"])
	}
	delete(got, "doorward-assertion")
	want := map[string]string{":method": "GET", ":path": "/a?b=c", ":scheme": "https", ":authority": "shop.example", "accept": "text/html", "cookie": "theme=dark",
		"x-forwarded-user": "corp:alice", "x-forwarded-proto": "https", "x-forwarded-host": "shop.example", "x-forwarded-for": "203.0.113.7", "x-request-id": event.Request.ID}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("the application also gets %v", got)
	}
	fields := res.GetDynamicMetadata().GetFields()
	for name, value := range map[string]string{"user": "corp:alice", "route": "shop", "rule": "members", "request": event.Request.ID, "outcome": "allow", "policy": "v1"} {
		if fields[name].GetStringValue() != value {
			t.Errorf("metadata %s is %q", name, fields[name].GetStringValue())
		}
	}
}

// A header that Envoy did not tell of is removed all the same if the application
// would believe it.
func TestRemovesWhatItWasNotTold(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{}, func(s *proxy.Snapshot) { s.Policy = everybody{} })
	ok := e.check(t, asks("GET", "/")).GetOkResponse()
	for _, name := range []string{"x-forwarded-user", "doorward-assertion", "cookie", "authorization"} {
		if !slices.Contains(ok.GetHeadersToRemove(), name) {
			t.Errorf("%s may stay", name)
		}
	}
}

type everybody struct{ members }

func (everybody) Decide(*access.Request) access.Decision {
	return access.Decision{Outcome: access.Allow, Reason: access.Allowed, Rule: "all"}
}

// People are redirected or shown a page, programs get a problem document.
func TestDenied(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{})
	res := e.check(t, asks("GET", "/", "accept", "application/json"))
	no := res.GetDeniedResponse()
	header := map[string]string{}
	for _, h := range no.GetHeaders() {
		header[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	if no.GetStatus().GetCode() != 401 || res.GetStatus().GetCode() != int32(codes.Unauthenticated) || !strings.Contains(header["content-type"], "problem+json") ||
		!strings.Contains(header["www-authenticate"], "Bearer") || !strings.Contains(no.GetBody(), "login_required") || header["cache-control"] != "no-store" {
		t.Errorf("%v", res)
	}
	if event := <-e.events; event.Response.Status != 401 || event.Decision.Reason != access.LoginRequired {
		t.Errorf("%+v", event)
	}
	e = startEnvoy(t, proxy.SideDoor{}, func(s *proxy.Snapshot) { s.Login = sendAway{} })
	res = e.check(t, asks("GET", "/", "accept", "text/html"))
	no = res.GetDeniedResponse()
	cookies := 0
	for _, h := range no.GetHeaders() {
		if h.GetHeader().GetKey() == "set-cookie" {
			if h.GetAppend().GetValue() != (cookies > 0) {
				t.Error("the cookies would not arrive together")
			}
			cookies++
		}
	}
	if no.GetStatus().GetCode() != 302 || cookies != 2 || res.GetStatus().GetCode() != int32(codes.Unauthenticated) {
		t.Errorf("%v", res)
	}
}

// sendAway begins every login with two cookies.
type sendAway struct{}

func (sendAway) Begin(w http.ResponseWriter, r *http.Request, _ *access.Request, _ access.LoginRequire, _ string) error {
	w.Header().Add("Set-Cookie", "a=b")
	w.Header().Add("Set-Cookie", "c=d")
	http.Redirect(w, r, "https://idp.example/authorize", http.StatusFound)
	return nil
}

func (sendAway) Serve(http.ResponseWriter, *http.Request, *access.Request) error { return nil }

// A question that lacks something, or says two things, is denied, whoever asks.
func TestStrictQuestions(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{}, func(s *proxy.Snapshot) { s.Policy = everybody{} })
	if res := e.check(t, asks("GET", "/")); res.GetOkResponse() == nil {
		t.Fatal(res)
	}
	type http = authv3.AttributeContext_HttpRequest
	type attributes = authv3.AttributeContext
	for name, spoil := range map[string]func(*attributes, *http){
		"no attributes":    func(a *attributes, _ *http) { proto.Reset(a) },
		"no request":       func(a *attributes, _ *http) { a.Request = nil },
		"no method":        func(_ *attributes, h *http) { h.Method = "" },
		"no path":          func(_ *attributes, h *http) { h.Path = "" },
		"no host":          func(_ *attributes, h *http) { h.Host = "" },
		"no scheme":        func(_ *attributes, h *http) { h.Scheme = "" },
		"no source":        func(a *attributes, _ *http) { a.Source = nil },
		"a name as source": func(a *attributes, _ *http) { a.Source.Address.GetSocketAddress().Address = "localhost" },
		"a pipe as source": func(a *attributes, _ *http) {
			a.Source.Address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/s"}}}
		},
		"another method":   func(_ *attributes, h *http) { h.Method = "HEAD" },
		"another path":     func(_ *attributes, h *http) { h.Path = "/public" },
		"another host":     func(_ *attributes, h *http) { h.Host = "other.example" },
		"another scheme":   func(_ *attributes, h *http) { h.Scheme = "http" },
		"TLS before Envoy": func(_ *attributes, h *http) { h.Headers["x-forwarded-proto"] = "http" },
		"a host header":    func(_ *attributes, h *http) { h.Headers["host"] = "other.example" },
		"a query apart":    func(_ *attributes, h *http) { h.Query = "a=b" },
		"a fragment":       func(_ *attributes, h *http) { h.Fragment = "a" },
		"headers twice": func(_ *attributes, h *http) {
			h.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "a", Value: "b"}}}
		},
		"an end of a header": func(_ *attributes, h *http) { h.Headers["a"] = "b\r\nx-forwarded-user: root" },
		"a path with dots":   func(_ *attributes, h *http) { h.Path, h.Headers[":path"] = "/a/../b", "/a/../b" },
		"an absolute path": func(_ *attributes, h *http) {
			h.Path, h.Headers[":path"] = "https://shop.example/", "https://shop.example/"
		},
		"a lower-case method": func(_ *attributes, h *http) { h.Method, h.Headers[":method"] = "get", "get" },
		"another route":       func(a *attributes, _ *http) { a.ContextExtensions = map[string]string{routeExtension: "other"} },
		"no certificate":      func(a *attributes, _ *http) { a.Source.Certificate = "%zz"; a.Request.Http.Path = "/x" },
	} {
		q := asks("GET", "/")
		spoil(q.Attributes, q.Attributes.GetRequest().GetHttp())
		if res := e.check(t, q); res.GetDeniedResponse().GetStatus().GetCode() < 400 {
			t.Errorf("%s: %v", name, res)
		}
	}
	q := asks("GET", "/")
	q.Attributes.ContextExtensions = map[string]string{routeExtension: "shop"}
	if res := e.check(t, q); res.GetOkResponse() == nil {
		t.Errorf("its own route: %v", res)
	}
}

// The raw form of the headers (encode_raw_headers) says the same, and can carry
// one twice.
func TestRawHeaders(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{})
	q := asks("GET", "/")
	h := q.Attributes.Request.Http
	raw := &corev3.HeaderMap{}
	for name, value := range h.Headers {
		raw.Headers = append(raw.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	raw.Headers = append(raw.Headers, &corev3.HeaderValue{Key: "cookie", RawValue: []byte("theme=\xff")}, &corev3.HeaderValue{Key: "cookie", RawValue: []byte("doorward=alice")})
	h.Headers, h.HeaderMap = nil, raw
	res := e.check(t, q)
	if res.GetOkResponse() == nil {
		t.Fatal(res)
	}
	// What is left of the cookies cannot be put in a protobuf string.
	if !slices.Contains(res.GetOkResponse().GetHeadersToRemove(), "cookie") {
		t.Errorf("the session goes to the application: %v", res)
	}
}

// Who may not ask is told no, and not that something is wrong: Envoy may have
// been told to let everybody through then.
func TestOnlyPeersAsk(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{Listen: "127.0.0.1:0", Peers: []string{"192.0.2.1"}}, func(s *proxy.Snapshot) { s.Policy = everybody{} })
	if res := e.check(t, asks("GET", "/", "cookie", "doorward=alice")); res.GetDeniedResponse().GetStatus().GetCode() != 403 || len(res.GetDynamicMetadata().GetFields()["user"].GetStringValue()) > 0 {
		t.Errorf("%v", res)
	}
}

// A bug denies one request and ends nothing.
func TestPanic(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{})
	for range 2 {
		if res := e.check(t, asks("GET", "/", "cookie", "doorward=panic")); res.GetDeniedResponse().GetStatus().GetCode() != 500 {
			t.Errorf("%v", res)
		}
	}
}

// Envoy learns from health checks when to ask somebody else.
func TestHealthAndShutdown(t *testing.T) {
	e := startEnvoy(t, proxy.SideDoor{})
	for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
		res, err := e.health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil || res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v %v", service, res, err)
		}
	}
	watch, err := e.health.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := watch.Recv(); err != nil || res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("%v %v", res, err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- e.server.Shutdown(ctx) }()
	if res, err := watch.Recv(); err != nil || res.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v %v", res, err)
	}
	cancel() // the watch stays open for as long as its client likes
	if err := <-ended; err == nil {
		t.Error("nothing was cut off")
	}
}

// Over TLS, the name in the certificate of the front end counts.
func TestAskerOverTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var ca *x509.Certificate
	issue := func(name string) tls.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
			IsCA: ca == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
		parent := ca
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if ca == nil {
			if ca, err = x509.ParseCertificate(der); err != nil {
				t.Fatal(err)
			}
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	issue("authority")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	side := proxy.SideDoor{Listen: "127.0.0.1:0", ClientCA: write("ca.pem", "CERTIFICATE", ca.Raw), Names: []string{"envoy.example"},
		Cert: write("cert.pem", "CERTIFICATE", issue("door.example").Certificate[0]), Key: write("key.pem", "PRIVATE KEY", pkcs8)}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for name, c := range map[string]struct {
		certs   []tls.Certificate
		allowed bool
		err     codes.Code
	}{
		"envoy":          {[]tls.Certificate{issue("envoy.example")}, true, codes.OK},
		"somebody else":  {[]tls.Certificate{issue("other.example")}, false, codes.OK},
		"no certificate": {nil, false, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			e := startEnvoy(t, side, func(s *proxy.Snapshot) { s.Policy = everybody{} })
			client := authv3.NewAuthorizationClient(e.dial(t, credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "door.example", Certificates: c.certs})))
			res, err := client.Check(t.Context(), asks("GET", "/"))
			if status.Code(err) != c.err || (res.GetOkResponse() != nil) != c.allowed {
				t.Errorf("%v, %v", res, err)
			}
		})
	}
}

// No question, however malformed, is answered with an ok that was not decided.
func FuzzQuestion(f *testing.F) {
	seed := func(q *authv3.CheckRequest) {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(asks("GET", "/a?b=c", "cookie", "doorward=alice"))
	seed(asks("POST", "//x", "content-type", "application/grpc"))
	seed(&authv3.CheckRequest{})
	f.Fuzz(func(t *testing.T, b []byte) {
		check := new(authv3.CheckRequest)
		if proto.Unmarshal(b, check) != nil {
			return
		}
		q, err := question(t.Context(), "127.0.0.1:1", check)
		if err != nil {
			return
		}
		h := check.GetAttributes().GetRequest().GetHttp()
		if q.Request.RequestURI != h.GetPath() || q.Request.Method != h.GetMethod() || q.Request.Host != h.GetHost() || q.Request.URL == nil ||
			len(q.Request.Header["X-Forwarded-For"]) != 1 || q.Request.Header.Get("X-Forwarded-Proto") != h.GetScheme() {
			t.Fatalf("%+v of %v", q.Request, check)
		}
	})
}
