package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// office is a doorward in front of services that speak no HTTP, the provider
// whose tokens it accepts, and a person's machine with the client on it.
type office struct {
	*site
	signer *testidp.Provider
	issuer string
	server string // the door's address
	home   string // of the person
}

// openOffice runs a doorward whose tunnels are those of routes. Groups are eng
// and ops.
func openOffice(t *testing.T, more, routes string, files ...string) *office {
	t.Helper()
	o := &office{home: t.TempDir()}
	provider := httptest.NewServer(http.HandlerFunc(o.provide))
	t.Cleanup(provider.Close)
	o.issuer = provider.URL
	var err error
	if o.signer, err = testidp.New(testidp.Options{Issuer: o.issuer, Algorithms: []string{"ES256"}, Users: testidp.DemoUsers(),
		Clients: []testidp.Client{{ID: "cli", RedirectURI: testidp.Loopback("/callback")}}}); err != nil {
		t.Fatal(err)
	}
	o.reopen(t, freeAddress(t), more, routes, files...)
	o.logIn("alice", "eng")
	return o
}

// provide is the provider, whose access tokens are signed ones.
func (o *office) provide(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/token" {
		o.signer.ServeHTTP(w, r)
		return
	}
	kept := httptest.NewRecorder()
	o.signer.ServeHTTP(kept, r)
	var answer map[string]any
	if err := json.Unmarshal(kept.Body.Bytes(), &answer); err == nil && answer["access_token"] != nil {
		answer["access_token"] = o.token("alice", "eng")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(kept.Code)
	json.NewEncoder(w).Encode(answer)
}

// reopen runs doorward, for the first time or again.
func (o *office) reopen(t *testing.T, addr, more, routes string, files ...string) {
	t.Helper()
	s := &site{addr: addr, admin: freeAddress(t), dir: t.TempDir()}
	o.server = "http://" + addr
	for i := 0; i < len(files); i += 2 { // name, text
		writeFile(t, s.dir, files[i], files[i+1])
	}
	writeFile(t, s.dir, "admin-token", strings.Repeat("a", 32))
	s.config = writeFile(t, s.dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q, token: {file: admin-token}}, drain_timeout: 1s}
