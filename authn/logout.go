package authn

import (
	"net/http"
	"net/url"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
	"github.com/doorward/doorward/internal/session"
)

// maxHint bounds the ID token sent along as a hint: it travels in a URL.
const maxHint = 4 << 10

// goodbye travels to the provider and back as the state of a logout.
type goodbye struct {
	// Again is the origin of the application the visitor logged out of.
	Again string `json:"a"`
}

// serveLogout answers /.doorward/logout. It ends the login in the store, so that
// every application's session ends with it, then the one at the provider
// (OpenID Connect RP-Initiated Logout 1.0). With everywhere=1, which counts only
// from a form of ours, it ends the person's sessions of all browsers first; with
// session=ID, likewise, that one of them alone, and goes back to the portal.
func (a *Authenticator) serveLogout(w http.ResponseWriter, r *http.Request, req *access.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return access.Becausef(access.BadRequest, "a logout by %.20q", r.Method)
	}
	origin := req.Origin()
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return access.Because(access.BadRequest, err)
	}
	everywhere := r.Form.Get("everywhere") == "1"
	if err := a.identifySession(r, req); err != nil {
		return err
	}
	secret := soleCookie(r, CookieName(req.Scheme))
	if req.Identity.Nobody() {
		a.forget(w, origin)
		if a.authURL != "" && origin != a.authURL {
			redirect(w, loginHostLogout(a.authURL, everywhere)) // the session there may outlive the one here
			return nil
		}
		a.signedOut(w, r, origin)
		return nil
	}
	if a.forged(r) || everywhere && r.Method != http.MethodPost {
		page.ConfirmLogout(w, page.ConfirmData{User: visibleName(&req.Identity), Action: access.LogoutPath, Everywhere: true, CancelURL: "/"})
		return nil
	}
	if other := r.PostForm.Get("session"); other != "" {
		return a.endOther(w, r, req, other)
	}
	if everywhere {
		// The session at hand comes last: should the others not end, it is what
		// the visitor can try again with.
		others := session.Match{Issuer: req.Identity.Issuer, Subject: req.Identity.Subject, Except: req.Session.ID}
		if _, err := a.sessions.Revoke(r.Context(), others, access.SessionEnded, req.Identity.User()+", who logged out everywhere"); err != nil {
			return err
		}
	}
	ended, err := a.sessions.End(r.Context(), secret, access.SessionEnded) // leaves the audit event
	if err != nil {
		return err
	}
	a.forget(w, origin)
	to, err := a.endSessionURL(ended.Provider, ended.IDToken, visibleName(&ended.Identity), origin)
	if err != nil {
		return err
	}
	if to == "" {
		page.SignedOut(w, page.SignedOutData{User: visibleName(&req.Identity), ProviderMayRemain: true, AgainURL: origin + "/"})
		return nil
	}
	redirect(w, to)
	return nil
}

// endOther ends another session of the person who asks. Whose it is says the
// session at hand, so that nobody ends somebody else's; one that is over already
// is no mistake of theirs.
func (a *Authenticator) endOther(w http.ResponseWriter, r *http.Request, req *access.Request, other string) error {
	who := &req.Identity
	match := session.Match{Issuer: who.Issuer, Subject: who.Subject, LoginID: other, Except: req.Session.ID}
	// A login that cannot be read is everybody's to Revoke, and nobody's to List.
	theirs, _, err := a.sessions.List(r.Context(), match, 1)
	if err == nil && len(theirs) > 0 {
		_, err = a.sessions.Revoke(r.Context(), match, access.SessionEnded, who.User()+", at the portal")
	}
	if err != nil {
		return err
	}
	redirect(w, req.Origin()+access.PortalPath)
	return nil
}

// loginHostLogout is where a visitor goes who has no session on an application's
// host.
func loginHostLogout(authURL string, everywhere bool) string {
	if everywhere {
		return authURL + access.LogoutPath + "?everywhere=1"
	}
	return authURL + access.LogoutPath
}

// forged reports whether another site may be behind a logout: then the visitor
// is asked. Links on our own pages, bookmarks and clients that are no browsers
// are taken at their word; a prefetch is nobody's word.
func (a *Authenticator) forged(r *http.Request) bool {
	if r.Method == http.MethodPost {
		return a.forgery.Check(r) != nil
	}
	if r.Header.Get("Sec-Purpose") != "" || r.Header.Get("Purpose") != "" {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return true
}

// forget removes our cookies from the browser.
func (a *Authenticator) forget(w http.ResponseWriter, origin string) {
	setCookie(w, origin, CookieName(schemeOf(origin)), "", -1)
	setCookie(w, origin, LoginCookieName(schemeOf(origin)), "", -1)
}

// endSessionURL is where the provider's own session ends; empty if the provider
// offers no such thing or cannot be asked.
func (a *Authenticator) endSessionURL(provider, idToken, hint, origin string) (string, error) {
	c := a.clients[provider]
	if c == nil {
		return "", nil
	}
	meta, ok := c.metadata.Last()
	if !ok || meta.endSession == "" {
		return "", nil
	}
	u, err := url.Parse(meta.endSession)
	if err != nil {
		return "", nil
	}
	base := origin
	if a.authURL != "" {
		base = a.authURL // one address to register, however many applications
	}
	state, err := a.seal.seal(goodbye{Again: origin}, forLogout, base)
	if err != nil {
		return "", access.Because(access.InternalError, err)
	}
	query := u.Query()
	query.Set("client_id", c.cfg.ClientID)
	query.Set("post_logout_redirect_uri", base+access.LogoutPath)
	query.Set("state", state)
	if idToken != "" && len(idToken) <= maxHint {
		query.Set("id_token_hint", idToken)
	} else if hint != "" {
		query.Set("logout_hint", hint)
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// signedOut is the last page. Only a state that we gave the provider shows that
// the visitor has been there.
func (a *Authenticator) signedOut(w http.ResponseWriter, r *http.Request, origin string) {
	var g goodbye
	back := a.seal.open(r.URL.Query().Get("state"), &g, forLogout, origin) == nil
	data := page.SignedOutData{ProviderMayRemain: !back}
	if again, ok := parseOrigin(g.Again); back && ok && a.owns(again) {
		data.AgainURL = again + "/"
	} else if a.owns(origin) {
		data.AgainURL = origin + "/"
	}
	page.SignedOut(w, data)
}

// visibleName is how a person is addressed on our pages.
func visibleName(id *access.Identity) string {
	for _, name := range []string{id.Email, id.Username, id.Name} {
		if name != "" {
			return name
		}
	}
	return id.Subject
}
