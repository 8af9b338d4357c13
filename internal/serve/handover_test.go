//go:build unix

package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// servesVariable has the test's own program serve a configuration, in a process of
// its own and with the race detector if the test has it.
const servesVariable = "DOORWARD_TEST_SERVES"

func TestMain(m *testing.M) {
	config := os.Getenv(servesVariable)
	if config == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	upgrade := make(chan os.Signal, 1)
	signal.Notify(upgrade, syscall.SIGUSR2)
	if err := Run(ctx, Options{Config: config, Upgrade: upgrade, Program: os.Args[0]}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// printed is what processes print.
type printed struct {
	mu   sync.Mutex
	text bytes.Buffer
	more sync.Cond
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.more.Broadcast()
	return p.text.Write(b)
}

// wait returns everything once a pattern has been printed n times.
func (p *printed) wait(t *testing.T, pattern string, n int) [][]string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	stop := time.AfterFunc(90*time.Second, func() { p.more.Broadcast() })
	defer stop.Stop()
	for end := time.Now().Add(90 * time.Second); ; p.more.Wait() {
		if all := regexp.MustCompile(pattern).FindAllStringSubmatch(p.text.String(), -1); len(all) >= n {
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %q; printed so far:\n%s", pattern, p.text.String())
		}
	}
}

// One process takes over from another, again and again, while requests come, some
// of them over connections that were opened before. None fails, the audit log has
// each exactly once, and nothing races. With a state file that goes over to the
// next, and with a store that does not.
func TestOneProcessAfterAnother(t *testing.T) {
	for name, store := range map[string]string{"state file": "{file: {path: doorward.db}}", "memory": "{memory: true}"} {
		t.Run(name, func(t *testing.T) { oneAfterAnother(t, store) })
	}
}

func oneAfterAnother(t *testing.T, store string) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	defer app.Close()
	address := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	addr, dir := address(), t.TempDir()
	config := filepath.Join(dir, "doorward.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `version: 1
server: {listen: %q, admin: {listen: %q}, spoe: {listen: "unix:%s/spoe.sock"}, ext_authz: {listen: "unix:%s/authz.sock"}}
sessions: {store: %s}
audit: {to: [{file: {path: audit.jsonl}}], required: true}
log: {format: text}
providers: [{id: corp, issuer: "http://127.0.0.1:1", client_id: doorward, client_auth: none}]
routes: [{id: app, from: "http://app.example", to: [%q], public: [{name: all, methods: [POST], paths: ["/**"]}]}]
`, addr, address(), dir, dir, store, app.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &printed{}
	out.more.L = &out.mu
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), servesVariable+"="+config)
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	ended := make(chan struct{}) // all of them
	go func() { defer close(ended); io.Copy(out, read) }()
	pid := cmd.Process.Pid
	defer func() {
		syscall.Kill(pid, syscall.SIGTERM)
		<-ended
		cmd.Wait()
		if t.Failed() || strings.Contains(out.text.String(), "DATA RACE") {
			t.Errorf("printed:\n%s", out.text.String())
		}
	}()
	const serving = `msg=serving .* pid=(\d+)`
	out.wait(t, serving, 1)

	done := make(chan struct{})
	var clients sync.WaitGroup
	var sent [4]int
	for i := range sent {
		clients.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond):
				}
				text := fmt.Sprintf("client %d, request %d", i, sent[i])
				req, _ := http.NewRequest(http.MethodPost, "http://"+addr+"/", io.NopCloser(strings.NewReader(text)))
				req.Host = "app.example"
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				answer, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(answer) != text {
					t.Errorf("%s: %s %q %v", text, res.Status, answer, err)
					return
				}
				sent[i]++
			}
		})
	}
	const upgrades = 4
	for n := range upgrades {
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		pid, _ = strconv.Atoi(out.wait(t, serving, n+2)[n+1][1])
		out.wait(t, "the process before this one has ended", n+1)
	}
	close(done)
	clients.Wait()
	syscall.Kill(pid, syscall.SIGTERM)
	<-ended
	all := 0
	for _, n := range sent {
		all += n
	}
	text, err := os.ReadFile(filepath.Join(dir, "audit.jsonl"))
	if n := strings.Count(string(text), `"kind":"decision"`); err != nil || n != all {
		t.Errorf("%d requests left %d records: %v", all, n, err)
	}
	t.Logf("%d requests over %d processes", all, upgrades+1)
}
