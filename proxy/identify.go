package proxy

import (
	"context"
	"log/slog"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// identify is station 3: who asks. It never refuses; where it could not tell,
// the fault becomes a fact of the request and the decision is a deny.
func (p *passage) identify() {
	if p.gen.Identify == nil {
		return
	}
	if err := p.gen.Identify.Identify(p.in, p.req); err != nil {
		p.req.Identity, p.req.Session, p.req.Credential.Expires = access.Identity{}, access.Session{}, time.Time{} // nothing half-known counts
		p.fault("identify", err)
	}
}

// fault notes that a fact could not be gathered. The first fault is kept.
func (p *passage) fault(station string, err error) {
	if p.req.Fault == "" {
		p.req.Fault = access.ReasonOf(err)
	}
	p.door.log.LogAttrs(context.WithoutCancel(p.in.Context()), slog.LevelWarn, "a fact could not be gathered",
		slog.String("request", p.req.ID), slog.String("station", station), slog.Any("error", err))
}
