package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// frontEnd is one of the configurations in deploy/forward-auth, for loopback.
type frontEnd struct {
	program string
	// configure adapts the shipped configuration and returns the command line.
	configure func(t *testing.T, dir, listen, visitors, asking, app, agent string) []string
}

// shipped reads a file of deploy/forward-auth and replaces what is different on
// loopback. Every replacement has to find something.
func shipped(t *testing.T, name string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "deploy", "forward-auth", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(text), replace[i]) {
			t.Fatalf("%s does not hold %q", name, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(string(text)) // at once: a new address may look like an old one
}

var frontEnds = map[string]frontEnd{
	"nginx": {"nginx", func(t *testing.T, dir, listen, visitors, asking, app, _ string) []string {
		site := shipped(t, "nginx/wiki.conf", "listen 443 ssl;", "listen "+listen+";", "server_name wiki.corp.example.com;", "server_name wiki.localhost;",
			"    ssl_certificate     /etc/nginx/tls.crt;\n    ssl_certificate_key /etc/nginx/tls.key;\n", "",
			"server 127.0.0.1:8080;", "server "+visitors+";", "server 127.0.0.1:9902;", "server "+asking+";", "server 127.0.0.1:3000;", "server "+app+";",
			// Names of one machine need a port.
			"proxy_set_header Host              $host;", "proxy_set_header Host              $http_host;")
		return nginxArgs(t, dir, site)
	}},
	"haproxy": {"haproxy", func(t *testing.T, dir, listen, visitors, asking, app, agent string) []string {
		site := shipped(t, "haproxy/haproxy.cfg", "bind :443 ssl crt /etc/haproxy/site.pem", "bind "+listen, "/etc/haproxy/doorward.spoe", writeFile(t, dir, "doorward.spoe", shipped(t, "haproxy/doorward.spoe")),
			"127.0.0.1:8080", visitors, "127.0.0.1:9902", asking, "127.0.0.1:3000", app, "127.0.0.1:9904", strings.Replace(agent, "unix:", "unix@", 1))
		return []string{"-db", "-f", writeFile(t, dir, "haproxy.cfg", "global\n    nbthread 1\ndefaults\n    timeout client 60s\n    timeout server 60s\n    timeout connect 5s\n"+site)}
	}},
	"caddy": {"caddy", func(t *testing.T, dir, listen, visitors, asking, app, _ string) []string {
		site := shipped(t, "caddy/Caddyfile", "wiki.corp.example.com {", "http://wiki.localhost:"+port(listen)+" {\n\tbind 127.0.0.1",
			"127.0.0.1:8080", visitors, "127.0.0.1:9902", asking, "127.0.0.1:3000", app)
		return []string{"run", "--adapter", "caddyfile", "--config", writeFile(t, dir, "Caddyfile", "{\n\tadmin off\n\tauto_https off\n}\n"+site)}
	}},
}

// nginxArgs writes a configuration around servers of nginx that keeps to a folder,
// and returns the arguments to run it with.
func nginxArgs(t *testing.T, dir, servers string) []string {
	t.Helper()
	conf := "daemon off; worker_processes 1; pid " + dir + "/nginx.pid; error_log " + dir + "/error.log;\n"
	if os.Geteuid() == 0 {
		conf += "user root;\n"
	}
	conf += "events {}\nhttp { access_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	return []string{"-p", dir, "-e", dir + "/error.log", "-c", writeFile(t, dir, "nginx.conf", conf+servers+"}\n")}
}

func port(address string) string { _, port, _ := net.SplitHostPort(address); return port }

// behind runs doorward with the shipped configuration behind a front end. It
// returns the front end's origin.
func behind(t *testing.T, front frontEnd, app string) (origin string, d *process, auditLog string) {
	t.Helper()
	part(t, front.program)
	listen, visitors, asking := freeAddress(t), freeAddress(t), freeAddress(t)
	origin = "http://wiki.localhost:" + port(listen)
	provider := startProvider(t, origin+"/.doorward/callback", nil)
	dir := t.TempDir()
	agent := "unix:" + filepath.Join(dir, "agent.sock")
	writeFile(t, dir, "secret", "s3cret")
	auditLog = filepath.Join(dir, "audit.jsonl")
	config := shipped(t, "doorward.yaml", "listen: 127.0.0.1:8080", "listen: "+visitors+"\n  admin: {listen: "+freeAddress(t)+"}\n  spoe: {listen: \""+agent+"\"}",
		"listen: 127.0.0.1:9902", "listen: "+asking, "id: corp, issuer: https://login.corp.example.com", "id: corp, issuer: "+provider.Issuer(),
		"{env: OIDC_CLIENT_SECRET}", "{file: secret}", "from: https://wiki.corp.example.com", "from: "+origin)
	config += "    deny: [{name: closed, paths: [/closed/**], message: The archive is closed.}]\n" +
		"sessions: {store: {memory: true}}\nlog: {format: text}\naudit: {to: [{file: {path: " + auditLog + "}}]}\n"
	d = start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", config))
	d.waitFor("answering front ends", 2)

	startFrontAt(t, front, listen, visitors, asking, app, agent)
	return origin, d, auditLog
}

