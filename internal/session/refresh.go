package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

const (
	// refreshWait is how long a request waits for a refresh that has to happen
	// before it; then it goes on with what was known.
	refreshWait = 5 * time.Second
	// leaseTime is how long a replica may take to redeem a refresh token before
	// another one tries. Most providers take a token redeemed twice for stolen
	// and end the session.
	leaseTime = 30 * time.Second
	// redeemTime bounds the provider's answer, well inside the lease.
	redeemTime = 20 * time.Second
	// leasePoll is how often a replica looks whether the one with the lease is done.
	leasePoll = 250 * time.Millisecond
	// storeTries is how often the result is offered to a store that fails: a
	// rotated token that is not stored is lost, and the session with it.
	storeTries = 5
	storePause = time.Second
	// Failed refreshes are tried again after firstRetry, then twice that, at
	// most lastRetry.
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
)

// refreshTime is when to refresh a token, ahead of its end: 60 seconds or a fifth
// of its life, whichever is more, but not before half of it has passed, and
// never at once.
func refreshTime(issued, due time.Time) time.Time {
	life := due.Sub(issued)
	ahead := min(max(time.Minute, life/5), life/2)
	at := due.Add(-ahead)
	if soonest := issued.Add(time.Second); at.Before(soonest) {
		return soonest
	}
	return at
}

// flight is one refresh under way, shared by all requests of its login.
type flight struct{ done chan struct{} }

// renew sees to it that a refresh that is due happens, and returns the view to go
// on with.
func (m *Manager) renew(ctx context.Context, v *view, secret string, now time.Time) (*view, error) {
	f := m.join(v.login, v.of, secret, now)
	if f == nil || now.UnixNano() < v.of.due {
		return v, nil
	}
	timer := time.NewTimer(refreshWait)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
		return v, nil
	case <-ctx.Done():
		return v, nil
	}
	l, s, err := m.resolve(ctx, v.login.id)
	if err != nil {
		return nil, err
	}
	return m.cache.put(v.ticket.see(&v.hash, l, s)), m.alive(l, s, now)
}

// join returns the refresh under way, or starts one. It returns nil if there is
// nothing to wait for: after a failure it is too early to try again, or someone
// has just done it.
func (m *Manager) join(l *login, s *snapshot, secret string, now time.Time) *flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flight != nil {
		return l.flight
	}
	refresher := m.refresher.Load()
	if refresher == nil || now.UnixNano() < l.retryAt {
		return nil
	}
	if latest := l.snap.Load(); latest.renewal != s.renewal {
		f := &flight{done: make(chan struct{})}
		close(f.done)
		return f
	}
	f := &flight{done: make(chan struct{})}
	started := m.background(func() {
		err := m.refresh(*refresher, s, secret)
		m.landed(l, f, err)
	})
	if !started {
		return nil
	}
	l.flight = f
	return f
}

func (m *Manager) landed(l *login, f *flight, err error) {
	l.mu.Lock()
	l.flight = nil
	if err == nil {
		l.failed, l.retryAt = 0, 0
	} else {
		wait := min(firstRetry<<min(l.failed, 10), lastRetry)
		l.failed++
		l.retryAt = m.now().Add(wait).UnixNano()
		m.log.Warn("identity not refreshed; the session goes on with what is known", "session", l.id, "retry_in", wait, "error", err)
	}
	l.mu.Unlock()
	close(f.done)
}

var (
	// errSuperseded tells that the tokens a refresh started from are gone: someone
	// else refreshed them, or the visitor logged in again.
	errSuperseded = errors.New("superseded")
	errLeased     = errors.New("leased")
)

// refresh redeems the refresh token of a login once and stores the outcome. An
// error means that it should be tried again; every lasting outcome, also the end
// of the session, is nil.
func (m *Manager) refresh(r Refresher, s *snapshot, secret string) error {
	hash, _ := digest(secret) // it has opened the login
	t, err := m.readTicket(m.working, hash, secret)
	if access.ReasonOf(err) == access.LoginRequired {
		// The cookie was replaced meanwhile, ahead of the notice. It opens nothing
		// any more; a request with another one can do this at once.
		m.cache.ticketShard(&hash).drop(hash)
		return nil
	}
	if err != nil {
		return err
	}
	dataKey, err := t.dataKey(secret)
	if err != nil {
		return err
	}
	rec, err := m.lease(t.Login, s.renewal)
	switch {
	case errors.Is(err, errSuperseded), errors.Is(err, store.ErrNotFound):
		// Whoever waits for this refresh should see the other one's outcome, also
		// if it is ahead of the notice.
		m.cache.loginShard(t.Login).drop(t.Login)
		return nil
	case err != nil:
		return err
	}
	tokens, err := openTokens(dataKey, rec.Tokens, t.Login)
	if err == nil {
		err = m.redeem(r, t.Login, rec, dataKey, tokens)
	}
	if err != nil {
		m.release(t.Login, rec.Renewal)
	}
	return err
}

