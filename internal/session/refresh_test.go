package session

import (
	"context"
	"errors"
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

// provider is a Refresher that rotates its tokens and takes one that comes back
// for stolen, as providers do.
type provider struct {
	calls  atomic.Int32
	takes  time.Duration
	life   time.Duration
	answer func(id *access.Identity, t *Tokens) error

	mu    sync.Mutex
	valid map[string]bool // refresh tokens; false: used up
}

func newProvider() *provider {
	return &provider{life: 10 * time.Minute, valid: map[string]bool{"r0": true}}
}

var errInvalidGrant = access.Because(access.SessionEnded, errors.New("invalid_grant"))

func (p *provider) Refresh(ctx context.Context, id string, held Tokens, known *access.Identity) (access.Identity, Tokens, error) {
	n := p.calls.Add(1)
	if p.takes > 0 && !pause(ctx, p.takes) {
		return access.Identity{}, Tokens{}, ctx.Err()
	}
	identity := *known
	identity.Groups = append([]string{fmt.Sprintf("call%d", n)}, known.Groups...)
	tokens := Tokens{Refresh: fmt.Sprintf("r%d", n), ID: fmt.Sprintf("i%d", n), Expires: time.Now().Add(p.life)}
	if p.answer != nil {
		if err := p.answer(&identity, &tokens); err != nil {
			return access.Identity{}, Tokens{}, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if id != "corp" || !p.valid[held.Refresh] {
		return access.Identity{}, Tokens{}, errInvalidGrant
	}
	p.valid[held.Refresh] = false
	p.valid[tokens.Refresh] = true
	return identity, tokens, nil
}

func refreshable(sub string) Start {
	s := start(sub)
	s.Tokens = Tokens{Refresh: "r0", ID: "i0", Expires: time.Now().Add(10 * time.Minute)}
	return s
}

func with(r Refresher) func(*Options) { return func(o *Options) { o.Refresher = r } }

func TestRefreshTime(t *testing.T) {
	issued := time.Unix(1_000_000, 0)
	for life, want := range map[time.Duration]time.Duration{
		time.Hour:        48 * time.Minute,
		10 * time.Minute: 8 * time.Minute,
		4 * time.Minute:  3 * time.Minute,
		time.Minute:      30 * time.Second,
		0:                time.Second,
		-time.Hour:       time.Second,
	} {
		if got := refreshTime(issued, issued.Add(life)).Sub(issued); got != want {
			t.Errorf("a token that lives %v is refreshed after %v, want %v", life, got, want)
		}
	}
}

// oauth2-proxy #1992: parallel requests that each redeem the one refresh token
// kill the session.
func TestRefreshStampedeRedeemsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.takes = time.Second
		faulty := &faultyStore{Store: memory(t)}
		d := newDesk(t, faulty, with(p))
		secret := d.start(refreshable("alice"))
		for _, wait := range []time.Duration{9 * time.Minute, 2 * time.Minute, 11 * time.Minute} {
			before := p.calls.Load()
			time.Sleep(wait)
			faulty.reads.Store(0)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { d.opens(secret, authHost, "alice", "") })
			}
			wg.Wait()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if n := p.calls.Load() - before; n > 1 {
				t.Errorf("after %v: %d redeems", wait, n)
			}
			if n := faulty.reads.Load(); n > 10 {
				t.Errorf("after %v: %d reads of the store by 100 requests", wait, n)
			}
		}
		if n := p.calls.Load(); n != 2 {
			t.Errorf("%d redeems in all", n)
		}
		if got := d.kinds(); len(got) != 2 || got[0] != "session/ corp:alice identity refreshed" {
			t.Errorf("events %q", got)
		}
	})
}

func TestRefreshAheadDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.takes = 10 * time.Second
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		time.Sleep(8*time.Minute - time.Second)
		d.opens(secret, authHost, "alice", "")
		if p.calls.Load() != 0 {
			t.Error("refreshed before it was due")
		}
		time.Sleep(2 * time.Second)
		began := time.Now()
		e, _ := d.load(secret, authHost)
		if time.Since(began) != 0 || fmt.Sprint(e.Identity.Groups) != "[eng sre]" {
			t.Errorf("waited %v for %v", time.Since(began), e.Identity.Groups)
		}
		time.Sleep(11 * time.Second)
		if e, _ = d.load(secret, authHost); fmt.Sprint(e.Identity.Groups) != "[call1 eng sre]" {
			t.Errorf("after the refresh: %v", e.Identity.Groups)
		}
	})
}

func TestAfterExpiryRequestsWaitAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.takes = 3 * time.Second
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		time.Sleep(11 * time.Minute)
		began := time.Now()
		e, _ := d.load(secret, authHost)
		if time.Since(began) != 3*time.Second || fmt.Sprint(e.Identity.Groups) != "[call1 eng sre]" {
			t.Errorf("after %v: %v", time.Since(began), e.Identity.Groups)
		}
		p.takes = 15 * time.Second
		time.Sleep(11 * time.Minute)
		began = time.Now()
		e, _ = d.load(secret, authHost)
		if time.Since(began) != refreshWait || fmt.Sprint(e.Identity.Groups) != "[call1 eng sre]" {
			t.Errorf("after %v: %v", time.Since(began), e.Identity.Groups)
		}
		time.Sleep(15 * time.Second)
		if e, _ = d.load(secret, authHost); fmt.Sprint(e.Identity.Groups) != "[call1 call2 eng sre]" {
			t.Errorf("the slow answer was thrown away: %v", e.Identity.Groups)
		}
	})
}

func TestTemporaryFailureKeepsTheSessionAndBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		down := true
		p.answer = func(*access.Identity, *Tokens) error {
			if down {
				return access.Because(access.ProviderUnavailable, errors.New("connection refused"))
			}
			return nil
		}
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		time.Sleep(9 * time.Minute)
		for range 3000 { // 50 minutes of outage, one request per second
			d.opens(secret, authHost, "alice", "")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := p.calls.Load(); n < 10 || n > 20 {
			t.Errorf("%d attempts during the outage", n)
		}
		down = false
		time.Sleep(lastRetry)
		d.opens(secret, authHost, "alice", "")
		if e, _ := d.load(secret, authHost); !strings.HasPrefix(e.Identity.Groups[0], "call") {
			t.Errorf("not refreshed after the outage: %v", e.Identity.Groups)
		}
		if len(d.kinds()) != 1 {
			t.Errorf("events %q", d.kinds())
		}
	})
}

func TestInvalidGrantEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.answer = func(*access.Identity, *Tokens) error { return fmt.Errorf("token endpoint: %w", errInvalidGrant) }
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		app := d.handOver(secret, appHost, "")
		time.Sleep(11 * time.Minute)
		d.opens(secret, authHost, "", access.SessionEnded)
		d.opens(app, appHost, "", access.SessionEnded)
		if got := fmt.Sprint(d.kinds()); got != "[session/session_ended corp:alice the provider ended the session]" {
			t.Error(got)
		}
		if n := d.count(loginPrefix); n != 0 {
			t.Errorf("%d logins", n)
		}
	})
}

func TestRefreshForAnotherPersonEndsTheSession(t *testing.T) {
	for name, change := range map[string]func(*access.Identity){
		"sub":    func(id *access.Identity) { id.Subject = "mallory" },
		"issuer": func(id *access.Identity) { id.Issuer = "https://evil.example" },
		"nobody": func(id *access.Identity) { *id = access.Identity{} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider()
				p.answer = func(id *access.Identity, _ *Tokens) error { change(id); return nil }
				d := newDesk(t, memory(t), with(p))
				secret := d.start(refreshable("alice"))
				time.Sleep(11 * time.Minute)
				d.opens(secret, authHost, "", access.SessionEnded)
				if got := fmt.Sprint(d.kinds()); got != "[session/session_ended corp:alice the provider answered a refresh for another person]" {
					t.Error(got)
				}
			})
		})
	}
}

// Pomerium #4759: background jobs forget which provider a session came from. And
// a refresh must not pass for a login.
func TestRefreshKeepsProviderAndLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.answer = func(id *access.Identity, tokens *Tokens) error {
			id.Provider = "elsewhere"
			id.Login = access.Login{Time: time.Now(), ACR: "phr", AMR: []string{"hwk"}}
			id.Email = "new@example.com"
			tokens.Refresh, tokens.ID = "", "" // both may be left out: the old ones hold
			return nil
		}
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		time.Sleep(11 * time.Minute)
		e, _ := d.load(secret, authHost)
		if e.Identity.Provider != "corp" || e.Identity.Login.ACR != "pwd" || e.Identity.Email != "new@example.com" {
			t.Errorf("%+v", e.Identity)
		}
		ended, err := d.End(d.ctx, secret, "")
		if err != nil || ended.RefreshToken != "r0" || ended.IDToken != "i0" {
			t.Errorf("%q, %q, %v", ended.RefreshToken, ended.IDToken, err)
		}
	})
}

func TestReplicasShareOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.takes = 2 * time.Second
		s := memory(t)
		a, b := newDesk(t, s, with(p)), newDesk(t, s, with(p))
		secret := a.start(refreshable("alice"))
		a.opens(secret, authHost, "alice", "")
		b.opens(secret, authHost, "alice", "")
		for range 3 {
			time.Sleep(11 * time.Minute)
			before := p.calls.Load()
			var wg sync.WaitGroup
			for _, d := range []*desk{a, b} {
				for range 20 {
					wg.Go(func() {
						if e, why := d.load(secret, authHost); why != "" || e.Identity.Groups[0] != "call1" {
							t.Errorf("%s: %+v", why, e)
						}
					})
				}
			}
			wg.Wait()
			if n := p.calls.Load() - before; n != 1 {
				t.Errorf("%d redeems", n)
			}
		}
	})
}

// The one that comes second sees the other's outcome, also before the store has
// said anything.
func TestRefreshByAnotherReplicaIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		deaf := silent(memory(t))
		here, there := newDesk(t, deaf, with(p)), newDesk(t, deaf.Store, with(p))
		secret := here.start(refreshable("alice"))
		here.opens(secret, authHost, "alice", "")
		time.Sleep(11 * time.Minute)
		there.opens(secret, authHost, "alice", "")
		e, why := here.load(secret, authHost)
		if why != "" || e.Identity.Groups[0] != "call1" || p.calls.Load() != 1 {
			t.Errorf("%s %v, %d redeems", why, e.Identity.Groups, p.calls.Load())
		}
	})
}

// A replica that dies while it redeems holds the others up for the lease, not longer.
func TestLeaseOfADeadReplicaEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		e, _ := d.load(secret, authHost)
		time.Sleep(11 * time.Minute)
		if _, err := d.update(d.ctx, e.Session.ID, func(rec *loginRecord) error {
			rec.Lease = time.Now().Add(leaseTime)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		d.opens(secret, authHost, "alice", "") // waits 5 s, then goes on
		if p.calls.Load() != 0 {
			t.Error("redeemed in spite of the lease")
		}
		time.Sleep(leaseTime)
		synctest.Wait()
		if n := p.calls.Load(); n != 1 {
			t.Errorf("%d redeems after the lease ended", n)
		}
	})
}

func TestRotatedTokenOutlivesAStoreFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		faulty := &faultyStore{Store: memory(t)}
		p.answer = func(*access.Identity, *Tokens) error { faulty.fail.Store(true); return nil }
		d := newDesk(t, faulty, with(p))
		secret := d.start(refreshable("alice"))
		d.opens(secret, authHost, "alice", "")
		time.Sleep(9 * time.Minute)
		d.opens(secret, authHost, "alice", "")
		time.Sleep(2 * time.Second)
		faulty.fail.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if ended, err := d.End(d.ctx, secret, ""); err != nil || ended.RefreshToken != "r1" {
			t.Errorf("the rotated token is lost: %q, %v", ended.RefreshToken, err)
		}
	})
}

func TestLogoutDuringRefreshWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.takes = 3 * time.Second
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		time.Sleep(9 * time.Minute)
		d.opens(secret, authHost, "alice", "")
		time.Sleep(time.Second)
		if _, err := d.End(d.ctx, secret, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		d.opens(secret, authHost, "", access.LoginRequired)
		if n := d.count(loginPrefix); n != 0 {
			t.Error("the refresh brought the login back")
		}
	})
}

// The verdict on old tokens says nothing about those of a login that happened
// meanwhile.
func TestStepUpDuringRefreshWins(t *testing.T) {
	for _, verdict := range []error{errInvalidGrant, nil} {
		synctest.Test(t, func(t *testing.T) {
			p := newProvider()
			p.takes = 3 * time.Second
			p.answer = func(*access.Identity, *Tokens) error { return verdict }
			d := newDesk(t, memory(t), with(p))
			s := refreshable("alice")
			s.Previous = d.start(s)
			time.Sleep(9 * time.Minute)
			d.opens(s.Previous, authHost, "alice", "")
			time.Sleep(time.Second)
			s.Tokens = Tokens{Refresh: "new", ID: "new", Expires: time.Now().Add(time.Hour)}
			s.Identity.Login.ACR = "phr"
			second := d.start(s)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if e, why := d.load(second, authHost); why != "" || e.Identity.Login.ACR != "phr" {
				t.Errorf("%s: %+v", why, e)
			}
			if ended, _ := d.End(d.ctx, second, ""); ended.RefreshToken != "new" {
				t.Errorf("refresh token %q", ended.RefreshToken)
			}
		})
	}
}

func TestOversizedRefreshKeepsWhatWasKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.answer = func(id *access.Identity, _ *Tokens) error {
			id.Claims = map[string]any{"big": strings.Repeat("x", maxClaims)}
			return nil
		}
		d := newDesk(t, memory(t), with(p))
		secret := d.start(refreshable("alice"))
		time.Sleep(11 * time.Minute)
		e, why := d.load(secret, authHost)
		if why != "" || e.Identity.Claims["dept"] != "it" || !strings.Contains(d.log.String(), "fewer claims") {
			t.Errorf("%s %+v\n%s", why, e, d.log.String())
		}
	})
}

func TestRefresherIsSwappedOnReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, memory(t))
		secret := d.start(refreshable("alice"))
		time.Sleep(11 * time.Minute)
		d.opens(secret, authHost, "alice", "") // no Refresher: nothing to wait for
		p := newProvider()
		d.SetRefresher(p)
		d.opens(secret, authHost, "alice", "")
		if p.calls.Load() != 1 {
			t.Error("the new Refresher was not asked")
		}
		d.SetRefresher(nil)
		time.Sleep(11 * time.Minute)
		d.opens(secret, authHost, "alice", "")
		if p.calls.Load() != 1 {
			t.Error("the old Refresher was asked")
		}
	})
}

func TestCloseWaitsForARedeemUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for takes, want := range map[time.Duration]string{3 * time.Second: "r1", 15 * time.Second: "r0"} {
			p := newProvider()
			p.takes = takes
			s := memory(t)
			d := newDesk(t, s, with(p))
			secret := d.start(refreshable("alice"))
			time.Sleep(9 * time.Minute)
			d.opens(secret, authHost, "alice", "")
			began := time.Now()
			d.Close()
			if got := time.Since(began); got != min(takes, closeGrace) {
				t.Errorf("Close took %v", got)
			}
			again := newDesk(t, s)
			if ended, err := again.End(t.Context(), secret, ""); err != nil || ended.RefreshToken != want {
				t.Errorf("a redeem of %v: %q, %v", takes, ended.RefreshToken, err)
			}
		}
	})
}

// Writers that overtake each other (uses, tickets, refreshes) lose nothing.
func TestConflictingWritersAllArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		faulty := &faultyStore{Store: memory(t)}
		d := newDesk(t, faulty, with(p))
		root := d.start(refreshable("alice"))
		time.Sleep(9 * time.Minute)
		var conflicts atomic.Int32
		hook := func(item store.Item) error {
			if strings.HasPrefix(item.Key, loginPrefix) && conflicts.Add(1)%2 == 1 {
				return store.ErrConflict
			}
			return nil
		}
		faulty.failPut.Store(&hook)
		apps := make([]string, 20)
		var wg sync.WaitGroup
		for i := range apps {
			wg.Go(func() {
				d.opens(root, authHost, "alice", "")
				apps[i] = d.handOver(root, fmt.Sprintf("https://app%d.example", i), "")
			})
		}
		wg.Wait()
		synctest.Wait()
		for i, secret := range apps {
			if e, why := d.load(secret, fmt.Sprintf("https://app%d.example", i)); why != "" || e.Identity.Groups[0] != "call1" {
				t.Errorf("app %d: %s", i, why)
			}
		}
		if p.calls.Load() != 1 {
			t.Errorf("%d redeems", p.calls.Load())
		}
		if _, err := d.End(d.ctx, root, ""); err != nil {
			t.Fatal(err)
		}
		if n := d.count(ticketPrefix); n != 0 {
			t.Errorf("%d tickets stayed", n)
		}
	})
}

// A cookie that was replaced while it made a refresh due, as at a step-up, is no
// failure of the provider: whoever has another cookie of the login refreshes at once.
func TestReplacedCookieHoldsUpNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		late := silent(memory(t)) // the news of it does not come
		d := newDesk(t, late, with(p))
		root := d.start(refreshable("alice"))
		app := d.handOver(root, appHost, "")
		d.opens(root, authHost, "alice", "")
		d.opens(app, appHost, "alice", "")
		time.Sleep(9 * time.Minute)
		hash, _ := digest(root)
		if err := late.Store.Delete(t.Context(), ticketPrefix+encoding.EncodeToString(hash[:]), store.Any); err != nil {
			t.Fatal(err)
		}
		d.load(root, authHost)
		synctest.Wait()
		d.opens(root, authHost, "", access.LoginRequired)
		d.opens(app, appHost, "alice", "")
		synctest.Wait()
		if n := p.calls.Load(); n != 1 {
			t.Errorf("%d redeems", n)
		}
	})
}
