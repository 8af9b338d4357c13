package session

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

func TestHandoverCodeWorksOnceUnderConcurrency(t *testing.T) {
	d := newDesk(t, memory(t))
	root := d.start(start("alice"))
	verifier, challenge := pkce()
	code, err := d.Handover(d.ctx, root, appHost, challenge)
	if err != nil {
		t.Fatal(err)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			secret, e, err := d.Redeem(d.ctx, code, appHost, verifier, "")
			switch {
			case err == nil && e.Identity.Subject == "alice":
				won.Add(1)
				d.opens(secret, appHost, "alice", "")
			case access.ReasonOf(err) != access.LoginStateUnknown || secret != "" || e != nil:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("redeemed %d times", won.Load())
	}
}

// A wrong attempt uses the code up: whoever intercepted it has one guess.
func TestHandoverWrongAttemptBurnsTheCode(t *testing.T) {
	d := newDesk(t, memory(t))
	root := d.start(start("alice"))
	verifier, challenge := pkce()
	for name, try := range map[string]struct{ origin, verifier string }{
		"origin":            {otherApp, verifier},
		"empty origin":      {"", verifier},
		"verifier":          {appHost, strings.Repeat("w", 43)},
		"empty verifier":    {appHost, ""},
		"challenge instead": {appHost, challenge},
		"long verifier":     {appHost, strings.Repeat("v", 129)},
	} {
		code, err := d.Handover(d.ctx, root, appHost, challenge)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Redeem(d.ctx, code, try.origin, try.verifier, ""); access.ReasonOf(err) != access.LoginStateUnknown {
			t.Errorf("wrong %s: %v", name, err)
		}
		if _, _, err := d.Redeem(d.ctx, code, appHost, verifier, ""); access.ReasonOf(err) != access.LoginStateUnknown {
			t.Errorf("after a wrong %s the code still works: %v", name, err)
		}
	}
	if n := d.count(codePrefix) + d.count(ticketPrefix); n != 1 {
		t.Errorf("%d codes and tickets", n)
	}
}

func TestHandoverCodeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, memory(t))
		root := d.start(start("alice"))
		verifier, challenge := pkce()
		code, _ := d.Handover(d.ctx, root, appHost, challenge)
		time.Sleep(codeLifetime)
		if _, _, err := d.Redeem(d.ctx, code, appHost, verifier, ""); access.ReasonOf(err) != access.LoginStateUnknown {
			t.Error(err)
		}
		code, _ = d.Handover(d.ctx, root, appHost, challenge)
		if _, err := d.End(d.ctx, root, ""); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Redeem(d.ctx, code, appHost, verifier, ""); access.ReasonOf(err) != access.SessionEnded {
			t.Errorf("after the logout: %v", err)
		}
		idle := d.start(start("bob"))
		time.Sleep(time.Hour - 30*time.Second)
		e, _ := d.load(idle, authHost)
		late, err := d.Handover(d.ctx, idle, appHost, challenge)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.update(d.ctx, e.Session.ID, func(rec *loginRecord) error { rec.Expires = time.Now(); return nil }); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Redeem(d.ctx, late, appHost, verifier, ""); access.ReasonOf(err) != access.SessionExpired {
			t.Errorf("after the end: %v", err)
		}
		if _, err := d.Handover(d.ctx, idle, appHost, challenge); access.ReasonOf(err) != access.SessionExpired {
			t.Errorf("hand-over of an expired session: %v", err)
		}
	})
}

func TestHandoverRefusesWhatIsNoCodeOrChallenge(t *testing.T) {
	faulty := &faultyStore{Store: memory(t)}
	d := newDesk(t, faulty)
	root := d.start(start("alice"))
	_, challenge := pkce()
	for _, c := range []struct{ origin, challenge string }{
		{"", challenge}, {appHost, ""}, {appHost, "plain"}, {appHost, challenge + "="}, {strings.Repeat("x", maxOrigin+1), challenge},
	} {
		if _, err := d.Handover(d.ctx, root, c.origin, c.challenge); access.ReasonOf(err) != access.LoginStateUnknown {
			t.Errorf("%.40q: %v", c, err)
		}
	}
	faulty.reads.Store(0)
	for _, code := range []string{"", "x", strings.Repeat("a", 44), strings.Repeat("\n", 43), root + root} {
		if _, _, err := d.Redeem(d.ctx, code, appHost, challenge, ""); access.ReasonOf(err) != access.LoginStateUnknown {
			t.Errorf("%.40q: %v", code, err)
		}
	}
	if faulty.reads.Load() != 0 {
		t.Error("the store was asked for codes that cannot be")
	}
	for _, secret := range []string{"", "x", challenge} {
		if _, err := d.Handover(d.ctx, secret, appHost, challenge); access.ReasonOf(err) != access.LoginRequired {
			t.Errorf("%q: %v", secret, err)
		}
	}
	// A cookie is no code and a code no cookie.
	if _, _, err := d.Redeem(d.ctx, root, appHost, challenge, ""); access.ReasonOf(err) != access.LoginStateUnknown {
		t.Error(err)
	}
	code, _ := d.Handover(d.ctx, root, appHost, challenge)
	d.opens(code, appHost, "", access.LoginRequired)
}

