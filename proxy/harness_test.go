package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/lane"
	"github.com/doorward/doorward/internal/store"
)

// policy is a Decider of one function.
type policy func(*access.Request) access.Decision

func (p policy) Decide(req *access.Request) access.Decision { return p(req) }

func (p policy) Groups(_ string, id *access.Identity) []string {
	return slices.DeleteFunc(slices.Clone(id.Groups), func(g string) bool { return strings.HasPrefix(g, "unused") })
}

func allowAll(*access.Request) access.Decision {
	return access.Decision{Outcome: access.Allow, Reason: access.Allowed, Rule: "allow/all"}
}

// loginFirst allows whoever is logged in.
func loginFirst(req *access.Request) access.Decision {
	if !req.Identity.Nobody() {
		return allowAll(req)
	}
	return access.Decision{Outcome: access.Challenge, Reason: access.LoginRequired,
		Needs: []access.Need{{Reason: access.LoginRequired}}}
}

func deny(reason access.Reason) policy {
	return func(*access.Request) access.Decision { return access.Decision{Reason: reason} }
}

// identify knows the visitor by the cookie "doorward": its value is the name.
type identify struct{}

func (identify) Identify(r *http.Request, req *access.Request) error {
	for _, name := range []string{"doorward", "__Host-doorward"} {
		c, err := r.Cookie(name)
		switch {
		case err != nil:
			continue
		case c.Value == "broken":
			req.Identity = access.Identity{Provider: "corp", Issuer: "https://idp", Subject: "half"}
			return access.Becausef(access.StoreUnavailable, "disk full")
		case c.Value == "panic":
			panic("bug in identify")
		}
		req.Identity = access.Identity{Provider: "corp", Issuer: "https://idp", Subject: c.Value, Email: c.Value + "@corp.example",
			Name: "Änne O'Neil", Groups: []string{"eng", "unused-1"}, Claims: map[string]any{"dept": "R&D", "many": []any{"a", "b,c"}},
			Login: access.Login{Time: epoch.Add(-time.Minute), ACR: "phr", AMR: []string{"hwk"}}}
		req.Session = access.Session{ID: "s-" + c.Value, Created: epoch, Expires: req.Time.Add(time.Hour).Truncate(time.Hour)}
		return nil
	}
	return nil
}

func (i identify) IdentifyAgain(r *http.Request, req *access.Request, _ bool) error {
	return i.Identify(r, req)
}

type inspect struct{}

func (inspect) Inspect(_ *http.Request, req *access.Request) error {
	if !req.Identity.Nobody() {
		req.Device = access.Device{ID: "laptop-7", Known: access.Yes, Owner: "secret-owner", Name: "Laptop"}
	}
	return nil
}

type login struct{ err error }

func (l login) Begin(w http.ResponseWriter, r *http.Request, _ *access.Request, ask access.LoginRequire, provider string) error {
	if l.err != nil {
		return l.err
	}
	http.Redirect(w, r, fmt.Sprintf("https://idp.example/authorize?provider=%s&acr=%s", provider, strings.Join(ask.ACR, "+")), http.StatusFound)
	return nil
}

func (l login) Serve(w http.ResponseWriter, r *http.Request, req *access.Request) error {
	if l.err != nil {
		return l.err
	}
	fmt.Fprintf(w, "login serves %s", req.Path)
	return nil
}

// recorder keeps events, and lets tests wait for them.
type recorder struct {
	mu     sync.Mutex
	events []*access.Event
	signal chan *access.Event
	err    error
}

func (r *recorder) Record(e *access.Event) {
	e = e.Clone()
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	r.signal <- e
}

