package e2e

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/format"
)

// rsyslog is a real syslog server that takes messages over TLS and appends their
// texts to a file.
type rsyslog struct {
	t             *testing.T
	dir, addr, ca string
	process       *process
}

func newRsyslog(t *testing.T) *rsyslog {
	t.Helper()
	r := &rsyslog{t: t, dir: t.TempDir(), addr: freeAddress(t)}
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate, which is good for 127.0.0.1
	web.Close()
	pair := web.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	r.ca = writeFile(t, r.dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	writeFile(t, r.dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	_, port, _ := net.SplitHostPort(r.addr)
	writeFile(t, r.dir, "rsyslog.conf", fmt.Sprintf(`global(workDirectory=%[1]q maxMessageSize="1m" defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="%[1]s/cert.pem" defaultNetstreamDriverCertFile="%[1]s/cert.pem" defaultNetstreamDriverKeyFile="%[1]s/key.pem")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="text" type="string" string="%%msg%%\n")
input(type="imtcp" port="%[2]s" address="127.0.0.1")
action(type="omfile" file="%[1]s/received" template="text")
`, r.dir, port))
	return r
}

func (r *rsyslog) start() {
	r.t.Helper()
	r.process = startCommand(r.t, exec.Command(part(r.t, "rsyslogd"), "-n", "-f", filepath.Join(r.dir, "rsyslog.conf"), "-i", filepath.Join(r.dir, "pid")))
	eventually(r.t, "rsyslogd", func() bool {
		conn, err := net.Dial("tcp", r.addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// records returns what was received, without repetitions.
func (r *rsyslog) records() (list []format.Event) {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "received"))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // being written
		}
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "\ufeff"))
		if line == "" || seen[line] {
			continue
		}
		seen[line] = true
		var record format.Event
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			r.t.Fatalf("%v: %s", err, line)
		}
		list = append(list, record)
	}
	return list
}

// What OCSF 1.3 demands of the classes that a door's day leaves.
var ocsfDemands = map[float64][]string{
	4002: {"http_request.http_method", "http_request.url.hostname", "http_response.code", "dst_endpoint.hostname", "src_endpoint.ip", "action_id", "disposition_id"},
	3002: {"user.uid", "service.name"},
	3004: {"entity.name"},
	0:    {},
}

// TestSyslogServerThatIsDown: people work while the syslog server goes away and
// comes back, and while doorward itself restarts. In the end the server has every
// event of the audit log, those of each session in order, as OCSF.
func TestSyslogServerThatIsDown(t *testing.T) {
	t.Parallel()
	part(t, "rsyslogd")
	server := newRsyslog(t)
	server.start()

	dir := t.TempDir()
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	at := func(host, path string) string { return "http://" + host + ".localhost:" + port + path }
	provider := startProvider(t, at("auth", "/.doorward/callback"), nil)
	writeFile(t, dir, "secret", "s3cret")
	writeFile(t, dir, "audit-key", strings.Repeat("k", 32))
	log := filepath.Join(dir, "audit.jsonl")
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, auth_url: %q, admin: {listen: %q}}
sessions: {store: {file: {path: doorward.db}}}
audit:
  required: true
  key: {file: audit-key}
  to:
    - {file: {path: audit.jsonl}}
    - {syslog: {address: %q, ca: %q}, format: ocsf, spool: {dir: spool}}
log: {format: text}
providers:
  - {id: corp, issuer: %q, client_id: doorward, client_secret: {file: secret}}
routes:
  - {id: app, from: %q, to: [%q], allow: [{name: all, any_user: true}]}
