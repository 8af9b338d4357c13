package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a program may take to start or to end.
const patience = 60 * time.Second

// process is a program that was started here. It is ended by its id.
type process struct {
	name string
	cmd  *exec.Cmd
	out  tail
	done chan struct{}
}

// missing tells that a program is not installed. Whoever needed it is skipped,
// by name.
type missing struct{ program, cure string }

func (m *missing) Error() string { return fmt.Sprintf("%s is not there (%s)", m.program, m.cure) }

// find returns the path of a program that a Debian package brings.
func find(program, debian string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil { // where servers are, which only root's PATH has
		path, err = exec.LookPath(filepath.Join("/usr/sbin", program))
	}
	if err != nil {
		return "", &missing{program, "apt-get install " + debian}
	}
	return path, nil
}

// start runs a program on one core, or on any for a negative number, with the
// environment env beyond its own.
func start(core int, dir string, env []string, name string, args ...string) (*process, error) {
	if core >= 0 {
		args = append([]string{"-c", strconv.Itoa(core), name}, args...)
		name = "taskset"
	}
	p := &process{name: filepath.Base(name), cmd: exec.Command(name, args...), done: make(chan struct{})}
	if core >= 0 {
		p.name = filepath.Base(args[2])
	}
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// listens returns once something accepts connections at an address.
func (p *process) listens(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once:\n%s", p.name, p.out.String())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s does not listen at %s:\n%s", p.name, address, p.out.String()), context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// stop asks the program to end, and ends it if it does not.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// waitFor returns once the program has printed a text.
func (p *process) waitFor(ctx context.Context, text string) error {
	for {
		more := p.out.next()
		if strings.Contains(p.out.String(), text) {
			return nil
		}
		select {
		case <-more:
		case <-p.done:
			return fmt.Errorf("%s ended before it said %q:\n%s", p.name, text, p.out.String())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tail keeps the last of what a program prints.
type tail struct {
	mu   sync.Mutex
	text []byte
	more chan struct{} // closed when more has come; nil: nobody waits
}

const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - tailBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	if t.more != nil {
		close(t.more)
		t.more = nil
	}
	return len(b), nil
}

// next returns a channel that is closed when more has come.
func (t *tail) next() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.more == nil {
		t.more = make(chan struct{})
	}
	return t.more
}

// String implements fmt.Stringer.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}

// freeAddress returns a loopback address on which nobody listens, below the
// range that the system takes ports of connections from.
func (b *bench) freeAddress() (string, error) {
	for range 1000 {
		b.port++
		address := fmt.Sprintf("127.0.0.1:%d", 11000+(b.port+os.Getpid()*17)%20000)
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port")
}
