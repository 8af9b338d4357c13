package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// answering says in which form the one who asks can carry an answer.
type answering uint8

const (
	// ourselves: the visitor has asked, and is answered or forwarded here.
	ourselves answering = iota
	// wholly: any answer but a 2xx goes to the visitor as it is (Traefik, Caddy).
	wholly
	// byStatus: only 2xx, 401 and 403 mean anything (nginx). The visitor's answer is
	// asked for apart, see asPage.
	byStatus
	// asPage: the answer to a request that was refused byStatus.
	asPage
	// asVerdict: the front end gets the verdict and, beside it, the answer for the
	// visitor. See Door.Authorize.
	asVerdict
	// asFilter: like wholly, and the answer that permits names the headers to remove
	// (ext_authz of Envoy over HTTP).
	asFilter
)

// answerForms are the values of the parameter `as` of access.AuthPath.
var answerForms = map[string]answering{"": wholly, "status": byStatus, "page": asPage}

var (
	errNotAsked      = errors.New("the front end may not ask")
	errReservedAsked = errors.New("an address below the reserved prefix was to be forwarded to an application; front ends have to send it to Doorward")
	errNoMethod      = errors.New("the front end does not say which method was asked for (X-Forwarded-Method or X-Original-Method)")
	errNoURI         = errors.New("the front end does not say which address was asked for (X-Forwarded-Uri, or X-Original-URL with scheme and host)")
	errNoOrigin      = errors.New("the front end does not say which scheme and host were asked for (X-Forwarded-Proto and X-Forwarded-Host)")
	errSaidTwice     = errors.New("the front end says two different things about the request")
	errNoClient      = errors.New("the front end does not say from which address the request comes (X-Forwarded-For)")
	errNoForm        = errors.New("the parameter as is neither status nor page")
)

// ForwardAuth returns the handler for the side door of front ends that ask over
// HTTP: auth_request of nginx, forward_auth of Caddy, ForwardAuth of Traefik, and
// ext_authz of Envoy over HTTP. It decides as the standalone door does, on the
// request that the headers of the question describe.
func (d *Door) ForwardAuth() http.Handler { return http.HandlerFunc(d.serveForwardAuth) }

func (d *Door) serveForwardAuth(w http.ResponseWriter, r *http.Request) {
	gen := d.live.Load()
	read := original
	if strings.HasPrefix(r.RequestURI, access.AuthInPlacePath+"/") {
		read = inPlace
	} else if path, _, _ := strings.Cut(r.RequestURI, "?"); path != access.AuthPath {
		http.Error(w, "Ask at "+access.AuthPath+".", http.StatusNotFound)
		return
	}
	if gen == nil || !gen.Server.ForwardAuth.admits(askerOf(r)) {
		d.log.Warn("somebody asked who may not", "peer", r.RemoteAddr, "cure", "if it is a front end of yours, list it in server.forward_auth.peers")
		http.Error(w, errNotAsked.Error(), http.StatusForbidden)
		return
	}
	asked, form, err := read(r)
	if err != nil {
		d.log.Warn("a front end asked in a way that means nothing", "peer", r.RemoteAddr, "error", err)
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	p := d.begin(w, asked)
	p.req.Door, p.answering = access.ForwardAuth, form
	if form == asFilter {
		p.told = toldBy(asked.Header)
	}
	defer p.finish()
	p.answer()
}

// original makes the request that a visitor sent of the question about it. It has
// no body: front ends keep it.
func original(r *http.Request) (*http.Request, answering, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	form, known := answerForms[query.Get("as")]
	if err != nil || !known {
		return nil, 0, errNoForm
	}
	h := r.Header.Clone()
	method, err := one(h, "X-Forwarded-Method", "X-Original-Method")
	if err != nil || method == "" {
		return nil, 0, errors.Join(errNoMethod, err)
	}
	uri, err := one(h, "X-Forwarded-Uri", "X-Original-Uri")
	if err != nil {
		return nil, 0, err
	}
	whole, err := one(h, "X-Original-Url")
	if err != nil {
		return nil, 0, err
	}
	if whole != "" { // SCHEME://HOST/PATH?QUERY, as nginx puts it together
		scheme, rest, ok := strings.Cut(whole, "://")
		end := strings.IndexAny(rest, "/?#")
		if !ok || end < 0 {
			return nil, 0, errNoURI
		}
		for name, value := range map[string]string{"X-Forwarded-Proto": scheme, "X-Forwarded-Host": rest[:end]} {
			if said, err := one(h, name); err != nil || said != "" && said != value {
				return nil, 0, errors.Join(errSaidTwice, err)
			}
			h[name] = []string{value}
		}
		if uri != "" && uri != rest[end:] {
			return nil, 0, errSaidTwice
		}
		uri = rest[end:]
	}
	if uri == "" {
		return nil, 0, errNoURI
	}
	for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Host"} {
		if said, err := one(h, name); err != nil || said == "" {
			return nil, 0, errors.Join(errNoOrigin, err)
		}
	}
	return subject(r, method, uri, h), form, nil
}

