package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// spoofs generates spellings of headers that applications believe: each base
// name in other cases and with other characters for the hyphen.
func spoofs() []string {
	bases := []string{
		"Doorward-Assertion", "X-Doorward-User",
		"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
		"X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-Forwarded-Port", "X-Forwarded-Prefix",
		"X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Server", "X-Forwarded-Scheme", "X-Forwarded", "Forwarded", "X-Real-IP",
		"X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Cluster-Client-IP",
		"X-Original-URL", "X-Original-URI", "X-Original-Method", "X-Original-Host", "X-Rewrite-URL", "X-Rewrite-Uri",
		"Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name", "X-Remote-User", "X-Remote-Group", "X-Remote-Extra-Scopes",
		"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Access-Token", "X-Auth-Request-Redirect",
		"X-Goog-Authenticated-User-Email", "X-Goog-Authenticated-User-Id", "x-goog-iap-jwt-assertion",
		"Cf-Access-Jwt-Assertion", "Cf-Access-Authenticated-User-Email", "X-Pomerium-Jwt-Assertion", "X-Pomerium-Claim-Email",
		"X-Amzn-Oidc-Data", "X-Amzn-Oidc-Identity", "X-Amzn-Oidc-Accesstoken", "x-amzn-ava-user-context", "X-Amzn-Mtls-Clientcert",
		"X-Authelia-URL", "X-Authentik-Username", "X-Webauth-User",
		"Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-SSL-Cert", "X-SSL-Client-Cert", "SSL-Client-Verify", "SSL-Client-S-DN", "X-ARR-ClientCert",
		"Proxy", "X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method",
		"X-App-Email", "X-App-Group", // named in the route's headers
	}
	var list []string
	for _, base := range bases {
		list = append(list, base, strings.ToLower(base), strings.ToUpper(base))
		for _, c := range "_.!~+|" {
			if other := strings.ReplaceAll(base, "-", string(c)); other != base {
				list = append(list, other)
			}
		}
		if i := strings.LastIndexByte(base, '-'); i > 0 { // mixed
			list = append(list, strings.ReplaceAll(base[:i], "-", "_")+base[i:], base[:i]+"_"+base[i+1:])
		}
	}
	list = append(list, "Content_Length", "Transfer_Encoding", "Content.Length", "Transfer!Encoding", "HTTP_PROXY", "X_Custom", "x.custom")
	slices.Sort(list)
	return slices.Compact(list)
}

// oauth2-proxy GHSA-vjrc and Caddy GHSA-7r4p: identity headers a visitor sets.
func TestNoSpoofedHeaderReachesAnUpstream(t *testing.T) {
	names := spoofs()
	if len(names) < 200 {
		t.Fatalf("only %d spellings", len(names))
	}
	for _, c := range []struct {
		name   string
		scheme string
		more   []change
	}{{"HTTP/1.1", "http", nil}, {"HTTP/2", "https", []change{overHTTP2}}} {
		t.Run(c.name, func(t *testing.T) {
			route := routeTo(c.scheme+"://app.example", newEcho(t))
			route.Headers = map[string]string{"X-App-Email": "email", "X-App_Group": "groups"}
			public := func(*access.Request) access.Decision {
				return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute}
			}
			w := newWorld(t, []access.Route{route}, append(c.more, withPolicy(public), withServer(func(c *Config) { c.MaxHeaderBytes = 256 << 10 }))...)
			for _, cookie := range []string{"", asAlice} {
				req, _ := http.NewRequest("GET", c.scheme+"://app.example/", nil)
				req.Header["Cookie"] = []string{cookie}
				for i, name := range names {
					key := http.CanonicalHeaderKey(name)
					if c.scheme == "https" {
						key = name // HTTP/2 sends every name in lower case
					}
					req.Header[key] = append(req.Header[key], fmt.Sprintf("spoof-%d", i), "spoof-again")
				}
				res, body := w.do(req)
				if res.StatusCode != 200 {
					t.Fatal(res.Status, body)
				}
				for name, values := range decode(t, body).Header {
					if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "spoof") }) {
						t.Errorf("%s: %s arrived", c.name, name)
					}
				}
			}
		})
	}
	t.Run("one by one, as the visitor spells it", func(t *testing.T) {
		route := routeTo("http://app.example", newEcho(t))
		route.Headers = map[string]string{"X-App-Email": "email", "X-App_Group": "groups"}
		w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
		for chunk := range slices.Chunk(names, 100) {
			var raw strings.Builder
			raw.WriteString("GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close, " + strings.Join(chunk, ", ") + "\r\n")
			for _, name := range chunk {
				fmt.Fprintf(&raw, "%s: spoof\r\n", name)
			}
			res, body := w.raw(raw.String() + "\r\n")
			if res.StatusCode != 200 || strings.Contains(body, "spoof") {
				t.Errorf("%s %s", res.Status, body)
			}
		}
	})
}

