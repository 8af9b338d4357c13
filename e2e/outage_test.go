package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/serve"
	"github.com/doorward/doorward/internal/store/redistest"
	"github.com/doorward/doorward/internal/testidp"
)

var update = flag.Bool("update", false, "write docs/outages.md from the outages that were proven")

// outage is one row of the table in docs/outages.md: something that breaks, and
// what visitors see of it. The test breaks it and sees whether they do; then it
// mends it, and everything has to work again by itself.
//
// To add a row, add a case. To add a column, add a field and its place in
// situations.
type outage struct {
	name string
	// login, living and stream are the cells: somebody logs in, somebody who is
	// logged in goes on, a stream is open.
	login, living, stream string
	// unready tells that /readyz sends visitors to other replicas meanwhile.
	unready bool
	// note is what an operator should know beyond the cells.
	note string
	// wavers tells that it may look better now and again.
	wavers bool
	// prepare changes the estate before it starts; strike breaks it, mend ends that.
	prepare, strike, mend func(e *estate)
}

// The usual cells.
const (
	works  = "works"
	goesOn = "goes on"
	closes = "closed"
	// notShown marks what a test cannot bring about: streams go by a clock that
	// does not jump, and a test's clock jumps as a whole.
	notShown = "–"
)

func refused(reason access.Reason) string {
	return fmt.Sprintf("%d `%s`", reason.Info().Status, reason)
}

var situations = []struct {
	name string
	cell func(o *outage) string
	see  func(e *estate) string
}{
	{"new login", func(o *outage) string { return o.login }, (*estate).logIn},
	{"living session", func(o *outage) string { return o.living }, (*estate).goOn},
	{"open stream", func(o *outage) string { return o.stream }, (*estate).stream},
	{"`/readyz`", (*outage).readyz, (*estate).readyz},
}

func (o *outage) readyz() string {
	if o.unready {
		return "503"
	}
	return "200"
}

