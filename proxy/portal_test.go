package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// people keeps sessions by subject.
type people struct {
	of  map[string][]access.SessionInfo
	err error
}

func (p *people) OfPerson(_ context.Context, issuer, subject string, limit int) ([]access.SessionInfo, bool, error) {
	if p.err != nil || issuer != "https://idp" {
		return nil, false, p.err
	}
	list := slices.Clone(p.of[subject])
	return list[:min(limit, len(list))], len(list) > limit, nil
}

// byRoute lets people into "open-…", and tells why not elsewhere.
func byRoute(req *access.Request) access.Decision {
	switch d := loginFirst(req); {
	case d.Outcome != access.Allow || strings.HasPrefix(req.Route, "open"):
		return d
	case strings.HasPrefix(req.Route, "device"):
		return access.Decision{Outcome: access.Challenge, Reason: access.DeviceNotEncrypted,
			Needs: []access.Need{{Reason: access.DeviceNotEncrypted, Fix: "https://it.example/disk"}}}
	case strings.HasPrefix(req.Route, "stronger"):
		return access.Decision{Outcome: access.Challenge, Reason: access.ACRInsufficient, Needs: []access.Need{{Reason: access.ACRInsufficient}}}
	}
	return access.Decision{Reason: access.NotAllowed, Nearest: &access.NearMiss{Rule: "secret-rule", Missing: []access.Miss{{Condition: "groups", Want: "secret-group"}}}}
}

func portalRoutes() []access.Route {
	shown := func(title string) access.Portal { return access.Portal{Title: title, ShowLocked: true} }
	var list []access.Route
	for _, r := range []access.Route{
		{ID: "open", From: "http://app.example"},
		{ID: "open-titled", From: "https://wiki.example/team", Portal: access.Portal{Title: "A wiki"}},
		{ID: "open-hidden", From: "http://secret-hidden.example", Portal: access.Portal{Hidden: true}},
		{ID: "open-wild", From: "http://*.secret-wild.example"},
		{ID: "device", From: "http://secret-device.example"},
		{ID: "device-shown", From: "http://disk.example", Portal: shown("Disk")},
		{ID: "stronger", From: "http://secret-stronger.example"},
		{ID: "stronger-shown", From: "http://strong.example", Portal: shown("Strong")},
		{ID: "not", From: "http://secret-not.example", Portal: access.Portal{Title: "secret-title"}},
		{ID: "not-shown", From: "http://board.example", Portal: shown("Board")},
	} {
		r.To = []string{"http://127.0.0.1:1"}
		list = append(list, r)
	}
	return list
}

func portalWorld(t *testing.T, changes ...change) *world {
	mine := &people{of: map[string][]access.SessionInfo{
		"alice": {
			{Session: access.Session{ID: "s-older", Created: epoch}, Used: epoch},
			{Session: access.Session{ID: "s-alice", Created: epoch}, Used: epoch, Origins: []string{"http://app.example"}},
			{Session: access.Session{ID: "s-newer", Created: epoch}, Used: epoch.Add(1)},
		},
		"bob": {{Session: access.Session{ID: "s-of-bob"}}},
	}}
	return newWorld(t, portalRoutes(), append([]change{withPolicy(byRoute), func(w *world) { w.snapshot.Sessions = mine }}, changes...)...)
}

const portalURL = "http://app.example" + access.PortalPath

// What one cannot open, and was not to be shown locked, leaves no trace: neither
// on the page nor in the document.
func TestPortalShowsWhatMayBeKnown(t *testing.T) {
	w := portalWorld(t)
	res, page := w.ask("GET", portalURL, append([]string{"Cookie", asAlice}, browser...)...)
	for _, want := range []string{
		`href="http://app.example/"`, `href="https://wiki.example/team/"`, "A wiki",
		"Disk", access.DeviceNotEncrypted.Info().Title, "https://it.example/disk",
		"Strong", access.ACRInsufficient.Info().Text, "Log in and open it", `href="http://strong.example/"`,
		"Board", access.NotAllowed.Info().Text,
		"alice@corp.example", "Laptop", "This browser", `name="everywhere" value="1"`,
	} {
		if res.StatusCode != 200 || !strings.Contains(page, want) {
			t.Errorf("%d, without %q: %s", res.StatusCode, want, page)
		}
	}
	if strings.Contains(page, `href="http://board.example/"`) {
		t.Error("a link to what no login and no repair opens")
	}
	_, doc := w.ask("GET", portalURL, "Cookie", asAlice, "Accept", "application/json")
	for name, text := range map[string]string{"page": page, "document": doc} {
		if strings.Contains(text, "secret") || strings.Contains(text, "s-of-bob") {
			t.Errorf("the %s tells too much: %s", name, text)
		}
	}
	if res.Header.Get("Cache-Control") != "no-store" || !strings.Contains(res.Header.Get("Vary"), "Cookie") {
		t.Error(res.Header)
	}
	event := w.rec.event(t)
	if event.Decision != nil || event.Request.Path != access.PortalPath {
		t.Errorf("recorded as a decision: %+v", event)
	}
}

