package session

import (
	"context"
	"errors"
	"time"

	"github.com/doorward/doorward/internal/store"
)

// Vault keeps values in the store, sealed for the name they are kept under:
// whoever can write the store, but does not know the key, can remove values and
// bring back old ones, and nothing else. Two vaults with different folders and
// keys cannot read each other.
type Vault struct {
	store  store.Store
	folder string
	key    []byte
}

// NewVault returns the vault of a folder of the store, such as "device". key is
// what Key returns for this purpose alone.
func NewVault(s store.Store, folder string, key []byte) *Vault {
	return &Vault{store: s, folder: folder + "/", key: key}
}

// Get returns the value of a name, nil if there is none. A value that was not
// sealed for this name is an error.
func (v *Vault) Get(ctx context.Context, name string) ([]byte, error) {
	item, err := v.store.Get(ctx, v.folder+name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return open(v.key, item.Value, v.folder+name)
}

// Put keeps a value under a name, in place of what was there, until it expires.
func (v *Vault) Put(ctx context.Context, name string, value []byte, expires time.Time) error {
	sealed, err := seal(v.key, value, v.folder+name)
	if err != nil {
		return err
	}
	_, err = v.store.Put(ctx, store.Item{Key: v.folder + name, Value: sealed, Version: store.Any, Expires: expires})
	return err
}