// inPlace reads a question that repeats method, host and address of the request
// where HTTP has them, the address behind a prefix. That is how Envoy asks over
// HTTP; headers tell the rest.
func inPlace(r *http.Request) (*http.Request, answering, error) {
	h := r.Header.Clone()
	if len(h["X-Forwarded-Proto"]) != 1 {
		return nil, 0, errNoOrigin
	}
	if len(h["X-Forwarded-For"]) == 0 {
		return nil, 0, errNoClient
	}
	h["X-Forwarded-Host"] = []string{r.Host}
	return subject(r, r.Method, strings.TrimPrefix(r.RequestURI, access.AuthInPlacePath), h), asFilter, nil
}

// subject is the request that a question r is about.
func subject(r *http.Request, method, uri string, h http.Header) *http.Request {
	asked := r.WithContext(r.Context())
	asked.Method, asked.RequestURI, asked.Host, asked.Header = method, uri, h.Get("X-Forwarded-Host"), h
	asked.Body, asked.ContentLength, asked.TransferEncoding, asked.Trailer = http.NoBody, 0, nil, nil
	asked.TLS = nil // the front end's own
	var err error
	if asked.URL, err = url.ParseRequestURI(uri); err != nil {
		asked.URL = &url.URL{Path: "/"} // receive refuses what it cannot read itself
	}
	return asked
}

// one returns what headers of several names say, which has to be one thing. A
// front end that added its word to a visitor's would leave two.
func one(h http.Header, names ...string) (said string, err error) {
	for _, name := range names {
		values := h[name]
		if len(values) > 1 || len(values) == 1 && said != "" && values[0] != said {
			return "", errSaidTwice
		}
		if len(values) == 1 {
			said = values[0]
		}
		if (name == "X-Forwarded-Proto" || name == "X-Forwarded-Host") && strings.Contains(said, ",") {
			return "", errSaidTwice
		}
	}
	return said, nil
}

// answer takes a question past the stations that decide, and answers it. Nothing
// is forwarded.
func (p *passage) answer() {
	if !p.arrive() {
		return
	}
	if p.isReserved() {
		p.refuseBefore(access.Because(access.BadRequest, errReservedAsked))
		return
	}
	if !p.admit() {
		return
	}
	if p.answersItself() {
		p.refuseServing(access.Because(access.BadRequest, errAnsweredHere))
		return
	}
	p.permit()
}

// permit says yes. The headers are for the front end to hand on to the
// application, in place of whatever the visitor sent under these names: each of
// them is always there, also if it is empty.
func (p *passage) permit() {
	h := p.out.Header()
	h.Set("Cache-Control", "no-store")
	if p.answering == asPage {
		// What refused it a moment ago is gone. The same request once more, with its
		// body, since only the visitor has that.
		h.Set("Location", p.req.Origin()+p.here())
		p.out.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	switch p.answering {
	case asVerdict:
		p.verdict.HandOn, p.verdict.Remove = p.handedOver()
		p.out.WriteHeader(http.StatusOK)
		return
	case asFilter:
		_, remove := p.handedOver()
		h.Set("X-Envoy-Auth-Headers-To-Remove", strings.ToLower(strings.Join(remove, ",")))
		for name, values := range p.handedOn() {
			if values[0] != "" {
				h[name] = values
			}
		}
		p.out.WriteHeader(http.StatusOK)
		return
	}
	for name, values := range p.handedOn() {
		h[name] = values
	}
	p.out.WriteHeader(http.StatusOK)
}

// handedOn returns the headers that an application gets from Doorward through a
// front end, and those of the visitor's that Doorward has something to take out of.
func (p *passage) handedOn() http.Header {
	facts := http.Header{}
	for _, name := range []string{"Cookie", "Authorization"} {
		facts[name] = p.in.Header[name]
		joinHeader(facts, name)
	}
	p.outHeader(facts)
	out := http.Header{}
	for _, name := range []string{"Cookie", "Authorization", AssertionHeader, requestIDHeader} {
		out[name] = []string{facts.Get(name)}
	}
	for _, rule := range p.entry.headers {
		out[rule.name] = []string{strings.Join(facts[rule.name], "")}
	}
	return out
}

// joinHeader makes one header of several. HTTP/2 splits cookies (RFC 9113 §8.2.3).
func joinHeader(h http.Header, name string) {
	(&setting{Header: h}).set(name, strings.Join(h[name], "; "))
}

// here is the path and query of the request, as links and redirects name it.
func (p *passage) here() string {
	if p.hasQuery {
		return p.path.Escaped + "?" + p.query
	}
	return p.path.Escaped
}

// refuseByStatus answers a front end that understands two refusals only: 401 where
// a login helps, else 403.
func (p *passage) refuseByStatus(reason access.Reason) {
	status := http.StatusForbidden
	if _, curable := p.loginCures(); curable || reason.CuredByLogin() {
		status = http.StatusUnauthorized
	}
	h := p.out.Header()
	clear(h)
	varies(h)
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", p.authenticate(reason))
	}
	p.door.log.LogAttrs(context.WithoutCancel(p.in.Context()), slog.LevelDebug, "refused by status", slog.String("request", p.req.ID), slog.Int("status", status))
	p.out.WriteHeader(status)
}
