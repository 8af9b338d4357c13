package session

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// keptOnly checks that nothing is near that is not kept, and returns how much is.
func (d *desk) keptOnly() (n int) {
	d.t.Helper()
	for i := range d.cache.near {
		v := d.cache.near[i].Load()
		if v == nil {
			continue
		}
		n++
		shard := d.cache.ticketShard(&v.hash)
		shard.mu.RLock()
		if shard.items[v.hash] != v.ticket {
			d.t.Errorf("place %d has a session whose ticket is not in memory any more", i)
		}
		shard.mu.RUnlock()
	}
	return n
}

// Two cookies may have one place. Both open their own session, and that of one who
// has left opens nothing, whoever has the place.
func TestCookiesShareAPlace(t *testing.T) {
	d := newDesk(t, memory(t))
	places := map[any]string{}
	var one, two string
	for i := 0; two == ""; i++ {
		secret := d.start(start(fmt.Sprint("user", i)))
		place := d.cache.place(secret)
		if one = places[place]; one != "" {
			two = secret
		}
		places[place] = secret
	}
	of := func(secret string) string {
		t.Helper()
		e, reason := d.load(secret, authHost)
		if reason != "" {
			t.Fatal(reason)
		}
		return e.Identity.Subject
	}
	first, second := of(one), of(two)
	if first == second {
		t.Fatalf("both are %s", first)
	}
	for range 3 {
		d.opens(one, authHost, first, "")
		d.opens(two, authHost, second, "")
		d.opens(two, authHost, second, "")
	}
	if v := d.cache.place(one).Load(); v == nil || v.entry.Identity.Subject != second {
		t.Error("the place is not that of who came last")
	}
	if _, err := d.End(d.ctx, one, access.SessionEnded); err != nil {
		t.Fatal(err)
	}
	d.opens(one, authHost, "", access.LoginRequired)
	d.opens(two, authHost, second, "")
	if _, err := d.End(d.ctx, two, access.SessionEnded); err != nil {
		t.Fatal(err)
	}
	d.opens(two, authHost, "", access.LoginRequired)
	d.keptOnly()
}

// Whoever leaves the memory leaves the places, too, however that comes about.
func TestNothingIsNearThatIsNotKept(t *testing.T) {
	const many = 500
	d := newDesk(t, memory(t), func(o *Options) { o.Room = many * 2 << 10 }) // half the tickets
	var secrets []string
	for i := range many {
		secrets = append(secrets, d.start(start(fmt.Sprint("user", i))))
	}
	all := func() {
		for i, secret := range secrets {
			d.Expect(secret)
			d.opens(secret, authHost, fmt.Sprint("user", i), "")
		}
	}
	all()
	all()
	if n := d.keptOnly(); n == 0 || n > many*3/4 {
		t.Errorf("%d of %d are near, with room for half", n, many)
	}
	for _, closed := range []bool{true, false} {
		d.cache.dropAll(closed)
		if n := d.keptOnly(); n != 0 {
			t.Errorf("closed %t: %d are still near", closed, n)
		}
		all()
		if n := d.keptOnly(); closed != (n == 0) {
			t.Errorf("closed %t: %d are near again", closed, n)
		}
	}
}

// A cookie that was replaced opens nothing any more, also where the login that it
// opened goes on.
func TestReplacedCookiesAreNotNear(t *testing.T) {
	d := newDesk(t, memory(t))
	alice, bob := d.start(start("alice")), d.start(start("bob"))
	old := d.handOver(alice, appHost, "")
	d.opens(old, appHost, "alice", "")
	if d.cache.nearby(old) == nil {
		t.Fatal("what has been opened is not near")
	}
	fresh := d.handOver(bob, appHost, old)
	d.opens(old, appHost, "", access.LoginRequired)
	d.opens(fresh, appHost, "bob", "")
	d.opens(alice, authHost, "alice", "")
	d.keptOnly()
}

// Sessions end while they are used: what has ended opens nothing from the moment on
// at which that is known.
func TestSessionsEndInUse(t *testing.T) {
	d := newDesk(t, memory(t))
	var work sync.WaitGroup
	for i := range 16 {
		secret := d.start(start(fmt.Sprint("user", i)))
		used, over := make(chan struct{}), make(chan struct{})
		work.Go(func() {
			for n := 0; ; n++ {
				ended := false
				select {
				case <-over:
					ended = true
				default:
				}
				d.Expect(secret)
				_, err := d.Load(d.ctx, secret, authHost, d.now())
				switch {
				case ended && err == nil:
					t.Errorf("user%d is still let in", i)
					return
				case ended:
					return
				case n == 100:
					close(used)
				}
			}
		})
		work.Go(func() {
			<-used
			if _, err := d.End(d.ctx, secret, access.SessionEnded); err != nil {
				t.Error(err)
			}
			close(over)
		})
	}
	work.Wait()
	d.keptOnly()
}

// What was made for a session is kept for as long as it says the same of the same
// person, over all versions of it.
func TestWhatIsKeptLastsWhileNothingChanges(t *testing.T) {
	d := newDesk(t, memory(t))
	secret := d.start(start("alice"))
	load := func() *Entry {
		t.Helper()
		e, reason := d.load(secret, authHost)
		if reason != "" {
			t.Fatal(reason)
		}
		return e
	}
	before := load()
	before.Session.Kept.Assertion.Store("signed")
	before.Session.Kept.Budget.Store(7)
	update := func(change func(*loginRecord)) {
		t.Helper()
		if _, err := d.update(d.ctx, before.Session.ID, func(rec *loginRecord) error { change(rec); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	update(func(rec *loginRecord) { rec.Used = rec.Used.Add(time.Second) })
	used := load()
	if used == before || used.Identity != before.Identity || used.Session.Kept.Assertion.Load() != "signed" || used.Session.Kept.Budget.Load() != 7 {
		t.Errorf("a use has changed more than the version: %+v", used)
	}
	update(func(rec *loginRecord) { rec.Identity.Groups = nil })
	other := load()
	if kept := other.Session.Kept; len(other.Identity.Groups) != 0 || kept.Of != other.Identity || kept.Assertion.Load() != nil || kept.Budget.Load() != 0 {
		t.Errorf("what was made of who she was is kept: %+v", kept)
	}
}
