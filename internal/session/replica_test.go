package session

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// What another replica ends or changes is seen here, through the store alone.
func TestOtherReplicaIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		here, there := newDesk(t, s), newDesk(t, s)
		secret := here.start(start("alice"))
		here.opens(secret, authHost, "alice", "")
		there.opens(secret, authHost, "alice", "")

		up := start("alice")
		up.Identity.Login.ACR = "phr"
		up.Previous = secret
		second := there.start(up)
		synctest.Wait()
		here.opens(secret, authHost, "", access.LoginRequired)
		if e, _ := here.load(second, authHost); e == nil || e.Identity.Login.ACR != "phr" {
			t.Errorf("here: %+v", e)
		}
		if n, err := there.Revoke(there.ctx, Match{Issuer: up.Identity.Issuer, Subject: "alice"}, access.SessionEnded, "x"); n != 1 {
			t.Fatal(n, err)
		}
		synctest.Wait()
		here.opens(second, authHost, "", access.SessionEnded)
	})
}

// So much happened that notices were lost: nothing in memory counts any more.
func TestLostNoticesEmptyTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		deaf := silent(s)
		here, there := newDesk(t, deaf), newDesk(t, s)
		secret := here.start(start("alice"))
		here.opens(secret, authHost, "alice", "")
		if n, err := there.Revoke(there.ctx, Match{Issuer: "https://login.example", Subject: "alice"}, "", ""); n != 1 {
			t.Fatal(n, err)
		}
		here.opens(secret, authHost, "alice", "") // the test would prove nothing otherwise
		deaf.feed <- store.Change{Lost: true}
		synctest.Wait()
		here.opens(secret, authHost, "", access.SessionEnded)
	})
}

// A login that ends between being read and being kept in memory must not be kept.
func TestChangeWhileReadingIsNotMissed(t *testing.T) {
	for _, folder := range []string{ticketPrefix, loginPrefix} {
		synctest.Test(t, func(t *testing.T) {
			faulty := &faultyStore{Store: memory(t)}
			here, there := newDesk(t, faulty), newDesk(t, faulty.Store)
			secret := here.start(start("alice"))
			var once sync.Once
			hook := func(key string) {
				if strings.HasPrefix(key, folder) {
					once.Do(func() {
						if _, err := there.End(there.ctx, secret, ""); err != nil {
							t.Error(err)
						}
						synctest.Wait() // until the notice has been taken, too early
					})
				}
			}
			faulty.afterGet.Store(&hook)
			here.load(secret, authHost) // was asked before the end: either answer is right
			here.opens(secret, authHost, "", access.LoginRequired)
			here.opens(secret, authHost, "", access.LoginRequired)
		})
	}
}

// A login that changes between being read and being kept in memory, and ends
// later: the end must not be missed either.
func TestEndAfterAChangeWhileReadingIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := &faultyStore{Store: memory(t)}
		here, there := newDesk(t, faulty), newDesk(t, faulty.Store)
		secret := here.start(start("alice"))
		var once sync.Once
		hook := func(key string) {
			if id, ok := strings.CutPrefix(key, loginPrefix); ok {
				once.Do(func() {
					if _, err := there.update(there.ctx, id, func(*loginRecord) error { return nil }); err != nil {
						t.Error(err)
					}
					synctest.Wait()
				})
			}
		}
		faulty.afterGet.Store(&hook)
		here.opens(secret, authHost, "alice", "")
		if n, err := there.Revoke(there.ctx, Match{Issuer: "https://login.example", Subject: "alice"}, "", ""); n != 1 {
			t.Fatal(n, err)
		}
		synctest.Wait()
		here.opens(secret, authHost, "", access.SessionEnded)
	})
}

func TestLoginsAndKeysSurviveRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	var secret, app string
	var key []byte
	for run := range 2 {
		s, err := store.OpenFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		d := newDesk(t, s)
		k, err := d.Key(d.ctx, "flow")
		if err != nil || len(k) != 32 {
			t.Fatal(err)
		}
		if run == 0 {
			st := start("alice")
			st.Tokens.Refresh = "r"
			secret, key = d.start(st), k
			app = d.handOver(secret, appHost, "")
		} else if !bytes.Equal(k, key) {
			t.Error("the key changed")
		}
		d.opens(secret, authHost, "alice", "")
		d.opens(app, appHost, "alice", "")
		if run == 1 {
			if ended, err := d.End(d.ctx, app, ""); err != nil || ended.RefreshToken != "r" {
				t.Errorf("tokens after the restart: %q, %v", ended.RefreshToken, err)
			}
		}
		d.Close()
		s.Close()
	}
}

