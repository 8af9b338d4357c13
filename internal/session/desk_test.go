package session

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	authHost = "https://auth.example"
	appHost  = "https://app.example"
	otherApp = "https://other.example"
)

// desk is a Manager with everything around it that a test looks at.
type desk struct {
	*Manager
	t     *testing.T
	ctx   context.Context
	store store.Store

	mu     sync.Mutex
	events []*access.Event
	log    bytes.Buffer
}

type lockedWriter struct{ d *desk }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return w.d.log.Write(p)
}

func newDesk(t *testing.T, s store.Store, change ...func(*Options)) *desk {
	t.Helper()
	d := &desk{t: t, ctx: t.Context(), store: s}
	opts := Options{
		Store: s,
		Log:   slog.New(slog.NewTextHandler(lockedWriter{d}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Emit: func(e *access.Event) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.events = append(d.events, e)
		},
	}
	for _, c := range change {
		c(&opts)
	}
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	d.Manager = m
	t.Cleanup(func() { m.Close() })
	return d
}

func memory(t *testing.T) store.Store {
	s := store.NewMemory(nil)
	t.Cleanup(func() { s.Close() })
	return s
}

func person(sub string) access.Identity {
	return access.Identity{
		Provider: "corp", Issuer: "https://login.example", Subject: sub, Email: sub + "@example.com",
		Groups: []string{"sre", "eng"}, Claims: map[string]any{"dept": "it", "n": 7},
		Login: access.Login{Time: time.Unix(1_700_000_000, 0).UTC(), ACR: "pwd"},
	}
}

func start(sub string) Start {
	return Start{Identity: person(sub), Origin: authHost, SID: "sid-of-" + sub, Tokens: Tokens{ID: "idtoken-of-" + sub}}
}

func (d *desk) start(s Start) string {
	d.t.Helper()
	secret, e, err := d.Start(d.ctx, s)
	if err != nil {
		d.t.Fatal(err)
	}
	if e.Identity.Subject != s.Identity.Subject || e.Origin != s.Origin || e.Session.ID == "" {
		d.t.Fatalf("started %+v", e)
	}
	return secret
}

func (d *desk) load(secret, origin string) (*Entry, access.Reason) {
	e, err := d.Load(d.ctx, secret, origin, d.now())
	if (e == nil) == (err == nil) {
		d.t.Errorf("entry %v and error %v", e, err)
	}
	return e, access.ReasonOf(err)
}

// opens checks that a cookie opens somebody's session, or why it does not.
func (d *desk) opens(secret, origin, sub string, why access.Reason) {
	d.t.Helper()
	e, reason := d.load(secret, origin)
	switch {
	case reason != why:
		d.t.Errorf("reason %q, want %q", reason, why)
	case e != nil && e.Identity.Subject != sub:
		d.t.Errorf("opened the session of %s, want %s", e.Identity.Subject, sub)
	}
}

func (d *desk) handOver(secret, origin, previous string) string {
	d.t.Helper()
	verifier, challenge := pkce()
	code, err := d.Handover(d.ctx, secret, origin, challenge)
	if err != nil {
		d.t.Fatal(err)
	}
	app, e, err := d.Redeem(d.ctx, code, origin, verifier, previous)
	if err != nil {
		d.t.Fatal(err)
	}
	if e.Origin != origin {
		d.t.Errorf("handed over to %s", e.Origin)
	}
	return app
}

func pkce() (verifier, challenge string) {
	verifier = strings.Repeat("v", 43)
	return verifier, hashOf(verifier)
}

func (d *desk) kinds() (kinds []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		kinds = append(kinds, fmt.Sprintf("%s/%s %s %s", e.Kind, e.Reason, e.Actor, e.Note))
	}
	return kinds
}

func (d *desk) count(prefix string) (n int) {
	d.t.Helper()
	for _, err := range d.store.List(d.ctx, prefix) {
		if err != nil {
			d.t.Fatal(err)
		}
		n++
	}
	return n
}

// faultyStore counts and can fail.
type faultyStore struct {
	store.Store
	reads, writes atomic.Int64
	fail, noWatch atomic.Bool
	noList        atomic.Bool
	failPut       atomic.Pointer[func(store.Item) error]
	afterGet      atomic.Pointer[func(key string)]
	// feed, if not nil, is all that watchers of logins and tickets see.
	feed    chan store.Change
	feedEnd sync.Once

	mu   sync.Mutex
	ends []context.CancelFunc
}

var errDisk = fmt.Errorf("%w: no space left on device", store.ErrUnavailable)

func (f *faultyStore) Get(ctx context.Context, key string) (store.Item, error) {
	f.reads.Add(1)
	if f.fail.Load() {
		return store.Item{}, errDisk
	}
	item, err := f.Store.Get(ctx, key)
	if hook := f.afterGet.Load(); hook != nil {
		(*hook)(key)
	}
	return item, err
}

func (f *faultyStore) Put(ctx context.Context, item store.Item) (uint64, error) {
	f.writes.Add(1)
	if f.fail.Load() {
		return 0, errDisk
	}
	if hook := f.failPut.Load(); hook != nil {
		if err := (*hook)(item); err != nil {
			return 0, err
		}
	}
	return f.Store.Put(ctx, item)
}

func (f *faultyStore) Delete(ctx context.Context, key string, version uint64) error {
	f.writes.Add(1)
	if f.fail.Load() {
		return errDisk
	}
	return f.Store.Delete(ctx, key, version)
}

func (f *faultyStore) List(ctx context.Context, prefix string) iter.Seq2[store.Item, error] {
	if f.noList.Load() {
		return func(yield func(store.Item, error) bool) { yield(store.Item{}, errDisk) }
	}
	return f.Store.List(ctx, prefix)
}

func (f *faultyStore) Watch(ctx context.Context, prefix string) (<-chan store.Change, error) {
	if f.noWatch.Load() {
		return nil, errDisk
	}
	if f.feed != nil && (prefix == loginPrefix || prefix == ticketPrefix) {
		context.AfterFunc(ctx, func() { f.feedEnd.Do(func() { close(f.feed) }) })
		return f.feed, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	f.mu.Lock()
	f.ends = append(f.ends, cancel)
	f.mu.Unlock()
	return f.Store.Watch(ctx, prefix)
}

// silent returns a store that reports no changes by itself.
func silent(s store.Store) *faultyStore {
	return &faultyStore{Store: s, feed: make(chan store.Change)}
}

func (f *faultyStore) endWatches() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, end := range f.ends {
		end()
	}
}
