package authn

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
)

// CookieName returns the name of the session cookie on origins of a scheme. Over
// https the prefix makes browsers refuse it from any other host or path. Over
// plain http, which configuration limits to this machine, they would refuse the
// prefix itself.
func CookieName(scheme string) string {
	if scheme == "https" || scheme == "wss" {
		return "__Host-doorward"
	}
	return "doorward"
}

// identifySession fills req.Identity and req.Session from the session cookie of
// r. It is what logins and logouts look at: they are about sessions only.
func (a *Authenticator) identifySession(r *http.Request, req *access.Request) error {
	err := a.loadSession(r, req, a.sessions.Load)
	switch access.ReasonOf(err) {
	case access.LoginRequired, access.SessionExpired, access.SessionEnded:
		return nil
	}
	return err
}

// loadSession fills in the session that the cookie opens. The error says why
// there is none, nil also where there is no cookie.
func (a *Authenticator) loadSession(r *http.Request, req *access.Request,
	load func(ctx context.Context, secret, origin string, now time.Time) (*session.Entry, error)) error {
	secret := soleCookie(r, CookieName(req.Scheme))
	if secret == "" {
		return nil
	}
	entry, err := load(r.Context(), secret, req.Origin(), req.Time)
	if err != nil {
		return err
	}
	// A provider that was removed from the configuration vouches for nobody.
	if c := a.clients[entry.Identity.Provider]; c == nil || c.cfg.Issuer != entry.Identity.Issuer {
		return access.Becausef(access.SessionEnded, "provider %q is not configured any more", entry.Identity.Provider)
	}
	req.Identity, req.Session = *entry.Identity, entry.Session
	return nil
}

// Expect tells that Identify will be called for a request soon. It begins to fetch
// from memory what is known of its session, if its address has that scheme.
func (a *Authenticator) Expect(r *http.Request, scheme string) {
	if secret, plain := plainCookie(r.Header["Cookie"], CookieName(scheme)); plain {
		a.sessions.Expect(secret)
	}
}

// soleCookie returns the value of a cookie that occurs once. If a name occurs
// with different values, someone on a neighbouring host has planted one of them
// (cookie tossing); there is no telling which, so none counts. The __Host-
// prefix rules this out where there is TLS.
func soleCookie(r *http.Request, name string) string {
	if value, plain := plainCookie(r.Header["Cookie"], name); plain {
		return value
	}
	value := ""
	for i, cookie := range r.CookiesNamed(name) {
		if i > 0 && cookie.Value != value {
			return ""
		}
		value = cookie.Value
	}
	return value
}

// plainCookie finds the value of a cookie where there is no question what that is:
// there is one header, the name occurs once, as browsers write it, and what follows
// consists of characters that mean themselves. Without the name there is none.
func plainCookie(header []string, name string) (value string, plain bool) {
	if len(header) != 1 || len(header[0]) > mostPlainCookies {
		return "", len(header) == 0
	}
	before, rest, there := strings.Cut(header[0], name)
	if !there {
		return "", true
	}
	value, isValue := strings.CutPrefix(rest, "=")
	value, _, _ = strings.Cut(value, ";")
	if !isValue || before != "" && !strings.HasSuffix(before, "; ") || value == "" || strings.Contains(rest, name) {
		return "", false
	}
	plain = true
	for i := range len(value) {
		plain = plain && secretByte[value[i]]
	}
	return value, plain
}

// secretByte tells which bytes a secret consists of, and a dot. What comes next is
// chance, so that a table is faster than to ask for ranges.
var secretByte = func() (table [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") {
		table[c] = true
	}
	return table
}()

// mostPlainCookies is how long the cookies may be for that, in bytes. net/http takes
// no more than 3000 of them, which cannot be in so many.
const mostPlainCookies = 2 << 10

// setCookie sets a cookie for one host only. A life of zero lasts until the
// browser closes; a negative one removes the cookie.
func setCookie(w http.ResponseWriter, origin, name, value string, life time.Duration) {
	cookie := &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life.Seconds()),
		Secure: schemeOf(origin) == "https", HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if life < 0 {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// setSession gives the browser the secret of its session.
func setSession(w http.ResponseWriter, origin, secret string) {
	setCookie(w, origin, CookieName(schemeOf(origin)), secret, 0)
}
