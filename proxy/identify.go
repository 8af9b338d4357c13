package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/fetch"
)

// identify is station 3: who asks. It never refuses; where it could not tell,
// the fault becomes a fact of the request and the decision is a deny.
func (p *passage) identify() {
	if p.gen.Identify == nil {
		p.req.Session = access.Session{}
		return
	}
	r, end := p.part("identify")
	err := p.whoAsks(r)
	end(access.ReasonOf(err))
	if err != nil {
		p.forgetWho() // nothing half-known counts
		p.fault("identify", err)
	}
}

// expecter is an Identifier that can prepare for Identify, if it hears of a request
// a while before.
type expecter interface {
	Expect(r *http.Request, scheme string)
}

// expectWho says who will be asked about, at the earliest moment: it takes as long
// as the stations before to look somebody up in memory that no cache holds.
func (p *passage) expectWho() {
	if who, prepares := p.gen.Identify.(expecter); prepares {
		who.Expect(p.in, p.req.Scheme)
	}
}

// expectKept begins to fetch from memory what is kept of who asks, and needed behind
// the decision.
func (p *passage) expectKept() {
	kept := p.req.Session.Kept
	if kept == nil {
		return
	}
	p.door.budgets.expect(kept.Budget.Load())
	if made, _ := kept.Assertion.Load().(*signed); made != nil {
		fetch.Of(made)
	}
	id := &p.req.Identity
	for _, text := range [...]string{p.req.Session.ID, id.Subject, id.Email, id.Name, id.Username} {
		fetch.Text(text)
	}
}

// forgetWho makes the visitor nobody.
func (p *passage) forgetWho() {
	p.req.Identity, p.req.Session = access.Identity{}, access.Session{}
	p.req.Credential.Issued, p.req.Credential.Expires = time.Time{}, time.Time{}
}

// whoAsks fills in who asks. For a request that is open already, it also notes
// how the session ended that made the visitor somebody, which is no fault.
func (p *passage) whoAsks(r *http.Request) error {
	if p.before == nil {
		return p.gen.Identify.Identify(r, p.req)
	}
	err := p.gen.Identify.IdentifyAgain(r, p.req, p.used)
	if reason := access.ReasonOf(err); reason.CuredByLogin() {
		p.over = reason
		return nil
	}
	return err
}

// fault notes that a fact could not be gathered. The first fault is kept.
func (p *passage) fault(station string, err error) {
	if p.req.Fault == "" {
		p.req.Fault = access.ReasonOf(err)
	}
	level := slog.LevelWarn
	if p.before != nil {
		level = slog.LevelDebug // of many open streams, none has anything to add
	}
	p.door.log.LogAttrs(context.WithoutCancel(p.in.Context()), level, "a fact could not be gathered",
		slog.String("request", p.req.ID), slog.String("station", station), slog.Any("error", err))
}
