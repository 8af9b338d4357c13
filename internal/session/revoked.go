package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

const (
	revokedPrefix = "revoked/"
	// revokedFor is how long a revocation is remembered at least: longer than what
	// was issued before it lives.
	revokedFor = 30 * 24 * time.Hour
	// maxRevocations bounds what every replica holds in memory.
	maxRevocations = 10_000
	// forOperators is how many of them only people can make: a transmitter that
	// reports too much must not take the switch out of an operator's hand.
	forOperators = 1_000
	// revokedWait bounds one reading of the list.
	revokedWait = 5 * time.Second
)

// revocations is what was revoked, as the store has it. Asking it takes no lock
// and no I/O while the store reports its changes; while it does not, the list is
// read again and again, and if it cannot be read, nobody can tell.
type revocations struct {
	store store.Store
	now   func() time.Time
	log   *slog.Logger

	known   atomic.Pointer[revokedList]
	reading sync.Mutex // one change of known at a time
}

// revokedList never changes.
type revokedList struct {
	byID map[string]access.Revocation
	// When whatever was issued before is worth nothing.
	people  map[personKey]time.Time
	devices map[deviceKey]time.Time
	all     time.Time
	// good is until when the list may be relied upon; zero: for as long as it is
	// the current one, because the store reports its changes.
	good time.Time
}

type personKey struct{ issuer, subject string }

// deviceKey is a device, in the hands of one issuer's people or, without an
// issuer, of anybody.
type deviceKey struct{ issuer, device string }

var errRevocations = access.Because(access.StoreUnavailable, errors.New("session: nobody can tell what was revoked"))

// revokedID names a revocation, and so makes one of the same kind replace it.
func revokedID(r *access.Revocation) string {
	kind, name := "all", ""
	switch {
	case r.All:
	case r.Device != "" && r.Issuer != "":
		kind, name = "device of "+r.Issuer, r.Device
	case r.Device != "":
		kind, name = "device", r.Device
	default:
		kind, name = "user "+r.Issuer, r.Subject
	}
	return strings.Trim(indexPrefix("", kind, name), "/")
}

func newRevokedList(byID map[string]access.Revocation, now time.Time) *revokedList {
	l := &revokedList{byID: byID, people: map[personKey]time.Time{}, devices: map[deviceKey]time.Time{}}
	for id, r := range byID {
		switch {
		case !r.Until.After(now):
			delete(byID, id)
		case r.All:
			if r.At.After(l.all) { // a damaged record is one of these, too
				l.all = r.At
			}
		case r.Device != "":
			l.devices[deviceKey{r.Issuer, r.Device}] = r.At
		default:
			l.people[personKey{r.Issuer, r.Subject}] = r.At
		}
	}
	return l
}

// list returns the list, read again if nobody reports its changes.
func (v *revocations) list() (*revokedList, error) {
	l := v.known.Load()
	if l != nil && (l.good.IsZero() || v.now().Before(l.good)) {
		return l, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), revokedWait)
	defer cancel()
	v.reading.Lock()
	defer v.reading.Unlock()
	if l = v.known.Load(); l != nil && (l.good.IsZero() || v.now().Before(l.good)) {
		return l, nil // somebody else has read it
	}
	if err := v.read(ctx, v.now().Add(rewatch)); err != nil {
		return nil, errors.Join(errRevocations, err)
	}
	return v.known.Load(), nil
}

// read reads the whole list. The lock is held.
func (v *revocations) read(ctx context.Context, good time.Time) error {
	byID := map[string]access.Revocation{}
	for item, err := range v.store.List(ctx, revokedPrefix) {
		if err != nil && item.Key == "" {
			return err
		}
		id := strings.TrimPrefix(item.Key, revokedPrefix)
		if byID[id], err = v.understand(id, item, err); err != nil {
			return err
		}
	}
	l := newRevokedList(byID, v.now())
	l.good = good
	v.known.Store(l)
	return nil
}

