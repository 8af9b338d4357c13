package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A container's health check asks the running doorward, whatever has become of
// its configuration file meanwhile.
func TestHealth(t *testing.T) {
	addr := freeAddress(t)
	s := startSite(t, addr, "[]", fmt.Sprintf("[{id: app, from: \"http://%s\", to: [\"http://127.0.0.1:1\"], public: [{name: all, methods: [GET], paths: [\"/**\"]}]}]",
		strings.Replace(addr, "127.0.0.1", "app.localhost", 1)))
	ask := func(code int, text string, args ...string) {
		t.Helper()
		out := run(t, "doorward", append([]string{"health", "--config", s.config}, args...)...)
		if out.code != code || !strings.Contains(out.stdout+out.stderr, text) {
			t.Errorf("%v: %+v", args, out)
		}
	}
	ask(0, "ready\n")
	ask(0, `"status": "ready"`, "--output", "json")
	text := readFile(t, s.config)
	writeFile(t, s.dir, "doorward.yaml", text+"nonsense: true\n")
	ask(0, "ready\n")
	writeFile(t, s.dir, "doorward.yaml", "{")
	ask(0, "ready\n", "--admin", "http://"+s.admin)
	writeFile(t, s.dir, "doorward.yaml", text)

	unready := serveApp(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"status":"not ready","failing":[{"check":"store","error":"down\u001b[2J"}]}`)
	})
	ask(1, "not ready\nstore: down?[2J\n", "--admin", unready)
	stranger := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"status":"fine"}`) })
	ask(1, "is it the admin listener?", "--admin", stranger)
	ask(2, "is no address", "--admin", "nonsense")
	s.stop()
	ask(1, "no doorward answers")
}
