package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// File is a Store in one local file, which one process at a time may open. A
// Put or Delete that returned without error survives a crash of the machine.
type File struct {
	path string
	now  func() time.Time
	db   *bolt.DB
	hub  hub

	changes chan *change
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the writer has ended
	close   sync.Once

	file     *os.File      // bbolt's own, to see whether someone cuts it
	size     atomic.Int64  // the largest size seen; bbolt's files only grow
	broken   chan struct{} // closed when bbolt may not be entered any more
	setBroke sync.Once

	sweepAt []byte // where the next sweep goes on; the writer's own
}

var itemsBucket = []byte("items")

// lockTimeout is how long OpenFile waits for another process to let go of the
// file: enough for one that is just shutting down.
const lockTimeout = 2 * time.Second

// OpenFile opens the state file, and creates it with mode 0600 if it does not
// exist, also its folder with mode 0700 if the folder above exists. now is the
// clock that items expire by; nil means time.Now. Every error is ErrUnavailable
// and names the path and the cure.
func OpenFile(path string, now func() time.Time) (*File, error) {
	return openFile(path, now, bolt.Options{Timeout: lockTimeout})
}

func openFile(path string, now func() time.Time, opts bolt.Options) (*File, error) {
	if now == nil {
		now = time.Now
	}
	f := &File{
		path:    path,
		now:     now,
		changes: make(chan *change, maxBatch),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
		broken:  make(chan struct{}),
	}
	opts.OpenFile = func(name string, flag int, perm os.FileMode) (file *os.File, err error) {
		f.file, err = os.OpenFile(name, flag, perm)
		return f.file, err
	}
	// The hash map keeps writing cheap when the file has many free pages.
	opts.FreelistType = bolt.FreelistMapType
	opts.NoStatistics = true
	if err := f.open(&opts); err != nil {
		return nil, f.failed(err)
	}
	go f.write()
	return f, nil
}

func (f *File) open(opts *bolt.Options) (err error) {
	if err := os.Mkdir(filepath.Dir(f.path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	_, err = os.Stat(f.path)
	created := errors.Is(err, fs.ErrNotExist)
	err = f.guard(func() (err error) {
		f.db, err = bolt.Open(f.path, 0o600, opts)
		return err
	})
	if err != nil {
		if created && !errors.Is(err, bolterrors.ErrTimeout) {
			// Half a file would be taken for a damaged one the next time.
			err = errors.Join(err, ignoreMissing(os.Remove(f.path)))
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.db.Close())
		}
	}()
	// A file that was copied here may be readable by others.
	if info, err := os.Stat(f.path); err != nil {
		return err
	} else if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(f.path, 0o600); err != nil {
			return err
		}
	}
	return f.guard(func() error {
		ready := false
		if err := f.db.View(func(tx *bolt.Tx) error { ready = tx.Bucket(itemsBucket) != nil; return nil }); err != nil || ready {
			return err
		}
		return f.db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(itemsBucket)
			return err
		})
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Get implements Store.
func (f *File) Get(ctx context.Context, key string) (Item, error) {
	if err := checkKey(key); err != nil {
		return Item{}, err
	}
	if err := ctx.Err(); err != nil {
		return Item{}, err
	}
	var item Item
	missing := false
	err := f.guard(func() error {
		return f.db.View(func(tx *bolt.Tx) (err error) {
			k := []byte(key)
			data := tx.Bucket(itemsBucket).Get(k)
			if missing = data == nil; missing {
				return nil
			}
			item, err = decode(k, data)
			item.Value = bytes.Clone(item.Value) // data is gone after the transaction
			return err
		})
	})
	switch {
	case err != nil:
		return Item{}, f.failed(err)
	case missing || item.expired(f.now()):
		return Item{}, ErrNotFound
	}
	return item, nil
}

// Put implements Store.
func (f *File) Put(ctx context.Context, item Item) (uint64, error) {
	if err := checkItem(item); err != nil {
		return 0, err
	}
	c := &change{key: []byte(item.Key), data: encode(item), want: item.Version}
	if err := f.submit(ctx, c); err != nil {
		return 0, err
	}
	return c.version, nil
}

// Delete implements Store.
func (f *File) Delete(ctx context.Context, key string, version uint64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return f.submit(ctx, &change{key: []byte(key), want: version})
}

// listChunk bounds what List reads at once. It reads in chunks because a caller
// may write while it goes through the list, and an open read would stand in the
// way of that write.
const (
	listChunk      = 64
	listChunkBytes = MaxValue
)

// List implements Store.
func (f *File) List(ctx context.Context, prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		from := []byte(prefix)
		for from != nil {
			if err := ctx.Err(); err != nil {
				yield(Item{}, err)
				return
			}
			chunk, next, err := f.chunk(from, []byte(prefix))
			if err != nil {
				yield(Item{}, f.failed(err))
				return
			}
			for _, l := range chunk {
				if !l.expired(f.now()) && !yield(l.Item, l.err) {
					return
				}
			}
			from = next
		}
	}
}

