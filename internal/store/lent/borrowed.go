package lent

import (
	"context"
	"fmt"
	"iter"
	"net/rpc"
	"sync"

	"github.com/doorward/doorward/internal/store"
)

// Borrowed is a Store that another process keeps.
type Borrowed struct {
	client *rpc.Client
	closed chan struct{}
	close  sync.Once
}

// Borrow returns the store of the Lender at the other end. Closing it gives back
// what is being read; the client stays open.
func Borrow(client *rpc.Client) *Borrowed {
	return &Borrowed{client: client, closed: make(chan struct{})}
}

var errGivenBack = fmt.Errorf("%w: it was given back", store.ErrUnavailable)

// failure is an error of the lender's.
type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

func (f Failure) err() error {
	if f.Text == "" {
		return nil
	}
	kind := kinds[0]
	if f.Kind > 0 && f.Kind < len(kinds) {
		kind = kinds[f.Kind]
	}
	return &failure{kind, f.Text}
}

// call makes one call. A connection that broke makes the store unavailable.
func (b *Borrowed) call(ctx context.Context, method string, args, reply any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-b.closed:
		return errGivenBack
	default:
	}
	call := b.client.Go(Service+"."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("%w: the process that keeps it: %w", store.ErrUnavailable, call.Error)
		}
		return nil
	case <-b.closed:
		return errGivenBack
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get implements store.Store.
func (b *Borrowed) Get(ctx context.Context, key string) (store.Item, error) {
	a := new(Answer)
	if err := b.call(ctx, "Get", key, a); err != nil {
		return store.Item{}, err
	}
	return a.Item, a.Err.err()
}

// Put implements store.Store.
func (b *Borrowed) Put(ctx context.Context, item store.Item) (uint64, error) {
	a := new(Answer)
	if err := b.call(ctx, "Put", item, a); err != nil {
		return 0, err
	}
	return a.Version, a.Err.err()
}

// Delete implements store.Store.
func (b *Borrowed) Delete(ctx context.Context, key string, version uint64) error {
	a := new(Answer)
	if err := b.call(ctx, "Delete", store.Item{Key: key, Version: version}, a); err != nil {
		return err
	}
	return a.Err.err()
}

// List implements store.Store.
func (b *Borrowed) List(ctx context.Context, prefix string) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		o := new(Opened)
		if err := b.call(ctx, "List", prefix, o); err != nil {
			yield(store.Item{}, err)
			return
		}
		defer b.client.Go(Service+".Done", o.ID, nil, make(chan *rpc.Call, 1))
		for {
			batch := new(Batch)
			if err := b.call(ctx, "Next", o.ID, batch); err != nil {
				yield(store.Item{}, err)
				return
			}
			for _, a := range batch.Items {
				err := ctx.Err()
				if err != nil {
					yield(store.Item{}, err)
					return
				}
				if !yield(a.Item, a.Err.err()) {
					return
				}
			}
			if batch.End {
				return
			}
		}
	}
}

// Watch implements store.Store.
func (b *Borrowed) Watch(ctx context.Context, prefix string) (<-chan store.Change, error) {
	o := new(Opened)
	if err := b.call(ctx, "Watch", prefix, o); err != nil {
		return nil, err
	}
	if err := o.Err.err(); err != nil {
		return nil, err
	}
	changes := make(chan store.Change)
	go func() {
		defer close(changes)
		defer b.client.Go(Service+".Done", o.ID, nil, make(chan *rpc.Call, 1))
		for {
			batch := new(Batch)
			if b.call(ctx, "Next", o.ID, batch) != nil {
				return
			}
			for _, c := range batch.Changes {
				select {
				case changes <- c:
				case <-ctx.Done():
					return
				case <-b.closed:
					return
				}
			}
			if batch.End {
				return
			}
		}
	}()
	return changes, nil
}

// Close implements store.Store.
func (b *Borrowed) Close() error {
	b.close.Do(func() { close(b.closed) })
	return nil
}
