package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// List returns the live logins that match, at most limit, in no order that
// means anything. An empty Match is every login. more tells that others were
// left out. What cannot be read is left out, too, and logged.
func (m *Manager) List(ctx context.Context, match Match, limit int) (list []access.SessionInfo, more bool, err error) {
	var ids []string
	if match == (Match{}) {
		for item, err := range m.store.List(ctx, loginPrefix) {
			if err != nil && item.Key == "" {
				return nil, false, storeError(err)
			}
			ids = append(ids, strings.TrimPrefix(item.Key, loginPrefix))
		}
	} else if ids, err = m.candidates(ctx, match); err != nil {
		return nil, false, storeError(err)
	}
	now := m.now()
	for _, id := range ids {
		rec, _, err := m.readLogin(ctx, id)
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue
		case damaged(err):
			m.log.Error("damaged session left out of a list", "session", id, "error", err)
			continue
		case err != nil:
			return nil, false, storeError(err)
		case !match.fits(id, rec) || id == match.Except || !rec.Expires.After(now):
			continue
		}
		if l, _ := m.cache.loginShard(id).get(id); l != nil {
			if used := time.Unix(0, l.used.Load()).UTC(); used.After(rec.Used) {
				rec.Used = used // of which the store does not know yet
			}
		}
		switch { // another replica may know of a later use, too
		case now.Sub(rec.Used) >= m.idle+time.Duration(m.persistEvery()):
			continue
		case len(list) == limit:
			return list, true, nil
		}
		info, err := m.info(ctx, id, rec)
		if err != nil {
			return nil, false, storeError(err)
		}
		list = append(list, info)
	}
	return list, false, nil
}

// OfPerson returns at most limit live logins of one person, as List does.
func (m *Manager) OfPerson(ctx context.Context, issuer, subject string, limit int) ([]access.SessionInfo, bool, error) {
	return m.List(ctx, Match{Issuer: issuer, Subject: subject}, limit)
}

// info describes a login.
func (m *Manager) info(ctx context.Context, id string, rec *loginRecord) (access.SessionInfo, error) {
	who := &rec.Identity
	info := access.SessionInfo{
		Session: access.Session{ID: id, Created: rec.Created, Expires: rec.Expires},
		User:    who.User(), Provider: who.Provider, Issuer: who.Issuer, Email: who.Email, EmailVerified: who.EmailVerified, Name: who.Name,
		Login: who.Login, Used: rec.Used,
	}
	for _, hash := range rec.allTickets() {
		item, err := m.store.Get(ctx, ticketPrefix+hash)
		if errors.Is(err, store.ErrNotFound) || damaged(err) {
			continue
		}
		var t ticketRecord
		if err == nil {
			err = decode(item.Value, &t)
		}
		if damaged(err) {
			continue
		}
		if err != nil {
			return info, err
		}
		info.Origins = append(info.Origins, t.Origin)
	}
	slices.Sort(info.Origins)
	info.Origins = slices.Compact(info.Origins)
	return info, nil
}
