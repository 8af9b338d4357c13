package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// A window is a weekly window on the wall clock of one zone. Because it looks at
// the wall clock only, "09:00" stays 09:00 when the clocks change; an hour that
// a day skips never comes, and one that it repeats counts twice.
type window struct {
	days       [7]bool // by time.Weekday, the day on which the span starts
	start, end int     // minutes since midnight; end is not part of the span
	zone       *time.Location
}

const dayMinutes = 24 * 60

// dayNames are indexed by time.Weekday.
var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// A windowFault is a mistake in one field of a window.
type windowFault struct{ field, cure, text string }

// parseWindow compiles a window and returns every mistake in it.
func parseWindow(t access.TimeWindow) (window, []windowFault) {
	w := window{start: 0, end: dayMinutes, zone: time.UTC}
	var faults []windowFault
	var err error
	if w.days, err = parseDays(t.Days); err != nil {
		faults = append(faults, windowFault{"days", "write mon-fri, sat or mon,wed,fri", err.Error()})
	}
	if t.Hours != "" {
		if w.start, w.end, err = parseHours(t.Hours); err != nil {
			faults = append(faults, windowFault{"hours", "write 08:00-18:00, or 22:00-06:00 for a span over midnight", err.Error()})
		}
	}
	if t.Zone != "" {
		// LoadLocation also takes "Local", which differs from machine to machine.
		if w.zone, err = time.LoadLocation(t.Zone); err != nil || t.Zone == "Local" {
			faults = append(faults, windowFault{"zone", "write an IANA name such as Europe/Berlin", fmt.Sprintf("unknown time zone %q", t.Zone)})
			w.zone = time.UTC
		}
	}
	if t.Days == "" && t.Hours == "" && t.Zone != "" {
		faults = append(faults, windowFault{"", "add days or hours, or remove time", "a zone alone limits nothing"})
	}
	return w, faults
}

func parseDays(s string) (days [7]bool, err error) {
	if s == "" {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from := slices.Index(dayNames, first)
		to := from
		if isRange {
			to = slices.Index(dayNames, last)
		}
		if from < 0 || to < 0 {
			return days, fmt.Errorf("%q is neither a day nor a range of days", strings.TrimSpace(part))
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

func parseHours(s string) (start, end int, err error) {
	from, to, ok := strings.Cut(s, "-")
	start, startOK := parseClock(from)
	end, endOK := parseClock(to)
	switch {
	case !ok || !startOK || !endOK || start == dayMinutes:
		return 0, 0, fmt.Errorf("%q is no span of hours", s)
	case start == end:
		return 0, 0, errors.New("the span ends when it starts; leave hours out for the whole day")
	}
	return start, end, nil
}

// parseClock reads exactly HH:MM, up to 24:00.
func parseClock(s string) (minutes int, ok bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	hour, minute := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	minutes = hour*60 + minute
	return minutes, minute < 60 && minutes <= dayMinutes
}

// open reports whether the window is open at t. A span over midnight belongs to
// the day on which it starts.
func (w *window) open(t time.Time) bool {
	t = t.In(w.zone)
	return w.openOn(int(t.Weekday()), t.Hour()*60+t.Minute())
}

// openOn reports whether the window is open at a minute of a weekday.
func (w *window) openOn(today, minute int) bool {
	if w.start < w.end {
		return w.days[today] && w.start <= minute && minute < w.end
	}
	yesterday := (today + 6) % 7
	return w.days[today] && minute >= w.start || w.days[yesterday] && minute < w.end
}
