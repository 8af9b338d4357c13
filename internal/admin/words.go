package admin

import (
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/doorward/doorward/internal/access"
)

// words are the functions of the templates.
var words = template.FuncMap{
	"stamp": stamp, "ago": ago, "until": until, "plain": plain, "lines": lines, "count": count, "brief": brief, "join": strings.Join,
	"reason": func(r access.Reason) string { return r.Info().Title },
	"link":   link, "refuses": refuses, "outcomeClass": outcomeClass,
}

// stamp writes a moment.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 MST")
}

// ago tells how long before now something happened.
func ago(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case now.Sub(t) < time.Second:
		return "just now"
	}
	return brief(now.Sub(t)) + " ago"
}

// until tells how long after now something happens.
func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case !t.After(now):
		return "over since " + brief(now.Sub(t))
	}
	return "in " + brief(t.Sub(now))
}

// brief writes a duration in its largest unit, or the largest two.
func brief(d time.Duration) string {
	switch {
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 0, 64) + " µs"
	case d < 100*time.Millisecond:
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// plain keeps what others chose, such as names and paths, from hiding or turning
// round what is written beside it. What is too long is cut.
func plain(v any) string { return legible(fmt.Sprint(v), 300, ' ') }

// lines is plain for a text of several lines.
func lines(s string) string { return legible(s, 8000, '\n') }

func legible(s string, most int, lineBreak rune) string {
	n := 0
	return strings.Map(func(r rune) rune {
		switch n++; {
		case n == most:
			return '…'
		case n > most:
			return -1
		case r == '\n':
			return lineBreak
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return unicode.ReplacementChar
	}, s)
}

// count writes a number in groups of three digits.
func count(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// link is an address with one value in its query.
func link(path, key string, value any) string {
	return path + "?" + url.Values{key: {fmt.Sprint(value)}}.Encode()
}

// refuses reports whether the answer of a rule speaks against a request: a deny
// rule refuses unless it misses, any other one unless it is hit.
func refuses(rule string, result any) bool {
	if strings.HasPrefix(rule, "deny/") {
		return fmt.Sprint(result) != "miss"
	}
	return fmt.Sprint(result) != "hit"
}

func outcomeClass(o access.Outcome) string {
	switch o {
	case access.Allow:
		return "good"
	case access.Challenge:
		return "warm"
	}
	return "bad"
}
