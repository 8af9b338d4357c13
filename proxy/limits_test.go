package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/doorward/doorward/internal/access"
)

// perHour is a rate at which nothing comes back while a test runs.
func perHour(t *testing.T, text string) access.Rate {
	t.Helper()
	var r access.Rate
	if err := r.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

func withLimits(l Limits) change { return withServer(func(c *Config) { c.Limits = l }) }

// fromAnywhere lets tests say which address they come from.
func fromAnywhere(w *world) { w.snapshot.Server.TrustedProxies = []string{"127.0.0.1"} }

// counting counts how often it is asked who somebody is: what a limit is to save.
type counting struct {
	identify
	asked atomic.Int32
}

func (c *counting) Identify(r *http.Request, req *access.Request) error {
	c.asked.Add(1)
	if name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		req.Credential.Scheme = "Bearer"
		if name == "bad" {
			req.Credential.Problem = access.TokenInvalid
			return nil
		}
		req.Identity = access.Identity{Kind: access.Service, Provider: "ci", Issuer: "https://ci", Subject: name}
		return nil
	}
	return c.identify.Identify(r, req)
}

// byProgram makes a request that of a program, which is refused with a problem
// document.
var byProgram = []string{"Accept", "application/json"}

func as(name string, more ...string) []string {
	return slices.Concat(byProgram, []string{"Cookie", "doorward=" + name}, more)
}

// refusedBy checks that an answer is the refusal of a limit, in every place that
// tells of it. verdict is the outcome that stands in the record.
func (w *world) refusedBy(reason access.Reason, verdict access.Outcome, res *http.Response, body string) {
	w.t.Helper()
	e := w.rec.event(w.t)
	if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" || !strings.Contains(body, string(reason)) && !strings.Contains(body, reason.Info().Title) {
		w.t.Errorf("%s: %d %v\n%s", reason, res.StatusCode, res.Header, body)
	}
	if e.Response.Status != 429 || e.Response.Reason != reason && (e.Decision == nil || e.Decision.Reason != reason) {
		w.t.Errorf("%s: recorded %+v, %+v", reason, e.Response, e.Decision)
	}
	if e.Decision == nil || e.Decision.Outcome != verdict {
		w.t.Errorf("%s: the verdict is %+v, want %s", reason, e.Decision, verdict)
	}
}

func (w *world) passes(res *http.Response, body string) {
	w.t.Helper()
	if e := w.rec.event(w.t); res.StatusCode != 200 {
		w.t.Fatalf("%d %+v %+v\n%s", res.StatusCode, e.Decision, e.Response, body)
	}
}

// One identity that sends too much is told to wait; nobody else is, and what the
// policy thinks of the requests stays on the record.
func TestOneIdentityIsLimitedAndOthersAreNot(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))},
		withLimits(Limits{Identity: access.Limit{Rate: perHour(t, "3/h")}}))
	ask := func(name string) (*http.Response, string) { return w.ask("GET", "http://app.example/", as(name)...) }
	for range 3 {
		w.passes(ask("alice"))
	}
	res, body := ask("alice")
	w.refusedBy(access.IdentityTooFast, access.Allow, res, body)
	if policy, left := res.Header.Get("RateLimit-Policy"), res.Header.Get("RateLimit"); policy != `"identity";q=3;w=3600` || !strings.HasPrefix(left, `"identity";r=0;t=1`) {
		t.Errorf("RateLimit-Policy: %s, RateLimit: %s", policy, left)
	}
	if res.Header.Get("Content-Type") != "application/problem+json" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", res.Header)
	}
	w.passes(ask("bob"))

	page, text := w.ask("GET", "http://app.example/", "Accept", "text/html", "Cookie", "doorward=alice")
	w.refusedBy(access.IdentityTooFast, access.Allow, page, text)
	if !strings.Contains(text, "Try again") {
		t.Errorf("the page:\n%s", text)
	}

	// A new configuration does not make anybody new.
	if err := w.door.Swap(w.snapshot); err != nil {
		t.Fatal(err)
	}
	res, body = ask("alice")
	w.refusedBy(access.IdentityTooFast, access.Allow, res, body)
}

