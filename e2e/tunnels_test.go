package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// startPostgres runs a PostgreSQL of its own and returns its address. It refuses
// to run as root.
func startPostgres(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		part(t, "postgres")
	}
	bin := found[len(found)-1]
	part(t, "psql")
	dir, err := os.MkdirTemp("", "doorward-pg-") // below no folder of root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "app", "-A", "trust", "-N", "--locale=C", "-E", "UTF8")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	postgres := exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"), "-k", dir, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
	postgres.SysProcAttr, postgres.Dir = as, dir
	startCommand(t, postgres).waitFor("ready to accept connections", 1)
	return address
}

// psql and pg_dump reach a real PostgreSQL by a port of the person's machine.
func TestPostgresThroughTheDoor(t *testing.T) {
	db := startPostgres(t)
	o := openOffice(t, "", fmt.Sprintf(`
  - {id: db, from: "tcp://db.corp.example.com:5432", to: ["tcp://%s"], allow: [{name: eng, groups: [engineers]}]}`, db))
	_, address := o.connect("db.corp.example.com:5432", "--listen", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(address)
	at := []string{"-h", "127.0.0.1", "-p", port, "-U", "app", "-d", "postgres"}
	o.works(o.command("psql", append(at, "-qc", "create table fruit (name text); insert into fruit select 'apple ' || n from generate_series(1, 20000) n")...))
	if out := o.works(o.command("psql", append(at, "-Atc", "select count(*), max(length(name)) from fruit")...)); out != "20000|11\n" {
		t.Errorf("psql printed %q", out)
	}
	if dump := o.works(o.command("pg_dump", at...)); strings.Count(dump, "\napple ") != 20000 || !strings.Contains(dump, "database dump complete") {
		t.Errorf("pg_dump printed %d bytes", len(dump))
	}
}

// Programs that know proxies reach what the person may reach, by name; the rest
// is refused, or connected to past the door where that was asked for.
func TestProxiesForPrograms(t *testing.T) {
	part(t, "curl")
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "inside, asked for "+r.Host) })
	outside := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "outside") })
	inside := strings.TrimPrefix(app, "http://")
	_, port, _ := net.SplitHostPort(inside)
	o := openOffice(t, "", fmt.Sprintf(`
  - {id: app, from: "tcp://app.corp.example.com:%[2]s", to: ["tcp://%[1]s"], allow: [{name: eng, groups: [engineers]}]}
  - {id: ops, from: "tcp://ops.corp.example.com:%[2]s", to: ["tcp://%[1]s"], allow: [{name: ops, groups: [operators]}]}`, inside, port))
	curl := func(args ...string) result {
		return o.do(o.command("curl", append([]string{"-sS", "--max-time", "80"}, args...)...))
	}
	socks, http := freeAddress(t), freeAddress(t)
	client, _ := o.connect("--socks", socks, "--http-proxy", http)
	for _, proxy := range [][]string{{"--socks5-hostname", socks}, {"-p", "-x", "http://" + http}} {
		if r := curl(append(proxy, "http://app.corp.example.com:"+port+"/")...); r.stdout != "inside, asked for app.corp.example.com:"+port {
			t.Errorf("%v: %+v", proxy, r)
		}
		for _, no := range []string{"http://ops.corp.example.com:" + port + "/", outside} {
			if r := curl(append(proxy, no)...); r.code == 0 {
				t.Errorf("%v %s: %+v", proxy, no, r)
			}
		}
	}
	client.waitFor("You do not have access", 2)
	client.stop()
	o.connect("--socks", socks, "--direct")
	if r := curl("--socks5-hostname", socks, "http://app.corp.example.com:"+port+"/"); !strings.HasPrefix(r.stdout, "inside") {
		t.Errorf("%+v", r)
	}
	if r := curl("--socks5-hostname", socks, outside); r.stdout != "outside" {
		t.Errorf("past the door: %+v", r)
	}

	// curl itself speaks classic CONNECT to the door.
	proxied := curl("-p", "-x", o.server, "--proxy-header", "Proxy-Authorization: Bearer "+o.token("alice", "eng"), "http://app.corp.example.com:"+port+"/")
	if !strings.HasPrefix(proxied.stdout, "inside") {
		t.Errorf("CONNECT: %+v", proxied)
	}
}

