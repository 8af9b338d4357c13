package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/doorward/doorward/internal/access"
)

func TestUpstreamSeesWhatWasDecidedOn(t *testing.T) {
	var decided string
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withPolicy(func(req *access.Request) access.Decision {
		decided = req.Path + "?" + req.Query
		return allowAll(req)
	}))
	for _, c := range []struct{ target, path, query string }{
		{"/a/%7Eb/%c3%a4%20", "/a/~b/%C3%A4%20", ""},
		{"/a?x=1&y=%20b&z", "/a", "x=1&y=%20b&z"},
		{"/a?", "/a", ""},
		{"/a?x[1]=/?:@!$'()*+,", "/a", "x[1]=/?:@!$'()*+,"},
		{"/a%3Fb", "/a%3Fb", ""},
	} {
		res, body := w.raw("GET " + c.target + " HTTP/1.1\r\nHost: app.example\r\n\r\n")
		if res.StatusCode != 200 {
			t.Errorf("%s: %s", c.target, res.Status)
			continue
		}
		want := c.path
		if strings.Contains(c.target, "?") {
			want += "?" + c.query
		}
		if got := decode(t, body).URI; got != want {
			t.Errorf("%s: the upstream saw %s, want %s", c.target, got, want)
		}
		plain, _ := url.PathUnescape(c.path)
		if decided != plain+"?"+c.query {
			t.Errorf("%s: decided on %s", c.target, decided)
		}
	}
}

