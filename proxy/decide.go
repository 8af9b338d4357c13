package proxy

import (
	"net/http"

	"github.com/doorward/doorward/internal/access"
)

// decide is station 5: the verdict. It is the policy's own, with two guards
// that hold whatever the policy says: a request whose facts are incomplete is
// denied, and so is one without a route.
func (p *passage) decide() {
	*p.dec = p.gen.Policy.Decide(p.req)
	p.decided = true
	switch {
	case p.req.Fault != "" && p.dec.Outcome != access.Deny: // no login cures a fault
		*p.dec = access.Decision{Reason: p.req.Fault, Policy: p.dec.Policy}
	case p.req.Route == "" && p.dec.Outcome != access.Deny:
		*p.dec = access.Decision{Reason: access.NoRoute, Policy: p.dec.Policy}
	}
}

// isPreflight recognises a CORS preflight (Fetch standard, "CORS-preflight
// fetch"): it has an origin, names a method, and brings no body.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != "" && r.ContentLength == 0
}
