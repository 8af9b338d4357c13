package session

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

var alice = access.Revocation{Issuer: "https://login.example", Subject: "alice", User: "corp:alice", By: "ops", Why: "left"}

// Where nothing was revoked, nothing is, whenever it was issued: also at a moment
// that is not known, less what clocks differ by.
func TestNothingIsRevokedByItself(t *testing.T) {
	d := newDesk(t, memory(t))
	for _, issued := range []time.Time{{}, time.Time{}.Add(-time.Minute), time.Now()} {
		person, err1 := d.Revoked(alice.Issuer, "alice", issued)
		device, err2 := d.RevokedDevice(alice.Issuer, "laptop", issued)
		if person || device || err1 != nil || err2 != nil {
			t.Errorf("issued %s: person %v, device %v, %v, %v", issued, person, device, err1, err2)
		}
	}
}

// Whatever was issued before a revocation is refused, on every replica, whether
// or not there is a record of it; what is issued afterwards counts.
// Whatever was issued before a revocation is refused, on every replica, whether
// or not there is a record of it; what is issued afterwards counts.
func TestRevocationIsNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		var h heard
		here, there := newDesk(t, s), newDesk(t, s, h.options)
		hers, his := here.start(start("alice")), here.start(start("bob"))
		before := time.Now()
		time.Sleep(time.Second)
		h.take()
		r, err := here.NotBefore(here.ctx, alice)
		if err != nil || r.ID == "" || !r.At.Equal(time.Now()) || r.Until.Sub(r.At) < 24*time.Hour {
			t.Fatalf("%+v %v", r, err)
		}
		here.opens(hers, authHost, "", access.SessionEnded)
		if list := h.take(); len(list) != 1 || list[0] != (access.Signal{Reason: access.SessionEnded, Issuer: alice.Issuer, Subject: "alice"}) {
			t.Errorf("told: %+v", list)
		}
		for _, d := range []*desk{here, there} {
			d.opens(hers, authHost, "", access.SessionEnded)
			d.opens(his, authHost, "bob", "")
			for issued, want := range map[time.Time]bool{before: true, {}: true, time.Now().Add(time.Nanosecond): false} {
				if revoked, err := d.Revoked(alice.Issuer, "alice", issued); revoked != want || err != nil {
					t.Errorf("issued %s: %v %v", issued, revoked, err)
				}
			}
			if revoked, _ := d.Revoked(alice.Issuer, "bob", before); revoked {
				t.Error("somebody else is revoked")
			}
			if revoked, _ := d.Revoked("https://other.example", "alice", before); revoked {
				t.Error("a namesake is revoked")
			}
		}
		time.Sleep(time.Second)
		there.opens(there.start(start("alice")), authHost, "alice", "")

		// Whoever starts later knows, too.
		late := newDesk(t, s)
		late.opens(hers, authHost, "", access.SessionEnded)
		if list, err := late.Revocations(); err != nil || len(list) != 1 || list[0].Why != "left" || list[0].User != "corp:alice" {
			t.Errorf("%+v %v", list, err)
		}

		// An older one changes nothing.
		again := alice
		again.At = before
		if late, err := there.NotBefore(there.ctx, again); err != nil || !late.At.Equal(r.At) {
			t.Errorf("%+v %v", late, err)
		}

		if known, err := there.Lift(there.ctx, r.ID); !known || err != nil {
			t.Error(known, err)
		}
		if known, err := there.Lift(there.ctx, r.ID); known || err != nil {
			t.Error("lifted twice:", known, err)
		}
		synctest.Wait()
		here.opens(hers, authHost, "alice", "") // its record was never removed
	})
}

func TestRevocationOfDevicesAndOfEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		here, there := newDesk(t, s), newDesk(t, s)
		hers := here.start(start("alice"))
		e, _ := here.load(hers, authHost)
		time.Sleep(time.Second)
		if _, err := here.NotBefore(here.ctx, access.Revocation{Device: "laptop-7", By: "ops", Why: "stolen"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for device, want := range map[string]bool{"laptop-7": true, "laptop-8": false} {
			if revoked, err := there.RevokedDevice(alice.Issuer, device, e.Session.Created); revoked != want || err != nil {
				t.Errorf("%s: %v %v", device, revoked, err)
			}
		}
		there.opens(hers, authHost, "alice", "") // on which devices it is used nobody knows here
		there.EndRevoked(there.ctx, e.Session.ID, "laptop-7")
		synctest.Wait()
		here.opens(hers, authHost, "", access.SessionEnded)

		second := here.start(start("alice"))
		time.Sleep(time.Second)
		r, err := there.NotBefore(there.ctx, access.Revocation{All: true, By: "ops", Why: "keys stolen"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		here.opens(second, authHost, "", access.SessionEnded)
		third := here.start(start("alice"))
		there.EndAllBefore(r.At, "ops")
		synctest.Wait()
		if n := here.count(loginPrefix); n != 1 {
			t.Errorf("%d logins are left", n)
		}
		here.opens(third, authHost, "alice", "")
	})
}

// While nobody reports what is revoked, it is looked up; where it cannot be, nobody
// is let in.
func TestRevocationsThatCannotBeReadRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		faulty := &faultyStore{Store: s}
		here, there := newDesk(t, faulty), newDesk(t, s)
		hers := here.start(start("alice"))
		faulty.noWatch.Store(true)
		faulty.endWatches()
		synctest.Wait()
		here.opens(hers, authHost, "alice", "")
		time.Sleep(rewatch)
		if _, err := there.NotBefore(there.ctx, alice); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rewatch)
		here.opens(hers, authHost, "", access.SessionEnded)
		faulty.noList.Store(true)
		time.Sleep(rewatch)
		if _, err := here.Revoked("x", "y", time.Now()); access.ReasonOf(err) != access.StoreUnavailable {
			t.Error(err)
		}
		here.opens(hers, authHost, "", access.StoreUnavailable)
		if _, err := New(Options{Store: faulty}); err == nil {
			t.Error("a replica starts without knowing what is revoked")
		}
	})
}

