package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// Start is a login that has just succeeded.
type Start struct {
	redacted
	Identity access.Identity
	Tokens   Tokens
	// SID is the provider's name for its session (`sid`), empty if it has none.
	SID string
	// Origin is the origin the cookie will be set on.
	Origin string
	// Previous is the secret of the cookie the browser had there, or empty.
	Previous string
	// NotAfter ends the session earlier than the configured lifetime. Zero does not.
	NotAfter time.Time
}

// Start keeps a login and returns the secret of the cookie to set, which is
// always a new one; the previous cookie opens nothing any more. If the previous
// cookie belongs to a live login of the same person, that login is renewed and
// keeps its other tickets (step-up); if it belongs to someone else, that login
// is ended.
func (m *Manager) Start(ctx context.Context, s Start) (secret string, e *Entry, err error) {
	now := m.now().UTC()
	rec := &loginRecord{SID: s.SID, Created: now, Expires: now.Add(m.lifetime), Used: now}
	if rec.Identity, err = settle(&s.Identity); err != nil {
		return "", nil, access.Becausef(access.LoginFailed, "session: %w", err)
	}
	if s.Origin == "" {
		return "", nil, access.Because(access.InternalError, errors.New("session: a ticket needs an origin"))
	}
	if !s.NotAfter.IsZero() && s.NotAfter.Before(rec.Expires) {
		rec.Expires = s.NotAfter.UTC()
	}
	if !rec.Expires.After(now) {
		return "", nil, access.Because(access.SessionExpired, errors.New("session: the provider's session has already ended"))
	}
	previous, err := m.previous(ctx, s.Previous, s.Origin)
	if err != nil {
		return "", nil, err
	}
	var n newTicket
	if previous != nil {
		// First of all: a cookie that someone planted must be dead before the new
		// login counts, also if something fails in between.
		if err := m.removeTicket(ctx, previous.hash); err != nil {
			return "", nil, storeError(err)
		}
		n, err = m.stepUp(ctx, previous, s, rec)
	}
	if err == nil && n.snapshot == nil {
		n, err = m.begin(ctx, s, rec)
	}
	if err != nil {
		return "", nil, storeError(err)
	}
	entry := n.snapshot.entry(n.Login, n.Origin)
	return n.secret, &entry, nil
}

// newTicket is a ticket that was just made, its secret, and the login it opens.
type newTicket struct {
	*storedTicket
	secret   string
	snapshot *snapshot
}

// previousTicket is a ticket the browser had before, with its login if it has
// one. live says whether it could still be used.
type previousTicket struct {
	*storedTicket
	dataKey []byte
	record  *loginRecord
	live    bool
}

// previous looks up the ticket a browser had on an origin. It returns nil if
// there is none; one of another origin is none.
func (m *Manager) previous(ctx context.Context, secret, origin string) (*previousTicket, error) {
	hash, ok := digest(secret)
	if !ok {
		return nil, nil
	}
	t, err := m.readTicket(ctx, hash, secret)
	switch access.ReasonOf(err) {
	case "":
	case access.LoginRequired:
		return nil, nil
	default:
		return nil, err
	}
	if t.Origin != origin {
		return nil, nil
	}
	p := &previousTicket{storedTicket: t}
	if p.dataKey, err = t.dataKey(secret); err != nil {
		return nil, err
	}
	l, s, err := m.resolve(ctx, t.Login)
	switch access.ReasonOf(err) {
	case "":
		p.live = m.alive(l, s, m.now()) == nil
		p.record, _, err = m.readLogin(ctx, t.Login)
		if err != nil && !errors.Is(err, store.ErrNotFound) && !damaged(err) {
			return nil, storeError(err)
		}
	case access.StoreUnavailable, access.ClientGone:
		return nil, err
	}
	return p, nil
}

// begin keeps a new login.
func (m *Manager) begin(ctx context.Context, s Start, rec *loginRecord) (n newTicket, err error) {
	raw, err := m.random(16 + 32)
	if err != nil {
		return n, err
	}
	id, dataKey := encoding.EncodeToString(raw[:16]), raw[16:]
	n, err = m.makeTicket(ticketRecord{Login: id, Origin: s.Origin, Root: true}, dataKey)
	if err != nil {
		return n, err
	}
	rec.Root = n.hash
	if err := rec.setTokens(dataKey, id, s.Tokens, tokenRecord{}, rec.Created); err != nil {
		return n, access.Becausef(access.LoginFailed, "session: %w", err)
	}
	// All at once, because a store may write in batches. Nobody knows the secret
	// before all of it is written.
	group, gctx := errgroup.WithContext(ctx)
	var version uint64
	group.Go(m.putIndex(gctx, id, rec))
	group.Go(m.putTicket(gctx, n.storedTicket, rec.Expires))
	group.Go(func() (err error) {
		version, err = m.putRecord(gctx, loginPrefix+id, rec, store.New, rec.Expires.Add(keepAfter))
		return err
	})
	if err := group.Wait(); err != nil {
		return n, err
	}
	n.snapshot = m.cache.names.snapshot(rec, version, nil)
	return n, nil
}

