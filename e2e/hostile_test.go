package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// raw sends bytes no HTTP client would send and returns the status.
func (d *demo) raw(request string) int {
	d.t.Helper()
	conn, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		d.t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Spellings on which servers disagree are refused before anyone decides on
// them, logged in or not (CVE-2025-54576 and its kin).
func TestAmbiguousAddressesAreRefused(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("echo", "/"), "alice")
	echo, _ := url.Parse(d.url("echo", "/"))
	var cookie string
	for _, c := range v.client.Jar.Cookies(echo) {
		cookie += c.Name + "=" + c.Value + "; "
	}
	for _, target := range []string{
		"//", "/a//b", "/a/../b", "/a/./b", "/a/%2e%2e/b", "/a/%2E%2e/b", "/..;/b", "/a;b=1/c", "/a%2fb", "/a%5cb", `/a\b`,
		"/a%252fb", "/a%00b", "/a%0ab", "/a%zzb", "/a%", "/%ff", "/a#b", "/a\x7fb", "/a<b", `/a"b`, "/a?x=<", "/a?x=\x80", "/ä",
	} {
		status := d.raw(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nConnection: close\r\n\r\n", target, echo.Host, cookie))
		if status != 400 {
			t.Errorf("%q was answered %d", target, status)
		}
	}
	for name, request := range map[string]string{
		"two hosts":           "GET / HTTP/1.1\r\nHost: " + echo.Host + "\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
		"no host":             "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
		"two lengths":         "POST / HTTP/1.1\r\nHost: " + echo.Host + "\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
		"absolute, elsewhere": "GET http://wiki.localhost/ HTTP/1.1\r\nHost: " + echo.Host + "\r\nConnection: close\r\n\r\n",
	} {
		if status := d.raw(request); status < 400 || status >= 500 {
			t.Errorf("%s: answered %d", name, status)
		}
	}
	huge := "GET / HTTP/1.1\r\nHost: " + echo.Host + "\r\nX-Big: " + strings.Repeat("a", 200<<10) + "\r\nConnection: close\r\n\r\n"
	if status := d.raw(huge); status != 431 {
		t.Errorf("an oversized header was answered %d", status)
	}
	if status := d.raw("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\nConnection: close\r\n\r\n"); status < 400 {
		t.Errorf("CONNECT was answered %d", status)
	}
}

// Cookies that were cut, changed, made up or sent twice open nothing and break
// nothing.
func TestTamperedCookiesOpenNothing(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("echo", "/"), "alice")
	echo, _ := url.Parse(d.url("echo", "/"))
	good := v.client.Jar.Cookies(echo)[0]
	last := good.Value[:len(good.Value)-1]
	for name, value := range map[string]string{
		"cut": last, "changed": last + map[bool]string{true: "A", false: "B"}[good.Value[len(good.Value)-1] != 'A'],
		"empty": "", "made up": strings.Repeat("A", len(good.Value)), "long": strings.Repeat("A", 4000), "path": "../../etc/passwd",
		"twice": good.Value + good.Value,
	} {
		p := newVisitor(t).once("GET", echo.String(), http.Header{"Cookie": {good.Name + "=" + value}, "Accept": {"application/json"}}, nil)
		if p.status != 401 {
			t.Errorf("%s: answered %d", name, p.status)
		}
	}
	both := http.Header{"Cookie": {good.Name + "=" + strings.Repeat("A", 43) + "; " + good.Name + "=" + good.Value}, "Accept": {"application/json"}}
	if p := newVisitor(t).once("GET", echo.String(), both, nil); p.status != 401 {
		t.Errorf("two different cookies of one name: answered %d", p.status)
	}
}