func TestRedeemReplacesThePreviousTicket(t *testing.T) {
	d := newDesk(t, memory(t))
	root := d.start(start("alice"))
	first := d.handOver(root, appHost, "")
	elsewhere := d.handOver(root, otherApp, "")
	second := d.handOver(root, appHost, first)
	d.opens(first, appHost, "", access.LoginRequired)
	d.opens(second, appHost, "alice", "")
	third := d.handOver(root, appHost, elsewhere) // not of this origin: left alone
	d.opens(elsewhere, otherApp, "alice", "")
	d.opens(third, appHost, "alice", "")
	if n := d.count(ticketPrefix); n != 4 {
		t.Errorf("%d tickets", n)
	}
}

// A visitor who collects tickets replaces their own.
func TestTicketsOfALoginAreBounded(t *testing.T) {
	d := newDesk(t, memory(t))
	root := d.start(start("alice"))
	var last string
	var early []string
	for i := range maxTickets + 10 {
		last = d.handOver(root, fmt.Sprintf("https://app%d.example", i), "")
		if i < 5 {
			early = append(early, last)
		}
	}
	if n := d.count(ticketPrefix); n != maxTickets+1 {
		t.Errorf("%d tickets", n)
	}
	for i, secret := range early {
		d.opens(secret, fmt.Sprintf("https://app%d.example", i), "", access.LoginRequired)
	}
	d.opens(root, authHost, "alice", "")
	d.opens(last, fmt.Sprintf("https://app%d.example", maxTickets+9), "alice", "")
}

// Someone who can write the store cannot make one cookie open what another does,
// because what a ticket says is sealed together with its key.
func TestRecordsCannotBeSwapped(t *testing.T) {
	s := memory(t)
	d := newDesk(t, s)
	al, bo := start("alice"), start("bob")
	al.Tokens.Refresh, bo.Tokens.Refresh = "r-alice", "r-bob"
	alice, bob := d.start(al), d.start(bo)
	app := d.handOver(bob, appHost, "")
	bobs, _ := d.load(bob, authHost)
	edit := func(secret string, change func(*ticketRecord)) {
		t.Helper()
		hash, _ := digest(secret)
		tk, err := d.readTicket(d.ctx, hash, secret)
		if err != nil {
			t.Fatal(err)
		}
		rec := tk.ticketRecord
		change(&rec)
		if _, err := d.putRecord(d.ctx, ticketPrefix+tk.hash, &rec, store.Any, time.Time{}); err != nil {
			t.Fatal(err)
		}
		fresh := newDesk(t, s)
		for _, origin := range []string{authHost, appHost, otherApp} {
			fresh.opens(secret, origin, "", access.LoginRequired)
		}
		if _, err := d.putRecord(d.ctx, ticketPrefix+tk.hash, &tk.ticketRecord, store.Any, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	bobHash, _ := digest(bob)
	bobTicket, _ := d.readTicket(d.ctx, bobHash, bob)
	edit(alice, func(r *ticketRecord) { *r = bobTicket.ticketRecord })
	edit(alice, func(r *ticketRecord) { r.Login = bobs.Session.ID })
	edit(alice, func(r *ticketRecord) { r.Key = bobTicket.Key })
	edit(app, func(r *ticketRecord) { r.Origin = otherApp })
	edit(app, func(r *ticketRecord) { r.Root = true })
	edit(app, func(r *ticketRecord) { r.Key = nil })

	// Sealed tokens moved to another login do not open there.
	e, _ := d.load(alice, authHost)
	from, _, _ := d.readLogin(d.ctx, bobs.Session.ID)
	if _, err := d.update(d.ctx, e.Session.ID, func(rec *loginRecord) error { rec.Tokens = from.Tokens; return nil }); err != nil {
		t.Fatal(err)
	}
	if ended, err := d.End(d.ctx, alice, ""); err != nil || ended.RefreshToken != "" {
		t.Errorf("%q, %v", ended.RefreshToken, err)
	}
}

func TestDamagedRecordsRefuseAndCanBeRemoved(t *testing.T) {
	for _, bad := range []string{"", "{", "null", "[]", `{"login":7}`, `{}`} {
		s := memory(t)
		d := newDesk(t, s)
		secret := d.start(start("alice"))
		e, _ := d.load(secret, authHost)
		put := func(key string) {
			if _, err := s.Put(d.ctx, store.Item{Key: key, Value: []byte(bad), Version: store.Any}); err != nil {
				t.Fatal(err)
			}
		}
		put(loginPrefix + e.Session.ID)
		fresh := newDesk(t, s)
		fresh.opens(secret, authHost, "", access.LoginRequired)
		again := start("alice")
		again.Previous = secret
		second := fresh.start(again) // logging in again works
		fresh.opens(second, authHost, "alice", "")

		e, _ = fresh.load(second, authHost)
		put(loginPrefix + e.Session.ID)
		if n, err := fresh.Revoke(d.ctx, Match{Issuer: again.Identity.Issuer, Subject: "alice"}, access.SessionEnded, "admin"); n != 2 || err != nil {
			t.Errorf("%q: %d revoked, %v", bad, n, err)
		}
		third := fresh.start(start("alice"))
		put(ticketPrefix + hashOf(third))
		newDesk(t, s).opens(third, authHost, "", access.LoginRequired)
		put(codePrefix + hashOf(third))
		if _, _, err := fresh.Redeem(d.ctx, third, appHost, third, ""); access.ReasonOf(err) != access.LoginStateUnknown {
			t.Errorf("%q as a code: %v", bad, err)
		}
	}
}
