package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/page"
	"github.com/doorward/doorward/internal/tunnel"
)

// The tunnel door: a request that wants to become a TCP connection. It is
// identified, inspected, decided on and recorded like any other; nothing is
// looked up or dialed before it is allowed. What it is on the wire says package
// internal/tunnel.

var (
	errTunnelAddress = errors.New("the address of a tunnel is " + tunnel.Template + "HOST/PORT/")
	errTunnelHost    = errors.New("no host and port to connect to")
	errTunnelForm    = errors.New("a tunnel begins with a GET over HTTP/1.1 that upgrades to connect-tcp or websocket, or with CONNECT")
	errTunnelPage    = errors.New("a page in a browser asked for a tunnel")
	errTunnelBody    = errors.New("the request has a body")
	errHandshake     = errors.New("the handshake does not follow RFC 6455")
	errElsewhere     = errors.New("the tunnel leads where the route does not lead any more")
)

// tunnelling is what is particular to a passage that wants to become a tunnel.
type tunnelling struct {
	target string // canonical name:port; empty until it is known to be one
	// form is the upgrade token, empty for a classic CONNECT.
	form string
	err  error // why the request is none that can be answered
	// status is the one of err, if it is not 400.
	status int
	dialed netip.AddrPort
	// problem is the error of Proxy-Status (RFC 9209 §2.3).
	problem string
}

func (t *Table) hasTunnels() bool { return len(t.tcp.exact)+len(t.tcp.wildcard) > 0 }

// mayTunnel reports whether tunnels are opened here: a door that only answers for
// another server opens none.
func (p *passage) mayTunnel() bool {
	return p.req.Door == access.Standalone && p.gen.Routes.hasTunnels()
}

// asTunnel makes a request one for a tunnel, as rules see it.
func asTunnel(req *access.Request, target string) {
	req.Door, req.Method, req.Scheme, req.Host, req.Path = access.Tunnel, http.MethodConnect, "tcp", target, "/"
	req.Query, req.Ambiguous, req.Preflight = "", nil, false
}

// receiveConnect is the rest of station 1 for a classic CONNECT (RFC 9110 §9.3.6),
// whose target is no URL.
func (p *passage) receiveConnect(peer netip.Addr, trusted bool) error {
	r := p.in
	p.tunnel = &tunnelling{}
	target, err := canonicalTarget(r.RequestURI)
	if err != nil {
		return access.Because(access.BadRequest, fmt.Errorf("%w: %w", errTunnelHost, err))
	}
	if _, extended := r.Header[":protocol"]; extended || r.ProtoMajor < 2 && !r.ProtoAtLeast(1, 1) {
		p.status = http.StatusNotImplemented
		return access.Because(access.BadRequest, errTunnelForm)
	}
	if r.ProtoMajor == 1 && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
		return access.Because(access.BadRequest, errTunnelBody)
	}
	p.tunnel.target = target
	p.receiveHeader(peer, trusted)
	// Proxies are spoken to by another header than servers.
	if credential := r.Header["Proxy-Authorization"]; len(credential) > 0 && len(r.Header["Authorization"]) == 0 {
		r.Header["Authorization"] = credential
	}
	delete(r.Header, "Proxy-Authorization")
	asTunnel(p.req, target)
	p.onlyCredentials()
	return nil
}

// receiveTunnel recognises the address of a tunnel.
func (p *passage) receiveTunnel() {
	if !p.mayTunnel() {
		return
	}
	target, ok := tunnel.TargetOf(p.path.Escaped)
	if !ok {
		return
	}
	t := &tunnelling{form: tunnel.UpgradeOf(p.in.Header)}
	p.tunnel = t
	if t.target, t.err = canonicalTarget(target); t.err != nil || p.hasQuery {
		t.err = errTunnelAddress
		return
	}
	r := p.in
	switch {
	case r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1):
		t.err, t.status = errTunnelForm, http.StatusNotImplemented
	case t.form == "" || !hasToken(r.Header["Connection"], "upgrade") || r.Method != http.MethodGet:
		t.err, t.status = errTunnelForm, http.StatusUpgradeRequired
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		t.err = errTunnelBody
	case len(r.Header["Origin"]) > 0:
		// A certificate is presented by whichever page the browser shows.
		t.err = errTunnelPage
	case t.form == tunnel.WebSocketToken && (r.Header.Get("Sec-Websocket-Version") != "13" || len(r.Header["Sec-Websocket-Key"]) != 1 ||
		tunnel.AcceptKey(r.Header.Get("Sec-Websocket-Key")) == ""):
		t.err = errHandshake
	}
	p.onlyCredentials()
}

// onlyCredentials takes out the cookies: browsers send them whoever asks, and
// tunnels are for programs, which have credentials of their own.
func (p *passage) onlyCredentials() { delete(p.in.Header, "Cookie") }

