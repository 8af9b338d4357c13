package extauthz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// routeExtension is the context extension by which an Envoy route says which
// route of Doorward it stands for.
const routeExtension = "doorward_route"

// maxHeaders bounds the header fields of a question, next to the size of the
// whole message.
const maxHeaders = 1000

var (
	errNoRequest  = errors.New("the question is not about an HTTP request")
	errNoTarget   = errors.New("the question lacks the method, the scheme, the host or the path")
	errNoSource   = errors.New("the question does not say from which address the request comes (source.address.socket_address)")
	errTwoHeaders = errors.New("the question has the headers twice, as headers and as header_map")
	errHeaders    = fmt.Errorf("the question has more than %d headers", maxHeaders)
	errFragment   = errors.New("the question has a query or a fragment besides the path")
)

// question makes of Envoy's question the request that it is about. Envoy's body,
// whole or partial, is not looked at: nothing is decided on bodies.
func question(ctx context.Context, from string, check *authv3.CheckRequest) (*proxy.Question, error) {
	attributes := check.GetAttributes()
	asked := attributes.GetRequest().GetHttp()
	if asked == nil {
		return nil, errNoRequest
	}
	if asked.GetMethod() == "" || asked.GetScheme() == "" || asked.GetHost() == "" || asked.GetPath() == "" {
		return nil, errNoTarget
	}
	if asked.GetQuery() != "" || asked.GetFragment() != "" {
		return nil, errFragment // the path has them; a second one could say another thing
	}
	source, err := netip.ParseAddr(attributes.GetSource().GetAddress().GetSocketAddress().GetAddress())
	if err != nil {
		return nil, errNoSource
	}
	header, err := headers(asked)
	if err != nil {
		return nil, err
	}
	// Envoy found both out itself. What the header says further left, a visitor may
	// have written.
	header["X-Forwarded-For"] = []string{source.Unmap().WithZone("").String()}
	header["X-Forwarded-Proto"] = []string{asked.GetScheme()}
	header["X-Forwarded-Host"] = []string{asked.GetHost()}
	r := (&http.Request{
		Method: asked.GetMethod(), RequestURI: asked.GetPath(), Host: asked.GetHost(), Header: header, Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: from,
	}).WithContext(ctx)
	if r.URL, err = url.ParseRequestURI(asked.GetPath()); err != nil {
		r.URL = &url.URL{Path: "/"} // the door refuses what it cannot read itself
	}
	if protocol := asked.GetProtocol(); strings.HasPrefix(protocol, "HTTP/2") || strings.HasPrefix(protocol, "HTTP/3") {
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	}
	return &proxy.Question{Request: r, Door: access.ExtAuthz, Certificate: attributes.GetSource().GetCertificate(),
		Route: attributes.GetContextExtensions()[routeExtension]}, nil
}

// headers returns the visitor's headers from whichever of the two forms Envoy
// uses (encode_raw_headers). Whatever they repeat of the request has to be what
// the attributes say: Envoy takes both from one place, so that a difference means
// that something in between has changed one of them.
func headers(asked *authv3.AttributeContext_HttpRequest) (http.Header, error) {
	fields, raw := asked.GetHeaders(), asked.GetHeaderMap().GetHeaders()
	switch {
	case len(fields) > 0 && len(raw) > 0:
		return nil, errTwoHeaders
	case len(fields)+len(raw) > maxHeaders:
		return nil, errHeaders
	}
	header := http.Header{}
	add := func(name, value string) error {
		says, own := map[string]string{":method": asked.GetMethod(), ":path": asked.GetPath(), ":scheme": asked.GetScheme(),
			":authority": asked.GetHost(), "host": asked.GetHost(), "x-forwarded-proto": asked.GetScheme()}[strings.ToLower(name)]
		if own && value != says {
			return fmt.Errorf("the question says two things about the request: %s is not that of the attributes", name)
		}
		if own || strings.HasPrefix(name, ":") {
			return nil
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			return fmt.Errorf("the value of %q could end the header", name)
		}
		header.Add(name, value)
		return nil
	}
	for name, value := range fields {
		if err := add(name, value); err != nil {
			return nil, err
		}
	}
	for _, field := range raw {
		if err := add(field.GetKey(), valueOf(field)); err != nil {
			return nil, err
		}
	}
	return header, nil
}

func valueOf(field *corev3.HeaderValue) string {
	return cmp.Or(field.GetValue(), string(field.GetRawValue()))
}
