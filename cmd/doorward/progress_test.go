package main

import (
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	const mb = 1 << 20
	for want, got := range map[string]string{
		"[===============               ]  50 %  50 of 100 MB, 10 MB/s, 5s left":  progressLine(50*mb, 100*mb, 5*time.Second),
		"[                              ]   0 %  0 of 100 MB, 0 MB/s, … left":     progressLine(0, 100*mb, time.Second),
		"[==============================] 100 %  100 of 100 MB, 50 MB/s, 0s left": progressLine(100*mb, 100*mb, 2*time.Second),
		"30 MB read, 10 MB/s": progressLine(30*mb, 0, 3*time.Second),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestInstant(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "2026-11-23": time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		"2026-11-23T09:00:00+02:00": time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC), "30d": now.AddDate(0, 0, -30), "90m": now.Add(-90 * time.Minute),
	} {
		if got, err := instant(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	if _, err := instant("yesterday", now); err == nil {
		t.Error("accepted")
	}
	f := historyFlags{since: "2026-11-23", until: "2026-11-23"}
	if _, err := f.filter(now); err == nil {
		t.Error("an empty span was accepted")
	}
	if filter, err := (&historyFlags{until: "2026-11-20"}).window("90d", now); err != nil || !filter.Since.Equal(time.Date(2026, 8, 22, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v %v", filter, err)
	}
}
