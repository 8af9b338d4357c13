package session

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

const (
	// codeLifetime is how long the browser has to carry a code from one host to
	// the next.
	codeLifetime = time.Minute
	maxOrigin    = 512
)

// errCode is the answer to every code that is not good, whatever is wrong with it.
var errCode = access.Because(access.LoginStateUnknown, errors.New("session: the hand-over code is not good here"))

// Handover returns a code that opens a ticket of the same login on another
// origin, once, within 60 seconds, for whoever has the verifier that belongs to
// challenge (S256 of RFC 7636 §4.2). secret must be of a ticket made by Start: a
// ticket that was itself handed over opens no other origin. Errors are those of
// Load, and LoginStateUnknown for a challenge that is none.
func (m *Manager) Handover(ctx context.Context, secret, origin, challenge string) (code string, err error) {
	if _, ok := digest(challenge); !ok || origin == "" || len(origin) > maxOrigin {
		return "", access.Because(access.LoginStateUnknown, errors.New("session: hand-over without a proper origin and challenge"))
	}
	hash, ok := digest(secret)
	if !ok {
		return "", errUnknown
	}
	t, err := m.readTicket(ctx, hash, secret)
	if err != nil {
		return "", err
	}
	l, s, err := m.resolve(ctx, t.Login)
	if err != nil {
		return "", err
	}
	if !t.Root {
		return "", access.Because(access.LoginRequired, errors.New("session: a ticket that was handed over cannot be handed on"))
	}
	now := m.now()
	if err := m.alive(l, s, now); err != nil {
		return "", err
	}
	m.touch(l, s, now)
	dataKey, err := t.dataKey(secret)
	if err != nil {
		return "", access.Becausef(access.LoginRequired, "session: %w", err)
	}
	raw, err := m.random(secretBytes)
	if err != nil {
		return "", err
	}
	code = encoding.EncodeToString(raw)
	codeHash := hashOf(code)
	rec := codeRecord{Login: t.Login, Origin: origin, Challenge: challenge}
	if rec.Key, err = sealUnder(code, forCode, dataKey, rec.place(codeHash)); err != nil {
		return "", access.Because(access.InternalError, err)
	}
	if _, err := m.putRecord(ctx, codePrefix+codeHash, &rec, store.New, now.Add(codeLifetime)); err != nil {
		return "", storeError(err)
	}
	return code, nil
}

// Redeem exchanges a hand-over code for a ticket on the origin it was made for
// and returns the secret of the cookie to set. Every attempt uses the code up,
// also one with a wrong origin or verifier. previous is the secret of the cookie
// the browser had on that origin, or empty; it opens nothing any more.
//
// The reasons of its errors are LoginStateUnknown for the code, SessionEnded and
// SessionExpired for the login behind it, and StoreUnavailable.
func (m *Manager) Redeem(ctx context.Context, code, origin, verifier, previous string) (secret string, e *Entry, err error) {
	rec, dataKey, err := m.burn(ctx, code)
	if err != nil {
		return "", nil, err
	}
	if rec.Origin != origin || !provesChallenge(verifier, rec.Challenge) {
		return "", nil, errCode
	}
	l, s, err := m.resolve(ctx, rec.Login)
	if err != nil {
		return "", nil, err
	}
	if err := m.alive(l, s, m.now()); err != nil {
		return "", nil, err
	}
	before, err := m.previous(ctx, previous, origin)
	if err != nil {
		return "", nil, err
	}
	n, err := m.makeTicket(ticketRecord{Login: rec.Login, Origin: origin}, dataKey)
	if err != nil {
		return "", nil, err
	}
	replaced := ""
	if before != nil {
		replaced = before.hash
		if err := m.removeTicket(ctx, replaced); err != nil {
			return "", nil, storeError(err)
		}
	}
	if err := m.putTicket(ctx, n.storedTicket, s.expires)(); err != nil {
		return "", nil, storeError(err)
	}
	var overdue []string
	s, err = m.update(ctx, rec.Login, func(login *loginRecord) error {
		overdue = login.addTicket(n.hash, replaced)
		return nil
	})
	if err != nil {
		m.removeTickets(ctx, n.hash)
		if errors.Is(err, store.ErrNotFound) {
			return "", nil, errEnded
		}
		return "", nil, storeError(err)
	}
	m.removeTickets(ctx, overdue...)
	entry := s.entry(n.Login, n.Origin)
	return n.secret, &entry, nil
}

// burn removes a code and returns what it stands for. Of several attempts with
// one code, one gets this far.
func (m *Manager) burn(ctx context.Context, code string) (rec codeRecord, dataKey []byte, err error) {
	if _, ok := digest(code); !ok {
		return rec, nil, errCode
	}
	hash := hashOf(code)
	item, err := m.store.Get(ctx, codePrefix+hash)
	if err == nil {
		err = m.store.Delete(ctx, codePrefix+hash, item.Version)
	}
	if err == nil {
		err = decode(item.Value, &rec)
	}
	if err == nil {
		dataKey, err = openUnder(code, forCode, rec.Key, rec.place(hash))
	}
	switch {
	case err == nil:
		return rec, dataKey, nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict):
		return rec, nil, errCode
	case damaged(err):
		m.log.Error("damaged hand-over code refused", "error", err)
		return rec, nil, errCode
	default:
		return rec, nil, storeError(err)
	}
}

// provesChallenge checks a verifier (RFC 7636 §4.6).
func provesChallenge(verifier, challenge string) bool {
	const shortest, longest = 43, 128 // RFC 7636 §4.1
	if len(verifier) < shortest || len(verifier) > longest {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(hashOf(verifier)), []byte(challenge)) == 1
}

// hashOf returns the written SHA-256 of a written secret.
func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return encoding.EncodeToString(sum[:])
}