// understand reads one record. One that is damaged may be about anybody, so it is
// taken to be about everybody, from when it is first seen: all have to log in
// once more. An operator finds it among the others and can lift it.
func (v *revocations) understand(id string, item store.Item, err error) (r access.Revocation, _ error) {
	if err == nil {
		err = decode(item.Value, &r)
	}
	if err == nil && r.ID != id {
		err = fmt.Errorf("%w: it is that of another revocation, or of none", errDamaged)
	}
	if !damaged(err) {
		return r, err
	}
	if l := v.known.Load(); l != nil && l.byID[id].Why == damagedWhy {
		return l.byID[id], nil
	}
	now := v.now().UTC()
	v.log.Error("a revocation is damaged, so everybody has to log in again", "revocation", id, "cure", "doorward revocations lift "+id)
	return access.Revocation{ID: id, All: true, At: now, Until: now.Add(revokedFor), By: "doorward", Why: damagedWhy}, nil
}

const damagedWhy = "the record of a revocation is damaged"

// begin reads the list once the store reports its changes.
func (v *revocations) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, revokedWait)
	defer cancel()
	v.reading.Lock()
	defer v.reading.Unlock()
	return v.read(ctx, time.Time{})
}

// doubt notes that the store reports no changes any more.
func (v *revocations) doubt() {
	v.reading.Lock()
	defer v.reading.Unlock()
	l := *v.known.Load()
	l.good = v.now()
	v.known.Store(&l)
}

// changed takes notice of one change and returns what to tell of it.
func (v *revocations) changed(ctx context.Context, c store.Change) (access.Signal, error) {
	ctx, cancel := context.WithTimeout(ctx, revokedWait)
	defer cancel()
	v.reading.Lock()
	defer v.reading.Unlock()
	id := strings.TrimPrefix(c.Key, revokedPrefix)
	byID := maps.Clone(v.known.Load().byID)
	delete(byID, id)
	sig := access.Signal{Reason: access.SessionEnded}
	item, err := v.store.Get(ctx, c.Key)
	if !errors.Is(err, store.ErrNotFound) {
		r, err := v.understand(id, item, err)
		if err != nil {
			return sig, err
		}
		byID[id] = r
		sig.Issuer, sig.Subject, sig.Device = r.Issuer, r.Subject, r.Device
	}
	v.known.Store(newRevokedList(byID, v.now()))
	return sig, nil
}

// Revoked reports whether what was issued to somebody at a moment was revoked
// later. A moment that is not known is before all others. An error has the reason
// StoreUnavailable: nobody can tell.
func (m *Manager) Revoked(issuer, subject string, issued time.Time) (bool, error) {
	l, err := m.revocations.list()
	if err != nil {
		return false, err
	}
	at, revoked := l.people[personKey{issuer, subject}]
	return !l.all.IsZero() && issued.Before(l.all) || revoked && issued.Before(at), nil
}

// RevokedDevice is Revoked for what an issuer's people use from a device.
func (m *Manager) RevokedDevice(issuer, device string, issued time.Time) (bool, error) {
	l, err := m.revocations.list()
	if err != nil {
		return false, err
	}
	for _, key := range []deviceKey{{"", device}, {issuer, device}} {
		if at, revoked := l.devices[key]; revoked && issued.Before(at) {
			return true, nil
		}
	}
	return false, nil
}

// EndRevoked ends a session that was seen on a device whose sessions are revoked.
// Nobody could know before, and until then the login would still count elsewhere:
// a visitor who is sent to log in anew would come back with the old one.
func (m *Manager) EndRevoked(ctx context.Context, id, device string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokedWait)
	defer cancel()
	if _, err := m.Revoke(ctx, Match{LoginID: id}, access.SessionEnded, "the revocation of device "+device); err != nil {
		m.log.Warn("a revoked session could not be removed; it is refused as long as the revocation is remembered", "session", id, "error", err)
	}
}

