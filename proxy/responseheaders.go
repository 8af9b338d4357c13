package proxy

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// framing are the response headers that say where a message ends and how its body
// is to be read. A wrong one breaks the message, or makes two of it.
var framing = []string{"Connection", "Content-Encoding", "Content-Length", "Content-Range", "Keep-Alive", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade"}

// protected are the response headers that routes cannot set, because somebody
// else's word in them counts, with what to do instead.
var protected = map[string]string{
	"Set-Cookie":         "let the application set its cookies",
	"Location":           "use redirect",
	"Www-Authenticate":   "let Doorward or the application ask for credentials",
	"Proxy-Authenticate": "let Doorward ask for credentials",
	"Alt-Svc":            "take it out: Doorward speaks HTTP/1.1 and HTTP/2 on its one address",
	"X-Request-Id":       "take it out: Doorward says it",
	hstsHeader:           "use hsts",
}

// headerEdits is response_headers in the form in which it is carried out.
type headerEdits struct {
	remove   []string
	set, add http.Header
}

func compileEdits(c *access.ResponseHeaders, f access.Faults) headerEdits {
	e := headerEdits{set: http.Header{}, add: http.Header{}}
	for i, name := range c.Remove {
		at, canonical := f.At("remove[%d]", i), http.CanonicalHeaderKey(name)
		if checkEdited(name, at) {
			e.remove = append(e.remove, canonical)
		}
	}
	for key, values := range map[string]map[string]string{"set": c.Set, "add": c.Add} {
		into := map[string]http.Header{"set": e.set, "add": e.add}[key]
		for _, name := range slices.Sorted(maps.Keys(values)) {
			at, canonical := f.At("%s.%s", key, name), http.CanonicalHeaderKey(name)
			if !checkEdited(name, at) {
				continue
			}
			switch cure := protected[canonical]; {
			case cure != "":
				at.Add(cure, "%s is not for a route to say", canonical)
			case strings.HasPrefix(canonical, corsPrefix):
				at.Add("use cors", "%s is not for a route to say", canonical)
			case into[canonical] != nil || slices.Contains(e.remove, canonical) || e.set[canonical] != nil:
				at.Add("keep one of them", "%s is edited twice", canonical)
			case values[name] == "" || headerText(values[name]) != strings.ReplaceAll(values[name], "%", "%25"):
				at.Add("write printable ASCII on one line, or use remove", "%q is no value for a header", values[name])
			default:
				into[canonical] = []string{values[name]}
			}
		}
	}
	return e
}

// checkEdited reports a header that cannot be edited in any way.
func checkEdited(name string, f access.Faults) bool {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !validHeaderName(name):
		f.Add("use letters, digits and hyphens", "%q is no header name", name)
	case slices.Contains(framing, canonical) || strings.HasPrefix(canonical, "Doorward-"):
		f.Add("take it out", "%s belongs to HTTP or to Doorward itself", canonical)
	default:
		return true
	}
	return false
}

// edit carries the edits out.
func (e *headerEdits) edit(h http.Header) {
	for _, name := range e.remove {
		delete(h, name)
	}
	for name, values := range e.set {
		h[name] = values[:1:1]
	}
	for name, values := range e.add {
		h[name] = append(h[name][:len(h[name]):len(h[name])], values...)
	}
}
