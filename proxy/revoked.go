package proxy

import (
	"time"

	"github.com/doorward/doorward/internal/access"
)

// issuerSkew is how far the clock of an issuer of tokens may be ahead of ours.
const issuerSkew = time.Minute

// inspectRevoked makes nobody of whoever uses a device whose sessions were
// revoked, if their login or token is older. It can be looked at only now:
// nobody knows before on which devices a session is used.
func (p *passage) inspectRevoked() {
	if p.gen.Revoked == nil || p.req.Device.ID == "" || p.req.Identity.Nobody() {
		return
	}
	issued := p.req.Session.Created
	if p.req.Credential.Scheme != "" {
		issued = p.req.Credential.Issued.Add(-issuerSkew)
	}
	device, session := p.req.Device.ID, p.req.Session.ID
	switch revoked, err := p.gen.Revoked.RevokedDevice(p.req.Identity.Issuer, device, issued); {
	case err != nil:
		p.forgetWho()
		p.fault("inspect", err)
	case revoked:
		p.forgetWho()
		p.over = access.SessionEnded
		if p.req.Credential.Scheme != "" {
			p.req.Credential.Problem = access.TokenRevoked
		}
		if session != "" {
			p.gen.Revoked.EndRevoked(p.in.Context(), session, device)
		}
	}
}