func TestMalformedRequestsAreRefusedAndRecordedOnce(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withPolicy(allowAll))
	for name, c := range map[string]struct {
		raw    string
		status int
		reason access.Reason
	}{
		"encoded slash":            {"GET /a%2fb HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.AmbiguousPath},
		"backslash":                {"GET /a\\b HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.AmbiguousPath},
		"double encoding":          {"GET /a%2541 HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.AmbiguousPath},
		"empty segment":            {"GET //a HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.AmbiguousPath},
		"parameters":               {"GET /a;b HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.AmbiguousPath},
		"dot segments (GHSA-pxq7)": {"GET /a/%2e%2e/b HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.AmbiguousPath},
		"fragment":                 {"GET /a#b HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"query semicolon":          {"GET /?a=1;b=2 HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.AmbiguousPath},
		"query escape":             {"GET /?a=%zz HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"query quote":              {"GET /?a=\"b\" HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"query not ASCII":          {"GET /?a=\xc3\xa4 HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"absolute form":            {"GET http://other.example/ HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"asterisk form":            {"OPTIONS * HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"CONNECT":                  {"CONNECT app.example:80 HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"lower-case method":        {"delete / HTTP/1.1\r\nHost: app.example\r\n\r\n", 400, access.BadRequest},
		"trailing dot":             {"GET / HTTP/1.1\r\nHost: app.example.\r\n\r\n", 400, access.BadRequest},
		"long address":             {"GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\nHost: app.example\r\n\r\n", 414, access.BadRequest},
		"large headers":            {"GET / HTTP/1.1\r\nHost: app.example\r\nX: " + strings.Repeat("a", 70000) + "\r\n\r\n", 431, access.HeaderTooLarge},
		"unknown host":             {"GET / HTTP/1.1\r\nHost: unknown.example\r\n\r\n", 404, access.NoRoute},
	} {
		res, body := w.raw(c.raw)
		if res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s %s", name, res.Status, body)
			continue
		}
		e := w.rec.event(t)
		if res.StatusCode != c.status || e.Decision == nil || e.Decision.Reason != c.reason || e.Decision.Outcome != access.Deny || e.Response.Status != c.status {
			t.Errorf("%s: %s; %+v", name, res.Status, e.Decision)
		}
		if res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", name, res.Header)
		}
		if c.reason != access.NoRoute && e.Request.Fault != c.reason {
			t.Errorf("%s: the record has no fault, deciding again could allow", name)
		}
	}
	select {
	case e := <-w.rec.signal:
		t.Errorf("one more event: %+v", e)
	default:
	}
}

// What net/http refuses by itself never becomes a request.
func TestServerRefusesWhatIsNoRequest(t *testing.T) {
	w := newWorld(t, nil)
	if res, _ := w.raw("GET / HTTP/1.1\r\nHost: app.example@evil\r\n\r\n"); res.StatusCode != 400 {
		t.Error(res.Status)
	}
	if res, _ := w.raw("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 400<<10) + "\r\n\r\n"); res.StatusCode != 431 {
		t.Error(res.Status)
	}
}

func TestRoutesPermitTheAmbiguitiesTheyName(t *testing.T) {
	echo := newEcho(t)
	for name, target := range map[string]string{
		"encoded_slash": "/a%2Fb", "encoded_percent": "/a%2541", "empty_segment": "//a//b", "semicolon": "/a;b=c", "backslash": "/a%5Cb",
	} {
		route := routeTo("http://app.example", echo)
		route.AmbiguousPaths = []string{name}
		w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
		res, body := w.raw("GET " + target + " HTTP/1.1\r\nHost: app.example\r\n\r\n")
		if res.StatusCode != 200 || decode(t, body).URI != target {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
		for other := range ambiguityNames {
			if other == name {
				continue
			}
			target := map[string]string{"encoded_slash": "/a%2Fb", "encoded_percent": "/a%2541", "empty_segment": "/a//b", "semicolon": "/a;b", "backslash": "/a%5Cb"}[other]
			if res, _ := w.raw("GET " + target + " HTTP/1.1\r\nHost: app.example\r\n\r\n"); res.StatusCode != 400 {
				t.Errorf("%s also permits %s", name, target)
			}
		}
	}
}

// Over HTTP/2 nothing stops a client from sending a blank in :path, which would
// split the request line of an HTTP/1.1 upstream.
func TestRawBytesOverHTTP2AreRefused(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("https://app.example", newEcho(t))}, withPolicy(allowAll), overHTTP2)
	for _, path := range []string{"/a?x=1 HTTP/1.1", "/a?x=\"", "/a?x=<b>", "/a?x=\xff", "/a b", "/a#b", "/a?b#c", "/a?x={1}"} {
		if status := w.rawHTTP2(":method", "GET", ":scheme", "https", ":authority", "app.example", ":path", path); status != "400" {
			t.Errorf("%q: %s", path, status)
		}
	}
	if status := w.rawHTTP2(":method", "GET", ":scheme", "https", ":authority", "app.example", ":path", "/", "host", "other.example"); status != "400" {
		t.Errorf("Host beside :authority: %s", status)
	}
	if status := w.rawHTTP2(":method", "GET", ":scheme", "https", ":authority", "app.example", ":path", "/a?x=1", "host", "APP.example:443"); status != "200" {
		t.Errorf("the same host twice: %s", status)
	}
}

// Nor does it look at methods. No transport sends these, so that anybody could make
// an upstream look as if it failed.
func TestMethodsOverHTTP2AreTokens(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("https://app.example", newEcho(t))}, withPolicy(allowAll), overHTTP2)
	for _, method := range []string{"A B", "GET /evil HTTP/1.1", "G(T", "G\xc9T", "get"} {
		status := w.rawHTTP2(":method", method, ":scheme", "https", ":authority", "app.example", ":path", "/")
		if e := w.rec.event(t); status != "400" || e.Response.Upstream != "" {
			t.Errorf("%q: %s %+v", method, status, e.Response)
		}
	}
	if at := w.door.Upstreams()[0].Targets[0]; at.LastError != "" {
		t.Errorf("%+v", at)
	}
}

// rawHTTP2 sends one request with exactly these header fields and returns the
// status, or "reset" if the stream was.
func (w *world) rawHTTP2(fields ...string) string {
	w.t.Helper()
	conf := w.transport().TLSClientConfig.Clone()
	conf.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", w.server.Listener.Addr().String(), conf)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte(http2.ClientPreface))
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			w.t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset"
		case *http2.GoAwayFrame:
			return "400"
		}
	}
}

func TestSecretsInTheQueryReachNeitherRulesNorRecord(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                "",
		"a=1&b=2":                         "a=1&b=2",
		"access_token=abc&b=2":            "access_token=[redacted]&b=2",
		"a=1&code=xyz&state=s":            "a=1&code=[redacted]&state=s",
		"%63ode=xyz":                      "%63ode=[redacted]",
		"API-Key=1&X-Amz-Signature=2":     "API-Key=[redacted]&X-Amz-Signature=[redacted]",
		"password=&session_id=1&sid=2":    "password=[redacted]&session_id=[redacted]&sid=[redacted]",
		"x=eyJhbGciOi.eyJzdWIi.c2ln":      "x=[redacted token]",
		"x=Bearer%20eyJhbGciOi.e30.c2ln":  "x=[redacted token]",
		"eyJhbGciOi.eyJzdWIi.c2ln":        "[redacted token]",
		"decode=1&keyboard=2&monkey=3":    "decode=1&keyboard=2&monkey=3",
		"token":                           "token",
		"q=a.b.c&sig=1&client_secret=x&z": "q=a.b.c&sig=[redacted]&client_secret=[redacted]&z",
	} {
		if got := redactQuery(raw); got != want {
			t.Errorf("%s: %s", raw, got)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"a=1&b=2", "code=x", "x=eyJa.b.c", "%63ode=1", "a=1;b", "a=%", "[x]=1", "&&=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		safe := redactQuery(raw)
		if checkQuery(raw) != nil {
			return
		}
		if _, err := url.ParseQuery(raw); err != nil {
			t.Fatalf("%q passes, but cannot be parsed: %v", raw, err)
		}
		if redactQuery(safe) != safe {
			t.Fatalf("%q: %q is redacted to %q", raw, safe, redactQuery(safe))
		}
		if strings.Count(raw, "&") != strings.Count(safe, "&") {
			t.Fatalf("%q: %q has other parameters", raw, safe)
		}
	})
}