var outages = []outage{
	{
		name: "application", login: refused(access.UpstreamUnreachable), living: refused(access.UpstreamUnreachable), stream: closes,
		note:   "This one only.",
		strike: func(e *estate) { e.apps[0].kill() },
		mend:   func(e *estate) { e.apps[0].start() },
	},
	{
		name: "one of two addresses of the application", login: works, living: goesOn, stream: closes,
		note:    "What was open there breaks; everything from then on goes to the other one ([upstreams.md](upstreams.md)).",
		prepare: func(e *estate) { e.apps = append(e.apps, &address{}) },
		strike:  func(e *estate) { e.streaming().kill() },
		mend: func(e *estate) {
			for _, a := range e.apps {
				a.start()
			}
		},
	},
	{
		name: "identity provider", login: "stops at the provider", living: goesOn, stream: goesOn,
		note:   "What is known of people stays as it was; refreshing is tried again.",
		strike: func(e *estate) { e.provider.Fault(func(f *testidp.Faults) { f.Down = true }) },
		mend:   func(e *estate) { e.provider.Heal() },
	},
	{
		name: "identity provider's token endpoint", login: refused(access.ProviderUnavailable), living: goesOn, stream: goesOn,
		strike: func(e *estate) {
			e.provider.Fault(func(f *testidp.Faults) { f.Answers[testidp.Token] = testidp.Fails(503, "temporarily_unavailable") })
		},
		mend: func(e *estate) { e.provider.Heal() },
	},
	{
		name: "device inventory", login: refused(access.DeviceSourceUnavailable), living: refused(access.DeviceSourceUnavailable), stream: closes,
		note:   "On routes that ask for facts about the device.",
		strike: func(e *estate) { os.Rename(e.inventory, e.inventory+".gone") },
		mend:   func(e *estate) { os.Rename(e.inventory+".gone", e.inventory) },
	},
	{
		name: "device inventory, `on_unavailable: {use_last_known: 1h}`", login: works, living: goesOn, stream: goesOn,
		note:    "For an hour.",
		prepare: func(e *estate) { e.onUnavailable = "{use_last_known: 1h}" },
		strike:  func(e *estate) { os.Rename(e.inventory, e.inventory+".gone") },
		mend:    func(e *estate) { os.Rename(e.inventory+".gone", e.inventory) },
	},
	{
		name: "transmitter of shared signals", login: works, living: goesOn, stream: goesOn,
		note:    "Events wait at the transmitter and are carried out when it is back; the log and `/api/v1/status` say since when it fails.",
		prepare: func(e *estate) { e.hearSignals() },
		strike: func(e *estate) {
			e.hubDown.Store(true)
			e.process.waitFor("the transmitter does not work as it should", 1)
			e.missedEvent = e.tell("bob")
		},
		mend: func(e *estate) {
			e.hubDown.Store(false)
			ctx, cancel := context.WithTimeout(e.t.Context(), patience)
			defer cancel()
			if code, err := e.hub.Settled(ctx, e.missedEvent); err != nil || code != "" {
				e.t.Errorf("the event from meanwhile: %q, %v", code, err)
			}
		},
	},
	{
		name: "Redis", login: refused(access.StoreUnavailable), living: refused(access.StoreUnavailable), stream: closes, unready: true,
		prepare: func(e *estate) { e.shareRedis("") },
		strike:  func(e *estate) { e.redis.Kill() },
		mend:    func(e *estate) { e.redis.Restart() },
	},
	{
		name: "Redis, `grace: 1h`", login: refused(access.StoreUnavailable), living: goesOn, stream: goesOn,
		note:    "Sessions in memory, for an hour; others are refused as above.",
		prepare: func(e *estate) { e.shareRedis(", grace: 1h") },
		strike:  func(e *estate) { e.redis.Kill() },
		mend:    func(e *estate) { e.redis.Restart() },
	},
	{
		name: "Redis says nothing", login: refused(access.StoreUnavailable), living: refused(access.StoreUnavailable), stream: closes, unready: true,
		note:    "Within a second and `timeout`, though no connection breaks.",
		prepare: func(e *estate) { e.shareRedis(", timeout: 500ms") },
		strike:  func(e *estate) { e.redis.Freeze() },
		mend:    func(e *estate) { e.redis.Thaw() },
	},
	{
		name: "Redis has no memory left", login: refused(access.StoreUnavailable), living: goesOn, stream: goesOn,
		note:    "Nothing can be changed, so nothing can be revoked either.",
		prepare: func(e *estate) { e.shareRedis("") },
		strike:  func(e *estate) { e.redis.Do("CONFIG", "SET", "maxmemory", "1") },
		mend:    func(e *estate) { e.redis.Do("CONFIG", "SET", "maxmemory", "0") },
	},
	{
		name: "disk of the state file is full", login: refused(access.StoreUnavailable), living: goesOn, stream: goesOn,
		note:    "Sessions in memory; others are refused. A login still works when the file itself has room for it.",
		wavers:  true,
		prepare: func(e *estate) { e.smallDisk = e.stateDir },
		strike:  func(e *estate) { e.fill() },
		mend:    func(e *estate) { e.makeRoom() },
	},
	{
		name: "disk of the audit log is full, `audit.required: true`", login: refused(access.AuditUnavailable), living: refused(access.AuditUnavailable), stream: goesOn, unready: true,
		prepare: func(e *estate) { e.smallDisk, e.auditRequired = e.auditDir, true },
		strike:  func(e *estate) { e.fill() },
		mend:    func(e *estate) { e.makeRoom() },
	},
	{
		name: "disk of the audit log is full", login: works, living: goesOn, stream: goesOn,
		note:    "What is lost is counted, and admitted in the log as soon as there is room.",
		prepare: func(e *estate) { e.smallDisk = e.auditDir },
		strike:  func(e *estate) { e.fill() },
		mend:    func(e *estate) { e.makeRoom() },
	},
	{
		name: "our clock jumps a day ahead", login: refused(access.LoginFailed), living: refused(access.LoginRequired), stream: closes,
		note:    "What the provider says counts as outdated, and sessions are over.",
		prepare: func(e *estate) { e.ownClock = true },
		strike:  func(e *estate) { e.ahead.Store(int64(24 * time.Hour)) },
		mend:    func(e *estate) { e.ahead.Store(0) },
	},
	{
		name: "our clock jumps an hour back", login: refused(access.LoginFailed), living: goesOn, stream: goesOn,
		note:    "What the provider says counts as made up; a session lives longer by the jump.",
		prepare: func(e *estate) { e.ownClock, e.require = true, "" },
		strike:  func(e *estate) { e.ahead.Store(int64(-time.Hour)) },
		mend:    func(e *estate) { e.ahead.Store(0) },
	},
	{
		name: "the same, on a route that asks for facts about the device", login: refused(access.LoginFailed), living: refused(access.DeviceFactsTooOld), stream: notShown,
		note:    "Facts of the future are no facts.",
		prepare: func(e *estate) { e.ownClock = true },
		strike:  func(e *estate) { e.ahead.Store(int64(-time.Hour)) },
		mend:    func(e *estate) { e.ahead.Store(0) },
	},
}

