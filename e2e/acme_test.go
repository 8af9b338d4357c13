package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/doorward/doorward/internal/serve"
	"github.com/doorward/doorward/internal/store/redistest"
)

// pebble is Let's Encrypt's authority for tests.
type pebble struct {
	*process
	directory string
	ca        string         // a file with who vouches for the directory
	roots     *x509.CertPool // of the certificates it issues
}

// startPebble builds and runs it. It asks hosts at a port of this machine, and
// refuses to issue anything for blocked.corp.test.
func startPebble(t *testing.T, port string) *pebble {
	t.Helper()
	dir := buildModule(t, "pebble", "tool")
	own := newAuthority(t, "directory")
	cert := own.sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	listen, management := freeAddress(t), freeAddress(t)
	p := &pebble{directory: "https://" + listen + "/dir", ca: writeFile(t, dir, "ca.pem", pemOf("CERTIFICATE", own.cert.Raw))}
	config := writeFile(t, dir, "pebble.json", fmt.Sprintf(`{"pebble": {"listenAddress": %q, "managementListenAddress": %q,
		"certificate": %q, "privateKey": %q, "tlsPort": %s, "httpPort": 1, "domainBlocklist": ["blocked.corp.test"],
		"keyAlgorithm": "ecdsa", "retryAfter": {"authz": 1, "order": 1},
		"profiles": {"default": {"description": "ninety days", "validityPeriod": 7776000}}}}`,
		listen, management, writeFile(t, dir, "cert.pem", pemOf("CERTIFICATE", cert.Certificate[0])),
		writeFile(t, dir, "key.pem", keyText(t, cert.PrivateKey.(*ecdsa.PrivateKey))), port))
	cmd := exec.Command(filepath.Join(dir, "pebble"), "-config", config, "-dnsserver", serveDNS(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	p.process = startCommand(t, cmd)
	p.waitFor("ACME directory available at", 1)
	trust := x509.NewCertPool()
	trust.AddCert(own.cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}}}
	defer client.CloseIdleConnections()
	p.roots = x509.NewCertPool()
	eventually(t, "pebble's root", func() bool {
		res, err := client.Get("https://" + management + "/roots/0")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return err == nil && p.roots.AppendCertsFromPEM(text)
	})
	return p
}

// issued is how many certificates it has issued.
func (p *pebble) issued() int { return strings.Count(p.output(), "Issued certificate serial") }

// serveDNS answers, over TCP (RFC 1035 §4.2.2), that every name is this machine.
func serveDNS(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	answer := func(question []byte) ([]byte, error) {
		var m dnsmessage.Message
		if err := m.Unpack(question); err != nil {
			return nil, err
		}
		m.Response, m.Additionals = true, nil
		for _, q := range m.Questions {
			if q.Type == dnsmessage.TypeA {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
					Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
			}
		}
		return m.AppendPack(make([]byte, 2))
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for size := make([]byte, 2); ; {
					if _, err := io.ReadFull(conn, size); err != nil {
						return
					}
					question := make([]byte, binary.BigEndian.Uint16(size))
					if _, err := io.ReadFull(conn, question); err != nil {
						return
					}
					text, err := answer(question)
					if err != nil {
						return
					}
					binary.BigEndian.PutUint16(text, uint16(len(text)-2))
					conn.Write(text)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// balance passes each connection on to the next of several addresses.
func balance(t *testing.T, address string, to ...string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", to[n%len(to)])
				if err != nil {
					return
				}
				defer out.Close()
				go func() { io.Copy(out, in); out.Close() }()
				io.Copy(in, out)
			}()
		}
	}()
}

// edge is a replica with a clock that the story moves.
type edge struct {
	addr   string
	log    *lockedBuffer
	reload chan os.Signal
}