// What is set on the request to the upstream cannot be removed by naming it in
// Connection, which takes away headers set before the hop-by-hop removal.
func TestConnectionHeaderCannotRemoveTheAssertion(t *testing.T) {
	route := routeTo("http://app.example", newEcho(t))
	route.Headers = map[string]string{"X-Forwarded-User": "user", "X-Forwarded-Groups": "groups"}
	w := newWorld(t, []access.Route{route})
	_, body := w.raw("GET / HTTP/1.1\r\nHost: app.example\r\nCookie: doorward=alice\r\n" +
		"Connection: keep-alive, Doorward-Assertion, X-Forwarded-User, X-Forwarded-Groups, X-Forwarded-For, X-Request-Id\r\n\r\n")
	saw := decode(t, body).Header
	for _, name := range []string{"Doorward-Assertion", "X-Forwarded-User", "X-Forwarded-Groups", "X-Forwarded-For", "X-Request-Id"} {
		if saw.Get(name) == "" {
			t.Errorf("%s was removed", name)
		}
	}
}

func TestOtherHeadersPassUntouched(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withPolicy(allowAll))
	_, body := w.ask("GET", "http://app.example/", "Authorization", "Basic eDp5", "X-Custom-1", "a", "X-Custom-1", "b", "Accept-Language", "de", "Remoteness", "1")
	saw := decode(t, body).Header
	if saw.Get("Authorization") != "Basic eDp5" || !slices.Equal(saw["X-Custom-1"], []string{"a", "b"}) || saw.Get("Remoteness") != "1" || saw.Get("Accept-Language") != "de" {
		t.Errorf("%v", saw)
	}
}

func TestOurCookiesStayHere(t *testing.T) {
	for in, want := range map[string]string{
		"a=1; b=2":                                  "a=1; b=2",
		"doorward=x":                                "",
		"__Host-doorward=x; a=1":                    "a=1",
		"a=1; __Host-doorward=x":                    "a=1",
		"a=1; doorward-login=x; b=\"2 3\";c":        "a=1; b=\"2 3\";c",
		"a=1;__Host-doorward-login=x;b=2":           "a=1;b=2",
		"DOORWARD=x; __host-Doorward=y; a=1":        "a=1",
		"doorward =x; doorward\t=y":                 "",
		"mydoorward=1; doorward2=2; xdoorward":      "mydoorward=1; doorward2=2; xdoorward",
		"doorward":                                  "",
		"a=1;  b=2; doorward=x;   c=3":              "a=1;  b=2;   c=3",
		"a=doorward; b=__Host-doorward=x":           "a=doorward; b=__Host-doorward=x",
		"doorward=x; doorward=y; __Host-doorward=z": "",
	} {
		if got := strings.Join(stripCookies([]string{in}), "|"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := stripCookies([]string{"a=1", "doorward=x", "b=2"}); !slices.Equal(got, []string{"a=1", "b=2"}) {
		t.Error(got)
	}
}

func FuzzStripCookies(f *testing.F) {
	for _, seed := range []string{"a=1; doorward=x", "doorward", ";;", "a=\"doorward=1;\"", "__Host-doorward-login=1;a", " doorward = 1", "doorward\r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cookie string) {
		out := strings.Join(stripCookies([]string{cookie}), "; ")
		r := &http.Request{Header: http.Header{"Cookie": {out}}}
		for _, c := range r.Cookies() {
			if oursCookie(c.Name) {
				t.Fatalf("%q: %q still holds %s", cookie, out, c.Name)
			}
		}
		var want []string
		for _, c := range (&http.Request{Header: http.Header{"Cookie": {cookie}}}).Cookies() {
			if !oursCookie(c.Name) {
				want = append(want, c.Name+"="+c.Value)
			}
		}
		var got []string
		for _, c := range r.Cookies() {
			got = append(got, c.Name+"="+c.Value)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q: left %q, want %q", cookie, got, want)
		}
		if again := strings.Join(stripCookies([]string{out}), "; "); again != out {
			t.Fatalf("%q: %q is stripped to %q", cookie, out, again)
		}
	})
}

func TestCookieWithoutNameCannotBecomeOurs(t *testing.T) {
	h := http.Header{"Set-Cookie": {"=doorward=planted", " = __Host-doorward=planted; Path=/", "=theirs=1", "theirs=2"}}
	cleanResponse(h, false)
	if got := strings.Join(h["Set-Cookie"], " | "); got != "=theirs=1 | theirs=2" {
		t.Error(got)
	}
}

// believes does without the string that skeleton makes, and means the same.
func TestBelievesIsWhatTheSkeletonSays(t *testing.T) {
	long := strings.Repeat("X-", 40) + "User"
	e := &Entry{headerSet: headerSet{names: map[string]bool{skeleton("X-Forwarded-User"): true, skeleton(long): true, skeleton("Ünder"): true}}}
	for name, want := range map[string]bool{
		"X-Forwarded-User": true, "x_forwarded.user": true, "X-Forwarded-User2": false, "X-Forwarded-Use": false, "": false,
		long: true, strings.ToLower(long): true, "Ünder": true, "ünder": true, "Under": false,
	} {
		if e.believes(name) != want || e.names[skeleton(name)] != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}