// NotBefore revokes whatever was issued before r.At, or before now if At is zero
// or later. By the time it returns, this replica refuses it, and the others are
// told. ID and Until need not be set. It ends no session records; see Revoke. That
// of everybody has room even where the list is full.
func (m *Manager) NotBefore(ctx context.Context, r access.Revocation) (access.Revocation, error) {
	return m.notBefore(ctx, r, maxRevocations)
}

// ReportedNotBefore is NotBefore for what a machine reports. It leaves room for
// what people revoke.
func (m *Manager) ReportedNotBefore(ctx context.Context, r access.Revocation) (access.Revocation, error) {
	return m.notBefore(ctx, r, maxRevocations-forOperators)
}

func (m *Manager) notBefore(ctx context.Context, r access.Revocation, most int) (access.Revocation, error) {
	if !r.All && r.Device == "" && (r.Issuer == "" || r.Subject == "") {
		return r, access.Because(access.InternalError, errors.New("session: nobody and nothing to revoke"))
	}
	r.ID = revokedID(&r)
	if now := m.now().UTC(); r.At.IsZero() || r.At.After(now) {
		r.At = now
	}
	r.Until = m.now().UTC().Add(max(revokedFor, m.lifetime))
	l, err := m.revocations.list()
	if err != nil {
		return r, err
	}
	if _, known := l.byID[r.ID]; !known && !r.All && len(l.byID) >= most {
		return r, access.Becausef(access.InternalError, "session: %d revocations are remembered already; lift some, or revoke everything", len(l.byID))
	}
	if err := m.putRevocation(ctx, &r); err != nil {
		return r, storeError(err)
	}
	sig, err := m.revocations.changed(ctx, store.Change{Key: revokedPrefix + r.ID})
	if err != nil {
		return r, storeError(err)
	}
	m.signal(sig)
	return r, nil
}

// putRevocation stores a revocation. What was revoked stays so: it takes the
// moment of an earlier one of the same kind that is later, whoever stores it
// meanwhile.
func (m *Manager) putRevocation(ctx context.Context, r *access.Revocation) error {
	key := revokedPrefix + r.ID
	for range maxTries {
		var before access.Revocation
		item, err := m.store.Get(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			item.Version = store.New
		case errors.Is(err, store.ErrCorrupt):
			item.Version = store.Any
		case err != nil:
			return err
		case decode(item.Value, &before) == nil && before.At.After(r.At):
			r.At = before.At
		}
		_, err = m.putRecord(ctx, key, r, item.Version, r.Until)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%w: revocation %s changes all the time", store.ErrUnavailable, r.ID)
}

// EndAllBefore ends, in the background, the sessions that began before a moment,
// after everything from before it was revoked.
func (m *Manager) EndAllBefore(at time.Time, by string) {
	m.background(func() {
		n, failed := 0, 0
		for item, err := range m.store.List(m.working, loginPrefix) {
			if err != nil && item.Key == "" {
				m.log.Warn("the revoked sessions could not be listed; they are refused as long as the revocation is remembered", "error", err)
				return
			}
			id := strings.TrimPrefix(item.Key, loginPrefix)
			if rec := new(loginRecord); err != nil || decode(item.Value, rec) != nil || rec.Created.Before(at) {
				ended, err := m.Revoke(m.working, Match{LoginID: id}, access.SessionEnded, by+", who revoked everything")
				n += ended
				if err != nil {
					failed++
				}
			}
		}
		m.log.Info("revoked sessions removed", "ended", n, "failed", failed)
	})
}

// Lift forgets a revocation and reports whether there was one. Sessions that it
// ended stay ended.
func (m *Manager) Lift(ctx context.Context, id string) (bool, error) {
	err := m.store.Delete(ctx, revokedPrefix+id, store.Any)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, storeError(err)
}

// Revocations returns what is revoked, the latest first.
func (m *Manager) Revocations() ([]access.Revocation, error) {
	l, err := m.revocations.list()
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(l.byID), func(a, b access.Revocation) int { return b.At.Compare(a.At) }), nil
}
