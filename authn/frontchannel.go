package authn

import (
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
	"github.com/doorward/doorward/internal/session"
)

// minSID is the shortest name of a provider's session that counts without a
// cookie. Shorter ones could be guessed.
const minSID = 16

// serveFrontChannel answers /.doorward/frontchannel-logout?iss=…&sid=… (OpenID
// Connect Front-Channel Logout 1.0 §3), which a provider opens in a hidden frame
// of its logout page.
//
// Browsers seldom send our cookie into such a frame. Where they do, the session
// must be the browser's own. Where they do not, sid alone has to do: it is a
// secret between the provider and us, which nobody else can guess, and all it
// can be used for is to log out.
func (a *Authenticator) serveFrontChannel(w http.ResponseWriter, r *http.Request, req *access.Request) error {
	event := &access.Event{Kind: access.EventLogout, RequestID: req.ID, Reason: access.SessionEnded}
	frames, err := a.frontChannel(w, r, req, event)
	if err != nil {
		event.Reason, event.Note = access.ReasonOf(err), "a front-channel logout was refused"
	}
	event.Time = a.now()
	a.emit(event)
	if err != nil {
		return err
	}
	page.LoggedOutFrame(w, frames...)
	return nil
}

// frontChannel does what the address says, notes it in the event, and returns
// the origins that may frame the answer.
func (a *Authenticator) frontChannel(w http.ResponseWriter, r *http.Request, req *access.Request, event *access.Event) (frames []string, err error) {
	if r.Method != http.MethodGet {
		return nil, access.Becausef(access.BadRequest, "a front-channel logout by %.20q", r.Method)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, access.Because(access.BadRequest, errors.New("the query cannot be read"))
	}
	if len(query["iss"]) != 1 || len(query["sid"]) != 1 || query.Get("sid") == "" || len(query.Get("sid")) > maxJTI {
		return nil, access.Becausef(access.BadRequest, "a front-channel logout needs iss and sid, once each")
	}
	match := session.Match{Issuer: query.Get("iss"), SID: query.Get("sid")}
	var c *client
	for _, candidate := range a.order {
		if candidate.cfg.Issuer == match.Issuer {
			c = candidate
			break
		}
	}
	if c == nil {
		return nil, access.Becausef(access.LogoutMismatch, "front-channel logout by %.200q, which is no provider of ours", match.Issuer)
	}
	if err := a.identifySession(r, req); err != nil {
		return nil, err
	}
	own := !req.Identity.Nobody()
	if own {
		match.LoginID, event.Actor, event.Session = req.Session.ID, req.Identity.User(), req.Session.ID
	} else if len(match.SID) < minSID {
		return nil, access.Becausef(access.LogoutMismatch, "front-channel logout by %s of a session with a guessable name, without a cookie", c.cfg.ID)
	}
	ended, err := a.sessions.Revoke(r.Context(), match, access.SessionEnded, "front-channel logout of "+c.cfg.ID)
	if err != nil {
		return nil, err
	}
	if own && ended == 0 {
		return nil, access.Becausef(access.LogoutMismatch, "front-channel logout by %s of another session", c.cfg.ID)
	}
	if own {
		a.forget(w, req.Origin())
	}
	event.Note = "front-channel logout of " + c.cfg.ID
	return c.origins(), nil
}

// origins are where the provider's pages are: of its issuer and of its logout.
func (c *client) origins() []string {
	addresses := []string{c.cfg.Issuer}
	if meta, ok := c.metadata.Last(); ok {
		addresses = append(addresses, meta.endSession)
	}
	var origins []string
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil {
			continue
		}
		origin, err := originOfURL(u.Scheme + "://" + u.Host) // also keeps out what would end the policy
		if err == nil && !slices.Contains(origins, origin) {
			origins = append(origins, origin)
		}
	}
	return origins
}
