package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/doorward/doorward/internal/access"
)

func TestEveryRequestLeavesOneEventWithItsWholeInput(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))})
	_, body := w.withBody("POST", "http://app.example/a%20b?x=1&code=s3cret", "Cookie", asAlice)
	e := w.rec.event(t)
	if e.Kind != access.EventDecision || e.Request.Path != "/a b" || e.Request.Query != "x=1&code=[redacted]" || e.Request.Route != "app" ||
		e.Request.Method != "POST" || e.Request.Identity.User() != "corp:alice" || e.Request.Device.ID != "laptop-7" || e.Request.Door != access.Standalone ||
		e.Decision.Outcome != access.Allow || e.Session != "s-alice" || e.RequestID != e.Request.ID || len(e.RequestID) != 32 {
		t.Errorf("%+v %+v", e.Request, e.Decision)
	}
	if e.Response.Status != 200 || e.Response.BytesIn != 4 || e.Response.BytesOut != int64(len(body)) || e.Response.Duration < e.Response.Decide || e.Response.Decide <= 0 {
		t.Errorf("%+v", e.Response)
	}
	line, err := json.Marshal(e)
	if err != nil || strings.Contains(string(line), "s3cret") || strings.Contains(string(line), asAlice) {
		t.Errorf("%s %v", line, err)
	}
	if len(w.rec.signal) != 0 {
		t.Error("more than one event")
	}
}

// What goes wrong is told to the operator, and no line holds a secret.
func TestTheLogHoldsNoSecrets(t *testing.T) {
	var out lockedBuffer
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, func(w *world) {
		w.log = slog.New(slog.NewJSONHandler(&out, nil))
	})
	w.ask("GET", "http://app.example/path?access_token=t0psecret", "Cookie", asAlice, "Authorization", "Bearer t0psecret")
	w.rec.event(t)
	w.ask("GET", "http://app.example/", "Cookie", "doorward=broken")
	w.rec.event(t)
	text := out.String()
	if strings.Contains(text, "t0psecret") || strings.Contains(text, asAlice) || !strings.Contains(text, "store_unavailable: disk full") {
		t.Error(text)
	}
}

// lockedBuffer is a bytes.Buffer that several goroutines write to.
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

func TestPanicsAreAnsweredRecordedAndRefused(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))})
	res, body := w.ask("GET", "http://app.example/", "Cookie", "doorward=panic")
	e := w.rec.event(t)
	if res.StatusCode != 500 || strings.Contains(body, "bug in identify") || e.Decision.Outcome != access.Deny ||
		e.Decision.Reason != access.InternalError || e.Response.Status != 500 || e.Request.Fault != access.InternalError {
		t.Errorf("%s %+v %+v", res.Status, e.Decision, e.Response)
	}
	if w.door.InFlight() != 0 {
		t.Error("still in flight")
	}
}

func TestAnswersThatBreakOffAreCutNotEnded(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withPolicy(allowAll))
	req, _ := http.NewRequest("GET", "http://app.example/", nil)
	res, err := w.transport().RoundTrip(req)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("the visitor takes half an answer for a whole one")
	}
	if e := w.rec.event(t); e.Response.Reason != access.UpstreamBroken || e.Decision.Outcome != access.Allow {
		t.Errorf("%+v", e.Response)
	}
}

