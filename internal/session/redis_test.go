package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/redistest"
)

// replica returns a Manager with a connection of its own, as another process
// would have.
func replica(t *testing.T, cfg store.RedisConfig, change ...func(*Options)) *desk {
	t.Helper()
	s, err := store.OpenRedis(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return newDesk(t, s, change...)
}

// eventually waits for what depends on another process.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// commands counts what a Manager does to items on the server.
func commands(s *redistest.Server) int { return s.Calls("hmget", "hset", "evalsha", "eval") }

func TestWarmSessionAsksRedisNothing(t *testing.T) {
	server := redistest.Start(t)
	here, there := replica(t, server.Config()), replica(t, server.Config())
	secret := here.start(start("alice"))
	for _, d := range []*desk{here, there} {
		// What was read before the news of the login itself arrived is not kept.
		eventually(t, "the session to be in memory", func() bool {
			before := commands(server)
			d.opens(secret, authHost, "alice", "")
			return commands(server) == before
		})
		before := commands(server)
		for range 1000 {
			d.opens(secret, authHost, "alice", "")
		}
		if n := commands(server) - before; n != 0 {
			t.Errorf("1000 requests of a session in memory: %d commands", n)
		}
	}
	cold := replica(t, server.Config())
	before := commands(server)
	cold.opens(secret, authHost, "alice", "")
	if n := commands(server) - before; n != 2 {
		t.Errorf("a session not in memory: %d commands, want one for the ticket and one for the login", n)
	}
	here.lag(t, there)
}

// lag measures how long it takes until what one replica revokes another one
// refuses.
func (d *desk) lag(t *testing.T, there *desk) {
	t.Helper()
	var lags []time.Duration
	for i := range 50 {
		sub := fmt.Sprint("user", i)
		secret := d.start(start(sub))
		there.opens(secret, authHost, sub, "")
		began := time.Now()
		if n, err := d.Revoke(d.ctx, Match{Issuer: "https://login.example", Subject: sub}, access.SessionEnded, "test"); n != 1 {
			t.Fatal(n, err)
		}
		eventually(t, "the revocation", func() bool {
			_, reason := there.load(secret, authHost)
			return reason == access.SessionEnded
		})
		lags = append(lags, time.Since(began))
	}
	slices.Sort(lags)
	t.Logf("revoked on one replica, refused on the other: median %s, worst of %d %s", lags[len(lags)/2], len(lags), lags[len(lags)-1])
}

// oauth2-proxy #1992 over several replicas: a hundred requests at once, three
// processes, one refresh token.
func TestThreeReplicasRedeemOnce(t *testing.T) {
	server := redistest.Start(t)
	p := newProvider()
	p.takes = 500 * time.Millisecond
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	clock := func(o *Options) { o.Now = now }
	p.answer = func(_ *access.Identity, tokens *Tokens) error {
		tokens.Expires = now().Add(p.life)
		return nil
	}
	var replicas []*desk
	for range 3 {
		replicas = append(replicas, replica(t, server.Config(), with(p), clock))
	}
	secret := replicas[0].start(refreshable("alice"))
	for round := range 2 {
		ahead.Add(int64(11 * time.Minute))
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				e, reason := replicas[i%3].load(secret, authHost)
				if want := fmt.Sprintf("call%d", round+1); reason != "" || !slices.Contains(e.Identity.Groups, want) {
					t.Errorf("request %d: %v, %s", i, e, reason)
				}
			})
		}
		wg.Wait()
		if n := p.calls.Load(); n != int32(round+1) {
			t.Fatalf("round %d: %d redeems in all", round, n)
		}
	}
}

// Everything that is made once is made once.
func TestReplicasAgreeFromTheFirstMoment(t *testing.T) {
	server := redistest.Start(t)
	const n = 6
	keys := make([][]byte, n)
	var wins atomic.Int32
	var group sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		d := replica(t, server.Config())
		group.Go(func() {
			<-begin
			var err error
			if keys[i], err = d.Key(d.ctx, "flow"); err != nil {
				t.Error(err)
			}
			switch err := d.Once(d.ctx, "https://login.example", "jti", time.Now().Add(time.Minute), func() error { return nil }); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, ErrRepeated):
				t.Error(err)
			}
		})
	}
	close(begin)
	group.Wait()
	for i := range keys {
		if !bytes.Equal(keys[i], keys[0]) {
			t.Errorf("replica %d has another key", i)
		}
	}
	if wins.Load() != 1 {
		t.Errorf("what counts once counted %d times", wins.Load())
	}

	here, there := replica(t, server.Config()), replica(t, server.Config())
	root := here.start(start("alice"))
	verifier, challenge := pkce()
	code, err := here.Handover(here.ctx, root, appHost, challenge)
	if err != nil {
		t.Fatal(err)
	}
	app, _, err := there.Redeem(there.ctx, code, appHost, verifier, "")
	if err != nil {
		t.Fatal(err)
	}
	here.opens(app, appHost, "alice", "")
	if _, _, err := here.Redeem(here.ctx, code, appHost, verifier, ""); access.ReasonOf(err) != access.LoginStateUnknown {
		t.Errorf("the code again, elsewhere: %v", err)
	}
	server.Kill()
	if err := here.Once(here.ctx, "https://login.example", "other", time.Now().Add(time.Minute), func() error { return nil }); access.ReasonOf(err) != access.StoreUnavailable {
		t.Errorf("what cannot be remembered counts: %v", err)
	}
}

