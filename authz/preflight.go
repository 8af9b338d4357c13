package authz

import "github.com/doorward/doorward/internal/access"

// preflightRule lets CORS preflights pass without login, on a route that says
// `preflight: true`, or `cors`, where Doorward answers them itself. Browsers send no credentials with a preflight, so nobody
// could ever satisfy a demand. Who does bring credentials has to satisfy what
// is demanded of them.
func preflightRule() rule {
	return rule{name: access.PreflightRule, conditions: []condition{preflight{}, nobody{}}}
}

// preflight hits for CORS preflights.
type preflight struct{}

func (preflight) key() string                         { return "preflight" }
func (preflight) test(req *access.Request) access.Tri { return access.TriOf(req.Preflight) }
func (preflight) describe(req *access.Request) (want, got string) {
	if req.Preflight {
		return "a CORS preflight", "one"
	}
	return "a CORS preflight", "another request"
}

// nobody hits where no credential came along that anyone vouches for.
type nobody struct{}

func (nobody) key() string                         { return "credentials" }
func (nobody) test(req *access.Request) access.Tri { return access.TriOf(req.Identity.Nobody()) }
func (nobody) describe(req *access.Request) (want, got string) {
	return "none", orNone(req.Identity.User())
}