// stepUp renews the login of the previous ticket if it is alive and of the same
// person, and otherwise ends it. Only in the first case the ticket has a
// snapshot.
func (m *Manager) stepUp(ctx context.Context, p *previousTicket, s Start, fresh *loginRecord) (n newTicket, err error) {
	if p.record == nil {
		return n, nil
	}
	if !p.live || !samePerson(&p.record.Identity, &fresh.Identity) {
		return n, m.endPrevious(ctx, p)
	}
	n, err = m.makeTicket(ticketRecord{Login: p.Login, Origin: s.Origin, Root: true}, p.dataKey)
	if err != nil {
		return n, err
	}
	var overdue, unindexed []string
	written := func(rec *loginRecord) error {
		before, err := openTokens(p.dataKey, rec.Tokens, p.Login)
		if err != nil || rec.Identity.Provider != fresh.Identity.Provider {
			before = tokenRecord{} // unreadable, or of no use to this provider
		}
		old := rec.indexKeys(p.Login)
		rec.Identity, rec.SID = fresh.Identity, fresh.SID
		rec.Created, rec.Expires, rec.Used = fresh.Created, fresh.Expires, fresh.Used
		unindexed = slices.DeleteFunc(old, func(key string) bool { return slices.Contains(rec.indexKeys(p.Login), key) })
		overdue = nil
		if rec.Root != p.hash {
			// The login was started on another origin, which keeps its ticket.
			overdue = rec.addTicket(rec.Root, p.hash)
		}
		rec.Root = n.hash
		if err := rec.setTokens(p.dataKey, p.Login, s.Tokens, before, fresh.Created); err != nil {
			return access.Becausef(access.LoginFailed, "session: %w", err)
		}
		return nil
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(m.putIndex(gctx, p.Login, fresh))
	group.Go(m.putTicket(gctx, n.storedTicket, fresh.Expires))
	if err := group.Wait(); err != nil {
		return n, err
	}
	snapshot, err := m.update(ctx, p.Login, written)
	if errors.Is(err, store.ErrNotFound) {
		// It was ended a moment ago; this is a new login then.
		m.removeTickets(ctx, n.hash)
		return newTicket{}, nil
	}
	if err != nil {
		return n, err
	}
	for _, key := range unindexed {
		if err := m.store.Delete(ctx, key, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
			m.log.Warn("index entry left behind; it expires", "session", p.Login, "error", err)
		}
	}
	m.removeTickets(ctx, overdue...)
	n.snapshot = snapshot
	return n, nil
}

// endPrevious ends the login the browser had before another person logged in,
// or that was over anyway.
func (m *Manager) endPrevious(ctx context.Context, p *previousTicket) error {
	err := m.remove(ctx, p.Login, p.record, store.Any)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	m.removeTickets(ctx, p.record.allTickets()...)
	if err == nil && p.live {
		m.report(access.EventLogout, access.SessionEnded, p.Login, &p.record.Identity, "another person logged in with the same browser")
	}
	return nil
}

// makeTicket makes a ticket with a new secret.
func (m *Manager) makeTicket(rec ticketRecord, dataKey []byte) (n newTicket, err error) {
	raw, err := m.random(secretBytes)
	if err != nil {
		return n, err
	}
	secret := encoding.EncodeToString(raw)
	hash, ok := digest(secret)
	if !ok {
		return n, access.Because(access.InternalError, errors.New("session: a secret that is none"))
	}
	n = newTicket{secret: secret, storedTicket: &storedTicket{ticketRecord: rec, hash: encoding.EncodeToString(hash[:])}}
	if n.Key, err = sealUnder(secret, forTicket, dataKey, n.place(n.hash)); err != nil {
		return n, access.Because(access.InternalError, err)
	}
	return n, nil
}

func (m *Manager) putTicket(ctx context.Context, t *storedTicket, expires time.Time) func() error {
	return func() error {
		_, err := m.putRecord(ctx, ticketPrefix+t.hash, &t.ticketRecord, store.New, expires.Add(keepAfter))
		if err != nil {
			return fmt.Errorf("ticket: %w", err)
		}
		return nil
	}
}

// addTicket notes a new ticket in place of an old one, and returns those that
// have to give way.
func (r *loginRecord) addTicket(hash, instead string) (overdue []string) {
	r.Tickets = slices.DeleteFunc(r.Tickets, func(h string) bool { return h == instead })
	r.Tickets = append(r.Tickets, hash)
	over := max(0, len(r.Tickets)-maxTickets)
	overdue, r.Tickets = r.Tickets[:over:over], r.Tickets[over:]
	return overdue
}
