package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/yield"
)

// statusClientGone stands in the record of a request whose sender left.
const statusClientGone = 499

var errUnasked = errors.New("the upstream switched protocols without having been asked")

// forward is station 8: send upstream, stream, upgrade. It decides nothing.
func (p *passage) forward() {
	var err error
	if p.inner, err = p.entry.shape.paths.toUpstream(p.path); err != nil {
		p.refuseServing(err)
		return
	}
	p.sent = true
	if p.upgrade {
		p.forwardUpgrade()
		return
	}
	ctx, leave := p.open()
	defer leave()
	defer p.leaveTarget()
	newCourier(p).send(ctx)
}

// address turns the received request into the one that is sent. It replaces the
// address as a whole: the upstream reads what was matched and decided on.
func (p *passage) address(out *http.Request) {
	out.URL = &p.berth.url
	*out.URL = url.URL{
		Scheme: "http", Host: p.req.Host, // until roundTrip chooses
		Path: p.inner.Path, RawPath: p.inner.Escaped,
		RawQuery: p.query, ForceQuery: p.hasQuery,
	}
	out.Host = p.entry.shape.host // empty: the upstream's own name
	if p.entry.Route.PreserveHost {
		out.Host = p.req.Host
	}
	out.Trailer = nil
	if out.Body != nil {
		p.body.ReadCloser = out.Body
		out.Body = &p.body
	}
	p.outHeader(out.Header)
}

// RoundTrip implements http.RoundTripper for the one request of this passage.
func (p *passage) RoundTrip(out *http.Request) (*http.Response, error) {
	if p.in.ProtoMajor == 1 {
		yield.InARow() // under load many requests go out in a row
	}
	asked := p.door.since(p.start)
	defer func() { p.event.Response.Wait = p.door.since(p.start) - asked }()
	return p.gen.upstreams[p.entry].roundTrip(out, p)
}

// received looks at the upstream's answer before the visitor does.
func (p *passage) received(res *http.Response) error {
	cleanResponse(res.Header, res.StatusCode == http.StatusSwitchingProtocols)
	if res.StatusCode == http.StatusSwitchingProtocols && !p.upgrade {
		return errUnasked // nothing may be tunnelled that nobody asked for
	}
	p.reshape(res)
	if res.StatusCode == http.StatusSwitchingProtocols {
		if err := p.switched(res); err != nil {
			return err
		}
		return errSwitched
	}
	if endless := p.watch(res); endless {
		return p.becomesStream()
	}
	return nil
}

// failed answers in place of an upstream that did not.
func (p *passage) failed(_ http.ResponseWriter, _ *http.Request, err error) {
	if errors.Is(err, errSwitched) {
		return
	}
	reason := upstreamReason(err)
	switch ended := p.stream.ended(); {
	case ended != "":
		reason = ended
	case p.door.base.Err() != nil:
		reason = access.ShuttingDown
	case p.in.Context().Err() != nil:
		reason = access.ClientGone
	case p.body.over.Load():
		reason = access.BodyTooLarge
	case p.body.failed.Load():
		reason = access.BadRequest // the visitor's body, not the upstream, broke
	}
	p.event.Response.Reason = reason
	p.note(err)
	switch {
	case p.out.hijacked:
		// The connection is no longer HTTP, and closed.
	case reason == access.ClientGone:
		p.out.WriteHeader(statusClientGone)
	default:
		p.refuse(reason)
	}
}

// upgrades reports whether a request asks to switch protocols (RFC 9110 §7.8).
func upgrades(h http.Header) bool {
	return len(h["Upgrade"]) > 0 && hasToken(h["Connection"], "upgrade")
}

// mayUpgrade reports whether the upgrade is one that the route permits: the
// opening handshake of a WebSocket (RFC 6455 §4.1) and nothing else. Behind any
// other protocol a visitor could speak to the upstream without us.
func (p *passage) mayUpgrade() bool {
	r := p.in
	return p.entry.Route.WebSocket && r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoAtLeast(1, 1) &&
		len(r.Header["Upgrade"]) == 1 && strings.EqualFold(r.Header["Upgrade"][0], "websocket") &&
		r.ContentLength == 0 && len(r.TransferEncoding) == 0
}
