package proxy

import (
	"net/http"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// origins is a set of web origins (RFC 6454 §6.2), some of which stand for all
// hosts one label below. The zero value is empty.
type origins struct {
	exact map[string]bool
	below map[string]bool // by scheme and what follows the first label: https://.apps.example.com
	any   bool
}

// anyOrigin is the entry of cors.origins that stands for all.
const anyOrigin = "*"

func compileOrigins(list []string, f access.Faults) origins {
	o := origins{exact: map[string]bool{}, below: map[string]bool{}}
	for i, text := range list {
		at := f.At("[%d]", i)
		scheme, host, ok := strings.Cut(text, "://")
		name, wild := strings.CutPrefix(host, "*.")
		origin, err := canonicalOrigin(scheme + "://" + name)
		switch {
		case !ok || err != nil || wild && !strings.Contains(name, "."):
			at.Add("write https://app.example.com, or https://*.apps.example.com for all hosts one label below", "%q is no origin", text)
		case wild:
			scheme, host, _ := strings.Cut(origin, "://")
			o.below[scheme+"://."+host] = true
		default:
			o.exact[origin] = true
		}
	}
	return o
}

// canonicalOrigin returns the one spelling of an origin. "null", by which browsers
// mean that they do not say, is none.
func canonicalOrigin(text string) (string, error) {
	scheme, host, ok := strings.Cut(text, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return "", errNotHTTP
	}
	host, err := canonicalHost(host, scheme)
	return scheme + "://" + host, err
}

// has reports whether a canonical origin belongs to the set.
func (o *origins) has(origin string) bool {
	if o.any || o.exact[origin] {
		return true
	}
	scheme, host, _ := strings.Cut(origin, "://")
	dot := strings.IndexByte(host, '.')
	return dot > 0 && o.below[scheme+"://"+host[dot:]]
}

// originOf returns the origin that a request names, "" where it is none that
// anything could be known about. there reports whether a browser says anything.
func originOf(h http.Header) (origin string, there bool) {
	values := h["Origin"]
	if len(values) != 1 {
		return "", len(values) > 0
	}
	origin, err := canonicalOrigin(values[0])
	if err != nil {
		return "", true
	}
	return origin, true
}

// opensWebSocket recognises a handshake also where a front end asks about it and
// keeps Connection and Upgrade to itself. No page can set the other header.
func (p *passage) opensWebSocket() bool {
	return p.upgrade || len(p.in.Header["Sec-Websocket-Key"]) > 0
}

// mayConnect reports whether the page that opens a WebSocket may. Browsers send
// the visitor's cookies along whichever page asks, and no preflight, so that any
// site could speak in the visitor's name (RFC 6455 §10.2). Programs name no
// origin; they have no visitor to deceive.
func (p *passage) mayConnect() bool {
	origin, there := originOf(p.in.Header)
	return !there || origin == p.req.Origin() || p.entry.shape.sockets.has(origin)
}
