package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

// versionOf is the name of a configuration in logs and records.
func versionOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// certify writes a server certificate with a serial number.
func (a *authority) certify(dir string, serial int64, names ...string) {
	a.t.Helper()
	cert := a.sign(&x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	replace(a.t, dir+"/tls.crt", pemOf("CERTIFICATE", cert.Certificate[0]))
	replace(a.t, dir+"/tls.key", keyText(a.t, cert.PrivateKey.(*ecdsa.PrivateKey)))
}

// shown is the serial number of the certificate that is served.
func shown(t *testing.T, address string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// held is a WebSocket that says at any time whether it is open.
type held struct{ conn *websocket.Conn }

func hold(t *testing.T, address string, roots *x509.CertPool, header http.Header) *held {
	t.Helper()
	transport := &http.Transport{DialContext: dialLocalhost, TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, strings.Replace(address, "http", "ws", 1), &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return &held{conn}
}

// says sends a message and waits for it to come back.
func (h *held) says(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		return err
	}
	_, answer, err := h.conn.Read(ctx)
	if err == nil && string(answer) != text {
		err = fmt.Errorf("%q came back as %q", text, answer)
	}
	return err
}

// ends waits for the close frame.
func (h *held) ends() websocket.CloseError {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, _, err := h.conn.Read(ctx); err != nil {
			var end websocket.CloseError
			if !errors.As(err, &end) {
				end.Reason = "no close frame: " + err.Error()
			}
			return end
		}
	}
}

// echoes is an application that also takes WebSockets.
func echoes(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		echo(w, r)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, text, err := conn.Read(context.Background())
		if err != nil || conn.Write(context.Background(), kind, text) != nil {
			return
		}
	}
}

// A hundred reloads while requests come in at 500 a second, over HTTP/1.1 and
// HTTP/2: a route comes or goes, the certificate changes, a rule changes. Each
// takes effect, no request fails, and a WebSocket that is still allowed survives
// all of them. The one that is not is closed with the reason.
func TestHundredReloadsUnderLoad(t *testing.T) {
	issuer, token := machine(t)
	app := serveApp(t, echoes)
	ca := newAuthority(t, "servers")
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	addr, admin, dir := freeAddress(t), freeAddress(t), t.TempDir()
	base := func(host string) string {
		return "https://" + strings.Replace(addr, "127.0.0.1", host+".localhost", 1)
	}
	names := []string{"orders.localhost", "chat.localhost", "extra.localhost"}
	const reloads = 100
	text := func(n int) string {
		readers, more := "batch", ""
		if n%3 == 0 && n > 0 { // a rule changes, and from the middle on nobody may chat
			readers = "batch\", \"services:other"
		}
		chatters := "batch"
		if n >= reloads/2 {
			chatters = "other"
		}
		if n%2 == 1 { // a route comes and goes
			more = fmt.Sprintf("  - {id: extra, from: %q, to: [%q], allow: [{name: batch, client_ids: [\"services:batch\"]}]}\n", base("extra"), app)
		}
		return fmt.Sprintf(`version: 1 # %d
server: {listen: %q, admin: {listen: %q}, tls: {certificates: [{cert: tls.crt, key: tls.key}]}}
sessions: {store: {file: {path: doorward.db}}}
audit: {to: [{file: {path: audit.jsonl}}]}
log: {format: text}
providers:
  - {id: services, issuer: %q, client_id: doorward, client_auth: none, interactive: false, audiences: [orders-api]}
routes:
  - {id: orders, from: %q, to: [%q], websocket: true, allow: [{name: batch, client_ids: ["services:%s"]}]}
  - {id: chat, from: %q, to: [%q], websocket: true, allow: [{name: batch, client_ids: ["services:%s"]}]}
%s`, n, addr, admin, issuer, base("orders"), app, readers, base("chat"), app, chatters, more)
	}
	ca.certify(dir, 1, names...)
	door := start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", text(0)))
	door.waitFor("msg=serving", 1)
	header := http.Header{"Authorization": {"Bearer " + token}}
	lasting, ending := hold(t, base("orders")+"/", roots, header), hold(t, base("chat")+"/", roots, header)
	ask := newVisitor(t)
	ask.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}

	whileSteady(t, base("orders"), roots, func(int) http.Header { return header }, func(s *steady) {
		for n := 1; n <= reloads; n++ {
			s.wait(20)
			if n%5 == 0 {
				ca.certify(dir, int64(n), names...)
			}
			replace(t, dir+"/doorward.yaml", text(n))
			if err := door.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			door.waitFor("version="+versionOf(text(n)), 1)
			if n%5 == 0 {
				// The files were replaced one after the other: perhaps it took a
				// second look.
				eventually(t, "the new certificate", func() bool { return shown(t, addr) == int64(n) })
			}
			if got, want := ask.once("GET", base("extra")+"/echo?x", header, nil).status, []int{404, 200}[n%2]; got != want {
				t.Fatalf("reload %d: the route that comes and goes answers %d, want %d", n, got, want)
			}
			if err := lasting.says(fmt.Sprint("after reload ", n)); err != nil {
				t.Fatalf("reload %d: %v", n, err)
			}
			if n < reloads/2 {
				if err := ending.says("still here"); err != nil {
					t.Fatalf("reload %d: %v", n, err)
				}
			}
			if n == reloads/2 {
				if end := ending.ends(); end.Code != websocket.StatusPolicyViolation || !strings.HasPrefix(end.Reason, "not_allowed: ") {
					t.Errorf("the WebSocket that is no longer allowed ends with %d %q", end.Code, end.Reason)
				}
			}
		}
	})
	if err := lasting.says("and after all of them"); err != nil {
		t.Error(err)
	}

	// At the end it is told that the door goes away.
	replace(t, dir+"/doorward.yaml", strings.Replace(text(0), "server: {", "server: {drain_timeout: 100ms, ", 1))
	door.cmd.Process.Signal(syscall.SIGHUP)
	door.waitFor("version="+versionOf(strings.Replace(text(0), "server: {", "server: {drain_timeout: 100ms, ", 1)), 1)
	door.cmd.Process.Signal(syscall.SIGTERM)
	if end := lasting.ends(); end.Code != websocket.StatusGoingAway || !strings.HasPrefix(end.Reason, "shutting_down: ") {
		t.Errorf("at the end the WebSocket is told %d %q", end.Code, end.Reason)
	}
	if code := door.stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

