package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store/redistest"
	"github.com/doorward/doorward/internal/testidp"
)

// board is an application whose pages hold WebSockets open and get told what is
// new.
type board struct {
	mu   sync.Mutex
	open map[*websocket.Conn]bool
}

func (b *board) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		fmt.Fprintf(w, "<p>hello %s</p>", r.Header.Get("X-User"))
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	b.mu.Lock()
	if b.open == nil {
		b.open = map[*websocket.Conn]bool{}
	}
	b.open[conn] = true
	b.mu.Unlock()
	conn.Read(context.Background()) // until it is closed
	b.mu.Lock()
	delete(b.open, conn)
	b.mu.Unlock()
}

func (b *board) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}

// tell writes to every page.
func (b *board) tell(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for conn := range b.open {
		conn.Write(context.Background(), websocket.MessageText, []byte(text))
	}
}

// wall is many WebSockets of one person.
type wall struct {
	t     testing.TB
	conns []*websocket.Conn
	mu    sync.Mutex
	told  []time.Time // when each was told something
	ended []time.Time // when each was closed
	wrong []error     // those that ended otherwise than by policy
}

// openWall opens n WebSockets, each at the next replica.
func (f *fleet) openWall(v *visitor, n int) *wall {
	f.t.Helper()
	w := &wall{t: f.t, conns: make([]*websocket.Conn, n)}
	var opening sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range n {
		slots <- struct{}{}
		opening.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			conn, _, err := websocket.Dial(ctx, strings.Replace(f.at("app", "/live"), "http", "ws", 1),
				&websocket.DialOptions{HTTPClient: f.via(v, i%len(f.replicas)).client})
			if err != nil {
				f.t.Error(err)
				return
			}
			w.conns[i] = conn
		})
	}
	opening.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
	for _, conn := range w.conns {
		go w.listen(conn)
	}
	f.t.Cleanup(func() {
		for _, conn := range w.conns {
			conn.CloseNow()
		}
	})
	return w
}

func (w *wall) listen(conn *websocket.Conn) {
	for {
		_, _, err := conn.Read(context.Background())
		now := time.Now()
		w.mu.Lock()
		if err == nil {
			w.told = append(w.told, now)
			w.mu.Unlock()
			continue
		}
		w.ended = append(w.ended, now)
		if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			w.wrong = append(w.wrong, err)
		}
		w.mu.Unlock()
		return
	}
}

// lags waits until something has happened to every WebSocket, and returns how
// long after the beginning it did, in order.
func (w *wall) lags(what string, began time.Time, times *[]time.Time) []time.Duration {
	w.t.Helper()
	eventually(w.t, what, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(*times) == len(w.conns)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	var lags []time.Duration
	for _, at := range *times {
		lags = append(lags, at.Sub(began))
	}
	slices.Sort(lags)
	return lags
}

// admin asks the admin API of a replica.
func (s *site) ask(t testing.TB, token, path, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+s.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("%s: %s", path, res.Status)
	}
}

const wallSize = 1000

