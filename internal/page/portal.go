package page

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// App is an application on the portal.
type App struct {
	// Title is its name, URL its start page.
	Title, URL string
	// Decision is the verdict on opening it now.
	Decision access.Decision
}

// Refusal is what opening a locked application would be answered with.
func (a *App) Refusal(now time.Time) Refusal {
	return Refusal{Reason: a.Decision.Reason, Decision: &a.Decision, Time: now}
}

// PortalData fills the portal.
type PortalData struct {
	// User is who is logged in, Time is now.
	User string
	Time time.Time
	// Apps are the applications, in order.
	Apps []App
	// Device is what is known of the device.
	Device access.Device
	// Session is the id of the session at hand; Sessions are all of the person, and
	// MoreSessions tells that there are others.
	Session      string
	Sessions     []access.SessionInfo
	MoreSessions bool
	// LogoutURL takes a form that logs out, with everywhere=1 from all sessions and
	// with session=ID from another one only.
	// SwitchURL logs in with another account.
	LogoutURL, SwitchURL string
}

type portalView struct {
	layout
	User                 string
	Open                 []openApp
	Locked               []lockedApp
	Device               deviceView
	Sessions             []sessionView
	MoreSessions         bool
	LogoutURL, SwitchURL string
}

type openApp struct{ Title, Host, URL string }

// lockedApp says of an application what its refusal page would say.
type lockedApp struct {
	refusalView
	App, Host, URL, Go string
}

type deviceView struct {
	Headline, Text, Cure string
	Name, OS, Seen       string
	Source               string
	Facts                []fact
	Reasons              []string
}

type fact struct{ Name, Value string }

type sessionView struct {
	Here                 bool
	Number               int // in the list
	ID                   string
	Since, Used, Expires string
	Origins              []string
	Open                 int
}

// Portal writes the page of a person's applications, device and sessions. With
// head it writes the header only.
func Portal(w http.ResponseWriter, head bool, d PortalData) {
	view := portalView{layout: newLayout("Your applications", ""), User: plain(d.User, maxLine),
		MoreSessions: d.MoreSessions, LogoutURL: webURL(d.LogoutURL), SwitchURL: webURL(d.SwitchURL)}
	for i := range d.Apps {
		a := &d.Apps[i]
		title, to := plain(a.Title, maxLine), webURL(a.URL)
		place := address(to)
		if place == title {
			place = "" // the title says it already
		}
		if a.Decision.Outcome == access.Allow {
			view.Open = append(view.Open, openApp{title, place, to})
			continue
		}
		locked := lockedApp{refusalView: newRefusalView(a.Refusal(d.Time)), App: title, Host: place}
		if a.Decision.Outcome == access.Challenge {
			locked.URL, locked.Go = to, "Try it again"
			if _, login := a.Decision.LoginOnly(); login {
				locked.Go = "Log in and open it"
			}
		}
		view.Locked = append(view.Locked, locked)
	}
	view.Device = newDeviceView(&d.Device, d.Time)
	for i := range d.Sessions {
		one := newSessionView(&d.Sessions[i], d.Session, d.Time)
		one.Number = i + 1
		view.Sessions = append(view.Sessions, one)
	}
	formHeaders(w.Header())
	write(w, head, http.StatusOK, portalPage, view)
}

// address is a URL as people read it: host and path, without the scheme.
func address(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		return ""
	}
	return plain(u.Host+strings.TrimSuffix(u.Path, "/"), maxLine)
}

// newDeviceView says in words what is known. What is wrong with how the device
// identified itself comes in the words of the refusal page.
func newDeviceView(d *access.Device, now time.Time) deviceView {
	view := deviceView{Name: plain(d.Name, maxLine), OS: plain(strings.TrimSpace(systems[d.OS]+" "+d.OSVersion), maxLine),
		Seen: since(d.SeenAt, now), Source: plain(d.Source, maxLine)}
	reason := d.Problem
	switch {
	case reason == "" && d.ID == "":
		reason = access.DeviceMissing
	case reason == "" && d.Known == access.No:
		reason = access.DeviceUnknown
	}
	if reason != "" {
		info := reason.Info()
		view.Headline, view.Text, view.Cure = info.Title, info.Text, info.Cure
		if reason == access.DeviceMissing { // its text is about one application
			view.Headline, view.Text, view.Cure = "Your device did not identify itself",
				"Nothing is known about it, so applications for managed devices stay locked.", info.Cure
		}
		return view
	}
	for _, f := range []struct {
		name  string
		value access.Tri
	}{{"Managed", d.Managed}, {"Compliant", d.Compliant}, {"Disk encrypted", d.DiskEncrypted}} {
		view.Facts = append(view.Facts, fact{f.name, f.value.String()})
	}
	for _, text := range d.Reasons[:min(len(d.Reasons), maxDetails)] {
		view.Reasons = append(view.Reasons, plain(text, maxLine))
	}
	return view
}

// systems are operating systems as their makers write them.
var systems = map[string]string{"macos": "macOS", "windows": "Windows", "linux": "Linux", "ios": "iOS", "android": "Android", "chromeos": "ChromeOS"}

func newSessionView(s *access.SessionInfo, here string, now time.Time) sessionView {
	view := sessionView{Here: s.ID == here, ID: s.ID, Since: since(s.Created, now), Used: since(s.Used, now), Open: s.Open}
	if !s.Expires.IsZero() {
		view.Expires = s.Expires.UTC().Format("2006-01-02 15:04 MST")
	}
	for _, origin := range s.Origins[:min(len(s.Origins), maxDetails)] {
		view.Origins = append(view.Origins, address(origin))
	}
	return view
}
