package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func from(id, address string) access.Route {
	return access.Route{ID: id, From: address, To: []string{"https://10.0.0.1"}}
}

func TestMostSpecificRouteWins(t *testing.T) {
	table := table(t,
		from("root", "https://app.example"),
		from("api", "https://app.example/api"),
		from("api-v2", "https://app.example/api/v2/"),
		from("plain", "http://app.example"),
		from("port", "https://app.example:8443"),
		from("wild", "https://*.apps.example"),
		from("one", "https://one.apps.example/only"),
		from("deep-wild", "https://*.eu.apps.example"),
		from("v6", "https://[2001:DB8::1]"),
	)
	for _, c := range []struct{ scheme, host, path, want string }{
		{"https", "app.example", "/", "root"},
		{"https", "app.example", "/apix", "root"},
		{"https", "app.example", "/api", "api"},
		{"https", "app.example", "/api/", "api"},
		{"https", "app.example", "/api/v1/x", "api"},
		{"https", "app.example", "/api/v2", "api-v2"},
		{"https", "app.example", "/api/v2/x/y", "api-v2"},
		{"https", "app.example", "/api/v22", "api"},
		{"https", "app.example", "/API", "root"},
		{"https", "app.example", "//api", "root"},
		{"wss", "app.example", "/api", "api"},
		{"http", "app.example", "/api", "plain"},
		{"https", "app.example:8443", "/", "port"},
		{"https", "app.example:9", "/", ""},
		{"https", "two.apps.example", "/x", "wild"},
		{"https", "a.two.apps.example", "/x", ""},
		{"https", "apps.example", "/x", ""},
		{"https", "x.eu.apps.example", "/x", "deep-wild"},
		{"https", "one.apps.example", "/only/x", "one"},
		{"https", "one.apps.example", "/else", ""}, // no falling back to the wildcard
		{"https", "[2001:db8::1]", "/", "v6"},
		{"https", "other.example", "/", ""},
		{"tcp", "app.example", "/", ""},
	} {
		got := ""
		if entry := table.Match(c.scheme, c.host, c.path); entry != nil {
			got = entry.Route.ID
		}
		if got != c.want {
			t.Errorf("%s://%s%s: %q, want %q", c.scheme, c.host, c.path, got, c.want)
		}
	}
	for origin, want := range map[string]bool{"https://app.example": true, "http://one.apps.example": false, "https://one.apps.example": true,
		"https://z.apps.example": true, "https://evil.example": false, "//app.example": false, "": false, "https://app.example/": false} {
		if table.Owns(origin) != want {
			t.Errorf("Owns(%s) = %v", origin, !want)
		}
	}
}

