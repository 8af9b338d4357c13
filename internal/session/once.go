package session

import (
	"context"
	"errors"
	"time"

	"github.com/doorward/doorward/internal/store"
)

const oncePrefix = "once/"

// ErrRepeated tells that something which happens once has happened before.
var ErrRepeated = errors.New("session: this was done before")

// Once runs do, unless that was done before under the same name of the same
// issuer: then the error is ErrRepeated. It is how a token that counts once, such
// as a logout token, is kept from counting again on any replica.
//
// The name is remembered until a moment, which should be when the token ends by
// itself, and only after do has succeeded: what failed can be tried again. A
// store that cannot tell or cannot remember is an error, with reason
// StoreUnavailable. If two callers come at the same moment, both may run do, and
// one of them gets ErrRepeated.
func (m *Manager) Once(ctx context.Context, issuer, name string, until time.Time, do func() error) error {
	key := indexPrefix(oncePrefix, issuer, name)
	switch _, err := m.store.Get(ctx, key); {
	case err == nil:
		return ErrRepeated
	case !errors.Is(err, store.ErrNotFound):
		return storeError(err)
	}
	if err := do(); err != nil {
		return err
	}
	_, err := m.store.Put(ctx, store.Item{Key: key, Version: store.New, Expires: until})
	if errors.Is(err, store.ErrConflict) {
		return ErrRepeated
	}
	return storeError(err)
}
