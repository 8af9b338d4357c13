package page

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const incident = "0d9a5c3e-7f21-4b8a-9c64-2f1e6b7a8d90"

// samples are pages as visitors of the demo meet them. They are what the tests
// below look at; with DOORWARD_PAGES=DIR they are also written to files, to be
// looked at in a browser.
func samples() map[string]*httptest.ResponseRecorder {
	ways := []Link{
		{Text: "Try again", URL: "https://billing.example.com/invoices?month=11", Primary: true},
		{Text: "Use another account", URL: "/.doorward/login?select=1"},
		{Text: "Log out", URL: "/.doorward/logout", Post: true},
	}
	base := Refusal{RequestID: incident, Time: noon, App: "billing.example.com", Links: ways}
	as := func(user string, reason access.Reason, d *access.Decision) Refusal {
		rf := base
		rf.User, rf.Reason, rf.Decision = user, reason, d
		return rf
	}
	needs := func(list ...access.Need) *access.Decision {
		return &access.Decision{Outcome: access.Challenge, Reason: list[0].Reason, Needs: list}
	}
	out := map[string]*httptest.ResponseRecorder{}
	refuse := func(name string, rf Refusal) {
		rec := httptest.NewRecorder()
		Refuse(rec, false, rf)
		out[name] = rec
	}

	refuse("device-missing", as("bob@example.com", access.DeviceMissing, needs(
		access.Need{Reason: access.DeviceMissing, Profile: "managed", Fix: "https://it.example.com/enrol"})))
	refuse("device-several", as("carol@example.com", access.DeviceNotCompliant, needs(
		access.Need{Reason: access.DeviceNotCompliant, Source: "intune", Since: noon.Add(-5 * time.Hour),
			Details: []string{"Firewall is turned off", "Screen lock after more than 15 minutes"}, Fix: "https://it.example.com/fix"},
		access.Need{Reason: access.DeviceNotEncrypted, Source: "intune", Since: noon.Add(-5 * time.Hour), Fix: "https://it.example.com/filevault"},
		access.Need{Reason: access.DeviceOSTooOld, Want: "15.5", Got: "14.2", Source: "intune", Since: noon.Add(-5 * time.Hour), Fix: "https://it.example.com/update"},
		access.Need{Reason: access.ACRInsufficient, Want: "phr"})))
	refuse("device-too-old", as("dave@example.com", access.DeviceFactsTooOld, needs(
		access.Need{Reason: access.DeviceFactsTooOld, Want: "24h", Got: "720h", Source: "inventory", Since: noon.Add(-30 * 24 * time.Hour), Fix: "https://it.example.com/sync"})))
	refuse("not-allowed", as("erin@partner.example.net", access.NotAllowed, &access.Decision{Reason: access.NotAllowed}))
	refuse("not-now", as("alice@example.com", access.NotAllowed, &access.Decision{Reason: access.NotAllowed,
		Nearest: &access.NearMiss{Rule: "allow/oncall", Missing: []access.Miss{{Condition: "time", Want: "08:00-18:00", Got: "22:10"}}}}))
	refuse("denied-by-rule", as("alice@example.com", access.DeniedByRule, &access.Decision{Reason: access.DeniedByRule,
		Rule: "deny/no-deletes-from-abroad", Message: "Deleting is possible only from DE or AT."}))
	down := as("", access.ProviderUnavailable, nil)
	down.Links = ways[:1]
	refuse("provider-down", down)
	refuse("upstream-down", as("alice@example.com", access.UpstreamUnreachable, nil))
	lost := base
	lost.Reason, lost.Links, lost.App = access.NoRoute, nil, ""
	refuse("no-route", lost)

	page := func(name string, f func(*httptest.ResponseRecorder)) {
		rec := httptest.NewRecorder()
		f(rec)
		out[name] = rec
	}
	choices := []Choice{{"Example Corp", "/.doorward/login?provider=corp&flow=1"}, {"Partners", "/.doorward/login?provider=partners&flow=1"}}
	page("chooser", func(w *httptest.ResponseRecorder) {
		Chooser(w, ChooserData{App: "billing.example.com", Choices: choices, EmailAction: "/.doorward/login", Hidden: map[string]string{"flow": "1"}})
	})
	page("chooser-email", func(w *httptest.ResponseRecorder) {
		Chooser(w, ChooserData{App: "billing.example.com", EmailAction: "/.doorward/login", Email: "alice@exmaple.com",
			Error: "No identity provider is known for this address. Check it for typing errors."})
	})
	page("signed-out", func(w *httptest.ResponseRecorder) {
		SignedOut(w, SignedOutData{User: "alice@example.com", ProviderMayRemain: true, AgainURL: "https://billing.example.com/"})
	})
	page("confirm-logout", func(w *httptest.ResponseRecorder) {
		ConfirmLogout(w, ConfirmData{User: "alice@example.com", Action: "/.doorward/logout", Everywhere: true, CancelURL: "/"})
	})
	page("send-again", func(w *httptest.ResponseRecorder) {
		SendAgain(w, SendAgainData{App: "billing.example.com", User: "alice@example.com", Target: "https://billing.example.com/invoices?month=11",
			Size: 321, Since: noon, Hidden: map[string]string{"form": "1"}})
	})
	page("portal", func(w *httptest.ResponseRecorder) {
		Portal(w, false, PortalData{User: "carol@example.com", Time: noon, Session: "s1", MoreSessions: true,
			LogoutURL: "/.doorward/logout", SwitchURL: "/.doorward/login?switch=1",
			Apps: []App{
				{Title: "Wiki", URL: "https://wiki.example.com/", Decision: access.Decision{Outcome: access.Allow, Reason: access.Allowed}},
				{Title: "paste.example.com", URL: "https://paste.example.com/", Decision: access.Decision{Outcome: access.Allow, Reason: access.Allowed}},
				{Title: "Billing", URL: "https://billing.example.com/", Decision: *needs(
					access.Need{Reason: access.DeviceNotCompliant, Source: "intune", Since: noon.Add(-5 * time.Hour), Details: []string{"Firewall is turned off"}, Fix: "https://it.example.com/fix"},
					access.Need{Reason: access.DeviceOSTooOld, Want: "15.5", Got: "14.2", Source: "intune", Since: noon.Add(-5 * time.Hour), Fix: "https://it.example.com/update"})},
				{Title: "Payroll", URL: "https://payroll.example.com/", Decision: *needs(access.Need{Reason: access.ACRInsufficient, Want: "phr"})},
				{Title: "Board", URL: "https://board.example.com/", Decision: access.Decision{Reason: access.NotAllowed}},
			},
			Device: access.Device{ID: "l", Known: access.Yes, Managed: access.Yes, Compliant: access.No, Name: "carol's laptop", OS: "macos", OSVersion: "14.2",
				Source: "intune", SeenAt: noon.Add(-5 * time.Hour), Reasons: []string{"Firewall is turned off"}},
			Sessions: []access.SessionInfo{
				{Session: access.Session{ID: "s1", Created: noon.Add(-time.Hour), Expires: noon.Add(9 * time.Hour)}, Used: noon, Origins: []string{"https://auth.example.com", "https://wiki.example.com"}, Open: 2},
				{Session: access.Session{ID: "s2", Created: noon.Add(-30 * time.Hour)}, Used: noon.Add(-29 * time.Hour)}},
		})
	})
	return out
}

func TestWriteSamples(t *testing.T) {
	dir := os.Getenv("DOORWARD_PAGES")
	if dir == "" {
		t.Skip("set DOORWARD_PAGES to a directory to look at the pages")
	}
	for name, rec := range samples() {
		if err := os.WriteFile(filepath.Join(dir, name+".html"), rec.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