// Whoever may not is told why, in a sentence and an exit code, before anything is
// dialed.
func TestTunnelRefusals(t *testing.T) {
	target, reached := quiet(t)
	away := freeAddress(t)
	o := openOffice(t, `devices:
  sources: [{id: inventory, type: file, path: devices.json}]
  match: [claim.deviceid]
  claims_from: [corp]
  profiles: {healthy: {all: [known, disk_encrypted], fix: "https://it.example.com/fix"}}`, fmt.Sprintf(`
  - {id: ops, from: "tcp://ops.corp.example.com:22", to: ["tcp://%[1]s"], allow: [{name: ops, groups: [operators]}]}
  - {id: careful, from: "tcp://careful.corp.example.com:22", to: ["tcp://%[1]s"], require: {device: healthy}, allow: [{name: eng, groups: [engineers]}]}
  - {id: closed, from: "tcp://closed.corp.example.com:22", to: ["tcp://%[1]s"], allow: [{name: eng, groups: [engineers], time: {days: %[2]s}}]}
  - {id: away, from: "tcp://away.corp.example.com:22", to: ["tcp://%[3]s"], allow: [{name: eng, groups: [engineers]}]}`,
		target, strings.ToLower(time.Now().UTC().Add(84*time.Hour).Format("Mon")), away), "devices.json", `[{"id":"laptop-alice","name":"Alice","owner":"alice@example.com","managed":"yes","compliant":"yes","disk_encrypted":"no","os":"linux","os_version":"6.1","last_seen":"`+time.Now().UTC().Format(time.RFC3339)+`"}]`)
	refused := func(code int, want string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(binaries, "doorward"), append([]string{"connect"}, args...)...)
		cmd.Env = o.env()
		if r := o.do(cmd); r.code != code || !strings.Contains(r.stderr, want) || r.stdout != "" || strings.Count(strings.TrimSpace(r.stderr), "\n") > 0 {
			t.Errorf("%v: exit %d, %q", args, r.code, r.stderr)
		}
	}
	for _, way := range [][]string{{"--stdio"}, {"--listen", "127.0.0.1:0"}} {
		for _, form := range []string{"connect-tcp", "websocket", "CONNECT"} {
			args := append(slices.Clone(way), "--form", form)
			refused(1, "You do not have access", append(args, "ops.corp.example.com:22")...)
			refused(1, "There is nothing here", append(args, "nowhere.corp.example.com:22")...)
			refused(1, "You do not have access", append(args, "closed.corp.example.com:22")...)
			refused(4, "https://it.example.com/fix", append(args, "careful.corp.example.com:22")...)
		}
	}
	refused(6, "upstream_unreachable", "--stdio", "away.corp.example.com:22")
	refused(2, "HOST:PORT", "--stdio", "ops.corp.example.com")
	refused(2, "without TLS", "--server", "http://door.example.com", "--stdio", "ops.corp.example.com:22")
	refused(2, "other machines", "--socks", "0.0.0.0:1080")
	if err := os.Remove(filepath.Join(o.home, ".config", "doorward", "tokens.json")); err != nil {
		t.Fatal(err)
	}
	refused(3, "doorward login", "--stdio", "ops.corp.example.com:22")
	if n := reached.Load(); n != 0 {
		t.Errorf("%d connections reached the target", n)
	}
}

// An operator revokes a person, and their open ssh is cut.
func TestRevokingCutsAnOpenTunnel(t *testing.T) {
	sshd := startSSHD(t)
	o := openOffice(t, "", sshd.route())
	ssh := startCommand(t, o.command("ssh", append(sshd.options(), "build.corp.example.com", "echo it runs; sleep 600")...))
	ssh.waitFor("it runs", 1)
	revoke := o.command(filepath.Join(binaries, "doorward"), "revoke", "--config", o.config, "--user", "corp:alice", "--why", "left the company")
	began := time.Now()
	o.works(revoke)
	revoked := time.Now()
	select {
	case <-ssh.done:
	case <-time.After(patience):
		t.Fatal("ssh goes on")
	}
	t.Logf("ssh ended %s after the command to revoke began, %s after it ended", time.Since(began).Round(time.Millisecond), time.Since(revoked).Round(time.Millisecond))
	ssh.waitForEnd("the door ended the tunnel")
	closed := waitForEvent(t, filepath.Join(o.dir, "audit.jsonl"), func(e *access.Event) bool { return e.Kind == access.EventClosed })
	if closed.Reason != access.TokenRevoked || closed.Actor != "corp:alice" || !strings.HasPrefix(closed.Note, "tunnel ended") {
		t.Errorf("%+v", closed)
	}
	if r := o.do(o.command(filepath.Join(binaries, "doorward"), "connect", "--stdio", "build.corp.example.com:22")); r.code != 3 || !strings.Contains(r.stderr, "token_revoked") {
		t.Errorf("afterwards: %+v", r)
	}
}

