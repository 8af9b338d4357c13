package audit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func backlogIn(t *testing.T, cfg SpoolConfig, dropped func(uint64)) *backlog {
	t.Helper()
	b, err := openBacklog(cfg, slog.New(slog.DiscardHandler), dropped)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// small makes a backlog with room for so many bytes.
func small(b *backlog, bytes int64) *backlog { b.max = bytes; return b }

// drain reads what waits and says that it was received.
func drain(t *testing.T, b *backlog, records int) (all []string) {
	t.Helper()
	for {
		lines, from, to, err := b.next(records, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			return all
		}
		for _, line := range lines {
			all = append(all, string(line))
		}
		if err := b.received(from, to, len(lines)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, b *backlog, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		if _, err := fmt.Fprintf(b, "event %03d\n", i); err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(from, n int) (list []string) {
	for i := from; i < from+n; i++ {
		list = append(list, fmt.Sprintf("event %03d", i))
	}
	return list
}

func TestBacklogKeepsOrderOverSegmentsAndRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "spool")
	b := small(backlogIn(t, SpoolConfig{Dir: dir}, nil), 16*50) // five events in a segment
	write(t, b, 0, 23)
	if b.waiting() != 23 || len(b.segments) != 5 {
		t.Error(b.waiting(), len(b.segments))
	}
	lines, from, to, err := b.next(3, 1<<20)
	if err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	if again, _, _, _ := b.next(3, 1<<20); string(again[0]) != "event 000" {
		t.Error("what was not received is not read again")
	}
	if err := b.received(from, to, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := openBacklog(SpoolConfig{Dir: dir}, b.log, nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error("two use one folder:", err)
	}
	b.Close()

	b = small(backlogIn(t, SpoolConfig{Dir: dir}, nil), 16*50)
	if b.waiting() != 20 {
		t.Error(b.waiting())
	}
	write(t, b, 23, 4)
	if got := drain(t, b, 4); fmt.Sprint(got) != fmt.Sprint(numbered(3, 24)) || b.waiting() != 0 {
		t.Error(got, b.waiting())
	}
	entries, _ := os.ReadDir(dir)
	if len(b.segments) != 1 || len(entries) != 3 {
		t.Error("what was received stays on disk:", entries)
	}
	b.Close()
	b = backlogIn(t, SpoolConfig{Dir: dir}, nil)
	if got := drain(t, b, 4); len(got) != 0 {
		t.Error("received twice:", got)
	}
	b.Close()
}

// A crash in the middle of a write, and one that took the position with it.
func TestBacklogAfterACrash(t *testing.T) {
	dir := t.TempDir()
	b := backlogIn(t, SpoolConfig{Dir: dir}, nil)
	write(t, b, 0, 3)
	b.out.WriteString("event 0")
	b.Close()
	b = backlogIn(t, SpoolConfig{Dir: dir}, nil)
	write(t, b, 3, 2)
	if got := drain(t, b, 9); fmt.Sprint(got) != fmt.Sprint(numbered(0, 5)) {
		t.Error(got)
	}
	write(t, b, 5, 1)
	b.Close()
	if err := os.WriteFile(filepath.Join(dir, positionFile), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	var operator bytes.Buffer
	b, err := openBacklog(SpoolConfig{Dir: dir}, slog.New(slog.NewTextHandler(&operator, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := drain(t, b, 9); len(got) == 0 || got[len(got)-1] != "event 005" || !strings.Contains(operator.String(), "sent again") {
		t.Error(got, operator.String())
	}
}

func TestFullBacklogBlocks(t *testing.T) {
	b := small(backlogIn(t, SpoolConfig{Dir: t.TempDir()}, nil), 100)
	defer b.Close()
	write(t, b, 0, 10)
	if n, err := b.Write([]byte("event 010\n")); n != 0 || !errors.Is(err, errBacklogFull) {
		t.Error(n, err)
	}
	drain(t, b, 5)
	write(t, b, 10, 3)
	if got := drain(t, b, 5); fmt.Sprint(got) != fmt.Sprint(numbered(10, 3)) {
		t.Error(got)
	}
}

func TestFullBacklogDropsTheOldest(t *testing.T) {
	var dropped uint64
	b := small(backlogIn(t, SpoolConfig{Dir: t.TempDir(), WhenFull: dropOldest}, func(n uint64) { dropped += n }), 16*50)
	defer b.Close()
	write(t, b, 0, 80) // it is full now
	lines, from, to, _ := b.next(3, 1<<20)
	write(t, b, 80, 21)
	if dropped != 25 || b.waiting() != 76 {
		t.Error(dropped, b.waiting())
	}
	// What was on its way when it was dropped neither counts nor moves anything.
	if err := b.received(from, to, len(lines)); err != nil || b.waiting() != 76 {
		t.Error(err, b.waiting())
	}
	if got := drain(t, b, 7); fmt.Sprint(got) != fmt.Sprint(numbered(25, 76)) {
		t.Error(got)
	}
}
