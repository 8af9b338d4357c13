package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var browser = []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Accept", "text/html,*/*;q=0.8"}

func loginWorld(t *testing.T, p policy, changes ...change) *world {
	t.Helper()
	return newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, append([]change{withPolicy(p)}, changes...)...)
}

// oauth2-proxy #1522, Pomerium #2176, Teleport #52665: only a navigation can
// follow a redirect to a login page.
func TestOnlyNavigationsAreRedirectedToTheLogin(t *testing.T) {
	w := loginWorld(t, loginFirst)
	for name, c := range map[string]struct {
		method  string
		headers []string
		want    string // redirect, page, problem
	}{
		"navigation":           {"GET", browser, "redirect"},
		"HEAD navigation":      {"HEAD", browser, "redirect"},
		"form":                 {"POST", browser, "page"},
		"frame":                {"GET", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "Accept", "text/html"}, "page"},
		"prefetch":             {"GET", append([]string{"Sec-Purpose", "prefetch;prerender"}, browser...), "problem"},
		"fetch":                {"GET", []string{"Sec-Fetch-Mode", "cors", "Accept", "text/html"}, "problem"},
		"same-origin fetch":    {"GET", []string{"Sec-Fetch-Mode", "same-origin", "Sec-Fetch-Dest", "empty"}, "problem"},
		"image":                {"GET", []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image", "Accept", "image/*"}, "problem"},
		"curl":                 {"GET", []string{"Accept", "*/*"}, "redirect"},
		"curl with a token":    {"GET", []string{"Accept", "*/*", "Authorization", "Bearer x"}, "problem"},
		"curl that posts":      {"POST", []string{"Accept", "*/*"}, "problem"},
		"axios":                {"GET", []string{"Accept", "application/json, text/plain, */*"}, "problem"},
		"nothing said":         {"GET", nil, "problem"},
		"old browser":          {"GET", []string{"Accept", "application/xml, Text/HTML;level=1"}, "redirect"},
		"old form":             {"POST", []string{"Accept", "text/html"}, "page"},
		"XHR with html":        {"GET", []string{"Accept", "text/html", "X-Requested-With", "XMLHttpRequest"}, "problem"},
		"html refused":         {"GET", []string{"Accept", "text/html;q=0, application/json"}, "problem"},
		"preflight":            {"OPTIONS", []string{"Origin", "https://spa.example", "Access-Control-Request-Method", "GET", "Accept", "text/html"}, "problem"},
		"WebSocket handshake":  {"GET", []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Fetch-Mode", "websocket"}, "problem"},
		"WebSocket old client": {"GET", []string{"Connection", "keep-alive, Upgrade", "Upgrade", "websocket", "Accept", "text/html"}, "problem"},
	} {
		res, body := w.ask(c.method, "http://app.example/x?y=1", c.headers...)
		e := w.rec.event(t)
		if e.Decision.Outcome != access.Challenge || e.Response.Status != res.StatusCode || e.Response.Upstream != "" {
			t.Errorf("%s: recorded %+v", name, e)
		}
		if res.Header.Get("Cache-Control") != "no-store" || !strings.Contains(res.Header.Get("Vary"), "Sec-Fetch-Mode") || !strings.Contains(res.Header.Get("Vary"), "Cookie") {
			t.Errorf("%s: caches would keep it: %v", name, res.Header)
		}
		if res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: readable by other origins", name)
		}
		switch c.want {
		case "redirect":
			if res.StatusCode != 302 || !strings.HasPrefix(res.Header.Get("Location"), "https://idp.example/") {
				t.Errorf("%s: %s %v", name, res.Status, res.Header)
			}
		case "page":
			if res.StatusCode != 401 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") ||
				!strings.Contains(body, "/.doorward/login?return=%2Fx%3Fy%3D1") {
				t.Errorf("%s: %s %v %s", name, res.Status, res.Header, body)
			}
		case "problem":
			var problem struct{ Reason string }
			json.Unmarshal([]byte(body), &problem)
			if res.StatusCode != 401 || res.Header.Get("Content-Type") != "application/problem+json" ||
				res.Header.Get("WWW-Authenticate") != `Bearer realm="doorward"` || problem.Reason != "login_required" {
				t.Errorf("%s: %s %v %s", name, res.Status, res.Header, body)
			}
		}
	}
}

func TestFormLosesNothingSilently(t *testing.T) {
	w := loginWorld(t, loginFirst)
	_, body := w.ask("POST", "http://app.example/x", browser...)
	if !strings.Contains(body, "what you sent was not kept") {
		t.Error(body)
	}
}

