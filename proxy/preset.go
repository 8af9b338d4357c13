package proxy

import (
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// presetKey is the entry of a route's `headers` that names a preset.
const presetKey = "preset"

// presets are the headers by which applications know their visitors that were
// made for another proxy.
var presets = map[string][]headerRule{
	"oauth2-proxy": {
		{name: "X-Forwarded-User", fact: "sub"}, {name: "X-Forwarded-Email", fact: "email"}, {name: "X-Forwarded-Groups", fact: "groups"},
		{name: "X-Forwarded-Preferred-Username", fact: "username"},
		{name: "X-Auth-Request-User", fact: "sub"}, {name: "X-Auth-Request-Email", fact: "email"}, {name: "X-Auth-Request-Groups", fact: "groups"},
		{name: "X-Auth-Request-Preferred-Username", fact: "username"},
	},
	"authelia": {
		{name: "Remote-User", fact: "username"}, {name: "Remote-Email", fact: "email"}, {name: "Remote-Groups", fact: "groups"}, {name: "Remote-Name", fact: "name"},
	},
	"pomerium": {
		{name: "X-Pomerium-Jwt-Assertion", token: "pomerium"},
		{name: "X-Pomerium-Claim-Sub", fact: "sub"}, {name: "X-Pomerium-Claim-User", fact: "sub"}, {name: "X-Pomerium-Claim-Email", fact: "email"},
		{name: "X-Pomerium-Claim-Name", fact: "name"}, {name: "X-Pomerium-Claim-Groups", fact: "groups"},
	},
	"iap": {
		{name: "X-Goog-Iap-Jwt-Assertion", token: "iap"},
		{name: "X-Goog-Authenticated-User-Email", fact: "email", prefix: "accounts.google.com:"},
		{name: "X-Goog-Authenticated-User-Id", fact: "sub", prefix: "accounts.google.com:"},
	},
	"cloudflare": {
		{name: "Cf-Access-Jwt-Assertion", token: "cloudflare"}, {name: "Cf-Access-Authenticated-User-Email", fact: "email"},
	},
}

// preset adds the headers of the preset that a route names, if it names one.
func (e *Entry) preset(f access.Faults) {
	name, there := e.Route.Headers[presetKey]
	if !there {
		return
	}
	rules, known := presets[name]
	if !known {
		f.At(presetKey).Add("one of oauth2-proxy, authelia, pomerium, iap, cloudflare", "%q is no preset", name)
	}
	for _, rule := range rules {
		e.headers = append(e.headers, rule)
		e.names[skeleton(rule.name)] = true
	}
}

// form says the same as the assertion, in the words that applications made for
// another proxy read. They have to be pointed to Doorward's keys: a signature of
// another issuer is none that Doorward could make.
func (c *claims) form(token string) any {
	host := strings.TrimPrefix(strings.TrimPrefix(c.Audience, "https://"), "http://")
	// The subject is that of the provider, as the headers beside it have it.
	_, subject, _ := strings.Cut(c.Subject, ":")
	switch token {
	case "pomerium":
		said := struct {
			claims
			Issuer   string   `json:"iss"`
			Audience []string `json:"aud"`
			Subject  string   `json:"sub"`
			User     string   `json:"user"`
		}{*c, host, []string{host}, subject, subject}
		return &said
	case "iap":
		said := struct {
			claims
			Subject string `json:"sub"`
			Domain  string `json:"hd,omitempty"`
		}{claims: *c, Subject: "accounts.google.com:" + subject}
		if _, domain, ok := strings.Cut(c.Email, "@"); ok && c.EmailVerified {
			said.Domain = domain
		}
		return &said
	case "cloudflare":
		said := struct {
			claims
			Audience []string `json:"aud"`
			Subject  string   `json:"sub"`
			Type     string   `json:"type"`
		}{*c, []string{c.Audience}, subject, "app"}
		return &said
	}
	return c
}

// tell sets the header that the rule is about, or removes it.
func (h *headerRule) tell(p *passage, own *setting) {
	value := ""
	if h.token != "" {
		value = p.tokens[h.token]
	} else {
		if value = h.value(p.req, p.groups); value != "" {
			value = h.prefix + value
		}
	}
	own.set(h.name, value)
}

// signTokens signs what the route's headers need besides the assertion.
func (p *passage) signTokens(issuer, audience string) error {
	for _, rule := range p.entry.headers {
		if rule.token == "" {
			continue
		}
		token, err := p.door.signer.assert(p.in.Context(), rule.token, issuer, audience, p.req, p.groups)
		if err != nil {
			return err
		}
		if p.tokens == nil {
			p.tokens = map[string]string{}
		}
		p.tokens[rule.token] = token
	}
	return nil
}