func TestPortalForPrograms(t *testing.T) {
	w := portalWorld(t)
	res, body := w.ask("GET", portalURL, "Cookie", asAlice, "Accept", "application/json")
	var doc struct {
		User string
		Apps []struct {
			Title, URL string
			Open       bool
			Locked     *struct {
				Reason string
				Needs  []struct{ Fix string }
			}
		}
		Device   struct{ Name string }
		Session  string
		Sessions []access.SessionInfo
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || res.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %s", err, body)
	}
	var told []string
	for _, a := range doc.Apps {
		line := a.Title + " " + a.URL
		if a.Locked != nil {
			line += " " + a.Locked.Reason
		}
		if a.Open == (a.Locked != nil) {
			t.Errorf("%+v", a)
		}
		told = append(told, line)
	}
	want := []string{"A wiki https://wiki.example/team/", "app.example http://app.example/", "Board http://board.example/ not_allowed",
		"Disk http://disk.example/ device_not_encrypted", "Strong http://strong.example/ acr_insufficient"}
	if !slices.Equal(told, want) {
		t.Errorf("%q", told)
	}
	if doc.User != "corp:alice" || doc.Device.Name != "Laptop" || doc.Session != "s-alice" || len(doc.Sessions) != 3 ||
		doc.Sessions[0].ID != "s-alice" || doc.Sessions[1].ID != "s-newer" {
		t.Errorf("%+v", doc)
	}
}

// A person who is not logged in is sent to log in and comes back; a program is
// told. A store that fails is no empty list.
func TestPortalForStrangers(t *testing.T) {
	w := portalWorld(t)
	if res, body := w.ask("GET", portalURL, browser...); res.StatusCode != 302 || !strings.HasPrefix(res.Header.Get("Location"), "https://idp.example/") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res, body := w.ask("GET", portalURL, "Accept", "application/json"); res.StatusCode != 401 || !strings.Contains(body, "login_required") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res, _ := w.ask("POST", portalURL, fromPage()...); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a form: %d", res.StatusCode)
	}
	if res, body := w.ask("GET", portalURL, append([]string{"Cookie", "doorward=broken"}, browser...)...); res.StatusCode != 503 || strings.Contains(body, "half") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	w = portalWorld(t, func(w *world) {
		w.snapshot.Sessions = &people{err: access.Becausef(access.StoreUnavailable, "disk full")}
	})
	if res, body := w.ask("GET", portalURL, append([]string{"Cookie", asAlice}, browser...)...); res.StatusCode != 503 || strings.Contains(body, "disk full") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestPortalFaults(t *testing.T) {
	for want, r := range map[string]access.Route{
		"routes[0].portal.title":  {From: "http://a.example", Portal: access.Portal{Title: strings.Repeat("é", maxTitle+1)}},
		"routes[0].portal.hidden": {From: "http://a.example", Portal: access.Portal{Hidden: true, ShowLocked: true}},
		"routes[0].portal":        {From: "http://*.a.example", Portal: access.Portal{ShowLocked: true}},
		"routes[0].portal ":       {From: "tcp://a.example:22", Portal: access.Portal{Title: "SSH"}},
	} {
		r.ID, r.To = "a", []string{"http://127.0.0.1:1"}
		if strings.HasPrefix(r.From, "tcp") {
			r.To = []string{"tcp://127.0.0.1:1"}
		}
		want = strings.TrimSpace(want) // two cases are about one path
		_, faults := NewTable([]access.Route{r})
		if len(faults) != 1 || faults[0].Path != want || faults[0].Cure == "" {
			t.Errorf("%s: %+v", want, faults)
		}
	}
	r := access.Route{ID: "a", From: "http://a.example", To: []string{"http://127.0.0.1:1"}, Portal: access.Portal{Title: "a\u202eb"}}
	if _, faults := NewTable([]access.Route{r}); len(faults) != 1 {
		t.Errorf("%+v", faults)
	}
}
