package proxy

import (
	"cmp"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Routes that answer by themselves. What they say is decided on and recorded like
// everything else; no upstream is asked.

// maxRespondBytes is the longest text of a fixed answer.
const maxRespondBytes = 64 << 10

var (
	errAnsweredHere = errors.New("Doorward answers this request itself; front ends have to send it to Doorward")
	redirectCodes   = []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect}
	// askingCodes are answers that only whoever asks for credentials gives.
	askingCodes = []int{http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusUpgradeRequired}
)

// compileAnswers reads what a route answers instead of asking an upstream.
func (e *Entry) compileAnswers(f access.Faults) {
	r := e.Route
	if r.Redirect.Enabled() && r.Respond.Enabled() {
		f.At("respond").Add("keep one of them", "the route redirects already")
	}
	if r.Answers() && len(r.To) > 0 {
		f.At("to").Add("take it out, or take out redirect and respond", "the route answers by itself and asks no upstream")
	}
	if r.Redirect.Enabled() {
		e.shape.leads = compileRedirect(r, f.At("redirect"))
	}
	if r.Respond.Enabled() {
		checkRespond(&r.Respond, f.At("respond"))
	}
}

// lead is where a redirect leads: an address without a slash at its end if more is
// appended to it. Without an origin it is on the host that was asked.
type lead struct {
	origin, rest string
	behind       int // how much of the decoded path is that of from
}

func compileRedirect(r *access.Route, f access.Faults) lead {
	c := &r.Redirect
	if c.Status != 0 && !slices.Contains(redirectCodes, c.Status) {
		f.At("status").Add("one of 301, 302, 303, 307, 308", "%d is no status of a redirect", c.Status)
	}
	at := f.At("to")
	u, err := url.Parse(c.To)
	plain := err == nil && u.User == nil && u.Opaque == "" && !strings.ContainsFunc(c.To, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' })
	if !plain || u.Host == "" && (u.Scheme != "" || !strings.HasPrefix(c.To, "/") || strings.HasPrefix(c.To, "//")) || u.Host != "" && u.Scheme != "http" && u.Scheme != "https" {
		at.Add("write https://new.example.com/path, or /path on the same host", "%q is no address to lead to", c.To)
		return lead{}
	}
	var to lead
	if u.Host != "" {
		host, err := canonicalHost(u.Host, u.Scheme)
		if err != nil {
			at.Add("write https://new.example.com/path", "%q: %v", c.To, err)
		}
		to.origin = u.Scheme + "://" + host
	}
	to.rest = cmp.Or(u.EscapedPath(), "/")
	if c.KeepPath {
		_, _, prefix, _ := parseFrom(r.From)
		to.behind, to.rest = len(prefix), strings.TrimSuffix(to.rest, "/")
		if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
			at.Add("take out what follows the path, or keep_path", "the rest of the path cannot be put behind a query")
		}
		return to
	}
	if u.RawQuery != "" {
		to.rest += "?" + u.RawQuery
	}
	if u.Fragment != "" {
		to.rest += "#" + u.EscapedFragment()
	}
	return to
}

// checkRedirects reports redirects that lead to the route itself, and so nowhere. A
// route for a part of the host may well be where the rest of it leads.
func (t *Table) checkRedirects(routes []access.Route, faults access.Faults) {
	for i := range routes {
		to := &routes[i].Redirect
		if !to.Enabled() {
			continue
		}
		scheme, host, _, err := parseFrom(routes[i].From)
		target, err2 := url.Parse(to.To)
		if err != nil || err2 != nil {
			continue // which has been said
		}
		host = strings.Replace(host, "*", "any", 1)
		if target.Host != "" {
			scheme = target.Scheme
			if host, err = canonicalHost(target.Host, scheme); err != nil {
				continue
			}
		}
		if entry := t.Match(scheme, host, cmp.Or(target.Path, "/")); entry != nil && entry.Route == &routes[i] {
			faults.At("[%d].redirect.to", i).Add("let it lead out of the route", "%q is an address of this route, so that it would lead to itself", to.To)
		}
	}
}

func checkRespond(c *access.Respond, f access.Faults) {
	bare := c.Status == http.StatusNoContent || c.Status == http.StatusResetContent
	switch {
	case c.Status >= 300 && c.Status < 400:
		f.At("status").Add("use redirect", "%d is a redirect or means nothing without a request for it", c.Status)
	case c.Status < 200 || c.Status > 599:
		f.At("status").Add("write 200, or 503 for what is closed", "%d is no status of an answer", c.Status)
	case slices.Contains(askingCodes, c.Status):
		f.At("status").Add("write 403, or let policy refuse", "%d asks for something that no visitor could bring", c.Status)
	case bare && c.Body != "":
		f.At("body").Add("take it out", "an answer with status %d has none", c.Status)
	}
	if len(c.Body) > maxRespondBytes {
		f.At("body").Add("serve it from an application", "%d bytes are more than %d", len(c.Body), maxRespondBytes)
	}
	if c.ContentType == "" {
		return
	}
	if _, _, err := mime.ParseMediaType(c.ContentType); err != nil || headerText(c.ContentType) != c.ContentType {
		f.At("content_type").Add("write text/html; charset=utf-8", "%q is no media type", c.ContentType)
	}
}

// answersItself reports whether Doorward answers an allowed request instead of an
// upstream.
func (p *passage) answersItself() bool {
	return p.entry.Route.Answers() || p.req.Preflight && p.entry.shape.cors != nil
}

// answerItself does.
func (p *passage) answerItself() error {
	switch {
	case p.req.Preflight && p.entry.shape.cors != nil:
		return p.answerPreflight()
	case p.entry.Route.Redirect.Enabled():
		return p.redirect()
	}
	p.respond()
	return nil
}

func (p *passage) redirect() error {
	c, to := &p.entry.Route.Redirect, p.entry.shape.leads
	target := cmp.Or(to.origin, p.req.Origin()) + to.rest
	if c.KeepPath {
		rest, err := behind(p.path, to.behind)
		if err != nil {
			return err
		}
		target += cmp.Or(rest.Escaped, "/")
		if p.hasQuery {
			target += "?" + p.query
		}
	}
	h := p.out.Header()
	h.Set("Location", target)
	p.ownAnswer(cmp.Or(c.Status, http.StatusFound), "")
	return nil
}

func (p *passage) respond() {
	c := &p.entry.Route.Respond
	if c.Body != "" {
		p.out.Header().Set("Content-Type", cmp.Or(c.ContentType, "text/plain; charset=utf-8"))
	}
	p.ownAnswer(c.Status, c.Body)
}

// ownAnswer sends an answer that is not kept by anybody, since another visitor may
// get another one, unless the route says otherwise.
func (p *passage) ownAnswer(status int, body string) {
	h := p.out.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	p.entry.shape.edits.edit(h)
	if status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	p.out.WriteHeader(status)
	if p.in.Method != http.MethodHead {
		io.WriteString(&p.out, body)
	}
}
