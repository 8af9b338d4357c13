package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/doorward/doorward/internal/testidp"
)

// startProvider runs the sample provider in the test, where it can be made to
// misbehave. Its client is "doorward" with the secret "s3cret".
func startProvider(t testing.TB, callback string, change func(*testidp.Options)) *testidp.Provider {
	t.Helper()
	addr := freeAddress(t)
	options := testidp.Options{
		Issuer: "http://" + addr, Users: testidp.DemoUsers(), Algorithms: []string{"ES256"},
		Clients: []testidp.Client{{ID: "doorward", Secret: "s3cret", RedirectURI: testidp.Exactly(callback)}},
	}
	if change != nil {
		change(&options)
	}
	provider, err := testidp.New(options)
	if err != nil {
		t.Fatal(err)
	}
	_, stop, err := provider.Start(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return provider
}

// startHosts runs doorward with a login host and n applications, app1 to appN,
// that say which host and path was asked for. It returns the address of a host.
func startHosts(t *testing.T, n int, change func(*testidp.Options)) (provider *testidp.Provider, at func(host, path string) string) {
	t.Helper()
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<p>this is %s%s</p>", strings.Split(r.Header.Get("X-Forwarded-Host"), ":")[0], r.URL)
	})
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	at = func(host, path string) string { return "http://" + host + ".localhost:" + port + path }
	provider = startProvider(t, at("auth", "/.doorward/callback"), change)
	var routes strings.Builder
	for i := range n {
		fmt.Fprintf(&routes, "  - {id: app%d, from: %q, to: [%q], allow: [{name: all, any_user: true}]}\n", i+1, at(fmt.Sprint("app", i+1), ""), app)
	}
	dir := t.TempDir()
	writeFile(t, dir, "secret", "s3cret")
	d := start(t, "doorward", "serve", "--config", writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, auth_url: %q, admin: {listen: %q}}
sessions: {store: {memory: true}}
audit: {to: [{file: {path: audit.jsonl}}]}
log: {format: text}
providers: [{id: demo, issuer: %q, client_id: doorward, client_secret: {file: secret}}]
routes:
%s`, addr, at("auth", ""), freeAddress(t), provider.Issuer(), routes.String())))
	d.waitFor("serving", 1)
	return provider, at
}

// Someone opens twenty bookmarks at once, on five hosts, and logs in once, in
// one of the tabs (oauth2-proxy #817, mod_auth_openidc #226).
func TestTwentyTabsOneLogin(t *testing.T) {
	first := startBrowser(t)
	provider, at := startHosts(t, 5, nil)
	tabs, addresses, words := []context.Context{first}, []string{}, []string{}
	for i := range 20 {
		host, path := fmt.Sprint("app", i%5+1), fmt.Sprintf("/page/%d?tab=%d", i, i)
		addresses, words = append(addresses, at(host, path)), append(words, "this is "+host+".localhost"+path)
		if i == 0 {
			continue
		}
		tab, cancel := chromedp.NewContext(first)
		t.Cleanup(cancel)
		if err := chromedp.Do(tab); err != nil {
			t.Fatal(err)
		}
		tabs = append(tabs, tab)
	}
	for i, tab := range tabs {
		do(t, tab, chromedp.Navigate(addresses[i]), waitField("username"))
	}
	do(t, tabs[7], loginForm("alice"), waitText(words[7]))
	for i, tab := range tabs {
		if i != 7 {
			// The provider remembers her now: nothing is asked, whichever tab it is.
			do(t, tab, chromedp.Reload(), waitText(words[i]))
		}
	}
	if n := provider.Requests(testidp.Login); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// A session ends while a page is open that fetches a lot. Each fetch learns so
// for itself, none is redirected to another origin, and the person logs in once.
func TestExpiredSessionUnderAPageThatFetches(t *testing.T) {
	tab := startBrowser(t)
	provider, at := startHosts(t, 1, nil)
	do(t, tab, chromedp.Navigate(at("app1", "/spa")), loginForm("alice"), waitText("this is app1.localhost/spa"))
	get(t, tab, chromedp.Evaluate[bool](`fetch("/.doorward/logout", {method: "POST", redirect: "manual"}).then(() => true)`, chromedp.EvalAwaitPromise))
	before := provider.Requests(testidp.Authorize)
	answers := get(t, tab, chromedp.Evaluate[[]string](`Promise.all([...Array(10).keys()].map(i => fetch("/api/" + i)
		.then(async r => r.status + " " + r.redirected + " " + (await r.json()).reason, e => "failed: " + e)))`, chromedp.EvalAwaitPromise))
	if len(answers) != 10 {
		t.Fatalf("%q", answers)
	}
	for _, answer := range answers {
		if answer != "401 false login_required" {
			t.Errorf("a fetch got %q", answer)
		}
	}
	if n := provider.Requests(testidp.Authorize); n != before {
		t.Errorf("the fetches caused %d logins", n-before)
	}
	do(t, tab, chromedp.Reload())
	// The provider still knows her, or asks once; either way she is back.
	if get(t, tab, chromedp.Evaluate[bool](`document.querySelector("input[name=username]") != null`)) {
		do(t, tab, loginForm("alice"))
	}
	do(t, tab, waitText("this is app1.localhost/spa"))
	if n := provider.Requests(testidp.Authorize) - before; n != 1 {
		t.Errorf("%d logins were begun", n)
	}
}

// A hundred requests at the moment a token runs out, and a provider that takes
// its time: one refresh token is spent (oauth2-proxy #1992). Only the provider's
// word that the grant is over ends the session.
func TestOneRefreshForManyRequests(t *testing.T) {
	provider, at := startHosts(t, 1, func(o *testidp.Options) { o.AccessTokenLifetime = 4 * time.Second })
	v := newVisitor(t)
	v.login(at("app1", "/"), "alice").says(t, 200, "this is app1")
	status := func() int { return v.once("GET", at("app1", "/x"), v.header, nil).status }

	hold := provider.Hold(testidp.Refresh)
	eventually(t, "the refresh", func() bool {
		if got := status(); got != 200 {
			t.Fatalf("answered %d", got)
		}
		return provider.Requests(testidp.Refresh) > 0
	})
	answers := make(chan int)
	for range 100 {
		go func() {
			resp, err := v.client.Get(at("app1", "/x"))
			if err != nil {
				answers <- 0
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			answers <- resp.StatusCode
		}()
	}
	var got []int
	for range 50 {
		got = append(got, <-answers)
	}
	if n := provider.Requests(testidp.Refresh); n != 1 {
		t.Errorf("%d refreshes while one was under way", n)
	}
	hold.Release()
	for range 50 {
		got = append(got, <-answers)
	}
	for _, code := range got {
		if code != 200 {
			t.Fatalf("answered %v", got)
		}
	}

	provider.Fault(func(f *testidp.Faults) {
		f.Answers = map[testidp.Endpoint]testidp.Answer{testidp.Refresh: testidp.Fails(500, "server_error")}
	})
	seen := provider.Requests(testidp.Refresh)
	eventually(t, "a refresh that fails", func() bool {
		if got := status(); got != 200 {
			t.Fatalf("a provider in trouble ended the session: %d", got)
		}
		return provider.Requests(testidp.Refresh) > seen
	})
	provider.Fault(func(f *testidp.Faults) {
		f.Answers = map[testidp.Endpoint]testidp.Answer{testidp.Refresh: testidp.Fails(400, "invalid_grant")}
	})
	eventually(t, "the end of the session", func() bool { return status() == 302 })
}
