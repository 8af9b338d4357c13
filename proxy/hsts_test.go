package proxy

import (
	"net/http"
	"slices"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// Browsers are told once, in every answer over TLS of our own: the application's,
// ours, and refusals.
func TestHSTS(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add(hstsHeader, "max-age=5; preload")
		w.Header().Add(hstsHeader, "max-age=6")
	})
	app := routeTo("https://app.example", up)
	other, below, wild, left, plain := routeTo("https://other.example", up), routeTo("https://other.example/a", up), routeTo("https://*.wild.example", up), routeTo("https://left.example", up), routeTo("http://plain.example", up)
	other.ID, below.ID, wild.ID, left.ID, plain.ID = "other", "below", "wild", "left", "plain"
	other.HSTS = access.HSTS{Mode: "forget"}
	wild.HSTS = access.HSTS{MaxAge: access.Duration(3600e9), IncludeSubdomains: true}
	left.HSTS = access.HSTS{Mode: "upstream"}
	routes := []access.Route{app, other, below, wild, left, plain}
	year := []string{"max-age=31536000"}
	public := withPolicy(func(req *access.Request) access.Decision {
		if req.Path == "/login" {
			return loginFirst(req)
		}
		return allowAll(req)
	})
	for name, overTLS := range map[string]change{"HTTP/1.1": overTLS, "HTTP/2": overHTTP2} {
		w := newWorld(t, routes, public, overTLS)
		for target, want := range map[string][]string{
			"https://app.example/":               year,
			"https://app.example/login":          year, // 401
			"https://app.example//":              year, // 400
			"https://app.example/.doorward/me":   year,
			"https://other.example/":             {"max-age=0"},
			"https://other.example/a":            {"max-age=0"}, // one thing per host
			"https://other.example/.doorward/me": {"max-age=0"},
			"https://x.wild.example/":            {"max-age=3600; includeSubDomains"},
			"https://left.example/":              {"max-age=5; preload", "max-age=6"},
			"https://left.example/login":         nil,
			"https://nobody.example/":            nil, // no host of ours
		} {
			if res, _ := w.ask("GET", target); !slices.Equal(res.Header[hstsHeader], want) {
				t.Errorf("%s %s: %q, want %q", name, target, res.Header[hstsHeader], want)
			}
		}
	}
	// Whoever ends TLS says it, and nobody may by http.
	behind := newWorld(t, routes, public, withServer(func(c *Config) { c.TrustedProxies = []string{"127.0.0.1"} }))
	for target, proto := range map[string]string{"http://plain.example/": "http", "http://app.example/": "https"} {
		if res, _ := behind.ask("GET", target, "X-Forwarded-Proto", proto); !slices.Equal(res.Header[hstsHeader], []string{"max-age=5; preload", "max-age=6"}) {
			t.Errorf("%s: %q", target, res.Header[hstsHeader])
		}
	}
	// A visitor who came to a listed proxy by http learns nothing, although the
	// proxy came by TLS.
	mixed := newWorld(t, routes, public, overTLS, withServer(func(c *Config) { c.TrustedProxies = []string{"127.0.0.1"} }))
	if res, _ := mixed.ask("GET", "https://plain.example/login", "X-Forwarded-Proto", "http"); res.StatusCode != 401 || res.Header[hstsHeader] != nil {
		t.Errorf("%s %q", res.Status, res.Header[hstsHeader])
	}
	general := newWorld(t, routes, public, overTLS, withServer(func(c *Config) { c.TLS.HSTS = access.HSTS{Mode: "upstream"}; c.AuthURL = "https://auth.example" }))
	if res, _ := general.ask("GET", "https://auth.example/.doorward/me"); res.Header[hstsHeader] != nil {
		t.Errorf("%q", res.Header[hstsHeader])
	}
}