func TestRouteFaultsAreAllReported(t *testing.T) {
	good := []string{"https://10.0.0.1"}
	for name, c := range map[string]struct {
		route access.Route
		at    string
	}{
		"tie":                     {access.Route{ID: "x", From: "https://APP.example:443/", To: good}, "from"},
		"tie with a slash":        {access.Route{ID: "x", From: "https://app.example/a/", To: good}, "from"},
		"tie in an escape":        {access.Route{ID: "x", From: "https://app.example/%61", To: good}, "from"},
		"duplicate id":            {access.Route{ID: "app", From: "https://b.example", To: good}, "id"},
		"no id":                   {access.Route{From: "https://b.example", To: good}, "id"},
		"no address":              {access.Route{ID: "x", To: good}, "from"},
		"reserved":                {access.Route{ID: "x", From: "https://b.example/.doorward", To: good}, "from"},
		"below reserved":          {access.Route{ID: "x", From: "https://b.example/.doorward/x", To: good}, "from"},
		"reserved in disguise":    {access.Route{ID: "x", From: "https://b.example/%2Edoorward/", To: good}, "from"},
		"other scheme":            {access.Route{ID: "x", From: "ftp://b.example", To: good}, "from"},
		"no scheme":               {access.Route{ID: "x", From: "b.example", To: good}, "from"},
		"userinfo":                {access.Route{ID: "x", From: "https://u@b.example", To: good}, "from"},
		"query":                   {access.Route{ID: "x", From: "https://b.example/?a", To: good}, "from"},
		"ambiguous path":          {access.Route{ID: "x", From: "https://b.example/a%2fb", To: good}, "from"},
		"dot segment":             {access.Route{ID: "x", From: "https://b.example/a/../b", To: good}, "from"},
		"star in the middle":      {access.Route{ID: "x", From: "https://a.*.example", To: good}, "from"},
		"star alone":              {access.Route{ID: "x", From: "https://*", To: good}, "from"},
		"upstream path":           {access.Route{ID: "x", From: "https://b.example", To: []string{"https://u/x"}}, "to[0]"},
		"upstream scheme":         {access.Route{ID: "x", From: "https://b.example", To: []string{"ws://u"}}, "to[0]"},
		"two schemes":             {access.Route{ID: "x", From: "https://b.example", To: []string{"https://u", "http://127.0.0.1"}}, "to[1]"},
		"plaintext":               {access.Route{ID: "x", From: "https://b.example", To: []string{"http://u"}}, "to[0]"},
		"plaintext h2c":           {access.Route{ID: "x", From: "https://b.example", To: []string{"h2c://10.0.0.1"}}, "to[0]"},
		"unknown ambiguity":       {access.Route{ID: "x", From: "https://b.example", To: good, AmbiguousPaths: []string{"dots"}}, "ambiguous_paths[0]"},
		"half a client cert":      {access.Route{ID: "x", From: "https://b.example", To: good, UpstreamTLS: access.UpstreamTLS{ClientCert: "x"}}, "upstream_tls"},
		"TLS without TLS":         {access.Route{ID: "x", From: "https://b.example", To: []string{"http://localhost"}, UpstreamTLS: access.UpstreamTLS{CA: "x"}}, "upstream_tls"},
		"WebSocket over h2c":      {access.Route{ID: "x", From: "https://b.example", To: []string{"h2c://localhost"}, WebSocket: true}, "websocket"},
		"unknown fact":            {access.Route{ID: "x", From: "https://b.example", To: good, Headers: map[string]string{"X-A": "mail"}}, "headers.X-A"},
		"no claim":                {access.Route{ID: "x", From: "https://b.example", To: good, Headers: map[string]string{"X-A": "claim."}}, "headers.X-A"},
		"bad header name":         {access.Route{ID: "x", From: "https://b.example", To: good, Headers: map[string]string{"X A": "sub"}}, "headers.X A"},
		"framing header":          {access.Route{ID: "x", From: "https://b.example", To: good, Headers: map[string]string{"content-length": "sub"}}, "headers.content-length"},
		"our own header":          {access.Route{ID: "x", From: "https://b.example", To: good, Headers: map[string]string{"doorward-x": "sub"}}, "headers.doorward-x"},
		"one header, two spelled": {access.Route{ID: "x", From: "https://b.example", To: good, Headers: map[string]string{"X-A": "sub", "x_a": "sub"}}, "headers.x_a"},
	} {
		_, faults := NewTable([]access.Route{from("app", "https://app.example"), from("a", "https://app.example/a"), c.route})
		if len(faults) != 1 || faults[0].Path != "routes[2]."+c.at || faults[0].Text == "" {
			t.Errorf("%s: %+v", name, faults)
		}
	}
	if _, faults := NewTable([]access.Route{{To: []string{"x"}}, {To: []string{"ftp://x"}}, {ID: "x", From: "gopher://", To: []string{"y"}}}); len(faults) < 8 {
		t.Errorf("%+v", faults)
	}
	reasoned := access.Route{ID: "x", From: "https://b.example", To: []string{"http://10.0.0.1:80"}, InsecureUpstream: "isolated network"}
	if _, faults := NewTable([]access.Route{reasoned}); len(faults) > 0 {
		t.Errorf("%+v", faults)
	}
}

