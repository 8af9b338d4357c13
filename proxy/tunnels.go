package proxy

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/tunnel"
)

// serveTunnels answers "which tunnels may I open?" with those that the caller
// would be let into now, each decided on like the tunnel itself. Others are not
// mentioned.
func (p *passage) serveTunnels() {
	if !p.readable() {
		return
	}
	p.onlyCredentials()
	p.identify()
	p.inspect()
	if reason := p.unknown(); reason != "" {
		p.event.Response.Reason = reason
		p.refuse(reason)
		return
	}
	answer := tunnel.Granted{User: displayName(&p.req.Identity), Until: p.grantedUntil(), Tunnels: []tunnel.Grant{}}
	for entry := range p.gen.Routes.entries {
		if entry.tunnel == nil {
			continue
		}
		asked := *p.req
		asTunnel(&asked, entry.tunnel.from)
		asked.Route = entry.Route.ID
		if d := p.gen.Policy.Decide(&asked); d.Outcome == access.Allow {
			answer.Tunnels = append(answer.Tunnels, tunnel.Grant{Route: entry.Route.ID, Target: entry.tunnel.from})
		}
	}
	slices.SortFunc(answer.Tunnels, func(a, b tunnel.Grant) int { return strings.Compare(a.Target, b.Target) })
	body, err := json.Marshal(answer)
	if err != nil {
		p.refuseServing(err)
		return
	}
	p.out.Header().Set("Cache-Control", "no-store")
	p.writeJSON("application/json", append(body, '\n'))
}

// grantedUntil is when the credential ends; zero if that is not known.
func (p *passage) grantedUntil() time.Time {
	for _, end := range []time.Time{p.req.Credential.Expires, p.req.Session.Expires} {
		if !end.IsZero() {
			return end
		}
	}
	return time.Time{}
}
