package audit

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// rotatedLayout names files that were rotated away, behind the name of the
	// file itself. It sorts by time.
	rotatedLayout    = "20060102T150405.000000Z"
	compressedSuffix = ".gz"
	sweepEvery       = time.Hour // how often old files are looked for
	rotateRetry      = time.Minute
	lockRetry        = 5 * time.Second
)

// rotated is a file that was rotated away.
type rotated struct {
	path string
	at   time.Time
}

func (r rotated) compare(other rotated) int { return r.at.Compare(other.at) }

// rotatedFrom lists what was rotated away from a file.
func rotatedFrom(path string) ([]rotated, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []rotated
	for _, entry := range entries {
		rest, ok := strings.CutPrefix(entry.Name(), filepath.Base(path)+".")
		if !ok || !entry.Type().IsRegular() {
			continue
		}
		at, err := time.Parse(rotatedLayout, strings.TrimSuffix(rest, compressedSuffix))
		if err == nil {
			list = append(list, rotated{filepath.Join(filepath.Dir(path), entry.Name()), at})
		}
	}
	return list, nil
}

// rotation says when a file is put aside, and its keeper what becomes of it.
type rotation struct {
	cfg   FileSink
	now   func() time.Time
	log   *slog.Logger
	begun time.Time // when the first event of the file happened
	after time.Time // no try before
	sweep chan struct{}
	stop  chan struct{}
	done  chan struct{}
}

func newRotation(cfg FileSink, opts Options) *rotation {
	return &rotation{cfg: cfg, now: opts.Now, log: opts.Log, sweep: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// due reports whether a file of this size has to make room before the next
// write.
func (r *rotation) due(size, more int64) bool {
	now := r.now()
	if size == 0 || now.Before(r.after) {
		return false
	}
	return r.cfg.MaxSizeMiB > 0 && size+more > int64(r.cfg.MaxSizeMiB)<<20 ||
		r.cfg.MaxAge > 0 && now.Sub(r.begun) >= r.cfg.MaxAge.Std()
}

// began notes the age of the file that is open now.
func (r *rotation) began() {
	r.begun = r.now()
	file, err := os.Open(r.cfg.Path)
	if err != nil {
		return
	}
	defer file.Close()
	for event, err := range Read(file) {
		if err == nil && !event.Time.IsZero() {
			r.begun = event.Time
			return
		}
	}
}

// aside renames the file.
func (r *rotation) aside() error {
	name := r.cfg.Path + "." + r.now().UTC().Format(rotatedLayout)
	for _, taken := range []string{name, name + compressedSuffix} {
		if _, err := os.Lstat(taken); err == nil {
			return fmt.Errorf("%s exists already", taken)
		}
	}
	return os.Rename(r.cfg.Path, name)
}

// keep compresses and deletes what was rotated away, until stop: at the start,
// after every rotation, and every hour.
func (r *rotation) keep() {
	defer close(r.done)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		var again <-chan time.Time
		if !r.tidy() {
			again = time.After(lockRetry)
		}
		select {
		case <-r.stop:
			return
		case <-r.sweep:
		case <-tick.C:
		case <-again:
		}
	}
}

// tidy reports false where somebody else is at work on old files.
func (r *rotation) tidy() bool {
	list, err := rotatedFrom(r.cfg.Path)
	if err != nil {
		r.log.Error("old audit files cannot be looked for", "path", r.cfg.Path, "error", err)
		return true
	}
	if len(list) == 0 {
		return true
	}
	folder, err := lockFolder(filepath.Dir(r.cfg.Path))
	if err != nil {
		r.log.Debug("old audit files are looked after later", "path", r.cfg.Path, "why", err)
		return false
	}
	defer folder.Close()
	slices.SortFunc(list, rotated.compare)
	for i, old := range list {
		tooMany := r.cfg.Keep > 0 && i < len(list)-r.cfg.Keep
		tooOld := r.cfg.KeepFor > 0 && r.now().Sub(old.at) > r.cfg.KeepFor.Std()
		switch {
		case tooMany || tooOld:
			if err := os.Remove(old.path); err != nil {
				r.log.Error("an old audit file cannot be deleted", "path", old.path, "error", err)
				continue
			}
			r.log.Info("an old audit file was deleted", "path", old.path, "keep", r.cfg.Keep, "keep_for", r.cfg.KeepFor.String())
		case r.cfg.Compress && filepath.Ext(old.path) != compressedSuffix:
			if err := compress(old.path); err != nil {
				r.log.Error("an old audit file cannot be compressed", "path", old.path, "error", err)
			}
		}
	}
	return true
}

// compress replaces a file by its compressed form. Until that is complete, the
// file stays.
func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	return replace(path+compressedSuffix, path, func(out io.Writer) error {
		z := gzip.NewWriter(out)
		if _, err := io.Copy(z, in); err != nil {
			return err
		}
		return z.Close()
	})
}

// replace writes a file beside its place, moves it there when it is complete and
// on the disk, and then removes the one it stands for, unless that has the same
// name.
func replace(path, instead string, write func(io.Writer) error) error {
	// Hidden, so that no pattern for audit files finds it.
	partial := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".partial")
	out, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = write(out)
	if err == nil {
		err = out.Sync()
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		os.Remove(partial)
		return err
	}
	if instead != path {
		return os.Remove(instead)
	}
	return nil
}