// Requests that the policy refuses count as well: they cost, too.
func TestRefusedRequestsCount(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withPolicy(deny(access.NotAllowed)),
		withLimits(Limits{Identity: access.Limit{Rate: perHour(t, "1/h")}}))
	if res, _ := w.ask("GET", "http://app.example/", as("alice")...); res.StatusCode != 403 {
		t.Fatal(res.Status)
	}
	w.rec.event(t)
	res, body := w.ask("GET", "http://app.example/", as("alice")...)
	w.refusedBy(access.IdentityTooFast, access.Deny, res, body)
}

// A route has limits of its own: for an identity in place of the server's and
// counted apart, for a network and for all together beside them.
func TestLimitsOfARoute(t *testing.T) {
	up := newEcho(t)
	own, wide := routeTo("http://own.example", up), routeTo("http://wide.example", up)
	own.ID, wide.ID = "own", "wide"
	own.Limits = access.RouteLimits{Identity: access.Limit{Rate: perHour(t, "1/h")}, Everybody: access.Limit{Rate: perHour(t, "3/h")}}
	wide.Limits = access.RouteLimits{Identity: access.Limit{Rate: perHour(t, "none")}, Network: access.Limit{Rate: perHour(t, "6/h")}}
	w := newWorld(t, []access.Route{own, wide, routeTo("http://app.example", up)}, fromAnywhere,
		withLimits(Limits{Identity: access.Limit{Rate: perHour(t, "2/h")}}))
	ask := func(host, name, from string) (*http.Response, string) {
		return w.ask("GET", "http://"+host+"/", as(name, "X-Forwarded-For", from)...)
	}
	w.passes(ask("own.example", "alice", "192.0.2.1"))
	res, body := ask("own.example", "alice", "192.0.2.1")
	w.refusedBy(access.IdentityTooFast, access.Allow, res, body)
	w.passes(ask("app.example", "alice", "192.0.2.1")) // counted apart
	w.passes(ask("app.example", "alice", "192.0.2.1"))
	res, body = ask("app.example", "alice", "192.0.2.1")
	w.refusedBy(access.IdentityTooFast, access.Allow, res, body)

	for range 6 {
		w.passes(ask("wide.example", "alice", "192.0.2.1"))
	}
	res, body = ask("wide.example", "bob", "192.0.2.1")
	w.refusedBy(access.NetworkTooFast, access.Allow, res, body)
	w.passes(ask("wide.example", "bob", "192.0.2.2"))

	// Whoever was refused has taken nothing from all.
	w.passes(ask("own.example", "bob", "192.0.2.1"))
	w.passes(ask("own.example", "carol", "192.0.2.1"))
	res, body = ask("own.example", "dave", "192.0.2.1")
	w.refusedBy(access.RouteTooFast, access.Allow, res, body)
}

// A network is refused before anybody is asked who it is. An IPv6 network is what
// a subscriber has, and an exempt one is none.
func TestANetworkIsLimitedBeforeAnythingElse(t *testing.T) {
	who := &counting{}
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, fromAnywhere,
		func(w *world) { w.snapshot.Identify = who },
		withLimits(Limits{Network: access.Limit{Rate: perHour(t, "2/h")}, Exempt: []string{"198.51.100.0/24"}}))
	from := func(addr string) (*http.Response, string) {
		return w.ask("GET", "http://app.example/x", as("alice", "X-Forwarded-For", addr)...)
	}
	w.passes(from("192.0.2.1"))
	w.passes(from("192.0.2.1"))
	asked := who.asked.Load()
	res, body := from("192.0.2.1")
	w.refusedBy(access.NetworkTooFast, access.Deny, res, body)
	if e := w.rec.events[len(w.rec.events)-1]; e.Request.Fault != access.NetworkTooFast || e.Request.Route != "app" || e.Request.Path != "/x" {
		t.Errorf("recorded %+v", e.Request)
	}
	if now := who.asked.Load(); now != asked {
		t.Error("somebody was asked who sent it")
	}
	w.passes(from("192.0.2.2"))
	w.passes(from("2001:db8:1:2::1"))
	w.passes(from("2001:db8:1:2:ffff::1"))
	res, body = from("2001:db8:1:2::3")
	w.refusedBy(access.NetworkTooFast, access.Deny, res, body)
	w.passes(from("2001:db8:1:3::1"))
	for range 4 {
		w.passes(from("198.51.100.7"))
	}

	// Our own addresses as well, and what is malformed.
	res, body = w.ask("GET", "http://app.example/.doorward/me", as("alice", "X-Forwarded-For", "192.0.2.1")...)
	if e := w.rec.event(t); res.StatusCode != 429 || e.Decision != nil || e.Response.Reason != access.NetworkTooFast {
		t.Errorf("%d %+v\n%s", res.StatusCode, e, body)
	}
	res, body = w.ask("GET", "http://app.example/a//b", as("alice", "X-Forwarded-For", "192.0.2.1")...)
	w.refusedBy(access.NetworkTooFast, access.Deny, res, body)
}

