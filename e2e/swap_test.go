package e2e

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/testidp"
)

// volume is a directory as the kubelet mounts a ConfigMap, a Secret or both: what
// is to be read are symbolic links through `..data`, and a change replaces that
// one link, so that all files change in one step.
type volume struct {
	t     *testing.T
	dir   string
	swaps int
}

// mount makes a volume of files by their paths.
func mount(t *testing.T, files map[string]string) *volume {
	v := &volume{t: t, dir: t.TempDir()}
	v.swap(files)
	return v
}

func (v *volume) path(name string) string { return filepath.Join(v.dir, name) }

// swap replaces all files, in the order in which the kubelet does it.
func (v *volume) swap(files map[string]string) {
	v.t.Helper()
	must := func(err error) {
		v.t.Helper()
		if err != nil {
			v.t.Fatal(err)
		}
	}
	before, _ := os.Readlink(v.path("..data"))
	v.swaps++
	name := fmt.Sprintf("..2026_11_26_%04d", v.swaps)
	for file, text := range files {
		must(os.MkdirAll(filepath.Dir(filepath.Join(v.path(name), file)), 0o755))
		writeFile(v.t, v.path(name), file, text)
	}
	must(os.Symlink(name, v.path("..data_tmp")))
	must(os.Rename(v.path("..data_tmp"), v.path("..data")))
	for file := range files {
		top, _, _ := strings.Cut(file, "/")
		if _, err := os.Lstat(v.path(top)); err != nil {
			must(os.Symlink(filepath.Join("..data", top), v.path(top)))
		}
	}
	if before != "" {
		must(os.RemoveAll(v.path(before)))
	}
}

const (
	loadClients = 20
	loadRate    = 500 // requests per second of all clients together, as far as the machine can
)

// load is a steady stream of requests from clients that keep their connections.
// Each has a body, so that no client repeats it where a connection breaks. The
// application answers "version N: BODY".
type load struct {
	// least is the oldest version that a request may meet that begins now.
	least       atomic.Int32
	connections atomic.Int32
	mu          sync.Mutex
	answered    sync.Cond
	requests    int
	seen        map[int32]int
	failures    []string
}

// underLoad runs a story while requests go on, and reports what became of them.
func underLoad(t *testing.T, target, token string, story func(*load)) {
	t.Helper()
	l := &load{seen: map[int32]int{}}
	l.answered.L = &l.mu
	done := make(chan struct{})
	var clients sync.WaitGroup
	began := time.Now()
	for i := range loadClients {
		clients.Go(func() {
			transport := &http.Transport{DialContext: dialLocalhost}
			defer transport.CloseIdleConnections()
			pace := time.NewTicker(time.Second * loadClients / loadRate)
			defer pace.Stop()
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-pace.C:
				}
				l.count(l.post(transport, target, token, fmt.Sprintf("client %d, request %d", i, n)))
			}
		})
	}
	defer func() {
		close(done)
		clients.Wait()
		took := time.Since(began)
		t.Logf("%d requests in %.1f s (%.0f/s) from %d clients over %d connections: %d failed; answers by version: %v",
			l.requests, took.Seconds(), float64(l.requests)/took.Seconds(), loadClients, l.connections.Load(), len(l.failures), l.seen)
		if len(l.failures) > 0 {
			t.Errorf("the first of them: %s", l.failures[0])
		}
		if n := l.connections.Load(); n != loadClients {
			t.Errorf("%d clients needed %d connections", loadClients, n)
		}
		for version := range l.least.Load() + 1 {
			if l.seen[version] == 0 {
				t.Errorf("nobody met version %d", version)
			}
		}
	}()
	story(l)
}

// post sends one request and returns the version it met.
func (l *load) post(transport *http.Transport, target, token, body string) (version int32, err error) {
	req, err := http.NewRequest(http.MethodPost, target, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return 0, err
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Authorization", "Bearer "+token)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if !info.Reused {
				l.connections.Add(1)
			}
		},
	}))
	least := l.least.Load()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	answer := string(text)
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", res.Status, answer)
	}
	if _, err := fmt.Sscanf(answer, "version %d: ", &version); err != nil || answer != fmt.Sprintf("version %d: %s", version, body) {
		return 0, fmt.Errorf("%q was answered %q", body, answer)
	}
	if version < least {
		return 0, fmt.Errorf("version %d, although version %d was in force already", version, least)
	}
	return version, nil
}

func (l *load) count(version int32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if err != nil {
		l.failures = append(l.failures, err.Error())
	} else {
		l.seen[version]++
	}
	l.answered.Broadcast()
}

// wait returns after so many further requests.
func (l *load) wait(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for end := l.requests + n; l.requests < end; {
		l.answered.Wait()
	}
}