// The server dies and comes back while everybody works. Nobody gets in who should
// not; who is logged in waits, or does not even notice where a grace was given;
// nothing is left behind.
func TestRedisDiesUnderLoad(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	patient := server.Config()
	patient.Grace = access.Duration(time.Minute)
	strict, graceful, other := replica(t, server.Config()), replica(t, patient), replica(t, server.Config())
	living := strict.start(start("alice"))
	graceful.opens(living, authHost, "alice", "")

	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	var served, refused atomic.Int64
	guess := strict.guess()
	for range 4 {
		for d, mayFail := range map[*desk]bool{strict: true, graceful: false, other: true} {
			load.Go(func() {
				for ctx.Err() == nil {
					e, err := d.Load(ctx, living, authHost, time.Now())
					switch reason := access.ReasonOf(err); {
					case e != nil && e.Identity.Subject == "alice":
						served.Add(1)
					case mayFail && reason == access.StoreUnavailable:
						refused.Add(1)
					case ctx.Err() == nil:
						t.Errorf("a living session: %+v, %v", e, err)
						return
					}
					if e, _ := d.Load(ctx, guess, authHost, time.Now()); e != nil {
						t.Error("a guessed cookie opened a session")
					}
				}
			})
		}
	}
	for round := range 3 {
		sub := fmt.Sprint("mallory", round)
		secret := strict.start(start(sub))
		for _, d := range []*desk{graceful, other} {
			d.opens(secret, authHost, sub, "")
		}
		// The connections break, then a session ends, then the server dies.
		server.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		eventually(t, "the revocation", func() bool {
			n, _ := strict.Revoke(strict.ctx, Match{Issuer: "https://login.example", Subject: sub}, access.SessionEnded, "test")
			_, reason := strict.load(secret, authHost)
			return n == 1 || reason == access.SessionEnded
		})
		refusals := refused.Load()
		server.Kill()
		eventually(t, "a refusal", func() bool { return refused.Load() > refusals })
		if _, reason := strict.load(secret, authHost); reason != access.StoreUnavailable && reason != access.SessionEnded {
			t.Errorf("round %d: %s", round, reason)
		}
		server.Restart()
		for _, d := range []*desk{strict, graceful, other} {
			// Once it is refused, or the store answers again, it stays refused.
			eventually(t, "the end of a session", func() bool {
				_, reason := d.load(secret, authHost)
				return reason == access.SessionEnded
			})
			eventually(t, "the living session", func() bool { _, reason := d.load(living, authHost); return reason == "" })
			d.opens(secret, authHost, "", access.SessionEnded)
		}
	}
	stop()
	load.Wait()
	t.Logf("%d requests served, %d refused", served.Load(), refused.Load())

	eventually(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// guess returns a cookie that was never handed out.
func (d *desk) guess() string {
	d.t.Helper()
	raw, err := d.random(secretBytes)
	if err != nil {
		d.t.Fatal(err)
	}
	return encoding.EncodeToString(raw)
}

// The network swallows everything: nothing breaks, nothing comes. What was ended
// elsewhere is refused all the same after a stated time.
func TestSilentRedisOpensNothing(t *testing.T) {
	server := redistest.Start(t)
	cfg := server.Config()
	cfg.Timeout = access.Duration(200 * time.Millisecond)
	d := replica(t, cfg)
	secret := d.start(start("alice"))
	d.opens(secret, authHost, "alice", "")
	server.Freeze()
	defer server.Thaw()
	began := time.Now()
	eventually(t, "the refusal", func() bool {
		_, reason := d.load(secret, authHost)
		return reason == access.StoreUnavailable
	})
	t.Logf("refused after %s; the bound is a second and twice the timeout", time.Since(began))
	server.Thaw()
	eventually(t, "the session", func() bool { _, reason := d.load(secret, authHost); return reason == "" })
}

// BenchmarkLoadStores compares the stores in one run: x-memory is how much longer
// a warm load takes with Redis than with the memory store.
func BenchmarkLoadStores(b *testing.B) {
	server := redistest.Start(b)
	shared, err := store.OpenRedis(server.Config(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer shared.Close()
	local := store.NewMemory(nil)
	defer local.Close()
	load := func(s store.Store) func() {
		m, err := New(Options{Store: s})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { m.Close() })
		secret, _, err := m.Start(b.Context(), start("alice"))
		if err != nil {
			b.Fatal(err)
		}
		now := time.Now()
		return func() {
			if _, err := m.Load(b.Context(), secret, authHost, now); err != nil {
				b.Error(err)
			}
		}
	}
	fromMemory, fromRedis := load(local), load(shared)
	fromMemory()
	fromRedis()
	b.ReportAllocs()
	// In turns, so that whatever else the machine does meets both.
	const turn = 1000
	var took [2]time.Duration
	n := 0
	for b.Loop() {
		for i, do := range []func(){fromMemory, fromRedis} {
			began := time.Now()
			for range turn {
				do()
			}
			took[i] += time.Since(began)
		}
		n += turn
	}
	b.ReportMetric(float64(took[0].Nanoseconds())/float64(n), "memory-ns/load")
	b.ReportMetric(float64(took[1].Nanoseconds())/float64(n), "redis-ns/load")
	b.ReportMetric(float64(took[1])/float64(took[0]), "x-memory")
}