func TestReservedAddresses(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t)), {ID: "sub", From: "http://sub.example/app", To: []string{"https://10.0.0.1"}}},
		withServer(func(c *Config) { c.AuthURL = "http://auth.example" }), withPolicy(deny(access.DeniedByRule)))
	for _, c := range []struct {
		target, cookie string
		status         int
		contains       string
		reason         access.Reason
	}{
		{"http://app.example/.doorward/login?return=/", "", 200, "login serves /.doorward/login", ""},
		{"http://app.example/.doorward/callback?code=x", "", 200, "login serves", ""},
		{"http://app.example/%2edoorward/logout", "", 200, "login serves /.doorward/logout", ""},
		{"http://auth.example/.doorward/login", "", 200, "login serves", ""},
		{"http://sub.example/.doorward/login", "", 200, "login serves", ""},
		{"http://auth.example/.doorward/backchannel-logout", "", 200, "login serves /.doorward/backchannel-logout", ""},
		{"http://app.example/.doorward/backchannel-logout", "", 200, "login serves", ""},
		{"http://app.example/.doorward/frontchannel-logout?sid=x", "", 200, "login serves /.doorward/frontchannel-logout", ""},
		{"http://app.example/.doorward/backchannel-logout/", "", 404, "no_route", access.NoRoute},
		{"http://app.example/.doorward/jwks.json", "", 200, `"kty":"EC"`, ""},
		{"http://app.example/.doorward/me", asAlice, 200, `"user":"corp:alice"`, ""},
		{"http://app.example/.doorward/me", "", 401, "login_required", access.LoginRequired},
		{"http://app.example/.doorward/me", "doorward=broken", 503, "store_unavailable", access.StoreUnavailable},
		{"http://app.example/.doorward/", "", 404, "no_route", access.NoRoute},
		{"http://app.example/.doorward", "", 404, "no_route", access.NoRoute},
		{"http://app.example/.doorward/other", asAlice, 404, "no_route", access.NoRoute},
		{"http://app.example/.doorward//login", "", 400, "ambiguous_path", access.AmbiguousPath},
	} {
		res, body := w.ask("GET", c.target, "Cookie", c.cookie)
		e := w.rec.event(t)
		if res.StatusCode != c.status || !strings.Contains(body, c.contains) {
			t.Errorf("%s: %s %s", c.target, res.Status, body)
		}
		if e.Decision != nil || e.Request.Route != "" || e.Response.Status != c.status || e.Response.Reason != c.reason {
			t.Errorf("%s: recorded %+v %+v", c.target, e.Decision, e.Response)
		}
	}
	if res, _ := w.ask("GET", "http://auth.example/"); res.StatusCode != 404 {
		t.Errorf("the login host is no application: %s", res.Status)
	}
	if res, _ := w.ask("POST", "http://app.example/.doorward/me", "Cookie", asAlice); res.StatusCode != 405 {
		t.Error(res.Status)
	}
	if res, body := w.ask("POST", "http://auth.example/.doorward/backchannel-logout"); !strings.Contains(body, "login serves") {
		t.Errorf("a provider cannot post: %s %s", res.Status, body)
	}
	if res, _ := w.ask("POST", "http://elsewhere.example/.doorward/backchannel-logout"); res.StatusCode != 404 {
		t.Errorf("a host that is not ours: %s", res.Status)
	}
	if res, _ := w.ask("GET", "http://app.example/.doorward/login", "Connection", "upgrade", "Upgrade", "websocket"); res.StatusCode != 403 {
		t.Error(res.Status)
	}
	if res, _ := w.ask("GET", "http://app.example/.DOORWARD/login"); res.StatusCode != 403 {
		t.Errorf("another path was served: %s", res.Status)
	}
}