type listed struct {
	Item
	err error
}

// chunk reads the next items in order, and returns the key to go on from, nil at
// the end.
func (f *File) chunk(from, prefix []byte) (chunk []listed, next []byte, err error) {
	err = f.guard(func() error {
		return f.db.View(func(tx *bolt.Tx) error {
			size := 0
			c := tx.Bucket(itemsBucket).Cursor()
			for k, data := c.Seek(from); bytes.HasPrefix(k, prefix) && k != nil; k, data = c.Next() {
				if len(chunk) >= listChunk || size >= listChunkBytes {
					next = bytes.Clone(k)
					return nil
				}
				item, err := decode(k, data)
				if err != nil {
					item.Key = string(k)
				}
				item.Value = bytes.Clone(item.Value)
				size += len(item.Value)
				chunk = append(chunk, listed{item, err})
			}
			return nil
		})
	})
	return chunk, next, err
}

// Watch implements Store. It sees the changes of this process, which holds the
// file, so there are no others.
func (f *File) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	return f.hub.watch(ctx, prefix, 0)
}

// Close implements Store. It waits for writes that have begun.
func (f *File) Close() (err error) {
	f.close.Do(func() {
		close(f.closing)
		select {
		case <-f.stopped:
			err = f.guard(f.db.Close)
		case <-f.broken:
		}
		f.hub.close(errClosed)
		if err != nil {
			err = f.failed(err)
		}
	})
	return err
}

// errDamaged tells that the file no longer is what bbolt left there.
var errDamaged = fmt.Errorf("%w: it was damaged from outside", bolterrors.ErrInvalid)

// guard enters bbolt. A file that is damaged or cut short shows there as a panic
// or a memory fault; both become errors, because a broken file must not end the
// process, which can still refuse requests with a reason. A panic may leave
// bbolt's locks taken, so nobody enters after one; for the same reason a file
// that was cut short is noticed before.
func (f *File) guard(do func() error) (err error) {
	select {
	case <-f.broken:
		return errDamaged
	default:
	}
	if f.shortened() {
		f.setBroke.Do(func() { close(f.broken) })
		return errDamaged
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			f.setBroke.Do(func() { close(f.broken) })
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return do()
}

func (f *File) shortened() bool {
	if f.file == nil {
		return false // not open yet
	}
	info, err := f.file.Stat()
	if err != nil {
		return false // closed; bbolt says so better
	}
	for {
		seen, size := f.size.Load(), info.Size()
		if size < seen {
			// Another goroutine may have noted a growth since the Stat.
			info, err = f.file.Stat()
			return err == nil && info.Size() < seen
		}
		if size == seen || f.size.CompareAndSwap(seen, size) {
			return false
		}
	}
}

// failed explains an error to the operator: which file, what is wrong with it
// and what to do.
func (f *File) failed(err error) error {
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	return fmt.Errorf("%w: state file %s: %w%s", ErrUnavailable, f.path, err, cure(err))
}

func cure(err error) string {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(bolterrors.ErrTimeout):
		return ": another doorward is using it (stop that one, or give this one its own sessions.store.file.path)"
	case is(syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, bolterrors.ErrMaxSizeReached):
		return " (the disk is full: make room on it)"
	case is(syscall.EROFS):
		return " (the disk is read-only: set sessions.store.file.path to a place that can be written)"
	case is(fs.ErrPermission):
		return fmt.Sprintf(" (user %d may not write there: change the owner of the folder, or set sessions.store.file.path)", os.Getuid())
	case is(fs.ErrNotExist):
		return " (create the folder, or set sessions.store.file.path)"
	case is(syscall.EISDIR, syscall.ENOTDIR):
		return " (set sessions.store.file.path to a file in a folder)"
	case is(bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum):
		return " (it is damaged or no state file: restore it or move it away; without it everyone logs in again)"
	}
	return ""
}
