package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/doorward/doorward/internal/access"
)

// office knows who is logged in and which devices are sound, until that changes.
type office struct {
	identify
	mu       sync.Mutex
	over     map[string]access.Reason // by name
	unsound  map[string]bool          // by device
	fails    error
	panics   bool
	uses     int
	gathered func() // called when facts have been gathered
}

func (o *office) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func (o *office) Identify(r *http.Request, req *access.Request) error {
	if err := o.identify.Identify(r, req); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if why := o.over[req.Identity.Subject]; why != "" {
		req.Identity, req.Session = access.Identity{}, access.Session{}
	}
	return nil
}

func (o *office) IdentifyAgain(r *http.Request, req *access.Request, used bool) error {
	if err := o.identify.Identify(r, req); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if used {
		o.uses++
	}
	if o.panics {
		panic("bug")
	}
	if o.fails != nil {
		req.Identity = access.Identity{}
		return o.fails
	}
	if why := o.over[req.Identity.Subject]; why != "" {
		req.Identity, req.Session = access.Identity{}, access.Session{}
		return access.Because(why, errors.New("gone"))
	}
	return nil
}

func (o *office) Inspect(_ *http.Request, req *access.Request) error {
	if !req.Identity.Nobody() {
		id := "laptop-of-" + req.Identity.Subject
		o.mu.Lock()
		req.Device = access.Device{ID: id, Known: access.Yes, Compliant: access.TriOf(!o.unsound[id])}
		o.mu.Unlock()
	}
	if o.gathered != nil {
		o.gathered()
	}
	return nil
}

// soundDevice allows whoever is logged in on a compliant device.
func soundDevice(req *access.Request) access.Decision {
	dec := loginFirst(req)
	if dec.Outcome == access.Allow && req.Device.Compliant != access.Yes {
		return access.Decision{Outcome: access.Challenge, Reason: access.DeviceNotCompliant,
			Needs: []access.Need{{Reason: access.DeviceNotCompliant}}}
	}
	return dec
}

func withOffice(o *office) change {
	o.over, o.unsound = map[string]access.Reason{}, map[string]bool{}
	return func(w *world) {
		w.snapshot.Identify, w.snapshot.Inspect, w.snapshot.Policy = o, o, policy(soundDevice)
	}
}

// revoke ends a person's session, and says so.
func (w *world) revoke(o *office, name string) {
	o.set(func() { o.over[name] = access.SessionEnded })
	w.door.Signal(access.Signal{Reason: access.SessionEnded, Session: "s-" + name})
}

// closed waits for the two events of a request that was ended: that it was, and
// its own.
func (w *world) closed(why access.Reason, kind string) *access.Event {
	w.t.Helper()
	end, own := w.rec.event(w.t), w.rec.event(w.t)
	if end.Kind != access.EventClosed || end.Reason != why || end.RequestID != own.RequestID || end.Decision.Outcome == access.Allow ||
		!strings.HasPrefix(end.Note, kind+" ended after") || end.Actor != "corp:alice" || end.Session != "s-alice" {
		w.t.Errorf("%+v of %+v", end, end.Decision)
	}
	if own.Kind != access.EventDecision || own.Decision.Outcome != access.Allow || own.Response.Reason != why || own.Response.Duration <= 0 {
		w.t.Errorf("%+v", own)
	}
	w.nothingOpen()
	return own
}

// nothingOpen checks that nothing is left of requests that have ended.
func (w *world) nothingOpen() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.door.Drain(ctx); err != nil {
		w.t.Error("still in flight:", err)
	}
	if w.door.streams.any() {
		w.t.Error("a request that ended is still registered")
	}
	for i := range w.door.streams.shards {
		if n := len(w.door.streams.shards[i].by); n > 0 {
			w.t.Errorf("%d keys lead to nothing", n)
		}
	}
}

// stream opens a request whose answer does not end.
func (w *world) stream(method, target string, body io.Reader) *http.Response {
	w.t.Helper()
	req, err := http.NewRequest(method, target, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Cookie", asAlice+"; __Host-doorward=alice")
	res, err := w.transport().RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { res.Body.Close() })
	return res
}