// estate is a doorward with everything around it that may break.
type estate struct {
	t                  *testing.T
	provider           *testidp.Provider
	redis              *redistest.Server
	inventory          string
	onUnavailable      string
	require            string // of the route
	store              string
	stateDir, auditDir string
	auditRequired      bool
	signals            string // the section, if any
	hub                *testidp.Transmitter
	hubDown            atomic.Bool
	missedEvent        string
	smallDisk          string // of the folders above, the one that lies on a disk of its own
	ownClock           bool   // the clock is the test's
	apps               []*address
	ahead              atomic.Int64

	port    string
	admin   string
	process *process // nil in this process
	person  *visitor
	beats   atomic.Int64 // of the open stream
	ended   chan struct{}
	outlive time.Time // a stream that goes on at this moment goes on
}

func (e *estate) at(host, path string) string {
	return "http://" + host + ".localhost:" + e.port + path
}

// TestOutages proves docs/outages.md.
func TestOutages(t *testing.T) {
	const path = "../docs/outages.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- proven by TestOutages -->\n", "<!-- end -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	table := "| down |"
	for _, s := range situations {
		table += " " + s.name + " |"
	}
	table += " |\n|" + strings.Repeat("---|", len(situations)+2) + "\n"
	t.Run("row", func(t *testing.T) { // returns when all of them have
		for i := range outages {
			t.Run(outages[i].name, outages[i].prove)
		}
	})
	for i := range outages {
		o := &outages[i]
		table += "| " + o.name + " |"
		for _, s := range situations {
			table += " " + s.cell(o) + " |"
		}
		table += " " + o.note + " |\n"
	}
	proven := before + begin + table + end + after
	switch {
	case *update && !t.Failed():
		if err := os.WriteFile(path, []byte(proven), 0o644); err != nil {
			t.Fatal(err)
		}
	case proven != string(text):
		t.Errorf("%s says something else than was proven: run go test ./e2e -run TestOutages -update", path)
	}
}

func (o *outage) prove(t *testing.T) {
	t.Parallel()
	e := startEstate(t, o.prepare)
	for _, s := range situations {
		if got := s.see(e); got != works && got != goesOn && got != "200" {
			t.Fatalf("before anything breaks: %s: %s", s.name, got)
		}
	}
	o.strike(e)
	e.outlive = time.Now().Add(3 * time.Second)
	for _, s := range situations {
		if s.cell(o) == notShown {
			continue
		}
		last := ""
		eventually(t, s.name+": "+s.cell(o), func() bool {
			got := s.see(e)
			if got != last {
				t.Logf("%s: %s", s.name, got)
				last = got
			}
			return got == s.cell(o)
		})
	}
	// It stays so.
	for _, s := range situations {
		if got := s.see(e); got != s.cell(o) && s.cell(o) != notShown && !o.wavers {
			t.Errorf("%s, a little later: %s, want %s", s.name, got, s.cell(o))
		}
	}
	o.mend(e)
	eventually(t, "everything to work again", func() bool { return e.logIn() == works })
	eventually(t, "the session", func() bool { return e.goOn() == goesOn })
}

