package store

import (
	"context"
	"errors"
	"iter"
	"sync"
)

// Moving is a Store whose keeper can change while it is in use: this process at
// first, another one later. Calls that meet the change wait for its end, and
// watchers are told that they have lost something.
type Moving struct {
	closed chan struct{}
	close  sync.Once

	mu    sync.Mutex
	at    Store
	left  bool          // at is closed, and another one to come
	moved chan struct{} // closed when at is another one
}

// NewMoving returns a Store that begins where s is.
func NewMoving(s Store) *Moving {
	return &Moving{at: s, closed: make(chan struct{}), moved: make(chan struct{})}
}

// Leave closes the store where it is, after the changes that have begun. Whoever
// uses it waits for Arrive.
func (m *Moving) Leave() error {
	m.mu.Lock()
	m.left = true
	at := m.at
	m.mu.Unlock()
	return at.Close()
}

// Arrive says where the items are from here on.
func (m *Moving) Arrive(at Store) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.moved)
	m.at, m.left, m.moved = at, false, make(chan struct{})
}

func (m *Moving) where() (at Store, moved <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at, m.moved
}

// again reports whether a call that failed is to be made again, where the items
// are now. A store that is closed has done nothing of it.
func (m *Moving) again(ctx context.Context, err error, moved <-chan struct{}) bool {
	if !errors.Is(err, errClosed) {
		return false
	}
	select {
	case <-moved:
		return true
	case <-m.closed:
	case <-ctx.Done():
	}
	return false
}

// Get implements Store.
func (m *Moving) Get(ctx context.Context, key string) (Item, error) {
	for {
		at, moved := m.where()
		item, err := at.Get(ctx, key)
		if !m.again(ctx, err, moved) {
			return item, err
		}
	}
}

// Put implements Store.
func (m *Moving) Put(ctx context.Context, item Item) (uint64, error) {
	for {
		at, moved := m.where()
		version, err := at.Put(ctx, item)
		if !m.again(ctx, err, moved) {
			return version, err
		}
	}
}

// Delete implements Store.
func (m *Moving) Delete(ctx context.Context, key string, version uint64) error {
	for {
		at, moved := m.where()
		err := at.Delete(ctx, key, version)
		if !m.again(ctx, err, moved) {
			return err
		}
	}
}

// List implements Store.
func (m *Moving) List(ctx context.Context, prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		last := ""
		for {
			at, moved := m.where()
			var broken error
			for item, err := range at.List(ctx, prefix) {
				if item.Key == "" && errors.Is(err, errClosed) {
					broken = err
					break
				}
				if item.Key != "" && item.Key <= last {
					continue // listed before it moved
				}
				if !yield(item, err) {
					return
				}
				last = max(last, item.Key)
			}
			if broken == nil {
				return
			}
			if !m.again(ctx, broken, moved) {
				yield(Item{}, broken)
				return
			}
		}
	}
}

// Watch implements Store.
func (m *Moving) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	for {
		at, moved := m.where()
		changes, err := at.Watch(ctx, prefix)
		if err == nil {
			out := make(chan Change)
			go m.follow(ctx, prefix, changes, moved, out)
			return out, nil
		}
		if !m.again(ctx, err, moved) {
			return nil, err
		}
	}
}

// follow passes on what each keeper reports, and between two of them that
// something was lost.
func (m *Moving) follow(ctx context.Context, prefix string, changes <-chan Change, moved <-chan struct{}, out chan<- Change) {
	defer close(out)
	send := func(c Change) bool {
		select {
		case out <- c:
			return true
		case <-m.closed:
		case <-ctx.Done():
		}
		return false
	}
	for {
		for c := range changes {
			if !send(c) {
				return
			}
		}
		if !m.leaving(moved) || !m.again(ctx, errClosed, moved) {
			return
		}
		var at Store
		var err error
		at, moved = m.where()
		if changes, err = at.Watch(ctx, prefix); err != nil {
			if !errors.Is(err, errClosed) {
				return
			}
			none := make(chan Change)
			close(none)
			changes = none // it is moving on already
			continue
		}
		if !send(Change{Lost: true}) {
			return
		}
	}
}

// leaving reports whether a keeper that reports nothing any more is being left, or
// has been.
func (m *Moving) leaving(moved <-chan struct{}) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left || m.moved != moved
}

// Close implements Store.
func (m *Moving) Close() (err error) {
	m.close.Do(func() {
		close(m.closed)
		err = m.Leave()
	})
	return err
}