func (w *world) dial(target, name string) *websocket.Conn {
	w.t.Helper()
	conn, _, err := websocket.Dial(w.t.Context(), target, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: w.transport()}, HTTPHeader: http.Header{"Cookie": {"doorward=" + name, "__Host-doorward=" + name}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// wsHold accepts WebSockets, echoes, and reports how each was closed.
func wsHold(t *testing.T, ends chan<- error) *httptest.Server {
	return upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, data, err := conn.Read(context.Background())
			if err != nil {
				ends <- err
				return
			}
			conn.Write(context.Background(), kind, data)
		}
	})
}

func wsRoute(from string, up *httptest.Server) access.Route {
	route := routeTo(from, up)
	route.WebSocket = true
	return route
}

// What changes while facts are gathered, and says so before the request is among
// the open ones, is not missed.
func TestSignalBeforeTheStreamIsRegisteredIsNotMissed(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	o := &office{}
	var w *world
	var once sync.Once
	o.gathered = func() { once.Do(func() { w.revoke(o, "alice") }) }
	w = newWorld(t, []access.Route{routeTo("http://app.example", up)}, withOffice(o))
	if res := w.stream("GET", "http://app.example/", nil); res.StatusCode != 401 {
		t.Error(res.Status)
	}
	w.closed(access.SessionEnded, "request")
}

// swap is a visitor who has come to use another device.
type swap struct {
	*office
	device func() string
}

func (s swap) Inspect(r *http.Request, req *access.Request) error {
	req.Device = access.Device{ID: s.device(), Known: access.Yes, Compliant: access.Yes}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsound[req.Device.ID] {
		req.Device.Compliant = access.No
	}
	return nil
}

// A signal about a device that is new to an open request, which comes while its
// facts are gathered, is not missed.
func TestSignalAboutWhatIsBeingFoundOutIsNotMissed(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	var w *world
	var asked atomic.Int64
	s := swap{o, func() string {
		if asked.Add(1) == 1 {
			return "old"
		}
		return "new"
	}}
	w = newWorld(t, []access.Route{wsRoute("http://app.example", wsHold(t, ends))}, withOffice(o), func(w *world) {
		w.snapshot.Inspect = s
		w.snapshot.Policy = policy(func(req *access.Request) access.Decision {
			dec := soundDevice(req)
			if asked.Load() == 2 { // decided, and not noted yet
				o.set(func() { o.unsound["new"] = true })
				w.door.Signal(access.Signal{Reason: access.DeviceChanged, Device: "new"})
			}
			return dec
		})
	})
	conn := w.dial("ws://app.example/", "alice")
	w.only().check()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Fatal(err)
	}
	<-ends
	w.closed(access.DeviceNotCompliant, "WebSocket")
}

// Many streams come and go while signals arrive; whoever is revoked is out, and
// nothing is left behind.
func TestSignalsAndStreamsAtOnce(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	o := &office{}
	w := newWorld(t, []access.Route{routeTo("http://app.example", up)}, withOffice(o))
	var clients sync.WaitGroup
	var ended atomic.Int32
	tr := w.transport()
	for i := range 40 {
		clients.Go(func() {
			req, _ := http.NewRequest("GET", "http://app.example/", nil)
			req.Header.Set("Cookie", fmt.Sprintf("doorward=p%d", i))
			res, err := tr.RoundTrip(req)
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if err != nil || res.StatusCode == 401 {
				ended.Add(1)
			}
		})
		clients.Go(func() { w.revoke(o, fmt.Sprintf("p%d", i)) })
	}
	clients.Wait()
	if ended.Load() != 40 {
		t.Errorf("%d of 40 ended", ended.Load())
	}
	w.nothingOpen()
}

// only returns the one open stream.
func (w *world) only() (found *stream) {
	w.t.Helper()
	for i := range w.door.streams.shards {
		shard := &w.door.streams.shards[i]
		shard.mu.Lock()
		shard.each(func(st *stream) { found = st })
		shard.mu.Unlock()
	}
	if found == nil {
		w.t.Fatal("nothing is open")
	}
	return found
}