func TestMeTellsNoSecrets(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))})
	res, body := w.ask("GET", "http://app.example/.doorward/me", append(browser, "Cookie", asAlice)...)
	if res.Header.Get("Cache-Control") != "no-store" || !strings.Contains(res.Header.Get("Vary"), "Cookie") || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error(res.Header)
	}
	var answer struct {
		User, Email string
		Groups      []string
		Session     access.Session
		Device      map[string]any
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.User != "corp:alice" || answer.Email != "alice@corp.example" || len(answer.Groups) != 1 || answer.Session.Expires.IsZero() || answer.Device["known"] != "yes" || answer.Device["jailbroken"] != "unknown" {
		t.Errorf("%s", body)
	}
	for _, secret := range []string{"secret-owner", "unused-1", "R&D"} {
		if strings.Contains(body, secret) {
			t.Errorf("%s in %s", secret, body)
		}
	}
	if res, _ := w.ask("GET", "http://app.example/.doorward/me", browser...); res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

func TestRequestsEndWithTheApplicationTheyBeganWith(t *testing.T) {
	reached, proceed := make(chan bool), make(chan bool)
	old := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		reached <- true
		<-proceed
		io.WriteString(w, "old")
	})
	w := newWorld(t, []access.Route{routeTo("http://app.example", old)}, withPolicy(allowAll))
	answers := make(chan string)
	go func() {
		_, body := w.ask("GET", "http://app.example/")
		answers <- body
	}()
	<-reached
	if w.door.InFlight() != 1 {
		t.Error(w.door.InFlight())
	}
	young := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "new") })
	next := &Snapshot{Version: "v2", Policy: policy(allowAll), Routes: table(t, routeTo("http://app.example", young))}
	if err := w.door.Swap(next); err != nil {
		t.Fatal(err)
	}
	if _, body := w.ask("GET", "http://app.example/"); body != "new" {
		t.Errorf("new requests use the old configuration: %s", body)
	}
	proceed <- true
	if body := <-answers; body != "old" {
		t.Error(body)
	}
}

func TestUnchangedRoutesKeepTheirConnections(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withPolicy(allowAll))
	_, first := w.ask("GET", "http://app.example/")
	swap := func(route access.Route) {
		next := *w.snapshot
		next.Routes = table(t, route)
		if err := w.door.Swap(&next); err != nil {
			t.Fatal(err)
		}
	}
	swap(routeTo("http://app.example", up))
	if _, again := w.ask("GET", "http://app.example/"); again != first {
		t.Error("a reload cut the connection of a route that did not change")
	}
	changed := routeTo("http://app.example", up)
	changed.Timeout = access.Duration(time.Minute / 2)
	swap(changed)
	if _, again := w.ask("GET", "http://app.example/"); again == first {
		t.Error("a route that changed has the old transport")
	}
}

func TestFailedSwapKeepsTheOldConfiguration(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withPolicy(allowAll))
	broken := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(broken, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tls := range []access.UpstreamTLS{{CA: broken}, {CA: "/does/not/exist"}, {ClientCert: broken, ClientKey: broken}} {
		next := *w.snapshot
		next.Policy = deny(access.NotAllowed)
		next.Routes = table(t, access.Route{ID: "app", From: "http://app.example", To: []string{"https://10.0.0.1"}, UpstreamTLS: tls})
		if err := w.door.Swap(&next); err == nil || !strings.Contains(err.Error(), "route app") {
			t.Errorf("%+v: %v", tls, err)
		}
	}
	if res, _ := w.ask("GET", "http://app.example/"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

func TestDrainWaitsForRequestsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Recorder: &recorder{signal: make(chan *access.Event, 1)}})
		d.inFlight.Add(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Drain(ctx); err == nil {
			t.Error("drained although a request is in flight")
		}
		time.AfterFunc(time.Minute, func() { d.inFlight.Add(-1) })
		start := time.Now()
		if err := d.Drain(t.Context()); err != nil || time.Since(start) < time.Minute {
			t.Error(err, time.Since(start))
		}
	})
}

func TestCloseEndsStreams(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withPolicy(allowAll))
	req, _ := http.NewRequest("GET", "http://app.example/", nil)
	res, err := w.transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	w.door.Close()
	defer res.Body.Close()
	if last, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(last), `"reason":"shutting_down"`) {
		t.Errorf("%q %v", last, err)
	}
	if e := w.rec.event(t); e.Response.Reason != access.ShuttingDown {
		t.Errorf("%+v", e.Response)
	}
}

func TestResponseControllerReachesTheServer(t *testing.T) {
	p := &passage{door: &Door{}}
	under := httptest.NewRecorder()
	m := &meter{ResponseWriter: under, passage: p}
	if err := http.NewResponseController(m).Flush(); err != nil || !under.Flushed || m.status != 200 {
		t.Error(err, m.status)
	}
	if _, _, err := http.NewResponseController(m).Hijack(); err == nil || m.hijacked {
		t.Error("hijacked what cannot be")
	}
}

