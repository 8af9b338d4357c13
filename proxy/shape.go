package proxy

import (
	"net/http"

	"github.com/doorward/doorward/internal/access"
)

// shape is what a route changes about requests and answers on their way, and what
// it answers by itself. Policy never sees any of it: it decides on what the
// visitor asked for.
type shape struct {
	paths   pathMap
	host    string // for the upstream; empty: its own or the visitor's
	edits   headerEdits
	leads   lead
	cors    *cors
	sockets origins // whose pages may open a WebSocket, besides the route's own
}

func (e *Entry) compileShape(f access.Faults) {
	r, s := e.Route, &e.shape
	e.compileAnswers(f)
	s.paths = compilePathMap(r, f)
	s.edits = compileEdits(&r.ResponseHeaders, f.At("response_headers"))
	s.cors = compileCORS(&r.CORS, f.At("cors"))
	s.sockets = compileOrigins(r.WebSocketOrigins, f.At("websocket_origins"))
	if r.Host != "" {
		var err error
		if s.host, err = canonicalHost(r.Host, upstreamScheme(e)); err != nil {
			f.At("host").Add("write app.internal", "%q: %v", r.Host, err)
		}
		if r.PreserveHost {
			f.At("host").Add("keep one of them", "preserve_host sends the visitor's host already")
		}
	}
	if len(r.WebSocketOrigins) > 0 && !r.WebSocket {
		f.At("websocket_origins").Add("add websocket: true, or take it out", "the route upgrades no connections")
	}
	if r.Preflight && r.CORS.Enabled() {
		f.At("preflight").Add("take it out", "with cors, Doorward answers preflights itself and none goes to the upstream")
	}
	if r.MaxBodyBytes < noBodyLimit {
		f.At("max_body_bytes").Add("write -1 for no limit", "%d is no number of bytes", r.MaxBodyBytes)
	}
	if len(r.To) == 0 {
		e.checkUnforwarded(f)
	}
}

func upstreamScheme(e *Entry) string {
	if len(e.targets) > 0 {
		return e.targets[0].Scheme
	}
	return "https"
}

// checkUnforwarded reports what has no effect because Doorward forwards nothing:
// the route answers by itself, or a front end forwards its requests.
func (e *Entry) checkUnforwarded(f access.Faults) {
	r, itself := e.Route, e.Route.Answers()
	text, cure := "a front end forwards the requests of this route", "let the front end do it, or add to"
	if itself {
		text, cure = "the route asks no upstream", "take it out"
	}
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"host", r.Host != ""}, {"strip_prefix", r.StripPrefix != ""}, {"add_prefix", r.AddPrefix != ""}, {"max_body_bytes", r.MaxBodyBytes != 0},
		{"response_headers", !itself && !r.ResponseHeaders.IsZero()}, {"cors", !itself && r.CORS.Enabled()},
		{"headers", itself && len(r.Headers) > 0}, {"upstream_tls", itself && !r.UpstreamTLS.IsZero()}, {"insecure_upstream", itself && r.InsecureUpstream != ""},
		{"preserve_host", itself && r.PreserveHost}, {"websocket", itself && r.WebSocket}, {"preflight", itself && r.Preflight}, {"timeout", itself && r.Timeout != 0},
	} {
		if key.set {
			f.At("%s", key.name).Add(cure, "it has no effect: %s", text)
		}
	}
}

// finishHeader completes the headers of an answer at the moment it begins, whoever
// it is from: the application, the route itself, or a page of ours.
func (p *passage) finishHeader(h http.Header) {
	if p.answering != ourselves || p.tunnel != nil {
		return
	}
	p.setHSTS(h)
	if p.entry != nil && p.entry.shape.cors != nil {
		p.entry.shape.cors.share(p.in.Header, h)
	}
}

// reshape makes an upstream's answer the route's.
func (p *passage) reshape(res *http.Response) {
	if res.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	p.makePublic(res)
	p.entry.shape.edits.edit(res.Header)
	p.entry.shape.cors.overrule(res.Header)
}
