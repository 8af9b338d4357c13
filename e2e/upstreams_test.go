package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// webServer is an nginx that answers with its name and logs what it answered.
type webServer struct {
	t       *testing.T
	address string
	dir     string
	*process
}

func startWebServer(t *testing.T, name string) *webServer {
	t.Helper()
	w := &webServer{t: t, address: freeAddress(t), dir: t.TempDir()}
	conf := "daemon off; master_process off; pid " + w.dir + "/nginx.pid; error_log " + w.dir + "/error.log;\n" +
		"events {}\nhttp { log_format asked '$request_method $uri'; access_log " + w.dir + "/access.log asked;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + w.dir + "/" + kind + ";\n"
	}
	conf += fmt.Sprintf("server { listen %s; location / { return 200 %q; } location = /healthz { access_log off; return 204; } } }\n", w.address, name)
	writeFile(t, w.dir, "nginx.conf", conf)
	w.start()
	return w
}

// start starts it, at the same address each time.
func (w *webServer) start() {
	w.t.Helper()
	w.process = startCommand(w.t, exec.Command(part(w.t, "nginx"), "-p", w.dir, "-e", w.dir+"/error.log", "-c", w.dir+"/nginx.conf"))
	eventually(w.t, "nginx", func() bool {
		conn, err := net.Dial("tcp", w.address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// asked counts what it has answered.
func (w *webServer) asked() map[string]int {
	count := map[string]int{}
	for line := range strings.Lines(readFile(w.t, filepath.Join(w.dir, "access.log"))) {
		count[strings.TrimSpace(line)]++
	}
	return count
}

// traffic asks all the time, each thing once.
type traffic struct {
	base string
	n    atomic.Int64
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	gets    map[int]int // by status
	posts   map[int]int
	slowest time.Duration
}

func (c *traffic) start() {
	ctx, stop := context.WithCancel(context.Background())
	c.stop, c.gets, c.posts = stop, map[int]int{}, map[int]int{}
	client := &http.Client{Transport: &http.Transport{DialContext: dialLocalhost, MaxIdleConnsPerHost: 10}}
	for i := range 4 {
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				c.once(client, i%2 == 0)
			}
		}()
	}
}

func (c *traffic) once(client *http.Client, post bool) {
	address, began := fmt.Sprintf("%s/%d", c.base, c.n.Add(1)), time.Now()
	var res *http.Response
	var err error
	if post {
		res, err = client.Post(address, "text/plain", strings.NewReader("body"))
	} else {
		res, err = client.Get(address)
	}
	status := 0
	if err == nil {
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		status = res.StatusCode
	}
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slowest = max(c.slowest, took)
	if post {
		c.posts[status]++
	} else {
		c.gets[status]++
	}
}

// end stops asking and waits for what is under way.
func (c *traffic) end() {
	c.stop()
	c.wg.Wait()
}

// Two web servers die, freeze and come back under traffic. Whoever reads notices
// nothing, nobody waits longer than the route says, and nothing that changes
// something arrives twice.
func TestUpstreamsDieAndComeBack(t *testing.T) {
	const timeout = 4 * time.Second
	a, b := startWebServer(t, "a"), startWebServer(t, "b")
	addr := freeAddress(t)
	base := "http://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	s := startSite(t, addr, "[]", fmt.Sprintf(`
  - id: app
    from: %q
    to: ["http://%s", "http://%s"]
    timeout: %s
    upstream:
      balance: least_requests
      try_timeout: 1s
      slow_start: 1s
      health: {path: /healthz, interval: 1s, timeout: 500ms, down: 2}
      eject: {for: 1s}
    public: [{name: all, methods: [GET, POST], paths: ["/**"]}]`, base, a.address, b.address, timeout))
	v := newVisitor(t)
	wantUp := func(w *webServer, up int) {
		t.Helper()
		line := fmt.Sprintf(`doorward_upstream_up{route="app",upstream="http://%s"} %d`, w.address, up)
		eventually(t, line, func() bool { return strings.Contains(v.once("GET", "http://"+s.admin+"/metrics", nil, nil).body, line) })
	}
	everybody := &traffic{base: base}
	everybody.start()
	answers := func(w *webServer) {
		t.Helper()
		before := len(w.asked())
		eventually(t, "answers of "+w.address, func() bool { return len(w.asked()) > before+10 })
	}
	answers(a)
	answers(b)

	// One dies, and is started again.
	a.cmd.Process.Kill()
	wantUp(a, 0)
	answers(b)
	before := len(a.asked())
	s.cmd.Process.Signal(syscall.SIGHUP) // what is known outlives a reload
	s.waitFor("configuration loaded", 1)
	wantUp(a, 0)
	if n := len(a.asked()); n != before {
		t.Errorf("one that is dead has answered %d requests", n-before)
	}
	a.start()
	wantUp(a, 1)
	answers(a)

	// The other one freezes: it takes everything and says nothing.
	b.cmd.Process.Signal(syscall.SIGSTOP)
	wantUp(b, 0)
	answers(a)
	b.cmd.Process.Signal(syscall.SIGCONT)
	wantUp(b, 1)
	answers(b)

	everybody.end()
	t.Logf("GET %v, POST %v, the slowest took %s", everybody.gets, everybody.posts, everybody.slowest)
	if len(everybody.gets) != 1 || everybody.gets[200] == 0 {
		t.Errorf("not every GET was answered: %v", everybody.gets)
	}
	for status := range everybody.posts {
		if status != 200 && status != 502 && status != 504 {
			t.Errorf("POST: %v", everybody.posts)
		}
	}
	// Nobody waits longer, give or take what a busy machine needs.
	if everybody.slowest > timeout+3*time.Second {
		t.Errorf("somebody waited %s", everybody.slowest)
	}
	both := a.asked()
	for what, n := range b.asked() {
		both[what] += n
	}
	for what, n := range both {
		if strings.HasPrefix(what, "POST ") && n > 1 {
			t.Errorf("%s arrived %d times", what, n)
		}
	}
	log := s.output()
	for _, text := range []string{a.address, b.address} {
		if !strings.Contains(log, "upstream=http://"+text) {
			t.Errorf("the log does not name %s", text)
		}
	}
}
