package issuance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// plain keeps values as they are.
type plain struct{ store.Store }

func (p plain) Get(ctx context.Context, name string) ([]byte, error) {
	item, err := p.Store.Get(ctx, "acme/"+name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return item.Value, err
}

func (p plain) Put(ctx context.Context, name string, value []byte, expires time.Time) error {
	_, err := p.Store.Put(ctx, store.Item{Key: "acme/" + name, Value: value, Version: store.Any, Expires: expires})
	return err
}

// fakeAuthority issues certificates of ninety days, and counts.
type fakeAuthority struct {
	mu     sync.Mutex
	orders map[string]int
	fail   map[string]error
	takes  time.Duration
}

func (f *fakeAuthority) order(ctx context.Context, _ *authority, host string) ([]byte, error) {
	f.mu.Lock()
	f.orders[host]++
	n, fail, takes := f.orders[host], f.fail[host], f.takes
	f.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if fail != nil {
		return nil, fail
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(n)), DNSNames: []string{host}, NotBefore: time.Now(), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return encode([][]byte{der}, key)
}

func (f *fakeAuthority) count(host string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.orders[host]
}

func (f *fakeAuthority) fails(host string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[host] = err
}

func newFake() *fakeAuthority {
	return &fakeAuthority{orders: map[string]int{}, fail: map[string]error{}, takes: 5 * time.Second}
}

// replica runs an issuer in the bubble of a test.
func replica(t *testing.T, s store.Store, f *fakeAuthority, hosts ...string) (*Issuer, func()) {
	t.Helper()
	i := New(Options{Store: s, Keep: plain{s}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	i.order = f.order
	if err := i.Configure(t.Context(), Config{Directory: "https://authority.example/dir", AcceptTerms: true}, hosts); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); i.Run(ctx) }()
	return i, func() { cancel(); <-done }
}

func serial(i *Issuer, host string) string {
	cert, err := i.Certificate(&tls.ClientHelloInfo{ServerName: host})
	if err != nil || cert == nil {
		return fmt.Sprint("none: ", err)
	}
	return cert.Leaf.SerialNumber.String()
}

// Three replicas, one order; the others take what it got. Renewal is the same
// with a third of the life left, and a restart orders nothing.
func TestOneOrderForAllReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := store.NewMemory(time.Now), newFake()
		defer s.Close()
		var replicas []*Issuer
		var stops []func()
		for range 3 {
			i, stop := replica(t, s, f, "app.example")
			replicas, stops = append(replicas, i), append(stops, stop)
		}
		all := func(when, want string) {
			t.Helper()
			synctest.Wait()
			for n, i := range replicas {
				if got := serial(i, "App.Example"); got != want {
					t.Errorf("%s: replica %d serves %s, want %s", when, n, got, want)
				}
			}
		}
		all("at first", "none: there is no certificate for app.example yet")
		time.Sleep(time.Minute)
		all("a minute later", "1")
		time.Sleep(60*24*time.Hour - 2*time.Minute)
		all("before it is due", "1")
		time.Sleep(time.Hour)
		all("after it was due", "2")
		if n := f.count("app.example"); n != 2 {
			t.Errorf("%d orders", n)
		}
		for _, stop := range stops {
			stop()
		}
		again, stop := replica(t, s, f, "app.example")
		if got := serial(again, "app.example"); got != "2" {
			t.Errorf("after a restart: %s", got)
		}
		if cert, err := again.Certificate(&tls.ClientHelloInfo{ServerName: "other.example"}); cert != nil || err != nil {
			t.Errorf("another host: %v %v", cert, err)
		}
		// A host that is no longer named is nobody's; it may come back.
		conf := Config{Directory: "https://authority.example/dir"}
		if err := again.Configure(t.Context(), conf, nil); err != nil {
			t.Fatal(err)
		}
		if cert, err := again.Certificate(&tls.ClientHelloInfo{ServerName: "app.example"}); cert != nil || err != nil {
			t.Errorf("a host that was taken away: %v %v", cert, err)
		}
		if err := again.Configure(t.Context(), conf, []string{"app.example", "new.example"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if a, b := serial(again, "app.example"), serial(again, "new.example"); a != "2" || b != "1" {
			t.Errorf("after a reload: %s and %s", a, b)
		}
		stop()
	})
}

// A host that fails is left alone for longer and longer, by all replicas together
// and never less often than twice an hour; the others do not wait for it.
func TestFailuresPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := store.NewMemory(time.Now), newFake()
		defer s.Close()
		f.fails("bad.example", &acme.AuthorizationError{Identifier: "bad.example", Errors: []error{errors.New("connection refused")}})
		f.fails("limited.example", &acme.Error{StatusCode: 429, ProblemType: "urn:ietf:params:acme:error:rateLimited", Header: http.Header{"Retry-After": {"7200"}}})
		one, stopOne := replica(t, s, f, "bad.example", "limited.example", "good.example")
		_, stopTwo := replica(t, s, f, "bad.example", "limited.example", "good.example")
		time.Sleep(30 * time.Second)
		if got := serial(one, "good.example"); got != "1" {
			t.Errorf("the host that works: %s", got)
		}
		time.Sleep(time.Hour - 30*time.Second)
		synctest.Wait()
		if n := f.count("bad.example"); n < 3 || n > 5 {
			t.Errorf("%d failures in an hour", n)
		}
		if n := f.count("limited.example"); n != 1 {
			t.Errorf("%d orders although the authority said when to come back", n)
		}
		status := one.Status()
		if len(status) != 3 || !strings.Contains(status[0].Error, "port 443") || status[0].Next.IsZero() ||
			status[1].NotAfter.IsZero() || status[1].Error != "" || !strings.Contains(status[2].Error, "nothing to do but wait") {
			t.Errorf("%+v", status)
		}
		// It is cured, and found so without a restart.
		f.fails("bad.example", nil)
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if got := serial(one, "bad.example"); got == "" || strings.HasPrefix(got, "none") {
			t.Errorf("after the cure: %s", got)
		}
		if e := one.Status()[0].Error; e != "" {
			t.Errorf("still failing: %s", e)
		}
		stopOne()
		stopTwo()
	})
}