// Requests under way are counted until they end, however they end.
func TestRequestsUnderWay(t *testing.T) {
	arrived, proceed := make(chan bool, 10), make(chan bool)
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-proceed
		if r.URL.Path == "/breaks" {
			panic(http.ErrAbortHandler)
		}
	})
	defer close(proceed)
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withLimits(Limits{Identity: access.Limit{Concurrent: 2}}))
	done := make(chan int, 10)
	start := func(path string) {
		t.Helper()
		go func() {
			res, _ := w.ask("GET", "http://app.example"+path, as("alice")...)
			done <- res.StatusCode
		}()
		<-arrived
	}
	start("/breaks")
	start("/")
	res, body := w.ask("GET", "http://app.example/", as("alice")...)
	w.refusedBy(access.IdentityTooManyRequests, access.Allow, res, body)
	if policy := res.Header.Get("RateLimit-Policy"); policy != `"identity";q=2;qu="concurrent-requests"` {
		t.Error(policy)
	}
	for range 2 {
		proceed <- true
		<-done
		w.rec.event(t)
	}
	start("/")
	start("/")
	for range 2 {
		proceed <- true
		if status := <-done; status != 200 {
			t.Error(status)
		}
	}
}

// WebSockets and event streams have a number of their own and take no room from
// requests.
func TestStreamsUnderWay(t *testing.T) {
	ends := make(chan error, 10)
	sockets := wsRoute("http://ws.example", wsHold(t, ends))
	sockets.ID = "ws"
	events := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	w := newWorld(t, []access.Route{sockets, routeTo("http://app.example", newEcho(t)), {ID: "sse", From: "http://sse.example", To: []string{events.URL}}},
		withLimits(Limits{Identity: access.Limit{Concurrent: 1, Streams: 2}}))
	socket := w.dial("ws://ws.example/", "alice")
	stream := w.stream("GET", "http://sse.example/", nil)
	w.passes(w.ask("GET", "http://app.example/", as("alice")...))

	_, res, err := websocket.Dial(t.Context(), "ws://ws.example/", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: w.transport()}, HTTPHeader: http.Header{"Cookie": {asAlice}}})
	if err == nil || res == nil || res.StatusCode != 429 {
		t.Fatalf("a third stream: %v", err)
	}
	if e := w.rec.event(t); e.Response.Reason != access.IdentityTooManyStreams {
		t.Errorf("%+v", e.Response)
	}
	third, text := w.ask("GET", "http://sse.example/", as("alice")...)
	w.refusedBy(access.IdentityTooManyStreams, access.Allow, third, text)
	if third.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("what the application answered got out: %v", third.Header)
	}
	w.dial("ws://ws.example/", "bob")

	socket.Close(websocket.StatusNormalClosure, "")
	<-ends
	w.rec.event(t)
	w.dial("ws://ws.example/", "alice")
	stream.Body.Close()
	w.rec.event(t)
	w.stream("GET", "http://sse.example/", nil)
}