func TestServerSectionIsChecked(t *testing.T) {
	ok := TLSConfig{Certificates: []Certificate{{"a", "b"}}}
	for name, c := range map[string]struct {
		config Config
		at     []string
	}{
		"default needs TLS":    {Config{}, []string{"listen"}},
		"TLS":                  {Config{TLS: ok}, nil},
		"loopback":             {Config{Listen: "127.0.0.1:8080"}, nil},
		"localhost":            {Config{Listen: "localhost:8080"}, nil},
		"behind a proxy":       {Config{Listen: ":8080", TrustedProxies: []string{"10.0.0.1"}}, nil},
		"with a reason":        {Config{Listen: ":8080", InsecureListen: "TLS ends in the mesh"}, nil},
		"bad address":          {Config{Listen: "nonsense"}, []string{"listen"}},
		"auth_url":             {Config{TLS: ok, AuthURL: "https://auth.example/"}, nil},
		"auth_url with path":   {Config{TLS: ok, AuthURL: "https://auth.example/x"}, []string{"auth_url"}},
		"auth_url scheme":      {Config{TLS: ok, AuthURL: "auth.example"}, []string{"auth_url"}},
		"everybody trusted":    {Config{TLS: ok, TrustedProxies: []string{"0.0.0.0/0", "::/0"}}, []string{"trusted_proxies[0]", "trusted_proxies[1]"}},
		"no network":           {Config{TLS: ok, TrustedProxies: []string{"proxy.example"}}, []string{"trusted_proxies[0]"}},
		"server":               {Config{TLS: ok, HTTP1: "fast"}, []string{"http1"}},
		"limits":               {Config{TLS: ok, MaxHeaderBytes: 1, MaxURLBytes: 1}, []string{"max_header_bytes", "max_url_bytes"}},
		"half a certificate":   {Config{TLS: TLSConfig{Certificates: []Certificate{{Cert: "a"}}}}, []string{"tls.certificates[0].key"}},
		"client CA alone":      {Config{Listen: "127.0.0.1:1", TLS: TLSConfig{ClientCA: "x"}}, []string{"tls.client_ca"}},
		"handed on":            {Config{Listen: "127.0.0.1:1", TLS: TLSConfig{ClientCA: "x"}, TrustedProxies: []string{"10.0.0.0/8"}, ClientCertFrom: ClientCertFrom{Header: "xfcc", Proxies: []string{"10.1.0.0/16", "10.0.0.1"}}}, nil},
		"by nobody":            {Config{TLS: TLSConfig{Certificates: ok.Certificates, ClientCA: "x"}, ClientCertFrom: ClientCertFrom{Header: "client-cert"}}, []string{"client_cert_from"}},
		"without an authority": {Config{TLS: ok, TrustedProxies: []string{"10.0.0.1"}, ClientCertFrom: ClientCertFrom{Header: "client-cert"}}, []string{"client_cert_from"}},
		"in another way":       {Config{TLS: TLSConfig{Certificates: ok.Certificates, ClientCA: "x"}, TrustedProxies: []string{"10.0.0.1"}, ClientCertFrom: ClientCertFrom{Header: "x-ssl-cert"}}, []string{"client_cert_from.header"}},
		"by whom nobody lists": {Config{TLS: TLSConfig{Certificates: ok.Certificates, ClientCA: "x"}, TrustedProxies: []string{"10.0.0.0/24"}, ClientCertFrom: ClientCertFrom{Header: "xfcc", Proxies: []string{"10.0.0.0/8", "x", "10.0.1.1", "::1"}}},
			[]string{"client_cert_from.proxies[0]", "client_cert_from.proxies[1]", "client_cert_from.proxies[2]", "client_cert_from.proxies[3]"}},
		"old TLS":              {Config{TLS: TLSConfig{Certificates: ok.Certificates, MinVersion: "1.0"}}, []string{"tls.min_version"}},
		"several at one time":  {Config{Listen: "x", AuthURL: "y", TrustedProxies: []string{"z"}}, []string{"auth_url", "listen", "trusted_proxies[0]"}},
		"IPv6 loopback listen": {Config{Listen: "[::1]:80"}, nil},
	} {
		faults := access.NewFaults("")
		c.config.Validate(faults)
		var at []string
		for _, f := range faults.List() {
			at = append(at, f.Path)
		}
		slices.Sort(at)
		if !slices.Equal(at, c.at) {
			t.Errorf("%s: %v, want %v", name, faults.List(), c.at)
		}
	}
}

func bigTable(b *testing.B) *Table {
	routes := make([]access.Route, 10_000)
	for i := range routes {
		routes[i] = from(fmt.Sprint(i), fmt.Sprintf("https://app-%d.corp.example/team/%d", i%5000, i))
	}
	return table(b, routes...)
}

func BenchmarkMatch(b *testing.B) {
	table := bigTable(b)
	long := "/team/4711/" + strings.Repeat("x/", 2000)
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if table.Match("https", "app-4711.corp.example", "/team/4711/reports/2026") == nil {
				b.Fatal("no route")
			}
		}
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			table.Match("https", "unknown.corp.example", "/")
		}
	})
	b.Run("thousands of segments", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			table.Match("https", "app-4711.corp.example", long)
		}
	})
}

func TestMatchAllocatesNothing(t *testing.T) {
	table := table(t, from("a", "https://app.example/a"), from("w", "https://*.example/a/b"))
	if n := testing.AllocsPerRun(100, func() {
		table.Match("https", "app.example", "/a/b/c")
		table.Match("https", "other.example", "/a/b/c")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
