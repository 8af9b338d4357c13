package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/doorward/doorward/internal/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func event(n int) *access.Event {
	return &access.Event{Kind: access.EventDecision, Time: time.Unix(int64(n), 0).UTC(),
		Request:  &access.Request{ID: fmt.Sprint("r", n), Method: "GET", Scheme: "https", Host: "app.example", Path: "/", Query: "a=1&b=2"},
		Decision: &access.Decision{Outcome: access.Allow, Reason: access.Allowed}}
}

// disk is a file that can be full: it takes room bytes, then fails.
type disk struct {
	mu    sync.Mutex
	files []*bytes.Buffer // the last one is open
	room  int
	stuck chan struct{} // a write waits for it if it is not nil
}

func (d *disk) open(string) (io.WriteCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = append(d.files, new(bytes.Buffer))
	return &handle{d, d.files[len(d.files)-1]}, nil
}

type handle struct {
	d *disk
	b *bytes.Buffer
}

func (h *handle) Write(p []byte) (int, error) {
	h.d.mu.Lock()
	stuck := h.d.stuck
	h.d.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	n := min(len(p), h.d.room)
	h.d.room -= n
	h.b.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (h *handle) Close() error { return nil }

func (d *disk) free(n int) { d.mu.Lock(); d.room = n; d.mu.Unlock() }

func (d *disk) text(i int) string { d.mu.Lock(); defer d.mu.Unlock(); return d.files[i].String() }

var toFile = []Sink{{File: FileSink{Path: "audit.jsonl"}}}

func open(t testing.TB, cfg Config, opts Options) *Log {
	t.Helper()
	l, err := Open(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ids returns the request ids of a log, and fails on a line that is none.
func ids(t *testing.T, text string) (list []string, gaps []string) {
	t.Helper()
	for e, err := range Read(strings.NewReader(text)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == access.EventAudit {
			gaps = append(gaps, e.Note)
			continue
		}
		list = append(list, e.Request.ID)
	}
	return list, gaps
}

func TestEventsGoToStdoutUnlessToldOtherwise(t *testing.T) {
	var out bytes.Buffer
	l := open(t, Config{}, Options{Stdout: &out})
	want := event(1)
	l.Record(want)
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for got, err := range Read(&out) {
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read back %+v, %v", got, err)
		}
	}
	if !strings.Contains(string(must(encode(want))), "a=1&b=2") {
		t.Error("the query cannot be found by grep")
	}
}

func must(line encoded, err error) []byte {
	if err != nil {
		panic(err)
	}
	return line.whole()
}

func TestEverySinkGetsEveryEvent(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	var out bytes.Buffer
	l := open(t, Config{To: []Sink{{Stdout: true}, {File: FileSink{Path: a}}, {File: FileSink{Path: b}}}}, Options{Stdout: &out, Queue: 8})
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 250 {
				l.Record(event(worker*1000 + i))
			}
		})
	}
	group.Wait()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	fromA, _ := os.ReadFile(a)
	fromB, _ := os.ReadFile(b)
	for name, text := range map[string]string{"stdout": out.String(), "a": string(fromA), "b": string(fromB)} {
		list, _ := ids(t, text)
		seen := map[string]bool{}
		for _, id := range list {
			seen[id] = true
		}
		if len(list) != 1000 || len(seen) != 1000 {
			t.Errorf("%s holds %d events, %d different", name, len(list), len(seen))
		}
	}
	if l.Lost() != 0 || l.Err() != nil || l.Depth() != 0 {
		t.Error(l.Lost(), l.Err(), l.Depth())
	}
	l.Record(event(1))
	if l.Lost() != 3 {
		t.Error("an event after Close was dropped in silence")
	}
}

// A full disk: events wait, Err tells so, and when there is room again the log
// holds every event once, the half-written line completed.
func TestFullDiskKeepsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 100}
		l := open(t, Config{To: toFile, Required: true}, Options{OpenFile: d.open})
		for i := range 10 {
			l.Record(event(i))
		}
		synctest.Wait()
		if err := l.Err(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal("Err =", err)
		}
		if l.Depth() != 10 {
			t.Error("Depth =", l.Depth())
		}
		d.free(1 << 20)
		time.Sleep(lastRetry)
		synctest.Wait()
		if err := l.Err(); err != nil {
			t.Error("Err after recovery =", err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		list, gaps := ids(t, d.text(0))
		if strings.Join(list, " ") != "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9" || len(gaps) != 0 || l.Lost() != 0 {
			t.Error(list, gaps, l.Lost())
		}
	})
}

// Not required: requests go on, what does not fit is counted, logged, and
// admitted in the log itself.
func TestLossIsNeverSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var operator bytes.Buffer
		d := &disk{}
		l := open(t, Config{To: toFile}, Options{OpenFile: d.open, Queue: 5, Log: slog.New(slog.NewTextHandler(&operator, nil))})
		l.Record(event(0))
		synctest.Wait() // the first waits in the writer, five more fit into the queue
		began := time.Now()
		for i := range 9 {
			l.Record(event(i + 1))
		}
		if time.Since(began) > 0 {
			t.Error("requests were slowed down by a log that is not required")
		}
		if l.Lost() != 4 || l.Err() == nil {
			t.Fatal(l.Lost(), l.Err())
		}
		if !strings.Contains(operator.String(), "audit events are lost") {
			t.Error("the operator was not told:", operator.String())
		}
		d.free(1 << 20)
		time.Sleep(lastRetry)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		list, gaps := ids(t, d.text(0))
		if len(list) != 6 || len(gaps) != 1 || !strings.Contains(gaps[0], "4 events are missing") {
			t.Error(list, gaps)
		}
	})
}