// startFront runs a front end on an address of its own, which it returns.
func startFront(t *testing.T, front frontEnd, visitors, asking, app, agent string) (listen string) {
	listen = freeAddress(t)
	startFrontAt(t, front, listen, visitors, asking, app, agent)
	return listen
}

func startFrontAt(t *testing.T, front frontEnd, listen, visitors, asking, app, agent string) {
	t.Helper()
	program, dir := part(t, front.program), t.TempDir()
	cmd := exec.Command(program, front.configure(t, dir, listen, visitors, asking, strings.TrimPrefix(app, "http://"), agent)...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	printed := filepath.Join(dir, "front.log")
	out, err := os.Create(printed)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		out.Close()
		if text, _ := os.ReadFile(printed); t.Failed() {
			errors, _ := os.ReadFile(dir + "/error.log")
			t.Logf("%s printed:\n%s%s", front.program, text, errors)
		}
	})
	eventually(t, front.program, func() bool { return reachable(listen) })
}

// seen is what an application was asked.
type seen struct {
	Method, URI string
	Header      http.Header
}

// A front end that people have already goes on forwarding, and asks Doorward: the
// way to log in, the refusal pages and what the application learns are the same
// as when Doorward forwards by itself, and nothing that a visitor says about
// themselves gets through.
func TestBehindAFrontEnd(t *testing.T) {
	for name, front := range frontEnds {
		t.Run(name, func(t *testing.T) {
			app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
				text, _ := json.Marshal(seen{r.Method, r.RequestURI, r.Header})
				fmt.Fprintf(w, "<title>Wiki</title><pre id=seen>%s</pre>", text)
			})
			origin, _, auditLog := behind(t, front, app)
			alice := newVisitor(t)
			spoofed := http.Header{}
			for _, h := range []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "Doorward-Assertion", "X_Forwarded_User", "X-Forwarded-user", "Doorward_Assertion"} {
				spoofed[h] = []string{"root"}
				alice.header[h] = []string{"root"}
			}
			p := alice.login(origin+"/a/b?c=d%20e", "alice")
			p.says(t, 200, "Wiki")
			got := appSaw(t, p)
			if got.URI != "/a/b?c=d%20e" {
				t.Errorf("the application was asked for %s", got.URI)
			}
			for name, want := range map[string]string{"X-Forwarded-User": "corp:alice", "X-Forwarded-Email": "alice@example.com", "X-Forwarded-Groups": "engineers"} {
				if values := got.Header[name]; len(values) != 1 || values[0] != want {
					t.Errorf("%s: %q", name, values)
				}
			}
			if got.Header.Get("Doorward-Assertion") == "" || strings.Contains(fmt.Sprint(got.Header), "root") {
				t.Errorf("the application saw %v", got.Header)
			}
			if strings.Contains(got.Header.Get("Cookie"), "doorward") {
				t.Error("the application saw our cookie")
			}
			// A program is told, not redirected; a page says why; a stranger's form is
			// not kept; a forged origin changes nothing.
			fetch := http.Header{"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
			if p := newVisitor(t).once("GET", origin+"/a", fetch, nil); p.status != 401 || !strings.Contains(p.header.Get("Content-Type"), "problem+json") {
				t.Errorf("a fetch without a session: %d %v", p.status, p.header)
			}
			alice.open(origin+"/closed/x").says(t, 403, "The archive is closed.")
			bob := newVisitor(t)
			bob.login(origin+"/", "bob").says(t, 403, "You do not have access")
			post := http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"same-origin"}, "Content-Type": {"application/x-www-form-urlencoded"}}
			if p := newVisitor(t).once("POST", origin+"/form", post, strings.NewReader("a=b")); p.status != 401 || !strings.Contains(p.body, "what you sent was not kept") {
				t.Errorf("a form: %d %s", p.status, p.body)
			}
			for _, path := range []string{"/a/..%2fclosed/x", "/closed%2fx", "//closed/x", "/a;/../closed/x", "/%2e%2e/closed/x", "/.doorward/auth"} {
				req, err := http.NewRequest("GET", origin, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Opaque = "//" + req.URL.Host + path
				req.Header = alice.header.Clone()
				req.Header.Set("X-Forwarded-Uri", "/a")
				req.Header.Set("X-Original-Url", origin+"/a")
				req.Header.Set("X-Forwarded-Method", "GET")
				resp, err := alice.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode < 400 || resp.Header.Get("Doorward-Assertion") != "" {
					t.Errorf("%s: %d", path, resp.StatusCode)
				}
			}
			sawQuestion := false
			for _, e := range events(t, auditLog) {
				if e.Kind == access.EventDecision && e.Request.Door != access.Standalone && e.Request.Path == "/a/b" && e.Decision.Outcome == access.Allow {
					sawQuestion = e.Request.Method == "GET" && e.Request.Network.IP.IsLoopback()
				}
			}
			if !sawQuestion {
				t.Error("no question in the audit log")
			}
			alice.open(origin + "/.doorward/logout")
		})
	}
}

// appSaw reads what the application wrote on its page.
func appSaw(t *testing.T, p page) (got seen) {
	t.Helper()
	_, text, ok := strings.Cut(p.body, "<pre id=seen>")
	text, _, end := strings.Cut(text, "</pre>")
	if err := json.Unmarshal([]byte(text), &got); err != nil || !ok || !end {
		t.Fatalf("%v in %s", err, p.body)
	}
	return got
}