func TestClientAddressIsReadFromTheRight(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	g := &generation{trusted: trusted}
	for name, c := range map[string]struct {
		peer  string
		lines []string
		want  string
	}{
		"no proxy":              {"192.0.2.1", []string{"6.6.6.6"}, "192.0.2.1"},
		"one proxy":             {"10.0.0.1", []string{"192.0.2.1"}, "192.0.2.1"},
		"spoofed on the left":   {"10.0.0.1", []string{"6.6.6.6, 192.0.2.1"}, "192.0.2.1"},
		"two proxies":           {"10.0.0.1", []string{"6.6.6.6, 192.0.2.1,10.0.0.2"}, "192.0.2.1"},
		"several lines":         {"10.0.0.1", []string{"6.6.6.6", "192.0.2.1", "10.0.0.2"}, "192.0.2.1"},
		"garbage stops":         {"10.0.0.1", []string{"192.0.2.1, unknown, 10.0.0.2"}, "invalid IP"},
		"empty":                 {"10.0.0.1", []string{""}, "invalid IP"},
		"none":                  {"10.0.0.1", nil, "10.0.0.1"},
		"all trusted":           {"10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"with port":             {"10.0.0.1", []string{"192.0.2.1:4711"}, "192.0.2.1"},
		"IPv6 with port":        {"fd00::1", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		"IPv6 in brackets":      {"fd00::1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		"mapped IPv4":           {"10.0.0.1", []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		"zone":                  {"10.0.0.1", []string{"fe80::1%eth0"}, "fe80::1"},
		"mapped trusted":        {"10.0.0.1", []string{"192.0.2.1, ::ffff:10.0.0.9"}, "192.0.2.1"},
		"leading zeros are not": {"10.0.0.1", []string{"010.0.0.1"}, "invalid IP"},
		"many proxies":          {"10.0.0.1", []string{"192.0.2.1" + strings.Repeat(",10.0.0.2", 31)}, "192.0.2.1"},
		"too many proxies":      {"10.0.0.1", []string{"192.0.2.1" + strings.Repeat(",10.0.0.2", 32)}, "invalid IP"},
	} {
		if got := clientAddr(netip.MustParseAddr(c.peer), c.lines, g.trusts); got.String() != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func FuzzClientAddr(f *testing.F) {
	for _, seed := range []string{"192.0.2.1", "6.6.6.6, 10.0.0.1", "[::1]:80", "unknown", ",,", "a\n10.0.0.1"} {
		f.Add(seed)
	}
	g := &generation{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	peer := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, header string) {
		lines := strings.Split(header, "\n")
		got := clientAddr(peer, lines, g.trusts)
		if got.Zone() != "" || got.Is4In6() {
			t.Fatalf("%q: %v", header, got)
		}
		// What a proxy appends beats whatever the visitor wrote before it.
		if got := clientAddr(peer, append(lines, "192.0.2.77"), g.trusts); got.String() != "192.0.2.77" {
			t.Fatalf("%q: %v", header, got)
		}
		if got := clientAddr(netip.MustParseAddr("192.0.2.1"), lines, g.trusts); got.String() != "192.0.2.1" {
			t.Fatalf("%q: an unlisted peer is believed: %v", header, got)
		}
	})
}

// oauth2-proxy GHSA-7x63: X-Forwarded-* of anybody was believed.
func TestForwardedHeadersCountOnlyFromListedProxies(t *testing.T) {
	headers := []string{"X-Forwarded-For", "192.0.2.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "app.example", "X-Request-Id", "trace-1234"}
	echo := newEcho(t)
	routes := []access.Route{routeTo("https://app.example", echo)}
	t.Run("listed", func(t *testing.T) {
		w := newWorld(t, routes, withPolicy(allowAll), withServer(func(c *Config) { c.TrustedProxies = []string{"127.0.0.1"} }))
		res, body := w.ask("GET", "http://lb.internal/", headers...)
		e := w.rec.event(t)
		if res.StatusCode != 200 || e.Request.Network.IP.String() != "192.0.2.7" || e.Request.Origin() != "https://app.example" || e.Request.ID != "trace-1234" {
			t.Errorf("%s %+v", res.Status, e.Request)
		}
		saw := decode(t, body).Header
		for name, want := range map[string]string{"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example", "X-Request-Id": "trace-1234"} {
			if got := saw[name]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %q", name, got)
			}
		}
		for _, proto := range []string{"ftp", "https http", "://"} {
			if res, _ := w.ask("GET", "http://app.example/", "X-Forwarded-Proto", proto); res.StatusCode != 400 {
				t.Errorf("%s: %s", proto, res.Status)
			}
		}
		if res, _ := w.ask("GET", "http://app.example/", "X-Forwarded-Proto", "http, WSS"); res.StatusCode != 200 {
			t.Errorf("Traefik's wss: %s", res.Status)
		}
		if res, _ := w.ask("GET", "http://x/", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "app.example, evil example"); res.StatusCode != 400 {
			t.Errorf("bad forwarded host: %s", res.Status)
		}
	})
	t.Run("unlisted", func(t *testing.T) {
		w := newWorld(t, routes, withPolicy(allowAll), withServer(func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/8"} }))
		res, _ := w.ask("GET", "http://lb.internal/", headers...)
		e := w.rec.event(t)
		if res.StatusCode != 404 || e.Request.Network.IP.String() != "127.0.0.1" || e.Request.Origin() != "http://lb.internal" || len(e.Request.ID) != 32 {
			t.Errorf("%s %+v", res.Status, e.Request)
		}
	})
	t.Run("malformed request id", func(t *testing.T) {
		w := newWorld(t, routes, withServer(func(c *Config) { c.TrustedProxies = []string{"127.0.0.1"} }))
		for _, id := range []string{"short", strings.Repeat("a", 65), "with blank", `<script>`, "semi;colon"} {
			w.ask("GET", "http://app.example/", "X-Request-Id", id)
			if e := w.rec.event(t); e.Request.ID == id || len(e.Request.ID) != 32 {
				t.Errorf("%q: %q", id, e.Request.ID)
			}
		}
	})
}

// certified notes whether a client certificate was there to identify with.
type certified struct{ seen *bool }

func (c certified) Identify(r *http.Request, _ *access.Request) error {
	*c.seen = r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	return nil
}

func (c certified) IdentifyAgain(r *http.Request, req *access.Request, _ bool) error {
	return c.Identify(r, req)
}

// Or everyone who comes by way of a proxy with a certificate would be the
// workload, and use the device, that it names.
func TestCertificateOfAProxyIsNotItsVisitors(t *testing.T) {
	var seen bool
	w := newWorld(t, []access.Route{routeTo("https://app.example", newEcho(t))}, withPolicy(allowAll), func(w *world) {
		w.snapshot.Identify = certified{&seen}
		w.snapshot.Server.TrustedProxies = []string{"10.0.0.0/8"}
	})
	for _, c := range []struct {
		peer, header string
		want         bool
	}{
		{"10.0.0.7:1", "X-Forwarded-For", false},
		{"10.0.0.7:1", "X-Forwarded-Host", false},
		{"10.0.0.7:1", "X-Forwarded-Proto", false},
		{"10.0.0.7:1", "X-Other", true}, // speaks for itself
		{"192.0.2.1:1", "X-Forwarded-For", true},
	} {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Host, r.RemoteAddr = "app.example", c.peer
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
		r.Header.Set(c.header, map[string]string{"X-Forwarded-Host": "app.example", "X-Forwarded-Proto": "https"}[c.header])
		seen = !c.want
		w.door.ServeHTTP(httptest.NewRecorder(), r)
		if seen != c.want {
			t.Errorf("%s with %s: certificate %t", c.peer, c.header, seen)
		}
	}
}

func TestRequestTrailersAreDropped(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withPolicy(allowAll))
	_, body := w.raw("POST / HTTP/1.1\r\nHost: app.example\r\nTrailer: Doorward-Assertion, X-Forwarded-User\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"2\r\nhi\r\n0\r\nDoorward-Assertion: x\r\nX-Forwarded-User: root\r\n\r\n")
	if saw := decode(t, body); saw.Body != "hi" || len(saw.Trailer) != 0 || saw.Header.Get("Trailer") != "" {
		t.Errorf("%+v", saw)
	}
	if e := w.rec.event(t); e.Response.BytesIn != 2 {
		t.Errorf("%+v", e.Response)
	}
}

func TestWithoutConfigurationNothingPasses(t *testing.T) {
	w := newWorld(t, nil)
	w.door.live.Store(nil)
	if res, _ := w.ask("GET", "http://app.example/"); res.StatusCode != http.StatusServiceUnavailable {
		t.Error(res.Status)
	}
}

// expecting is an Identifier that hears ahead who will be asked about.
type expecting struct {
	identify
	heard chan<- string
}

func (e expecting) Expect(r *http.Request, scheme string) {
	e.heard <- fmt.Sprint(scheme, " ", r.Header.Get("Cookie"))
}

// Whoever can prepare hears of a request as soon as its scheme is known, which says
// what the cookie is called; of one without a proper origin nobody hears.
func TestWhoAsksIsExpected(t *testing.T) {
	heard := make(chan string, 1)
	w := newWorld(t, []access.Route{routeTo("https://app.example", newEcho(t))}, withServer(func(c *Config) { c.TrustedProxies = []string{"127.0.0.0/8"} }),
		func(w *world) { w.snapshot.Identify = expecting{heard: heard} })
	w.ask("GET", "http://app.example/", "X-Forwarded-Proto", "https", "Cookie", asAlice)
	select {
	case got := <-heard:
		if want := "https " + asAlice; got != want {
			t.Errorf("heard of %q, want %q", got, want)
		}
	default:
		t.Error("nobody has heard of the request")
	}
	w.ask("GET", "http://app.example/", "X-Forwarded-Proto", "gopher", "Cookie", asAlice)
	if len(heard) != 0 {
		t.Errorf("of a request without a scheme was heard: %s", <-heard)
	}
}
