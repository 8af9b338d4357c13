package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// laptops is an inventory of one laptop whose record changes when it is asked.
type laptops struct {
	asked atomic.Int32
	slow  bool

	mu     sync.Mutex
	passes bool // as last read
	truth  bool // what the next reading says
}

func (l *laptops) Inspect(_ *http.Request, req *access.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !req.Identity.Nobody() {
		req.Device = access.Device{ID: "laptop-7", Source: "inv", Known: access.Yes, Compliant: access.TriOf(l.passes), SeenAt: req.Time}
	}
	return nil
}

func (l *laptops) Recheck(context.Context, *access.Device) bool {
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.slow {
		l.passes = l.truth
	}
	return !l.slow
}

func (l *laptops) cure() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.truth = true
}

// forget makes it slow to answer, with the laptop failing.
func (l *laptops) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slow, l.passes = true, false
}

// compliantOnly wants a login, and then a compliant device.
func compliantOnly(req *access.Request) access.Decision {
	if d := loginFirst(req); d.Outcome != access.Allow || req.Device.Compliant == access.Yes {
		return d
	}
	return access.Decision{Outcome: access.Challenge, Reason: access.DeviceNotCompliant,
		Needs: []access.Need{{Reason: access.DeviceNotCompliant, Source: "inv", Fix: "https://it.example/fix"}}}
}

// doorClock is what time the door thinks it is.
type doorClock struct{ since atomic.Int64 }

func (c *doorClock) now() time.Time          { return epoch.Add(time.Duration(c.since.Load())) }
func (c *doorClock) advance(d time.Duration) { c.since.Add(int64(d)) }

func laptopWorld(t *testing.T) (*world, *laptops, *doorClock) {
	l, c := &laptops{}, &doorClock{}
	w := loginWorld(t, compliantOnly, func(w *world) { w.snapshot.Inspect, w.snapshot.Recheck = l, l })
	w.door.now = c.now
	return w, l, c
}

// fromPage are the headers of a browser that posts a form of our own page.
func fromPage(more ...string) []string {
	return append(append([]string{"Sec-Fetch-Site", "same-origin", "Cookie", "doorward=alice"}, browser...), more...)
}

const recheckURL = "http://app.example" + access.RecheckPath

func TestCheckAgainTellsTheTruth(t *testing.T) {
	w, l, now := laptopWorld(t)
	res, page := w.ask("GET", "http://app.example/orders?x=1", append([]string{"Cookie", "doorward=alice"}, browser...)...)
	if res.StatusCode != 403 || !strings.Contains(page, `<form method="post" action="/.doorward/recheck?return=%2Forders%3Fx%3D1">`) || !strings.Contains(page, "Check again") {
		t.Fatalf("%d %s", res.StatusCode, page)
	}
	if l.asked.Load() != 0 {
		t.Error("the inventory was asked before anybody wanted it")
	}

	res, page = w.ask("POST", recheckURL+"?return=%2Forders%3Fx%3D1", fromPage()...)
	for _, want := range []string{"Checked just now: this device still does not pass.", "This device is not compliant", "https://it.example/fix", "/.doorward/recheck?return=%2Forders%3Fx%3D1", `href="http://app.example/orders?x=1"`} {
		if res.StatusCode != 403 || !strings.Contains(page, want) {
			t.Errorf("%d, without %q: %s", res.StatusCode, want, page)
		}
	}
	// An event may come later than the answer, and so in any order.
	got := w.rec.event(t)
	for got.Request.Path != access.RecheckPath {
		got = w.rec.event(t)
	}
	if got.Decision != nil {
		t.Errorf("recorded as a decision on another address: %+v", got)
	}

	now.advance(time.Minute)
	l.cure()
	res, _ = w.ask("POST", recheckURL+"?return=%2Forders%3Fx%3D1", fromPage()...)
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "http://app.example/orders?x=1" || l.asked.Load() != 2 {
		t.Errorf("%d to %q, %d readings", res.StatusCode, res.Header.Get("Location"), l.asked.Load())
	}
}

