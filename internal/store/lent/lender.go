package lent

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/doorward/doorward/internal/store"
)

// Service is the name that a Lender is to be registered under (net/rpc).
const Service = "store"

// A Lender answers for a store. Its methods are called from the other process.
type Lender struct {
	kept store.Store
	ctx  context.Context

	mu      sync.Mutex
	last    uint64
	readers map[uint64]*reader
}

// reader is a listing or a watch of the other process.
type reader struct {
	next func(batch *Batch)
	stop func()
}

// NewLender returns a Lender that answers until ctx ends.
func NewLender(ctx context.Context, kept store.Store) *Lender {
	return &Lender{kept: kept, ctx: ctx, readers: map[uint64]*reader{}}
}

// Answer is what a call results in.
type Answer struct {
	Item    store.Item
	Version uint64
	Err     Failure
}

// Failure is an error on its way. The zero value is none.
type Failure struct {
	Kind int // its place in kinds, 0: another one
	Text string
}

// kinds are the errors that callers tell apart.
var kinds = [...]error{nil, store.ErrNotFound, store.ErrConflict, store.ErrUnavailable, store.ErrCorrupt}

func fail(err error) Failure {
	if err == nil {
		return Failure{}
	}
	f := Failure{Text: err.Error()}
	for kind, one := range kinds {
		if one != nil && errors.Is(err, one) {
			f.Kind = kind
		}
	}
	return f
}

// Get is Store.Get.
func (l *Lender) Get(key string, a *Answer) error {
	item, err := l.kept.Get(l.ctx, key)
	a.Item, a.Err = item, fail(err)
	return nil
}

// Put is Store.Put.
func (l *Lender) Put(item store.Item, a *Answer) error {
	version, err := l.kept.Put(l.ctx, item)
	a.Version, a.Err = version, fail(err)
	return nil
}

// Delete is Store.Delete, of the key and version of an item.
func (l *Lender) Delete(item store.Item, a *Answer) error {
	a.Err = fail(l.kept.Delete(l.ctx, item.Key, item.Version))
	return nil
}

// Opened names a listing or a watch.
type Opened struct {
	ID  uint64
	Err Failure
}

// Batch is what a listing or a watch yields next.
type Batch struct {
	Items   []Answer
	Changes []store.Change
	End     bool
}

// atOnce and bytesAtOnce bound a batch.
const (
	atOnce      = 64
	bytesAtOnce = store.MaxValue
)

// List begins Store.List.
func (l *Lender) List(prefix string, o *Opened) error {
	ctx, cancel := context.WithCancel(l.ctx)
	next, stop := iter.Pull2(l.kept.List(ctx, prefix))
	var one sync.Mutex // the other side may have stopped waiting for the last part
	o.ID = l.open(&reader{
		next: func(batch *Batch) {
			one.Lock()
			defer one.Unlock()
			for size := 0; len(batch.Items) < atOnce && size < bytesAtOnce; {
				item, err, more := next()
				if !more {
					batch.End = true
					return
				}
				size += len(item.Value)
				batch.Items = append(batch.Items, Answer{Item: item, Err: fail(err)})
			}
		},
		stop: func() {
			cancel()
			one.Lock()
			defer one.Unlock()
			stop()
		},
	})
	return nil
}

// Watch begins Store.Watch.
func (l *Lender) Watch(prefix string, o *Opened) error {
	ctx, cancel := context.WithCancel(l.ctx)
	changes, err := l.kept.Watch(ctx, prefix)
	if err != nil {
		cancel()
		o.Err = fail(err)
		return nil
	}
	o.ID = l.open(&reader{
		next: func(batch *Batch) {
			change, more := <-changes
			for more {
				batch.Changes = append(batch.Changes, change)
				if len(batch.Changes) == atOnce {
					return
				}
				select {
				case change, more = <-changes:
				default:
					return
				}
			}
			batch.End = true
		},
		stop: cancel,
	})
	return nil
}

func (l *Lender) open(r *reader) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.readers[l.last] = r
	return l.last
}

// Next waits for the next part of a listing or a watch.
func (l *Lender) Next(id uint64, batch *Batch) error {
	l.mu.Lock()
	r := l.readers[id]
	l.mu.Unlock()
	if r == nil {
		batch.End = true
		return nil
	}
	r.next(batch)
	return nil
}

// Done ends a listing or a watch.
func (l *Lender) Done(id uint64, _ *struct{}) error {
	l.mu.Lock()
	r := l.readers[id]
	delete(l.readers, id)
	l.mu.Unlock()
	if r != nil {
		r.stop()
	}
	return nil
}