// What is of nobody is counted by network: logins that begin and tokens that are
// refused. Who is known, and public pages, are not concerned.
func TestStrangersAreLimitedByNetwork(t *testing.T) {
	who := &counting{}
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, fromAnywhere, func(w *world) { w.snapshot.Identify = who },
		withPolicy(func(req *access.Request) access.Decision {
			if req.Path == "/public" {
				return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute}
			}
			return loginFirst(req)
		}),
		withLimits(Limits{Strangers: Strangers{Rate: perHour(t, "4/h"), Burst: 4}}))
	ask := func(path, addr string, headers ...string) (*http.Response, string) {
		return w.ask("GET", "http://app.example"+path, append(headers, "X-Forwarded-For", addr)...)
	}
	browser := []string{"Accept", "text/html"}
	if res, _ := ask("/", "192.0.2.1", browser...); res.StatusCode != 302 {
		t.Fatal(res.Status)
	}
	if res, _ := ask("/.doorward/login", "192.0.2.1", browser...); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	for range 2 {
		if res, _ := ask("/", "192.0.2.1", "Authorization", "Bearer bad"); res.StatusCode == 429 {
			t.Fatal(res.Status)
		}
	}
	for range 4 {
		w.rec.event(t)
	}

	res, body := ask("/", "192.0.2.1", browser...)
	w.refusedBy(access.StrangersTooFast, access.Challenge, res, body)
	asked := who.asked.Load()
	res, body = ask("/", "192.0.2.1", append(byProgram, "Authorization", "Bearer bad")...)
	w.refusedBy(access.StrangersTooFast, access.Deny, res, body)
	if who.asked.Load() != asked {
		t.Error("a token was verified")
	}
	for _, path := range []string{"login", "callback"} {
		res, _ = ask("/.doorward/"+path, "192.0.2.1", byProgram...)
		if e := w.rec.event(t); res.StatusCode != 429 || e.Response.Reason != access.StrangersTooFast || e.Decision != nil {
			t.Errorf("%s: %d %+v", path, res.StatusCode, e)
		}
	}
	// These get in.
	w.passes(ask("/", "192.0.2.1", as("alice")...))
	w.passes(ask("/public", "192.0.2.1"))
	w.passes(ask("/.doorward/backchannel-logout", "192.0.2.1"))
	if res, _ := ask("/", "192.0.2.9", browser...); res.StatusCode != 302 {
		t.Errorf("somebody from elsewhere: %s", res.Status)
	}
}

// readsBearer reads tokens of one scheme only.
type readsBearer struct{ *counting }

func (readsBearer) ReadsToken(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// Somebody else has used up what strangers of a network have. Who has a session goes
// on, also where the application has credentials of its own; what would be verified
// here does not.
func TestCredentialsOfAnApplicationMakeNoStranger(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, func(w *world) { w.snapshot.Identify = readsBearer{&counting{}} },
		withLimits(Limits{Strangers: Strangers{Rate: perHour(t, "1/h"), Burst: 1}}))
	if res, _ := w.ask("GET", "http://app.example/", "Authorization", "Bearer bad"); res.StatusCode == 429 {
		t.Fatal(res.Status)
	}
	w.rec.event(t)
	w.passes(w.ask("GET", "http://app.example/", as("alice", "Authorization", "Basic YTpi")...))
	res, body := w.ask("GET", "http://app.example/", as("alice", "Authorization", "Bearer bad")...)
	w.refusedBy(access.StrangersTooFast, access.Deny, res, body)
}

// While the store is down nobody is known. That makes nobody a stranger.
func TestAnOutageMakesNoStrangers(t *testing.T) {
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withLimits(Limits{Strangers: Strangers{Rate: perHour(t, "1/h"), Burst: 1}}),
		withPolicy(func(req *access.Request) access.Decision {
			if req.Fault != "" {
				return access.Decision{Reason: req.Fault}
			}
			return loginFirst(req)
		}))
	for range 5 {
		if res, body := w.ask("GET", "http://app.example/", as("broken")...); res.StatusCode != 503 {
			t.Fatalf("%s\n%s", res.Status, body)
		}
	}
	if res, _ := w.ask("GET", "http://app.example/", "Accept", "text/html"); res.StatusCode != 302 {
		t.Errorf("a stranger: %s", res.Status)
	}
}

