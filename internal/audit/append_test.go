package audit

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What another process has encoded is written like what is recorded here, and
// hidden where people have pseudonyms; the next process takes the chain up where
// this one leaves it.
func TestEventsOfAnotherProcess(t *testing.T) {
	whole, hidden := filepath.Join(t.TempDir(), "whole.jsonl"), filepath.Join(t.TempDir(), "hidden.jsonl")
	cfg := Config{Key: auditKey, To: []Sink{{File: FileSink{Path: whole}}, {File: FileSink{Path: hidden}, Privacy: "pseudonyms"}}}
	l := open(t, cfg, Options{})
	e := event(1)
	e.Request.Identity.Provider, e.Request.Identity.Issuer, e.Request.Identity.Subject = "corp", "https://corp.example", "alice-of-corp"
	l.Record(e)
	if err := l.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := open(t, cfg, Options{})
	e.Request.ID = "r2"
	next.Append(Encode(e, slog.New(slog.DiscardHandler)))
	next.Append([]byte("no event, about alice-of-corp\n"))
	if err := next.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	strip := func(line string) string { before, _, _ := strings.Cut(line, `,"chain"`); return before }
	if strip(lines[1]) != strings.Replace(strip(lines[0]), `"r1"`, `"r2"`, 1) || !strings.Contains(lines[1], `"seq":2`) {
		t.Errorf("recorded here:\n%sand by another process:\n%s", lines[0], lines[1])
	}
	if text, err = os.ReadFile(hidden); err != nil || strings.Contains(string(text), "alice-of-corp") || strings.Count(string(text), "\n") != 3 {
		t.Errorf("%v\n%s", err, text)
	}
}
