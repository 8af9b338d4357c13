package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
)

// isReserved reports whether a request is for Doorward itself. The path is the
// canonical one, so that no other spelling reaches an upstream.
func (p *passage) isReserved() bool {
	path := p.req.Path
	if path+"/" != access.Prefix && !strings.HasPrefix(path, access.Prefix) {
		return false
	}
	// A door that has nothing but tunnels has no host of its own.
	return p.gen.owns(p.req.Scheme, p.req.Host) || path == access.TunnelsPath && p.gen.Routes.hasTunnels()
}

// serveReserved answers requests for Doorward's own addresses. They are not
// policy decisions; their events hold the request and the response.
func (p *passage) serveReserved() {
	p.reserved = true
	if p.path.Ambiguous != 0 {
		p.refuseServing(access.Because(access.AmbiguousPath, errAmbiguous))
		return
	}
	if p.upgrade {
		p.refuseServing(access.Because(access.UpgradeRefused, errReservedUpgrade))
		return
	}
	if err := p.limitReserved(); err != nil {
		p.refuseServing(err)
		return
	}
	switch p.req.Path {
	case access.KeysPath:
		p.serveKeys()
	case access.MePath:
		p.serveMe()
	case access.TunnelsPath:
		p.serveTunnels()
	case access.PortalPath:
		p.servePortal()
	case access.RecheckPath:
		p.serveRecheck()
	case access.SignalsPath:
		if p.gen.Signals == nil {
			p.refuseServing(access.Because(access.NoRoute, errNotReserved))
			return
		}
		if err := p.gen.Signals.Serve(&p.out, p.in, p.req); err != nil {
			p.refuseServing(err)
		}
	case access.LoginPath, access.CallbackPath, access.ReplayPath, access.LogoutPath, access.BackChannelPath, access.FrontChannelPath, access.ClientKeysPath:
		if p.gen.Login == nil {
			p.refuseServing(access.Because(access.NoRoute, errNoLogin))
			return
		}
		r, end := p.part("login")
		err := p.gen.Login.Serve(&p.out, r, p.req)
		end(access.ReasonOf(err))
		if err != nil {
			p.refuseServing(err)
		}
	default:
		p.refuseServing(access.Because(access.NoRoute, errNotReserved))
	}
}

// readable answers methods other than GET and HEAD with 405.
func (p *passage) readable() bool {
	if p.in.Method == http.MethodGet || p.in.Method == http.MethodHead {
		return true
	}
	p.status = http.StatusMethodNotAllowed
	p.refuseServing(access.Because(access.BadRequest, errReadOnly))
	return false
}

// serveKeys publishes the keys that verify assertions. They are public and the
// only answer of ours that may be cached: keys are published a day before use.
func (p *passage) serveKeys() {
	if !p.readable() {
		return
	}
	keys, err := p.door.signer.JWKS(p.in.Context())
	if err != nil {
		p.refuseServing(access.Because(access.StoreUnavailable, err))
		return
	}
	p.out.Header().Set("Cache-Control", "public, max-age=300")
	p.writeJSON("application/jwk-set+json", keys)
}

// me is what a visitor, and a script on the application's pages, may know of
// the session: never a token, and only those groups the application uses.
type me struct {
	User     string   `json:"user"`
	Provider string   `json:"provider"`
	Subject  string   `json:"sub"`
	Email    string   `json:"email,omitempty"`
	Name     string   `json:"name,omitempty"`
	Username string   `json:"username,omitempty"`
	Groups   []string `json:"groups,omitempty"`

	Login   access.Login   `json:"login,omitzero"`
	Session access.Session `json:"session,omitzero"`
	Device  meDevice       `json:"device"`
	Now     time.Time      `json:"now"`
}

// meDevice leaves out what identifies other people's records: the owner, the
// inventory's key and the certificate.
type meDevice struct {
	Known         access.Tri  `json:"known"`
	Managed       access.Tri  `json:"managed"`
	Compliant     access.Tri  `json:"compliant"`
	DiskEncrypted access.Tri  `json:"disk_encrypted"`
	Jailbroken    access.Tri  `json:"jailbroken"`
	Risk          access.Risk `json:"risk"`

	Name      string        `json:"name,omitempty"`
	OS        string        `json:"os,omitempty"`
	OSVersion string        `json:"os_version,omitempty"`
	Reasons   []string      `json:"reasons,omitempty"`
	Source    string        `json:"source,omitempty"`
	SeenAt    time.Time     `json:"seen_at,omitzero"`
	Problem   access.Reason `json:"problem,omitempty"`
}

func newMeDevice(d *access.Device) meDevice {
	return meDevice{Known: d.Known, Managed: d.Managed, Compliant: d.Compliant,
		DiskEncrypted: d.DiskEncrypted, Jailbroken: d.Jailbroken, Risk: d.Risk, Name: d.Name, OS: d.OS, OSVersion: d.OSVersion,
		Reasons: d.Reasons, Source: d.Source, SeenAt: d.SeenAt, Problem: d.Problem}
}

// unknown returns why an address of ours that is for people who are logged in
// does not answer this one, empty if it does.
func (p *passage) unknown() access.Reason {
	switch req := p.req; {
	case req.Fault != "":
		return req.Fault
	case req.Credential.Problem != "":
		return req.Credential.Problem
	case req.Identity.Nobody():
		return access.LoginRequired
	}
	return ""
}

// serveMe answers "who am I?". It never redirects: who asks is a program.
func (p *passage) serveMe() {
	if !p.readable() {
		return
	}
	p.identify()
	p.inspect()
	req := p.req
	if reason := p.unknown(); reason != "" {
		p.event.Response.Reason = reason
		if reason == access.LoginRequired {
			page.Problem(&p.out, p.refusal(reason))
			return
		}
		p.refuse(reason)
		return
	}
	id := &req.Identity
	answer := me{User: id.User(), Provider: id.Provider, Subject: id.Subject, Email: id.Email, Name: id.Name,
		Username: id.Username, Login: id.Login, Session: req.Session, Now: req.Time,
		Device: newMeDevice(&req.Device)}
	if entry := p.gen.Routes.Match(req.Scheme, req.Host, "/"); entry != nil {
		answer.Groups = p.gen.Policy.Groups(entry.Route.ID, id)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		p.refuseServing(err)
		return
	}
	varies(p.out.Header())
	p.writeJSON("application/json", append(body, '\n'))
}

func (p *passage) writeJSON(media string, body []byte) {
	h := p.out.Header()
	h.Set("Content-Type", media)
	h.Set("X-Content-Type-Options", "nosniff")
	if p.in.Method == http.MethodHead {
		p.out.WriteHeader(http.StatusOK)
		return
	}
	p.out.Write(body)
}
