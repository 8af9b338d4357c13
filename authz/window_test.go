package authz

import (
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func TestWindow(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zone data on this machine")
	}
	at := func(month time.Month, day, hour, minute int) time.Time {
		return time.Date(2026, month, day, hour, minute, 0, 0, berlin)
	}
	utc := func(month time.Month, day, hour, minute int) time.Time {
		return time.Date(2026, month, day, hour, minute, 0, 0, time.UTC)
	}
	office := access.TimeWindow{Days: "mon-fri", Hours: "08:00-18:00", Zone: "Europe/Berlin"}
	night := access.TimeWindow{Days: "fri", Hours: "22:00-06:00", Zone: "Europe/Berlin"}
	tests := []struct {
		name   string
		window access.TimeWindow
		at     time.Time
		want   bool
	}{
		{"start is in", office, at(7, 1, 8, 0), true},
		{"before start", office, at(7, 1, 7, 59), false},
		{"end is out", office, at(7, 1, 18, 0), false},
		{"saturday", office, at(7, 4, 12, 0), false},
		{"given in UTC, summer", office, utc(7, 1, 6, 0), true},
		{"given in UTC, winter", office, utc(1, 7, 6, 59), false},
		{"friday night", night, at(7, 3, 23, 0), true},
		{"belongs to friday", night, at(7, 4, 5, 59), true},
		{"over", night, at(7, 4, 6, 0), false},
		{"friday morning belongs to thursday", night, at(7, 3, 5, 0), false},
		{"saturday night", night, at(7, 4, 23, 0), false},
		{"sunday to monday", access.TimeWindow{Days: "sun", Hours: "22:00-02:00"}, utc(7, 6, 1, 0), true},
		{"range over the weekend", access.TimeWindow{Days: "sat-mon"}, utc(7, 5, 12, 0), true},
		{"outside that range", access.TimeWindow{Days: "sat-mon"}, utc(7, 7, 12, 0), false},
		{"list", access.TimeWindow{Days: "mon, wed,fri"}, utc(7, 1, 0, 0), true},
		{"until midnight", access.TimeWindow{Hours: "18:00-24:00"}, utc(7, 1, 23, 59), true},
		{"until midnight, other spelling", access.TimeWindow{Hours: "18:00-00:00"}, utc(7, 1, 23, 59), true},
		{"midnight is the next day", access.TimeWindow{Days: "wed", Hours: "18:00-00:00"}, utc(7, 2, 0, 0), false},
		// On 29 March 2026 the clock skips 02:00 to 03:00, on 25 October it repeats it.
		{"last minute before the gap", access.TimeWindow{Hours: "02:00-03:00", Zone: "Europe/Berlin"}, utc(3, 29, 0, 59), false},
		{"first minute after the gap", access.TimeWindow{Hours: "02:00-03:00", Zone: "Europe/Berlin"}, utc(3, 29, 1, 0), false},
		{"a span across the gap", access.TimeWindow{Days: "sun", Hours: "01:30-03:30", Zone: "Europe/Berlin"}, utc(3, 29, 1, 15), true},
		{"repeated hour, first time", access.TimeWindow{Hours: "02:00-03:00", Zone: "Europe/Berlin"}, utc(10, 25, 0, 30), true},
		{"repeated hour, second time", access.TimeWindow{Hours: "02:00-03:00", Zone: "Europe/Berlin"}, utc(10, 25, 1, 30), true},
		{"after the repeated hour", access.TimeWindow{Hours: "02:00-03:00", Zone: "Europe/Berlin"}, utc(10, 25, 2, 0), false},
		{"the night of the change belongs to saturday", access.TimeWindow{Days: "sat", Hours: "23:00-05:00", Zone: "Europe/Berlin"}, utc(3, 29, 2, 59), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, faults := parseWindow(tt.window)
			if faults != nil {
				t.Fatal(faults)
			}
			if got := w.open(tt.at); got != tt.want {
				t.Errorf("%v at %v: %v", tt.window, tt.at, got)
			}
		})
	}
}

func TestTimeThatIsNotKnownIsUnknown(t *testing.T) {
	w, _ := parseWindow(access.TimeWindow{Days: "mon"})
	s := &schedule{window: w}
	if got := s.test(&access.Request{}); got != access.Unknown {
		t.Errorf("got %v", got)
	}
}

func FuzzWindow(f *testing.F) {
	f.Add("mon-fri", "08:00-18:00", "Europe/Berlin")
	f.Add("fri-mon,wed", "22:00-06:00", "")
	f.Add("", "24:00-00:00", "../../etc/passwd")
	f.Add("mon,,tue", "08:00", "Local")
	f.Fuzz(func(t *testing.T, days, hours, zone string) {
		w, faults := parseWindow(access.TimeWindow{Days: days, Hours: hours, Zone: zone})
		if faults != nil {
			return
		}
		if w.start == w.end || w.start < 0 || w.end < 0 || w.start >= dayMinutes || w.end > dayMinutes || w.days == [7]bool{} {
			t.Fatalf("accepted %q %q as %+v", days, hours, w)
		}
		// What is accepted is open at some minute of some week, and not for longer
		// than its days and hours say.
		open := 0
		for m := range 7 * dayMinutes {
			w.zone = time.UTC
			if w.open(noon.Add(time.Duration(m) * time.Minute)) {
				open++
			}
		}
		length, n := (w.end-w.start+dayMinutes)%dayMinutes, 0
		if length == 0 {
			length = dayMinutes
		}
		for _, on := range w.days {
			if on {
				n++
			}
		}
		if open != n*length {
			t.Fatalf("%q %q is open %d minutes a week, want %d", days, hours, open, n*length)
		}
	})
}
