package devicecheck

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// running runs an Inspector until the test ends and returns its changes.
func running(t *testing.T, opts Options) (*Inspector, <-chan SourceStatus) {
	changes := make(chan SourceStatus, 100)
	opts.OnChange = func(s SourceStatus) { changes <- s }
	opts.Now = time.Now
	i := newInspector(t, opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); i.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return i, changes
}

func known(t *testing.T, i *Inspector, id string) access.Device {
	return inspect(t, i, &http.Request{}, claiming(map[string]any{"id": id}))
}

// replace swaps a file the way a careful writer does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	temporary := filepath.Join(t.TempDir(), "new")
	write(t, temporary, text)
	if err := os.Rename(temporary, path); err != nil {
		t.Fatal(err)
	}
}

// The poll interval is a day, so that only the watch can notice anything.
func watched(t *testing.T, text string) (Source, Config) {
	s := jsonSource(t, "corp", text)
	s.Refresh = access.Duration(24 * time.Hour)
	return s, Config{Sources: []Source{s}, Match: []string{"claim.id"}}
}

func TestInventoryFollowsTheFile(t *testing.T) {
	s, config := watched(t, `[{"id": "a", "managed": true}]`)
	i, changes := running(t, Options{Config: config})
	if d := known(t, i, "a"); d.Managed != access.Yes || d.SourceFailingSince != (time.Time{}) {
		t.Fatalf("%+v", d)
	}

	replace(t, s.Path, `[{"id": "a", "managed": false}]`)
	if c := <-changes; c.Err != "" || c.Devices != 1 || c.ID != "corp" || c.Type != "file" {
		t.Fatalf("%+v", c)
	}
	if d := known(t, i, "a"); d.Managed != access.No {
		t.Fatalf("%+v", d)
	}

	// A file cut off in the middle keeps the last good facts, and says so.
	write(t, s.Path, `[{"id": "b"}, {"id": "a", "man`)
	failed := <-changes
	if failed.FailingSince.IsZero() || !strings.Contains(failed.Err, "ends too early") || failed.Devices != 1 {
		t.Fatalf("%+v", failed)
	}
	if d := known(t, i, "a"); d.Managed != access.No || !d.SourceFailingSince.Equal(failed.FailingSince) || !d.ObservedAt.Equal(failed.ObservedAt) {
		t.Fatalf("%+v", d)
	}
	if d := known(t, i, "b"); d.Known != access.Unknown || d.SourceFailingSince.IsZero() {
		t.Fatalf("%+v", d)
	}

	// Another fault does not make the outage any younger.
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	if c := <-changes; !strings.Contains(c.Err, "no such file") || !c.FailingSince.Equal(failed.FailingSince) {
		t.Fatalf("%+v", c)
	}

	replace(t, s.Path, `[{"id": "b"}]`)
	if c := <-changes; c.Err != "" || !c.FailingSince.IsZero() {
		t.Fatalf("%+v", c)
	}
	if d := known(t, i, "a"); d.Known != access.No {
		t.Fatalf("%+v", d)
	}
	if d := known(t, i, "b"); d.Known != access.Yes {
		t.Fatalf("%+v", d)
	}
}

// The way Kubernetes updates a mounted ConfigMap: files are links through the
// link ..data, and that link is replaced.
func TestInventoryFollowsAConfigMap(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, text string) {
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "devices.csv"), text)
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("..2026_11_23", "id\na\n")
	path := filepath.Join(dir, "devices.csv")
	if err := os.Symlink("..data/devices.csv", path); err != nil {
		t.Fatal(err)
	}
	i, changes := running(t, Options{Config: Config{
		Sources: []Source{{ID: "corp", Type: "file", Path: path, Refresh: access.Duration(24 * time.Hour)}}, Match: []string{"claim.id"},
	}})
	if d := known(t, i, "a"); d.Known != access.Yes {
		t.Fatalf("%+v", d)
	}
	publish("..2026_11_24", "id\nb\nc\n")
	if c := <-changes; c.Devices != 2 || c.Err != "" {
		t.Fatalf("%+v", c)
	}
	if d := known(t, i, "a"); d.Known != access.No {
		t.Fatalf("%+v", d)
	}
}

// The directory may come, go and come again; polling bridges the gap.
func TestInventoryFollowsADirectoryThatComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "inventory")
	path := filepath.Join(dir, "devices.json")
	_, changes := running(t, Options{Config: Config{
		Sources: []Source{{ID: "corp", Type: "file", Path: path, Refresh: minRefresh}}, Match: []string{"claim.id"},
	}})
	for range 2 {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		replace(t, path, `[{"id": "a"}]`)
		if c := <-changes; c.Err != "" || c.Devices != 1 {
			t.Fatalf("%+v", c)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if c := <-changes; c.Err == "" {
			t.Fatalf("%+v", c)
		}
	}
}

// A watch on a directory that is gone would wait for ever.
func TestWatchEndsWithItsDirectory(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"renamed": func(dir string) error { return os.Rename(dir, dir+".old") },
	} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := newFile(filepath.Join(dir, "devices.csv"))
		if err != nil {
			t.Fatal(err)
		}
		announced, err := f.announce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := remove(dir); err != nil {
			t.Fatal(err)
		}
		for range announced {
			// Until it is closed.
		}
	}
}

