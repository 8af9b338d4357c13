package signals

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/testidp"
)

const (
	corp     = "https://corp.test"
	partners = "https://partners.test"
	audience = "https://door.test"
	secret   = "Bearer push-secret"
	app      = "https://app.test"
)

// patience bounds every wait. A test that reaches it has failed.
const patience = 30 * time.Second

// world is a receiver with sessions behind it and a transmitter before it.
type world struct {
	*testing.T
	now      func() time.Time
	store    store.Store
	sessions *session.Manager
	from     *testidp.Transmitter
	receiver *Receiver
	door     *httptest.Server
	cfg      Transmitter

	mu      sync.Mutex
	events  []access.Event
	signals []access.Signal
	revoked []access.Revocation
}

// newWorld starts one. change sees the configuration first.
func newWorld(t *testing.T, change func(*world)) *world {
	t.Helper()
	w := &world{T: t, now: time.Now}
	w.store = store.NewMemory(time.Now)
	t.Cleanup(func() { w.store.Close() })
	var err error
	if w.sessions, err = session.New(session.Options{Store: w.store}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.sessions.Close() })
	if w.from, err = testidp.NewTransmitter(w.now, audience); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.from.Close)
	w.door = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.receiver.Serve(rw, r, &access.Request{ID: "r1"}); err != nil {
			rw.WriteHeader(access.ReasonOf(err).Info().Status)
		}
	}))
	t.Cleanup(w.door.Close)
	w.cfg = Transmitter{ID: "hub", Issuer: w.from.Issuer, Providers: []string{"corp"}, Devices: true, Endpoint: w.door.URL,
		PushSecret: access.Secret{}.Resolve(secret), Token: access.Secret{}.Resolve(testidp.TransmitterToken)}
	if change != nil {
		change(w)
	}
	f := access.NewFaults("signals[0]")
	if w.cfg.Validate(f); len(f.List()) > 0 {
		t.Fatal(f.List())
	}
	w.receiver = w.newReceiver(nil)
	return w
}

func (w *world) newReceiver(before *Receiver) *Receiver {
	w.Helper()
	r, err := New(Options{
		Transmitters: []Transmitter{w.cfg}, Providers: []Provider{{"corp", corp}, {"partners", partners}, {"cli", corp}},
		Sessions: w.sessions, Store: w.store, Key: []byte("key"), Now: w.now, Previous: before,
		Log: slog.New(slog.NewTextHandler(testWriter{w.T}, nil)),
		Claims: func(id *access.Identity, claims map[string]any) bool {
			groups, _ := claims["groups"].([]any)
			id.Groups = nil
			for _, g := range groups {
				id.Groups = append(id.Groups, g.(string))
			}
			return true
		},
		Revoke: func(ctx context.Context, r access.Revocation) (access.Revocation, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.revoked = append(w.revoked, r)
			return w.sessions.NotBefore(ctx, r)
		},
		Signal: func(s access.Signal) { w.mu.Lock(); w.signals = append(w.signals, s); w.mu.Unlock() },
		Emit:   func(e *access.Event) { w.mu.Lock(); w.events = append(w.events, *e); w.mu.Unlock() },
	})
	if err != nil {
		w.Fatal(err)
	}
	return r
}

type testWriter struct{ *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// run lets the receiver work until the test ends.
func (w *world) run() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.receiver.Run(ctx); close(done) }()
	w.Cleanup(func() { stop(); <-done })
}

// until waits for something that another goroutine does.
func (w *world) until(what string, done func() bool) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			w.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// stream runs the receiver and waits for a stream that works.
func (w *world) stream() {
	w.Helper()
	w.run()
	w.until("the verification event", func() bool { return !w.receiver.Status()[0].Verified.IsZero() })
}

// login logs somebody in and returns their cookie.
func (w *world) login(issuer, subject string) string {
	w.Helper()
	return w.loginAt(map[string]string{corp: "corp", partners: "partners"}[issuer], issuer, subject)
}

// loginAt logs somebody in at one of several providers of an issuer.
func (w *world) loginAt(provider, issuer, subject string) string {
	w.Helper()
	cookie, _, err := w.sessions.Start(context.Background(), session.Start{
		Identity: access.Identity{Provider: provider, Issuer: issuer, Subject: subject, Email: subject + "@example.com", EmailVerified: subject != "mallory",
			Groups: []string{"eng"}, Login: access.Login{Time: w.now(), ACR: "phrh", AMR: []string{"hwk"}, Levels: access.LevelsUpTo("phrh")}},
		SID: "sid-" + subject, Origin: app,
	})
	if err != nil {
		w.Fatal(err)
	}
	return cookie
}

// who returns whose session a cookie opens, nil if it is nobody's any more.
func (w *world) who(cookie string) *access.Identity {
	w.Helper()
	entry, err := w.sessions.Load(context.Background(), cookie, app, w.now())
	if err != nil {
		if reason := access.ReasonOf(err); reason != access.SessionEnded && reason != access.LoginRequired {
			w.Fatal(err)
		}
		return nil
	}
	return entry.Identity
}

// push sends an event and wants an answer.
func (w *world) push(want int, event string, subject, fields map[string]any) {
	w.Helper()
	if _, answers, err := w.from.Send(context.Background(), event, subject, fields); err != nil || !slices.Equal(answers, []int{want}) {
		w.Fatalf("%s: answered %v, %v; want %d", event, answers, err, want)
	}
}

// last returns the newest audit event of a signal.
func (w *world) last() access.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range slices.Backward(w.events) {
		if e.Kind == access.EventSignal {
			return e
		}
	}
	return access.Event{}
}

func user(iss, sub string) map[string]any {
	return map[string]any{"format": "iss_sub", "iss": iss, "sub": sub}
}

func opaque(id string) map[string]any { return map[string]any{"format": "opaque", "id": id} }

func complexSubject(parts map[string]any) map[string]any {
	parts["format"] = "complex"
	return parts
}
