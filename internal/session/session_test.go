package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

func TestStartLoadEnd(t *testing.T) {
	d := newDesk(t, memory(t))
	s := start("alice")
	s.Tokens.Refresh = "refresh-of-alice"
	secret := d.start(s)
	e, reason := d.load(secret, authHost)
	if reason != "" {
		t.Fatal(reason)
	}
	if fmt.Sprint(e.Identity.Groups) != "[eng sre]" || e.Identity.Claims["n"] != 7.0 || !e.Identity.Login.Time.Equal(s.Identity.Login.Time) {
		t.Errorf("identity %+v", e.Identity)
	}
	if got := e.Session.Expires.Sub(e.Session.Created); got != 10*time.Hour {
		t.Errorf("lifetime %v", got)
	}
	ended, err := d.End(d.ctx, secret, access.SessionEnded)
	if err != nil || ended.Provider != "corp" || ended.IDToken != s.Tokens.ID || ended.RefreshToken != s.Tokens.Refresh || ended.Identity.Subject != "alice" {
		t.Errorf("ended: %q %q %q, %v", ended.Provider, ended.IDToken, ended.RefreshToken, err)
	}
	d.opens(secret, authHost, "", access.LoginRequired)
	if _, err := d.End(d.ctx, secret, access.SessionEnded); access.ReasonOf(err) != access.LoginRequired {
		t.Errorf("second end: %v", err)
	}
	if got := fmt.Sprint(d.kinds()); got != "[logout/session_ended corp:alice ]" {
		t.Errorf("events %v", got)
	}
	if n := d.count(""); n != 0 {
		t.Errorf("%d items stayed behind", n)
	}
}

func TestMalformedCookiesAreRefusedBeforeHashing(t *testing.T) {
	faulty := &faultyStore{Store: memory(t)}
	d := newDesk(t, faulty)
	secret := d.start(start("alice"))
	faulty.reads.Store(0)
	for _, bad := range []string{
		"", "x", secret[:42], secret + "A", secret[:42] + "!", secret[:42] + "=", secret[:42] + "\n", secret[:42] + "_",
		"\n" + secret[1:], strings.Repeat("é", 21) + "e", strings.Repeat("A", 1<<20), strings.Repeat("\x00", 43),
	} {
		if bad == secret {
			continue
		}
		if _, ok := digest(bad); ok && bad[:42] != secret[:42] {
			t.Errorf("%.50q passed", bad)
		}
		if e, reason := d.load(bad, authHost); e != nil || reason != access.LoginRequired {
			t.Errorf("%.50q: %v", bad, reason)
		}
	}
	if n := faulty.reads.Load(); n > 1 {
		t.Errorf("%d reads of the store", n)
	}
}

// Guessed cookies cost one read each, and nothing that stays.
func TestUnknownCookiesLeaveNothingBehind(t *testing.T) {
	faulty := &faultyStore{Store: memory(t)}
	d := newDesk(t, faulty)
	d.start(start("alice"))
	faulty.reads.Store(0)
	faulty.writes.Store(0)
	const n = 2000
	for range n {
		d.opens(d.guess(), authHost, "", access.LoginRequired)
	}
	if reads, writes := faulty.reads.Load(), faulty.writes.Load(); reads != n || writes != 0 {
		t.Errorf("%d guesses: %d reads, %d writes", n, reads, writes)
	}
	for i := range d.cache.tickets {
		if n := d.cache.tickets[i].len(); n != 0 {
			t.Errorf("shard %d holds %d guesses", i, n)
		}
	}
	if d.log.Len() != 0 {
		t.Errorf("guesses fill the log: %.200s", d.log.String())
	}
}

func TestTicketOpensOnlyItsOrigin(t *testing.T) {
	d := newDesk(t, memory(t))
	root := d.start(start("alice"))
	app := d.handOver(root, appHost, "")
	for _, c := range []struct{ secret, origin string }{
		{app, authHost}, {app, otherApp}, {root, appHost}, {app, ""}, {app, appHost + ":443"}, {app, "http://app.example"}, {app, "HTTPS://app.example"},
	} {
		d.opens(c.secret, c.origin, "", access.LoginRequired)
	}
	d.opens(app, appHost, "alice", "")
	d.opens(root, authHost, "alice", "")
	// The cookie stolen from one application cannot be handed over to another.
	_, challenge := pkce()
	if _, err := d.Handover(d.ctx, app, otherApp, challenge); access.ReasonOf(err) != access.LoginRequired {
		t.Errorf("handing on a ticket: %v", err)
	}
}

