package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// Policy decides on the path that the visitor asked for, and the upstream gets
// what is derived from that very path.
func TestPrefixesAreStrippedAndAdded(t *testing.T) {
	echo := newEcho(t)
	for name, c := range map[string]struct {
		from, strip, add string
		asked, got       string
	}{
		"stripped":                    {"/wiki", "/wiki", "", "/wiki/a/b?c=d", "/a/b?c=d"},
		"nothing is left":             {"/wiki", "/wiki", "", "/wiki", "/"},
		"a slash is left":             {"/wiki", "/wiki", "", "/wiki/", "/"},
		"added":                       {"", "", "/v2", "/a", "/v2/a"},
		"added to the start page":     {"", "", "/v2", "/", "/v2/"},
		"replaced":                    {"/wiki", "/wiki", "/v2/docs", "/wiki/a", "/v2/docs/a"},
		"replaced as a whole":         {"/wiki", "/wiki", "/v2", "/wiki", "/v2"},
		"part of the prefix":          {"/a/b", "/a", "", "/a/b/c", "/b/c"},
		"not twice":                   {"/wiki", "/wiki", "", "/wiki/wiki/a", "/wiki/a"},
		"escapes stay":                {"/wiki", "/wiki", "/v2", "/wiki/a%20b%3Fc", "/v2/a%20b%3Fc"},
		"an escape in the prefix":     {"/a:b", "/a:b", "", "/a%3Ab/c", "/c"},
		"an escape of what is plain":  {"/wiki", "/wiki", "", "/%77iki/%61", "/a"},
		"a prefix that needs escapes": {"/caf%C3%A9", "/caf%C3%A9", "/th%C3%A9", "/caf%c3%a9/x", "/th%C3%A9/x"},
		"two slashes":                 {"/wiki", "/wiki", "", "/wiki//a", "//a"},
		"an escaped slash inside":     {"/wiki", "/wiki", "", "/wiki/a%2Fb", "/a%2Fb"},
	} {
		route := routeTo("http://app.example"+c.from, echo)
		route.StripPrefix, route.AddPrefix, route.AmbiguousPaths = c.strip, c.add, []string{"empty_segment", "encoded_slash"}
		w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
		_, body := w.raw("GET " + c.asked + " HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n")
		e := w.rec.event(t)
		asked, _, _ := strings.Cut(c.asked, "?")
		public, err := parsePathname(asked)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, body).URI; got != c.got || e.Request.Path != public.Path {
			t.Errorf("%s: the upstream got %q, want %q; decided on %q", name, got, c.got, e.Request.Path)
		}
	}
}

// Whether the slash behind the prefix is one is read differently, so that the rest
// would be another path to the upstream than to the policy.
func TestPrefixThatEndsInAnEscapedSlashIsRefused(t *testing.T) {
	route := routeTo("http://app.example/wiki", newEcho(t))
	route.StripPrefix, route.AmbiguousPaths = "/wiki", []string{"encoded_slash"}
	w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
	res, _ := w.raw("GET /wiki%2Fadmin HTTP/1.1\r\nHost: app.example\r\n\r\n")
	if e := w.rec.event(t); res.StatusCode != 400 || e.Response.Reason != access.AmbiguousPath || e.Response.Upstream != "" {
		t.Errorf("%s %+v", res.Status, e.Response)
	}
}

// Whatever a visitor sends, the upstream gets the prefix and then what stood behind
// the one that was stripped, byte by byte.
func FuzzUpstreamPath(f *testing.F) {
	for _, seed := range []string{"/wiki/a", "/wiki", "/wiki%2f..%2fa", "/%77iki//x", "/wiki/%25%32%65", "/wiki;x/..", "/wiki/%E2%82%AC"} {
		f.Add(seed)
	}
	m := compilePathMap(&access.Route{From: "https://app.example/wiki", StripPrefix: "/wiki", AddPrefix: "/v2"}, access.NewFaults(""))
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := parsePathname(raw)
		if err != nil || p.Path != "/wiki" && !strings.HasPrefix(p.Path, "/wiki/") {
			return
		}
		out, err := m.toUpstream(p)
		if err != nil {
			return
		}
		plain, err := url.PathUnescape(out.Escaped)
		if err != nil || plain != out.Path || out.Path != "/v2"+strings.TrimPrefix(p.Path, "/wiki") {
			t.Fatalf("%q: %+v (%q, %v)", raw, out, plain, err)
		}
		again, err := parsePathname(out.Escaped)
		if err != nil || again.Path != out.Path || again.Escaped != out.Escaped {
			t.Fatalf("%q: %+v is read as %+v, %v", raw, out, again, err)
		}
	})
}

