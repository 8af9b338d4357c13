package session

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// Ended is what is needed to end the session at the provider as well.
type Ended struct {
	redacted
	// Provider is the id of the provider the login came from.
	Provider string
	// IDToken is the id_token_hint of RP-initiated logout, RefreshToken can be
	// revoked (RFC 7009). Each is empty if there is none.
	IDToken, RefreshToken string
	Identity              access.Identity
}

// Match selects logins. Whatever is not empty must be equal. Subject and SID
// need Issuer.
type Match struct {
	// Issuer and Subject are a person.
	Issuer, Subject string
	// SID is the provider's name for its session (`sid`).
	SID string
	// LoginID is the access.Session.ID.
	LoginID string
	// Except is the access.Session.ID of a login that stays.
	Except string
}

// End ends the login a cookie belongs to, with all its tickets, and records why.
// A session that does not exist is an error with reason LoginRequired or
// SessionEnded; the visitor is logged out either way. StoreUnavailable means
// that the session may still exist.
func (m *Manager) End(ctx context.Context, secret string, why access.Reason) (Ended, error) {
	hash, ok := digest(secret)
	if !ok {
		return Ended{}, errUnknown
	}
	t, err := m.readTicket(ctx, hash, secret)
	if err != nil {
		return Ended{}, err
	}
	rec, _, err := m.readLogin(ctx, t.Login)
	if errors.Is(err, store.ErrNotFound) {
		m.removeTickets(ctx, t.hash)
		return Ended{}, errEnded
	}
	if damaged(err) {
		rec, err = nil, nil // what cannot be read can still be removed
	}
	if err != nil {
		return Ended{}, storeError(err)
	}
	err = m.remove(ctx, t.Login, rec, store.Any)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Ended{}, storeError(err)
	}
	won := err == nil // of two clicks on "log out", one is recorded
	if rec == nil {
		m.removeTickets(ctx, t.hash)
		return Ended{}, errEnded
	}
	m.removeTickets(ctx, rec.allTickets()...)
	ended := Ended{Provider: rec.Identity.Provider, Identity: rec.Identity}
	dataKey, err := t.dataKey(secret)
	if err == nil {
		var tokens tokenRecord
		tokens, err = openTokens(dataKey, rec.Tokens, t.Login)
		ended.IDToken, ended.RefreshToken = tokens.ID, tokens.Refresh
	}
	if err != nil {
		m.log.Warn("tokens not readable at logout; the provider's session may remain", "session", t.Login, "error", err)
	}
	if won {
		m.report(access.EventLogout, why, t.Login, &rec.Identity, "")
	}
	return ended, nil
}

// Revoke ends all matching logins, on behalf of by, and returns how many. Their
// visitors are told that the session was ended. After an error some of them may
// still be alive.
func (m *Manager) Revoke(ctx context.Context, match Match, why access.Reason, by string) (n int, err error) {
	ids, err := m.candidates(ctx, match)
	for _, id := range ids {
		if id == match.Except {
			continue
		}
		rec, _, readErr := m.readLogin(ctx, id)
		switch {
		case damaged(readErr): // nobody can say that it is not meant
		case errors.Is(readErr, store.ErrNotFound):
			continue
		case readErr != nil:
			err = errors.Join(err, readErr)
			continue
		case !match.fits(id, rec):
			continue
		}
		switch removeErr := m.remove(ctx, id, rec, store.Any); {
		case removeErr == nil:
			n++
			var identity access.Identity
			if rec != nil {
				identity = rec.Identity
			}
			m.report(access.EventSession, why, id, &identity, "revoked by "+by)
		case !errors.Is(removeErr, store.ErrNotFound):
			err = errors.Join(err, removeErr)
		}
	}
	return n, storeError(err)
}

// fits checks a login; rec is never nil for a readable one.
func (q Match) fits(id string, rec *loginRecord) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return same(q.LoginID, id) && same(q.Issuer, rec.Identity.Issuer) && same(q.Subject, rec.Identity.Subject) && same(q.SID, rec.SID)
}

// candidates returns the ids of the logins that may match.
func (m *Manager) candidates(ctx context.Context, q Match) (ids []string, err error) {
	var prefix string
	switch {
	case (q.Subject != "" || q.SID != "") && q.Issuer == "":
		return nil, access.Because(access.InternalError, errors.New("session: a subject or sid means nothing without its issuer"))
	case q.LoginID != "":
		return []string{q.LoginID}, nil
	case q.SID != "":
		prefix = indexPrefix(sidPrefix, q.Issuer, q.SID)
	case q.Subject != "":
		prefix = indexPrefix(userPrefix, q.Issuer, q.Subject)
	default:
		return nil, access.Because(access.InternalError, errors.New("session: nothing to match, so nothing is revoked"))
	}
	for item, err := range m.store.List(ctx, prefix) {
		if err != nil && item.Key == "" {
			return ids, err
		}
		ids = append(ids, strings.TrimPrefix(item.Key, prefix)) // the entry's value does not matter
	}
	return ids, nil
}

// remove ends a login: from its return on, no ticket opens it. The error is
// store.ErrNotFound if it had ended before. rec is nil if it cannot be read.
//
// Tickets stay and expire by themselves, as bearers of the news that the session
// was ended; without a login they open nothing.
func (m *Manager) remove(ctx context.Context, id string, rec *loginRecord, version uint64) error {
	if err := m.store.Delete(ctx, loginPrefix+id, version); err != nil {
		return err
	}
	m.cache.loginShard(id).drop(id)
	if rec == nil {
		return nil
	}
	for _, key := range rec.indexKeys(id) {
		if err := m.store.Delete(ctx, key, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
			m.log.Warn("index entry of an ended session left behind; it expires", "session", id, "error", err)
		}
	}
	return nil
}

// removeTickets removes tickets of a login that has ended, as far as possible.
func (m *Manager) removeTickets(ctx context.Context, hashes ...string) {
	var group errgroup.Group // together, because a store may write in batches
	for _, hash := range hashes {
		group.Go(func() error { return m.removeTicket(ctx, hash) })
	}
	if err := group.Wait(); err != nil {
		m.log.Warn("tickets of an ended session left behind; they expire", "error", err)
	}
}

// removeTicket removes a ticket; a missing one is no error.
func (m *Manager) removeTicket(ctx context.Context, hash string) error {
	err := m.store.Delete(ctx, ticketPrefix+hash, store.Any)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("removing a ticket: %w", err)
	}
	m.cache.ticketGone(hash)
	return nil
}

// report emits an audit event about a login.
func (m *Manager) report(kind access.EventKind, why access.Reason, id string, who *access.Identity, note string) {
	m.emit(&access.Event{Kind: kind, Time: m.now(), Reason: why, Actor: who.User(), Session: id, Note: note})
}