// nullRecorder and nullWriter keep benchmarks to the road itself.
type nullRecorder struct{}

func (nullRecorder) Record(*access.Event) {}
func (nullRecorder) Err() error           { return nil }

type nullWriter struct{ h http.Header }

func (w *nullWriter) Header() http.Header         { return w.h }
func (w *nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *nullWriter) WriteHeader(int)             {}

func benchDoor(b *testing.B) (*Door, *http.Request) {
	d := New(Options{Signer: newTestSigner(b), Recorder: nullRecorder{}})
	if err := d.Swap(&Snapshot{Version: "v1", Routes: bigTable(b), Policy: policy(allowAll), Identify: identify{}, Inspect: inspect{}}); err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/team/4711/reports?year=2026&sort=asc", nil)
	r.Host, r.TLS = "app-4711.corp.example", nil
	r.Header = http.Header{"Accept": {"text/html"}, "Cookie": {"__Host-doorward=alice; theme=dark"}, "User-Agent": {"Mozilla/5.0"},
		"Accept-Language": {"de,en"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "X-Forwarded-For": {"6.6.6.6"}}
	return d, r
}

func BenchmarkReceive(b *testing.B) {
	d, r := benchDoor(b)
	w := &nullWriter{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		if err := d.begin(w, r).receive(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGate is everything up to the decision, with fakes for the facts.
func BenchmarkGate(b *testing.B) {
	d, r := benchDoor(b)
	d.live.Load().trusted = nil
	r.TLS = nil
	w := &nullWriter{http.Header{}}
	d.live.Load().Routes.http = d.live.Load().Routes.https
	b.ReportAllocs()
	for b.Loop() {
		p := d.begin(w, r)
		if err := p.receive(); err != nil {
			b.Fatal(err)
		}
		if err := p.gate(); err != nil || p.dec.Outcome != access.Allow {
			b.Fatal(err)
		}
		if err := p.prepare(); err != nil {
			b.Fatal(err)
		}
	}
}

// A door that is left answers everything, and has every client connect anew: also
// who is refused, and over HTTP/2, where other requests on the connection go on.
func TestLeavingHasClientsConnectAnew(t *testing.T) {
	for scheme, changes := range map[string][]change{"http": nil, "https": {overHTTP2}} {
		entered, release := make(chan struct{}), make(chan struct{})
		up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(entered)
				<-release
			}
			io.WriteString(w, "here")
		})
		w := newWorld(t, []access.Route{routeTo(scheme+"://app.example", up)}, append(changes, withPolicy(allowAll))...)
		tr := w.transport()
		ask := func(path string) (status int, text string, reused bool) {
			req, _ := http.NewRequest("GET", scheme+"://app.example"+path, nil)
			res, err := tr.RoundTrip(req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
			})))
			if err != nil {
				t.Errorf("%s: %v", scheme, err)
				return 0, "", reused
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			return res.StatusCode, string(body), reused
		}
		ask("/")
		slow := make(chan string, 1)
		go func() {
			_, text, _ := ask("/slow")
			slow <- text
		}()
		<-entered
		w.door.Leave()
		for _, path := range []string{"/", "//", "/"} { // the second is refused
			status, _, reused := ask(path)
			if want := map[string]int{"/": 200, "//": 400}[path]; status != want {
				t.Errorf("%s: %s is answered %d", scheme, path, status)
			}
			if scheme == "http" && reused {
				t.Errorf("a connection was used twice after the door was left")
			}
		}
		if _, _, reused := ask("/"); reused {
			t.Errorf("%s: a connection was used again", scheme)
		}
		close(release)
		if text := <-slow; text != "here" {
			t.Errorf("%s: what was under way ends with %q", scheme, text)
		}
	}
}

// A berth stays as long as its request does, which for a WebSocket is long. Beyond
// 3456 bytes it would take 4096.
func TestBerthFitsItsRoom(t *testing.T) {
	if size := unsafe.Sizeof(berth{}); size > 3456 {
		t.Errorf("%d bytes", size)
	}
}
