package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// An application that nginx serves at another host and path than visitors see,
// behind a Doorward that another nginx stands in front of: prefixes, redirects,
// cookies, headers, uploads, pages of other origins, and whom a request is from.
func TestRouteShapingInFrontOfNginx(t *testing.T) {
	nginx := part(t, "nginx")
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "www", "v2", "docs"), 0o777)
	os.Chmod(filepath.Join(dir, "www", "v2"), 0o777)
	writeFile(t, filepath.Join(dir, "www", "v2", "docs"), "index.html", "<p>the docs</p>")
	front, door, back := freeAddress(t), freeAddress(t), freeAddress(t)
	servers := fmt.Sprintf(`
server { # who asks for it by another name gets nothing
  listen %[1]s default_server;
  return 421;
}
server {
  listen %[1]s;
  server_name guide.internal;
  root %[2]s/www;
  client_max_body_size 0;
  location /v2/ {
    dav_methods PUT;
    add_header Set-Cookie "seen=1; Path=/v2" always;
    add_header Access-Control-Allow-Origin "*" always;
    add_header X-Asked "$request_uri $http_x_forwarded_for" always;
  }
}
server { # as RFC 7239 wants it: appended to what the visitor says
  listen %[3]s;
  client_max_body_size 0;
  location / {
    proxy_pass https://%[4]s;
    proxy_ssl_protocols TLSv1.3;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_set_header Host inner.example;
    proxy_set_header Forwarded "$http_forwarded, for=$remote_addr;proto=https;host=$host";
    proxy_set_header X-Forwarded-For $http_x_forwarded_for;
  }
}
`, back, dir, front, door)
	startCommand(t, exec.Command(nginx, nginxArgs(t, dir, servers)...))

	cert := issue(t, &x509.Certificate{DNSNames: []string{"apps.localhost"}}, nil)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw})))
	writeFile(t, dir, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	log := filepath.Join(dir, "audit.jsonl")
	d := start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server:
  listen: %q
  admin: {listen: %q}
  tls: {certificates: [{cert: tls.crt, key: tls.key}]}
  trusted_proxies: [127.0.0.1]
  forwarded: forwarded
  max_body_bytes: 100
audit: {to: [{file: {path: audit.jsonl}}]}
sessions: {store: {memory: true}}
log: {format: text}
providers: [{id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_auth: none}]
routes:
  - id: guide
    from: https://apps.localhost/guide
    to: ["http://%s"]
    strip_prefix: /guide
    add_prefix: /v2
    host: guide.internal
    response_headers: {remove: [Server], set: {X-Frame-Options: DENY}}
    cors: {origins: ["https://editor.example"], methods: [GET, PUT]}
    max_body_bytes: 100000
    public:
      - {name: visitors, methods: [GET, HEAD, PUT], paths: ["/guide/**"], networks: [127.0.0.77/32]}
  - id: robots
    from: https://apps.localhost/robots.txt
    respond: {status: 200, body: "User-agent: *\nDisallow: /\n"}
    public: [{name: robots, methods: [GET], paths: [/robots.txt]}]
  - id: moved
    from: https://apps.localhost/handbook
    redirect: {to: /guide, status: 308, keep_path: true}
    public: [{name: moved, methods: [GET], paths: ["/handbook/**"]}]
  - id: closed
    from: https://apps.localhost/closed
    respond: {status: 503, body: closed}
    allow: [{name: staff, any_user: true}]
`, door, freeAddress(t), back)))
	d.waitFor("msg=serving", 1)
	eventually(t, "nginx", func() bool { return reachable(front) && reachable(back) })

	ask := func(from, method, path string, body io.Reader, headers ...string) page {
		t.Helper()
		v := newVisitor(t)
		v.client.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
		v.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		req, err := http.NewRequest(method, "http://"+front+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "apps.localhost"
		for i := 0; i < len(headers); i += 2 {
			req.Header.Add(headers[i], headers[i+1])
		}
		res, err := v.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return page{status: res.StatusCode, url: req.URL, header: res.Header, body: string(text)}
	}
	const visitor, other = "127.0.0.77", "127.0.0.78"

	// nginx knows nothing of the visitor's address, and the visitor nothing of its.
	p := ask(visitor, "GET", "/guide/docs?page=1", nil)
	if p.status != 301 || p.header.Get("Location") != "https://apps.localhost/guide/docs/?page=1" {
		t.Errorf("nginx redirects: %d %v", p.status, p.header)
	}
	p = ask(visitor, "GET", "/guide/docs/", nil, "Forwarded", "for=127.0.0.1;proto=https;host=evil.example", "X-Forwarded-For", "127.0.0.78")
	if h := p.header; p.status != 200 || p.body != "<p>the docs</p>" || h.Get("Set-Cookie") != "seen=1; Path=/guide" || h.Get("X-Asked") != "/v2/docs/ "+visitor ||
		h.Get("X-Frame-Options") != "DENY" || !slices.Equal(h["Strict-Transport-Security"], []string{"max-age=31536000"}) {
		t.Errorf("%d %q %v", p.status, p.body, h)
	}
	// Nobody becomes the visitor by what they say, however they leave it open.
	for _, claim := range []string{"for=127.0.0.77", "for=127.0.0.77, for=127.0.0.1", `for=127.0.0.77;by="`, `for="127.0.0.77";by="\`, "for=_hidden, for=127.0.0.77"} {
		if p := ask(other, "GET", "/guide/docs/", nil, "Forwarded", claim, "X-Forwarded-For", "127.0.0.77"); p.status != 401 {
			t.Errorf("%s: %d", claim, p.status)
		}
	}

	// Uploads arrive as a whole or not at all.
	upload := func(name string, size int, declared bool) int {
		var body io.Reader = strings.NewReader(strings.Repeat("x", size))
		if !declared {
			body = io.MultiReader(body)
		}
		return ask(visitor, "PUT", "/guide/"+name, body).status
	}
	stored := func(name string) int64 {
		info, err := os.Stat(filepath.Join(dir, "www", "v2", name))
		if err != nil {
			return -1
		}
		return info.Size()
	}
	for _, declared := range []bool{true, false} {
		if status := upload("small", 100_000, declared); status != 201 && status != 204 || stored("small") != 100_000 {
			t.Errorf("declared %v: %d, %d bytes are there", declared, status, stored("small"))
		}
		if status := upload("large", 100_001, declared); status != 413 || stored("large") >= 0 {
			t.Errorf("too large, declared %v: %d, %d bytes are there", declared, status, stored("large"))
		}
	}

	preflight := []string{"Access-Control-Request-Method", "PUT"}
	if p := ask(other, "OPTIONS", "/guide/docs/", nil, append(preflight, "Origin", "https://editor.example")...); p.status != 204 || p.header.Get("Access-Control-Allow-Origin") != "https://editor.example" || p.header.Get("Access-Control-Allow-Methods") != "GET, PUT" {
		t.Errorf("preflight: %d %v", p.status, p.header)
	}
	if p := ask(other, "OPTIONS", "/guide/docs/", nil, append(preflight, "Origin", "https://evil.example")...); p.status != 403 || !strings.Contains(p.body, string(access.OriginRefused)) || p.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of another: %d %s", p.status, p.body)
	}
	if p := ask(visitor, "GET", "/guide/docs/", nil, "Origin", "https://evil.example"); p.status != 200 || p.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("nginx lets everybody read: %v", p.header)
	}

	if p := ask(other, "GET", "/robots.txt", nil); p.status != 200 || p.body != "User-agent: *\nDisallow: /\n" {
		t.Errorf("robots: %d %q", p.status, p.body)
	}
	if p := ask(other, "GET", "/handbook/docs/?a=b", nil); p.status != 308 || p.header.Get("Location") != "https://apps.localhost/guide/docs/?a=b" {
		t.Errorf("moved: %d %v", p.status, p.header)
	}
	if p := ask(other, "GET", "/closed/", nil); p.status != 401 || strings.Contains(p.body, ">closed<") {
		t.Errorf("a fixed answer for strangers: %d", p.status)
	}

	// What was refused after the decision was allowed by it; the end of the story
	// decides on all of it again.
	eventually(t, "the records", func() bool {
		reasons := map[access.Reason]int{}
		for _, e := range events(t, log) {
			if e.Decision != nil && e.Decision.Outcome == access.Allow {
				reasons[e.Response.Reason]++
			}
		}
		return reasons[access.BodyTooLarge] == 2 && reasons[access.OriginRefused] == 1
	})
}
