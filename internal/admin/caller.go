package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
)

// AssertionHeader is the request header by which Doorward tells an upstream, and
// so this listener, whom a route has let in.
const AssertionHeader = "Doorward-Assertion"

// Door knows the route that leads people here.
type Door interface {
	// Admit returns whom the route to this listener has let in, as an assertion
	// says. An error means that it is no assertion of ours for that route.
	Admit(ctx context.Context, assertion string) (Person, error)
}

// Person is somebody whom the route to this listener has let in.
type Person struct {
	// User is PROVIDER:SUB, Name how they are addressed.
	User, Name string
	// MayAct tells that they may change something, not only look.
	MayAct bool
	// Origin is the address of the route, from which their browser asks.
	Origin string
}

// caller is who asks, if that is known.
type caller struct {
	Person
	// proven tells that User is an identity. Otherwise it is a name that somebody
	// gave who has the token, and may be empty.
	proven bool
	// glass is the id of the session that the token was exchanged for.
	glass string
}

// note is what the audit log says of how sure an actor is.
func (c *caller) note() string {
	if c.proven {
		return ""
	}
	return " (the actor's name is asserted by the holder of the admin token)"
}

type callerKey struct{}

// callerOf returns who asks; nil is nobody.
func callerOf(r *http.Request) *caller {
	c, _ := r.Context().Value(callerKey{}).(*caller)
	return c
}

func withCaller(r *http.Request, c *caller) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

var errNoDoor = errors.New("no route leads here (server.admin.route)")

// admit finds whom a route has let in; nil, without an error, for a request that
// did not come by one. What came by a route and was not let in for this listener
// is never taken for somebody else.
func (a *api) admit(r *http.Request) (*caller, error) {
	values := r.Header[AssertionHeader]
	if len(values) == 0 {
		return nil, nil
	}
	if a.Door == nil {
		return nil, errNoDoor
	}
	if len(values) != 1 {
		return nil, errors.New("several assertions")
	}
	person, err := a.Door.Admit(r.Context(), values[0])
	if err == nil && person.User == "" {
		err = errors.New("an assertion about nobody")
	}
	if err != nil {
		return nil, err
	}
	return &caller{Person: person, proven: true}, nil
}

// guard lets only those requests in that no other site can have caused, and says
// who asks if a route has let them in.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin") // no-referrer would make browsers send Origin: null with our own forms
		h.Set("X-Content-Type-Options", "nosniff")
		who, err := a.admit(r)
		switch {
		case err != nil:
			a.Log.Warn("admin request by a route that does not lead here", "error", err, "host", r.Host, "path", r.URL.Path)
			http.Error(w, "This route does not lead to the admin pages. The log says why; server.admin.route names the one that does.", http.StatusForbidden)
		case who == nil && !a.Config.answersTo(r.Host): // a route has matched the name already
			a.Log.Warn("admin request under an unknown name", "host", r.Host, "cure", "add the name to server.admin.hosts if it is yours")
			http.Error(w, "The admin listener does not know this host name. Ask by IP address or localhost, or add the name to server.admin.hosts.", http.StatusMisdirectedRequest)
		case fromElsewhere(r, who):
			http.Error(w, "The admin listener does not answer requests of other sites.", http.StatusForbidden)
		case who != nil:
			next.ServeHTTP(w, withCaller(r, who))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// fromElsewhere reports whether a browser says that another site caused the
// request. Following a link is no such case: the other site does not get to see
// what it leads to.
func fromElsewhere(r *http.Request, who *caller) bool {
	if origin := r.Header.Get("Origin"); origin != "" && !ownOrigin(origin, r, who) {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Method != http.MethodGet && r.Method != http.MethodHead ||
		r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// ownOrigin reports whether an origin is that of the pages: of the route by which
// the request came, or of the listener itself.
func ownOrigin(origin string, r *http.Request, who *caller) bool {
	if who != nil && who.Origin != "" {
		return origin == who.Origin
	}
	return origin == "http://"+r.Host || origin == "https://"+r.Host
}

// near reports whether a request comes from this machine and from nobody in
// between who says so: the token, and what it is exchanged for, do not travel
// over a network in plaintext.
func near(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Via"} {
		if len(r.Header[name]) > 0 {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