// Whoever asks for somebody else does not say when the request ends, so that only
// the rate counts; each question is one.
func TestLimitsOfQuestions(t *testing.T) {
	w, ask := askingWorld(t, withLimits(Limits{Identity: access.Limit{Rate: perHour(t, "2/h"), Concurrent: 1}}))
	alice := about("GET", "/", "Cookie", "__Host-doorward=alice", "X-Forwarded-For", "192.0.2.1")
	for range 2 {
		if res := ask("", alice...); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		w.rec.event(t)
	}
	for form, status := range map[string]int{"": 429, "?as=status": 403, "?as=page": 429} {
		if res := ask(form, alice...); res.StatusCode != status || status == 429 && res.Header.Get("Retry-After") == "" {
			t.Errorf("%q: %s %v", form, res.Status, res.Header)
		}
		if e := w.rec.event(t); e.Response.Reason != access.IdentityTooFast || e.Decision.Outcome != access.Allow {
			t.Errorf("%q: %+v", form, e.Response)
		}
	}
	w.nothingHeld()
}

// Tunnels count against the rate; how many may be open says server.tunnels.
func TestLimitsOfTunnels(t *testing.T) {
	w := newTunnelWorld(t, echoServer(t).Addr().String(), withLimits(Limits{Identity: access.Limit{Rate: perHour(t, "3/h"), Streams: 1}}))
	for _, form := range tunnelForms {
		s, err := w.client(form, "alice").Open(t.Context(), echoName)
		if err != nil {
			t.Fatal(form, err)
		}
		defer s.Close()
	}
	if _, err := w.client(http.MethodConnect, "alice").Open(t.Context(), echoName); err == nil || !strings.Contains(err.Error(), string(access.IdentityTooFast)) {
		t.Errorf("a fourth tunnel: %v", err)
	}
	if e := w.rec.event(t); e.Response.Reason != access.IdentityTooFast || e.Decision.Outcome != access.Allow {
		t.Errorf("%+v", e.Response)
	}
}

// nothingHeld checks that every place in a budget was given back.
func (w *world) nothingHeld() {
	w.t.Helper()
	for i := range w.door.budgets.shards {
		shard := &w.door.budgets.shards[i]
		shard.mu.Lock()
		sets := shard.sets.Load()
		if sets == nil {
			sets = &[budgetSets]budgetSet{}
		}
		for _, set := range sets {
			for _, b := range set {
				if b.requests != 0 || b.streams != 0 {
					w.t.Errorf("still held: %+v", b)
				}
			}
		}
		shard.mu.Unlock()
	}
}

