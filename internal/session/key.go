package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

const masterKey = "key/master"

// Key returns 32 bytes that are the same for this purpose on every replica and
// after every restart, and that tell nothing about the key of another purpose.
// They are derived (HKDF, RFC 5869) from sessions.key, or from a master key that
// is made once and kept in the store.
func (m *Manager) Key(ctx context.Context, purpose string) ([]byte, error) {
	if purpose == "" {
		return nil, access.Because(access.InternalError, errors.New("session: a key needs a purpose"))
	}
	master, err := m.masterKey(ctx)
	if err != nil {
		return nil, storeError(fmt.Errorf("the master key: %w", err))
	}
	key, err := derive(master, forKey+purpose)
	if err != nil {
		return nil, access.Because(access.InternalError, err)
	}
	return key, nil
}

// masterKey reads the master key and makes it if there is none. Any doubt is an
// error: a new key in place of an unreadable one would silently undo whatever
// the old one protects.
func (m *Manager) masterKey(ctx context.Context) ([]byte, error) {
	m.keyMu.Lock()
	defer m.keyMu.Unlock()
	if m.master != nil {
		return m.master, nil
	}
	item, err := m.store.Get(ctx, masterKey)
	if errors.Is(err, store.ErrNotFound) {
		if item.Value, err = m.random(secretBytes); err != nil {
			return nil, err
		}
		_, err = m.store.Put(ctx, store.Item{Key: masterKey, Value: item.Value, Version: store.New})
		if errors.Is(err, store.ErrConflict) { // another replica was faster
			item, err = m.store.Get(ctx, masterKey)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(item.Value) != secretBytes {
		return nil, fmt.Errorf("%s has %d bytes instead of %d: restore it, or remove it to make a new one", masterKey, len(item.Value), secretBytes)
	}
	m.master = item.Value
	return m.master, nil
}
