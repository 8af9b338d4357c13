package proxy

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/doorward/doorward/internal/access"
)

func TestPathHasOneMeaning(t *testing.T) {
	for raw, want := range map[string]pathname{
		"/":               {"/", "/", 0},
		"/a/b/":           {"/a/b/", "/a/b/", 0},
		"/%61%2D%7e":      {"/a-~", "/a-~", 0},
		"/a%20b":          {"/a b", "/a%20b", 0},
		"/%c3%a4":         {"/ä", "/%C3%A4", 0},
		"/a%3fb%23c":      {"/a?b#c", "/a%3Fb%23c", 0},
		"/x:y@z!$&'()*+,": {"/x:y@z!$&'()*+,", "/x:y@z!$&'()*+,", 0},
		"/a%40b":          {"/a@b", "/a%40b", 0},
		"/[a]":            {"/[a]", "/%5Ba%5D", 0},
		"/100%25":         {"/100%", "/100%25", 0},
		"/...":            {"/...", "/...", 0},
		"/.well-known/x":  {"/.well-known/x", "/.well-known/x", 0},
		"/a%2fb":          {"/a/b", "/a%2Fb", encodedSlash},
		"/a//b":           {"/a//b", "/a//b", emptySegment},
		"/a/%2fb":         {"/a//b", "/a/%2Fb", encodedSlash | emptySegment},
		"/a;b":            {"/a;b", "/a;b", semicolon},
		"/a%3bb":          {"/a;b", "/a%3Bb", semicolon},
		`/a\b`:            {`/a\b`, "/a%5Cb", backslash},
		"/a%5cb":          {`/a\b`, "/a%5Cb", backslash},
		"/a%2541":         {"/a%41", "/a%2541", encodedPercent},
		"/a%25%34%31":     {"/a%41", "/a%2541", encodedPercent},
	} {
		got, err := parsePathname(raw)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", raw, got, err, want)
		}
	}
}