// Required: an event of a request that passed waits for room. The requests
// refused meanwhile must not wait for a disk that stays full; they are counted.
func TestRequiredLogWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := open(t, Config{To: toFile, Required: true}, Options{OpenFile: d.open, Queue: 2})
		l.Record(event(0))
		synctest.Wait()
		l.Record(event(1))
		l.Record(event(2))
		recorded := make(chan bool)
		go func() { l.Record(event(3)); close(recorded) }()
		time.Sleep(time.Minute)
		select {
		case <-recorded:
			t.Fatal("an event left Record without having been kept")
		default:
		}
		for range 3 {
			refused := event(99)
			refused.Decision = &access.Decision{Reason: access.AuditUnavailable}
			l.Record(refused)
		}
		d.free(1 << 20)
		<-recorded
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		list, gaps := ids(t, d.text(0))
		if strings.Join(list, " ") != "r0 r1 r2 r3" || len(gaps) != 1 || !strings.Contains(gaps[0], "0 events are missing, and 3 requests") || l.Lost() != 0 {
			t.Error(list, gaps, l.Lost())
		}
	})
}

// A pipe nobody reads does not fail, it hangs. Err must notice.
func TestStuckWriterIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 1 << 20, stuck: make(chan struct{})}
		l := open(t, Config{To: toFile}, Options{OpenFile: d.open, Queue: 1})
		l.Record(event(0))
		synctest.Wait()
		l.Record(event(1))
		if l.Err() != nil {
			t.Error("a write that has just begun is no failure")
		}
		began := time.Now()
		l.Record(event(2)) // back-pressure, but not for ever
		if took := time.Since(began); took != patience || l.Lost() != 1 {
			t.Error(took, l.Lost())
		}
		time.Sleep(stalled)
		if l.Err() == nil {
			t.Error("a stuck write went unnoticed")
		}
		if err := l.Reopen(); err == nil {
			t.Error("Reopen claims to have happened")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); err == nil {
			t.Error("Close claims that everything was written")
		}
		close(d.stuck)
	})
}

func TestCloseGivesUpInTimeAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: len(new(chain).link(nil, encoded{rest: must(encode(event(0)))}, true)) + 40} // the hash of the first is in the second
		l := open(t, Config{To: toFile, Required: true}, Options{OpenFile: d.open})
		l.Record(event(0))
		synctest.Wait()
		l.Record(event(1))
		l.Record(event(2))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := l.Close(ctx)
		if err == nil || !strings.Contains(err.Error(), "2 events were not written") || l.Lost() != 2 {
			t.Error(err, l.Lost())
		}
		if err := l.Close(ctx); err != nil {
			t.Error("second Close:", err)
		}
	})
}

// logrotate renames the file and sends SIGHUP. A line that was half written
// starts again in the new file.
func TestRotationLosesAndTearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		size := len(must(encode(event(0))))
		d := &disk{room: size + size/2}
		l := open(t, Config{To: toFile, Required: true}, Options{OpenFile: d.open})
		l.Record(event(0))
		l.Record(event(1))
		synctest.Wait()
		if l.Err() == nil {
			t.Fatal("the disk should be full")
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		d.free(1 << 20)
		time.Sleep(lastRetry)
		synctest.Wait()
		l.Record(event(2))
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		l.Record(event(3))
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		all := map[string]int{}
		for i := range 3 {
			for e, err := range Read(strings.NewReader(d.text(i))) {
				if err == nil {
					all[e.Request.ID]++
				} else if i != 0 {
					t.Errorf("file %d: %v", i, err)
				}
			}
		}
		if fmt.Sprint(all) != "map[r0:1 r1:1 r2:1 r3:1]" {
			t.Error(all)
		}
	})
}

func TestReopenFollowsTheName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	written := make(chan struct{}, 2)
	l := open(t, Config{To: []Sink{{Stdout: true}, {File: FileSink{Path: path}}}}, Options{Stdout: io.Discard,
		OpenFile: func(path string) (io.WriteCloser, error) {
			f, err := openFile(path, slog.New(slog.DiscardHandler))
			return signalling{f, written}, err
		}})
	l.Record(event(1))
	<-written
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Record(event(2))
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path + ".1": "[r1]", path: "[r2]"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if list, _ := ids(t, string(text)); fmt.Sprint(list) != want {
			t.Errorf("%s holds %v", name, list)
		}
		if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

type signalling struct {
	io.WriteCloser
	written chan<- struct{}
}

func (s signalling) Write(p []byte) (int, error) {
	n, err := s.WriteCloser.Write(p)
	s.written <- struct{}{}
	return n, err
}

// One dead sink must not silence the other.
func TestSinksFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := &disk{}
		l := open(t, Config{To: append([]Sink{{Stdout: true}}, toFile...)}, Options{Stdout: &out, OpenFile: d.open, Queue: 1})
		for i := range 5 {
			l.Record(event(i))
			synctest.Wait()
		}
		if list, _ := ids(t, out.String()); len(list) != 5 {
			t.Error(list)
		}
		d.free(1 << 20)
		time.Sleep(lastRetry)
		l.Close(t.Context())
	})
}

func BenchmarkRecord(b *testing.B) {
	l := open(b, Config{}, Options{Stdout: io.Discard})
	e := event(1)
	e.Request.Identity = access.Identity{Provider: "corp", Issuer: "https://login.corp.example.com", Subject: "8f1c2d", Email: "alice@example.com",
		Groups: []string{"eng", "finance", "oncall"}, Claims: map[string]any{"deviceid": "d-1", "locale": "de"}}
	e.Request.Device = access.Device{ID: "d-1", Source: "inventory", Known: access.Yes, Managed: access.Yes, OS: "macos", OSVersion: "15.5"}
	b.ReportAllocs()
	for b.Loop() {
		l.Record(e)
	}
	l.Close(context.Background())
}
