package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// No cookie, code, token or key is found in the store, the log, an error or an
// audit event.
func TestSecretsStayOutOfStoreLogsErrorsAndEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	file, err := store.OpenFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	faulty := &faultyStore{Store: file}
	d := newDesk(t, faulty)
	var errs []error
	s := start("alice")
	s.Tokens = Tokens{Refresh: "SECRET-refresh-token", Key: "SECRET-proof-key", ID: "SECRET-id-token", Expires: time.Now().Add(time.Hour)}
	root := d.start(s)
	verifier, challenge := pkce()
	code, err := d.Handover(d.ctx, root, appHost, challenge)
	if err != nil {
		t.Fatal(err)
	}
	app, _, err := d.Redeem(d.ctx, code, appHost, verifier, "")
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{root, app, code, verifier, s.Tokens.Refresh, s.Tokens.Key, s.Tokens.ID}
	hash, _ := digest(root)
	ticket, err := d.readTicket(d.ctx, hash, root)
	if err != nil {
		t.Fatal(err)
	}
	dataKey, _ := ticket.dataKey(root)
	secrets = append(secrets, string(dataKey), encoding.EncodeToString(dataKey))

	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Each way to go wrong, with a log and an error.
	note := func(err error) {
		if err == nil {
			t.Error("no error")
		}
		errs = append(errs, err)
	}
	_, err = d.Load(d.ctx, root, appHost, time.Now())
	note(err)
	_, err = d.Load(d.ctx, code, appHost, time.Now())
	note(err)
	_, _, err = d.Redeem(d.ctx, code, appHost, verifier, "")
	note(err)
	_, err = d.Handover(d.ctx, app, appHost, challenge)
	note(err)
	big := s
	big.Tokens.ID = strings.Repeat("SECRET-id-token", maxTokens)
	_, _, err = d.Start(d.ctx, big)
	note(err)
	for _, key := range []string{ticketPrefix + hashOf(app), codePrefix + hashOf(code), loginPrefix + ticket.Login} {
		if _, err := file.Put(d.ctx, store.Item{Key: key, Value: []byte(`{"login":` + root), Version: store.Any}); err != nil {
			t.Fatal(err)
		}
	}
	fresh := newDesk(t, faulty)
	_, err = fresh.Load(d.ctx, app, appHost, time.Now())
	note(err)
	_, err = fresh.Load(d.ctx, root, authHost, time.Now())
	note(err)
	_, _, err = fresh.Redeem(d.ctx, code, appHost, verifier, root)
	note(err)
	_, err = fresh.End(d.ctx, root, access.SessionEnded)
	note(err)
	faulty.fail.Store(true)
	_, err = fresh.Load(d.ctx, root, authHost, time.Now())
	note(err)

	var text strings.Builder
	fmt.Fprintf(&text, "%v %+v %#v %+v %#v\n", s, s, s, s.Tokens, Ended{RefreshToken: s.Tokens.Refresh})
	slog.New(slog.NewJSONHandler(&text, nil)).Info("x", "start", s, "tokens", s.Tokens, "ended", Ended{IDToken: s.Tokens.ID}, "wrapped", []Tokens{s.Tokens})
	for _, err := range errs {
		fmt.Fprintf(&text, "%v %+v %#v\n", err, err, err)
	}
	text.WriteString(d.log.String() + fresh.log.String())
	for _, events := range [][]*access.Event{d.events, fresh.events} {
		line, _ := json.Marshal(events)
		text.Write(line)
	}
	for i, secret := range secrets {
		if strings.Contains(text.String(), secret) {
			t.Errorf("secret %d is in a log, error or event", i)
		}
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("secret %d is in the store", i)
		}
	}
}

