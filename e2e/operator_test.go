package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// writeFile puts a file into a folder and returns its path.
func writeFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	remember([]byte(text))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readFile returns the text of a file.
func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// site is a doorward of one application, for stories the demo cannot tell.
type site struct {
	*process
	addr, admin, dir, config string
}

// startSite runs doorward with the given providers and routes.
func startSite(t *testing.T, addr, providers, routes string) *site {
	t.Helper()
	s := &site{addr: addr, admin: freeAddress(t), dir: t.TempDir()}
	s.config = writeFile(t, s.dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}}
sessions: {store: {file: {path: doorward.db}}}
audit: {to: [{file: {path: audit.jsonl}}]}
log: {format: text}
providers: %s
routes: %s
`, s.addr, s.admin, providers, routes))
	s.process = start(t, "doorward", "serve", "--config", s.config)
	s.waitFor("serving", 1)
	return s
}

// waitForRequest returns the record of the last request for a path.
func (s *site) waitForRequest(path string) access.Event {
	s.t.Helper()
	return waitForEvent(s.t, filepath.Join(s.dir, "audit.jsonl"), func(e *access.Event) bool {
		return e.Kind == access.EventDecision && e.Request.Path == path
	})
}

// A provider that is down at the start keeps nobody out who needs no login, and
// says why to those who do.
func TestProviderDownAtStart(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>well</p>") })
	addr := freeAddress(t)
	s := startSite(t, addr, "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		fmt.Sprintf("[{id: app, from: \"http://%s\", to: [%s], allow: [{name: all, any_user: true}], public: [{name: health, methods: [GET], paths: [/health]}]}]",
			strings.Replace(addr, "127.0.0.1", "app.localhost", 1), app))
	base := "http://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	v := newVisitor(t)
	v.open(base+"/health").says(t, 200)
	v.open(base+"/").says(t, 503, "Logging in is not possible right now")
	ready := v.once("GET", "http://"+s.admin+"/readyz", nil, nil)
	if ready.status != 200 {
		t.Errorf("readyz: %d %s", ready.status, ready.body)
	}
	metrics := v.once("GET", "http://"+s.admin+"/metrics", nil, nil)
	if !strings.Contains(metrics.body, `doorward_provider_up{provider="corp"} 0`) {
		t.Errorf("no metric says that the provider is down:\n%s", metrics.body)
	}

}

// A second process on the same state says what is in its way.
func TestStateFileBelongsToOneProcess(t *testing.T) {
	s := startSite(t, freeAddress(t), "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		"[{id: app, from: \"http://app.localhost\", to: [\"http://127.0.0.1:1\"], allow: [{name: all, any_user: true}]}]")
	second := run(t, "doorward", "serve", "--config", s.config)
	if second.code != 1 || !strings.Contains(second.stderr, "doorward.db") || !strings.Contains(second.stderr, "another") {
		t.Errorf("ended with %d: %s", second.code, second.stderr)
	}
}

// On SIGTERM the process stops being ready, lets a request in flight finish,
// and ends with code 0.
func TestStoppingLetsRequestsFinish(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		io.WriteString(w, "<p>finished</p>")
	})
	addr := freeAddress(t)
	base := "http://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	s := startSite(t, addr, "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		fmt.Sprintf("[{id: app, from: %q, to: [%q], public: [{name: all, methods: [GET], paths: [\"/**\"]}]}]", base, app))
	answer := make(chan page)
	go func() { answer <- newVisitor(t).open(base + "/slow") }()
	<-arrived
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.waitFor("draining", 1)
	if ready := newVisitor(t).once("GET", "http://"+s.admin+"/readyz", nil, nil); ready.status != 503 {
		t.Errorf("still ready while draining: %d", ready.status)
	}
	close(release)
	(<-answer).says(t, 200, "finished")
	if code := s.stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

// serveApp serves an application and returns its URL.
func serveApp(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// A stream that does not end is cut off after the drain limit, and still leaves
// its record.
func TestStoppingCutsEndlessStreams(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "<p>begun</p>")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	addr := freeAddress(t)
	base := "http://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	s := startSite(t, addr, "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		fmt.Sprintf("[{id: app, from: %q, to: [%q], public: [{name: all, methods: [GET], paths: [\"/**\"]}]}]", base, app))
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, s.config, strings.Replace(string(config), "server: {", "server: {drain_timeout: 200ms, ", 1))
	s.waitFor("configuration loaded", 1)
	resp, err := newVisitor(t).client.Get(base + "/endless")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if code := s.stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
	if err != nil || !strings.Contains(string(log), `"path":"/endless"`) {
		t.Errorf("no record of the stream: %v\n%s", err, log)
	}
}

// What a reload cannot change is said, rather than left to be wondered about.
func TestReloadSaysWhatHasToWait(t *testing.T) {
	s := startSite(t, freeAddress(t), "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		"[{id: app, from: \"http://app.localhost\", to: [\"http://127.0.0.1:1\"], allow: [{name: all, any_user: true}]}]")
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, s.config, strings.NewReplacer("server: {", "server: {read_header_timeout: 5s, idle_timeout: 1m, max_header_bytes: 131072, ",
		"format: text", "format: text, level: debug", "audit: {", "audit: {required: true, ").Replace(string(config)))
	s.waitFor("configuration loaded", 1)
	for _, key := range []string{"log", "server.read_header_timeout", "server.idle_timeout", "server.max_header_bytes", "audit.required"} {
		if !strings.Contains(s.output(), "takes effect at the next start\" key="+key+" cure=\"send SIGUSR2") {
			t.Errorf("not a word about %s", key)
		}
	}
}

// Requests being served show in the metrics.
func TestRequestsInFlightAreCounted(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	app := serveApp(t, func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	addr := freeAddress(t)
	base := "http://" + strings.Replace(addr, "127.0.0.1", "app.localhost", 1)
	s := startSite(t, addr, "[{id: corp, issuer: \"http://"+freeAddress(t)+"\", client_id: doorward, client_auth: none}]",
		fmt.Sprintf("[{id: app, from: %q, to: [%q], public: [{name: all, methods: [GET], paths: [\"/**\"]}]}]", base, app))
	answer := make(chan page)
	go func() { answer <- newVisitor(t).open(base + "/slow") }()
	<-arrived
	metrics := newVisitor(t).once("GET", "http://"+s.admin+"/metrics", nil, nil)
	if !strings.Contains(metrics.body, `doorward_requests_in_flight{door="standalone"} 1`) {
		t.Error("the request is not counted")
	}
	close(release)
	<-answer
}
