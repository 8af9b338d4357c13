package authz

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// anyOf writes alternatives: "a, b or c".
func anyOf(list []string) string {
	if n := len(list) - 1; n > 0 {
		return strings.Join(list[:n], ", ") + " or " + list[n]
	}
	return strings.Join(list, "")
}

// shortList writes what somebody has, without flooding the reader.
func shortList(list []string) string {
	const shown = 8
	if len(list) > shown {
		return strings.Join(list[:shown], ", ") + " and " + strconv.Itoa(len(list)-shown) + " more"
	}
	return orNone(strings.Join(list, ", "))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func userName(id *access.Identity) string {
	if id.Nobody() {
		return "nobody"
	}
	return id.User()
}

// claimText writes a claim's value, cut to a length that fits a page.
func claimText(value any) string {
	const limit = 120
	text := fmt.Sprint(value)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// span writes a duration exactly, in its largest whole unit: "30d", "24h",
// "90m", "1m30s".
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day && d%day == 0:
		return strconv.Itoa(int(d/day)) + "d"
	case d >= time.Hour && d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d >= time.Minute && d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	default:
		return d.String()
	}
}

// age writes roughly how long before now t was.
func age(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 0:
		return "in the future"
	}
	for _, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if d >= 2*unit {
			return span(d.Truncate(unit)) + " ago"
		}
	}
	return "just now"
}
