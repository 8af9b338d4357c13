package authz

import (
	"time"

	"github.com/doorward/doorward/internal/access"
)

// loginGap tells which parts of the route's login demands are not met, each with
// the demand that is not.
type loginGap struct {
	acr, phishing, amr, age *access.LoginRequire
	// session is the trust tier whose session is over.
	session *tier
}

// check adds what the login lacks for one demand.
func (g *loginGap) check(ask *access.LoginRequire, login *access.Login, now time.Time) {
	for _, reason := range login.Missing(ask, now) {
		switch {
		case reason == access.ACRInsufficient && g.acr == nil:
			g.acr = ask
		case reason == access.PhishingResistantNeeded:
			g.phishing = ask
		case reason == access.AMRInsufficient && g.amr == nil:
			g.amr = ask
		case reason == access.LoginTooOld && (g.age == nil || ask.MaxAge < g.age.MaxAge):
			g.age = ask
		}
	}
}

// checkSession adds the tier if the login is older than its session. Nil limits
// nothing.
func (g *loginGap) checkSession(t *tier, req *access.Request) {
	if t == nil {
		return
	}
	ask := access.LoginRequire{MaxAge: access.Duration(t.session)}
	if !req.Identity.Login.Satisfies(&ask, req.Time) {
		g.session = t
	}
}

// needs lists what is missing. Each need asks for everything the route demands,
// so that curing one does not lose another.
func (g *loginGap) needs(merged access.LoginRequire, req *access.Request) (needs []access.Need) {
	login := &req.Identity.Login
	if g.acr != nil {
		needs = append(needs, access.Need{Reason: access.ACRInsufficient, Login: merged, Want: anyOf(g.acr.ACR), Got: orNone(login.ACR)})
	}
	if g.phishing != nil {
		needs = append(needs, access.Need{Reason: access.PhishingResistantNeeded, Login: merged, Want: "phr", Got: orNone(login.ACR)})
	}
	if g.amr != nil {
		needs = append(needs, access.Need{Reason: access.AMRInsufficient, Login: merged, Want: anyOf(g.amr.AMR), Got: shortList(login.AMR)})
	}
	if g.age != nil {
		needs = append(needs, access.Need{Reason: access.LoginTooOld, Login: merged, Want: span(g.age.MaxAge.Std()), Got: age(login.Time, req.Time)})
	}
	if g.session != nil {
		needs = append(needs, access.Need{Reason: access.SessionTooOld, Profile: g.session.name, Login: merged,
			Want: span(g.session.session), Got: age(login.Time, req.Time)})
	}
	return needs
}