// A code or state that was used, invented or stolen logs nobody in, and leads
// to a page or a fresh start, never to an error of ours.
func TestReplayedLoginsAreRefused(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	var callbacks []string
	v.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(req.URL.Path, "/callback") {
			callbacks = append(callbacks, req.URL.String())
		}
		return nil
	}
	v.login(d.url("echo", "/"), "alice")
	if len(callbacks) < 2 {
		t.Fatalf("callbacks: %q; expected one of the provider and one of the login host", callbacks)
	}
	for _, callback := range callbacks {
		for name, who := range map[string]*visitor{"the same browser": v, "another browser": newVisitor(t)} {
			p := who.once("GET", callback, who.header, nil)
			if p.status != 302 && p.status != 400 {
				t.Errorf("%s repeats %s: answered %d\n%s", name, callback, p.status, p.body)
			}
			for _, cookie := range p.header.Values("Set-Cookie") {
				if name, value, _ := strings.Cut(cookie, "="); name == "doorward" && !strings.HasPrefix(value, ";") {
					t.Errorf("a repeated callback set %s", cookie)
				}
			}
		}
	}
	thief := newVisitor(t)
	for _, query := range []string{"", "?code=x", "?state=x", "?code=x&state=y", "?error=access_denied&state=z", "?handover=x&flow=y", "?code=a&code=b&state=c"} {
		p := thief.once("GET", d.url("auth", "/.doorward/callback"+query), thief.header, nil)
		if p.status >= 500 {
			t.Errorf("%q: answered %d", query, p.status)
		}
	}
	for _, e := range d.events() {
		if text := fmt.Sprintf("%+v %+v", e, e.Request); strings.Contains(text, "code=") && !strings.Contains(text, "code=[redacted]") {
			t.Errorf("a code is in the log: %s", text)
		}
	}
}

// After the login people come back to our own hosts or nowhere.
func TestNoOpenRedirect(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("echo", "/"), "alice")
	for _, evil := range []string{
		"https://evil.example/", "//evil.example/", `/\evil.example`, "https:evil.example", "http://echo.localhost@evil.example/",
		"javascript:alert(1)", "/\r\nLocation: https://evil.example", "http://echo.localhost.evil.example/", "\thttps://evil.example", "///evil.example",
	} {
		for _, parameter := range []string{"return", "to", "rd"} {
			for _, host := range []string{"echo", "auth"} {
				target := d.url(host, "/.doorward/login?"+parameter+"="+url.QueryEscape(evil))
				p := v.once("GET", target, v.header, nil)
				if location := p.header.Get("Location"); strings.Contains(location, "evil") {
					if u, err := url.Parse(location); err != nil || u.Host == "" || strings.Contains(u.Host, "evil") {
						t.Errorf("%s leads to %q", target, location)
					}
				}
				if p.status >= 500 {
					t.Errorf("%s: answered %d", target, p.status)
				}
			}
		}
	}
}

// Every request leaves exactly one decision in the audit log, and no secret.
func TestOneRequestOneRecord(t *testing.T) {
	d := startDemo(t, t.TempDir())
	v := newVisitor(t)
	v.login(d.url("echo", "/"), "alice")
	for i := range 20 {
		v.once("GET", d.url("echo", fmt.Sprintf("/n/%d?access_token=hunter2&q=%d", i, i)), v.header, nil)
	}
	d.waitForEvent(func(e *access.Event) bool { return e.Kind == access.EventDecision && e.Request.Path == "/n/19" })
	seen := map[string]int{}
	for _, e := range d.events() {
		if e.Kind == access.EventDecision && strings.HasPrefix(e.Request.Path, "/n/") {
			seen[e.Request.Path]++
			if !strings.Contains(e.Request.Query, "access_token=[redacted]") || !strings.Contains(e.Request.Query, "q=") {
				t.Errorf("query %q", e.Request.Query)
			}
			if e.Request.Identity.Subject != "alice" || e.Response.Status != 200 || e.Response.BytesOut == 0 || e.Response.Upstream == "" {
				t.Errorf("%+v %+v", e.Request.Identity, e.Response)
			}
		}
	}
	for path, n := range seen {
		if n != 1 {
			t.Errorf("%s was recorded %d times", path, n)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d of 20 requests were recorded", len(seen))
	}
	echo, _ := url.Parse(d.url("echo", "/"))
	for _, cookie := range v.client.Jar.Cookies(echo) {
		d.stop()
		for _, text := range []string{d.output(), fmt.Sprint(d.events())} {
			if strings.Contains(text, cookie.Value) || strings.Contains(text, "hunter2") {
				t.Errorf("a secret was written: %s", cookie.Name)
			}
		}
	}
}
