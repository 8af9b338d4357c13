package store

import (
	"bytes"
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

type memoryItem struct {
	Item
	at int // place in the expiry queue, -1 if the item never expires
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
	return it.copy(), nil
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
		have = it.Version
	}
	if !matches(have, item.Version) {
		return 0, ErrConflict
	}
	m.version++
	m.remove(item.Key)
	it := &memoryItem{Item: item, at: -1}
	it.Value, it.Version = bytes.Clone(item.Value), m.version
	m.items[item.Key] = it
	if !it.Expires.IsZero() {
		heap.Push(&m.expiry, it)
	}
	// Under the lock, so that watchers see changes in order.
	m.hub.publish(Change{Key: it.Key, Version: it.Version})
	return it.Version, nil
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
	if !matches(it.Version, version) {
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
			if !yield(it.copy(), nil) {
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
	slices.SortFunc(found, func(a, b *memoryItem) int { return strings.Compare(a.Key, b.Key) })
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
		heap.Remove(&m.expiry, it.at)
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
		m.remove(m.expiry[0].Key)
	}
}

// purgePerWrite is how many expired items one write looks for.
const purgePerWrite = 16

// expired reports whether the item has ceased to exist.
func (i *Item) expired(now time.Time) bool { return !i.Expires.IsZero() && !now.Before(i.Expires) }

func (i *memoryItem) copy() Item {
	c := i.Item
	c.Value = bytes.Clone(c.Value)
	return c
}

// expiryQueue is a heap with the item that expires first on top.
type expiryQueue []*memoryItem

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].Expires.Before(q[j].Expires) }
func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}
func (q *expiryQueue) Push(x any) {
	it := x.(*memoryItem)
	it.at = len(*q)
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