func (r *recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// event waits for the next one.
func (r *recorder) event(t *testing.T) *access.Event {
	t.Helper()
	select {
	case e := <-r.signal:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event was recorded")
		return nil
	}
}

// world is a door on a real listener with a recorder behind it.
type world struct {
	t        *testing.T
	door     *Door
	snapshot *Snapshot
	rec      *recorder
	server   *httptest.Server
	secure   bool
	h2       bool
	log      *slog.Logger
}

type change func(*world)

func overTLS(w *world)   { w.secure = true }
func overHTTP2(w *world) { w.secure, w.h2 = true, true }

func withPolicy(p policy) change { return func(w *world) { w.snapshot.Policy = p } }

func withServer(edit func(*Config)) change { return func(w *world) { edit(&w.snapshot.Server) } }

func newWorld(t *testing.T, routes []access.Route, changes ...change) *world {
	t.Helper()
	w := &world{t: t, rec: &recorder{signal: make(chan *access.Event, 1000)}}
	w.snapshot = &Snapshot{Version: "v1", Policy: policy(loginFirst), Identify: identify{}, Inspect: inspect{}, Login: login{}}
	for _, change := range changes {
		change(w)
	}
	w.door = New(Options{Signer: newTestSigner(t), Recorder: w.rec, Log: w.log})
	if w.snapshot.Routes == nil {
		w.snapshot.Routes = table(t, routes...)
	}
	if err := w.door.Swap(w.snapshot); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(nil)
	w.server.Config = NewServer(w.snapshot.Server, w.door)
	w.server.EnableHTTP2 = w.h2
	if w.secure {
		w.server.StartTLS()
	} else {
		w.startPlain()
	}
	t.Cleanup(func() {
		w.door.Close()
		w.server.Close()
	})
	return w
}

// startPlain serves over plaintext as the program does: with a lane, unless the
// configuration wants none.
func (w *world) startPlain() {
	if !w.snapshot.Server.Lane() {
		w.server.Start()
		return
	}
	fast := lane.New(w.server.Config)
	w.server.URL = "http://" + w.server.Listener.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		fast.Serve(w.server.Listener)
	}()
	w.t.Cleanup(func() {
		fast.Close()
		<-served
	})
}

func newTestSigner(t testing.TB) *Signer {
	t.Helper()
	signer, err := NewSigner(context.Background(), SignerOptions{Store: store.NewMemory(time.Now), Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func table(t testing.TB, routes ...access.Route) *Table {
	t.Helper()
	table, faults := NewTable(routes)
	if len(faults) > 0 {
		t.Fatalf("faults: %+v", faults)
	}
	return table
}

func (w *world) scheme() string {
	if w.secure {
		return "https"
	}
	return "http"
}

func routeTo(from string, upstream *httptest.Server) access.Route {
	return access.Route{ID: "app", From: from, To: []string{upstream.URL}}
}

// transport reaches the door whatever host is asked for.
func (w *world) transport() *http.Transport {
	tr := &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.server.Listener.Addr().String())
		},
		ForceAttemptHTTP2: w.h2,
	}
	if w.secure {
		pool := x509.NewCertPool()
		pool.AddCert(w.server.Certificate())
		tr.TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: "example.com"}
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// ask sends a request with headers given as name, value pairs.
func (w *world) ask(method, target string, headers ...string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return w.do(req)
}

func (w *world) do(req *http.Request) (*http.Response, string) {
	w.t.Helper()
	res, err := w.transport().RoundTrip(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return res, string(body)
}

// raw sends bytes as they are and returns the response.
func (w *world) raw(text string) (*http.Response, string) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		w.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Fatalf("%q: %v", text, err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

// echoed is what the echo upstream saw of a request.
type echoed struct {
	Method, Host, URI string
	Header, Trailer   http.Header
	Body              string
}

// newEcho answers with what it was asked.
func newEcho(t *testing.T) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		json.NewEncoder(w).Encode(echoed{r.Method, r.Host, r.RequestURI, r.Header, r.Trailer, string(body)})
	}))
	t.Cleanup(srv.Close)
	return srv
}

func decode(t *testing.T, body string) echoed {
	t.Helper()
	var e echoed
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return e
}

var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const asAlice = "doorward=alice"
