package proxy

import (
	"context"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/doorward/doorward/internal/access"
)

// asPolicyDoesWithCORS lets preflights pass without login, as package authz does
// on routes with cors.
func asPolicyDoesWithCORS(req *access.Request) access.Decision {
	if req.Preflight && req.Identity.Nobody() && req.Route != "silent" {
		return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute, Rule: access.PreflightRule}
	}
	return loginFirst(req)
}

// shared are the headers by which browsers know what a page may.
func shared(h http.Header) (list []string) {
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			list = append(list, strings.TrimPrefix(name, "Access-Control-")+": "+strings.Join(values, " + "))
		}
	}
	slices.Sort(list)
	return list
}

func TestCORS(t *testing.T) {
	asked := make(chan string, 100)
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*") // contradicts whatever we say
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "*")
		h.Set("Vary", "Accept-Encoding")
	})
	app, open, silent := routeTo("http://app.example", up), routeTo("http://open.example", up), routeTo("http://silent.example", up)
	open.ID, silent.ID = "open", "silent"
	app.CORS = access.CORS{Origins: []string{"https://Spa.example:443", "https://*.apps.example", "http://dev.example:3000"}, Methods: []string{"GET", "PUT"},
		Headers: []string{"Content-Type", "X-Csrf"}, Expose: []string{"ETag"}, Credentials: true, MaxAge: access.Duration(3600e9)}
	open.CORS = access.CORS{Origins: []string{"*"}}
	w := newWorld(t, []access.Route{app, open, silent}, withPolicy(asPolicyDoesWithCORS))
	preflight := func(host, origin string) (*http.Response, *access.Event) {
		res, _ := w.ask("OPTIONS", "http://"+host+"/x", "Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-csrf")
		return res, w.rec.event(t)
	}
	for _, origin := range []string{"https://spa.example", "https://one.apps.example", "http://dev.example:3000"} {
		res, e := preflight("app.example", origin)
		want := []string{"Allow-Credentials: true", "Allow-Headers: Content-Type, X-Csrf", "Allow-Methods: GET, PUT", "Allow-Origin: " + origin, "Expose-Headers: ETag", "Max-Age: 3600"}
		if res.StatusCode != 204 || !slices.Equal(shared(res.Header), want) || !hasToken(res.Header["Vary"], "Origin") || e.Decision.Rule != access.PreflightRule || e.Response.Status != 204 {
			t.Errorf("preflight of %s: %s %q %q", origin, res.Status, shared(res.Header), res.Header["Vary"])
		}
		res, _ = w.ask("GET", "http://app.example/x", "Origin", origin, "Cookie", asAlice)
		w.rec.event(t)
		if res.StatusCode != 200 || !slices.Equal(shared(res.Header), []string{"Allow-Credentials: true", "Allow-Origin: " + origin, "Expose-Headers: ETag"}) ||
			!hasToken(res.Header["Vary"], "Origin") || !hasToken(res.Header["Vary"], "Accept-Encoding") {
			t.Errorf("GET of %s: %s %q %q", origin, res.Status, shared(res.Header), res.Header["Vary"])
		}
		// A page learns that its visitor has to log in.
		res, body := w.ask("GET", "http://app.example/x", "Origin", origin)
		w.rec.event(t)
		if res.StatusCode != 401 || res.Header.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(body, "login_required") || !hasToken(res.Header["Vary"], "Origin") || !hasToken(res.Header["Vary"], "Cookie") {
			t.Errorf("refusal of %s: %s %q", origin, res.Status, shared(res.Header))
		}
	}
	for _, origin := range []string{"https://evil.example", "null", "https://spa.example.evil.example", "https://xspa.example", "https://spa.example:8443", "http://spa.example", "https://apps.example",
		"https://two.one.apps.example", "https://apps.example.", "https://spa.example/", "https://spa.example@evil.example", "https://.apps.example", "HTTPS", "https://"} {
		res, e := preflight("app.example", origin)
		if res.StatusCode != 403 || len(shared(res.Header)) > 0 || e.Response.Reason != access.OriginRefused || e.Decision.Outcome != access.Allow || !hasToken(res.Header["Vary"], "Origin") {
			t.Errorf("preflight of %s: %s %q %+v", origin, res.Status, shared(res.Header), e.Response)
		}
		res, _ = w.ask("GET", "http://app.example/x", "Origin", origin, "Cookie", asAlice)
		w.rec.event(t)
		if res.StatusCode != 200 || len(shared(res.Header)) > 0 || !hasToken(res.Header["Vary"], "Origin") {
			t.Errorf("GET of %s: %s %q", origin, res.Status, shared(res.Header))
		}
	}
	// A page of the application itself, which needs nothing.
	if res, _ := w.ask("GET", "http://app.example/x", "Cookie", asAlice); len(shared(res.Header)) > 0 || !hasToken(res.Header["Vary"], "Origin") {
		t.Errorf("without an origin: %q %q", shared(res.Header), res.Header["Vary"])
	}
	w.rec.event(t)
	for _, origin := range []string{"https://evil.example", "null"} {
		res, _ := preflight("open.example", origin)
		if res.StatusCode != 204 || !slices.Equal(shared(res.Header), []string{"Allow-Methods: GET, HEAD, POST", "Allow-Origin: *", "Max-Age: 600"}) || hasToken(res.Header["Vary"], "Origin") {
			t.Errorf("open to %s: %s %q %q", origin, res.Status, shared(res.Header), res.Header["Vary"])
		}
	}
	// Where a route says nothing, the upstream does.
	if res, _ := w.ask("GET", "http://silent.example/x", "Cookie", asAlice); len(shared(res.Header)) != 3 {
		t.Errorf("silent: %q", shared(res.Header))
	}
	close(asked)
	for method := range asked {
		if method == "OPTIONS" {
			t.Error("a preflight reached the upstream")
		}
	}
}

