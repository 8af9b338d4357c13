// Package store answers the question: where is state kept, and who wrote last?
//
// A Store is a small map of keys to values with compare-and-swap, expiry,
// listing by prefix and change notices. Everything that must survive a request
// (logins, tickets, one-time codes, keys) lives in one. Three backends exist:
// Memory, which forgets everything at exit, File, one local file that survives a
// restart, and Redis, a server that several replicas share. Package storetest
// holds the promises all of them keep.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"
)

// The expected versions that are no version of an item.
const (
	// New, given to Put, says that the key must not exist.
	New uint64 = 0
	// Any, given to Put or Delete, accepts whatever is there. Put also accepts
	// that nothing is.
	Any uint64 = math.MaxUint64
)

// The sizes a store accepts. They keep one caller from filling it.
const (
	// MaxKey is the longest key, in bytes.
	MaxKey = 512
	// MaxValue is the largest value, in bytes.
	MaxValue = 1 << 20
)

// The errors callers tell apart with errors.Is. Any other error is a mistake of
// the caller, such as a key that is too long, or the end of its context.
var (
	// ErrNotFound tells that the key does not exist or has expired.
	ErrNotFound = errors.New("store: no such item")
	// ErrConflict tells that the item is not at the expected version.
	ErrConflict = errors.New("store: the item was changed by someone else")
	// ErrUnavailable tells that the store cannot do its work: it is closed, its
	// disk is full or broken. Nothing may be concluded about the item.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrCorrupt tells that this one item cannot be read; others can. Put and
	// Delete with Any replace and remove it.
	ErrCorrupt = errors.New("store: the item is damaged")
)

// Item is one stored value.
type Item struct {
	// Key is 1 to MaxKey bytes. By convention it is a path such as "login/4f2a".
	Key string
	// Value is at most MaxValue bytes. It is a copy in both directions.
	Value []byte
	// Version is, on the way out, the version of the item; versions grow with
	// every change of the store and never come back. On the way into Put it is
	// the version the item is expected to have: New, Any or an exact one.
	Version uint64
	// Expires is when the item ceases to exist, to the microsecond. Zero means
	// never.
	Expires time.Time
}

// Change tells a watcher what happened to one key.
type Change struct {
	Key     string
	Deleted bool
	// Version is the version a Put made, or that the removal took.
	Version uint64
	// Lost tells that changes are missing, because the watcher was slow or the
	// backend lost them. The other fields are empty, and nothing read before may
	// be relied upon.
	Lost bool
}

// Store keeps items. All methods may be called at the same time. When a context
// ends during Put or Delete, the change may have happened or not.
type Store interface {
	// Get returns the item, or ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)
	// Put stores the item if the stored version is item.Version, and returns
	// the version it has now. When it returns without error, the item is as
	// durable as the backend makes it. A wrong version, also an exact version
	// of an item that no longer exists, is ErrConflict.
	Put(ctx context.Context, item Item) (version uint64, err error)
	// Delete removes the item if the stored version is version or version is
	// Any. Of several callers that delete one item exactly one succeeds; the
	// others get ErrNotFound. A wrong version is ErrConflict.
	Delete(ctx context.Context, key string, version uint64) error
	// List yields the items whose keys begin with prefix, ordered by key. An
	// item that cannot be read is yielded with its key and an error, and the
	// listing goes on; an error without a key ends it. Changes made meanwhile
	// may or may not be seen.
	List(ctx context.Context, prefix string) iter.Seq2[Item, error]
	// Watch reports every later change of keys that begin with prefix, in order.
	// Expiry is no change. Writers never wait for a watcher: one that is slow
	// receives Change{Lost: true} for what it missed. The channel is closed when
	// ctx ends, the store is closed, or the backend cannot tell any more what
	// changes: nothing read before may be relied upon then. Watch fails with
	// ErrUnavailable until it can tell again.
	Watch(ctx context.Context, prefix string) (<-chan Change, error)
	// Close releases the backend. Everything afterwards is ErrUnavailable.
	Close() error
}

// checkItem refuses what no backend stores.
func checkItem(item Item) error {
	if err := checkKey(item.Key); err != nil {
		return err
	}
	if n := len(item.Value); n > MaxValue {
		return fmt.Errorf("store: the value of %q has %d bytes, the limit is %d", item.Key, n, MaxValue)
	}
	return nil
}

func checkKey(key string) error {
	if key == "" {
		return errors.New("store: the key is empty")
	}
	if len(key) > MaxKey {
		return fmt.Errorf("store: the key has %d bytes, the limit is %d", len(key), MaxKey)
	}
	return nil
}

// errClosed is what every method returns after Close.
var errClosed = fmt.Errorf("%w: it is closed", ErrUnavailable)

// matches reports whether an item at version have may be replaced by a writer
// who expects want. have is New where there is no item.
func matches(have, want uint64) bool { return want == Any || want == have }
