package spoe

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/proxy"
)

// people knows the visitor by the cookie "doorward".
type people struct{}

func (people) Identify(r *http.Request, req *access.Request) error {
	if c, err := r.Cookie("doorward"); err == nil {
		req.Identity = access.Identity{Provider: "corp", Issuer: "https://idp", Subject: c.Value}
	}
	return nil
}

func (p people) IdentifyAgain(r *http.Request, req *access.Request, _ bool) error {
	return p.Identify(r, req)
}

type members struct{ panics bool }

func (m members) Decide(req *access.Request) access.Decision {
	if m.panics {
		panic("bug")
	}
	if req.Identity.Nobody() {
		return access.Decision{Outcome: access.Challenge, Reason: access.LoginRequired, Needs: []access.Need{{Reason: access.LoginRequired}}}
	}
	return access.Decision{Outcome: access.Allow, Reason: access.Allowed, Rule: "members"}
}

func (members) Groups(string, *access.Identity) []string { return nil }

type log struct{ events chan *access.Event }

func (l log) Record(e *access.Event) { l.events <- e.Clone() }
func (l log) Err() error             { return nil }

type agent struct {
	*Server
	listener net.Listener
	events   chan *access.Event
	served   chan error
}

func startAgent(t *testing.T, side proxy.SideDoor, policy proxy.Decider) *agent {
	t.Helper()
	if side.Listen == "" {
		side.Listen = "unix:" + filepath.Join(t.TempDir(), "s")
	}
	table, faults := proxy.NewTable([]access.Route{{ID: "shop", From: "https://shop.example", Headers: map[string]string{"X-Forwarded-User": "user"}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	signer, err := proxy.NewSigner(t.Context(), proxy.SignerOptions{Store: store.NewMemory(time.Now), Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{events: make(chan *access.Event, 1000), served: make(chan error, 1)}
	door := proxy.New(proxy.Options{Signer: signer, Recorder: log{a.events}})
	if err := door.Swap(&proxy.Snapshot{Version: "v1", Routes: table, Policy: policy, Identify: people{}, Server: proxy.Config{SPOE: side}}); err != nil {
		t.Fatal(err)
	}
	a.Server = New(proxy.SideOptions{Door: door})
	if a.listener, err = side.Open(); err != nil {
		t.Fatal(err)
	}
	go func() { a.served <- a.Serve(a.listener) }()
	t.Cleanup(func() {
		a.Close()
		if err := <-a.served; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	return a
}

// haproxy is the other end of a connection.
type haproxy struct {
	net.Conn
	r *bufio.Reader
}

func (a *agent) dial(t *testing.T) *haproxy {
	t.Helper()
	c, err := net.Dial(a.listener.Addr().Network(), a.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return &haproxy{c, bufio.NewReader(c)}
}

func (h *haproxy) send(t *testing.T, f *frame) {
	t.Helper()
	if _, err := h.Write(f.append(nil)); err != nil {
		t.Fatal(err)
	}
}

func (h *haproxy) receive(t *testing.T, kind byte) *frame {
	t.Helper()
	f, err := readFrame(h.r)
	if err != nil || f.kind != kind {
		t.Fatalf("%+v %v, want type %d", f, err, kind)
	}
	return f
}

func helloFrame(size uint64, more ...byte) *frame {
	b := appendString(nil, "supported-versions", "1.0, 2.0")
	b = appendUint(b, "max-frame-size", size)
	return &frame{kind: haproxyHello, payload: append(appendString(b, "capabilities", "pipelining,async"), more...)}
}

func (h *haproxy) hello(t *testing.T) {
	t.Helper()
	h.send(t, helloFrame(16380))
	d := decoder{b: h.receive(t, agentHello).payload}
	if got := d.list(-1); got["version"] != "2.0" || got["max-frame-size"] != uint64(16380) || got["capabilities"] != "pipelining" {
		t.Fatalf("%v", got)
	}
}

// notify is a question as HAProxy puts it.
func notify(id uint64, change map[string][]byte, headers ...string) *frame {
	var raw []byte
	for i := 0; i < len(headers); i += 2 {
		raw = appendText(appendText(raw, headers[i]), headers[i+1])
	}
	raw = append(raw, 0, 0)
	arguments := map[string][]byte{
		"method":      appendText([]byte{typeString}, "GET"),
		"target":      appendText([]byte{typeString}, "/a?b=c"),
		"tls":         {typeBool | flagTrue},
		"src":         {typeIPv4, 203, 0, 113, 7},
		"headers":     appendText([]byte{typeBinary}, string(raw)),
		"certificate": {typeNull},
	}
	for name, value := range change {
		arguments[name] = value
		if value == nil {
			delete(arguments, name)
		}
	}
	b := append(appendText(nil, messageName), byte(len(arguments)))
	for name, value := range arguments {
		b = append(appendText(b, name), value...)
	}
	return &frame{kind: haproxyNotify, stream: id, frame: 1, payload: b}
}

// told reads the variables of an answer.
func told(t *testing.T, f *frame) map[string]any {
	t.Helper()
	got := map[string]any{}
	d := decoder{b: f.payload}
	for len(d.b) > 0 && d.err == nil {
		if action, n, scope := d.byte(), d.byte(), d.byte(); action != 1 || n != 3 || scope != scopeTransaction {
			t.Fatalf("action %d, %d arguments, scope %d", action, n, scope)
		}
		name := d.text()
		got[name] = d.value()
	}
	if d.err != nil {
		t.Fatal(d.err)
	}
	return got
}

func TestQuestions(t *testing.T) {
	a := startAgent(t, proxy.SideDoor{}, members{})
	h := a.dial(t)
	h.hello(t)
	h.send(t, notify(300, nil, "host", "shop.example", "cookie", "doorward=alice; theme=dark", "x-forwarded-user", "root", "x-forwarded-for", "10.6.6.6"))
	f := h.receive(t, agentAck)
	e := <-a.events
	got := told(t, f)
	if f.stream != 300 || f.frame != 1 || got["verdict"] != "allow" || got["user"] != "corp:alice" || got["h_x_forwarded_user"] != "corp:alice" || got["h_cookie"] != "theme=dark" || got["h_doorward_assertion"] == nil || got["request"] != e.Request.ID {
		t.Errorf("%+v %v", f, got)
	}
	if e.Request.Door != access.SPOE || e.Request.Network.IP != netip.MustParseAddr("203.0.113.7") || e.Request.Query != "b=c" || e.Request.Scheme != "https" {
		t.Errorf("%+v", e.Request)
	}
	h.send(t, notify(1<<40, nil, "host", "shop.example"))
	if got := told(t, h.receive(t, agentAck)); got["verdict"] != "challenge" || got["h_doorward_assertion"] != nil || got["reason"] != "login_required" {
		t.Errorf("%v", got)
	}
	// Many at once, on one connection, are all answered. HAProxy reads while it
	// writes.
	go func() {
		for i := range uint64(500) {
			h.Write(notify(i, nil, "host", "shop.example", "cookie", "doorward=alice").append(nil))
		}
	}()
	answered := map[uint64]bool{}
	for range 500 {
		f := h.receive(t, agentAck)
		answered[f.stream] = told(t, f)["verdict"] == "allow"
	}
	for i := range uint64(500) {
		if !answered[i] {
			t.Fatalf("%d is not allowed", i)
		}
	}
}

// A question that lacks something is denied, and so is one behind which there is a
// bug.
func TestStrictQuestions(t *testing.T) {
	a := startAgent(t, proxy.SideDoor{}, members{})
	h := a.dial(t)
	h.hello(t)
	ok := []string{"host", "shop.example", "cookie", "doorward=alice"}
	text := func(s string) []byte { return appendText([]byte{typeString}, s) }
	for name, q := range map[string]*frame{
		"no method":            notify(1, map[string][]byte{"method": nil}, ok...),
		"no target":            notify(1, map[string][]byte{"target": nil}, ok...),
		"no scheme":            notify(1, map[string][]byte{"tls": nil}, ok...),
		"a scheme as a text":   notify(1, map[string][]byte{"tls": text("true")}, ok...),
		"no source":            notify(1, map[string][]byte{"src": {typeNull}}, ok...),
		"no headers":           notify(1, map[string][]byte{"headers": nil}, ok...),
		"no host":              notify(1, nil, ok[2:]...),
		"two hosts":            notify(1, nil, append(ok, "host", "shop.example")...),
		"the end of a header":  notify(1, nil, append(ok, "a", "b\r\nc: d")...),
		"an absolute target":   notify(1, map[string][]byte{"target": text("https://shop.example/")}, ok...),
		"another route":        notify(1, map[string][]byte{"route": text("other")}, ok...),
		"a route of no name":   notify(1, map[string][]byte{"route": text("")}, ok...),
		"a certificate's name": notify(1, map[string][]byte{"certificate": text("laptop")}, ok...),
		"an empty frame":       {kind: haproxyNotify},
		"another message":      {kind: haproxyNotify, payload: append(appendText(nil, "other"), 0)},
		"two messages":         {kind: haproxyNotify, payload: append(notify(1, nil, ok...).payload, append(appendText(nil, "other"), 0)...)},
		"half a message":       {kind: haproxyNotify, payload: notify(1, nil, ok...).payload[:60]},
	} {
		h.send(t, q)
		if got := told(t, h.receive(t, agentAck)); got["verdict"] != "deny" && got["verdict"] != "challenge" || got["h_doorward_assertion"] != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	h.send(t, notify(1, map[string][]byte{"route": text("shop")}, ok...))
	if got := told(t, h.receive(t, agentAck)); got["verdict"] != "allow" {
		t.Errorf("its own route: %v", got)
	}
	bug := startAgent(t, proxy.SideDoor{}, members{panics: true}).dial(t)
	bug.hello(t)
	bug.send(t, notify(1, nil, ok...))
	if got := told(t, bug.receive(t, agentAck)); got["verdict"] != "deny" {
		t.Errorf("a bug: %v", got)
	}
	stranger := startAgent(t, proxy.SideDoor{Listen: "127.0.0.1:0", Peers: []string{"192.0.2.1"}}, members{}).dial(t)
	stranger.hello(t)
	stranger.send(t, notify(1, nil, ok...))
	if got := told(t, stranger.receive(t, agentAck)); got["verdict"] != "deny" {
		t.Errorf("a stranger: %v", got)
	}
}

// What does not follow the protocol ends the connection, with a word about why,
// and no other.
func TestProtocol(t *testing.T) {
	a := startAgent(t, proxy.SideDoor{}, members{})
	good := a.dial(t)
	good.hello(t)
	fragment := notify(1, nil).append(nil)
	fragment[8] = 0 // FIN
	huge := binary.BigEndian.AppendUint32(nil, 1<<30)
	for name, c := range map[string]struct {
		hello bool
		bytes []byte
	}{
		"a question first":  {false, notify(1, nil, "host", "shop.example").append(nil)},
		"another version":   {false, (&frame{kind: haproxyHello, payload: appendUint(appendString(nil, "supported-versions", "3.0"), "max-frame-size", 16380)}).append(nil)},
		"tiny frames":       {false, helloFrame(10).append(nil)},
		"HTTP":              {false, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		"a fragment":        {true, fragment},
		"a huge frame":      {true, huge},
		"an unknown frame":  {true, (&frame{kind: 77}).append(nil)},
		"a key twice":       {false, helloFrame(16380, appendString(nil, "capabilities", "x")...).append(nil)},
		"a value of 15":     {false, helloFrame(16380, append(appendText(nil, "x"), 15)...).append(nil)},
		"a value cut short": {false, helloFrame(16380, append(appendText(nil, "x"), typeString, 9)...).append(nil)},
	} {
		h := a.dial(t)
		if c.hello {
			h.hello(t)
		}
		h.Write(c.bytes)
		d := decoder{b: h.receive(t, agentDisconnect).payload}
		if got := d.list(-1); got["status-code"] != uint64(statusInvalid) {
			t.Errorf("%s: %v", name, got)
		}
		if _, err := h.r.ReadByte(); err == nil {
			t.Errorf("%s: the connection stays", name)
		}
	}
	good.send(t, notify(1, nil, "host", "shop.example"))
	good.receive(t, agentAck)
	probe := a.dial(t)
	probe.send(t, helloFrame(16380, append(appendText(nil, "healthcheck"), typeBool|flagTrue)...))
	probe.receive(t, agentHello)
	probe.receive(t, agentDisconnect)
	left := a.dial(t)
	left.hello(t)
	left.send(t, &frame{kind: haproxyDisconnect})
	left.receive(t, agentDisconnect)
}

// Shutdown tells every connection, and waits for nobody who is silent.
func TestShutdown(t *testing.T) {
	a := startAgent(t, proxy.SideDoor{}, members{})
	h := a.dial(t)
	h.hello(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	h.receive(t, agentDisconnect)
	if _, err := net.Dial(a.listener.Addr().Network(), a.listener.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}

// Leaving answers what comes, and closes a connection when nothing comes any more.
func TestLeave(t *testing.T) {
	a := startAgent(t, proxy.SideDoor{}, members{})
	h := a.dial(t)
	h.hello(t)
	question := notify(1, nil).append(nil)
	if _, err := h.Write(question[:7]); err != nil {
		t.Fatal(err)
	}
	for begun := false; !begun; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		for c := range a.conns {
			begun = !c.between
		}
		a.mu.Unlock()
	}
	left := make(chan error, 1)
	go func() { left <- a.Leave(t.Context()) }()
	time.AfterFunc(2*quiet, func() { h.Write(question[7:]) }) // what has begun may take its time
	h.receive(t, agentAck)
	h.receive(t, agentDisconnect)
	if err := <-left; err != nil {
		t.Error(err)
	}
}

// The form of integers is HAProxy's own: the first two are the examples of the
// specification's table, at the edges of its rows.
func TestVarint(t *testing.T) {
	for v, want := range map[uint64]string{0: "00", 239: "ef", 240: "f000", 2287: "ff7f", 2288: "f08000", 264431: "ffff7f", 264432: "f0808000", 1<<64 - 1: "fff0feffffffffffff0e"} {
		b := appendVarint(nil, v)
		d := decoder{b: b}
		if got := d.varint(); got != v || d.err != nil || len(d.b) > 0 {
			t.Errorf("%d reads %d, %v", v, got, d.err)
		}
		if v < 1<<20 && hex.EncodeToString(b) != want {
			t.Errorf("%d is %x, want %s", v, b, want)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(helloFrame(16380).append(nil))
	f.Add(notify(1, nil, "host", "shop.example", "cookie", "a=b").append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		read, err := readFrame(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		again, err := readFrame(strings.NewReader(string(read.append(nil))))
		if err != nil || again.stream != read.stream || again.frame != read.frame || string(again.payload) != string(read.payload) {
			t.Fatalf("%+v reads back as %+v, %v", read, again, err)
		}
		q, err := question(t.Context(), "@", read.payload)
		if err != nil {
			return
		}
		if q.Request.Method == "" || q.Request.RequestURI == "" || q.Request.Host == "" || len(q.Request.Header["X-Forwarded-For"]) != 1 || q.Request.URL == nil {
			t.Fatalf("%+v", q.Request)
		}
	})
}