func TestPathsThatGoUpAreRefusedInEverySpelling(t *testing.T) {
	for _, raw := range []string{
		"/..", "/.", "/a/../b", "/a/./b", "/a/..", "/a/.", "/%2e%2e/b", "/%2E./b", "/.%2e/b", "/a/%2e/b",
		"/a/..;/b", "/a/.;x=1/b", "/a/%2e%2e%3b/b", "/a/..%2fb", `/a/..\b`, "/a/..%5cb", "/a%2f..%2fb",
		"/a/%252e%252e/b", "/a/%25252e%25252e/b", "/a/.%252e/b", "/a/..%252fb", "/a/..%253b/b", "/a%255c..%255cb",
	} {
		_, err := parsePathname(raw)
		if access.ReasonOf(err) != access.AmbiguousPath {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestMalformedPathsAreRefused(t *testing.T) {
	for _, raw := range []string{
		"", "a", "*", "http://x/", "/a b", "/a\tb", "/a%00", "/a%0d%0ab", "/a%7f", "/a\x00", "/a%", "/a%4", "/a%zz", "/a%u0041",
		"/%ff", "/%c0%af", "/%c0%ae%c0%ae/", "/%ed%a0%80", "/ä", "/a\"b", "/a<b", "/a>b", "/a^b", "/a`b", "/a{b}", "/a|b", "/a#b", "/a?b",
	} {
		_, err := parsePathname(raw)
		if access.ReasonOf(err) != access.BadRequest {
			t.Errorf("%q: %v", raw, err)
		}
	}
	deep := "/" + strings.Repeat("%25", 1) + strings.Repeat("25", 40) + "41"
	if _, err := parsePathname(deep); access.ReasonOf(err) != access.AmbiguousPath {
		t.Errorf("%s: %v", deep, err)
	}
}

func FuzzPathname(f *testing.F) {
	for _, seed := range []string{"/", "/a/b", "/%61", "/a%2fb", "/a//b", "/..;/", "/%252e", "/ä", "/%c3%a4", `/\`, "/[x]", "/%25%32%65", "*", "/a;b=c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := parsePathname(raw)
		if err != nil {
			if reason := access.ReasonOf(err); reason != access.BadRequest && reason != access.AmbiguousPath {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		again, err := parsePathname(p.Escaped)
		if err != nil || again != p {
			t.Fatalf("%q: canonical form %+v reads as %+v, %v", raw, p, again, err)
		}
		decoded, err := url.PathUnescape(p.Escaped)
		if err != nil || decoded != p.Path {
			t.Fatalf("%q: %q decodes to %q, rules see %q", raw, p.Escaped, decoded, p.Path)
		}
		if asSent, err := url.PathUnescape(raw); err != nil || asSent != p.Path {
			t.Fatalf("%q: means %q, rules see %q", raw, asSent, p.Path)
		}
		if sent := (&url.URL{Path: p.Path, RawPath: p.Escaped}).EscapedPath(); sent != p.Escaped {
			t.Fatalf("%q: net/http would send %q, not %q", raw, sent, p.Escaped)
		}
		for _, segment := range strings.FieldsFunc(p.Path, func(c rune) bool { return c == '/' || c == '\\' }) {
			name, _, _ := strings.Cut(segment, ";")
			if name == "." || name == ".." {
				t.Fatalf("%q: %q goes up", raw, p.Path)
			}
		}
		if !utf8.ValidString(p.Path) || strings.ContainsFunc(p.Path, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Fatalf("%q: %q", raw, p.Path)
		}
		if strings.Contains(p.Path, "//") && p.Ambiguous&emptySegment == 0 ||
			strings.Contains(p.Path, ";") && p.Ambiguous&semicolon == 0 ||
			strings.Contains(p.Path, `\`) && p.Ambiguous&backslash == 0 ||
			strings.Contains(p.Escaped, "%2F") && p.Ambiguous&encodedSlash == 0 {
			t.Fatalf("%q: %+v", raw, p)
		}
	})
}

func FuzzCanonicalHost(f *testing.F) {
	for _, seed := range []string{"a", "A.Example:443", "[::1]:80", "[::FFFF:1.2.3.4]", "a.", "a@b", "a:080", "a..b", "[fe80::1%25eth0]", "1.2.3.4", "a:", "ä"} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, raw string, secure bool) {
		scheme := "http"
		if secure {
			scheme = "https"
		}
		host, err := canonicalHost(raw, scheme)
		if err != nil {
			return
		}
		if again, err := canonicalHost(host, scheme); err != nil || again != host {
			t.Fatalf("%q: %q reads as %q, %v", raw, host, again, err)
		}
		if host != strings.ToLower(host) || strings.ContainsAny(host, "@/?#\\ %") || strings.HasSuffix(host, ".") {
			t.Fatalf("%q: %q", raw, host)
		}
		if u, err := url.Parse(scheme + "://" + host + "/"); err != nil || u.Host != host {
			t.Fatalf("%q: %q is no host of a URL: %v", raw, host, err)
		}
	})
}

func TestHostHasOneSpelling(t *testing.T) {
	for raw, want := range map[string]string{
		"app.example": "app.example", "APP.Example": "app.example", "app.example:443": "app.example", "app.example:0443": "app.example",
		"app.example:8443": "app.example:8443", "app.example:80": "app.example:80", "[::1]": "[::1]", "[0:0::1]:443": "[::1]",
		"my_app.corp": "my_app.corp", "10.0.0.1": "10.0.0.1",
	} {
		if got, err := canonicalHost(raw, "https"); err != nil || got != want {
			t.Errorf("%s: %s, %v", raw, got, err)
		}
	}
	for _, raw := range []string{
		"", ".", "a.", "a.:443", ".a", "a..b", "user@a", "a b", "a/b", "a\\b", "a?b", "a#b", "a,b", "a:", "a:0", "a:65536", "a:1:2", "a:x", "a:+1",
		"::1", "[::1", "[::1]x", "[1.2.3.4]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[]", "münchen.example", "a%2eb", "a;b",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "aa",
	} {
		if got, err := canonicalHost(raw, "https"); err == nil {
			t.Errorf("%q was read as %q", raw, got)
		}
	}
}