// lease takes the right to redeem the refresh token of a login, for all replicas.
func (m *Manager) lease(id string, renewal uint64) (*loginRecord, error) {
	ctx, cancel := context.WithTimeout(m.working, leaseTime+redeemTime)
	defer cancel()
	var leased *loginRecord
	for {
		_, err := m.update(ctx, id, func(rec *loginRecord) error {
			now := m.now()
			if rec.Renewal != renewal {
				return errSuperseded
			}
			if rec.Lease.After(now) {
				return errLeased
			}
			rec.Lease = now.Add(leaseTime).UTC()
			leased = rec // as it is stored, unless that fails
			return nil
		})
		if !errors.Is(err, errLeased) {
			if err != nil {
				return nil, err
			}
			return leased, nil
		}
		if !pause(ctx, leasePoll) {
			return nil, fmt.Errorf("waiting for the replica that refreshes: %w", ctx.Err())
		}
	}
}

// release gives the lease back after a failure.
func (m *Manager) release(id string, renewal uint64) {
	_, err := m.update(m.working, id, func(rec *loginRecord) error {
		if rec.Renewal != renewal {
			return errSuperseded
		}
		rec.Lease = time.Time{}
		return nil
	})
	if err != nil && !errors.Is(err, errSuperseded) && !errors.Is(err, store.ErrNotFound) {
		m.log.Warn("refresh lease not given back; it ends by itself", "session", id, "error", err)
	}
}

func (m *Manager) redeem(r Refresher, id string, rec *loginRecord, dataKey []byte, tokens tokenRecord) error {
	ctx, cancel := context.WithTimeout(m.working, redeemTime)
	defer cancel()
	known := rec.Identity
	identity, fresh, err := r.Refresh(ctx, known.Provider, Tokens{Refresh: tokens.Refresh, Key: tokens.Key, ID: tokens.ID}, &known)
	switch {
	case err != nil && access.ReasonOf(err) == access.SessionEnded:
		return m.providerEnded(id, rec, "the provider ended the session")
	case err != nil:
		return err
	case !samePerson(&identity, &rec.Identity):
		return m.providerEnded(id, rec, "the provider answered a refresh for another person")
	}
	// A session keeps its provider, and a refresh authenticates nobody.
	identity.Provider, identity.Login = rec.Identity.Provider, rec.Identity.Login
	if identity, err = settle(&identity); err != nil {
		return err
	}
	return m.storeRefreshed(id, rec, identity, dataKey, fresh, tokens)
}

func (m *Manager) storeRefreshed(id string, from *loginRecord, identity access.Identity, dataKey []byte, fresh Tokens, before tokenRecord) error {
	now := m.now().UTC()
	for try := 1; ; try++ {
		_, err := m.update(m.working, id, func(rec *loginRecord) error {
			if rec.Renewal != from.Renewal {
				return errSuperseded
			}
			rec.Identity = identity
			return rec.setTokens(dataKey, id, fresh, before, now)
		})
		switch {
		case err == nil:
			m.report(access.EventSession, "", id, &identity, "identity refreshed")
			return nil
		case errors.Is(err, errSuperseded), errors.Is(err, store.ErrNotFound):
			return nil // the visitor logged in again, or out
		case !errors.Is(err, store.ErrUnavailable) || try == storeTries || !pause(m.working, storePause):
			return fmt.Errorf("the refreshed tokens could not be stored: %w", err)
		}
	}
}

// providerEnded ends a login unless its tokens have been replaced meanwhile, in
// which case the provider's verdict was about the old ones.
func (m *Manager) providerEnded(id string, from *loginRecord, note string) error {
	for range maxTries {
		rec, version, err := m.readLogin(m.working, id)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Renewal != from.Renewal {
			return nil
		}
		err = m.remove(m.working, id, rec, version)
		switch {
		case errors.Is(err, store.ErrConflict):
			continue
		case errors.Is(err, store.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		m.report(access.EventSession, access.SessionEnded, id, &rec.Identity, note)
		return nil
	}
	return fmt.Errorf("%w: session %s changes all the time", store.ErrUnavailable, id)
}
