package proxy

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
)

// maxPortalSessions is how many of a person's sessions the portal shows.
const maxPortalSessions = 20

// maxTitle is the longest title of an application, in characters.
const maxTitle = 80

// app is a route as the portal lists it.
type app struct {
	title, url string
	showLocked bool
	// route, scheme, host and path are those of a request for its start page.
	route, scheme, host, path string
}

// start returns a request for its start page.
func (a *app) start() access.Request {
	return access.Request{Method: http.MethodGet, Scheme: a.scheme, Host: a.host, Path: a.path, Route: a.route}
}

func byTitle(a, b app) int {
	return cmp.Or(strings.Compare(strings.ToLower(a.title), strings.ToLower(b.title)), strings.Compare(a.url, b.url))
}

// list adds a route to what the portal may list. Neither a wildcard host nor a
// tunnel has an address that a link could lead to. What is wrong with the address
// is reported by add.
func (t *Table) list(route *access.Route, f access.Faults) {
	want := &route.Portal
	switch {
	case utf8.RuneCountInString(want.Title) > maxTitle:
		f.At("title").Add("make it shorter", "the title has more than %d characters", maxTitle)
	case strings.ContainsFunc(want.Title, func(r rune) bool { return !unicode.IsPrint(r) }):
		f.At("title").Add("write it on one line, in letters that can be seen", "%q holds control characters", want.Title)
	}
	if want.Hidden && (want.ShowLocked || want.Title != "") {
		f.At("hidden").Add("keep hidden alone, or take it out", "the route is hidden, and has a way to be shown")
	}
	scheme, host, prefix, err := parseFrom(route.From)
	if strings.HasPrefix(host, "*") || strings.HasPrefix(route.From, "tcp:") {
		if want.ShowLocked || want.Title != "" {
			f.Add("take it out, or add a route for the one host that visitors start at", "%q has no start page that the portal could link to", route.From)
		}
		return
	}
	if err != nil || want.Hidden || route.Respond.Enabled() && want.Title == "" { // a fixed text is no application
		return
	}
	u := url.URL{Scheme: scheme, Host: host, Path: prefix + "/"}
	t.apps = append(t.apps, app{
		title: cmp.Or(want.Title, host+prefix), url: u.String(), showLocked: want.ShowLocked,
		route: route.ID, scheme: scheme, host: host, path: u.Path,
	})
}

// portal is the page of applications, for programs.
type portal struct {
	User   string      `json:"user"`
	Apps   []portalApp `json:"apps"`
	Device meDevice    `json:"device"`
	// Session is the id of the one that asks; Sessions are all of the person, and
	// MoreSessions tells that some were left out.
	Session      string               `json:"session,omitempty"`
	Sessions     []access.SessionInfo `json:"sessions,omitempty"`
	MoreSessions bool                 `json:"more_sessions,omitempty"`
	Now          time.Time            `json:"now"`
}

type portalApp struct {
	Title string `json:"title"`
	URL   string `json:"url"`
	Open  bool   `json:"open"`
	// Locked is the problem document that opening it would be answered with.
	Locked any `json:"locked,omitempty"`
}

// servePortal shows what the visitor can open from this device at this moment,
// what of the rest may be told of, and their sessions. Each application is
// decided on as a GET of its start page would be; nothing of that is recorded as
// a decision, since nobody asked for the application.
func (p *passage) servePortal() {
	if !p.readable() {
		return
	}
	p.identify()
	p.inspect()
	person := kindOf(p.in) == navigation
	if reason := p.unknown(); reason != "" {
		p.portalForNobody(reason, person)
		return
	}
	sessions, more, err := p.mySessions()
	if err != nil {
		p.refuseServing(err)
		return
	}
	varies(p.out.Header())
	apps := p.myApps()
	if person {
		page.Portal(&p.out, p.in.Method == http.MethodHead, page.PortalData{
			User: displayName(&p.req.Identity), Time: p.req.Time, Apps: apps,
			Device: p.req.Device, Session: p.req.Session.ID, Sessions: sessions, MoreSessions: more,
			LogoutURL: access.LogoutPath, SwitchURL: access.LoginPath + "?switch=1&return=" + url.QueryEscape(access.PortalPath),
		})
		return
	}
	answer := portal{User: p.req.Identity.User(), Apps: []portalApp{}, Device: newMeDevice(&p.req.Device), Now: p.req.Time,
		Session: p.req.Session.ID, Sessions: sessions, MoreSessions: more}
	for _, a := range apps {
		entry := portalApp{Title: a.Title, URL: a.URL, Open: a.Decision.Outcome == access.Allow}
		if !entry.Open {
			entry.Locked = page.Document(a.Refusal(p.req.Time))
		}
		answer.Apps = append(answer.Apps, entry)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		p.refuseServing(err)
		return
	}
	p.writeJSON("application/json", append(body, '\n'))
}

// portalForNobody sends a person who is not logged in to log in, and comes back.
func (p *passage) portalForNobody(reason access.Reason, person bool) {
	p.event.Response.Reason = reason
	if !person || p.gen.Login == nil || !reason.CuredByLogin() {
		p.refuse(reason)
		return
	}
	varies(p.out.Header())
	provider := ""
	if entry := p.gen.Routes.Match(p.req.Scheme, p.req.Host, "/"); entry != nil {
		provider = entry.Route.Provider
	}
	r, end := p.part("begin login")
	err := p.gen.Login.Begin(&p.out, r, p.req, access.LoginRequire{}, provider)
	end(access.ReasonOf(err))
	if err != nil {
		p.refuseServing(err)
	}
}

// myApps decides on each application. One that does not show itself locked is
// left out unless it is open, so that nobody learns of it here.
func (p *passage) myApps() []page.App {
	var list []page.App
	for i := range p.gen.Routes.apps {
		a := &p.gen.Routes.apps[i]
		asked := a.start()
		p.onBehalf(&asked)
		d := p.gen.Policy.Decide(&asked)
		if d.Outcome == access.Allow || a.showLocked {
			list = append(list, page.App{Title: a.title, URL: a.url, Decision: d})
		}
	}
	return list
}

// mySessions are the person's sessions, the one at hand first, then the latest
// used. An access token shows none: what it was issued for is not this.
func (p *passage) mySessions() (list []access.SessionInfo, more bool, err error) {
	here := p.req.Session.ID
	if p.gen.Sessions == nil || here == "" {
		return nil, false, nil
	}
	id := &p.req.Identity
	list, more, err = p.gen.Sessions.OfPerson(p.in.Context(), id.Issuer, id.Subject, maxPortalSessions)
	for i := range list {
		list[i].Open = p.door.OpenStreams(list[i].ID)
	}
	slices.SortFunc(list, func(a, b access.SessionInfo) int {
		switch here {
		case a.ID:
			return -1
		case b.ID:
			return 1
		}
		return cmp.Or(b.Used.Compare(a.Used), strings.Compare(a.ID, b.ID))
	})
	return list, more, err
}
