package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// Load returns the session that a cookie opens on an origin at a moment, and
// counts it as used. It refreshes the identity when that is due: in the
// background while the identity is still good, otherwise waiting up to
// 5 seconds.
//
// The reasons of its errors are LoginRequired (no such ticket, none of this
// origin, or not readable), SessionExpired, SessionEnded, StoreUnavailable, and
// ClientGone if ctx ended while the store was asked.
func (m *Manager) Load(ctx context.Context, secret, origin string, now time.Time) (*Entry, error) {
	return m.load(ctx, secret, origin, now, true)
}

// Peek is Load without counting as a use: for looking again at a session behind
// something that is open, but over which the visitor sends nothing.
func (m *Manager) Peek(ctx context.Context, secret, origin string, now time.Time) (*Entry, error) {
	return m.load(ctx, secret, origin, now, false)
}

// Reopen is Peek by the ID of a session, or with use Load: for something that has
// been open since before its cookie was replaced, as at a step-up. The cookie
// opens nothing any more, but the login it opened is the same.
func (m *Manager) Reopen(ctx context.Context, id string, now time.Time, use bool) (*Entry, error) {
	l, s, err := m.resolve(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := m.alive(l, s, now); err != nil {
		return nil, err
	}
	if use {
		m.touch(l, s, now)
	}
	entry := s.entry(id, "")
	return &entry, nil
}

func (m *Manager) load(ctx context.Context, secret, origin string, now time.Time, use bool) (*Entry, error) {
	v := m.cache.nearby(secret)
	v.fetch() // meanwhile:
	hash, ok := digest(secret)
	if !ok {
		return nil, errUnknown
	}
	if !v.fits(&hash) {
		var err error
		if v, err = m.find(ctx, hash, secret); err != nil {
			return nil, err
		}
	}
	if v.entry.Origin != origin {
		return nil, errUnknown
	}
	if err := m.alive(v.login, v.of, now); err != nil {
		return nil, err
	}
	if use {
		m.touch(v.login, v.of, now)
	}
	if at := v.of.refreshAt; at != 0 && now.UnixNano() >= at {
		var err error
		if v, err = m.renew(ctx, v, secret, now); err != nil {
			return nil, err
		}
	}
	return &v.entry, nil
}

// alive checks both lifetimes, and that the login was not revoked.
func (m *Manager) alive(l *login, s *snapshot, now time.Time) error {
	n := now.UnixNano()
	if n >= s.ends || n-l.used.Load() >= int64(m.idle) {
		return errExpired
	}
	revoked, err := m.Revoked(s.identity.Issuer, s.identity.Subject, s.created)
	switch {
	case err != nil:
		return err
	case revoked:
		return errEnded
	}
	return nil
}

// touch notes the use, and has it written to the store now and then.
func (m *Manager) touch(l *login, s *snapshot, now time.Time) {
	n := now.UnixNano()
	if n-l.used.Load() < m.touchEvery() {
		return
	}
	l.use(n)
	if n-s.persisted < m.persistEvery() || !l.persisting.CompareAndSwap(false, true) {
		return
	}
	select {
	case m.touches <- struct{}{}:
	default: // the store is busy; a later use tries again
		l.persisting.Store(false)
		return
	}
	started := m.background(func() {
		defer m.touchDone(l)
		_, err := m.update(m.working, l.id, func(rec *loginRecord) error {
			if used := time.Unix(0, n).UTC(); used.After(rec.Used) {
				rec.Used = used
			}
			return nil
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			m.log.Warn("last use of a session not stored", "session", l.id, "error", err)
		}
	})
	if !started {
		m.touchDone(l)
	}
}

func (m *Manager) touchDone(l *login) {
	l.persisting.Store(false)
	<-m.touches
}

// find searches the cache, and reads what it does not have. A cookie without a
// ticket leaves nothing behind: it costs one read and no memory.
func (m *Manager) find(ctx context.Context, hash [32]byte, secret string) (*view, error) {
	shard := m.cache.ticketShard(&hash)
	t, count := shard.get(hash)
	fresh := t == nil
	if fresh {
		read, err := m.readTicket(ctx, hash, secret)
		if err != nil {
			return nil, err
		}
		m.cache.names.share(&read.Origin)
		t = &ticket{id: read.Login, origin: read.Origin, place: m.cache.place(secret)}
	} else {
		l := t.made.Load().login
		if s := l.current(); s != nil {
			return m.cache.put(t.see(&hash, l, s)), nil
		}
	}
	l, s, err := m.resolve(ctx, t.id)
	if err != nil {
		return nil, err
	}
	if fresh {
		t.id = l.id // the same text; one of them is enough
	}
	v := t.see(&hash, l, s)
	shard.add(hash, t, count, m.useless())
	return m.cache.put(v), nil
}

// useless is when what is still of use was last used, at the earliest.
func (m *Manager) useless() int64 { return m.now().UnixNano() - int64(m.idle) }

// readTicket reads a ticket from the store and checks that it was made for this
// secret and has not been changed. The error is a reason.
func (m *Manager) readTicket(ctx context.Context, hash [32]byte, secret string) (*storedTicket, error) {
	t := &storedTicket{hash: encoding.EncodeToString(hash[:])}
	item, err := m.store.Get(ctx, ticketPrefix+t.hash)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errUnknown
	}
	if err == nil {
		err = decode(item.Value, &t.ticketRecord)
	}
	if err == nil {
		_, err = t.dataKey(secret)
	}
	switch {
	case err == nil:
		return t, nil
	case damaged(err):
		m.log.Error("damaged ticket refused", "ticket", t.hash, "error", err)
		return nil, access.Becausef(access.LoginRequired, "session: ticket: %w", err)
	default:
		return nil, storeError(err)
	}
}

// resolve returns a login from the cache or the store. The error is a reason.
func (m *Manager) resolve(ctx context.Context, id string) (*login, *snapshot, error) {
	shard := m.cache.loginShard(id)
	l, count := shard.get(id)
	if l != nil {
		if s := l.current(); s != nil {
			return l, s, nil
		}
	}
	rec, item, err := m.readItem(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		shard.drop(id)
		return nil, nil, errEnded
	case damaged(err):
		m.log.Error("damaged session refused", "session", id, "error", err)
		return nil, nil, access.Becausef(access.LoginRequired, "session: login: %w", err)
	case err != nil:
		return nil, nil, storeError(err)
	}
	var before *snapshot
	if l != nil {
		before = l.snap.Load()
	}
	s := m.cache.names.snapshot(rec, item.Version, before)
	l = &login{id: id, bytes: len(item.Value)}
	l.use(s.persisted)
	l = shard.add(id, l, count, m.useless())
	return l, l.install(s), nil
}

// maxTries bounds how often a change is tried that others keep overtaking.
const maxTries = 32

// update changes a login in the store and in memory, again if somebody else
// changed it meanwhile. The error is change's own, store.ErrNotFound when the
// login has ended, or the store's.
func (m *Manager) update(ctx context.Context, id string, change func(*loginRecord) error) (*snapshot, error) {
	for range maxTries {
		rec, version, err := m.readLogin(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := change(rec); err != nil {
			return nil, err
		}
		version, err = m.putRecord(ctx, loginPrefix+id, rec, version, rec.Expires.Add(keepAfter))
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		l, _ := m.cache.loginShard(id).get(id)
		if l == nil {
			return m.cache.names.snapshot(rec, version, nil), nil
		}
		s := m.cache.names.snapshot(rec, version, l.snap.Load())
		l.install(s)
		return s, nil
	}
	return nil, fmt.Errorf("%w: session %s changes all the time", store.ErrUnavailable, id)
}
