package proxy

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/doorward/doorward/internal/access"
)

// gate takes a received request through stations 2 to 5 and leaves a verdict.
// It is the part that all doors share. An error means that the request cannot
// be decided on; it carries the reason.
func (p *passage) gate() error {
	if err := p.match(); err != nil {
		return err
	}
	p.identify()
	p.expectKept()
	p.inspect()
	p.decide()
	p.event.Response.Decide = p.door.since(p.start)
	return nil
}

// arrive takes a request past station 1. It reports false where that refused it.
func (p *passage) arrive() bool {
	if p.gen == nil {
		p.refuseBefore(access.Because(access.ShuttingDown, errNoConfig))
		return false
	}
	err := p.receive()
	p.beginTrace()
	if limited := p.limitNetwork(); limited != nil {
		p.refuseNetwork(limited)
		return false
	}
	if err != nil {
		p.refuseBefore(err)
		return false
	}
	return true
}

// admit takes a received request past stations 2 to 7, for every door that speaks
// HTTP. It reports false where one of them has answered.
func (p *passage) admit() bool {
	if err := p.limitCredential(); err != nil {
		p.refuseNetwork(err)
		return false
	}
	if err := p.gate(); err != nil {
		p.refuseBefore(err)
		return false
	}
	if err := p.limitDecided(); err != nil {
		p.refuseServing(err)
		return false
	}
	if p.dec.Outcome != access.Allow {
		p.challenge()
		return false
	}
	if err := p.prepare(); err != nil {
		p.refuseServing(err)
		return false
	}
	return true
}

// refuseBefore answers a request that nobody can decide on. The reason becomes
// a fault of the request, so that deciding again on the record refuses again.
func (p *passage) refuseBefore(err error) {
	p.cannotDecide(err)
	p.note(err)
	p.refuse(p.dec.Reason)
}

func (p *passage) cannotDecide(err error) {
	reason := access.ReasonOf(err)
	if reason != access.NoRoute {
		p.req.Fault = reason
	}
	*p.dec = access.Decision{Reason: reason, Policy: p.version()}
	p.decided = true
}

// version names the configuration that the request began with, if there was one.
func (p *passage) version() string {
	if p.gen == nil {
		return ""
	}
	return p.gen.Version
}

// refuseServing answers in place of what the verdict led to: the application of
// a request that was allowed, or the login of one that was challenged. The
// verdict itself stands.
func (p *passage) refuseServing(err error) {
	p.event.Response.Reason = access.ReasonOf(err)
	p.note(err)
	p.refuse(p.event.Response.Reason)
}

// note writes an error to the log, for the operator: loudly if it is for the
// operator to cure.
func (p *passage) note(err error) {
	reason := p.event.Response.Reason
	if reason == "" {
		reason = access.ReasonOf(err)
	}
	level := slog.LevelDebug
	if reason.Info().Status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	p.door.log.LogAttrs(context.WithoutCancel(p.in.Context()), level, "request refused",
		slog.String("request", p.req.ID), slog.String("route", p.req.Route), slog.Any("error", err))
}
