package proxy

import (
	"errors"

	"github.com/doorward/doorward/internal/access"
)

var errBodyTooLarge = errors.New("the body is larger than max_body_bytes")

// noBodyLimit is the max_body_bytes of a route that takes whatever comes.
const noBodyLimit = -1

// bodyLimit is the largest body that a route takes, 0 for any.
func (g *generation) bodyLimit(route *access.Route) int64 {
	switch route.MaxBodyBytes {
	case noBodyLimit:
		return 0
	case 0:
		return g.Server.MaxBodyBytes
	default:
		return route.MaxBodyBytes
	}
}

// limitBody refuses a body that says to be too large, before the upstream hears of
// the request, and has one that does not say cut off while it is sent: the
// upstream sees a request that breaks off, never a shorter one, and the connection
// it came by is not used again.
func (p *passage) limitBody() error {
	p.body.limit = p.gen.bodyLimit(p.entry.Route)
	if p.body.limit > 0 && p.in.ContentLength > p.body.limit {
		return access.Because(access.BodyTooLarge, errBodyTooLarge)
	}
	return nil
}