// A reload that fails changes nothing, certificates included, also where the last
// of all files cannot be read. When it succeeds, the listeners for front ends have
// the new certificate as well.
func TestFailedReloadChangesNothing(t *testing.T) {
	ca := newAuthority(t, "servers")
	addr, side, admin, dir := freeAddress(t), freeAddress(t), freeAddress(t), t.TempDir()
	base := "https://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	text := func(acme, upstream string) string {
		return fmt.Sprintf(`version: 1
server:
  listen: %q
  admin: {listen: %q}
  tls: {certificates: [{cert: tls.crt, key: tls.key}]%s}
  forward_auth: {listen: %q, cert: tls.crt, key: tls.key}
sessions: {store: {memory: true}}
log: {format: text}
audit: {to: [{file: {path: audit.jsonl}}]}
providers: [{id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_auth: none}]
routes:
  - {id: app, from: %q, to: ["https://127.0.0.1:1"]%s, allow: [{name: all, any_user: true}]}
`, addr, admin, acme, side, base, upstream)
	}
	ca.certify(dir, 1, "app.localhost")
	writeFile(t, dir, "broken.pem", "no certificate")
	door := start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", text("", "")))
	door.waitFor("msg=serving", 1)
	fails := func(what string) {
		t.Helper()
		before := strings.Count(door.output(), "the configuration was not loaded; the running one stays")
		door.cmd.Process.Signal(syscall.SIGHUP)
		door.waitFor("the configuration was not loaded; the running one stays", before+1)
		if got := []int64{shown(t, addr), shown(t, side)}; got[0] != 1 || got[1] != 1 {
			t.Errorf("%s cannot be read, and yet the listeners show the certificates %v", what, got)
		}
	}
	for what, broken := range map[string]string{
		"the authority of the ACME directory": text(`, acme: {directory: "https://127.0.0.1:1/dir", accept_terms: true, ca: broken.pem}`, ""),
		"the authority of an upstream":        text("", ", upstream_tls: {ca: broken.pem}"),
		"the certificate for front ends":      strings.Replace(text("", ""), "cert: tls.crt, key: tls.key}\nsessions", "cert: broken.pem, key: tls.key}\nsessions", 1),
	} {
		replace(t, dir+"/doorward.yaml", broken)
		fails(what)
		ca.certify(dir, 2, "app.localhost") // while something else is wrong
		fails(what)
	}
	if err := os.Remove(dir + "/broken.pem"); err != nil {
		t.Fatal(err)
	}
	replace(t, dir+"/doorward.yaml", text("", "")+"# repaired\n")
	eventually(t, "the new certificate on both listeners", func() bool { return shown(t, addr) == 2 && shown(t, side) == 2 })
}
