package authn

import (
	"net/http"
	"net/url"

	"golang.org/x/oauth2"

	"github.com/doorward/doorward/internal/access"
)

// With a login host, a login makes a round trip between two of our own hosts:
//
//	app    Begin      -> login host /.doorward/login?to=ORIGIN&flow=…&challenge=…
//	login  (provider) -> app /.doorward/callback?flow=…&handover=CODE
//	app    redeems CODE with the verifier in its cookie, sets a cookie of its own
//
// The challenge ties CODE to the browser that began, as PKCE does for a
// provider's code: who steals it from a URL cannot use it, and who lures a
// visitor into the login host's page gains a code that no browser can redeem.

// goToLoginHost sends the visitor from an application's host to the login host.
func (a *Authenticator) goToLoginHost(w http.ResponseWriter, origin string, j *jar, lr loginRequest) error {
	f, p, err := a.begin(j, &lr)
	if err != nil {
		return err
	}
	sealed, err := a.seal.seal(f, forHandover, origin)
	if err != nil {
		return err
	}
	if err := a.closeJar(w, origin, j); err != nil {
		return err
	}
	lr.To, lr.Flow, lr.Challenge, lr.Return = origin, sealed, oauth2.S256ChallengeFromVerifier(p.Verifier), ""
	redirect(w, a.authURL+access.LoginPath+"?"+lr.values().Encode())
	return nil
}

// handOver sends the visitor back from the login host, with a code for the
// session that secret opens.
func (a *Authenticator) handOver(w http.ResponseWriter, r *http.Request, req *access.Request, secret string, f *flow) error {
	code, err := a.sessions.Handover(r.Context(), secret, f.To, f.Challenge)
	if err != nil {
		return err
	}
	redirect(w, f.To+access.CallbackPath+"?"+url.Values{"flow": {f.Remote}, "handover": {code}}.Encode())
	return nil
}

// refusal is a login that failed on the login host, on its way to the
// application's host. Visitors are told there, where there is a way on.
type refusal struct {
	Reason  access.Reason `json:"r"`
	Request string        `json:"i"` // its id on the login host, where the details are
}

// sendBack carries a failure to the application's host.
func (a *Authenticator) sendBack(w http.ResponseWriter, req *access.Request, f *flow, why error) error {
	sealed, err := a.seal.seal(refusal{access.ReasonOf(why), req.ID}, forRefusal, f.To)
	if err != nil {
		return why
	}
	a.log.Warn("login refused", "request", req.ID, "for", f.To, "error", why)
	a.recordFailure(req, why)
	redirect(w, f.To+access.CallbackPath+"?"+url.Values{"flow": {f.Remote}, "refused": {sealed}}.Encode())
	return nil
}

// takeOver redeems a code on the application's host.
func (a *Authenticator) takeOver(w http.ResponseWriter, r *http.Request, req *access.Request, form url.Values) error {
	origin := req.Origin()
	var f flow
	if err := a.seal.open(form.Get("flow"), &f, forHandover, origin); err != nil {
		return access.Because(access.LoginStateUnknown, err)
	}
	j := a.openJar(r, origin)
	p, ok := j.take(f.ID)
	code, refused := form.Get("handover"), form.Get("refused")
	if !ok || outdated(f.Started, a.now(), flowLife) || code == "" && refused == "" {
		return a.restart(w, req, &f, &p, "the login was not begun in this browser, or answered before")
	}
	if err := a.closeJar(w, origin, j); err != nil {
		return err
	}
	if refused != "" {
		var why refusal
		if err := a.seal.open(refused, &why, forRefusal, origin); err != nil {
			return access.Because(access.LoginStateUnknown, err)
		}
		return access.Becausef(why.Reason, "refused on the login host, request %s", why.Request)
	}
	previous := soleCookie(r, CookieName(req.Scheme))
	secret, entry, err := a.sessions.Redeem(r.Context(), code, origin, p.Verifier, previous)
	switch access.ReasonOf(err) {
	case "":
	case access.StoreUnavailable, access.InternalError:
		return err
	default: // outdated: the login host is asked for another one
		return a.restart(w, req, &f, &p, "the handover code was not accepted: "+err.Error())
	}
	setSession(w, origin, secret)
	a.recordLogin(req, entry, "handed over to "+origin)
	redirect(w, origin+f.goal(&p))
	return nil
}