func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, memory(t))
		secret := d.start(start("alice"))
		// Used now and then it lives to its absolute end, and not a moment longer.
		for range 20 {
			d.opens(secret, authHost, "alice", "")
			time.Sleep(30 * time.Minute)
		}
		d.opens(secret, authHost, "", access.SessionExpired)

		idle := d.start(start("bob"))
		time.Sleep(time.Hour - time.Second)
		d.opens(idle, authHost, "bob", "")
		time.Sleep(time.Hour)
		d.opens(idle, authHost, "", access.SessionExpired)
		d.opens(idle, authHost, "", access.SessionExpired) // asking does not count as use

		s := start("carol")
		s.NotAfter = time.Now().Add(10 * time.Minute)
		short := d.start(s)
		time.Sleep(10*time.Minute - 1)
		d.opens(short, authHost, "carol", "")
		time.Sleep(1)
		d.opens(short, authHost, "", access.SessionExpired)
		s.NotAfter = time.Now()
		if _, _, err := d.Start(d.ctx, s); access.ReasonOf(err) != access.SessionExpired {
			t.Errorf("a login that is already over: %v", err)
		}
	})
}

// The last use reaches the store often enough for a restart, and not at every
// request.
func TestLastUseIsPersistedLazily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := &faultyStore{Store: memory(t)}
		d := newDesk(t, faulty)
		secret := d.start(start("alice"))
		faulty.writes.Store(0)
		for range 3600 { // an hour of clicking
			d.opens(secret, authHost, "alice", "")
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if n := faulty.writes.Load(); n < 9 || n > 11 {
			t.Errorf("%d writes in an hour, want about 10", n)
		}
		d.Close()
		again := newDesk(t, faulty)
		time.Sleep(53 * time.Minute)
		again.opens(secret, authHost, "alice", "")
		time.Sleep(time.Hour)
		again.opens(secret, authHost, "", access.SessionExpired)
	})
}

// Reading a login again must not forget a use that only memory knows of.
func TestUseSurvivesReadingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, memory(t))
		secret := d.start(start("alice"))
		time.Sleep(5 * time.Minute)
		e, _ := d.load(secret, authHost) // too early to be stored
		time.Sleep(58 * time.Minute)
		d.cache.loginShard(e.Session.ID).drop(e.Session.ID)
		d.opens(secret, authHost, "alice", "")
	})
}

// As in GHSA-f24x: a cookie from before a login must not be worth more after it.
func TestSessionFixationNewSecretAtEveryLogin(t *testing.T) {
	d := newDesk(t, memory(t))
	first := d.start(start("alice"))
	app := d.handOver(first, appHost, "")
	id, _ := d.load(first, authHost)

	stepUp := start("alice")
	stepUp.Previous = first
	stepUp.SID = "another"
	stepUp.Identity.Login.ACR = "phr"
	second := d.start(stepUp)
	if second == first {
		t.Fatal("the same secret again")
	}
	d.opens(first, authHost, "", access.LoginRequired)
	// One login, stronger for all its tickets.
	for secret, origin := range map[string]string{second: authHost, app: appHost} {
		e, reason := d.load(secret, origin)
		if reason != "" || e.Session.ID != id.Session.ID || e.Identity.Login.ACR != "phr" {
			t.Errorf("after the step-up: %+v, %s", e, reason)
		}
	}
	if n := d.count(sidPrefix); n != 1 {
		t.Errorf("%d provider sessions", n)
	}
	// Another origin's cookie is not this origin's previous one.
	elsewhere := start("alice")
	elsewhere.Previous = app
	third := d.start(elsewhere)
	d.opens(app, appHost, "alice", "")
	if e, _ := d.load(third, authHost); e.Session.ID == id.Session.ID {
		t.Error("a cookie of another origin was taken for the previous one")
	}
}

