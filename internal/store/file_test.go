package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func tempFile(t *testing.T) string { return filepath.Join(t.TempDir(), "state.db") }

func reopen(t *testing.T, path string) *File {
	t.Helper()
	f, err := OpenFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFileSurvivesRestart(t *testing.T) {
	path := tempFile(t)
	ctx := t.Context()
	f := reopen(t, path)
	expires := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	v1, err := f.Put(ctx, Item{Key: "a", Value: []byte("one"), Expires: expires})
	if err != nil {
		t.Fatal(err)
	}
	v2, _ := f.Put(ctx, Item{Key: "b", Value: []byte("two")})
	if err := f.Delete(ctx, "b", v2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = reopen(t, path)
	got, err := f.Get(ctx, "a")
	if err != nil || string(got.Value) != "one" || got.Version != v1 || !got.Expires.Equal(expires) {
		t.Errorf("after the restart: %+v, %v", got, err)
	}
	if _, err := f.Get(ctx, "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed item came back: %v", err)
	}
	if v, err := f.Put(ctx, Item{Key: "b"}); err != nil || v <= v2 {
		t.Errorf("version %d was given out again after %d, %v", v, v2, err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "state.db")
	f := reopen(t, path)
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", p, info.Mode(), err)
		}
	}
	f.Close()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	reopen(t, path)
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("a file that others could read stayed so: %v", info.Mode())
	}
}

// Each way of not being able to open the file names the file and the cure.
func TestFileOpenErrorsTellTheCure(t *testing.T) {
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked.db")
	reopen(t, locked)
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("not a state file"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		locked:                               "another doorward is using it",
		garbage:                              "move it away",
		dir:                                  "to a file in a folder",
		filepath.Join(garbage, "state.db"):   "to a file in a folder",
		filepath.Join(dir, "a/b/c/state.db"): "create the folder",
	} {
		f, err := openFile(path, nil, bolt.Options{Timeout: time.Millisecond})
		if err == nil {
			f.Close()
			t.Errorf("%s was opened", path)
			continue
		}
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nshould contain %q", path, err, want)
		}
	}
	if _, err := os.Stat(garbage); err != nil {
		t.Error("a file that was there before was removed")
	}
}

// A damaged item costs that item, not the process and not its neighbours.
func TestDamagedItemIsOneError(t *testing.T) {
	f := reopen(t, tempFile(t))
	ctx := t.Context()
	good, err := f.Put(ctx, Item{Key: "k/good", Value: []byte("fine")})
	if err != nil {
		t.Fatal(err)
	}
	whole := encode(Item{Value: []byte("moved")})
	seal([]byte("k/elsewhere"), whole, 1)
	for key, data := range map[string][]byte{
		"k/short": {formatVersion, 0}, "k/empty": {}, "k/future": append([]byte{9}, make([]byte, 40)...),
		"k/sum": append([]byte{formatVersion}, make([]byte, 40)...), "k/moved": whole,
	} {
		plant := func() {
			if err := f.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(itemsBucket).Put([]byte(key), data) }); err != nil {
				t.Fatal(err)
			}
		}
		plant()
		if _, err := f.Get(ctx, key); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), key) {
			t.Errorf("get %s: %v", key, err)
		}
		if _, err := f.Put(ctx, Item{Key: key, Version: New}); !errors.Is(err, ErrConflict) {
			t.Errorf("create over %s: %v", key, err)
		}
		if _, err := f.Put(ctx, Item{Key: key, Version: 1}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("swap %s: %v", key, err)
		}
		if err := f.Delete(ctx, key, 1); !errors.Is(err, ErrCorrupt) {
			t.Errorf("delete exact %s: %v", key, err)
		}
		seen := 0
		for item, err := range f.List(ctx, "k/") {
			seen++
			if (item.Key == "k/good") != (err == nil) {
				t.Errorf("listed %s with %v", item.Key, err)
			}
		}
		if seen != 2 {
			t.Errorf("listed %d items", seen)
		}
		if err := f.Delete(ctx, key, Any); err != nil {
			t.Errorf("remove %s: %v", key, err)
		}
		plant()
		v, err := f.Put(ctx, Item{Key: key, Version: Any})
		if err != nil {
			t.Errorf("replace %s: %v", key, err)
		}
		if err := f.Delete(ctx, key, v); err != nil {
			t.Errorf("remove the replacement of %s: %v", key, err)
		}
	}
	if got, err := f.Get(ctx, "k/good"); err != nil || got.Version != good {
		t.Errorf("the neighbour: %+v, %v", got, err)
	}
}

