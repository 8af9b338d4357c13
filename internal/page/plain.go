package page

import (
	"net/url"
	"strings"
	"time"
	"unicode"
)

// Longest texts from outside that a page shows, in characters, and the longest
// list of them.
const (
	maxLine      = 200
	maxParagraph = 1000
	maxDetails   = 12
)

// plain makes a value from outside fit to be read: invalid bytes, control
// characters and the invisible ones that reorder or hide text are removed, and
// what is too long is cut. Escaping is the template's business.
func plain(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case r == '\n' && limit > maxLine: // paragraphs keep their lines
		case unicode.IsSpace(r):
			r = ' '
		case r == '\u200c' || r == '\u200d': // joiners are part of how some scripts are written
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r):
			continue
		}
		if n++; n > limit {
			b.WriteString("…")
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// webURL returns the address if a page may link to it: http or https with a
// host, or a path on the same host. Anything else becomes empty, among it
// javascript:, data:, and the spellings browsers and servers read differently.
func webURL(s string) string {
	if strings.ContainsRune(s, '\\') || strings.ContainsFunc(s, unicode.IsControl) {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Opaque != "" {
		return ""
	}
	switch {
	case (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "":
		return s
	case u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/") && !strings.HasPrefix(s, "//"):
		return s
	}
	return ""
}

// since tells when something happened and how long before now that was:
// "30 days ago (2026-10-24)". Without now, or for a time after it, it gives the
// date alone.
func since(then, now time.Time) string {
	if then.IsZero() {
		return ""
	}
	then = then.UTC()
	age := now.Sub(then)
	switch {
	case now.IsZero() || age < 0:
		return then.Format("2006-01-02 15:04 MST")
	case age < 48*time.Hour:
		return ago(age) + " (" + then.Format("2006-01-02 15:04 MST") + ")"
	default:
		return ago(age) + " (" + then.Format(time.DateOnly) + ")"
	}
}

func ago(age time.Duration) string {
	switch {
	case age < time.Minute:
		return "just now"
	case age < time.Hour:
		return count(int(age.Minutes()), "minute")
	case age < 48*time.Hour:
		return count(int(age.Hours()), "hour")
	default:
		return count(int(age.Hours())/24, "day")
	}
}
