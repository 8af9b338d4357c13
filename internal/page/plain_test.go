package page

import (
	"math"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLinksLeadToTheWebOnly(t *testing.T) {
	for _, ok := range []string{"https://it.example.com/fix?a=b#c", "http://wiki.localhost:8080/", "/.doorward/login?x=1", "/"} {
		if webURL(ok) != ok {
			t.Errorf("%q is refused", ok)
		}
	}
	for _, bad := range []string{"", "javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\nscript:alert(1)",
		"data:text/html,x", "vbscript:x", "file:///etc/passwd", "//evil.example/", "/\\evil.example", "\\\\evil", "https:evil.example",
		"https:///path", "https://user:pw@evil.example/", "relative/path", "mailto:a@b", "http://[::1", "https://:443/"} {
		if got := webURL(bad); got != "" {
			t.Errorf("%q becomes the link %q", bad, got)
		}
	}
}

func FuzzWebURL(f *testing.F) {
	for _, s := range []string{"https://a.example/b", "//evil", "/ok", "javascript:x", "/\\x", "https:evil"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := webURL(s)
		if got == "" {
			return
		}
		base, _ := url.Parse("https://door.example/x")
		u, err := base.Parse(got)
		if err != nil || got != s || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
			t.Errorf("%q leads to %v, %v", s, u, err)
		}
		if strings.HasPrefix(got, "/") && u.Host != "door.example" {
			t.Errorf("%q leaves the host", s)
		}
	})
}

func FuzzPlain(f *testing.F) {
	for _, s := range []string{"alice@example.com", "\u202eevil", "a\x00b", "\xff\xfe", strings.Repeat("x", 2000), "a\nb", "نمی‌خواهم"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, limit := range []int{maxLine, maxParagraph} {
			got := plain(s, limit)
			if !utf8.ValidString(got) || utf8.RuneCountInString(got) > limit+1 || strings.ContainsAny(got, "\x00\x1b\r\u202e\u2066\ufeff") {
				t.Errorf("%q becomes %q", s, got)
			}
		}
	})
}

// Text and ground of both colour schemes differ enough to be read (WCAG 2.2,
// 1.4.3: 4.5; borders of controls, 1.4.11: 3).
func TestColoursHaveContrast(t *testing.T) {
	light, rest, ok := strings.Cut(string(style), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark scheme")
	}
	dark, _, _ := strings.Cut(rest, "*, ::before")
	for name, scheme := range map[string]string{"light": light, "dark": dark} {
		for _, pair := range []struct {
			fore, ground string
			least        float64
		}{
			{"ink", "card", 4.5}, {"ink", "inset", 4.5}, {"ink", "ground", 4.5}, {"soft", "card", 4.5}, {"soft", "inset", 4.5}, {"soft", "ground", 4.5},
			{"link", "card", 4.5}, {"on-button", "button", 4.5}, {"on-button", "button-hover", 4.5}, {"alert", "card", 4.5}, {"warm-ink", "warm", 4.5},
			{"badge-ink", "badge", 3}, {"edge", "card", 3}, {"edge", "inset", 3},
		} {
			a, b := luminance(t, scheme, pair.fore), luminance(t, scheme, pair.ground)
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < pair.least {
				t.Errorf("%s: %s on %s has contrast %.2f, want %v", name, pair.fore, pair.ground, ratio, pair.least)
			}
		}
	}
}

func luminance(t *testing.T, css, name string) float64 {
	t.Helper()
	_, rest, ok := strings.Cut(css, "--"+name+": #")
	if !ok {
		t.Fatalf("no colour --%s", name)
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(rest[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.03928 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