// Browsers send cookies with a WebSocket handshake whichever page opens it, and
// ask nobody before: any site could speak in a visitor's name.
func TestForeignPagesOpenNoWebSockets(t *testing.T) {
	for scheme, change := range map[string]change{"http": func(*world) {}, "https": overTLS} {
		route := access.Route{ID: "ws", From: scheme + "://app.example", To: []string{wsEcho(t).URL}, WebSocket: true, WebSocketOrigins: []string{"https://spa.example", "https://*.apps.example:8443"},
			CORS: access.CORS{Origins: []string{"https://cors.example"}, Credentials: true}} // which is about other things
		w := newWorld(t, []access.Route{route}, change)
		dial := func(header http.Header) (status int, e *access.Event) {
			header["Cookie"] = []string{asAlice, "__Host-doorward=alice"}
			conn, res, err := websocket.Dial(t.Context(), strings.Replace(scheme, "http", "ws", 1)+"://app.example/chat", &websocket.DialOptions{HTTPClient: &http.Client{Transport: w.transport()}, HTTPHeader: header})
			if err == nil {
				conn.CloseNow()
			} else if res == nil {
				t.Fatal(err)
			}
			return res.StatusCode, w.rec.event(t)
		}
		for _, origin := range []string{scheme + "://app.example", "https://spa.example", "https://one.apps.example:8443"} {
			if status, e := dial(http.Header{"Origin": {origin}}); status != 101 || e.Response.Status != 101 {
				t.Errorf("%s: %d", origin, status)
			}
		}
		if status, _ := dial(http.Header{}); status != 101 {
			t.Errorf("a program: %d", status)
		}
		foreign := []http.Header{{"Origin": {"https://evil.example"}}, {"Origin": {"null"}}, {"Origin": {""}}, {"Origin": {"https://cors.example"}}, {"Origin": {scheme + "://app.example", scheme + "://app.example"}},
			{"Origin": {scheme + "://app.example.evil.example"}}, {"Origin": {scheme + "://app.example:8443"}}, {"Origin": {"https://two.one.apps.example:8443"}}, {"Origin": {"https://one.apps.example"}},
			{"Origin": {map[string]string{"http": "https", "https": "http"}[scheme] + "://app.example"}}, {"Origin": {"app.example"}}}
		for _, header := range foreign {
			status, e := dial(header)
			if status != 403 || e.Response.Reason != access.OriginRefused || e.Response.Upstream != "" || e.Decision.Outcome != access.Allow {
				t.Errorf("%s %q: %d %+v", scheme, header["Origin"], status, e.Response)
			}
		}
	}
}