// waitForEnd checks what a program that has ended has printed.
func (p *process) waitForEnd(text string) {
	p.t.Helper()
	<-p.done // what it printed is still being collected
	eventually(p.t, "the program has printed "+text, func() bool { return strings.Contains(p.output(), text) })
}

// The door goes away and comes back. The client notices, local programs wait
// meanwhile, and the next connection works without anybody doing anything.
func TestClientSurvivesTheDoor(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
	routes := fmt.Sprintf(`
  - {id: app, from: "tcp://app.corp.example.com:80", to: ["tcp://%s"], allow: [{name: eng, groups: [engineers]}]}`, strings.TrimPrefix(app, "http://"))
	o := openOffice(t, "", routes)
	client, address := o.connect("app.corp.example.com:80")
	get := func() string {
		transport := &http.Transport{DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("http://" + address + "/")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	if got := get(); got != "here" {
		t.Fatal(got)
	}
	open, err := net.Dial("tcp", address) // is open when the door goes
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	io.WriteString(open, "GET / HTTP/1.1\r\nHost: app\r\n\r\n")
	if _, err := open.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	addr := o.addr
	o.stop()
	io.Copy(io.Discard, open) // ends
	waited := make(chan string)
	go func() { waited <- get() }()
	client.waitFor("trying again", 1)
	o.reopen(t, addr, "", routes)
	if got := <-waited; got != "here" {
		t.Errorf("the program that waited got %q", got)
	}
	if got := get(); got != "here" || client.ended() {
		t.Errorf("afterwards: %q", got)
	}
}

// All that somebody may open opens at once, and the list tells nothing of the rest.
func TestConnectAll(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
	to := strings.TrimPrefix(app, "http://")
	o := openOffice(t, "", fmt.Sprintf(`
  - {id: one, from: "tcp://one.corp.example.com:80", to: ["tcp://%[1]s"], allow: [{name: eng, groups: [engineers]}]}
  - {id: two, from: "tcp://two.corp.example.com:80", to: ["tcp://%[1]s"], allow: [{name: eng, groups: [engineers]}]}
  - {id: secret, from: "tcp://secret.corp.example.com:80", to: ["tcp://%[1]s"], allow: [{name: ops, groups: [operators]}]}`, to))
	client, address := o.connect("--all")
	client.waitFor(" leads to ", 2)
	resp, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "here" {
		t.Errorf("%q", body)
	}
	v := newVisitor(t)
	list := v.once("GET", o.server+"/.doorward/tunnels", http.Header{"Authorization": {"Bearer " + o.token("alice", "eng")}}, nil)
	var granted struct {
		User    string
		Tunnels []struct{ Route string }
	}
	if err := json.Unmarshal([]byte(list.body), &granted); err != nil || len(granted.Tunnels) != 2 || granted.User != "alice@example.com" || strings.Contains(list.body+client.output(), "secret") {
		t.Errorf("%d %s", list.status, list.body)
	}
	out := o.works(o.command(filepath.Join(binaries, "doorward"), "connect", "ssh-config", "--client-id", "cli", "--issuer", o.issuer, "*.corp.example.com"))
	if !strings.HasPrefix(out, "Host *.corp.example.com\n    ProxyCommand ") || !strings.Contains(out, " connect --server "+o.server+" ") || !strings.Contains(out, "--stdio %h:%p\n") {
		t.Errorf("%s", out)
	}
}

// Where nobody is logged in, connect logs in by itself and goes on. The next one
// uses the token that was kept.
func TestConnectLogsIn(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
	o := openOffice(t, "", fmt.Sprintf(`
  - {id: app, from: "tcp://app.corp.example.com:80", to: ["tcp://%s"], allow: [{name: eng, groups: [engineers]}]}`, strings.TrimPrefix(app, "http://")))
	if err := os.Remove(filepath.Join(o.home, ".config", "doorward", "tokens.json")); err != nil {
		t.Fatal(err)
	}
	connect := func(args ...string) *exec.Cmd {
		cmd := o.command(filepath.Join(binaries, "doorward"), append([]string{"connect", "--stdio", "app.corp.example.com:80"}, args...)...)
		cmd.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
		return cmd
	}
	p := startCommand(t, connect("--issuer", o.issuer, "--client-id", "cli"))
	p.waitFor("/authorize?", 1)
	newVisitor(t).login(regexp.MustCompile(`http://\S+/authorize\?\S+`).FindString(p.output()), "alice").loggedIn(t)
	p.waitForEnd("\r\n\r\nhere")
	if out := o.works(connect()); !strings.HasSuffix(out, "\r\n\r\nhere") {
		t.Errorf("%q", out)
	}
}