// The route's grace is time to cure what is missing; at its end it counts.
func TestGraceIsTimeToCure(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	route := wsRoute("http://app.example", wsHold(t, ends))
	route.OnChange.CloseStreams = access.Duration(10 * time.Minute)
	w := newWorld(t, []access.Route{route}, withOffice(o))
	conn := w.dial("ws://app.example/", "alice")
	st := w.only()
	unsound := func(yes bool) { o.set(func() { o.unsound["laptop-of-alice"] = yes }) }

	unsound(true)
	st.check()
	if st.over() || !st.refused {
		t.Fatal("no grace is running")
	}
	unsound(false)
	st.decide(true) // the grace is over
	if st.over() || st.refused {
		t.Error("what was cured in time is held against the visitor")
	}
	conn.Write(t.Context(), websocket.MessageText, []byte("hello"))
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Error(err)
	}
	unsound(true)
	st.check()
	st.check() // a second signal does not shorten it
	if st.over() {
		t.Error("the grace was cut short")
	}
	st.decide(true)
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Error(err)
	}
	<-ends
	w.closed(access.DeviceNotCompliant, "WebSocket")
}

// The grace ends by itself.
func TestGraceComesToItsEnd(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	route := wsRoute("http://app.example", wsHold(t, ends))
	route.OnChange.CloseStreams = access.Duration(50 * time.Millisecond)
	w := newWorld(t, []access.Route{route}, withOffice(o))
	conn := w.dial("ws://app.example/", "alice")
	w.revoke(o, "alice")
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Error(err)
	}
	<-ends
	if own := w.closed(access.SessionEnded, "WebSocket"); own.Response.Duration < 50*time.Millisecond {
		t.Error(own.Response.Duration)
	}
}

// Pitfall: reloads that cut users off. What the new configuration still allows
// goes on; what it does not ends.
func TestReloadEndsWhatItForbidsAndNothingElse(t *testing.T) {
	for name, c := range map[string]struct {
		next func(*Snapshot, *access.Route)
		want access.Reason // "": goes on
	}{
		"the same":          {func(*Snapshot, *access.Route) {}, ""},
		"another upstream":  {func(_ *Snapshot, r *access.Route) { r.To = []string{"http://127.0.0.1:9"} }, ""},
		"a stricter rule":   {func(s *Snapshot, _ *access.Route) { s.Policy = deny(access.NotAllowed) }, access.NotAllowed},
		"no such route":     {func(_ *Snapshot, r *access.Route) { r.From = "http://moved.example" }, access.NoRoute},
		"no WebSocket":      {func(_ *Snapshot, r *access.Route) { r.WebSocket = false }, access.UpgradeRefused},
		"another app there": {func(_ *Snapshot, r *access.Route) { r.ID, r.To = "other", []string{"http://127.0.0.1:9"} }, access.NoRoute},
	} {
		t.Run(name, func(t *testing.T) {
			ends := make(chan error, 1)
			o := &office{}
			route := wsRoute("http://app.example", wsHold(t, ends))
			w := newWorld(t, []access.Route{route}, withOffice(o))
			conn := w.dial("ws://app.example/", "alice")
			next := *w.snapshot
			next.Version = "v2"
			c.next(&next, &route)
			next.Routes = table(t, route)
			if err := w.door.Swap(&next); err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				w.only().check() // whatever the checkers did, once more
				conn.Write(t.Context(), websocket.MessageText, []byte("hello"))
				if _, _, err := conn.Read(t.Context()); err != nil {
					t.Error(err)
				}
				conn.Close(websocket.StatusNormalClosure, "")
				if e := w.rec.event(t); e.Response.Reason != "" {
					t.Errorf("%+v", e)
				}
				return
			}
			if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Error(err)
			}
			end := w.rec.event(t)
			if end.Reason != c.want || end.Decision.Policy != "v2" && c.want != access.NotAllowed {
				t.Errorf("%+v %+v", end, end.Decision)
			}
			w.rec.event(t)
			w.nothingOpen()
		})
	}
}

