package proxy

import (
	"cmp"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

var errPrefixBoundary = errors.New("strip_prefix ends in front of an escaped slash, so that the rest would begin with none")

// pathMap says how the paths that visitors see and those of the upstream go
// together: what one has in front is replaced by what the other has. Both are
// canonical, without a slash at the end; the zero value changes nothing.
type pathMap struct{ public, upstream pathname }

func compilePathMap(route *access.Route, f access.Faults) pathMap {
	var m pathMap
	m.public = compilePrefix(route.StripPrefix, f.At("strip_prefix"))
	m.upstream = compilePrefix(route.AddPrefix, f.At("add_prefix"))
	_, _, prefix, err := parseFrom(route.From)
	if err == nil && m.public.Path != "" && m.public.Path != prefix && !strings.HasPrefix(prefix, m.public.Path+"/") {
		f.At("strip_prefix").Add("write the path of from, or its beginning", "not every request of %q has %q in front", route.From, route.StripPrefix)
	}
	return m
}

func compilePrefix(text string, f access.Faults) pathname {
	if text == "" {
		return pathname{}
	}
	p, err := parsePathname(text)
	if err != nil || p.Ambiguous != 0 || strings.HasSuffix(p.Path, "/") {
		f.Add("write /wiki", "%q is no path without a slash at its end", text)
		return pathname{}
	}
	return p
}

func (m *pathMap) none() bool { return m.public.Path == "" && m.upstream.Path == "" }

// toUpstream derives what the upstream gets from the path that was decided on.
func (m *pathMap) toUpstream(p pathname) (pathname, error) {
	if m.none() {
		return p, nil
	}
	rest, err := behind(p, len(m.public.Path))
	if err != nil {
		return pathname{}, err
	}
	return pathname{Path: cmp.Or(m.upstream.Path+rest.Path, "/"), Escaped: cmp.Or(m.upstream.Escaped+rest.Escaped, "/")}, nil
}

// behind returns what stands behind the first n bytes of a decoded path, which a
// segment ends with. An escape is one byte of the decoded path.
func behind(p pathname, n int) (pathname, error) {
	at := 0
	for range n {
		if p.Escaped[at] == '%' {
			at += 2
		}
		at++
	}
	rest := pathname{Path: p.Path[n:], Escaped: p.Escaped[at:]}
	if rest.Escaped != "" && rest.Escaped[0] != '/' {
		return pathname{}, access.Because(access.AmbiguousPath, errPrefixBoundary)
	}
	return rest, nil
}

// toPublic is the way back for a path in the upstream's words, escaped. It reports
// false for one that the visitor has no address for.
func (m *pathMap) toPublic(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, m.upstream.Escaped)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return cmp.Or(m.public.Escaped+rest, "/"), true
}

// cookiePath is toPublic for the Path of a cookie, which is sent to everything
// below as well. One that covers the whole of the upstream's part covers the whole
// of the visitor's.
func (m *pathMap) cookiePath(path string) string {
	if strings.HasPrefix(m.upstream.Escaped+"/", strings.TrimSuffix(path, "/")+"/") {
		return cmp.Or(m.public.Escaped, "/")
	}
	if public, ok := m.toPublic(path); ok {
		return public
	}
	return path
}

// makePublic rewrites what an answer says about addresses: Location, where it
// names the upstream by the name it was asked by, or by a path, and the Path of
// cookies. Other places where an application writes its own address are its own
// matter.
func (p *passage) makePublic(res *http.Response) {
	m := &p.entry.shape.paths
	if location := res.Header.Get("Location"); location != "" {
		res.Header.Set("Location", p.publicLocation(location, res.Request))
	}
	if m.none() {
		return
	}
	for i, cookie := range res.Header["Set-Cookie"] {
		res.Header["Set-Cookie"][i] = m.cookie(cookie)
	}
}

func (p *passage) publicLocation(location string, asked *http.Request) string {
	m := &p.entry.shape.paths
	u, err := url.Parse(location)
	if err != nil || u.Opaque != "" || u.User != nil || u.Host == "" && (u.Scheme != "" || m.none() || !strings.HasPrefix(u.Path, "/")) {
		return location // relative, or nobody's we know
	}
	if u.Host != "" && !namesUpstream(u, asked) {
		return location
	}
	path, ok := m.toPublic(cmp.Or(u.EscapedPath(), "/"))
	if !ok {
		return location
	}
	if u.Host != "" || strings.HasPrefix(path, "//") { // two slashes would be a host
		path = p.req.Origin() + path
	}
	if u.RawQuery != "" || u.ForceQuery {
		path += "?" + u.RawQuery
	}
	if u.Fragment != "" {
		path += "#" + u.EscapedFragment()
	}
	return path
}

// namesUpstream reports whether an address is that of the upstream, in the words
// that it was asked with. The scheme is whatever the upstream believes.
func namesUpstream(u *url.URL, asked *http.Request) bool {
	scheme := u.Scheme
	if scheme == "" {
		scheme = asked.URL.Scheme
	}
	if scheme != "http" && scheme != "https" {
		return false
	}
	host, err := canonicalHost(u.Host, scheme)
	if err != nil {
		return false
	}
	// Servers also put the port they listen on behind the name they were given.
	given := (&url.URL{Host: asked.Host}).Hostname()
	for _, name := range []string{asked.Host, asked.URL.Host, net.JoinHostPort(given, asked.URL.Port())} {
		if own, err := canonicalHost(name, asked.URL.Scheme); err == nil && own == host {
			return true
		}
	}
	return false
}

// cookie rewrites the Path of a Set-Cookie header. A cookie with the prefix __Host-
// has to be for the whole host (RFC 6265bis §4.1.3.2), or browsers refuse it.
func (m *pathMap) cookie(text string) string {
	parts := strings.Split(text, ";")
	if name := strings.TrimLeft(parts[0], " \t"); len(name) >= len(hostPrefix) && strings.EqualFold(name[:len(hostPrefix)], hostPrefix) {
		return text
	}
	for i, part := range parts[1:] {
		name, value, ok := strings.Cut(part, "=")
		if value = strings.Trim(value, " \t"); !ok || !strings.EqualFold(strings.Trim(name, " \t"), "path") || !strings.HasPrefix(value, "/") {
			continue
		}
		parts[i+1] = name + "=" + m.cookiePath(value)
	}
	return strings.Join(parts, ";")
}
