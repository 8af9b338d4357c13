package store

import (
	"bytes"
	"context"
	"errors"

	bolt "go.etcd.io/bbolt"
)

// maxBatch is how many changes share one commit at most. A commit waits for the
// disk whatever its size, so that a crowd that logs in at once waits together.
const maxBatch = 1024

// change is one Put or Delete on its way into the file.
type change struct {
	key  []byte
	data []byte // encoded item; nil deletes
	want uint64

	version uint64
	err     error
	done    chan struct{} // closed when version and err are set
}

// submit hands a change to the writer and waits for the commit.
func (f *File) submit(ctx context.Context, c *change) error {
	c.done = make(chan struct{})
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case f.changes <- c:
	case <-f.closing:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	case <-f.broken:
	case <-f.stopped:
	}
	// The writer may have done this change as its last one.
	select {
	case <-c.done:
		return c.err
	case <-f.broken:
		return f.failed(errDamaged)
	default:
		return errClosed
	}
}

// write commits changes until the store is closed. A commit waits for the disk,
// a few milliseconds; whatever arrives meanwhile shares the next one.
func (f *File) write() {
	defer close(f.stopped)
	batch := make([]*change, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case c := <-f.changes:
			batch = append(batch, c)
		case <-f.closing:
			return
		}
		for full := false; !full && len(batch) < maxBatch; {
			select {
			case c := <-f.changes:
				batch = append(batch, c)
			default:
				full = true
			}
		}
		f.commit(batch)
		clear(batch)
	}
}

// errNoChange rolls back a transaction in which no change applied, so that
// refused writes cost no disk access.
var errNoChange = errors.New("no change")

func (f *File) commit(batch []*change) {
	err := f.guard(func() error {
		return f.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(itemsBucket)
			applied := 0
			for _, c := range batch {
				if err := f.apply(b, c); err != nil {
					return err
				}
				if c.err == nil {
					applied++
				}
			}
			if applied == 0 {
				return errNoChange
			}
			return f.sweep(b, applied*purgePerWrite)
		})
	})
	if err != nil && !errors.Is(err, errNoChange) {
		err = f.failed(err)
		for _, c := range batch {
			c.version, c.err = 0, err
			close(c.done)
		}
		return
	}
	for _, c := range batch {
		if c.err == nil {
			f.hub.publish(Change{Key: string(c.key), Deleted: c.data == nil, Version: c.version})
		}
		close(c.done)
	}
}

// apply makes one change within the transaction. A change that does not apply
// has its err set; a returned error fails the whole transaction.
func (f *File) apply(b *bolt.Bucket, c *change) error {
	have, err := f.stored(b, c.key)
	switch {
	case err != nil && c.want == New:
		c.err = ErrConflict // there is something, though it cannot be read
		return nil
	case err != nil && c.want != Any:
		c.err = err
		return nil
	case err == nil && c.data == nil && have == New:
		c.err = ErrNotFound
		return nil
	case err == nil && !matches(have, c.want):
		c.err = ErrConflict
		return nil
	}
	// The bucket's sequence, so that no version ever comes back, also not after
	// a removal or a restart.
	if c.version, err = b.NextSequence(); err != nil {
		return err
	}
	if c.data == nil {
		return b.Delete(c.key)
	}
	seal(c.key, c.data, c.version)
	return b.Put(c.key, c.data)
}

// stored returns the version of an item, New if there is none.
func (f *File) stored(b *bolt.Bucket, key []byte) (uint64, error) {
	data := b.Get(key)
	if data == nil {
		return New, nil
	}
	item, err := decode(key, data)
	if err != nil {
		return 0, err
	}
	if item.expired(f.now()) {
		return New, nil
	}
	return item.Version, nil
}

// sweep looks at the next n items for expired ones and removes them. Riding
// along with writes it needs no timer, and since it looks at more items than
// the writes can have added, expired items never pile up.
func (f *File) sweep(b *bolt.Bucket, n int) error {
	now := f.now()
	var expired [][]byte
	c := b.Cursor()
	k, data := c.Seek(f.sweepAt)
	for ; k != nil && n > 0; k, data = c.Next() {
		if item, err := decode(k, data); err == nil && item.expired(now) {
			expired = append(expired, bytes.Clone(k))
		}
		n--
	}
	f.sweepAt = bytes.Clone(k)
	for _, k := range expired {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
