package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
)

// recheckPatience is how long a visitor waits for the inventories.
const recheckPatience = 15 * time.Second

// How often visitors have the inventories asked: one visitor on one device twice
// at once, then every ten seconds; all together twenty times at once, then five
// times a second.
var (
	oneRechecks = pace{burst: 2, every: 10 * time.Second}
	allRechecks = pace{burst: 20, every: time.Second / 5}
)

// mayRecheck counts one check of a visitor on a device.
func (p *passage) mayRecheck() bool {
	door, req, now := p.door.budgets, p.req, p.door.now()
	_, one := door.take(budgetKey("recheck", [3]string{req.Session.ID, req.Identity.User(), req.Device.ID}), &quota{pace: oneRechecks}, asQuestion, now)
	if one.of != enough {
		return false
	}
	_, all := door.take(budgetKey("rechecks", [3]string{}), &quota{pace: allRechecks}, asQuestion, now)
	return all.of == enough
}

// canRecheck reports whether a refusal may look different once the inventories
// were asked again, for somebody who may have them asked.
func (p *passage) canRecheck(d *access.Decision) bool {
	if p.gen.Recheck == nil || p.req.Identity.Nobody() || d.Outcome != access.Challenge {
		return false
	}
	for i := range d.Needs {
		if d.Needs[i].Reason.CuredByInventory() {
			return true
		}
	}
	return false
}

var (
	errNotPosted   = errors.New("only POST is answered here")
	errForeignPage = errors.New("a page of another origin asked for a device to be checked")
	errReturn      = errors.New("the address to return to is none of this host")
)

// serveRecheck answers "check again": it has the inventories asked now, and says
// how the address that was refused would be decided on: as a page or, if it
// would be let through, by leading there; for programs as JSON. Only whoever is
// logged in may ask, from a page of the same origin or with an access token.
func (p *passage) serveRecheck() {
	if p.gen.Recheck == nil {
		p.refuseServing(access.Because(access.NoRoute, errNotReserved))
		return
	}
	if p.in.Method != http.MethodPost {
		p.status = http.StatusMethodNotAllowed
		p.refuseServing(access.Because(access.BadRequest, errNotPosted))
		return
	}
	p.identify()
	p.inspect()
	if !p.fromOwnPage() && p.req.Credential.Scheme == "" {
		p.status = http.StatusForbidden
		p.refuseServing(access.Because(access.BadRequest, errForeignPage))
		return
	}
	if !p.known() {
		return
	}
	target, asked, err := p.returnTo()
	if err != nil {
		p.refuseServing(access.Because(access.ReturnURLInvalid, err))
		return
	}
	if !p.mayRecheck() {
		p.event.Response.Reason = access.TooManyChecks
		p.answerRecheck(target, &access.Decision{Reason: access.TooManyChecks}, "")
		return
	}
	r, end := p.part("recheck")
	ctx, cancel := context.WithTimeout(r.Context(), recheckPatience)
	defer cancel()
	read := p.gen.Recheck.Recheck(ctx, &p.req.Device)
	end("")

	// What is asked about is another request than this one, with the facts of now.
	p.onBehalf(asked)
	asked.Time, asked.Device = p.door.now(), access.Device{}
	if p.gen.Inspect != nil {
		if err := p.gen.Inspect.Inspect(p.in, asked); err != nil {
			asked.Device, asked.Fault = access.Device{}, access.ReasonOf(err)
		}
		p.inspectHeaders(&asked.Device)
	}
	d := p.gen.Policy.Decide(asked)
	notice := "Checked just now: this device still does not pass."
	switch {
	case !read:
		notice = "The device management has not answered yet. This is what was known before."
	case !asked.Device.SourceFailingSince.IsZero():
		notice = "The device management was asked just now, and cannot be read."
	}
	p.answerRecheck(target, &d, notice)
}

// known refuses whoever is not logged in, before anything is asked or told.
func (p *passage) known() bool {
	reason := p.unknown()
	if reason == "" {
		return true
	}
	p.event.Response.Reason = reason
	p.refuse(reason)
	return false
}

// returnTo reads the address that was refused, which is on the same host, and
// the request for it.
func (p *passage) returnTo() (string, *access.Request, error) {
	back := p.in.URL.Query().Get("return")
	if back == "" {
		back = "/"
	}
	if back[0] != '/' || len(back) > maxReturn {
		return "", nil, errReturn
	}
	target, err := url.Parse(p.req.Origin() + back)
	if err != nil {
		return "", nil, errReturn
	}
	asked, err := Imagine(p.gen.Routes, http.MethodGet, target)
	if err != nil || asked.Origin() != p.req.Origin() {
		return "", nil, errReturn
	}
	return target.String(), asked, nil
}

// onBehalf fills in the facts of this request for another one that is only
// imagined.
func (p *passage) onBehalf(asked *access.Request) {
	asked.ID, asked.Time, asked.Door, asked.Network = p.req.ID, p.req.Time, p.req.Door, p.req.Network
	asked.Identity, asked.Session, asked.Credential, asked.Device = p.req.Identity, p.req.Session, p.req.Credential, p.req.Device
}

// answerRecheck says what was found. Whatever the refused address itself answers
// better, a login among them, leads there.
func (p *passage) answerRecheck(target string, d *access.Decision, notice string) {
	rf := p.refusal(d.Reason)
	rf.Decision, rf.Notice = d, notice
	person := kindOf(p.in) == form
	_, login := d.LoginOnly()
	switch {
	case d.Outcome == access.Allow && !person:
		body, err := json.Marshal(struct {
			Outcome access.Outcome `json:"outcome"`
		}{d.Outcome})
		if err != nil {
			p.refuseServing(err)
			return
		}
		p.writeJSON("application/json", append(body, '\n'))
	case !person:
		page.Problem(&p.out, rf)
	case d.Outcome == access.Allow, login:
		http.Redirect(&p.out, p.in, target, http.StatusSeeOther)
	default:
		rf.App, rf.User = p.req.Host, displayName(&p.req.Identity)
		again := access.RecheckPath + "?return=" + url.QueryEscape(strings.TrimPrefix(target, p.req.Origin()))
		rf.Links = []page.Link{
			{Text: "Check again", URL: again, Primary: true, Post: true},
			{Text: "Back", URL: target},
			{Text: "Log out", URL: access.LogoutPath, Post: true},
		}
		page.Refuse(&p.out, false, rf)
	}
}