// A record that cannot be understood may be about anybody. Everybody logs in once
// more, and an operator can find and lift it.
func TestDamagedRevocationIsAboutEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		here := newDesk(t, s)
		hers := here.start(start("alice"))
		time.Sleep(time.Second)
		if _, err := s.Put(here.ctx, store.Item{Key: revokedPrefix + "x", Value: []byte("{"), Version: store.Any}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		here.opens(hers, authHost, "", access.SessionEnded)
		time.Sleep(time.Second)
		fresh := here.start(start("alice"))
		if err := here.revocations.begin(here.ctx); err != nil { // read once more
			t.Fatal(err)
		}
		here.opens(fresh, authHost, "alice", "")
		if !strings.Contains(here.log.String(), "damaged") {
			t.Error("nobody was told")
		}
		if known, err := here.Lift(here.ctx, "x"); !known || err != nil {
			t.Error(known, err)
		}
		synctest.Wait()
		here.opens(hers, authHost, "alice", "")
	})
}

// Two replicas revoke the same at once, one of them for an older event: what the
// later one made worthless stays so.
func TestOlderRevocationDoesNotOvertakeALaterOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory(t)
		slow := &faultyStore{Store: s}
		here, there := newDesk(t, slow), newDesk(t, s)
		event := alice
		event.At = time.Now()
		time.Sleep(time.Second)
		hers := here.start(start("alice"))
		time.Sleep(time.Second)
		meanwhile := func(item store.Item) error {
			slow.failPut.Store(nil)
			_, err := there.NotBefore(there.ctx, alice)
			return err
		}
		slow.failPut.Store(&meanwhile)
		if r, err := here.NotBefore(here.ctx, event); err != nil || !r.At.Equal(time.Now()) {
			t.Errorf("%+v %v", r, err)
		}
		synctest.Wait()
		for _, d := range []*desk{here, there} {
			d.opens(hers, authHost, "", access.SessionEnded)
		}
	})
}

// Of several revocations of everything, one of them a record that is damaged, the
// latest counts.
func TestLatestRevocationOfEverythingCounts(t *testing.T) {
	now := time.Now()
	for range 64 { // maps have no order
		l := newRevokedList(map[string]access.Revocation{
			"all":     {All: true, At: now, Until: now.Add(revokedFor)},
			"damaged": {All: true, At: now.Add(-time.Hour), Until: now.Add(revokedFor)},
		}, now)
		if !l.all.Equal(now) {
			t.Fatalf("%s counts, not %s", l.all, now)
		}
	}
}

// A record that can be read and is not what was stored under its name is damaged
// like one that cannot: it does not pass for nothing.
func TestRevocationOfAnotherNameIsDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, text := range []string{"null", "{}", `{"id":"y","all":true}`} {
			s := memory(t)
			here := newDesk(t, s)
			hers := here.start(start("alice"))
			time.Sleep(time.Second)
			if _, err := s.Put(here.ctx, store.Item{Key: revokedPrefix + "x", Value: []byte(text), Version: store.Any}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			here.opens(hers, authHost, "", access.SessionEnded)
			if list, err := here.Revocations(); err != nil || len(list) != 1 || list[0].ID != "x" {
				t.Errorf("%s: %+v, %v", text, list, err)
			}
		}
	})
}

func TestRevocationsOfNothingAndOfTooMuch(t *testing.T) {
	here := newDesk(t, memory(t))
	for _, r := range []access.Revocation{{}, {Issuer: "https://login.example"}, {Subject: "alice"}} {
		if _, err := here.NotBefore(here.ctx, r); err == nil {
			t.Errorf("%+v was accepted", r)
		}
	}
	full := newRevokedList(map[string]access.Revocation{}, time.Now())
	for i := range maxRevocations {
		full.byID[strings.Repeat("x", i)] = access.Revocation{}
	}
	here.revocations.known.Store(full)
	if _, err := here.NotBefore(here.ctx, alice); err == nil || !strings.Contains(err.Error(), "lift") {
		t.Error(err)
	}
	if _, err := here.NotBefore(here.ctx, access.Revocation{All: true}); err != nil {
		t.Error("the last resort is refused:", err)
	}
}

func TestMachinesLeaveRoomForRevocationsByPeople(t *testing.T) {
	here := newDesk(t, memory(t))
	storm := newRevokedList(map[string]access.Revocation{}, time.Now())
	for i := range maxRevocations - forOperators {
		storm.byID[strings.Repeat("x", i)] = access.Revocation{}
	}
	here.revocations.known.Store(storm)
	if _, err := here.ReportedNotBefore(here.ctx, alice); err == nil {
		t.Error("a machine filled the list")
	}
	if _, err := here.NotBefore(here.ctx, alice); err != nil {
		t.Error("an operator was refused:", err)
	}
}
