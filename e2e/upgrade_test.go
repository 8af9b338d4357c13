package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// chain is a doorward that is replaced by its successors. What all of them print
// is one text.
type chain struct {
	*process
	program string
	pid     int // of the one that serves
}

// startChain runs a copy of doorward, which a story may replace.
func startChain(t *testing.T, config string) *chain {
	t.Helper()
	c := &chain{program: filepath.Join(t.TempDir(), "doorward")}
	c.install(t)
	c.process = startCommand(t, exec.Command(c.program, "serve", "--config", config))
	c.waitFor("msg=serving", 1)
	c.pid = c.cmd.Process.Pid
	t.Cleanup(func() { c.end(t) })
	return c
}

// install puts a new file in the program's place.
func (c *chain) install(t *testing.T) {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(binaries, "doorward"))
	if err != nil {
		t.Fatal(err)
	}
	c.replace(t, program)
}

func (c *chain) replace(t *testing.T, program []byte) {
	t.Helper()
	if err := os.WriteFile(c.program+"~", program, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.program+"~", c.program); err != nil {
		t.Fatal(err)
	}
}

func (c *chain) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(c.pid, sig); err != nil {
		t.Fatalf("process %d: %v", c.pid, err)
	}
}

var servingPID = regexp.MustCompile(`msg=serving .* pid=(\d+)`)

// upgrade has the next one take over, and returns when it serves.
func (c *chain) upgrade(t *testing.T) {
	t.Helper()
	n := strings.Count(c.output(), "msg=serving")
	c.signal(t, syscall.SIGUSR2)
	c.waitFor("msg=serving", n+1)
	all := servingPID.FindAllStringSubmatch(c.output(), -1)
	pid, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil || pid == c.pid {
		t.Fatalf("process %d after process %d: %v", pid, c.pid, err)
	}
	c.pid = pid
}

// alone waits until n of those before have ended.
func (c *chain) alone(n int) { c.waitFor("the process before this one has ended", n) }

// end ends the last one.
func (c *chain) end(t *testing.T) {
	t.Helper()
	if c.ended() {
		return
	}
	syscall.Kill(c.pid, syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(patience):
		t.Errorf("process %d did not end", c.pid)
		syscall.Kill(c.pid, syscall.SIGKILL)
	}
}

// orders is an application behind TLS whose doorward is upgraded. People with a
// session in a state file use it, and machines with tokens.
type orders struct {
	config  func(change ...string) string
	base    string
	dir     string
	side    string // the socket of the listener for front ends
	roots   *x509.CertPool
	headers func(client int) http.Header
	chain   *chain
}

func openOrders(t *testing.T) *orders {
	t.Helper()
	issuer, token := machine(t)
	ca := newAuthority(t, "servers")
	o := &orders{roots: x509.NewCertPool(), dir: t.TempDir()}
	o.roots.AddCert(ca.cert)
	app, addr := serveApp(t, echoes), freeAddress(t)
	o.base = "https://" + strings.Replace(addr, "127.0.0.1", "orders.localhost", 1)
	provider := startProvider(t, o.base+"/.doorward/callback", nil)
	ca.certify(o.dir, 1, "orders.localhost")
	writeFile(t, o.dir, "secret", "s3cret")
	admin := freeAddress(t)
	o.side = filepath.Join(t.TempDir(), "auth.sock")
	o.config = func(change ...string) string {
		return strings.NewReplacer(change...).Replace(fmt.Sprintf(`version: 1
server:
  listen: %q
  admin: {listen: %q}
  tls: {certificates: [{cert: tls.crt, key: tls.key}]}
  forward_auth: {listen: "unix:%s"}
sessions: {store: {file: {path: doorward.db}}}
audit: {to: [{file: {path: audit.jsonl}}], required: true}
log: {format: text}
providers:
  - {id: services, issuer: %q, client_id: doorward, client_auth: none, interactive: false, audiences: [orders-api]}
  - {id: corp, issuer: %q, client_id: doorward, client_secret: {file: secret}}
routes:
  - id: orders
    from: %q
    to: [%q]
    websocket: true
    allow: [{name: batch, client_ids: ["services:batch"]}, {name: people, any_user: true}]
`, addr, admin, o.side, issuer, provider.Issuer(), o.base, app))
	}
	o.chain = startChain(t, writeFile(t, o.dir, "doorward.yaml", o.config()))

	alice := newVisitor(t)
	alice.client.Transport.(*http.Transport).TLSClientConfig = tlsOf(o.roots)
	alice.login(o.base+"/echo?hello", "alice").says(t, 200, "GET hello")
	alice.client.CloseIdleConnections() // the old one would wait for what comes over it
	machine, person := http.Header{"Authorization": {"Bearer " + token}}, http.Header{}
	req, _ := http.NewRequest("GET", o.base+"/", nil)
	for _, cookie := range alice.client.Jar.Cookies(req.URL) {
		person.Add("Cookie", cookie.String())
	}
	o.headers = func(client int) http.Header {
		if client/4%2 == 1 {
			return person.Clone()
		}
		return machine.Clone()
	}
	return o
}

