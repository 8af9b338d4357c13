package testidp

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// DemoCode is the second factor of everyone who has one.
const DemoCode = "123456"

// flowLifetime is how long somebody may look at the login page.
const flowLifetime = 30 * time.Minute

// codeLifetime is how long an authorization code is good.
const codeLifetime = time.Minute

// flow is one login under way. Each browser tab has its own.
type flow struct {
	*authRequest
	id      string
	device  *device // who is to be logged in instead of a client's own page
	entered bool    // the password was given in this flow; guarded by Provider.mu
}

// visitor is who sits at a browser, as far as the provider knows.
type visitor struct {
	cookie  string // digest of the session cookie
	session *session
	user    User
}

// cookieName differs between issuers, since browsers do not keep cookies of
// two ports of one host apart.
func (p *Provider) cookieName() string { return "testidp-" + digest(p.issuer)[:8] }

func (p *Provider) setCookie(w http.ResponseWriter, value string, maxAge int) {
	u, _ := url.Parse(p.issuer) // New has parsed it before
	http.SetCookie(w, &http.Cookie{
		Name: p.cookieName(), Value: value, Path: strings.TrimSuffix(u.Path, "/") + "/", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: u.Scheme == "https",
	})
}

// present returns who is at the browser.
func (p *Provider) present(r *http.Request) visitor {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.visitor(r)
}

// visitor returns who the browser's session cookie belongs to. The caller
// holds p.mu.
func (p *Provider) visitor(r *http.Request) visitor {
	cookie, err := r.Cookie(p.cookieName())
	if err != nil {
		return visitor{}
	}
	v := visitor{cookie: digest(cookie.Value)}
	if s, ok := p.state.Sessions.get(v.cookie, p.options.Now()); ok {
		if u, ok := p.user(s.Subject); ok {
			v.session, v.user = &s, u
		}
	}
	return v
}

// proceed takes a login as far as it can without asking anything twice.
func (p *Provider) proceed(w http.ResponseWriter, r *http.Request, f *flow) {
	p.proceedAs(w, r, f, p.present(r))
}

func (p *Provider) proceedAs(w http.ResponseWriter, r *http.Request, f *flow, v visitor) {
	now := p.options.Now()
	p.mu.Lock()
	todo, acr, err := f.next(v.session, v.user, f.entered, p.trouble.current().IgnoreACR, now)
	secret, choosing := "", v.session != nil && slices.Contains(f.prompt, "select_account")
	if err != nil || todo == done {
		delete(p.flows, digest(f.id))
	}
	if err == nil && todo == done && f.device == nil {
		secret = p.secret()
		p.codes.put(digest(secret), code{authRequest: f.authRequest, session: *v.session, acr: acr}, now.Add(codeLifetime), now)
	}
	p.mu.Unlock()

	switch {
	case f.device != nil && (err != nil || todo == done):
		p.finishDevice(w, f.device, v, acr, err)
	case err != nil:
		p.redirectError(w, r, f.authRequest, err)
	case todo == askPassword:
		page := loginPage{Flow: f.id, Username: f.loginHint}
		if choosing {
			page.Current = v.user.Username
		}
		p.loginPage(w, http.StatusOK, page)
	case todo == askFactor:
		p.factorPage(w, http.StatusOK, factorPage{Flow: f.id, Username: v.user.Username, Code: DemoCode})
	default:
		p.options.Log.Info("logged in", "client", f.client.ID, "user", v.user.Username, "acr", acr)
		p.answer(w, r, f.authRequest, url.Values{"code": {secret}})
	}
}

// posted returns the login a form belongs to.
func (p *Provider) posted(w http.ResponseWriter, r *http.Request) (*flow, bool) {
	p.mu.Lock()
	f, ok := p.flows.get(digest(r.PostFormValue("flow")), p.options.Now())
	p.mu.Unlock()
	if !ok {
		p.errorPage(w, "This sign-in is over or took too long. Please go back to the application and start again.")
	}
	return f, ok
}

// login takes the form with username and password.
func (p *Provider) login(w http.ResponseWriter, r *http.Request) {
	f, ok := p.posted(w, r)
	if !ok {
		return
	}
	if r.PostFormValue("continue") != "" {
		p.continueAs(w, r, f)
		return
	}
	username, password := r.PostFormValue("username"), r.PostFormValue("password")
	p.mu.Lock()
	u, known := p.users[username]
	if !known || subtle.ConstantTimeCompare([]byte(u.Password), []byte(password)) != 1 {
		p.mu.Unlock()
		p.loginPage(w, http.StatusUnprocessableEntity, loginPage{
			Flow: f.id, Username: username, Error: "The username or the password is not right.",
		})
		return
	}
	f.entered = true
	v := p.startSession(w, p.visitor(r).cookie, session{
		SID: digest(p.secret())[:22], Subject: u.Subject, AuthTime: p.options.Now(),
	})
	p.mu.Unlock()
	p.proceedAs(w, r, f, v)
}

// continueAs answers the account chooser with the person who is logged in.
func (p *Provider) continueAs(w http.ResponseWriter, r *http.Request, f *flow) {
	p.mu.Lock()
	v := p.visitor(r)
	f.prompt = slices.DeleteFunc(slices.Clone(f.prompt), func(v string) bool { return v == "select_account" })
	p.mu.Unlock()
	p.proceedAs(w, r, f, v)
}

// secondFactor takes the form with the one-time code.
func (p *Provider) secondFactor(w http.ResponseWriter, r *http.Request) {
	f, ok := p.posted(w, r)
	if !ok {
		return
	}
	p.mu.Lock()
	v := p.visitor(r)
	if v.session == nil || !v.user.MFA {
		p.mu.Unlock()
		p.proceedAs(w, r, f, v)
		return
	}
	if strings.TrimSpace(r.PostFormValue("otp")) != DemoCode {
		p.mu.Unlock()
		p.factorPage(w, http.StatusUnprocessableEntity, factorPage{
			Flow: f.id, Username: v.user.Username, Code: DemoCode, Error: "That code is not right.",
		})
		return
	}
	s := *v.session
	s.MFA = true
	v = p.startSession(w, v.cookie, s)
	p.mu.Unlock()
	p.proceedAs(w, r, f, v)
}

// startSession keeps a session under a new cookie; the browser's old one ends,
// so that nobody can fix it beforehand. The caller holds p.mu.
func (p *Provider) startSession(w http.ResponseWriter, old string, s session) visitor {
	now := p.options.Now()
	secret := p.secret()
	delete(p.state.Sessions, old)
	p.state.Sessions.put(digest(secret), s, now.Add(p.options.SessionLifetime), now)
	p.saved()
	p.setCookie(w, secret, int(p.options.SessionLifetime/time.Second))
	u, _ := p.user(s.Subject)
	return visitor{cookie: digest(secret), session: &s, user: u}
}
