// Package redistest answers the question: where does a test get a real Redis?
// It starts servers of its own on loopback and ends them with the test. Where
// the program redis-server is missing, the test is skipped, or fails if
// DOORWARD_REQUIRE_PARTS promises that it is there.
package redistest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// patience is how long a server may take for what normally takes milliseconds.
const patience = 60 * time.Second

// Server is one redis-server, or a redis-sentinel.
type Server struct {
	// Addr is where it listens.
	Addr string

	t       testing.TB
	program string
	args    []string
	cli     []string // what redis-cli needs besides the port
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start runs a server that keeps nothing on disk, unless args, as on its command
// line, say otherwise. Its folder is the test's own.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, "redis-server", append([]string{"--save", "", "--dir", t.TempDir()}, args...))
}

// Config is how a store reaches the server.
func (s *Server) Config() store.RedisConfig { return Config("redis://" + s.Addr) }

// Config is a store's section for a URL.
func Config(url string) store.RedisConfig {
	return store.RedisConfig{URL: access.NewSecret(url)}
}

// start tries ports until the program listens on one.
func start(t testing.TB, program string, args []string) *Server {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		_, err = exec.LookPath("redis-cli")
	}
	if err != nil {
		if os.Getenv("DOORWARD_REQUIRE_PARTS") != "" {
			t.Fatalf("%s is not installed: %v", program, err)
		}
		t.Skipf("%s is not installed; make test installs it", program)
	}
	s := &Server{t: t, program: path, args: args}
	t.Cleanup(s.Kill)
	for range 20 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.Addr = listener.Addr().String()
		listener.Close()
		if err = s.run(); err == nil {
			return s
		}
		t.Log(err)
	}
	t.Fatalf("%s does not start", program)
	return nil
}

func (s *Server) port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// run starts the program at s.Addr and waits until it serves.
func (s *Server) run() error {
	args := append([]string(nil), s.args...)
	if strings.HasSuffix(s.program, "redis-server") {
		for i, arg := range args {
			args[i] = strings.ReplaceAll(arg, "PORT", s.port())
		}
		if !strings.Contains(strings.Join(args, " "), "--tls-port") {
			args = append(args, "--port", s.port())
		}
		args = append(args, "--bind", "127.0.0.1")
	} else {
		args = append(args, "--port", s.port(), "--bind", "127.0.0.1")
	}
	cmd := exec.Command(s.program, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var mu sync.Mutex
	var printed strings.Builder
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var once sync.Once
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			mu.Lock()
			printed.WriteString(lines.Text() + "\n")
			mu.Unlock()
			if strings.Contains(lines.Text(), "Ready to accept connections") || strings.Contains(lines.Text(), "+monitor master") {
				once.Do(func() { close(ready) })
			}
		}
		cmd.Wait()
	}()
	s.cmd, s.ended = cmd, ended
	select {
	case <-ready:
		return nil
	case <-ended:
	case <-time.After(patience):
		cmd.Process.Kill()
		<-ended
	}
	mu.Lock()
	defer mu.Unlock()
	return fmt.Errorf("%s ended at once:\n%s", s.program, printed.String())
}

// Kill ends the server as a power cut would.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.ended
	s.cmd = nil
}

// Restart starts a killed server again, at the same address.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.run(); err != nil {
		s.t.Fatal(err)
	}
}

// Freeze makes the server silent, as a network that swallows everything would;
// Thaw ends that.
func (s *Server) Freeze() { s.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw() { s.cmd.Process.Signal(syscall.SIGCONT) }

// Do runs one command with redis-cli and returns what it prints.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("redis-cli %q: %v\n%s", args, err, out)
	}
	return out
}

func (s *Server) try(args ...string) (string, error) {
	out, err := exec.Command("redis-cli", append(append([]string{"-p", s.port()}, s.cli...), args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Calls returns how often the server ran the named commands, such as "hmget",
// since it was started.
func (s *Server) Calls(commands ...string) (calls int) {
	s.t.Helper()
	for line := range strings.Lines(s.Do("INFO", "commandstats")) {
		for _, command := range commands {
			if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
				count, _, _ := strings.Cut(rest, ",")
				n, err := strconv.Atoi(count)
				if err != nil {
					s.t.Fatalf("%q: %v", line, err)
				}
				calls += n
			}
		}
	}
	return calls
}

// await asks until the server's answer to a command holds a text.
func (s *Server) await(text string, args ...string) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// A server that becomes master closes its connections, one of which may be this.
		out, err := s.try(args...)
		if err == nil && strings.Contains(out, text) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for %q in the answer to %q: %s %v", text, args, out, err)
		}
		<-tick.C
	}
}