// scripted is an inventory whose readings the test decides on. It announces
// nothing, as most remote inventories do.
type scripted struct {
	reads  int
	answer func(n int, have *inventory) (*inventory, error)
}

func (s *scripted) fetch(_ context.Context, have *inventory) (*inventory, error) {
	s.reads++
	return s.answer(s.reads, have)
}

func parsed(t *testing.T, text string) *inventory {
	b := newBuilder("f", text)
	readJSON(b, []byte(text))
	inv, err := b.done()
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestInventoryIsPolledAndAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := parsed(t, `[{"id": "a"}]`), parsed(t, `[{"id": "b"}]`)
		var log bytes.Buffer
		s := &source{
			Source: Source{ID: "x", Refresh: access.Duration(time.Hour)}, now: time.Now,
			log: slog.New(slog.NewTextHandler(&log, nil)),
			fetcher: &scripted{answer: func(n int, have *inventory) (*inventory, error) {
				switch n {
				case 1:
					return first, nil
				case 2, 3:
					return have, nil
				case 4, 5:
					return nil, errors.New("connection refused")
				case 6:
					return nil, errors.New("status 503")
				case 7:
					return have, nil
				default:
					return second, nil
				}
			}},
		}
		s.start(nil)
		begin := time.Now()
		var changes atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.run(ctx, func(SourceStatus) { changes.Add(1) }) }()

		for _, want := range []struct {
			devices  *inventory
			observed time.Duration // after begin
			failing  time.Duration // after begin, -1 for not failing
			changes  int
		}{
			{first, 0, -1, 0},             // read 2, at once
			{first, time.Hour, -1, 0},     // 3
			{first, time.Hour, 2, 1},      // 4: fails
			{first, time.Hour, 2, 1},      // 5: still fails, nothing new
			{first, time.Hour, 2, 2},      // 6: another error
			{first, 5 * time.Hour, -1, 3}, // 7: recovers, unchanged
			{second, 6 * time.Hour, -1, 4},
			{second, 7 * time.Hour, -1, 4},
		} {
			synctest.Wait()
			got := s.state.Load()
			failing := time.Time{}
			if want.failing >= 0 {
				failing = begin.Add(want.failing * time.Hour)
			}
			if got.inv != want.devices || !got.observedAt.Equal(begin.Add(want.observed)) || !got.failingSince.Equal(failing) || int(changes.Load()) != want.changes {
				t.Errorf("after %v: %+v, %d changes; want %+v", time.Since(begin), got, changes.Load(), want)
			}
			time.Sleep(time.Hour) // on the clock of the bubble
		}
		cancel()
		<-done
		// One line for each change, none for each reading.
		for text, n := range map[string]int{"cannot be read": 2, "connection refused": 1, "status 503": 1, "can be read again": 1, "inventory read": 2} {
			if got := strings.Count(log.String(), text); got != n {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, got, n, log.String())
			}
		}
	})
}

// An end of the program is no failure of the source.
func TestStoppingIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &source{now: time.Now, log: slog.New(slog.DiscardHandler), fetcher: &scripted{answer: func(int, *inventory) (*inventory, error) {
		cancel()
		return nil, context.Canceled
	}}}
	s.state.Store(&state{})
	if s.load(ctx) || s.state.Load().failing() {
		t.Errorf("%+v", s.state.Load())
	}
}

// A reload of the configuration must not forget what was read, least of all
// while the source fails.
func TestReloadKeepsWhatUnchangedSourcesKnow(t *testing.T) {
	s, config := watched(t, `[{"id": "a"}]`)
	var now atomic.Int64
	clock := func() time.Time { return noon.Add(time.Duration(now.Load())) }
	before := newInspector(t, Options{Config: config, Now: clock})
	write(t, s.Path, `broken`)
	now.Store(int64(time.Hour))
	before.sources[0].load(t.Context())
	now.Store(int64(2 * time.Hour))

	config.Match = append(config.Match, "claim.other")
	after := newInspector(t, Options{Config: config, Now: clock, Previous: before})
	if d := known(t, after, "a"); d.Known != access.Yes || !d.ObservedAt.Equal(noon) || !d.SourceFailingSince.Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v", d)
	}

	config.Sources[0].Refresh = access.Duration(time.Minute)
	changed := newInspector(t, Options{Config: config, Now: clock, Previous: after})
	if d := known(t, changed, "a"); d.Known != access.Unknown || !d.SourceFailingSince.Equal(clock()) {
		t.Errorf("a changed source begins anew: %+v", d)
	}
}

// A source that cannot be read at the start keeps nobody from starting.
func TestMissingInventoryIsNoErrorOfNew(t *testing.T) {
	var log bytes.Buffer
	i := newInspector(t, Options{
		Config: Config{Sources: []Source{jsonSource(t, "corp", "")}, Match: []string{"claim.id"}},
		Log:    slog.New(slog.NewTextHandler(&log, nil)),
	})
	status := i.Status()
	if len(status) != 1 || status[0].Err == "" || !status[0].FailingSince.Equal(noon) || !status[0].ObservedAt.IsZero() || status[0].Devices != 0 {
		t.Errorf("%+v", status)
	}
	if n := strings.Count(log.String(), "cannot be read"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}