// Whether or not anything is said, every stream is decided on again in time, and
// when its session is known to end.
func TestTimeIsASignalToo(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	route := wsRoute("http://app.example", wsHold(t, ends))
	route.Recheck = access.Duration(30 * time.Second)
	w := newWorld(t, []access.Route{route}, withOffice(o))
	conn := w.dial("ws://app.example/", "alice")
	st := w.only()
	due := func() time.Time {
		st.shard.mu.Lock()
		defer st.shard.mu.Unlock()
		return st.due
	}
	now := time.Now()
	if wait := due().Sub(now); wait > 30*time.Second || wait < 25*time.Second {
		t.Errorf("due in %s", wait)
	}
	soon := *st.facts
	soon.Session.Expires = now.Add(7 * time.Second)
	if next := st.passage.gen.next(st.passage.entry, &soon, now); !next.Equal(soon.Session.Expires) {
		t.Errorf("the end of the session is at %s, the next look at %s", soon.Session.Expires, next)
	}

	window := wsRoute("http://app.example", newEcho(t))
	window.ID, window.Allow = "window", []access.Rule{{Name: "office", Time: access.TimeWindow{Hours: "08:00-18:00"}}}
	entry := table(t, window).Match("http", "app.example", "/")
	if at := time.Date(2026, 11, 27, 17, 59, 20, 0, time.UTC); !st.passage.gen.next(entry, &access.Request{}, at).Equal(at.Add(40 * time.Second)) {
		t.Error("the end of a window is not waited for")
	}

	// What the visitor sends counts as use of the session, silence does not.
	st.check()
	st.check()
	conn.Write(t.Context(), websocket.MessageText, []byte("hello"))
	conn.Read(t.Context())
	st.check()
	o.set(func() {
		if o.uses != 1 {
			t.Errorf("%d uses", o.uses)
		}
	})

	o.set(func() { o.over["alice"] = access.SessionExpired })
	for slice := range tickSlices {
		w.door.checkDue(slice, now.Add(time.Second)) // nothing is due yet
	}
	if st.over() {
		t.Error("decided on before its time")
	}
	for slice := range tickSlices {
		w.door.checkDue(slice, now.Add(31*time.Second))
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Error(err)
	}
	<-ends
	w.closed(access.SessionExpired, "WebSocket")
}

// While facts cannot be gathered, a stream goes on for as long as it might have
// gone on unchecked, and no longer.
func TestDoubtDoesNotLast(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	w := newWorld(t, []access.Route{wsRoute("http://app.example", wsHold(t, ends))}, withOffice(o))
	var clock atomic.Int64
	w.door.now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	conn := w.dial("ws://app.example/", "alice")
	st := w.only()
	o.set(func() { o.fails = access.Becausef(access.StoreUnavailable, "no answer") })
	st.check()
	clock.Add(int64(defaultRecheck - time.Second))
	st.check()
	if st.over() {
		t.Fatal("ended at the first doubt")
	}
	o.set(func() { o.fails = nil })
	st.check()
	o.set(func() { o.fails = access.Becausef(access.StoreUnavailable, "no answer") })
	clock.Add(int64(2 * time.Second))
	st.check()
	if st.over() {
		t.Error("a doubt that was removed still counts")
	}
	clock.Add(int64(defaultRecheck + time.Second))
	st.check()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Error(err)
	}
	<-ends
	w.closed(access.StoreUnavailable, "WebSocket")
}

// Whoever was refused and has not cured it when the grace is over does not go on
// because nobody can tell at that moment.
func TestDoubtDoesNotOutlastTheGrace(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	route := wsRoute("http://app.example", wsHold(t, ends))
	route.OnChange.CloseStreams = access.Duration(10 * time.Minute)
	w := newWorld(t, []access.Route{route}, withOffice(o))
	conn := w.dial("ws://app.example/", "alice")
	st := w.only()
	o.set(func() { o.unsound["laptop-of-alice"] = true })
	st.check()
	o.set(func() { o.fails = access.Becausef(access.StoreUnavailable, "no answer") })
	st.decide(true) // the grace is over
	if !st.over() {
		t.Fatal("it goes on")
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Error(err)
	}
	<-ends
	w.closed(access.StoreUnavailable, "WebSocket")
}

