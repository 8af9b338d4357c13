package config

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// WatchOptions tune Watch. The zero value is right for serving.
type WatchOptions struct {
	// Quiet is how long the files must stay as they are before a change counts.
	// Default 200ms: editors and copying write a file in several steps.
	Quiet time.Duration
	// Poll is how often the files are looked at without a hint from the
	// operating system, since network file systems give none. Default 1m.
	Poll time.Duration
	// Log takes failures of the operating system's notification. Default: none.
	Log *slog.Logger
}

// Watch runs until ctx ends and calls changed whenever the configuration file or
// a file it names (secrets, certificates) was written, replaced, created or
// removed since cfg was loaded. It follows the file as it is on disk: a file
// that a new version of the configuration names is watched even if that version
// does not load, so that supplying it is noticed. While changed runs, further
// changes wait.
//
// It watches directories, not files, because editors rename files into place
// and Kubernetes swaps a symbolic link above them. It returns nil when ctx ends,
// and an error if the operating system offers no notification.
func Watch(ctx context.Context, cfg *Config, opts WatchOptions, changed func()) error {
	hints, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer hints.Close()
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	w := &watch{path: cfg.Path, files: slices.Collect(maps.Keys(cfg.stamps)), hints: hints, log: opts.Log}
	quiet := cmp.Or(opts.Quiet, 200*time.Millisecond)
	poll := time.NewTicker(cmp.Or(opts.Poll, time.Minute))
	defer poll.Stop()

	known, seen := cfg.stamps, cfg.stamps
	w.arm()
	// Files may have changed between Load and now: look once without a hint.
	settle := time.NewTimer(0)
	defer settle.Stop()
	waiting := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-hints.Events:
			if !open {
				return errors.New("the watch on the configuration ended")
			}
		case err := <-hints.Errors:
			// An overflow loses hints, so it is one.
			w.log.Warn("watching the configuration", "error", err)
		case <-poll.C:
		case <-settle.C:
			waiting = false
			now := w.look(seen)
			switch {
			case same(now, known):
				seen = now
			case !same(now, seen):
				// Still being written: look again.
				seen, waiting = now, true
				settle.Reset(quiet)
			default:
				known = now
				changed()
			}
			continue
		}
		if !waiting {
			waiting = true
			settle.Reset(quiet)
		}
	}
}

// Unread returns what Watch has to know of a configuration file that may not
// load: the state of its files now. It is no configuration.
func Unread(path string) *Config {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	return &Config{Path: path, stamps: stampsOf(namedFiles(path))}
}

// watch is the state of one Watch.
type watch struct {
	path  string
	files []string
	hints *fsnotify.Watcher
	log   *slog.Logger
}

// look returns the state of all files that matter now. It arms the directories
// first, so that no change falls between the two.
func (w *watch) look(before stamps) stamps {
	if now := stampOf(w.path); !now.same(before[w.path]) {
		w.files = namedFiles(w.path)
	}
	w.arm()
	return stampsOf(w.files)
}

// arm watches exactly the directories that hold the files. A directory can appear
// between finding out that it is missing and watching the one above it, and
// nobody announces it then; so arm looks again until it finds nothing new.
func (w *watch) arm() {
	for range maxLinks {
		if !w.armOnce() {
			return
		}
	}
}

// armOnce reports whether it began to watch a directory. Each call that does
// reaches further down towards the files, or follows links that were replaced
// meanwhile.
func (w *watch) armOnce() (more bool) {
	wanted := map[string]bool{}
	for _, file := range w.files {
		for _, dir := range directories(file) {
			wanted[dir] = true
		}
	}
	for _, dir := range w.hints.WatchList() {
		if !wanted[dir] {
			_ = w.hints.Remove(dir) // it may be gone already
		}
		delete(wanted, dir)
	}
	for dir := range wanted {
		if err := w.hints.Add(dir); err != nil {
			w.log.Warn("watching the configuration", "directory", dir, "error", err)
			continue
		}
		more = true
	}
	return more
}

// maxLinks bounds the symbolic links that are followed for one file.
const maxLinks = 16

// directories lists where a change of the file can show: its own directory and
// those of all symbolic links on the way to it, which may be replaced.
func directories(file string) []string {
	var list []string
	links := 0
	var visit func(path string)
	visit = func(path string) {
		list = append(list, existing(filepath.Dir(path)))
		for step := path; step != filepath.Dir(step); step = filepath.Dir(step) {
			target, err := os.Readlink(step)
			if err != nil {
				continue
			}
			if links++; links > maxLinks {
				return
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(step), target)
			}
			list = append(list, existing(filepath.Dir(step)))
			visit(target + strings.TrimPrefix(path, step))
		}
	}
	visit(file)
	return list
}

// existing returns dir, or for one that does not exist the nearest parent, in
// which it would be created.
func existing(dir string) string {
	for dir != filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// stamp tells one content of a file from another without reading it.
type stamp struct {
	info fs.FileInfo // nil: there is no file
	real string      // where symbolic links lead
}

// stamps are the states of files by their path.
type stamps map[string]stamp

func stampsOf(files []string) stamps {
	all := make(stamps, len(files))
	for _, file := range files {
		all[file] = stampOf(file)
	}
	return all
}

func stampOf(file string) stamp {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return stamp{}
	}
	info, err := os.Stat(real)
	if err != nil {
		return stamp{}
	}
	return stamp{info, real}
}

func (s stamp) same(other stamp) bool {
	if s.info == nil || other.info == nil {
		return s.info == nil && other.info == nil
	}
	return s.real == other.real && os.SameFile(s.info, other.info) &&
		s.info.Size() == other.info.Size() && s.info.ModTime().Equal(other.info.ModTime()) &&
		s.info.Mode() == other.info.Mode()
}

func same(a, b stamps) bool { return maps.EqualFunc(a, b, stamp.same) }
