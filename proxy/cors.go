package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	corsMaxAge = 10 * time.Minute
	corsPrefix = "Access-Control-"
)

// cors is what a route says to pages of other origins (Fetch standard, "CORS
// protocol"). Nil: nothing, and the upstream may.
type cors struct {
	origins     origins
	credentials bool
	// What a preflight and what an answer carries, besides the origin. The first is
	// the same whatever is asked for: the browser compares.
	methods, headers, expose, maxAge string
}

func compileCORS(c *access.CORS, f access.Faults) *cors {
	if !c.Enabled() {
		return nil
	}
	list := c.Origins
	wide := slices.Equal(list, []string{anyOrigin})
	switch {
	case wide:
		list = nil
		if c.Credentials {
			f.At("origins").Add("list the origins, or take credentials out", "every page there is could act as the visitor")
		}
	case slices.Contains(list, anyOrigin):
		f.At("origins").Add(`write origins: ["*"] alone, or list the others alone`, `"*" stands for all origins already`)
		return nil
	case len(list) == 0:
		f.At("origins").Add("write [https://app.example.com]", "nobody is named")
	}
	k := &cors{origins: compileOrigins(list, f.At("origins")), credentials: c.Credentials}
	k.origins.any = wide
	methods := c.Methods
	if len(methods) == 0 {
		methods = []string{http.MethodGet, http.MethodHead, http.MethodPost}
	}
	for i, method := range methods {
		if !isToken(method) || method == anyOrigin || checkMethod(method) != nil {
			f.At("methods[%d]", i).Add("write [GET, POST]", "%q is no method", method)
		}
	}
	headerNames(c.Headers, f.At("headers"))
	headerNames(c.Expose, f.At("expose"))
	k.methods, k.headers, k.expose = strings.Join(methods, ", "), strings.Join(c.Headers, ", "), strings.Join(c.Expose, ", ")
	k.maxAge = strconv.FormatInt(int64(c.MaxAge.Or(corsMaxAge).Seconds()), 10)
	return k
}

func headerNames(names []string, f access.Faults) {
	for i, name := range names {
		if !validHeaderName(name) {
			f.At("[%d]", i).Add("write the names of headers, such as [Content-Type]", "%q is no header name", name)
		}
	}
}

// answerPreflight says to a browser what a page may send, or that it may nothing.
// No application is asked.
func (p *passage) answerPreflight() error {
	k := p.entry.shape.cors
	if origin, _ := originOf(p.in.Header); !k.origins.has(origin) {
		return access.Becausef(access.OriginRefused, "preflight of %q", p.in.Header.Get("Origin"))
	}
	h := p.out.Header()
	h.Set("Access-Control-Allow-Methods", k.methods)
	if k.headers != "" {
		h.Set("Access-Control-Allow-Headers", k.headers)
	}
	h.Set("Access-Control-Max-Age", k.maxAge)
	p.out.WriteHeader(http.StatusNoContent)
	return nil
}

// overrule takes out what the upstream says about other origins.
func (k *cors) overrule(h http.Header) {
	for name := range h {
		if k != nil && strings.HasPrefix(name, corsPrefix) {
			delete(h, name)
		}
	}
}

// share tells the browser that the page which asked may read an answer. Refusals
// are no exception, so that a page can find out that its visitor has to log in.
func (k *cors) share(asked, h http.Header) {
	if k.origins.any {
		h.Set("Access-Control-Allow-Origin", anyOrigin)
	} else {
		if !hasToken(h["Vary"], "Origin") {
			h.Add("Vary", "Origin")
		}
		origin, _ := originOf(asked)
		if !k.origins.has(origin) {
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		if k.credentials {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
	}
	if k.expose != "" {
		h.Set("Access-Control-Expose-Headers", k.expose)
	}
}