// Someone cuts the file under a running process: reading it is a memory fault,
// which must arrive as an error.
func TestShortenedFileIsAnError(t *testing.T) {
	path := tempFile(t)
	f := reopen(t, path)
	ctx := t.Context()
	for i := range 64 {
		if _, err := f.Put(ctx, Item{Key: fmt.Sprint("k/", i), Value: make([]byte, 8000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 { // none of them may be left waiting for a lock
		wg.Go(func() {
			_, err := f.Get(ctx, "k/1")
			if !errors.Is(err, ErrUnavailable) || !strings.HasSuffix(err.Error(), errDamaged.Error()+cure(errDamaged)) {
				t.Errorf("get: %v", err) // a fault inside bbolt would add its own words
			}
		})
	}
	wg.Wait()
	if _, err := f.Put(ctx, Item{Key: "k/1", Version: Any}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	for _, err := range f.List(ctx, "k/") {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("list: %v", err)
		}
	}
	if err := f.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// bbolt's own size limit stands in for the disk's where no disk can be filled.
func TestFileGrowsNoFurther(t *testing.T) {
	f, err := openFile(tempFile(t), nil, bolt.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fillUp(t, f)
}

// fillUp writes until the store refuses, and checks that the refusal is clear and
// harmless.
func fillUp(t *testing.T, f *File) {
	t.Helper()
	ctx := t.Context()
	n := 0
	var err error
	for ; err == nil && n < 10_000; n++ {
		_, err = f.Put(ctx, Item{Key: fmt.Sprintf("fill/%05d", n), Value: bytes.Repeat([]byte("x"), 10_000)})
	}
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "make room") || !strings.Contains(err.Error(), f.path) {
		t.Fatalf("after %d items: %v", n, err)
	}
	t.Logf("after %d items: %v", n, err)
	listed := 0
	for _, err := range f.List(ctx, "fill/") {
		if err != nil {
			t.Fatal(err)
		}
		listed++
	}
	if listed != n-1 {
		t.Errorf("%d items can be read of %d", listed, n-1)
	}
	if _, err := f.Get(ctx, "fill/00000"); err != nil {
		t.Errorf("reading from a full disk: %v", err)
	}
}

// Writers that arrive while the disk is busy share one commit.
func TestConcurrentWritersShareCommits(t *testing.T) {
	f := reopen(t, tempFile(t))
	// The queue is filled before the writer gets to see it, as when the disk is slow.
	tx, err := f.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	before := tx.ID()
	changes := make([]*change, maxBatch)
	for i := range changes {
		changes[i] = &change{key: fmt.Append(nil, "k/", i), data: encode(Item{}), done: make(chan struct{})}
	}
	go func() {
		defer tx.Rollback()
		for _, c := range changes {
			f.changes <- c
		}
	}()
	for _, c := range changes {
		<-c.done
	}
	if commits := lastCommit(t, f) - before; commits > 3 {
		t.Errorf("%d writers took %d commits", maxBatch, commits)
	}
}

func TestRefusedWritesCostNoCommit(t *testing.T) {
	f := reopen(t, tempFile(t))
	ctx := t.Context()
	if _, err := f.Put(ctx, Item{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	before := lastCommit(t, f)
	for range 20 {
		if err := f.Delete(ctx, "code/guessed", Any); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if _, err := f.Put(ctx, Item{Key: "k"}); !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
	}
	if after := lastCommit(t, f); after != before {
		t.Errorf("%d commits for refused writes", after-before)
	}
}

func lastCommit(t *testing.T, f *File) (id int) {
	t.Helper()
	if err := f.db.View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

// Expired items leave the file although nobody asks for them again.
func TestExpiredItemsLeaveTheFile(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	f, err := openFile(tempFile(t), clock, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := NewMemory(clock)
	defer m.Close()
	ctx := t.Context()
	const n = 300
	for i := range n {
		item := Item{Key: fmt.Sprintf("code/%03d", i), Expires: now.Add(time.Minute)}
		for _, s := range []Store{f, m} {
			if _, err := s.Put(ctx, item); err != nil {
				t.Fatal(err)
			}
		}
	}
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	for i := range n/purgePerWrite + 10 {
		for _, s := range []Store{f, m} {
			if _, err := s.Put(ctx, Item{Key: fmt.Sprint("k/", i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.db.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Bucket(itemsBucket).Cursor().Seek([]byte("code/")); bytes.HasPrefix(k, []byte("code/")) {
			t.Errorf("%s is still in the file", k)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(m.items) != n/purgePerWrite+10 || len(m.expiry) != 0 {
		t.Errorf("%d items and %d expiries are still in memory", len(m.items), len(m.expiry))
	}
}

func TestPutAfterAnEndedWaitDoesNotTouchTheCallersValue(t *testing.T) {
	f := reopen(t, tempFile(t))
	tx, err := f.db.Begin(true) // holds up the commit
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	value := []byte("mine")
	result := make(chan error)
	go func() {
		_, err := f.Put(ctx, Item{Key: "k", Value: value})
		result <- err
	}()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	copy(value, "else") // the race detector watches
	tx.Rollback()
}

// Whatever bytes the file holds under a key, reading them is safe, and what is
// accepted is what encode would have written.
func FuzzDecode(f *testing.F) {
	for _, item := range []Item{{Key: "k"}, {Key: "login/1", Value: []byte("{}"), Expires: time.Unix(1, 0)}} {
		data := encode(item)
		seal([]byte(item.Key), data, 7)
		f.Add([]byte(item.Key), data)
		f.Add([]byte("other"), data)
	}
	f.Add([]byte(""), []byte{formatVersion})
	f.Fuzz(func(t *testing.T, key, data []byte) {
		item, err := decode(key, data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		again := encode(item)
		seal(key, again, item.Version)
		if !bytes.Equal(again, data) {
			t.Errorf("%x was read as %+v, which is written as %x", data, item, again)
		}
	})
}

func BenchmarkFilePut(b *testing.B) {
	f, err := OpenFile(filepath.Join(b.TempDir(), "state.db"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	value := make([]byte, 1000)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := f.Put(b.Context(), Item{Key: fmt.Sprint("k/", i%1000), Value: value, Version: Any}); err != nil {
				b.Error(err)
			}
		}
	})
}