func TestHostForTheUpstream(t *testing.T) {
	route := routeTo("http://app.example", newEcho(t))
	route.Host = "Inner.Example:8080"
	w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
	_, body := w.ask("GET", "http://app.example/")
	if saw := decode(t, body); saw.Host != "inner.example:8080" || saw.Header.Get("X-Forwarded-Host") != "app.example" {
		t.Errorf("%+v", saw)
	}
}

// What an application says about its own addresses is said in the visitor's
// words.
func TestRedirectsAndCookiesOfAMovedApplication(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		// Go would complete a relative address of http.Redirect.
		for _, cookie := range r.Header["X-Cookie"] {
			w.Header().Add("Set-Cookie", cookie)
		}
		w.Header()["Location"] = []string{strings.ReplaceAll(r.Header.Get("X-Location"), "UP", "http://"+r.Host)}
		w.WriteHeader(http.StatusFound)
	})
	moved := routeTo("http://app.example/wiki", up)
	moved.StripPrefix, moved.AddPrefix = "/wiki", "/v2"
	plain, stripped, named := routeTo("http://plain.example", up), routeTo("http://stripped.example/wiki", up), routeTo("http://named.example", up)
	plain.ID, stripped.ID, named.ID = "plain", "stripped", "named"
	stripped.StripPrefix, stripped.AmbiguousPaths = "/wiki", []string{"empty_segment"}
	named.Host = "inner.example"
	rooted := routeTo("http://rooted.example", up)
	rooted.ID, rooted.AddPrefix = "rooted", "/v2"
	w := newWorld(t, []access.Route{moved, plain, stripped, named, rooted}, withPolicy(allowAll))
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	for name, c := range map[string]struct{ at, location, want string }{
		"a path":                        {"app.example/wiki/x", "/v2/login?a=b#c", "/wiki/login?a=b#c"},
		"the prefix itself":             {"app.example/wiki/x", "/v2", "/wiki"},
		"a path beside the prefix":      {"app.example/wiki/x", "/v22/login", "/v22/login"},
		"a relative one":                {"app.example/wiki/x", "login", "login"},
		"a query alone":                 {"app.example/wiki/x", "?a=b", "?a=b"},
		"the upstream by name":          {"app.example/wiki/x", "UP/v2/login", "http://app.example/wiki/login"},
		"by name, another part":         {"app.example/wiki/x", "UP/other", "UP/other"},
		"by name, elsewhere":            {"app.example/wiki/x", "https://idp.example/v2/authorize?redirect_uri=UP/v2/cb", "https://idp.example/v2/authorize?redirect_uri=UP/v2/cb"},
		"without a scheme":              {"app.example/wiki/x", "//idp.example/v2/a", "//idp.example/v2/a"},
		"escaped":                       {"app.example/wiki/x", "/v2/a%2Fb%20c", "/wiki/a%2Fb%20c"},
		"nonsense":                      {"app.example/wiki/x", "http://[::1/v2", "http://[::1/v2"},
		"stripped only":                 {"stripped.example/wiki/x", "/login", "/wiki/login"},
		"stripped only, the start":      {"stripped.example/wiki/x", "UP", "http://stripped.example/wiki/"},
		"added only":                    {"rooted.example/x", "/v2/login", "/login"},
		"added only, no host of a path": {"rooted.example/x", "/v2//evil.example/", "http://rooted.example//evil.example/"},
		"nothing moved, by name":        {"plain.example/x", "UP/login?a=b", "http://plain.example/login?a=b"},
		"nothing moved, a path":         {"plain.example/x", "/v2/login", "/v2/login"},
		"by the name it was given":      {"named.example/x", "https://inner.example/login", "http://named.example/login"},
		"by that name and its port":     {"named.example/x", "http://inner.example:" + port + "/login", "http://named.example/login"},
		"by a name it was not given":    {"named.example/x", "https://inner.example:8443/login", "https://inner.example:8443/login"},
		"a user name":                   {"plain.example/x", "http://me@" + strings.TrimPrefix(up.URL, "http://") + "/", "http://me@" + strings.TrimPrefix(up.URL, "http://") + "/"},
	} {
		res, _ := w.ask("GET", "http://"+c.at, "X-Location", c.location)
		if got := strings.ReplaceAll(res.Header.Get("Location"), up.URL, "UP"); got != strings.ReplaceAll(c.want, up.URL, "UP") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for at, cookies := range map[string][][2]string{
		"app.example/wiki/x": {
			{"a=1; Path=/v2; Secure", "a=1; Path=/wiki; Secure"}, {"a=1; path=/v2/", "a=1; path=/wiki"}, {"a=1; PATH = /v2/x", "a=1; PATH =/wiki/x"},
			{"a=1; Path=/", "a=1; Path=/wiki"}, {"a=1; Path=/v22", "a=1; Path=/v22"}, {"a=1; HttpOnly", "a=1; HttpOnly"}, {"a=1; Path=relative", "a=1; Path=relative"},
			{"a=1; Path=", "a=1; Path="}, {"path=/v2", "path=/v2"}, {"__Host-a=1; Path=/; Secure", "__Host-a=1; Path=/; Secure"}, {"a=1; Path=/v2; Path=/v2/y", "a=1; Path=/wiki; Path=/wiki/y"},
		},
		"stripped.example/wiki/x": {{"a=1; Path=/", "a=1; Path=/wiki"}, {"a=1; Path=/x", "a=1; Path=/wiki/x"}},
		"rooted.example/x":        {{"a=1; Path=/v2", "a=1; Path=/"}, {"a=1; Path=/v2/x", "a=1; Path=/x"}, {"a=1; Path=/x", "a=1; Path=/x"}},
		"plain.example/x":         {{"a=1; Path=/v2", "a=1; Path=/v2"}},
	} {
		var headers, want []string
		for _, c := range cookies {
			headers, want = append(headers, "X-Cookie", c[0]), append(want, c[1])
		}
		res, _ := w.ask("GET", "http://"+at, headers...)
		if got := res.Header["Set-Cookie"]; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}

func TestResponseHeadersAreEdited(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{"Server": "secret/1.0", "X-Frame-Options": "ALLOWALL", "Content-Security-Policy": "default-src 'self'", "X-Kept": "yes"} {
			w.Header().Set(name, value)
		}
		fmt.Fprint(w, "hello")
	})
	route := routeTo("http://app.example", up)
	route.ResponseHeaders = access.ResponseHeaders{Remove: []string{"server", "X-Absent"}, Set: map[string]string{"x-frame-options": "DENY", "X-New": "100%"},
		Add: map[string]string{"Content-Security-Policy": "frame-ancestors 'none'"}}
	w := newWorld(t, []access.Route{route})
	res, body := w.ask("GET", "http://app.example/", "Cookie", asAlice)
	if h := res.Header; body != "hello" || h["Server"] != nil || !slices.Equal(h["X-Frame-Options"], []string{"DENY"}) || h.Get("X-New") != "100%" || h.Get("X-Kept") != "yes" ||
		!slices.Equal(h["Content-Security-Policy"], []string{"default-src 'self'", "frame-ancestors 'none'"}) {
		t.Errorf("%v", h)
	}
	// Our own pages are ours.
	if res, _ := w.ask("GET", "http://app.example/"); res.StatusCode != 401 || res.Header.Get("X-New") != "" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}