// serveTunnel takes the request past the remaining stations.
func (p *passage) serveTunnel() {
	t := p.tunnel
	if t.err != nil {
		p.status = t.status
		if t.target != "" {
			asTunnel(p.req, t.target)
		}
		p.refuseBefore(access.Because(access.BadRequest, t.err))
		return
	}
	if err := p.limitCredential(); err != nil {
		p.refuseNetwork(err)
		return
	}
	if err := p.gateTunnel(); err != nil {
		p.cannotDecide(err)
		p.note(err)
		reason := p.dec.Reason
		if reason == access.NoRoute && p.req.Identity.Nobody() && p.req.Credential.Problem == "" && p.req.Fault == "" {
			reason = access.LoginRequired // strangers do not learn which names there are
		}
		p.event.Response.Reason = reason
		p.refuse(reason)
		return
	}
	if err := p.limitDecided(); err != nil {
		p.refuseServing(err)
		return
	}
	if p.dec.Outcome != access.Allow {
		p.refuse(p.dec.Reason)
		return
	}
	if err := p.recordable(); err != nil {
		p.refuseServing(err)
		return
	}
	who := p.req.Identity.User()
	if !p.door.tunnels.take(who, t.target, &p.gen.Server.Tunnels) {
		t.problem = "connection_limit_reached"
		p.refuseServing(access.Becausef(access.TooManyTunnels, "of %s, or to %s", who, t.target))
		return
	}
	stay, done := p.outlast()
	ctx, leave := p.open()
	end := func() {
		leave()
		done()
		p.door.tunnels.giveBack(who, t.target)
	}
	_, connected := p.part("connect")
	conn, err := p.reach(ctx)
	if err != nil {
		connected(upstreamReason(err))
		defer end()
		p.failed(nil, nil, err)
		return
	}
	connected("")
	p.sent = true
	carry, err := p.carry(conn)
	if err != nil || !p.out.hijacked {
		defer end()
		if err != nil {
			p.failed(nil, nil, err)
			return
		}
		carry()
		return
	}
	// From here on the handler would hold nothing but the server's buffers.
	stay()
	p.outlives, p.out.ResponseWriter = true, nil
	go func() {
		defer p.finishTunnel()
		defer end()
		carry()
	}()
}

// outlast gives the request a context that can go on when its handler has ended,
// and until stay is called ends with the visitor. It ends with the door; done
// ends it.
func (p *passage) outlast() (stay, done func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.in.Context()))
	visitor, door := context.AfterFunc(p.in.Context(), cancel), context.AfterFunc(p.door.base, cancel)
	p.in = p.in.WithContext(ctx)
	return func() { visitor() }, func() {
		visitor()
		door()
		cancel()
	}
}

// finishTunnel is finish for a tunnel that has outlasted its handler.
func (p *passage) finishTunnel() {
	defer p.door.inFlight.Add(-1)
	defer p.record()
	defer p.settle()
	if v := recover(); v != nil {
		p.logPanic(v)
		p.event.Response.Reason = access.InternalError
	}
}

// gateTunnel is gate, except that a proof of possession names the HTTP address
// that was asked.
func (p *passage) gateTunnel() error {
	p.identify()
	asTunnel(p.req, p.tunnel.target)
	if err := p.match(); err != nil {
		return err
	}
	p.inspect()
	p.decide()
	p.event.Response.Decide = p.door.since(p.start)
	return nil
}

// reach connects to where the tunnel leads.
func (p *passage) reach(ctx context.Context) (net.Conn, error) {
	t := p.tunnel
	conn, at, err := p.entry.tunnel.connect(ctx, t.target, p.door.resolve, p.door.dial, p.gen.listens)
	if at.IsValid() {
		t.dialed, p.event.Response.Upstream = at, "tcp://"+at.String()
	}
	if err == nil {
		return conn, nil
	}
	var (
		dns     *net.DNSError
		timeout interface{ Timeout() bool }
		known   *access.Error
	)
	slow := errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
	switch {
	case errors.As(err, &known):
		t.problem = "destination_ip_prohibited"
		return nil, err
	case errors.As(err, &dns) && slow:
		t.problem = "dns_timeout"
	case errors.As(err, &dns):
		t.problem = "dns_error"
		return nil, access.Because(access.UpstreamUnreachable, err)
	case slow:
		t.problem = "connection_timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		t.problem = "connection_refused"
	default:
		t.problem = "destination_unavailable"
	}
	if slow {
		return nil, access.Because(access.UpstreamTimeout, err)
	}
	return nil, access.Because(access.UpstreamUnreachable, err)
}

// stillLeads checks that a tunnel leads where the configuration of now lets it.
func (p *passage) stillLeads(before *tunnelling) error {
	literal := slices.ContainsFunc(p.entry.tunnel.to, func(to string) bool { return to == before.dialed.String() })
	named := len(p.entry.tunnel.to) == 0 || literal || slices.ContainsFunc(p.entry.tunnel.to, func(to string) bool {
		name, port, err := net.SplitHostPort(to)
		_, isName := netip.ParseAddr(name)
		return err == nil && isName != nil && port == fmt.Sprint(before.dialed.Port())
	})
	if !before.dialed.IsValid() || named && p.entry.tunnel.permits(before.dialed, literal, p.gen.listens) == nil {
		return nil
	}
	return access.Because(access.TargetProhibited, errElsewhere)
}

// refuseTunnel completes a refusal: what a proxy has to say, and to strangers no
// more than that it refuses.
func (p *passage) refuseTunnel(rf *page.Refusal) {
	h, t := p.out.Header(), p.tunnel
	problem := t.problem
	if problem == "" {
		problem = "http_request_denied"
	}
	h.Set("Proxy-Status", "doorward; error="+problem)
	switch {
	case rf.Status == http.StatusUpgradeRequired:
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", tunnel.Token+", "+tunnel.DraftToken+", "+tunnel.WebSocketToken)
	case rf.Status == http.StatusUnauthorized && p.in.Method == http.MethodConnect:
		rf.Status = http.StatusProxyAuthRequired // RFC 9110 §15.5.8
		h["Proxy-Authenticate"] = h["Www-Authenticate"]
		delete(h, "Www-Authenticate")
	}
}