// faulty is a store that can go away.
type faulty struct {
	store.Store
	down atomic.Bool
}

func (f *faulty) Get(ctx context.Context, key string) (store.Item, error) {
	if f.down.Load() {
		return store.Item{}, store.ErrUnavailable
	}
	return f.Store.Get(ctx, key)
}

func (f *faulty) Put(ctx context.Context, item store.Item) (uint64, error) {
	if f.down.Load() {
		return 0, store.ErrUnavailable
	}
	return f.Store.Put(ctx, item)
}

// Without the store nothing is ordered, since another replica may be at it; what
// is in memory is served on.
func TestStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := &faulty{Store: store.NewMemory(time.Now)}, newFake()
		defer s.Close()
		i, stop := replica(t, s, f, "app.example")
		time.Sleep(time.Minute)
		s.down.Store(true)
		time.Sleep(65 * 24 * time.Hour)
		synctest.Wait()
		if got := serial(i, "app.example"); got != "1" || f.count("app.example") != 1 {
			t.Errorf("serves %s after %d orders", got, f.count("app.example"))
		}
		s.down.Store(false)
		time.Sleep(13 * time.Hour)
		synctest.Wait()
		if got := serial(i, "app.example"); got != "2" {
			t.Errorf("serves %s when the store is back", got)
		}
		// A replica that died while it ordered does not keep others from it for good.
		if _, err := s.Store.Put(t.Context(), store.Item{Key: lockFolder + "new.example", Value: []byte("x"), Version: store.New, Expires: time.Now().Add(lockLimit)}); err != nil {
			t.Fatal(err)
		}
		if err := i.Configure(t.Context(), Config{}, []string{"new.example"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lockLimit + time.Minute)
		synctest.Wait()
		if got := serial(i, "new.example"); got != "1" {
			t.Errorf("after the lock ran out: %s", got)
		}
		stop()
	})
}

// The answer to an authority's question may be given by any replica.
func TestAnswer(t *testing.T) {
	s := store.NewMemory(time.Now)
	defer s.Close()
	i := New(Options{Store: s, Keep: plain{s}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err := i.Configure(t.Context(), Config{}, []string{"app.example"}); err != nil {
		t.Fatal(err)
	}
	account, err := i.account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := i.account(t.Context()); err != nil || !again.Equal(account) {
		t.Errorf("another account: %v", err)
	}
	ask := &tls.ClientHelloInfo{ServerName: "app.example", SupportedProtos: []string{Protocol}}
	if cert, err := i.answer(t.Context(), "app.example"); err == nil {
		t.Errorf("an answer that nobody ordered: %v", cert)
	}
	proof, err := (&acme.Client{Key: account}).TLSALPN01ChallengeCert("token", "app.example")
	if err != nil {
		t.Fatal(err)
	}
	text, err := encode(proof.Certificate, proof.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.opts.Keep.Put(t.Context(), challengeName("app.example"), text, time.Time{}); err != nil {
		t.Fatal(err)
	}
	cert, err := i.answer(t.Context(), "app.example")
	if err != nil || !bytes.Equal(cert.Certificate[0], proof.Certificate[0]) {
		t.Errorf("%v %v", cert, err)
	}
	if !Asks(ask) || Asks(&tls.ClientHelloInfo{SupportedProtos: []string{"h2", Protocol}}) || Asks(&tls.ClientHelloInfo{}) {
		t.Error("a question is told by its only protocol")
	}
	if _, err := decode(text, "other.example"); err == nil {
		t.Error("an answer for another host")
	}
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"":                         {Directory: "https://a.example/dir", AcceptTerms: true, Email: "ops@a.example", Hosts: []string{"a.example", "xn--bcher-kva.example"}, KeyType: "rsa"},
		"accept_terms: true":       {Directory: "https://a.example/dir"},
		"is no https address":      {Directory: "http://a.example/dir", AcceptTerms: true},
		"is no e-mail address":     {Directory: "https://a.example/dir", AcceptTerms: true, Email: "Ops <ops@a.example>"},
		"prove a wildcard":         {Directory: "https://a.example/dir", AcceptTerms: true, Hosts: []string{"*.a.example"}},
		`"10.0.0.1" is no host`:    {Directory: "https://a.example/dir", AcceptTerms: true, Hosts: []string{"10.0.0.1"}},
		`"A.example" is no host`:   {Directory: "https://a.example/dir", AcceptTerms: true, Hosts: []string{"A.example"}},
		"is no kind of key":        {Directory: "https://a.example/dir", AcceptTerms: true, KeyType: "dsa"},
		"nobody is named who issu": {AcceptTerms: true},
	} {
		f := access.NewFaults("acme")
		c.Validate(f)
		text := fmt.Sprint(f.List())
		if (len(f.List()) == 0) != (want == "") || !strings.Contains(text, want) {
			t.Errorf("%q: %s", want, text)
		}
	}
}
