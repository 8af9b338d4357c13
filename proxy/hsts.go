package proxy

import (
	"fmt"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	hstsHeader  = "Strict-Transport-Security"
	hstsMaxAge  = 365 * 24 * time.Hour
	hstsSend    = "send"
	hstsForget  = "forget"
	hstsByOther = "upstream"
)

// compileHSTS returns the value of Strict-Transport-Security (RFC 6797 §6.1), ""
// where the header is the application's.
func compileHSTS(c access.HSTS, f access.Faults) string {
	age := c.MaxAge.Or(hstsMaxAge)
	switch c.Mode {
	case "", hstsSend:
	case hstsForget, hstsByOther:
		if c.MaxAge != 0 || c.IncludeSubdomains {
			f.Add("take them out", "max_age and include_subdomains say nothing with mode: %s", c.Mode)
		}
		if c.Mode == hstsByOther {
			return ""
		}
		return "max-age=0"
	default:
		f.At("mode").Add("write send, forget or upstream", "%q is none of them", c.Mode)
	}
	if age < time.Second {
		f.At("max_age").Add("write 365d, or mode: forget", "%s is less than a second", c.MaxAge)
	}
	value := fmt.Sprintf("max-age=%d", int64(age.Seconds()))
	if c.IncludeSubdomains {
		value += "; includeSubDomains"
	}
	return value
}

// keepHSTS notes what a route says for its host. Browsers remember one thing per
// host, so that two routes cannot say different things.
func (t *Table) keepHSTS(route *access.Route, f access.Faults) {
	if route.HSTS.IsZero() || strings.HasPrefix(route.From, "tcp:") {
		return
	}
	value := compileHSTS(route.HSTS, f)
	scheme, host, _, err := parseFrom(route.From)
	switch {
	case err != nil:
		return // add says so
	case scheme != "https":
		f.Add("take it out", "browsers believe it by https only, and %q is not", route.From)
		return
	}
	sites := t.https.exact
	if rest, ok := strings.CutPrefix(host, "*"); ok {
		sites, host = t.https.wildcard, rest
	}
	s := sites[host]
	if s == nil {
		return // the route has no place, which has been said
	}
	if s.hsts != nil && *s.hsts != value {
		f.Add("say it in one of them", "another route of the host says something else, and browsers remember one thing per host")
	}
	s.hsts = &value
}

// setHSTS says it in an answer that goes to the visitor over TLS of our own, for a
// host that is ours (RFC 6797 §7). An upstream's word is replaced: browsers take
// the first header only.
func (p *passage) setHSTS(h map[string][]string) {
	if p.gen == nil || p.req.Scheme != "https" || p.event.Response.TLS.Version == "" || !p.gen.owns(p.req.Scheme, p.req.Host) {
		return
	}
	value := p.gen.hsts
	if s := p.gen.Routes.site(p.req.Scheme, p.req.Host); s != nil && s.hsts != nil {
		value = *s.hsts
	}
	if value != "" {
		h[hstsHeader] = []string{value}
	}
}