// startEstate starts everything, logs somebody in and opens a stream.
func startEstate(t *testing.T, prepare func(*estate)) *estate {
	t.Helper()
	dir := t.TempDir()
	e := &estate{t: t, onUnavailable: "deny", require: "device: enrolled", apps: []*address{{}}, stateDir: filepath.Join(dir, "state"), auditDir: filepath.Join(dir, "audit"), ended: make(chan struct{})}
	for _, sub := range []string{e.stateDir, e.auditDir} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	e.store = fmt.Sprintf("{file: {path: %q}}", filepath.Join(e.stateDir, "doorward.db"))
	if prepare != nil {
		prepare(e)
	}
	addr := freeAddress(t)
	_, e.port, _ = net.SplitHostPort(addr)
	e.admin = freeAddress(t)
	e.provider = startProvider(t, e.at("auth", "/.doorward/callback"), nil)
	var to []string
	for _, a := range e.apps {
		a.t, a.serve = t, e.app
		a.listen = freeAddress(t)
		a.start()
		t.Cleanup(a.kill)
		to = append(to, fmt.Sprintf("%q", "http://"+a.listen))
	}
	e.inventory = writeFile(t, dir, "devices.json", fmt.Sprintf(`[{"id": "laptop-alice", "managed": "yes", "last_seen": %q}]`, time.Now().UTC().Format(time.RFC3339)))
	writeFile(t, dir, "secret", "s3cret")
	e.serve(writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, auth_url: %q, admin: {listen: %q}, recheck: 1s}
sessions: {store: %s}
audit: {to: [{file: {path: %q}}], required: %v}
log: {format: text}
providers:
  - {id: corp, issuer: %q, client_id: doorward, client_secret: {file: secret}}
devices:
  sources: [{id: inventory, type: file, path: devices.json}]
  match: [claim.deviceid]
  on_unavailable: %s
  profiles: {enrolled: {all: [known, managed]}}
routes:
  - id: app
    from: %q
    to: [%s]
    require: {%s}
    allow: [{name: all, any_user: true}]
%s`, addr, e.at("auth", ""), e.admin, e.store, filepath.Join(e.auditDir, "audit.jsonl"), e.auditRequired, e.provider.Issuer(), e.onUnavailable, e.at("app", ""), strings.Join(to, ", "), e.require, e.signals)))
	e.person = newVisitor(t)
	e.person.login(e.at("app", "/"), "alice").says(t, 200, "hello")
	e.openStream()
	return e
}

// app greets, and has a stream that never ends by itself.
func (e *estate) app(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/stream" {
		io.WriteString(w, "<p>hello</p>")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(w, "data: beat\n\n"); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// address is one address of the application.
type address struct {
	t       *testing.T
	listen  string
	serve   http.HandlerFunc
	server  *http.Server // nil: it is down
	streams atomic.Int64
}

func (a *address) start() {
	if a.server != nil {
		return
	}
	listener, err := net.Listen("tcp", a.listen)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			a.streams.Add(1)
		}
		a.serve(w, r)
	})}
	go a.server.Serve(listener)
}

// kill breaks every connection.
func (a *address) kill() {
	if a.server != nil {
		a.server.Close()
		a.server = nil
	}
}

// streaming is the address that has the stream.
func (e *estate) streaming() *address {
	for _, a := range e.apps {
		if a.streams.Load() > 0 {
			return a
		}
	}
	e.t.Fatal("there is no stream")
	return nil
}

// serve runs doorward on a configuration: as a process of its own, or in this one
// where the test owns the clock.
func (e *estate) serve(config string) {
	e.t.Helper()
	switch {
	case e.ownClock:
		ctx, stop := context.WithCancel(context.Background())
		ready, done := make(chan struct{}), make(chan error, 1)
		var log lockedBuffer
		go func() {
			done <- serve.Run(ctx, serve.Options{
				Config: config, LogTo: &log, Ready: func() { close(ready) },
				Now: func() time.Time { return time.Now().Add(time.Duration(e.ahead.Load())) },
			})
		}()
		select {
		case <-ready:
		case err := <-done:
			e.t.Fatal(err)
		}
		e.t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				e.t.Error(err)
			}
			if e.t.Failed() {
				e.t.Log(log.String())
			}
		})
	case e.smallDisk != "":
		// A disk of its own needs a mount, and a namespace where mounting is free.
		if err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "true").Run(); err != nil {
			e.t.Skipf("no namespaces here: %v", err)
		}
		e.process = startCommand(e.t, exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
			`mount -t tmpfs -o size=1m none "$0" && exec "$@"`, e.smallDisk, filepath.Join(binaries, "doorward"), "serve", "--config", config))
		e.process.waitFor("msg=serving", 1)
	default:
		e.process = start(e.t, "doorward", "serve", "--config", config)
		e.process.waitFor("msg=serving", 1)
	}
}

// lockedBuffer takes a log.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// hearSignals has somebody report what happens elsewhere.
func (e *estate) hearSignals() {
	hub, err := testidp.NewTransmitter(time.Now, "https://door.example.com")
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(hub.Close)
	hub.Fault = func(string) int {
		if e.hubDown.Load() {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	e.hub = hub
	token := writeFile(e.t, e.t.TempDir(), "token", testidp.TransmitterToken)
	e.signals = fmt.Sprintf("signals: [{id: hub, issuer: %q, delivery: poll, token: {file: %q}}]\n", hub.Issuer, token)
}

// tell leaves an event about somebody for doorward to fetch.
func (e *estate) tell(who string) (jti string) {
	jti, _, err := e.hub.Send(e.t.Context(), testidp.CAEP+"session-revoked",
		map[string]any{"format": "iss_sub", "iss": e.provider.Issuer(), "sub": who}, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return jti
}

func (e *estate) shareRedis(more string) {
	e.redis = redistest.Start(e.t, "--appendonly", "yes", "--appendfsync", "always")
	address := writeFile(e.t, e.t.TempDir(), "redis-url", "redis://"+e.redis.Addr)
	e.store = fmt.Sprintf("{redis: {url: {file: %q}%s}}", address, more)
}

// ballast is a file on the small disk, as doorward sees it.
func (e *estate) ballast() string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", e.process.cmd.Process.Pid), e.smallDisk, "ballast")
}

// fill leaves no room on the small disk, and has doorward find out.
func (e *estate) fill() {
	e.t.Helper()
	file, err := os.Create(e.ballast())
	if err != nil {
		e.t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if errno, is := err.(*os.PathError); !is || errno.Err != syscall.ENOSPC {
		e.t.Fatal(err)
	}
	eventually(e.t, "a write that finds no room", func() bool {
		e.logIn()
		return strings.Contains(e.process.output(), "no space left")
	})
}

func (e *estate) makeRoom() { os.Remove(e.ballast()) }

// logIn is what somebody sees who logs in for the first time.
func (e *estate) logIn() string {
	p := newVisitor(e.t).login(e.at("app", "/"), "alice")
	switch {
	case p.status == 200 && strings.Contains(p.body, "hello"):
		return works
	case strings.HasPrefix(p.url.String(), e.provider.Issuer()):
		return "stops at the provider"
	}
	text := p.text(e.t)
	for _, reason := range access.Reasons() {
		if info := reason.Info(); info.Status == p.status && info.Title != "" && strings.Contains(text, info.Title) {
			return refused(reason)
		}
	}
	return fmt.Sprintf("%d %s", p.status, text)
}

// goOn is what somebody sees who is logged in.
func (e *estate) goOn() string {
	p := e.person.once(http.MethodGet, e.at("app", "/"), http.Header{"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}, nil)
	if p.status == 200 {
		return goesOn
	}
	var problem struct{ Reason access.Reason }
	p.json(e.t, &problem)
	if status := problem.Reason.Info().Status; status != p.status {
		return fmt.Sprintf("%d `%s`", p.status, problem.Reason)
	}
	return refused(problem.Reason)
}

// readyz is what a load balancer sees.
func (e *estate) readyz() string {
	return fmt.Sprint(e.person.once(http.MethodGet, "http://"+e.admin+"/readyz", nil, nil).status)
}

func (e *estate) openStream() {
	req, err := http.NewRequest(http.MethodGet, e.at("app", "/stream"), nil)
	if err != nil {
		e.t.Fatal(err)
	}
	client := &http.Client{Jar: e.person.client.Jar, Transport: e.person.client.Transport}
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != 200 {
		e.t.Fatal(resp, err)
	}
	e.t.Cleanup(func() { resp.Body.Close() })
	go func() {
		defer close(e.ended)
		buf := make([]byte, 1024)
		for {
			if _, err := resp.Body.Read(buf); err != nil {
				return
			}
			e.beats.Add(1)
		}
	}()
}

// stream is what becomes of the stream: it goes on if it has outlived several
// rechecks, and something still comes.
func (e *estate) stream() string {
	wait := time.NewTimer(time.Until(e.outlive))
	defer wait.Stop()
	select {
	case <-e.ended:
		return closes
	case <-wait.C:
	}
	heard := e.beats.Load()
	eventually(e.t, "the stream", func() bool { return e.over() || e.beats.Load() > heard })
	if e.over() {
		return closes
	}
	return goesOn
}

func (e *estate) over() bool {
	select {
	case <-e.ended:
		return true
	default:
		return false
	}
}