`, addr, at("auth", ""), freeAddress(t), server.addr, server.ca, provider.Issuer(), at("app", ""), serveApp(t, (&estate{}).app)))
	door := start(t, "doorward", "serve", "--config", config)
	door.waitFor("msg=serving", 1)

	var people []*visitor
	for _, name := range []string{"alice", "bob", "alice"} {
		person := newVisitor(t)
		person.login(at("app", "/"), name).says(t, 200, "hello")
		people = append(people, person)
	}
	work := func(day string) *sync.WaitGroup {
		var group sync.WaitGroup
		for _, person := range people {
			group.Go(func() {
				for i := range 30 {
					if p := person.open(at("app", fmt.Sprintf("/%s/%02d", day, i))); p.status != 200 {
						t.Errorf("%s: %d", day, p.status)
					}
				}
			})
		}
		return &group
	}
	work("before").Wait()
	eventually(t, "the first records", func() bool { return len(server.records()) > 0 })
	during := work("while-it-goes-away")
	server.process.stop()
	during.Wait()
	work("while-it-is-away").Wait()
	door.waitFor("cannot be sent and wait on disk", 1)
	door.stop()
	door = start(t, "doorward", "serve", "--config", config)
	door.waitFor("msg=serving", 1)
	work("after-a-restart").Wait()
	server.start()
	work("when-it-is-back").Wait()
	all := decisions(events(t, log))
	eventually(t, "the last record", func() bool { return len(receivedDecisions(server.records())) >= len(all) })
	door.stop()

	// Every event of the file, and those of each session in the same order.
	want, got := map[string][]string{}, map[string][]string{}
	for _, e := range decisions(events(t, log)) {
		want[e.Request.Session.ID] = append(want[e.Request.Session.ID], e.Request.ID)
	}
	for _, r := range receivedDecisions(server.records()) {
		session := r.Text("actor.session.uid")
		got[session] = append(got[session], r.Text("http_request.uid"))
	}
	for session, list := range want {
		if session == "" { // of nobody: no order
			slices.Sort(list)
			slices.Sort(got[session])
		}
		if !slices.Equal(got[session], list) {
			t.Errorf("session %q: %d requests were received of %d, or in another order", session, len(got[session]), len(list))
		}
	}
	kinds, classes := map[string]int{}, map[float64]int{}
	for _, e := range events(t, log) {
		kinds[string(e.Kind)]++
	}
	for _, r := range server.records() {
		kinds[r.Text("metadata.log_name")]--
		class, _ := r.Get("class_uid").(float64)
		demands, known := ocsfDemands[class]
		for _, path := range append([]string{"activity_id", "category_uid", "type_uid", "severity_id", "time", "metadata.version", "metadata.product.vendor_name"}, demands...) {
			if !known || r.Get(path) == nil {
				t.Fatalf("class %v lacks %s: %v", class, path, r)
			}
		}
		classes[class]++
	}
	for kind, missing := range kinds {
		if missing != 0 {
			t.Errorf("%d events of kind %s are missing", missing, kind)
		}
	}
	t.Logf("%d requests of %d sessions; records by class: %v", len(all), len(want), classes)
	if len(want) < 4 || classes[4002] < 450 || classes[3002] < 3 {
		t.Error("the story is too short")
	}
	verifyLogStory(t, config, log)
}

func decisions(list []access.Event) []access.Event {
	return slices.DeleteFunc(list, func(e access.Event) bool { return e.Kind != access.EventDecision })
}

func receivedDecisions(list []format.Event) []format.Event {
	return slices.DeleteFunc(list, func(r format.Event) bool { return r.Text("metadata.log_name") != string(access.EventDecision) })
}

// verifyLogStory: the log of a real run, which was restarted in between, is
// sound; and whatever somebody does to it is found where it was done.
func verifyLogStory(t *testing.T, config, log string) {
	t.Helper()
	key := strings.TrimSpace(run(t, "doorward", "audit", "public-key", "--config", config).stdout)
	if out := run(t, "doorward", "verify-log", "--public-key", key, log); out.code != 0 || !strings.HasPrefix(out.stdout, "note") || !strings.Contains(out.stdout, "the chain is unbroken") {
		t.Errorf("%+v", out)
	}
	lines := strings.Split(strings.TrimSpace(readFile(t, log)), "\n")
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"removed": {slices.Delete(slices.Clone(lines), 40, 41), ":41: a record is missing"},
		"changed": {append(append(slices.Clone(lines[:40]), strings.Replace(lines[40], `"kind"`, `"kind" `, 1)), lines[41:]...), ":41: this record was changed"},
		"moved":   {append(append(slices.Clone(lines[:40]), lines[41], lines[40]), lines[42:]...), ":42: record 41 stands after record 42"},
	} {
		path := writeFile(t, t.TempDir(), name, strings.Join(c.lines, "\n")+"\n")
		if out := run(t, "doorward", "verify-log", "--public-key", key, path); out.code != 1 || !strings.Contains(out.stdout, "FAULT  "+path+c.want) {
			t.Errorf("%s: %+v", name, out)
		}
	}
}