// failingLogin ends every login, as authn does: the cookie says that it is over.
type failingLogin struct {
	login
	reason access.Reason
}

func (l failingLogin) Serve(w http.ResponseWriter, _ *http.Request, _ *access.Request) error {
	http.SetCookie(w, &http.Cookie{Name: "doorward-login", MaxAge: -1})
	w.Header().Set("X-Begun", "an answer that was given up")
	return access.Because(l.reason, http.ErrAbortHandler)
}

// Who could not log in finds the way to another account, and the browser learns
// that the attempt is over.
func TestFailedLoginHasAWayOut(t *testing.T) {
	for reason, way := range map[access.Reason]bool{access.LoginRefused: true, access.StepUpFailed: true, access.LoginFailed: true, access.LoginMixUp: false} {
		w := loginWorld(t, loginFirst, func(w *world) { w.snapshot.Login = failingLogin{reason: reason} })
		res, body := w.ask("GET", "http://app.example/.doorward/callback?code=x", browser...)
		if strings.Contains(body, "login?switch=1") != way {
			t.Errorf("%s: a link to another account: %v, want %v", reason, !way, way)
		}
		if len(res.Header["Set-Cookie"]) != 1 || res.Header.Get("X-Begun") != "" {
			t.Errorf("%s: %v", reason, res.Header)
		}
	}
}

func TestStepUpTellsProgramsWhatIsNeeded(t *testing.T) {
	stepUp := func(*access.Request) access.Decision {
		return access.Decision{Outcome: access.Challenge, Reason: access.LoginTooOld, Needs: []access.Need{
			{Reason: access.LoginTooOld, Login: access.LoginRequire{MaxAge: access.Duration(5 * time.Minute)}},
			{Reason: access.ACRInsufficient, Login: access.LoginRequire{ACR: []string{"phr", "ph\"rh"}}},
		}}
	}
	w := loginWorld(t, stepUp)
	res, _ := w.ask("GET", "http://app.example/", "Cookie", asAlice)
	want := `Bearer realm="doorward", error="insufficient_user_authentication", error_description="A different authentication level is required", acr_values="phr ph\"rh", max_age="300"`
	if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") != want { // RFC 9470 §3
		t.Errorf("%s %s", res.Status, res.Header.Get("WWW-Authenticate"))
	}
	res, _ = w.ask("GET", "http://app.example/", append(browser, "Cookie", asAlice)...)
	if res.StatusCode != 302 || !strings.Contains(res.Header.Get("Location"), "acr=phr") {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

func TestRefusalPagesOfferAWayOut(t *testing.T) {
	w := loginWorld(t, deny(access.NotAllowed))
	res, body := w.ask("GET", "http://app.example/x?y=1", append(browser, "Cookie", asAlice)...)
	if res.StatusCode != 403 || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	for _, want := range []string{"http://app.example/x?y=1", "/.doorward/login?switch=1&amp;return=%2Fx%3Fy%3D1", "/.doorward/logout",
		"alice@corp.example", w.rec.event(t).Request.ID} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is missing in %s", want, body)
		}
	}
	long := "http://app.example/" + strings.Repeat("x", 3000)
	if _, body := w.ask("GET", long, append(browser, "Cookie", asAlice)...); !strings.Contains(body, "login?switch=1&amp;return=/\"") {
		t.Errorf("no way back from a long address: %s", body)
	}
	if res, body := w.ask("HEAD", "http://app.example/", browser...); res.StatusCode != 403 || body != "" {
		t.Errorf("HEAD: %s %q", res.Status, body)
	}
}

func TestDeviceChallengesAreNotSentToTheLogin(t *testing.T) {
	w := loginWorld(t, func(req *access.Request) access.Decision {
		return access.Decision{Outcome: access.Challenge, Reason: access.DeviceNotCompliant, Needs: []access.Need{
			{Reason: access.DeviceNotCompliant, Fix: "https://it.example/fix"}, {Reason: access.LoginTooOld}}}
	})
	res, body := w.ask("GET", "http://app.example/", append(browser, "Cookie", asAlice)...)
	if res.StatusCode != 403 || !strings.Contains(body, "https://it.example/fix") {
		t.Errorf("%s %s", res.Status, body)
	}
}

