package spoe

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// messageName is the one message that is understood. Its arguments: method,
// target (path and query as they came), tls (whether the visitor's connection has
// it), src, headers (req.hdrs_bin), and, as far as HAProxy knows them, certificate
// (DER) and route.
const messageName = "doorward"

const maxHeaders = 1000

var (
	errNoMessage = errors.New("the frame holds no message doorward")
	errMessages  = errors.New("the frame holds another message, or several")
	errHost      = errors.New("the request has no host, or several")
	errHeaders   = fmt.Errorf("the request has more than %d headers", maxHeaders)
)

// question makes of a message the request that it is about.
func question(ctx context.Context, from string, payload []byte) (*proxy.Question, error) {
	d := decoder{b: payload}
	if len(payload) == 0 {
		return nil, errNoMessage
	}
	if d.text() != messageName {
		return nil, errMessages
	}
	said := d.list(int(d.byte()))
	switch {
	case d.err != nil:
		return nil, d.err
	case len(d.b) > 0:
		return nil, errMessages
	}
	method, _ := said["method"].(string)
	target, _ := said["target"].(string)
	tls, known := said["tls"].(bool)
	src, _ := said["src"].(netip.Addr)
	raw, _ := said["headers"].([]byte)
	if method == "" || target == "" || !known || !src.IsValid() || len(raw) == 0 {
		return nil, errors.New("the message lacks one of method, target, tls, src and headers, or has it in another type")
	}
	header, err := headers(raw)
	if err != nil {
		return nil, err
	}
	if len(header["Host"]) != 1 {
		return nil, errHost
	}
	host, scheme := header.Get("Host"), "http"
	if tls {
		scheme = "https"
	}
	delete(header, "Host")
	delete(header, "X-Request-Id") // the visitor's: HAProxy has none of its own
	header["X-Forwarded-For"] = []string{src.Unmap().String()}
	header["X-Forwarded-Proto"] = []string{scheme}
	header["X-Forwarded-Host"] = []string{host}
	r := (&http.Request{
		Method: method, RequestURI: target, Host: host, Header: header, Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: from,
	}).WithContext(ctx)
	if r.URL, err = url.ParseRequestURI(target); err != nil {
		r.URL = &url.URL{Path: "/"} // the door refuses what it cannot read itself
	}
	q := &proxy.Question{Request: r, Door: access.SPOE}
	if route, there := said["route"]; there && route != nil {
		if q.Route, _ = route.(string); q.Route == "" {
			return nil, errors.New("the route is no text")
		}
	}
	der, binary := said["certificate"].([]byte)
	if !binary && said["certificate"] != nil {
		return nil, errors.New("the certificate is not binary")
	}
	if len(der) > 0 {
		q.Certificate = url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	return q, nil
}

// headers reads the form of req.hdrs_bin: names and values with their lengths in
// front, up to an empty pair.
func headers(raw []byte) (http.Header, error) {
	header := http.Header{}
	d := decoder{b: raw}
	for n := 0; d.err == nil; n++ {
		name, value := d.text(), d.take(d.varint())
		switch {
		case d.err != nil:
		case name == "" && len(value) == 0:
			if len(d.b) > 0 {
				return nil, errors.New("something follows the headers")
			}
			return header, nil
		case name == "" || bytes.ContainsAny(value, "\r\n\x00"):
			return nil, errors.New("a header is malformed")
		case n == maxHeaders:
			return nil, errHeaders
		default:
			header.Add(name, string(value))
		}
	}
	return nil, d.err
}

// variables are what HAProxy is told, by the names of the variables it has to set.
// The names of headers are those of a route, which begin with `h_`. All of them
// are texts: HAProxy only knows variables that its configuration mentions.
func variables(v *proxy.Verdict) []byte {
	outcome := v.Decision.Outcome
	if outcome == access.Allow && !v.Allowed {
		outcome = access.Deny // allowed, and could not be prepared
	}
	b := appendVariable(nil, "verdict", outcome.String())
	b = appendVariable(b, "reason", string(v.Decision.Reason))
	b = appendVariable(b, "request", v.Request.ID)
	b = appendVariable(b, "route", v.Request.Route)
	b = appendVariable(b, "user", cmp.Or(userOf(v.Request), "-"))
	if !v.Allowed {
		return b
	}
	for _, name := range slices.Sorted(maps.Keys(v.HandOn)) {
		b = appendVariable(b, variableOf(name), strings.Join(v.HandOn[name], ", "))
	}
	return b
}

func userOf(req *access.Request) string {
	if req.Identity.Nobody() {
		return ""
	}
	return req.Identity.User()
}

// variableOf returns the name of the variable for a header: lower case, with
// underscores.
func variableOf(header string) string {
	return "h_" + strings.ReplaceAll(strings.ToLower(header), "-", "_")
}