func TestKeyIsMadeOnce(t *testing.T) {
	s := memory(t)
	const n = 16
	keys := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		d := newDesk(t, s)
		wg.Go(func() {
			key, err := d.Key(d.ctx, "flow")
			if err != nil || len(key) != 32 {
				t.Errorf("%d bytes, %v", len(key), err)
			}
			keys[i] = string(key)
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key != keys[0] {
			t.Fatal("two managers made two keys")
		}
	}
	d := newDesk(t, s)
	if other, _ := d.Key(d.ctx, "assertion"); string(other) == keys[0] {
		t.Error("two purposes share a key")
	}
	if _, err := d.Key(d.ctx, ""); err == nil {
		t.Error("a key without purpose")
	}
}

func TestConfiguredKeyNeedsNoStore(t *testing.T) {
	faulty := &faultyStore{Store: memory(t)}
	withKey := func(key string) func(*Options) {
		return func(o *Options) { o.Config.Key = access.NewSecret(key) }
	}
	a := newDesk(t, faulty, withKey(strings.Repeat("k", 32)))
	b := newDesk(t, memory(t), withKey(strings.Repeat("k", 32)))
	c := newDesk(t, memory(t), withKey(strings.Repeat("l", 32)))
	faulty.fail.Store(true)
	k1, err := a.Key(a.ctx, "flow")
	k2, _ := b.Key(b.ctx, "flow")
	k3, _ := c.Key(c.ctx, "flow")
	if err != nil || !bytes.Equal(k1, k2) || bytes.Equal(k1, k3) {
		t.Errorf("%v", err)
	}
	for _, short := range []string{"", strings.Repeat("k", 31)} {
		if _, err := New(Options{Store: faulty.Store, Config: Config{Key: access.NewSecret(short)}}); err == nil || !strings.Contains(err.Error(), "at least 32") {
			t.Errorf("a key of %d bytes: %v", len(short), err)
		}
	}
}

// An unreadable master key is an error, never a reason to make a new one.
func TestDamagedMasterKeyIsNotReplaced(t *testing.T) {
	s := memory(t)
	d := newDesk(t, s)
	if _, err := s.Put(d.ctx, store.Item{Key: masterKey, Value: []byte("short")}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Key(d.ctx, "flow"); access.ReasonOf(err) != access.StoreUnavailable {
		t.Error(err)
	}
	if item, err := s.Get(d.ctx, masterKey); err != nil || string(item.Value) != "short" {
		t.Error("it was replaced")
	}
}

func TestWithoutRandomnessNothingStarts(t *testing.T) {
	d := newDesk(t, memory(t), func(o *Options) { o.Rand = iotest.ErrReader(errors.New("dry")) })
	if _, _, err := d.Start(d.ctx, start("alice")); access.ReasonOf(err) != access.InternalError {
		t.Error(err)
	}
	if _, err := d.Key(d.ctx, "x"); access.ReasonOf(err) != access.InternalError {
		t.Error(err)
	}
	if n := d.count(""); n != 0 {
		t.Errorf("%d items", n)
	}
}

func TestConfigFaults(t *testing.T) {
	hours := func(n int) access.Duration { return access.Duration(time.Duration(n) * time.Hour) }
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, ""},
		{Config{Lifetime: hours(12), Idle: hours(12)}, ""},
		{Config{Lifetime: access.Duration(time.Minute)}, ""}, // idle follows
		{Config{Key: access.Secret{Env: "KEY"}}, ""},
		{Config{Key: access.NewSecret(strings.Repeat("k", 32))}, ""},
		{Config{Idle: hours(11)}, "s.idle: 11h0m0s is longer than the lifetime of 10h0m0s"},
		{Config{Lifetime: -1, Idle: -1}, "s.lifetime: -1ns is negative\ns.idle: -1ns is negative"},
		{
			Config{Store: store.Config{Memory: true, File: store.FileConfig{Path: "x/"}}, Lifetime: hours(1), Idle: hours(2), Key: access.NewSecret("short")},
			"s.store: the store is file and memory at once\ns.store.file.path: \"x/\" is a folder\n" +
				"s.idle: 2h0m0s is longer than the lifetime of 1h0m0s\ns.key: the key has 5 bytes, at least 32 are needed",
		},
	} {
		f := access.NewFaults("s")
		c.cfg.Validate(f)
		var got []string
		for _, fault := range f.List() {
			got = append(got, fault.Path+": "+fault.Text)
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), c.want)
		}
	}
	if c := (Config{Lifetime: access.Duration(time.Minute)}); c.idle() != time.Minute {
		t.Errorf("idle %v", c.idle())
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a Manager without store")
	}
}

// Whatever a browser sends as a cookie is refused or is the one spelling of 32 bytes.
func FuzzDigest(f *testing.F) {
	for _, s := range []string{"", strings.Repeat("A", 43), strings.Repeat("_", 43), strings.Repeat("-", 42) + "8", strings.Repeat("A", 42) + "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		hash, ok := digest(secret)
		if !ok {
			return
		}
		raw, err := encoding.DecodeString(secret)
		if err != nil || len(raw) != secretBytes || encoding.EncodeToString(raw) != secret {
			t.Errorf("%q passed: %x, %v", secret, raw, err)
		}
		if encoding.EncodeToString(hash[:]) != hashOf(secret) {
			t.Error("two hashes of one secret")
		}
	})
}

func BenchmarkLoadWarm(b *testing.B) {
	for _, users := range []int{1, 1000, 10_000} {
		b.Run(fmt.Sprint("sessions=", users), func(b *testing.B) {
			s := store.NewMemory(nil)
			defer s.Close()
			m, err := New(Options{Store: s})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			secrets := make([]string, users)
			for i := range secrets {
				if secrets[i], _, err = m.Start(b.Context(), start(fmt.Sprint("user", i))); err != nil {
					b.Fatal(err)
				}
			}
			now := time.Now()
			for _, secret := range secrets {
				m.Load(b.Context(), secret, authHost, now)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := m.Load(b.Context(), secrets[i%users], authHost, now); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func TestWarmLoadAllocatesNothing(t *testing.T) {
	d := newDesk(t, memory(t))
	secret := d.start(start("alice"))
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.Load(d.ctx, secret, authHost, now); err != nil {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