// A device is often known only by who uses it, so that for somebody who is not
// logged in the login comes first.
func TestLoginComesBeforeTheDevice(t *testing.T) {
	w := loginWorld(t, func(*access.Request) access.Decision {
		return access.Decision{Outcome: access.Challenge, Reason: access.LoginRequired, Needs: []access.Need{
			{Reason: access.LoginRequired}, {Reason: access.DeviceMissing},
			{Reason: access.ACRInsufficient, Login: access.LoginRequire{ACR: []string{"phr"}}}}}
	})
	res, _ := w.ask("GET", "http://app.example/", browser...)
	if res.StatusCode != 302 || !strings.Contains(res.Header.Get("Location"), "acr=phr") {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

func TestLoginThatCannotBeginSaysWhy(t *testing.T) {
	w := loginWorld(t, loginFirst, func(w *world) {
		w.snapshot.Login = login{err: access.Becausef(access.ProviderUnavailable, "dial tcp: secret detail")}
	})
	res, body := w.ask("GET", "http://app.example/", browser...)
	e := w.rec.event(t)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || strings.Contains(body, "secret detail") ||
		e.Decision.Outcome != access.Challenge || e.Response.Reason != access.ProviderUnavailable {
		t.Errorf("%s %v %+v", res.Status, res.Header, e)
	}
	if res, _ := w.ask("GET", "http://app.example/"); res.StatusCode != 401 {
		t.Error(res.Status)
	}
}

func TestPreflightIsAFactOfTheRequest(t *testing.T) {
	preflight := []string{"Origin", "https://spa.example", "Access-Control-Request-Method", "PUT", "Cookie", "a=1; doorward=x", "Authorization", "Basic eDp5"} // no browser sends the last two
	open := routeTo("http://open.example", newEcho(t))
	open.ID = "open"
	closed := routeTo("http://closed.example", newEcho(t))
	asPolicyDoes := func(req *access.Request) access.Decision {
		req.Identity = access.Identity{}
		if req.Preflight && req.Route == "open" {
			return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute, Rule: access.PreflightRule}
		}
		return loginFirst(req)
	}
	w := newWorld(t, []access.Route{open, closed}, withPolicy(asPolicyDoes))
	res, body := w.ask("OPTIONS", "http://open.example/x", preflight...)
	e := w.rec.event(t)
	if res.StatusCode != 200 || e.Decision.Rule != "preflight" || e.Decision.Reason != access.PublicRoute {
		t.Errorf("%s %+v", res.Status, e.Decision)
	}
	if saw := decode(t, body).Header; saw.Get("Cookie") != "" || saw.Get("Authorization") != "" || saw.Get("Doorward-Assertion") != "" {
		t.Errorf("a preflight brings credentials along: %v", saw)
	}
	for name, refused := range map[string]func() (*http.Response, string){
		"closed route":   func() (*http.Response, string) { return w.ask("OPTIONS", "http://closed.example/x", preflight...) },
		"no origin":      func() (*http.Response, string) { return w.ask("OPTIONS", "http://open.example/x", preflight[2:]...) },
		"not OPTIONS":    func() (*http.Response, string) { return w.ask("GET", "http://open.example/x", preflight...) },
		"plain OPTIONS":  func() (*http.Response, string) { return w.ask("OPTIONS", "http://open.example/x", preflight[:2]...) },
		"OPTIONS + body": func() (*http.Response, string) { return w.withBody("OPTIONS", "http://open.example/x", preflight...) },
	} {
		if res, _ := refused(); res.StatusCode != 401 {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

func (w *world) withBody(method, target string, headers ...string) (*http.Response, string) {
	req, _ := http.NewRequest(method, target, strings.NewReader("body"))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return w.do(req)
}

// An error while gathering facts refuses, whatever the policy would say.
func TestFaultsRefuse(t *testing.T) {
	w := loginWorld(t, allowAll)
	res, _ := w.ask("GET", "http://app.example/", "Cookie", "doorward=broken")
	e := w.rec.event(t)
	if res.StatusCode != 503 || e.Decision.Outcome != access.Deny || e.Decision.Reason != access.StoreUnavailable ||
		e.Request.Fault != access.StoreUnavailable || !e.Request.Identity.Nobody() || e.Request.Identity.Subject != "" {
		t.Errorf("%s %+v %+v", res.Status, e.Decision, e.Request)
	}
}

func TestUnknownHostsLearnNothing(t *testing.T) {
	w := loginWorld(t, loginFirst)
	for _, path := range []string{"/", "/.doorward/login", "/.doorward/me", "/.doorward/jwks.json"} {
		res, body := w.ask("GET", "http://other.example"+path, append(browser, "Cookie", asAlice)...)
		e := w.rec.event(t)
		if res.StatusCode != 404 || strings.Contains(body, "alice") || strings.Contains(body, "app.example") || !e.Request.Identity.Nobody() || e.Decision.Reason != access.NoRoute {
			t.Errorf("%s: %s %s", path, res.Status, body)
		}
	}
}