func TestCheckAgainForPrograms(t *testing.T) {
	w, l, now := laptopWorld(t)
	fetch := []string{"Cookie", "doorward=alice", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}
	res, body := w.ask("POST", recheckURL+"?return=/x", fetch...)
	var doc struct {
		Reason, Notice string
		Needs          []struct{ Reason, Title, Fix string }
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || res.StatusCode != 403 || doc.Reason != "device_not_compliant" || doc.Notice == "" || len(doc.Needs) != 1 || doc.Needs[0].Fix == "" {
		t.Errorf("%d %s (%v)", res.StatusCode, body, err)
	}
	now.advance(time.Minute)
	l.cure()
	if res, body := w.ask("POST", recheckURL+"?return=/x", fetch...); res.StatusCode != 200 || strings.TrimSpace(body) != `{"outcome":"allow"}` {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	now.advance(time.Minute)
	l.forget()
	if _, body := w.ask("POST", recheckURL, fetch...); !strings.Contains(body, "has not answered yet") {
		t.Errorf("got %s", body)
	}
}

// Nobody but the person at the browser, on a page of the same origin, can have
// an inventory asked, and a stranger learns nothing.
func TestCheckAgainIsForNobodyElse(t *testing.T) {
	w, l, _ := laptopWorld(t)
	for name, c := range map[string]struct {
		method  string
		target  string
		headers []string
		status  int
	}{
		"another site":           {"POST", "", fromPage("Sec-Fetch-Site", "cross-site")[2:], 403},
		"a sibling":              {"POST", "", append([]string{"Cookie", "doorward=alice", "Sec-Fetch-Site", "same-site"}, browser...), 403},
		"an old browser, abroad": {"POST", "", []string{"Cookie", "doorward=alice", "Origin", "http://evil.example", "Accept", "text/html"}, 403},
		"an opaque origin":       {"POST", "", []string{"Cookie", "doorward=alice", "Origin", "null", "Accept", "text/html"}, 403},
		"no word of its origin":  {"POST", "", []string{"Cookie", "doorward=alice", "Accept", "text/html"}, 403},
		"a link":                 {"GET", "", fromPage(), 405},
		"a stranger":             {"POST", "", append([]string{"Sec-Fetch-Site", "same-origin"}, browser...), 401},
		"a stranger's program":   {"POST", "", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, 401},
		"back to another host":   {"POST", "?return=" + "%2F%2Fevil.example%2F", fromPage(), 400},
		"back to no path":        {"POST", "?return=https%3A%2F%2Fevil.example", fromPage(), 400},
		"back through a dot":     {"POST", "?return=%2Fa%2F..%2Fb", fromPage(), 400},
		"back with a line break": {"POST", "?return=%2Fa%0d%0aSet-Cookie:x", fromPage(), 400},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := w.ask(c.method, recheckURL+c.target, c.headers...)
			if res.StatusCode != c.status || strings.Contains(body, "compliant") || strings.Contains(body, "laptop") || res.Header.Get("Location") != "" {
				t.Errorf("%d %q %s", res.StatusCode, res.Header, body)
			}
		})
	}
	if n := l.asked.Load(); n != 0 {
		t.Errorf("the inventory was asked %d times", n)
	}
	w.snapshot.Recheck = nil
	if res, _ := w.ask("POST", recheckURL, fromPage()...); res.StatusCode != 404 {
		t.Errorf("without inventories: %d", res.StatusCode)
	}
}

func TestCheckAgainIsLimited(t *testing.T) {
	w, l, now := laptopWorld(t)
	post := func(who string) int {
		headers := fromPage()
		headers[3] = "doorward=" + who
		res, body := w.ask("POST", recheckURL, headers...)
		if limited := res.StatusCode == 429; limited != strings.Contains(body, "checked a moment ago") || limited && res.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s", res.StatusCode, body)
		}
		return res.StatusCode
	}
	for n, want := range []int{403, 403, 429, 429} {
		if got := post("alice"); got != want {
			t.Errorf("alice, check %d: %d", n+1, got)
		}
	}
	if got := post("bob"); got != 403 {
		t.Errorf("alice's checks kept bob from his: %d", got)
	}
	now.advance(oneRechecks.every)
	if first, second := post("alice"), post("alice"); first != 403 || second != 429 {
		t.Errorf("ten seconds later: %d, %d", first, second)
	}
	now.advance(time.Minute)
	l.asked.Store(0)
	for n := range 30 {
		post("visitor-" + strings.Repeat("x", n))
	}
	if n := l.asked.Load(); int(n) != allRechecks.burst {
		t.Errorf("thirty visitors at once had it asked %d times", n)
	}
}

func TestNoButtonWhereAskingAgainIsNoCure(t *testing.T) {
	for reason, want := range map[access.Reason]bool{
		access.DeviceNotCompliant: true, access.DeviceFactsTooOld: true, access.DeviceSourceUnavailable: true,
		access.DeviceMissing: false, access.DeviceCertExpired: false, access.DeviceMismatch: false, access.DeviceCertMissing: false,
	} {
		l := &laptops{}
		w := loginWorld(t, func(*access.Request) access.Decision {
			return access.Decision{Outcome: access.Challenge, Reason: reason, Needs: []access.Need{{Reason: reason}}}
		}, func(w *world) { w.snapshot.Inspect, w.snapshot.Recheck = l, l })
		if _, page := w.ask("GET", "http://app.example/", append([]string{"Cookie", "doorward=alice"}, browser...)...); strings.Contains(page, "Check again") != want {
			t.Errorf("%s: %s", reason, page)
		}
		if _, page := w.ask("GET", "http://app.example/", browser...); strings.Contains(page, "Check again") {
			t.Errorf("%s, for a stranger: %s", reason, page)
		}
	}
}