// A front end that asks forwards the handshake itself, and is told the same. What
// Doorward answers itself it cannot forward.
func TestForeignPagesBehindAFrontEnd(t *testing.T) {
	w, ask := askingWorld(t)
	handshake := []string{"Cookie", "__Host-doorward=alice", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version", "13", "Origin"}
	for origin, want := range map[string]int{shop: 200, "https://evil.example": 403, "null": 403} {
		for as, refused := range map[string]int{"": 403, "?as=status": 403} {
			res, e := ask(as, about("GET", "/ws", append(handshake, origin)...)...), w.rec.event(t)
			if want == 403 && (res.StatusCode != refused || e.Response.Reason != access.OriginRefused) || want == 200 && res.StatusCode != 200 {
				t.Errorf("%s%s: %d %+v", origin, as, res.StatusCode, e.Response)
			}
		}
	}
	next := *w.snapshot
	next.Policy = policy(asPolicyDoesWithCORS)
	next.Routes = table(t, access.Route{ID: "shop", From: shop, To: []string{"http://127.0.0.1:1"}, CORS: access.CORS{Origins: []string{"https://spa.example"}}},
		access.Route{ID: "moved", From: shop + "/moved", Redirect: access.Redirect{To: "https://new.example"}})
	if err := w.door.Swap(&next); err != nil {
		t.Fatal(err)
	}
	for name, question := range map[string][]string{
		"a preflight": about("OPTIONS", "/a", "Origin", "https://spa.example", "Access-Control-Request-Method", "GET"),
		"a redirect":  about("GET", "/moved", "Cookie", "__Host-doorward=alice"),
	} {
		if res, e := ask("", question...), w.rec.event(t); res.StatusCode != 400 || e.Decision.Outcome != access.Allow || e.Response.Reason != access.BadRequest {
			t.Errorf("%s: %d %+v", name, res.StatusCode, e)
		}
	}
}

// What is open already ends when the page it belongs to may not any more.
func TestWebSocketOfAPageThatMayNotAnyMore(t *testing.T) {
	route := access.Route{ID: "ws", From: "http://app.example", To: []string{wsEcho(t).URL}, WebSocket: true, WebSocketOrigins: []string{"https://spa.example"}}
	w := newWorld(t, []access.Route{route})
	conn, _, err := websocket.Dial(t.Context(), "ws://app.example/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: w.transport()},
		HTTPHeader: http.Header{"Cookie": {asAlice}, "Origin": {"https://spa.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	next := *w.snapshot
	route.WebSocketOrigins = nil
	next.Routes = table(t, route)
	if err := w.door.Swap(&next); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusPolicyViolation || !strings.Contains(err.Error(), string(access.OriginRefused)) {
		t.Errorf("%v", err)
	}
}

func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{"https://app.example", "null", "https://one.apps.example:443", "https://evil.example/.apps.example", "https://.apps.example"} {
		f.Add(seed)
	}
	o := compileOrigins([]string{"https://app.example", "https://*.apps.example"}, access.NewFaults(""))
	f.Fuzz(func(t *testing.T, text string) {
		origin, there := originOf(http.Header{"Origin": {text}})
		if !there {
			t.Fatal("not there")
		}
		if origin == "" || !o.has(origin) {
			return
		}
		label, below := strings.CutSuffix(strings.TrimPrefix(origin, "https://"), ".apps.example")
		if origin != "https://app.example" && (!below || label == "" || strings.ContainsAny(label, "./:@") || textproto.TrimString(label) != label) {
			t.Fatalf("%q is let in as %q", text, origin)
		}
	})
}