func TestPlantedCookieOfAnotherPersonEndsThatLogin(t *testing.T) {
	d := newDesk(t, memory(t))
	mallory := d.start(start("mallory"))
	malloryApp := d.handOver(mallory, appHost, "")
	s := start("alice")
	s.Previous = mallory
	alice := d.start(s)
	d.opens(alice, authHost, "alice", "")
	d.opens(mallory, authHost, "", access.LoginRequired)
	d.opens(malloryApp, appHost, "", access.LoginRequired)
	if got := fmt.Sprint(d.kinds()); got != "[logout/session_ended corp:mallory another person logged in with the same browser]" {
		t.Error(got)
	}
	// The same sub of another issuer is another person.
	s = start("alice")
	s.Identity.Issuer, s.Previous = "https://partner.example", alice
	partner := d.start(s)
	if e, _ := d.load(partner, authHost); e.Identity.Issuer != "https://partner.example" {
		t.Error("issuers were mixed")
	}
	if n := d.count(loginPrefix); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestStepUpKeepsTheRefreshTokenTheProviderDidNotRepeat(t *testing.T) {
	d := newDesk(t, memory(t))
	s := start("alice")
	s.Tokens = Tokens{Refresh: "r1", ID: "i1", Expires: d.now().Add(time.Hour)}
	s.Previous = d.start(s)
	s.Tokens = Tokens{ID: "i2", Expires: d.now().Add(time.Hour)}
	s.Previous = d.start(s)
	s.Identity.Provider = "corp-mobile" // another client of the same issuer
	s.Tokens.ID = "i3"
	other := d.start(s)
	ended, err := d.End(d.ctx, other, "")
	if err != nil || ended.RefreshToken != "" || ended.IDToken != "i3" {
		t.Errorf("a refresh token went to another client: %q, %q, %v", ended.RefreshToken, ended.IDToken, err)
	}
	s = start("alice")
	s.Tokens = Tokens{Refresh: "r1", Expires: d.now().Add(time.Hour)}
	s.Previous = d.start(s)
	s.Tokens = Tokens{ID: "i2"}
	if ended, _ := d.End(d.ctx, d.start(s), ""); ended.RefreshToken != "r1" || ended.IDToken != "i2" {
		t.Errorf("after the step-up: %q, %q", ended.RefreshToken, ended.IDToken)
	}
}

func TestOversizedIdentitiesAreRefusedNotShortened(t *testing.T) {
	d := newDesk(t, memory(t))
	claims := start("alice")
	claims.Identity.Claims["big"] = strings.Repeat("x", maxClaims)
	groups := start("alice")
	groups.Identity.Groups = strings.Split(strings.Repeat("group,", maxIdentity/6), ",")
	for i := range groups.Identity.Groups {
		groups.Identity.Groups[i] += fmt.Sprint(i)
	}
	tokens := start("alice")
	tokens.Tokens.ID = strings.Repeat("x", maxTokens+1)
	loop := start("alice")
	loop.Identity.Claims["f"] = func() {}
	for want, s := range map[string]Start{
		"fewer claims": claims, "fewer groups": groups, "smaller ones": tokens, "cannot be kept": loop,
		"needs provider": {Origin: authHost, Identity: access.Identity{Provider: "corp", Issuer: "x"}},
	} {
		_, e, err := d.Start(d.ctx, s)
		if e != nil || access.ReasonOf(err) != access.LoginFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if n := d.count(""); n != 0 {
		t.Errorf("%d items", n)
	}
}

func TestRevokeBySubjectSessionOrLogin(t *testing.T) {
	d := newDesk(t, memory(t))
	a1, a2, b := d.start(start("alice")), d.start(start("alice")), d.start(start("bob"))
	other := start("alice")
	other.Identity.Issuer = "https://partner.example"
	p := d.start(other)
	e, _ := d.load(b, authHost)
	const issuer = "https://login.example"
	for _, c := range []struct {
		match Match
		want  int
		ok    bool
	}{
		{Match{}, 0, false},
		{Match{Issuer: issuer}, 0, false},
		{Match{Subject: "alice"}, 0, false},
		{Match{SID: "sid-of-alice"}, 0, false},
		{Match{Issuer: issuer, Subject: "nobody"}, 0, true},
		{Match{Issuer: issuer, SID: "sid-of-alice", Subject: "bob"}, 0, true},
		{Match{LoginID: "unknown"}, 0, true},
		{Match{LoginID: e.Session.ID, Issuer: issuer, Subject: "alice"}, 0, true},
		{Match{Issuer: issuer, Subject: "alice"}, 2, true},
		{Match{Issuer: issuer, Subject: "alice"}, 0, true},
		{Match{Issuer: issuer, SID: "sid-of-bob"}, 1, true},
	} {
		n, err := d.Revoke(d.ctx, c.match, access.SessionEnded, "admin")
		if n != c.want || (err == nil) != c.ok {
			t.Errorf("%+v: %d, %v", c.match, n, err)
		}
	}
	for _, secret := range []string{a1, a2, b} {
		d.opens(secret, authHost, "", access.SessionEnded)
	}
	d.opens(p, authHost, "alice", "")
	if got := d.kinds(); len(got) != 3 || got[2] != "session/session_ended corp:bob revoked by admin" {
		t.Errorf("%q", got)
	}
	e, _ = d.load(p, authHost)
	if n, err := d.Revoke(d.ctx, Match{LoginID: e.Session.ID}, access.SessionEnded, "admin"); n != 1 || err != nil {
		t.Error(n, err)
	}
	d.opens(p, authHost, "", access.SessionEnded)
}

func TestErrorsWrapTheOperatorsCause(t *testing.T) {
	if err := storeError(errDisk); !errors.Is(err, store.ErrUnavailable) || access.ReasonOf(err) != access.StoreUnavailable {
		t.Error(err)
	}
	if err := storeError(context.Canceled); access.ReasonOf(err) != access.ClientGone {
		t.Error(err)
	}
	if err := storeError(nil); err != nil {
		t.Error(err)
	}
}
