package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/format"
	"github.com/doorward/doorward/internal/audit/send"
)

// fakeSender is a receiver that can be down, and that never takes some events.
type fakeSender struct {
	mu      sync.Mutex
	down    error
	poison  string
	got     []string
	tries   []time.Time
	batches int
}

func (f *fakeSender) Send(ctx context.Context, batch []send.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, time.Now())
	if f.down != nil {
		return f.down
	}
	for _, r := range batch {
		if f.poison != "" && strings.Contains(string(r.Body), f.poison) {
			return &send.Rejected{Err: errors.New("cannot be parsed")}
		}
	}
	f.batches++
	for _, r := range batch {
		var e access.Event
		if err := json.Unmarshal(r.Body, &e); err != nil {
			return err
		}
		f.got = append(f.got, requestID(&e)+e.Note)
	}
	return nil
}

func (f *fakeSender) Close() {}

func (f *fakeSender) set(down error) { f.mu.Lock(); f.down = down; f.mu.Unlock() }

func (f *fakeSender) received() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.got, " ")
}

// shipping opens a log whose only sink is the sender.
func shipping(t *testing.T, sender send.Sender, kept SpoolConfig, required bool, log *slog.Logger) (*Log, *spool) {
	t.Helper()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opts := Options{Log: log, Now: time.Now, Queue: 8}
	l := &Log{log: log, closing: make(chan struct{})}
	s, err := newSpool(Sink{To: send.To{Syslog: send.Syslog{Address: "127.0.0.1:1", Plain: true}}, Spool: kept}, required, opts, l.closing)
	if err != nil {
		t.Fatal(err)
	}
	s.shipper.sender = sender
	l.spools = []*spool{s}
	s.start()
	return l, s
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, not %q", what, got, want)
	}
}

func TestReceiverThatIsDownForAWhile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSender{down: errors.New("connection refused")}
		l, s := shipping(t, f, SpoolConfig{Dir: dir}, true, nil)
		for i := range 5 {
			l.Record(event(i))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		state := s.shipper.state()
		if l.Err() != nil || state.Waiting != 5 || !state.Failing || state.Lag == 0 || state.Name != "syslog 127.0.0.1:1" {
			t.Errorf("%v %+v", l.Err(), state)
		}
		if n := len(f.tries); n < 30 || n > 70 { // every 60 to 90 seconds at last
			t.Errorf("%d tries in an hour", n)
		}
		f.set(nil)
		time.Sleep(2 * lastPause)
		synctest.Wait()
		want(t, "received", f.received(), "r0 r1 r2 r3 r4")
		if state := s.shipper.state(); state.Waiting != 0 || state.Sent != 5 || state.Failing || state.Lag != 0 {
			t.Errorf("%+v", state)
		}
		f.set(errors.New("down again"))
		l.Record(event(5))
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	// What was not received is sent by the next run.
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSender{}
		l, _ := shipping(t, f, SpoolConfig{Dir: dir}, true, nil)
		l.Record(event(6))
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		want(t, "received after a restart", f.received(), "r5 r6")
	})
}

func TestPauseThatAReceiverAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSender{down: &send.Wait{Err: errors.New("busy"), After: 5 * time.Minute}}
		l, _ := shipping(t, f, SpoolConfig{Dir: t.TempDir()}, false, nil)
		l.Record(event(0))
		time.Sleep(4 * time.Minute)
		f.set(nil)
		synctest.Wait()
		want(t, "before the pause is over", f.received(), "")
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		want(t, "afterwards", f.received(), "r0")
		l.Close(t.Context())
	})
}

// An event that the receiver never takes is put aside, and holds up none of the
// others.
func TestPoisonIsPutAside(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var operator bytes.Buffer
		f := &fakeSender{poison: `"r3"`}
		l, s := shipping(t, f, SpoolConfig{Dir: dir}, false, slog.New(slog.NewTextHandler(&operator, nil)))
		fmt.Fprintln(s.shipper.backlog, "no event") // as a damaged disk has it
		for i := range 8 {
			l.Record(event(i))
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		want(t, "received", f.received(), "r0 r1 r2 r4 r5 r6 r7")
		if state := s.shipper.state(); state.Rejected != 2 || state.Sent != 7 || state.Waiting != 0 || !strings.Contains(operator.String(), "put aside") {
			t.Errorf("%+v %s", state, operator.String())
		}
	})
	text, err := os.ReadFile(filepath.Join(dir, deadLetter))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"no event"`) || !strings.Contains(lines[1], `"id":"r3"`) || !strings.Contains(lines[1], "cannot be parsed") {
		t.Error(string(text))
	}
}

// A spool that is full makes a required log one that cannot be written.
func TestFullSpoolCountsAsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSender{down: errors.New("down")}
		l, s := shipping(t, f, SpoolConfig{Dir: t.TempDir()}, true, nil)
		small(s.shipper.backlog, 1000)
		for i := range 6 {
			l.Record(event(i))
			synctest.Wait()
		}
		if err := l.Err(); !errors.Is(err, errBacklogFull) {
			t.Error(err)
		}
		f.set(nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if l.Err() != nil || l.Lost() != 0 {
			t.Error(l.Err(), l.Lost())
		}
		l.Close(t.Context())
		want(t, "received", f.received(), "r0 r1 r2 r3 r4 r5")
	})
}

func TestDroppedEventsAreAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSender{down: errors.New("down")}
		l, s := shipping(t, f, SpoolConfig{Dir: t.TempDir(), WhenFull: dropOldest}, true, nil)
		small(s.shipper.backlog, 16*300)
		for i := range 60 {
			l.Record(event(i))
			synctest.Wait()
		}
		f.set(nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		l.Close(t.Context())
		got := f.received()
		state := s.shipper.state()
		if l.Err() != nil || state.Dropped == 0 || l.Lost() != state.Dropped || !strings.Contains(got, "events are missing") || !strings.Contains(got, " r59") || strings.Contains(got, "r0 ") {
			t.Errorf("%v %+v %s", l.Err(), state, got)
		}
	})
}

// The end of a run sends what is there, if the receiver takes it, and does not
// wait longer than it may.
func TestCloseSendsWhatItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &hanging{}
		l, s := shipping(t, f, SpoolConfig{Dir: t.TempDir()}, true, nil)
		l.Record(event(0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := l.Close(ctx); err != nil || time.Since(began) != time.Minute {
			t.Error(err, time.Since(began))
		}
		if state := s.shipper.state(); state.Waiting != 1 || l.Lost() != 0 {
			t.Errorf("%+v", state)
		}
	})
}

type hanging struct{ fakeSender }

func (*hanging) Send(ctx context.Context, _ []send.Record) error { <-ctx.Done(); return ctx.Err() }

func TestFormatsOfStdout(t *testing.T) {
	for name, member := range map[string]string{format.OCSF: `"class_uid":4002`, format.ECS: `"@timestamp":`} {
		var out bytes.Buffer
		l := open(t, Config{To: []Sink{{Stdout: true, Format: name}}}, Options{Stdout: &out, Version: "9.9"})
		l.Record(event(1))
		l.Record(event(2))
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); strings.Count(text, member) != 2 || strings.Count(text, "\n") != 2 || !strings.Contains(text, "9.9") {
			t.Error(text)
		}
	}
}
