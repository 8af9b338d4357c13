package proxy

import (
	"errors"
	"net/url"

	"github.com/doorward/doorward/internal/access"
)

// Imagine returns the request that a visitor of an absolute URL would make, as
// it stands behind stations 1 and 2: with one host, one path and, if there is
// one, a route. It reads the address as a live request's is read, so that what
// is explained about it holds for the live one.
func Imagine(routes *Table, method string, target *url.URL) (*access.Request, error) {
	if target.Scheme == "tcp" {
		return imagineTunnel(routes, target)
	}
	if target.Scheme != "http" && target.Scheme != "https" {
		return nil, errNotHTTP
	}
	if target.User != nil || target.Fragment != "" {
		return nil, errors.New("user names and fragments are no part of a request")
	}
	if err := checkMethod(method); err != nil {
		return nil, err
	}
	req := &access.Request{Door: access.Standalone, Method: method, Scheme: target.Scheme}
	var err error
	if req.Host, err = canonicalHost(target.Host, target.Scheme); err != nil {
		return nil, err
	}
	path := target.EscapedPath()
	if path == "" {
		path = "/"
	}
	name, err := parsePathname(path)
	if err != nil {
		return nil, err
	}
	if err := checkQuery(target.RawQuery); err != nil {
		return nil, err
	}
	req.Path, req.Query, req.Ambiguous = name.Path, redactQuery(target.RawQuery), name.Ambiguous.names()
	if entry := routes.Match(req.Scheme, req.Host, req.Path); entry != nil {
		if name.Ambiguous&^entry.ambiguous != 0 {
			return nil, access.Because(access.AmbiguousPath, errAmbiguous)
		}
		req.Route = entry.Route.ID
	}
	return req, nil
}

// imagineTunnel is Imagine for a tunnel to tcp://name:port.
func imagineTunnel(routes *Table, target *url.URL) (*access.Request, error) {
	host, err := parseTCP(target.String(), false)
	if err != nil {
		return nil, err
	}
	req := &access.Request{}
	asTunnel(req, host)
	if entry := routes.Match(req.Scheme, req.Host, req.Path); entry != nil {
		req.Route = entry.Route.ID
	}
	return req, nil
}
