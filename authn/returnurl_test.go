package authn

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// badReturns are addresses that a browser may take for another host, that hold
// something to inject, or that lead to our own pages.
var badReturns = []string{
	"//evil.example", `/\evil.example`, `\\evil.example`, "https:evil.example", "https://evil.example/", "///evil.example",
	"evil.example", "@evil.example", "javascript:alert(1)", "/x\r\nSet-Cookie: a=b", "/x\tb", " /x", "/x#//evil", "/\x00",
	"/\u2044evil.example", "/é", `/a\..\b`, "/%5Cevil.example", "/%zz", "http://app.corp.test/", "?x", "./x", "/x y", "/<b>",
	"/.doorward/logout", "/.doorward/logout?x=1", "/.doorward", "/a/../.doorward/logout", "/%2edoorward/logout", "/.Doorward/logout",
	"/.doorward/portal/", "/.doorward/portal?x", "/.doorward/Portal", "/x/../.doorward/portal", "//.doorward/portal",
	"//.doorward/logout", "/./.doorward/callback?code=x", "/" + strings.Repeat("a", maxReturn),
}

func TestReturnAddresses(t *testing.T) {
	for _, bad := range badReturns {
		if got, ok := parseReturn(bad); ok {
			t.Errorf("%q was accepted as %q", bad, got)
		}
	}
	for _, good := range []string{"/", "/x", "/x?y=z&a=%2F%2Fevil", "/a%20b/", "/a/../b", "/a//b", "/x?next=https://elsewhere.example", "/..doorward", "/a:b@c", "/.doorward/portal"} {
		if got, ok := parseReturn(good); !ok || got != good {
			t.Errorf("%q was refused", good)
		}
	}
}

func TestWhatCannotBeReturnedToIsCutDown(t *testing.T) {
	for in, want := range map[string]string{
		"/x?y=" + strings.Repeat("z", maxReturn): "/x", "/" + strings.Repeat("a", 3000): "/",
		"/.doorward/callback?code=1": "/", "/.doorward/portal?x=1": "/.doorward/portal", "/ok?a=b": "/ok?a=b",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := returnOf(u); got != want {
			t.Errorf("%.40q: %q, want %q", in, got, want)
		}
	}
}

func TestOriginOfLoginHost(t *testing.T) {
	for in, want := range map[string]string{
		"https://auth.example": "https://auth.example", "https://Auth.Example:443/": "https://auth.example",
		"http://auth.localhost:8080": "http://auth.localhost:8080",
		"auth.example":               "", "https://": "", "https://auth.example/path": "", "https://u@auth.example": "", "ftp://auth.example": "",
	} {
		got, err := originOfURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// Whatever is accepted leads to the host it is put behind and to none of our own
// pages, except the portal.
func FuzzReturnURL(f *testing.F) {
	for _, seed := range append(badReturns, "/", "/x?y=z", "/a%20b") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		to, ok := parseReturn(text)
		if !ok {
			return
		}
		u, err := url.Parse(app + to)
		if err != nil || u.Scheme != "https" || u.Host != "app.corp.test" || u.User != nil || u.Fragment != "" {
			t.Fatalf("%q leads to %v, %v", text, u, err)
		}
		relative, err := u.Parse(to) // as a browser would read it without the host
		if err != nil || relative.Host != u.Host {
			t.Fatalf("%q alone leads to %v, %v", text, relative, err)
		}
		if to != access.PortalPath && strings.HasPrefix(strings.ToLower(path.Clean(u.Path))+"/", "/.doorward/") {
			t.Fatalf("%q leads to our own pages", text)
		}
		for _, c := range []byte(to) {
			if c <= ' ' || c >= 0x7f || c == '\\' {
				t.Fatalf("%q holds %q", to, c)
			}
		}
	})
}

func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{app, "https://evil@app", "http://[::1]:8080", "https://a:b", "https://x?", "//x", "https://A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		origin, ok := parseOrigin(text)
		if !ok {
			return
		}
		u, err := url.Parse(origin + "/path")
		if err != nil || origin != u.Scheme+"://"+u.Host || u.User != nil || u.Path != "/path" || origin != strings.ToLower(origin) {
			t.Fatalf("%q: %v, %v", text, u, err)
		}
	})
}
