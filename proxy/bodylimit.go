package proxy

import (
	"errors"
	"io"
	"net/http"
	"time"

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
		p.takeRest()
		return access.Because(access.BodyTooLarge, errBodyTooLarge)
	}
	return nil
}

const (
	// restBytes is how much of a body that is refused is taken, as net/http does.
	restBytes = 256 << 10
	// restPatience is how long a visitor may take to send it.
	restPatience = time.Second
)

// takeRest takes what is left of a small body before it is refused: whoever still
// sends when the connection is closed may never read the answer. net/http does so by
// itself where the connection stays open; nginx has it closed. Nobody is waited for
// who has asked whether to send at all.
func (p *passage) takeRest() {
	if p.in.ProtoMajor != 1 || !p.in.Close || len(p.in.Header["Expect"]) > 0 {
		return
	}
	conn := http.NewResponseController(&p.out)
	if conn.SetReadDeadline(time.Now().Add(restPatience)) == nil {
		io.CopyN(io.Discard, p.in.Body, restBytes)
		conn.SetReadDeadline(time.Time{})
	}
}