// Without a word in the configuration, one identity cannot hold all there is.
func TestLimitsWithoutConfiguration(t *testing.T) {
	l, err := newLimits(&Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if want := (quota{concurrent: 512, streams: 2048}); l.identity != want {
		t.Errorf("identity: %+v", l.identity)
	}
	if want := (pace{burst: 2000, every: 5 * time.Millisecond}); l.strangers != want {
		t.Errorf("strangers: %+v", l.strangers)
	}
	if !l.network.none() {
		t.Errorf("network: %+v", l.network)
	}
	off, _ := newLimits(&Limits{Identity: access.Limit{Concurrent: -1, Streams: -1}, Strangers: Strangers{Rate: perHour(t, "none")}})
	if !off.identity.none() || off.strangers.every > 0 {
		t.Errorf("what was switched off: %+v", off)
	}
	for addr, want := range map[string]string{"192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::/64"} {
		if got := l.networkOf(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s is of %s, want %s", addr, got, want)
		}
	}
	if l.networkOf(netip.Addr{}).IsValid() {
		t.Error("no address is of a network")
	}
}

// What is kept with a session says whose budget it is, and only while the request
// is of that person and the limit is the one for all routes.
func TestBudgetKeptWithTheSession(t *testing.T) {
	alice := access.Identity{Provider: "corp", Issuer: "https://idp", Subject: "alice"}
	p := &passage{req: &access.Request{Identity: alice}}
	key, onRoute := p.identityKey(""), p.identityKey("app")
	p.req.Session.Kept = &access.Kept{Of: &alice}
	for range 2 {
		if p.identityKey("") != key || p.req.Session.Kept.Budget.Load() != key || p.identityKey("app") != onRoute {
			t.Fatal("the budget is another one for what is kept")
		}
	}
	for name, other := range map[string]access.Identity{
		"subject": {Provider: "corp", Issuer: "https://idp", Subject: "bob"}, "issuer": {Provider: "corp", Issuer: "https://other", Subject: "alice"},
	} {
		p.req.Identity = other
		if k := p.identityKey(""); k == key || k != (&passage{req: &access.Request{Identity: other}}).identityKey("") {
			t.Errorf("another %s uses the budget of alice", name)
		}
	}
	if p.req.Session.Kept.Budget.Load() != key {
		t.Error("somebody else has changed what is kept")
	}
}

// What limits add to a request that passes, with one of every kind, allocates
// nothing.
func TestLimitsAllocateNothing(t *testing.T) {
	route := routeTo("http://app.example", newEcho(t))
	some := access.Limit{Rate: access.PerSecond(1000), Burst: 1 << 19, Concurrent: 100, Streams: 100}
	route.Limits = access.RouteLimits{Identity: some, Network: some, Everybody: some}
	w := newWorld(t, []access.Route{route}, withLimits(Limits{Network: some, Identity: some}))
	gen := w.door.live.Load()
	p := &passage{door: w.door, gen: gen, in: &http.Request{}, event: &access.Event{}, start: time.Now(), decided: true,
		entry: gen.Routes.Match("http", "app.example", "/"), dec: &access.Decision{Outcome: access.Allow},
		req: &access.Request{Identity: access.Identity{Provider: "corp", Issuer: "https://idp", Subject: "alice"}, Network: access.Network{IP: netip.MustParseAddr("2001:db8::1")}}}
	held := 0
	if n := testing.AllocsPerRun(100, func() {
		if err := errors.Join(p.limitNetwork(), p.limitCredential(), p.limitDecided()); err != nil {
			t.Error(err)
		}
		held = p.limiting.n
		p.settle()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if held != 4 {
		t.Errorf("%d budgets were held", held)
	}
	w.nothingHeld()
}

func TestFaultsOfLimits(t *testing.T) {
	for path, edit := range map[string]func(*Limits){
		"identity.burst":   func(l *Limits) { l.Identity.Burst = -1 },
		"network.burst":    func(l *Limits) { l.Network = access.Limit{Rate: perHour(t, "none"), Burst: 5} },
		"strangers.burst":  func(l *Limits) { l.Strangers.Burst = 1 << 30 },
		"network.streams":  func(l *Limits) { l.Network.Streams = -2 },
		"ipv4_prefix":      func(l *Limits) { l.IPv4Prefix = 33 },
		"ipv6_prefix":      func(l *Limits) { l.IPv6Prefix = -1 },
		"exempt[0]":        func(l *Limits) { l.Exempt = []string{"office"} },
		"identity.streams": func(l *Limits) { l.Identity.Streams = 1 << 30 },
	} {
		var l Limits
		edit(&l)
		faults := access.NewFaults("")
		l.Validate(faults)
		if list := faults.List(); len(list) != 1 || list[0].Path != path {
			t.Errorf("%s: %+v", path, list)
		}
	}
	_, faults := NewTable([]access.Route{{ID: "a", From: "http://a.example", To: []string{"http://127.0.0.1:1"}, Limits: access.RouteLimits{Everybody: access.Limit{Concurrent: -5}}}})
	if len(faults) != 1 || faults[0].Path != "routes[0].limits.everybody.concurrent" {
		t.Errorf("%+v", faults)
	}
	for _, text := range []string{"", "100", "100/d", "0/s", "-1/s", "1.5/s", "2000000/s", " 1/s", "1/s ", "None"} {
		var r access.Rate
		if r.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is a rate", text)
		}
	}
	for _, text := range []string{"100/s", "600/m", "1/h", "none"} {
		if got := perHour(t, text).String(); got != text {
			t.Errorf("%q reads back as %q", text, got)
		}
	}
}
