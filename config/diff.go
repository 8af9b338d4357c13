package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/doorward/doorward/authn"
	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/internal/access"
)

// Diff tells how a new configuration differs from an old one in whom it lets in.
// Changes that do not bear on that are listed by section, without a judgement.
func Diff(before, after *Config) []authz.Change {
	d := &difference{before: before, after: after}
	d.providers()
	d.section("sessions", "logins last differently long, or are kept elsewhere", before.Sessions, after.Sessions)
	d.section("devices/sources", "other inventories are asked", before.Devices.Sources, after.Devices.Sources)
	d.section("devices/match", "devices identify themselves in another way",
		[]any{before.Devices.Match, before.Devices.ClaimsFrom, before.Devices.Owner}, []any{after.Devices.Match, after.Devices.ClaimsFrom, after.Devices.Owner})
	d.section("server/trusted_proxies", "others are believed when they say who the visitor is",
		[]any{before.Server.TrustedProxies, before.Server.Forwarded}, []any{after.Server.TrustedProxies, after.Server.Forwarded})
	d.section("server/tls", "visitors are answered with other certificates, or asked for others", before.Server.TLS, after.Server.TLS)
	d.changes = append(d.changes, authz.Diff(edition(before), edition(after))...)
	d.forwarding()
	return d.changes
}

func edition(c *Config) authz.Edition {
	return authz.Edition{Policy: c.Policy, Input: c.policyInput(), Scopes: c.surroundings().Scopes}
}

type difference struct {
	before, after *Config
	changes       []authz.Change
}

func (d *difference) add(at string, effect authz.Effect, details []string, format string, args ...any) {
	d.changes = append(d.changes, authz.Change{At: at, Effect: effect, Text: fmt.Sprintf(format, args...), Details: details})
}

// section notes a change whose effect nobody can tell from the file.
func (d *difference) section(at, text string, before, after any) {
	if !reflect.DeepEqual(before, after) {
		d.add(at, authz.Unclear, nil, "%s", text)
	}
}

// providers compares what is believed of whom. Which providers there are is
// compared with the policy.
func (d *difference) providers() {
	for i := range d.after.Providers {
		is := &d.after.Providers[i]
		n := slices.IndexFunc(d.before.File.Providers, func(p authn.Provider) bool { return p.ID == is.ID })
		if n < 0 {
			continue
		}
		was, at := &d.before.Providers[n], "providers/"+is.ID
		if was.Issuer != is.Issuer {
			d.add(at, authz.Unclear, nil, "the issuer is %s, before %s: everybody is somebody else", is.Issuer, was.Issuer)
		}
		switch believed, believes := was.Trust.OfGroups(), is.Trust.OfGroups(); {
		case believes && !believed:
			d.add(at, authz.Unclear, nil, "its word about groups counts from now on: its people can be in groups, which allow and deny rules name")
		case believed && !believes:
			d.add(at, authz.Unclear, nil, "its word about groups counts no more: its people fall out of groups, which allow and deny rules name")
		}
		d.section(at, "its statements about a login are worth something else", was.Assurance, is.Assurance)
		d.section(at, "groups are read from another claim", was.GroupsClaim, is.GroupsClaim)
		d.section(at, "other access tokens are accepted", was.MachineTokens, is.MachineTokens)
	}
}

// forwarding lists, per route, what changes for those who are let in.
func (d *difference) forwarding() {
	for i := range d.after.Routes {
		is := &d.after.Routes[i]
		n := slices.IndexFunc(d.before.File.Routes, func(r access.Route) bool { return r.ID == is.ID })
		if n < 0 {
			continue
		}
		was := &d.before.Routes[n]
		var keys []string
		for _, key := range []struct {
			name          string
			before, after any
		}{
			{"to", was.To, is.To}, {"headers", was.Headers, is.Headers}, {"upstream_tls", was.UpstreamTLS, is.UpstreamTLS},
			{"insecure_upstream", was.InsecureUpstream != "", is.InsecureUpstream != ""}, {"preserve_host", was.PreserveHost, is.PreserveHost},
			{"websocket", was.WebSocket, is.WebSocket}, {"timeout", was.Timeout, is.Timeout},
			{"host", was.Host, is.Host}, {"strip_prefix", was.StripPrefix, is.StripPrefix}, {"add_prefix", was.AddPrefix, is.AddPrefix},
			{"redirect", was.Redirect, is.Redirect}, {"respond", was.Respond, is.Respond}, {"response_headers", was.ResponseHeaders, is.ResponseHeaders},
			{"hsts", was.HSTS, is.HSTS}, {"max_body_bytes", was.MaxBodyBytes, is.MaxBodyBytes},
		} {
			if !reflect.DeepEqual(key.before, key.after) {
				keys = append(keys, key.name)
			}
		}
		if !reflect.DeepEqual(was.CORS, is.CORS) || !slices.Equal(was.WebSocketOrigins, is.WebSocketOrigins) {
			d.add(is.ID, authz.Unclear, nil, "pages of other origins may do other things in the name of visitors (cors, websocket_origins)")
		}
		if len(keys) > 0 {
			d.add(is.ID, authz.Nothing, nil, "requests are passed on differently: %s", strings.Join(keys, ", "))
		}
	}
}