func TestBugInACheckEndsTheStreamNotTheProcess(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	w := newWorld(t, []access.Route{wsRoute("http://app.example", wsHold(t, ends))}, withOffice(o))
	conn := w.dial("ws://app.example/", "alice")
	o.set(func() { o.panics = true })
	w.only().doubtful = time.Now().Add(-time.Hour) // as if it had lasted
	w.door.Signal(access.Signal{})
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Error(err)
	}
	<-ends
	w.closed(access.InternalError, "WebSocket")
}

func TestTimerStopsWithTheLastStream(t *testing.T) {
	o := &office{}
	w := newWorld(t, []access.Route{routeTo("http://app.example", newEcho(t))}, withOffice(o))
	w.stream("GET", "http://app.example/", nil)
	w.rec.event(t)
	w.nothingOpen()
	if !w.door.streams.ticking.Load() {
		t.Fatal("no timer ran")
	}
	for range tickSlices + 1 {
		if w.door.streams.ticking.Load() {
			w.door.tick()
		}
	}
	if w.door.streams.ticking.Load() {
		t.Error("the timer runs although nothing is open")
	}
	w.stream("GET", "http://app.example/", nil)
	if !w.door.streams.ticking.Load() {
		t.Error("the timer was not started again")
	}
	w.rec.event(t)
}

func TestFaultsOfRechecks(t *testing.T) {
	f := access.NewFaults("server")
	(&Config{Listen: "127.0.0.1:1", Recheck: access.Duration(time.Millisecond)}).Validate(f)
	if list := f.List(); len(list) != 1 || list[0].Path != "server.recheck" {
		t.Errorf("%+v", list)
	}
	_, faults := NewTable([]access.Route{{ID: "a", From: "http://a.example", To: []string{"http://127.0.0.1:1"},
		Recheck: -1, OnChange: access.OnChange{CloseStreams: access.Duration(time.Hour)}}})
	if len(faults) != 2 {
		t.Errorf("%+v", faults)
	}
}

// lost is a device all of whose sessions were revoked at a moment.
type lost struct {
	mu     sync.Mutex
	device string
	at     time.Time
	fails  error
	ended  chan string
}

func (l *lost) RevokedDevice(issuer, device string, issued time.Time) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return issuer != "" && device == l.device && issued.Before(l.at), l.fails
}

func (l *lost) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *lost) EndRevoked(_ context.Context, session, device string) {
	l.ended <- session + " on " + device
}

// Nobody knows on which devices a session is used until it is: whatever is older
// than the revocation ends there, also what is open.
func TestRevokedDeviceIsNobodysUntilTheNextLogin(t *testing.T) {
	ends := make(chan error, 1)
	o := &office{}
	l := &lost{ended: make(chan string, 10)}
	w := newWorld(t, []access.Route{wsRoute("http://app.example", wsHold(t, ends))}, withOffice(o), func(w *world) { w.snapshot.Revoked = l })
	conn := w.dial("ws://app.example/", "alice")
	l.set(func() { l.device, l.at = "laptop-of-alice", epoch.Add(time.Minute) })
	w.door.Signal(access.Signal{Device: "laptop-of-alice"})
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Error(err)
	}
	<-ends
	end := w.rec.event(t)
	if end.Reason != access.SessionEnded || !end.Request.Identity.Nobody() || end.Request.Session.ID != "" || <-l.ended != "s-alice on laptop-of-alice" {
		t.Errorf("%+v", end)
	}
	w.rec.event(t)
	if res, _ := w.ask("GET", "http://app.example/", "Cookie", asAlice); res.StatusCode != 401 || <-l.ended != "s-alice on laptop-of-alice" {
		t.Error("a new request of the old session:", res.Status)
	}
	l.set(func() { l.at = epoch }) // as if alice had logged in again
	if res, _ := w.ask("GET", "http://app.example/", "Cookie", asAlice); res.StatusCode == 401 {
		t.Error("a new session:", res.Status)
	}
	l.set(func() { l.fails = access.Becausef(access.StoreUnavailable, "no list") })
	if res, _ := w.ask("GET", "http://app.example/", "Cookie", asAlice); res.StatusCode != 503 {
		t.Error("nobody can tell, and still", res.Status)
	}
}