// The promise: whatever ends access ends it everywhere within a second, also over
// what is open, on every replica. A thousand WebSockets of one person lie on two
// of them; each way to end access is measured from its cause to the close frame.
// How long the machine takes to bring the same thousand a message is added to the
// second, since others may be busy on it.
func TestAThousandWebSocketsEndWithinASecond(t *testing.T) {
	const token, pushSecret = "0123456789abcdef0123456789abcdef", "Bearer push-secret-of-the-hub"
	server := redistest.Start(t)
	dir := t.TempDir()
	writeFile(t, dir, "token", token)
	writeFile(t, dir, "push", pushSecret)
	inventory := func(compliant bool) string {
		return fmt.Sprintf("id,managed,compliant,last_seen\nlaptop-alice,yes,%t,%s\n", compliant, time.Now().UTC().Format(time.RFC3339))
	}
	devices := writeFile(t, dir, "devices.csv", inventory(true))
	hub, err := testidp.NewTransmitter(time.Now, "doorward")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)

	pages := &board{}
	const rule = "allow: [{name: all, any_user: true}]"
	f := startFleetOf(t, 2, onRedis(t, server), pages.serve, func(text string) string {
		return strings.NewReplacer(
			"admin: {", "admin: {token: {file: "+dir+"/token}, ",
			"headers: {X-User: user}", "headers: {X-User: user}, websocket: true, require: {device: sound}",
			"routes:", fmt.Sprintf(`devices:
  sources: [{id: list, type: file, path: %s}]
  match: [claim.deviceid]
  profiles: {sound: {all: [known, compliant]}}
signals:
  - {id: hub, issuer: %q, providers: [corp], devices: true, audience: doorward, push_secret: {file: %s/push}}
routes:`, devices, hub.Issuer, dir)).Replace(text)
	})
	caep := func(event string, subject, fields map[string]any) {
		t.Helper()
		raw := hub.Sign(hub.Header(), hub.Claims(testidp.CAEP+event, subject, fields))
		header := http.Header{"Content-Type": {"application/secevent+jwt"}, "Authorization": {pushSecret}, "Accept": {"application/json"}}
		v := f.visitor(func() int { return 1 })
		if p := v.once("POST", f.at("auth", "/.doorward/signals"), header, strings.NewReader(raw)); p.status != 202 {
			t.Fatalf("the signal was answered %d %s", p.status, p.body)
		}
	}
	reload := func(from, to string) {
		t.Helper()
		for _, s := range f.replicas {
			text, err := os.ReadFile(s.config)
			if err != nil {
				t.Fatal(err)
			}
			replace(t, s.config, strings.Replace(string(text), from, to, 1))
		}
	}

	for _, c := range []struct {
		name string
		act  func()
		undo func()
	}{
		{"an administrator revokes the person on one replica", func() {
			f.replicas[1].ask(t, token, "/api/v1/revocations", `{"actor": "ops", "why": "left", "user": "corp:alice"}`)
		}, nil},
		{"the provider logs the person out (back-channel)", func() {
			claims := f.provider.LogoutClaims("doorward", "alice", "")
			head := f.provider.Header()
			head["typ"] = "logout+jwt"
			raw, err := f.provider.Sign(head, claims)
			if err != nil {
				t.Fatal(err)
			}
			header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
			v := f.visitor(func() int { return 1 })
			if p := v.once("POST", f.at("auth", "/.doorward/backchannel-logout"), header, strings.NewReader("logout_token="+raw)); p.status != 200 {
				t.Fatalf("the logout was answered %d %s", p.status, p.body)
			}
		}, nil},
		{"a reload removes the rule", func() { reload(rule, "allow: [{name: none, users: [\"corp:nobody\"]}]") },
			func() { reload("allow: [{name: none, users: [\"corp:nobody\"]}]", rule) }},
		{"the device falls out of compliance in the inventory", func() { replace(t, devices, inventory(false)) },
			func() { replace(t, devices, inventory(true)) }},
		{"CAEP session-revoked", func() {
			caep("session-revoked", map[string]any{"format": "iss_sub", "iss": f.provider.Issuer(), "sub": "alice"}, nil)
		}, nil},
		{"CAEP device-compliance-change", func() {
			caep("device-compliance-change", map[string]any{"format": "complex", "device": map[string]any{"format": "opaque", "id": "laptop-alice"}},
				map[string]any{"previous_status": "compliant", "current_status": "not-compliant"})
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			alice := f.visitor(func() int { return 0 })
			alice.login(f.at("app", "/"), "alice")
			for i := range f.replicas {
				eventually(t, "alice to be let in", func() bool {
					return f.via(alice, i).once("GET", f.at("app", "/"), alice.header, nil).status == 200
				})
			}
			w := f.openWall(alice, wallSize)
			eventually(t, "everything to be open", func() bool { return pages.count() == wallSize })
			began := time.Now()
			pages.tell("news")
			message := w.lags("the news", began, &w.told)

			began = time.Now()
			c.act()
			lags := w.lags("the end", began, &w.ended)
			if len(w.wrong) > 0 {
				t.Errorf("%d of %d WebSockets ended otherwise, such as: %v", len(w.wrong), wallSize, w.wrong[0])
			}
			median, p99, machine := lags[wallSize/2], lags[wallSize*99/100], message[wallSize-1]
			t.Logf("%s: %d WebSockets closed; median %s, p99 %s, last %s (a message to all of them: %s)",
				c.name, wallSize, round(median), round(p99), round(lags[wallSize-1]), round(machine))
			if p99 > time.Second+2*machine {
				t.Errorf("p99 is %s", p99)
			}
			if c.undo != nil {
				c.undo()
			}
		})
	}

	// Each of them left one record that says why.
	reasons := map[access.Reason]int{}
	for _, s := range f.replicas {
		s.stop()
		for _, line := range strings.Split(readFile(t, s.dir+"/audit.jsonl"), "\n") {
			var e access.Event
			if json.Unmarshal([]byte(line), &e) == nil && e.Kind == access.EventClosed {
				reasons[e.Reason]++
			}
		}
	}
	want := map[access.Reason]int{access.SessionEnded: 3 * wallSize, access.NotAllowed: wallSize, access.DeviceNotCompliant: 2 * wallSize}
	if fmt.Sprint(reasons) != fmt.Sprint(want) {
		t.Errorf("recorded: %v, want %v", reasons, want)
	}
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
