package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const shop = "https://shop.example"

// askingWorld is a door with a side door, and a route that a front end serves.
func askingWorld(t *testing.T, changes ...change) (*world, func(as string, headers ...string) *http.Response) {
	t.Helper()
	route := access.Route{ID: "shop", From: shop, Headers: map[string]string{"X-Forwarded-User": "user", "X-Dept": "claim.dept", "X-Nothing": "claim.none"}}
	changes = append([]change{withServer(func(c *Config) { c.ForwardAuth = SideDoor{Listen: "127.0.0.1:1"} })}, changes...)
	w := newWorld(t, []access.Route{route}, changes...)
	side := httptest.NewServer(w.door.ForwardAuth())
	t.Cleanup(side.Close)
	return w, func(as string, headers ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, side.URL+access.AuthPath+as, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Add(headers[i], headers[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		return res
	}
}

func about(method, uri string, more ...string) []string {
	return append([]string{"X-Forwarded-Method", method, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example", "X-Forwarded-Uri", uri, "Accept", "text/html"}, more...)
}

// Whoever is allowed gets a 200, with all that the application may believe about
// them and nothing that they said themselves: not even where it is empty.
func TestForwardAuthAllows(t *testing.T) {
	w, ask := askingWorld(t)
	res := ask("", about("GET", "/a?b=c", "Cookie", "theme=dark; "+asAlice, "X-Forwarded-For", "203.0.113.7", "X-Forwarded-User", "root", "X-Nothing", "root", "X-Dept", "root")...)
	e := w.rec.event(t)
	if res.StatusCode != 200 || e.Decision.Outcome != access.Allow || e.Request.Door != access.ForwardAuth {
		t.Fatalf("%d %+v", res.StatusCode, e.Decision)
	}
	if e.Request.Network.IP != netip.MustParseAddr("203.0.113.7") || e.Request.Origin() != shop || e.Request.Path != "/a" || e.Request.Query != "b=c" {
		t.Errorf("decided on %+v", e.Request)
	}
	for name, want := range map[string]string{"X-Forwarded-User": "corp:alice", "X-Dept": "R&D", "X-Nothing": "", "Cookie": "theme=dark", "Authorization": ""} {
		if got, there := res.Header[http.CanonicalHeaderKey(name)]; !there || len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if res.Header.Get(AssertionHeader) == "" || res.Header.Get("X-Request-Id") != e.Request.ID {
		t.Errorf("%v", res.Header)
	}
}

// Who is not allowed is answered as they are by the standalone door, in the form
// that the front end can carry.
func TestForwardAuthRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		policy        policy
		as, method    string
		header        []string
		status        int
		location      string
		authenticates bool
	}{
		"a person is sent to log in":       {loginFirst, "", "GET", nil, 302, "https://idp.example/authorize", false},
		"a program is told":                {loginFirst, "", "GET", []string{"Sec-Fetch-Mode", "cors"}, 401, "", true},
		"a form is not kept":               {loginFirst, "", "POST", nil, 401, "", true},
		"by status: log in":                {loginFirst, "?as=status", "GET", nil, 401, "", true},
		"by status: never":                 {deny(access.NotAllowed), "?as=status", "GET", nil, 403, "", false},
		"the page of it":                   {deny(access.NotAllowed), "?as=page", "GET", nil, 403, "", false},
		"the page of it, by now permitted": {allowAll, "?as=page", "GET", nil, 307, shop + "/x?y=z", false},
		"a fault":                          {loginFirst, "?as=status", "GET", []string{"Cookie", "doorward=broken"}, 403, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w, ask := askingWorld(t, withPolicy(c.policy))
			res := ask(c.as, about(c.method, "/x?y=z", c.header...)...)
			if res.StatusCode != c.status || !strings.HasPrefix(res.Header.Get("Location"), c.location) || (res.Header.Get("WWW-Authenticate") != "") != c.authenticates {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			if e := w.rec.event(t); e.Request.Route != "shop" || e.Request.Method != c.method {
				t.Errorf("%+v", e.Request)
			}
			for name := range res.Header {
				if strings.HasPrefix(name, "Doorward-") || name == "X-Forwarded-User" {
					t.Errorf("a refusal says %s", name)
				}
			}
		})
	}
}

// A question that can be read in two ways is refused, whatever it is about.
func TestForwardAuthQuestionsAreStrict(t *testing.T) {
	w, ask := askingWorld(t, withPolicy(allowAll))
	good := about("GET", "/a")
	if res := ask("", good...); res.StatusCode != 200 {
		t.Fatal(res.StatusCode)
	}
	w.rec.event(t)
	without := func(name string) (h []string) {
		for i := 0; i < len(good); i += 2 {
			if good[i] != name {
				h = append(h, good[i], good[i+1])
			}
		}
		return h
	}
	for name, c := range map[string]struct {
		as     string
		header []string
	}{
		"nothing":             {"", nil},
		"no method":           {"", without("X-Forwarded-Method")},
		"no address":          {"", without("X-Forwarded-Uri")},
		"no host":             {"", without("X-Forwarded-Host")},
		"no scheme":           {"", without("X-Forwarded-Proto")},
		"another scheme":      {"", append(without("X-Forwarded-Proto"), "X-Forwarded-Proto", "gopher")},
		"two hosts":           {"", append(good[:len(good):len(good)], "X-Forwarded-Host", "evil.example")},
		"a list of hosts":     {"", append(without("X-Forwarded-Host"), "X-Forwarded-Host", "evil.example, shop.example")},
		"two methods":         {"", append(good[:len(good):len(good)], "X-Original-Method", "POST")},
		"two addresses":       {"", append(good[:len(good):len(good)], "X-Original-URL", shop+"/b")},
		"two origins":         {"", append(good[:len(good):len(good)], "X-Original-URL", "http://shop.example/a")},
		"an address alone":    {"", append(without("X-Forwarded-Uri"), "X-Original-URL", "/a")},
		"no origin form":      {"", append(without("X-Forwarded-Uri"), "X-Forwarded-Uri", shop+"/a")},
		"another form":        {"?as=xml", good},
		"a broken query":      {"?as=%zz", good},
		"a path with dots":    {"", about("GET", "/a/../b")},
		"an encoded slash":    {"", about("GET", "/a%2fb")},
		"two slashes":         {"", about("GET", "//a")},
		"a backslash":         {"", about("GET", `/a\b`)},
		"a fragment":          {"", about("GET", "/a#b")},
		"a raw blank":         {"", about("GET", "/a b")},
		"a lower-case method": {"", about("get", "/a")},
		"a tunnel":            {"", about("CONNECT", "/a")},
		"our own addresses":   {"", about("GET", access.LoginPath)},
		"our own, encoded":    {"", about("GET", "/%2edoorward/login")},
		"an unknown host":     {"", append(without("X-Forwarded-Host"), "X-Forwarded-Host", "other.example")},
	} {
		res := ask(c.as, c.header...)
		if res.StatusCode < 400 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
		if res.Header.Get(AssertionHeader) != "" {
			t.Errorf("%s: vouches for somebody", name)
		}
	}
}

// Visitors do not get through to the questions: not on their own listener, where
// a front end passes them on, nor at another address of the side door.
func TestVisitorsCannotAsk(t *testing.T) {
	w, _ := askingWorld(t, withPolicy(allowAll), withServer(func(c *Config) { c.TrustedProxies = []string{"127.0.0.1"} }))
	res, body := w.ask("GET", "http://shop.example"+access.AuthPath, about("GET", "/a", "Cookie", asAlice)...)
	if res.StatusCode != 404 || res.Header.Get(AssertionHeader) != "" || strings.Contains(body, "alice@") {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
	}
	w.rec.event(t)
	side := httptest.NewServer(w.door.ForwardAuth())
	t.Cleanup(side.Close)
	for _, path := range []string{"/", "/a", access.LoginPath, access.AuthPath + "/", "/./.doorward/auth"} {
		res, err := http.Get(side.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 404 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
}

// A route without an upstream is served by its front end only.
func TestServedElsewhere(t *testing.T) {
	w, _ := askingWorld(t, withPolicy(allowAll), withServer(func(c *Config) { c.TrustedProxies = []string{"127.0.0.1"} }))
	res, _ := w.ask("GET", "http://shop.example/", "X-Forwarded-Proto", "https", "Cookie", asAlice)
	if e := w.rec.event(t); res.StatusCode != 421 || e.Response.Reason != access.ServedElsewhere {
		t.Errorf("%d %s", res.StatusCode, e.Response.Reason)
	}
}

// Who may ask: those listed, over a socket of this machine, or with a certificate.
func TestSideDoorAdmits(t *testing.T) {
	addr := netip.MustParseAddr
	for name, c := range map[string]struct {
		side SideDoor
		from Asker
		want bool
	}{
		"listed":             {SideDoor{Listen: ":1", Peers: []string{"10.0.0.0/8"}}, Asker{Addr: addr("10.1.2.3")}, true},
		"not listed":         {SideDoor{Listen: ":1", Peers: []string{"10.0.0.0/8"}}, Asker{Addr: addr("192.0.2.1")}, false},
		"nobody is listed":   {SideDoor{Listen: "127.0.0.1:1"}, Asker{Addr: addr("127.0.0.1")}, true},
		"by a socket":        {SideDoor{Listen: "unix:/s"}, Asker{}, true},
		"by a socket, lists": {SideDoor{Listen: "unix:/s", Peers: []string{"10.0.0.1"}}, Asker{}, true},
		"no address":         {SideDoor{Listen: ":1", Peers: []string{"10.0.0.1"}}, Asker{}, false},
		"no certificate":     {SideDoor{Listen: ":1", ClientCA: "ca.pem"}, Asker{Addr: addr("10.0.0.1")}, false},
		"not verified":       {SideDoor{Listen: ":1", ClientCA: "ca.pem"}, Asker{addr("10.0.0.1"), &tls.ConnectionState{}}, false},
		// A reload changes who may ask at once, and the address only at the next start.
		"no such door now":          {SideDoor{}, Asker{Addr: addr("192.0.2.1")}, false},
		"no such door, and near":    {SideDoor{}, Asker{Addr: addr("127.0.0.1")}, false},
		"no such door, by a socket": {SideDoor{}, Asker{}, false},
		"a near door now":           {SideDoor{Listen: "127.0.0.1:1"}, Asker{Addr: addr("192.0.2.1")}, false},
		"a socket now":              {SideDoor{Listen: "unix:/s"}, Asker{Addr: addr("192.0.2.1")}, false},
	} {
		if got := c.side.admits(c.from); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A front end proves itself with a certificate that carries one of the names.
func TestSideDoorWithCertificates(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string, parent *x509.Certificate, ca bool) (tls.Certificate, *x509.Certificate) {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, ca := issue("authority", nil, true)
	server, _ := issue("door", ca, false)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	side := SideDoor{Listen: "127.0.0.1:0", ClientCA: write("ca.pem", "CERTIFICATE", ca.Raw), Cert: write("cert.pem", "CERTIFICATE", server.Certificate[0]),
		Key: write("key.pem", "PRIVATE KEY", pkcs8), Names: []string{"front.example"}}
	w, _ := askingWorld(t, withPolicy(allowAll), withServer(func(c *Config) { c.ForwardAuth = side }))
	var holder SideTLS
	use := func(side SideDoor) {
		conf, err := side.TLS()
		if err != nil {
			t.Fatal(err)
		}
		holder.Use(conf)
	}
	use(side)
	listener, err := side.Open()
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w.door.ForwardAuth(), TLSConfig: holder.Config()}
	go srv.ServeTLS(listener, "", "")
	t.Cleanup(func() { srv.Close() })
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	front, _ := issue("front.example", ca, false)
	other, _ := issue("other.example", ca, false)
	ask := func(name string, certs []tls.Certificate, want int) {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}}
		req, _ := http.NewRequest(http.MethodGet, "https://"+listener.Addr().String()+access.AuthPath, nil)
		for h := about("GET", "/a"); len(h) > 0; h = h[2:] {
			req.Header.Set(h[0], h[1])
		}
		res, err := tr.RoundTrip(req)
		status := 0
		if err == nil {
			status = res.StatusCode
			res.Body.Close()
		}
		tr.CloseIdleConnections()
		if status != want {
			t.Errorf("%s: %d, %v", name, status, err)
		}
	}
	ask("front", []tls.Certificate{front}, 200)
	ask("other", []tls.Certificate{other}, 403)
	ask("none", nil, 0)

	// Another authority, and another certificate, while the listener serves.
	_, ca2 := issue("another authority", nil, true)
	side.ClientCA = write("ca2.pem", "CERTIFICATE", ca2.Raw)
	server2, _ := issue("door", ca2, false)
	side.Cert = write("cert2.pem", "CERTIFICATE", server2.Certificate[0])
	use(side)
	front2, _ := issue("front.example", ca2, false)
	ask("front, by whom the old one knew", []tls.Certificate{front}, 0)
	pool = x509.NewCertPool()
	pool.AddCert(ca2)
	ask("front of the new authority", []tls.Certificate{front2}, 200)
}

// A socket of this machine: opened for owner and group, replaced when it is left
// over, and never taken from somebody who uses it.
func TestSideDoorSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.sock")
	side := SideDoor{Listen: "unix:" + path}
	first, err := side.Open()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := side.Open(); err == nil {
		t.Error("taken from somebody who uses it")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	second, err := side.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	w, _ := askingWorld(t, withPolicy(allowAll), withServer(func(c *Config) { c.ForwardAuth = side }))
	srv := &http.Server{Handler: w.door.ForwardAuth()}
	go srv.Serve(second)
	t.Cleanup(func() { srv.Close() })
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	req, _ := http.NewRequest(http.MethodGet, "http://door"+access.AuthPath, nil)
	for h := about("GET", "/a", "X-Forwarded-For", "203.0.113.9"); len(h) > 0; h = h[2:] {
		req.Header.Set(h[0], h[1])
	}
	res, err := tr.RoundTrip(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	if e := w.rec.event(t); e.Request.Network.IP != netip.MustParseAddr("203.0.113.9") {
		t.Errorf("%s", e.Request.Network.IP)
	}
}

func TestSideDoorFaults(t *testing.T) {
	for name, c := range map[string]struct {
		side SideDoor
		at   string
	}{
		"peers alone":            {SideDoor{Peers: []string{"10.0.0.1"}}, "listen"},
		"no port":                {SideDoor{Listen: "127.0.0.1"}, "listen"},
		"a relative socket":      {SideDoor{Listen: "unix:auth.sock"}, "listen"},
		"everybody":              {SideDoor{Listen: ":9902"}, "peers"},
		"everybody, listed":      {SideDoor{Listen: ":9902", Peers: []string{"0.0.0.0/0"}}, "peers[0]"},
		"a name as peer":         {SideDoor{Listen: ":9902", Peers: []string{"front"}}, "peers[0]"},
		"half a certificate":     {SideDoor{Listen: "127.0.0.1:1", Cert: "c"}, "cert"},
		"authorities alone":      {SideDoor{Listen: ":1", ClientCA: "ca"}, "client_ca"},
		"names without any":      {SideDoor{Listen: "127.0.0.1:1", Names: []string{"x"}}, "names"},
		"good":                   {SideDoor{Listen: "127.0.0.1:1"}, ""},
		"good, with certificate": {SideDoor{Listen: ":1", Cert: "c", Key: "k", ClientCA: "ca"}, ""},
	} {
		f := access.NewFaults("")
		c.side.Validate(f)
		list := f.List()
		if c.at == "" && len(list) > 0 || c.at != "" && (len(list) != 1 || list[0].Path != c.at || list[0].Cure == "") {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

func FuzzForwardAuthQuestion(f *testing.F) {
	f.Add("GET", "https", "shop.example", "/a?b", "", "")
	f.Add("GET", "", "", "", "https://shop.example/a", "?as=page")
	f.Add("POST", "https", "a, b", "//x", "x://y", "?as=status")
	f.Fuzz(func(t *testing.T, method, proto, host, uri, whole, as string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: access.AuthPath, RawQuery: strings.TrimPrefix(as, "?")}, Header: http.Header{}}
		for name, value := range map[string]string{"X-Forwarded-Method": method, "X-Forwarded-Proto": proto, "X-Forwarded-Host": host, "X-Forwarded-Uri": uri, "X-Original-Url": whole} {
			if value != "" {
				r.Header[name] = []string{value}
			}
		}
		asked, _, err := original(r)
		if err != nil {
			return
		}
		if asked.Method == "" || asked.RequestURI == "" || asked.Host == "" || asked.URL == nil || asked.TLS != nil {
			t.Fatalf("%+v", asked)
		}
		if uri != "" && asked.RequestURI != uri {
			t.Fatalf("asked about %q, decided on %q", uri, asked.RequestURI)
		}
	})
}