// serial returns the serial number of the certificate that is served for a host,
// empty if none is that holds.
func (e *edge) serial(host string, roots *x509.CertPool) string {
	conn, err := tls.Dial("tcp", e.addr, &tls.Config{ServerName: host, RootCAs: roots})
	if err != nil {
		return ""
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
}

// Two replicas share a store and one address. Each host gets one certificate,
// although both want it and the authority's question may reach either; it is
// renewed once. Neither that nor a new certificate file is noticed by visitors.
func TestCertificatesByACME(t *testing.T) {
	redis := redistest.Start(t)
	t.Setenv("REDIS_URL", "redis://"+redis.Addr)
	front, dir := freeAddress(t), t.TempDir()
	_, port, _ := net.SplitHostPort(front)
	authority := startPebble(t, port)
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>well</p>") })

	// One host has its certificate from a file.
	files := newAuthority(t, "files")
	authority.roots.AddCert(files.cert)
	certify := func() string {
		cert := files.sign(&x509.Certificate{DNSNames: []string{"files.corp.test"}}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
		writeFile(t, dir, "tls.pem", pemOf("CERTIFICATE", cert.Certificate[0])+keyText(t, cert.PrivateKey.(*ecdsa.PrivateKey)))
		return cert.Leaf.SerialNumber.Text(16)
	}
	fromFile := certify()

	var ahead atomic.Int64
	replicas := []*edge{{addr: freeAddress(t)}, {addr: freeAddress(t)}}
	balance(t, front, replicas[0].addr, replicas[1].addr)
	for i, e := range replicas {
		e.log, e.reload = &lockedBuffer{}, make(chan os.Signal, 1)
		route := func(host string) string {
			return fmt.Sprintf("  - {id: %s, from: \"https://%s.corp.test:%s\", to: [%q], public: [{name: all, methods: [GET], paths: [\"/**\"]}]}\n", host, host, port, app)
		}
		config := writeFile(t, dir, fmt.Sprintf("replica-%d.yaml", i), fmt.Sprintf(`version: 1
server:
  listen: %q
  admin: {listen: %q}
  tls:
    certificates: [{cert: tls.pem, key: tls.pem}]
    acme: {directory: %q, ca: %q, email: ops@corp.test, accept_terms: true}
sessions: {store: {redis: {url: {env: REDIS_URL}}}}
audit: {to: [{file: {path: audit-%d.jsonl}}]}
log: {format: text}
routes:
%s`, e.addr, freeAddress(t), authority.directory, authority.ca, i, route("app")+route("wiki")+route("blocked")+route("files")))
		ctx, stop := context.WithCancel(context.Background())
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- serve.Run(ctx, serve.Options{Config: config, LogTo: e.log, Reload: e.reload, Ready: func() { close(ready) },
				Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
		}()
		select {
		case <-ready:
		case err := <-done:
			t.Fatal(err)
		}
		t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Log(e.log.String())
			}
		})
	}
	agree := func(host, not string) (serial string) {
		t.Helper()
		eventually(t, "one certificate for "+host, func() bool {
			serial = replicas[0].serial(host, authority.roots)
			return serial != "" && serial != not && serial == replicas[1].serial(host, authority.roots)
		})
		return serial
	}
	appSerial, wikiSerial := agree("app.corp.test", ""), agree("wiki.corp.test", "")
	if serial := agree("files.corp.test", ""); serial != fromFile {
		t.Errorf("%s is served, not the one in the file", serial)
	}
	if n := authority.issued(); n != 2 {
		t.Errorf("%d certificates were issued for two hosts", n)
	}
	// The host that the authority refuses keeps nobody back, and the log says why.
	eventually(t, "the refusal", func() bool {
		log := replicas[0].log.String() + replicas[1].log.String()
		return strings.Contains(log, "blocked.corp.test") && strings.Contains(log, "list the others in server.tls.acme.hosts")
	})

	client := func(keepAlive bool) *http.Client {
		transport := &http.Transport{DisableKeepAlives: !keepAlive, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: authority.roots},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, front)
			}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: patience}
	}
	get := func(c *http.Client, host string) error {
		res, err := c.Get("https://" + host + ".corp.test:" + port + "/")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 {
			return fmt.Errorf("%d %s %v", res.StatusCode, body, err)
		}
		return nil
	}

	t.Run("what is negotiated is in the log", func(t *testing.T) {
		if err := get(client(true), "app"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the line", func() bool {
			log := replicas[0].log.String() + replicas[1].log.String()
			return strings.Contains(log, `tls="TLS 1.3" tls_group=X25519MLKEM768`)
		})
	})
	t.Run("no old TLS", func(t *testing.T) {
		for version, want := range map[string]bool{"-tls1_1": false, "-tls1_2": false, "-tls1_3": true} {
			cmd := exec.Command(part(t, "openssl"), "s_client", version, "-connect", replicas[0].addr, "-servername", "app.corp.test", "-cipher", "ALL:@SECLEVEL=0")
			cmd.Stdin = strings.NewReader("")
			if out, err := cmd.CombinedOutput(); (err == nil) != want {
				t.Errorf("%s: %v\n%s", version, err, out)
			}
		}
	})

	// Everything is renewed while people work.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	var requests atomic.Int64
	for n := range 6 {
		c, host := client(n%2 == 0), []string{"app", "wiki", "files"}[n/2]
		load.Go(func() {
			for ctx.Err() == nil {
				if err := get(c, host); err != nil {
					t.Errorf("%s: %v", host, err)
					return
				}
				requests.Add(1)
			}
		})
	}
	more := func() {
		before := requests.Load()
		eventually(t, "requests", func() bool { return t.Failed() || requests.Load() > before+100 })
	}
	more()
	ahead.Store(int64(61 * 24 * time.Hour))
	fromFile = certify()
	for _, e := range replicas {
		e.reload <- os.Interrupt
	}
	agree("app.corp.test", appSerial)
	agree("wiki.corp.test", wikiSerial)
	eventually(t, "the new file", func() bool {
		return replicas[0].serial("files.corp.test", authority.roots) == fromFile && replicas[1].serial("files.corp.test", authority.roots) == fromFile
	})
	more()
	stop()
	load.Wait()
	if n := authority.issued(); n != 4 {
		t.Errorf("%d certificates were issued, two for each host were to be", n)
	}
	t.Logf("%d requests, none failed", requests.Load())
}
