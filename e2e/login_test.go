package e2e

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shell is a person's account on some machine: a home of their own.
type shell struct {
	t    *testing.T
	d    *demo
	home string
}

func (s *shell) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binaries, "doorward"), append([]string{"login"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+s.home, "XDG_CONFIG_HOME="+filepath.Join(s.home, ".config"))
	cmd.Dir = s.home
	return cmd
}

// run runs `doorward login` to its end.
func (s *shell) run(args ...string) result {
	s.t.Helper()
	var stdout, stderr strings.Builder
	cmd := s.command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// login starts `doorward login`, has someone open the address that matches, and
// returns all it said.
func (s *shell) login(address *regexp.Regexp, visit func(address string), args ...string) result {
	s.t.Helper()
	cmd := s.command(args...)
	var stdout strings.Builder
	cmd.Stdout = &stdout
	pipe, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer cmd.Process.Kill() // where a story has failed
	var said strings.Builder
	lines, visited := bufio.NewScanner(pipe), false
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if found := address.FindString(lines.Text()); found != "" && !visited {
			visited = true
			visit(found)
		}
	}
	cmd.Wait()
	return result{stdout: stdout.String(), stderr: said.String(), code: cmd.ProcessState.ExitCode()}
}

// works asks the provider whose token it is.
func (s *shell) works(token, who string) {
	s.t.Helper()
	v := newVisitor(s.t)
	p := v.once("GET", "http://"+s.d.idp+"/userinfo", http.Header{"Authorization": {"Bearer " + token}}, nil)
	if p.status != 200 || !strings.Contains(p.body, `"`+who+`"`) {
		s.t.Errorf("the token is not %s's: %d %s", who, p.status, p.body)
	}
}

// keptForTheOwner checks the file with the token.
func (s *shell) keptForTheOwner() {
	s.t.Helper()
	path := filepath.Join(s.home, ".config", "doorward", "tokens.json")
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			s.t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
}

// printed returns what --print-token prints: one line, and nothing else.
func (s *shell) printed(args ...string) string {
	s.t.Helper()
	r := s.run(append([]string{"--print-token"}, args...)...)
	token, ok := strings.CutSuffix(r.stdout, "\n")
	if r.code != 0 || !ok || token == "" || strings.ContainsAny(token, "\n ") || r.stderr != "" {
		s.t.Fatalf("--print-token: exit %d, %d bytes on stdout, stderr %q", r.code, len(r.stdout), r.stderr)
	}
	return token
}

func TestCommandLineLogin(t *testing.T) {
	d := startDemo(t, t.TempDir())
	provider := []string{"--issuer", "http://" + d.idp, "--client-id", "doorward-cli"}

	t.Run("by browser", func(t *testing.T) {
		s := &shell{t, d, t.TempDir()}
		if r := s.run("--print-token"); r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "doorward login") {
			t.Errorf("before the login: %+v", r)
		}
		r := s.login(regexp.MustCompile(`http://\S+/authorize\?\S+`), func(address string) {
			newVisitor(t).login(address, "alice").loggedIn(t)
		}, provider...)
		if r.code != 0 || r.stdout != "" || !strings.Contains(r.stderr, "You are logged in") {
			t.Fatalf("login: %+v", r)
		}
		s.keptForTheOwner()
		token := s.printed()
		s.works(token, "alice")
		if strings.Contains(r.stderr, token) {
			t.Error("the login showed the token")
		}
		if again := s.printed(provider...); again != token {
			t.Error("a token that is still good was replaced")
		}
		if r := s.run("--print-token", "--issuer", "http://127.0.0.1:1"); r.code != 1 || r.stdout != "" {
			t.Errorf("another provider: %+v", r)
		}
	})
	t.Run("by code on another device", func(t *testing.T) {
		s := &shell{t, d, t.TempDir()}
		r := s.login(regexp.MustCompile(`http://\S+/device\?user_code=\S+`), func(address string) {
			v := newVisitor(t)
			p := v.submit(v.open(address), nil) // the code is compared and confirmed
			p = v.submit(p, map[string]string{"username": "dave", "password": "demo"})
			p.says(t, 200, "You are logged in as dave")
		}, append(provider, "--device")...)
		if r.code != 0 || r.stdout != "" {
			t.Fatalf("login: %+v", r)
		}
		s.keptForTheOwner()
		s.works(s.printed(), "dave")
	})
	t.Run("mistakes", func(t *testing.T) {
		s := &shell{t, d, t.TempDir()}
		for _, c := range []struct {
			code int
			want string
			args []string
		}{
			{2, "--client-id", []string{"--issuer", "http://" + d.idp}},
			{2, "without TLS", []string{"--issuer", "http://login.example.com", "--client-id", "x"}},
			{2, "doorward.yaml", nil},
			{2, "public client", []string{"--config", d.configPath()}},
			{2, `no provider has the id "nope"`, []string{"--config", d.configPath(), "--provider", "nope"}},
			{2, "none of the others", append([]string{"--device", "--browser"}, provider...)},
			{1, "does not know this client id", []string{"--issuer", "http://" + d.idp, "--client-id", "nobody", "--device"}},
			{1, "", []string{"--issuer", "http://127.0.0.1:1", "--client-id", "x"}},
		} {
			if r := s.run(c.args...); r.code != c.code || r.stdout != "" || r.stderr == "" || !strings.Contains(r.stderr, c.want) {
				t.Errorf("%v: exit %d, stdout %q, stderr %q", c.args, r.code, r.stdout, r.stderr)
			}
		}
		if _, err := os.Stat(filepath.Join(s.home, ".config")); err == nil {
			t.Error("a login that failed left something behind")
		}
	})
}

// loggedIn is the end of a login in the browser: the program's own page.
func (p page) loggedIn(t *testing.T) {
	t.Helper()
	if p.status != 200 || !strings.Contains(p.body, "You are logged in") {
		t.Errorf("the browser ended at %s: %d %s", p.url, p.status, p.body)
	}
}
