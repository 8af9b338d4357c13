package store

import (
	"container/heap"
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a Store that forgets everything at exit.
type Memory struct {
	now func() time.Time
	hub hub

	mu      sync.RWMutex
	items   map[string]*memoryItem
	expiry  expiryQueue
	version uint64
	closed  bool
}

// memoryItem is an item in the form that takes the least room: there may be
// millions. It is never changed in place, except for at.
type memoryItem struct {
	text    string // the key, then the value
	key     int32  // length of the key
	at      int32  // place in the expiry queue, -1 if the item never expires
	version uint64
	expires int64 // nanoseconds since 1970, 0: never
}

func newMemoryItem(item Item, version uint64) *memoryItem {
	var text strings.Builder
	text.Grow(len(item.Key) + len(item.Value))
	text.WriteString(item.Key)
	text.Write(item.Value)
	it := &memoryItem{text: text.String(), key: int32(len(item.Key)), at: -1, version: version}
	// What is to expire in centuries, beyond what nanoseconds can say, never does.
	if !item.Expires.IsZero() && item.Expires.Year() < 2262 {
		it.expires = max(1, item.Expires.UnixNano())
	}
	return it
}

func (i *memoryItem) name() string { return i.text[:i.key] }

// expired reports whether the item has ceased to exist.
func (i *memoryItem) expired(now time.Time) bool {
	return i.expires != 0 && now.UnixNano() >= i.expires
}

// item returns a copy that the caller may change.
func (i *memoryItem) item() Item {
	item := Item{Key: i.name(), Value: []byte(i.text[i.key:]), Version: i.version}
	if i.expires != 0 {
		item.Expires = time.Unix(0, i.expires).UTC()
	}
	return item
}

// NewMemory returns an empty store. now is the clock that items expire by; nil
// means time.Now.
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{now: now, items: make(map[string]*memoryItem)}
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key string) (Item, error) {
	if err := checkKey(key); err != nil {
		return Item{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return Item{}, err
	}
	it := m.live(key)
	if it == nil {
		return Item{}, ErrNotFound
	}
	return it.item(), nil
}

// Put implements Store.
func (m *Memory) Put(ctx context.Context, item Item) (uint64, error) {
	if err := checkItem(item); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return 0, err
	}
	m.purge()
	have := New
	if it := m.live(item.Key); it != nil {
		have = it.version
	}
	if !matches(have, item.Version) {
		return 0, ErrConflict
	}
	m.version++
	m.remove(item.Key)
	it := newMemoryItem(item, m.version)
	m.items[it.name()] = it
	if it.expires != 0 {
		heap.Push(&m.expiry, it)
	}
	// Under the lock, so that watchers see changes in order.
	m.hub.publish(Change{Key: item.Key, Version: it.version})
	return it.version, nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, key string, version uint64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	it := m.live(key)
	if it == nil {
		return ErrNotFound
	}
	if !matches(it.version, version) {
		return ErrConflict
	}
	m.version++
	m.remove(key)
	m.hub.publish(Change{Key: key, Deleted: true, Version: m.version})
	return nil
}

// List implements Store. It works on a copy taken at the first step.
func (m *Memory) List(ctx context.Context, prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		found, err := m.collect(ctx, prefix)
		if err != nil {
			yield(Item{}, err)
			return
		}
		for _, it := range found {
			if err := ctx.Err(); err != nil {
				yield(Item{}, err)
				return
			}
			if !yield(it.item(), nil) {
				return
			}
		}
	}
}

func (m *Memory) collect(ctx context.Context, prefix string) ([]*memoryItem, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	// Stored items are never changed in place, so that pointers will do.
	var found []*memoryItem
	for key := range m.items {
		if strings.HasPrefix(key, prefix) {
			if it := m.live(key); it != nil {
				found = append(found, it)
			}
		}
	}
	slices.SortFunc(found, func(a, b *memoryItem) int { return strings.Compare(a.name(), b.name()) })
	return found, nil
}

// Watch implements Store.
func (m *Memory) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	return m.hub.watch(ctx, prefix, 0)
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.items, m.expiry = nil, nil
	m.hub.close(errClosed)
	return nil
}

func (m *Memory) usable(ctx context.Context) error {
	if m.closed {
		return errClosed
	}
	return ctx.Err()
}

// live returns the item, or nil if there is none or it has expired.
func (m *Memory) live(key string) *memoryItem {
	it := m.items[key]
	if it == nil || it.expired(m.now()) {
		return nil
	}
	return it
}

func (m *Memory) remove(key string) {
	it := m.items[key]
	if it == nil {
		return
	}
	delete(m.items, key)
	if it.at >= 0 {
		heap.Remove(&m.expiry, int(it.at))
	}
}

// purge drops expired items, a bounded number for each write: more than writes
// add, so that expired items cannot pile up, and no write pays for all of them.
func (m *Memory) purge() {
	now := m.now()
	for range purgePerWrite {
		if len(m.expiry) == 0 || !m.expiry[0].expired(now) {
			return
		}
		m.remove(m.expiry[0].name())
	}
}

// purgePerWrite is how many expired items one write looks for.
const purgePerWrite = 16

// expired reports whether the item has ceased to exist.
func (i *Item) expired(now time.Time) bool { return !i.Expires.IsZero() && !now.Before(i.Expires) }

// expiryQueue is a heap with the item that expires first on top.
type expiryQueue []*memoryItem

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].expires < q[j].expires }
func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = int32(i), int32(j)
}
func (q *expiryQueue) Push(x any) {
	it := x.(*memoryItem)
	it.at = int32(len(*q))
	*q = append(*q, it)
}
func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	it := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	it.at = -1
	return it
}