func TestStoreFailureIsItsOwnReason(t *testing.T) {
	faulty := &faultyStore{Store: memory(t)}
	d := newDesk(t, faulty)
	secret := d.start(start("alice"))
	root := d.start(start("bob"))
	_, challenge := pkce()
	d.opens(root, authHost, "bob", "")
	faulty.fail.Store(true)
	d.opens(root, authHost, "bob", "") // known sessions go on
	d.opens(secret, authHost, "", access.StoreUnavailable)
	_, _, startErr := d.Start(d.ctx, start("carol"))
	_, handErr := d.Handover(d.ctx, root, appHost, challenge)
	_, _, redeemErr := d.Redeem(d.ctx, secret, appHost, challenge, "")
	_, endErr := d.End(d.ctx, root, "")
	_, revokeErr := d.Revoke(d.ctx, Match{LoginID: "x"}, "", "")
	_, keyErr := d.Key(d.ctx, "x")
	for name, err := range map[string]error{"start": startErr, "handover": handErr, "redeem": redeemErr, "end": endErr, "revoke": revokeErr, "key": keyErr} {
		if access.ReasonOf(err) != access.StoreUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	faulty.fail.Store(false)
	d.opens(secret, authHost, "alice", "")
}

// A store that reports no changes any more must not leave revoked sessions alive.
func TestBrokenWatchKeepsNothingInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := &faultyStore{Store: memory(t)}
		d := newDesk(t, faulty)
		other := newDesk(t, faulty.Store)
		secret := d.start(start("alice"))
		d.opens(secret, authHost, "alice", "")
		faulty.noWatch.Store(true)
		faulty.endWatches()
		synctest.Wait()
		d.opens(secret, authHost, "alice", "")
		if _, err := other.End(other.ctx, secret, ""); err != nil {
			t.Fatal(err)
		}
		d.opens(secret, authHost, "", access.LoginRequired)

		second := d.start(start("alice"))
		faulty.noWatch.Store(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		faulty.reads.Store(0)
		for range 10 {
			d.opens(second, authHost, "alice", "")
		}
		if n := faulty.reads.Load(); n != 2 {
			t.Errorf("%d reads after the watch came back, want one for the ticket and one for the login", n)
		}
		if !strings.Contains(d.log.String(), "stopped reporting changes") {
			t.Error("nobody was told")
		}
	})
}

// What nobody has used for so long that it opens nothing any more leaves the memory
// when others come, however much room there is.
func TestForgottenSessionsMakeRoom(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	s := store.NewMemory(clock)
	t.Cleanup(func() { s.Close() })
	d := newDesk(t, s, func(o *Options) { o.Now = clock })
	const many = 1000
	come := func(day string) {
		for i := range many {
			who := fmt.Sprint(day, i)
			d.opens(d.start(start(who)), authHost, who, "")
		}
	}
	come("mon")
	if n := d.Cached(); n < many*3/4 { // the news of a new one may come just when it is read
		t.Fatalf("%d in memory", n)
	}
	now = now.Add(24 * time.Hour)
	come("tue")
	if n := d.Cached(); n > many+many/4 {
		t.Errorf("%d in memory, of which %d open anything", n, many)
	}
	tickets, held := 0, 0
	for i := range d.cache.tickets {
		tickets += d.cache.tickets[i].len()
		held += d.cache.tickets[i].held
	}
	if one := new(ticket).weight(); tickets > many+many/4 || held != tickets*one {
		t.Errorf("%d tickets of %d bytes weigh %d", tickets, one, held)
	}
}

// A ticket keeps nothing in memory of a login that had to make room: what is there
// is bounded, however large the logins are.
func TestTicketsHoldNoEvictedLogins(t *testing.T) {
	const room, many = 8 << 20, 1500
	d := newDesk(t, memory(t), func(o *Options) { o.Room = room })
	for i := range many {
		s := start(fmt.Sprint("user", i))
		s.Identity.Claims = map[string]any{"long": strings.Repeat("x", 8<<10)}
		d.opens(d.start(s), authHost, s.Identity.Subject, "")
	}
	held, tickets := 0, 0
	for i := range d.cache.tickets {
		for _, ticket := range d.cache.tickets[i].items {
			held += ticket.made.Load().login.weight()
			tickets++
		}
	}
	if held > room || tickets == 0 {
		t.Errorf("%d tickets hold logins of %d bytes, of %d", tickets, held, room)
	}
}

func TestEvictedSessionsAreReadAgain(t *testing.T) {
	s := memory(t)
	m, err := New(Options{Store: s, Room: 1}) // one ticket and one login per shard
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{Manager: m, t: t, ctx: t.Context(), store: s}
	defer m.Close()
	var secrets []string
	for i := range 300 {
		secrets = append(secrets, d.start(start(fmt.Sprint("user", i))))
	}
	for range 2 {
		for i, secret := range secrets {
			d.opens(secret, authHost, fmt.Sprint("user", i), "")
		}
	}
	for i := range shardCount {
		if a, b := m.cache.tickets[i].len(), m.cache.logins[i].len(); a > 1 || b > 1 {
			t.Fatalf("shard %d holds %d tickets and %d logins", i, a, b)
		}
	}
	// What was pushed out of memory can still be revoked.
	for i, secret := range secrets {
		if n, err := d.Revoke(d.ctx, Match{Issuer: "https://login.example", Subject: fmt.Sprint("user", i)}, "", ""); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		d.opens(secret, authHost, "", access.SessionEnded)
	}
}
