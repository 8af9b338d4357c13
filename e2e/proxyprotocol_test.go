package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// HAProxy passes connections on and says whom they are from. Doorward believes it
// and nobody else, and what a visitor claims counts no more than before.
func TestPROXYProtocolFromHAProxy(t *testing.T) {
	haproxy := part(t, "haproxy")
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "<p>from "+r.Header.Get("X-Forwarded-For")+"</p>")
	})
	addr, old, front, oldFront := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	door := func(listen, visited string) *process {
		config := writeFile(t, t.TempDir(), "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}, proxy_protocol: [127.0.0.1]}
audit: {to: [{file: {path: audit.jsonl}}]}
sessions: {store: {memory: true}}
log: {format: text}
routes:
  - {id: app, from: "http://%s", to: [%q], public: [{name: all, methods: [GET], paths: ["/**"]}]}
`, listen, freeAddress(t), strings.Replace(visited, "127.0.0.1", "app.localhost", 1), app))
		p := start(t, "doorward", "serve", "--config", config)
		p.waitFor("msg=serving", 1)
		return p
	}
	doors := []*process{door(addr, front), door(old, oldFront)}
	cfg := writeFile(t, t.TempDir(), "haproxy.cfg", fmt.Sprintf(`global
    nbthread 1
defaults
    mode tcp
    timeout client 60s
    timeout server 60s
    timeout connect 5s
listen visitors
    bind %s
    server doorward %s send-proxy-v2 proxy-v2-options crc32c,unique-id check
listen old
    bind %s
    server doorward %s send-proxy
`, front, addr, oldFront, old))
	startCommand(t, exec.Command(haproxy, "-db", "-f", cfg))
	for i, visited := range []string{front, oldFront} {
		eventually(t, "HAProxy", func() bool {
			conn, err := net.Dial("tcp", visited)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		v := newVisitor(t)
		v.client.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}}).DialContext
		req, err := http.NewRequest(http.MethodGet, "http://"+visited+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = strings.Replace(visited, "127.0.0.1", "app.localhost", 1)
		req.Header.Set("X-Forwarded-For", "198.51.100.1")
		var body string
		eventually(t, "an answer", func() bool { // until the check has succeeded
			res, err := v.client.Do(req)
			if err != nil {
				return false
			}
			defer res.Body.Close()
			text, _ := io.ReadAll(res.Body)
			body = string(text)
			return res.StatusCode == 200
		})
		if body != "<p>from 127.0.0.77</p>" {
			t.Errorf("the application learns %q", body)
		}
		doors[i].waitFor("ip=127.0.0.77", 1)
	}
	// Past HAProxy there is no way in.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
	if answer, _ := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("answered without the protocol: %q", answer)
	}
	doors[0].waitFor("it does not say whom it is from", 1)
}
