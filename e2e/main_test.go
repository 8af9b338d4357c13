package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a story waits for something that normally takes
// milliseconds. It is no measure of speed; a story that reaches it has failed.
const patience = 90 * time.Second

// binaries is where TestMain put doorward and demo.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "doorward-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir+"/", "../cmd/doorward", "../cmd/demo")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the binaries: %v\n%s", err, out)
			return 1
		}
		binaries = dir
		return m.Run()
	}())
}

// part returns the path of a real part, skips the test where it is missing, and
// fails it where `make test` promised that it is there.
func part(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil { // where servers are, which only root's PATH has
		path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
	}
	if err == nil {
		return path
	}
	if os.Getenv("DOORWARD_REQUIRE_PARTS") != "" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed; make test installs it", name)
	return ""
}

// buildModule builds programs of a module that stands beside the stories, for what
// is not to stand in Doorward's go.mod, and returns the folder they are in.
func buildModule(t testing.TB, module string, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", append([]string{"build", "-o", dir + "/"}, programs...)...)
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", module, err, out)
	}
	return dir
}

// process is a program under test.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
	line *sync.Cond
	err  error
}

// start runs a program of ours and collects what it prints.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command(filepath.Join(binaries, name), args...))
}

// startCommand runs a program and collects what it prints.
func startCommand(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	p.line = sync.NewCond(&p.mu)
	read, write := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = write, write
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewReader(read)
		for {
			text, err := lines.ReadString('\n')
			p.mu.Lock()
			p.out.WriteString(text)
			p.line.Broadcast()
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		err := p.cmd.Wait()
		write.Close()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.done)
		p.line.Broadcast()
	}()
	t.Cleanup(func() {
		p.stop()
		p.decideAgain()
		if t.Failed() {
			t.Logf("%s printed:\n%s", cmd.Path, p.output())
		}
	})
	return p
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// waitFor returns once the program has printed text n times.
func (p *process) waitFor(text string, n int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, p.line.Broadcast)()
	p.mu.Lock()
	defer p.mu.Unlock()
	for strings.Count(p.out.String(), text) < n {
		if ctx.Err() != nil || p.ended() {
			p.t.Fatalf("waited in vain for %q; printed so far:\n%s", text, p.out.String())
		}
		p.line.Wait()
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the program to end, as a person or a service manager would, and
// returns its exit code.
func (p *process) stop() int {
	p.t.Helper()
	rememberFile(p.configuration()) // the next one in its place may write another
	if !p.ended() {
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		p.t.Errorf("%s did not end on SIGTERM", p.cmd.Path)
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// lastPort is the port that freeAddress tried last.
var lastPort atomic.Int32

// freeAddress returns a loopback address that stays free until somebody listens
// there: below the range from which the system picks ports for connections and
// for listeners that name none, and never the same one twice.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := 11000 + (int(lastPort.Add(1))+os.Getpid()*17)%20000
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}