var pauses = regexp.MustCompile(`msg="another process has taken over" .*pause=(\S+)`)

// Twenty restarts while people and machines send 500 requests a second: none
// fails, everybody stays logged in, and the audit log is one unbroken chain.
func TestTwentyUpgradesUnderLoad(t *testing.T) {
	o := openOrders(t)
	const upgrades = 20
	whileSteady(t, o.base, o.roots, o.headers, func(s *steady) {
		for n := 1; n <= upgrades; n++ {
			s.wait(50)
			o.chain.upgrade(t)
			o.chain.alone(n)
		}
		s.wait(100)
	})
	var longest time.Duration
	for _, m := range pauses.FindAllStringSubmatch(o.chain.output(), -1) {
		if d, err := time.ParseDuration(m[1]); err == nil {
			longest = max(longest, d)
		}
	}
	t.Logf("%d restarts; the state file and the audit log were handed over in %s at most", upgrades, round(longest))
	o.chain.end(t)
	if res := run(t, "doorward", "verify-log", o.dir+"/audit.jsonl"); res.code != 0 {
		t.Errorf("the chain of records: %+v", res)
	}
}

// What cannot take over does not, and the running one says why and goes on: a
// program that is none, a configuration that has a mistake, an address that is
// taken, and one that fails when it holds the state file already. Then the
// repaired one takes over.
func TestUpgradeThatFailsIsTakenBack(t *testing.T) {
	o := openOrders(t)
	good, taken := o.config(), freeAddress(t)
	listener, err := net.Listen("tcp", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	failures := 0
	whileSteady(t, o.base, o.roots, o.headers, func(s *steady) {
		for _, c := range []struct{ name, program, config, says string }{
			{"another program", "#!/bin/sh\nexit 3\n", "", "it has ended: exit status 3"},
			{"no program", "nothing", "", "exec format error"},
			{"a mistake", "", o.config("version: 1", "version: 2"), "version: this format has the version 1"},
			{"an address that is taken", "", o.config("unix:"+o.side, taken), "server.forward_auth.listen: listen tcp " + taken},
			{"no place for the audit log", "", o.config("audit.jsonl", "nowhere/audit.jsonl"), "create the directory"},
		} {
			s.wait(50)
			if c.program != "" {
				o.chain.replace(t, []byte(c.program))
			}
			if c.config != "" {
				replace(t, o.dir+"/doorward.yaml", c.config)
			}
			o.chain.signal(t, syscall.SIGUSR2)
			failures++
			o.chain.waitFor("no other process has taken over; this one goes on", failures)
			lines := strings.Split(o.chain.output(), "no other process has taken over; this one goes on")
			if reason, _, _ := strings.Cut(lines[failures], "\n"); !strings.Contains(reason, c.says) {
				t.Errorf("%s: the log says %s", c.name, reason)
			}
			s.wait(50)
			o.chain.install(t)
			replace(t, o.dir+"/doorward.yaml", good)
		}
		o.chain.upgrade(t)
		o.chain.alone(1)
		s.wait(50)
	})
	o.chain.end(t)
	if res := run(t, "doorward", "verify-log", o.dir+"/audit.jsonl"); res.code != 0 {
		t.Errorf("the chain of records: %+v", res)
	}
}

// What is open goes on through the old process, decided on as before, until the
// drain limit, and is then told to come again. Meanwhile no third process is
// started.
func TestOpenConnectionsAtAnUpgrade(t *testing.T) {
	o := openOrders(t)
	replace(t, o.dir+"/doorward.yaml", o.config("server:", "server:\n  drain_timeout: 60s"))
	o.chain.waitFor("configuration loaded", 1)
	lasting, ending := hold(t, o.base+"/", o.roots, o.headers(4)), hold(t, o.base+"/", o.roots, o.headers(0))
	o.chain.upgrade(t)
	for _, h := range []*held{lasting, ending} {
		if err := h.says("through the old one"); err != nil {
			t.Fatal(err)
		}
	}
	o.chain.signal(t, syscall.SIGUSR2)
	o.chain.waitFor("the doorward before this one has not ended yet", 1)

	// Who logs out at the new process is out at the old one.
	alice := newVisitor(t)
	alice.client.Transport.(*http.Transport).TLSClientConfig = tlsOf(o.roots)
	header := o.headers(4)
	header.Set("Origin", o.base)
	header.Set("Sec-Fetch-Site", "same-origin")
	alice.once("POST", o.base+"/.doorward/logout", header, nil)
	if end := lasting.ends(); end.Code != websocket.StatusPolicyViolation || !strings.HasPrefix(end.Reason, "session_ended: ") {
		t.Errorf("after the logout the WebSocket of the old process ends with %d %q", end.Code, end.Reason)
	}
	if err := ending.says("still here"); err != nil {
		t.Error(err)
	}
	ending.conn.Close(websocket.StatusNormalClosure, "")
	o.chain.alone(1) // nothing is left that it would wait for

	// What is still open at the limit learns that it may come again.
	replace(t, o.dir+"/doorward.yaml", o.config("server:", "server:\n  drain_timeout: 100ms"))
	o.chain.waitFor("configuration loaded", 2)
	ending = hold(t, o.base+"/", o.roots, o.headers(0))
	o.chain.upgrade(t)
	if end := ending.ends(); end.Code != websocket.StatusGoingAway || !strings.HasPrefix(end.Reason, "shutting_down: ") {
		t.Errorf("at the limit the WebSocket is told %d %q", end.Code, end.Reason)
	}
	o.chain.alone(2)
	if answer := alice.once("GET", o.base+"/echo?x", o.headers(0), nil); answer.status != 200 {
		t.Errorf("the new process answers %d", answer.status)
	}
}

func tlsOf(roots *x509.CertPool) *tls.Config { return &tls.Config{RootCAs: roots} }

// Started by systemd, which has opened the listener before: who connected earlier
// is served, and systemd is told which process is the main one.
func TestListenersOfSystemd(t *testing.T) {
	app := serveApp(t, echo)
	socket := filepath.Join(t.TempDir(), "notify")
	notices, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notices.Close()
	told := func(want string) {
		t.Helper()
		notices.SetReadDeadline(time.Now().Add(patience))
		for b := make([]byte, 4096); ; {
			n, err := notices.Read(b)
			if err != nil {
				t.Fatalf("systemd is not told %s: %v", want, err)
			}
			if strings.Contains("\n"+string(b[:n])+"\n", "\n"+want+"\n") {
				return
			}
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	base := "http://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	early := make(chan page)
	go func() { early <- newVisitor(t).once("GET", base+"/echo?early", nil, nil) }()
	dir := t.TempDir()
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: "127.0.0.1:1", admin: {listen: %q}}
sessions: {store: {file: {path: doorward.db}}}
audit: {to: [{file: {path: audit.jsonl}}]}
log: {format: text}
providers: [{id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_auth: none}]
routes: [{id: app, from: %q, to: [%q], public: [{name: all, methods: [GET], paths: ["/**"]}]}]
`, freeAddress(t), base, app))
	c := &chain{program: filepath.Join(binaries, "doorward")}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config "$1"`, c.program, config)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=server.listen", "NOTIFY_SOCKET="+socket)
	cmd.ExtraFiles = []*os.File{file}
	c.process = startCommand(t, cmd)
	c.pid = cmd.Process.Pid
	t.Cleanup(func() { c.end(t) })
	file.Close()
	listener.Close()
	(<-early).says(t, 200, "GET early")
	told("READY=1")
	c.upgrade(t)
	told("MAINPID=" + strconv.Itoa(c.pid))
	newVisitor(t).once("GET", base+"/echo?late", nil, nil).says(t, 200, "GET late")
	c.end(t)
	told("STOPPING=1")
}
