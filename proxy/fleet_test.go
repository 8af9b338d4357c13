package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// fleet is a door with applications behind it that break as a test wants them to,
// in a network without sockets: time passes only when nobody has anything to do,
// so that limits can be measured exactly.
type fleet struct {
	t        *testing.T
	apps     []*fakeApp
	door     *Door
	snapshot *Snapshot
	rec      *recorder
	visitors *pipes
	client   *http.Transport
	log      *lockedBuffer
}

// fakeApp is one address of an upstream.
type fakeApp struct {
	name  string // http://127.0.0.1:7001
	pipes *pipes

	mu     sync.Mutex
	fault  fault
	answer http.HandlerFunc // nil: its own name
	asked  []string         // method and path of what arrived, but for health checks
	checks int
	sick   bool // health checks fail
}

// fault is what is wrong with an address.
type fault int

const (
	well     fault = iota
	refusing       // nobody listens there
	vanished       // nothing comes back, not even a refusal
	silent         // takes everything and says nothing
	cutting        // takes the request and hangs up
	halving        // hangs up in the middle of its answer
	stalling       // stops in the middle of its answer
	overdone       // answers 503
)

// pipes are the connections to one address.
type pipes struct {
	net.Listener
	accept chan net.Conn
	closed chan struct{}

	mu   sync.Mutex
	open []net.Conn
}

func newPipes() *pipes {
	return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.accept <- there:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, errors.New("connection refused")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, there)
	return here, nil
}

// cut breaks every connection.
func (p *pipes) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		c.Close()
	}
	p.open = nil
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// inFleet runs a test with a door before n applications, on a clock of its own.
func inFleet(t *testing.T, n int, edit func(*access.Route), test func(*fleet)) {
	t.Helper()
	signer := newTestSigner(t)
	synctest.Test(t, func(t *testing.T) {
		// The clock stands still once this function has returned, and a health check
		// that has just begun is given up 10 ms after the door is closed.
		defer time.Sleep(time.Second)
		f := &fleet{t: t, rec: &recorder{signal: make(chan *access.Event, 100000)}, visitors: newPipes(), log: &lockedBuffer{}}
		for i := range n {
			a := &fakeApp{name: fmt.Sprintf("http://127.0.0.1:%d", 7001+i), pipes: newPipes()}
			server := &http.Server{Handler: a, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
			go server.Serve(a.pipes)
			defer server.Close()
			f.apps = append(f.apps, a)
		}
		f.door = New(Options{Signer: signer, Recorder: f.rec, Dial: f.dial, Log: slog.New(slog.NewJSONHandler(f.log, nil))})
		f.install(edit)
		front := NewServer(Config{}, f.door)
		go front.Serve(f.visitors)
		f.client = &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return f.visitors.dial(ctx) }}
		defer front.Close()
		defer f.door.Close()
		test(f)
		for _, a := range f.apps {
			a.pipes.cut()
		}
	})
}

// install puts the route into force, as a reload does.
func (f *fleet) install(edit func(*access.Route)) {
	f.t.Helper()
	route := access.Route{ID: "app", From: "http://app.example"}
	for _, a := range f.apps {
		route.To = append(route.To, a.name)
	}
	if edit != nil {
		edit(&route)
	}
	f.snapshot = &Snapshot{Version: "v1", Policy: policy(allowAll), Identify: identify{}, Inspect: inspect{}, Login: login{}, Routes: table(f.t, route)}
	if err := f.door.Swap(f.snapshot); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) dial(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for _, a := range f.apps {
		if a.name != "http://"+address {
			continue
		}
		switch a.now() {
		case refusing:
			return nil, errors.New("connection refused")
		case vanished:
			<-ctx.Done()
			return nil, ctx.Err()
		case silent:
			here, there := net.Pipe()
			go io.Copy(io.Discard, there)
			return here, nil
		}
		return a.pipes.dial(ctx)
	}
	return nil, errors.New("no such address")
}

func (a *fakeApp) now() fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fault
}

// becomes changes what is wrong with an address. Open connections break.
func (a *fakeApp) becomes(f fault) {
	a.mu.Lock()
	a.fault = f
	a.mu.Unlock()
	a.pipes.cut()
}

func (a *fakeApp) set(edit func(*fakeApp)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	edit(a)
}

// taken returns what arrived and forgets it.
func (a *fakeApp) taken() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.asked
	a.asked = nil
	return list
}

func (a *fakeApp) checked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.checks
}

// ServeHTTP implements http.Handler.
func (a *fakeApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("User-Agent") == "doorward-health" {
		a.set(func(a *fakeApp) {
			a.checks++
			if a.sick {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		return
	}
	a.set(func(a *fakeApp) { a.asked = append(a.asked, r.Method+" "+r.URL.Path) })
	switch a.now() {
	case silent:
		<-r.Context().Done()
		return
	case cutting:
		panic(http.ErrAbortHandler)
	case halving:
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case stalling:
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	case overdone:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	a.mu.Lock()
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, a.name)
}

func always(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// outcome is what a visitor saw of a request.
type outcome struct {
	status int
	body   string
	broken bool // the answer, in the middle
	after  time.Duration
	header http.Header
	reason access.Reason
}

// ask sends a request with headers given as name, value pairs.
func (f *fleet) ask(method, path string, body io.Reader, headers ...string) outcome {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, "http://app.example"+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return f.send(req)
}

func (f *fleet) send(req *http.Request) outcome {
	f.t.Helper()
	began := time.Now()
	res, err := f.client.RoundTrip(req)
	if err != nil {
		return outcome{broken: true, after: time.Since(began)}
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	o := outcome{status: res.StatusCode, body: string(text), broken: err != nil, after: time.Since(began), header: res.Header}
	var problem struct{ Reason access.Reason }
	if json.Unmarshal(text, &problem) == nil {
		o.reason = problem.Reason
	}
	return o
}

// gets asks n times and counts who answered.
func (f *fleet) gets(n int, headers ...string) map[string]int {
	f.t.Helper()
	count := map[string]int{}
	for range n {
		o := f.ask("GET", "/", nil, headers...)
		who := o.body
		if o.status != 200 {
			who = fmt.Sprint(o.status)
		}
		count[strings.TrimPrefix(who, "http://127.0.0.1:")]++
	}
	return count
}

// states returns how the addresses are doing, in one line.
func (f *fleet) states() string {
	var list []string
	for _, t := range f.door.Upstreams()[0].Targets {
		list = append(list, t.State)
	}
	return strings.Join(list, " ")
}

func (f *fleet) wantStates(want string) {
	f.t.Helper()
	if got := f.states(); got != want {
		f.t.Errorf("%s, want %s", got, want)
	}
}

// logged returns how many lines of the log hold a text.
func (f *fleet) logged(text string) int {
	n := 0
	for line := range strings.Lines(f.log.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}