sessions: {store: {file: {path: doorward.db}}}
audit: {to: [{file: {path: audit.jsonl}}]}
log: {format: text}
providers: [{id: corp, issuer: %q, client_id: doorward, client_auth: none, audiences: [tunnels], groups_claim: groups, login_clients: [cli]}]
groups: {engineers: {provider: corp, claim_groups: [eng]}, operators: {provider: corp, claim_groups: [ops]}}
%s
routes:%s
`, s.addr, s.admin, o.issuer, more, routes))
	s.process = start(t, "doorward", "serve", "--config", s.config)
	s.waitFor("serving", 1)
	o.site = s
}

// token is a person's access token.
func (o *office) token(who string, groups ...string) string {
	o.t.Helper()
	now := time.Now().Unix()
	header := o.signer.Header()
	header["typ"] = "at+jwt"
	token, err := o.signer.Sign(header, map[string]any{"iss": o.issuer, "sub": who, "email": who + "@example.com", "client_id": "cli", "aud": "tunnels",
		"groups": groups, "deviceid": "laptop-" + who, "jti": rand.Text(), "iat": now, "exp": now + 3600, "auth_time": now})
	if err != nil {
		o.t.Fatal(err)
	}
	return token
}

// logIn leaves a token where doorward login keeps it.
func (o *office) logIn(who string, groups ...string) {
	o.t.Helper()
	kept, err := json.Marshal(map[string]any{"version": 1, "logins": []any{map[string]any{"issuer": o.issuer, "client_id": "cli",
		"access_token": o.token(who, groups...), "expires": time.Now().Add(time.Hour).UTC()}}})
	if err != nil {
		o.t.Fatal(err)
	}
	dir := filepath.Join(o.home, ".config", "doorward")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokens.json"), kept, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// env is the environment of the person's machine.
func (o *office) env() []string {
	return append(os.Environ(), "HOME="+o.home, "XDG_CONFIG_HOME="+filepath.Join(o.home, ".config"), "DOORWARD_SERVER="+o.server,
		"PATH="+binaries+string(os.PathListSeparator)+os.Getenv("PATH"), "HTTP_PROXY=", "http_proxy=", "ALL_PROXY=", "all_proxy=")
}

// command is a program on the person's machine.
func (o *office) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = o.env()
	return cmd
}

// do runs a program on the person's machine to its end.
func (o *office) do(cmd *exec.Cmd) result {
	o.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// works is do for what has to succeed.
func (o *office) works(cmd *exec.Cmd) string {
	o.t.Helper()
	r := o.do(cmd)
	if r.code != 0 {
		o.t.Fatalf("%s: exit %d\n%s%s", cmd, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// connect runs doorward connect in the background and returns the address that
// it listens at, with the text before it.
func (o *office) connect(args ...string) (*process, string) {
	o.t.Helper()
	p := startCommand(o.t, o.command(filepath.Join(binaries, "doorward"), append([]string{"connect"}, args...)...))
	p.waitFor(" leads to ", 1)
	address, _, _ := strings.Cut(p.output(), " leads to ")
	return p, address[strings.LastIndexByte(address, '\n')+1:]
}

// shd is a real sshd with keys made for it.
type shd struct {
	address, key, known, login string
}

func startSSHD(t *testing.T) *shd {
	t.Helper()
	program, keygen := part(t, "sshd"), part(t, "ssh-keygen")
	part(t, "ssh")
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &shd{address: freeAddress(t), key: filepath.Join(dir, "id"), known: filepath.Join(dir, "known"), login: who.Username}
	host := filepath.Join(dir, "host")
	for _, file := range []string{s.key, host} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v %s", err, out)
		}
	}
	if os.Geteuid() == 0 {
		os.MkdirAll("/run/sshd", 0o755) // where sshd, run by root, wants to confine itself
	}
	_, port, _ := net.SplitHostPort(s.address)
	conf := writeFile(t, dir, "sshd_config", fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n", port, host, s.key))
	startCommand(t, exec.Command(program, "-D", "-e", "-f", conf)).waitFor("Server listening", 1)
	return s
}

// ssh is a client of the ssh family that reaches hosts by the door only.
func (s *shd) options() []string {
	return []string{"-F", "none", "-o", "ProxyCommand=doorward connect --stdio %h:%p", "-o", "IdentityFile=" + s.key, "-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + s.known, "-o", "BatchMode=yes", "-o", "User=" + s.login}
}

func (s *shd) route() string {
	return fmt.Sprintf(`
  - {id: ssh, from: "tcp://build.corp.example.com:22", to: ["tcp://%s"], allow: [{name: eng, groups: [engineers]}]}`, s.address)
}

// Real ssh, scp and git go through the door by a ProxyCommand, as the person who
// is logged in on the command line. What arrives is what was sent.
func TestSSHThroughTheDoor(t *testing.T) {
	sshd := startSSHD(t)
	o := openOffice(t, "", sshd.route())
	ssh := append(sshd.options(), "build.corp.example.com")
	if out := o.works(o.command("ssh", append(ssh, "echo $((6*7))")...)); out != "42\n" {
		t.Errorf("ssh printed %q", out)
	}

	dir := t.TempDir()
	sent, back := filepath.Join(dir, "sent"), filepath.Join(dir, "back")
	sum := randomFile(t, sent, 200<<20)
	began := time.Now()
	o.works(o.command("scp", append(sshd.options(), "-q", "build.corp.example.com:"+sent, back)...))
	t.Logf("scp copied 200 MiB in %s", time.Since(began).Round(time.Millisecond))
	if got := sumOf(t, back); got != sum {
		t.Error("the copy differs")
	}

	repo := filepath.Join(dir, "repo")
	part(t, "git")
	for _, args := range [][]string{{"init", "-q", repo}, {"-C", repo, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "through the door"}} {
		o.works(o.command("git", args...))
	}
	git := o.command("git", "clone", "-q", "build.corp.example.com:"+repo, filepath.Join(dir, "clone"))
	command := "ssh"
	for _, option := range sshd.options() {
		command += " '" + option + "'"
	}
	git.Env = append(git.Env, "GIT_SSH_COMMAND="+command)
	o.works(git)
	if log := o.works(o.command("git", "-C", filepath.Join(dir, "clone"), "log", "--format=%s")); log != "through the door\n" {
		t.Errorf("the clone has %q", log)
	}

	e := waitForEvent(t, filepath.Join(o.dir, "audit.jsonl"), func(e *access.Event) bool {
		return e.Kind == access.EventDecision && e.Response.BytesOut > 200<<20
	})
	if e.Request.Door != access.Tunnel || e.Request.Scheme != "tcp" || e.Request.Host != "build.corp.example.com:22" || e.Request.Route != "ssh" ||
		e.Request.Identity.Email != "alice@example.com" || e.Decision.Rule != "allow/eng" || e.Response.Upstream != "tcp://"+sshd.address ||
		e.Response.BytesIn == 0 || e.Response.Duration == 0 || e.Response.Status != 101 {
		t.Errorf("recorded: %+v", e)
	}
	// ssh kills what carries its connection once it is done, now and then before
	// that has said goodbye.
	if e.Response.Reason != "" && e.Response.Reason != access.ClientGone {
		t.Errorf("ended because of %s", e.Response.Reason)
	}
}

// randomFile writes a file and returns its checksum.
func randomFile(t *testing.T, path string, size int64) string {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(file, sum), rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// quiet is a service that nobody is to reach: it counts who does.
func quiet(t *testing.T) (address string, reached *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	reached = new(atomic.Int32)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			conn.Close()
		}
	}()
	return l.Addr().String(), reached
}