// machine is a provider of access tokens and a token of its client "batch".
func machine(t *testing.T) (issuer, token string) {
	t.Helper()
	var signer *testidp.Provider
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { signer.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	var err error
	if signer, err = testidp.New(testidp.Options{Issuer: server.URL}); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	header := signer.Header()
	header["typ"] = "at+jwt"
	if token, err = signer.Sign(header, map[string]any{
		"iss": server.URL, "sub": "batch", "client_id": "batch", "aud": "orders-api", "jti": "1", "iat": now, "exp": now + 3600,
	}); err != nil {
		t.Fatal(err)
	}
	return server.URL, token
}

// A ConfigMap changes again and again while requests come in at 500 a second. Not
// one fails, no connection is closed, and what begins after a version was loaded
// meets that version.
func TestConfigMapSwapUnderLoad(t *testing.T) {
	issuer, token := machine(t)
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for name := range r.Header {
			if n, ok := strings.CutPrefix(name, "X-Version-"); ok {
				fmt.Fprintf(w, "version %s: %s", n, body)
			}
		}
	})
	addr, admin, audit := freeAddress(t), freeAddress(t), filepath.Join(t.TempDir(), "audit.jsonl")
	base := "http://" + strings.Replace(addr, "127.0.0.1", "orders.localhost", 1)
	version := func(n int) map[string]string {
		return map[string]string{"secrets/client-secret": fmt.Sprintf("secret %d", n), "doorward.yaml": fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}}
sessions: {store: {memory: true}}
audit: {to: [{file: {path: %q}}]}
providers:
  - {id: services, issuer: %q, client_id: doorward, client_secret: {file: secrets/client-secret}, interactive: false, audiences: [orders-api]}
routes:
  - id: orders
    from: %q
    to: [%q]
    headers: {X-Version-%d: user}
    allow: [{name: batch, client_ids: ["services:batch"]}]
`, addr, admin, audit, issuer, base, app, n)}
	}
	config := mount(t, version(0))
	door := start(t, "doorward", "serve", "--config", config.path("doorward.yaml"))
	door.waitFor("serving", 1)
	underLoad(t, base+"/orders", token, func(l *load) {
		for n := 1; n <= 5; n++ {
			l.wait(200)
			config.swap(version(n))
			door.waitFor("configuration loaded", n)
			l.least.Store(int32(n))
		}
		l.wait(200)
	})
}

// Doorward's certificate for the upstream, and then the authority of the
// upstream's, are renewed on disk while requests come in at 500 a second. Not one
// fails, and in the end nothing of the old is in use.
func TestUpstreamCertificateRotationUnderLoad(t *testing.T) {
	issuer, token := machine(t)
	first, second, devices := newAuthority(t, "first"), newAuthority(t, "second"), newAuthority(t, "clients")
	pair := func(der []byte, key *ecdsa.PrivateKey) *tls.Certificate {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	var own atomic.Pointer[tls.Certificate] // the upstream's
	own.Store(pair(first.issue("upstream")))
	pool := x509.NewCertPool()
	pool.AddCert(devices.cert)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "version %s: %s", r.TLS.PeerCertificates[0].Subject.CommonName, body)
	}))
	app.Config.ErrorLog = log.New(io.Discard, "", 0)
	app.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*own.Load()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, nil
	}}
	app.StartTLS()
	t.Cleanup(app.Close)

	files := func(name string, authorities ...*authority) map[string]string {
		der, key := devices.issue(name)
		ca := ""
		for _, a := range authorities {
			ca += pemOf("CERTIFICATE", a.cert.Raw)
		}
		return map[string]string{"tls.crt": pemOf("CERTIFICATE", der), "tls.key": keyText(t, key), "ca.crt": ca}
	}
	secret := mount(t, files("0", first))
	addr, dir := freeAddress(t), t.TempDir()
	base := "http://" + strings.Replace(addr, "127.0.0.1", "orders.localhost", 1)
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}}
sessions: {store: {memory: true}}
audit: {to: [{file: {path: audit.jsonl}}]}
providers: [{id: services, issuer: %q, interactive: false, audiences: [orders-api]}]
routes:
  - id: orders
    from: %q
    to: [%q]
    upstream_tls: {ca: %q, client_cert: %q, client_key: %q, san: ["127.0.0.1"]}
    allow: [{name: batch, client_ids: ["services:batch"]}]
`, addr, freeAddress(t), issuer, base, app.URL, secret.path("ca.crt"), secret.path("tls.crt"), secret.path("tls.key")))
	door := start(t, "doorward", "serve", "--config", config)
	door.waitFor("serving", 1)

	underLoad(t, base+"/orders", token, func(l *load) {
		l.wait(400)
		secret.swap(files("1", first, second)) // the next authority is announced
		door.waitFor("configuration loaded", 1)
		l.least.Store(1)
		l.wait(400)
		own.Store(pair(second.issue("upstream")))
		secret.swap(files("2", second))
		door.waitFor("configuration loaded", 2)
		l.least.Store(2)
		l.wait(600)
	})
}
