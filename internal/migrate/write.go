package migrate

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// write writes the file as a person would: one route after the other, a rule a
// line.
func (d *draft) write(accept []string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Taken over from %s by `doorward import`.", d.product)
	if len(d.left) > 0 {
		line("#")
		line("# What could not be carried over (docs/migrate.md):")
	}
	for _, left := range d.left {
		where := ""
		if left.Line > 0 {
			where = fmt.Sprintf(" (line %d)", left.Line)
		}
		line("# - %s%s: %s: %s", left.Effect, where, comment(left.What), comment(left.Text))
	}
	line("version: 1")
	line("")
	line("# Plaintext from a proxy on this machine that ends TLS. To end it here: listen: \":443\" and tls.certificates.")
	line("server:")
	line("  listen: 127.0.0.1:8080")
	line("  trusted_proxies: [127.0.0.1]")
	if d.loginHost != "" {
		line("  auth_url: %s", scalar(d.loginHost))
	}
	line("")
	line("providers:")
	for _, p := range d.providers {
		line("  - id: %s", scalar(p.id))
		line("    issuer: %s", scalar(p.issuer))
		if !p.noLogin {
			line("    client_id: %s", scalar(p.clientID))
			line("    client_secret: {env: %s}", p.secretEnv)
		} else {
			line("    interactive: false")
		}
		if len(p.scopes) > 0 {
			line("    scopes: %s", list(p.scopes))
		}
		if p.groupsClaim != "" && p.groupsClaim != "groups" {
			line("    groups_claim: %s", scalar(p.groupsClaim))
		}
		if len(p.audiences) > 0 {
			line("    audiences: %s", list(p.audiences))
		}
	}
	if d.lifetime != "" {
		line("")
		line("sessions: {lifetime: %s}", d.lifetime)
	}
	if len(d.groups) > 0 {
		line("")
		line("groups:")
		for _, name := range slices.Sorted(maps.Keys(d.groups)) {
			g := d.groups[name]
			line("  %s: {provider: %s, claim_groups: %s}", scalar(name), scalar(g.Provider), list(g.ClaimGroups))
		}
	}
	line("")
	line("routes:")
	for i := range d.routes {
		writeRoute(line, &d.routes[i])
	}
	if len(accept) > 0 {
		line("")
		line("accept:")
		for _, entry := range accept {
			line("  - %s", entry)
		}
	}
	return b.String()
}

func writeRoute(line func(string, ...any), rt *access.Route) {
	line("  - id: %s", scalar(rt.ID))
	line("    from: %s", scalar(rt.From))
	line("    to: %s", list(rt.To))
	if rt.InsecureUpstream != "" {
		line("    insecure_upstream: %s", scalar(rt.InsecureUpstream))
	}
	if rt.Provider != "" {
		line("    provider: %s", scalar(rt.Provider))
	}
	if login := loginFlow(rt.Require.Login); login != "" {
		line("    require: {login: %s}", login)
	}
	for _, kind := range []struct {
		name  string
		rules []access.Rule
	}{{"allow", rt.Allow}, {"deny", rt.Deny}} {
		if len(kind.rules) > 0 {
			line("    %s:", kind.name)
		}
		for i := range kind.rules {
			line("      - %s", ruleFlow(&kind.rules[i]))
		}
	}
	if len(rt.Rules) > 0 {
		line("    rules:")
	}
	for _, r := range rt.Rules {
		line("      - %s", flow("paths", r.Paths, "methods", r.Methods, "require", raw("{login: "+loginFlow(r.Require.Login)+"}")))
	}
	if len(rt.Public) > 0 {
		line("    public:")
	}
	for _, p := range rt.Public {
		line("      - %s", flow("name", p.Name, "methods", p.Methods, "paths", p.Paths, "networks", p.Networks))
	}
	if len(rt.Headers) > 0 {
		var parts []any
		for _, name := range slices.Sorted(maps.Keys(rt.Headers)) {
			parts = append(parts, name, rt.Headers[name])
		}
		line("    headers: %s", flow(parts...))
	}
	for _, key := range []struct {
		name string
		on   bool
	}{{"preserve_host", rt.PreserveHost}, {"websocket", rt.WebSocket}, {"preflight", rt.Preflight}} {
		if key.on {
			line("    %s: true", key.name)
		}
	}
	if rt.Timeout != 0 {
		line("    timeout: %s", duration(rt.Timeout.Std()))
	}
}

func ruleFlow(r *access.Rule) string {
	anyone := any("")
	if r.AnyUser {
		anyone = raw("true")
	}
	claims := any("")
	if len(r.Claims) > 0 {
		var parts []any
		for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
			parts = append(parts, name, r.Claims[name])
		}
		claims = raw(flow(parts...))
	}
	window := any("")
	if !r.Time.IsZero() {
		window = raw(flow("days", r.Time.Days, "hours", r.Time.Hours, "zone", r.Time.Zone))
	}
	return flow("name", r.Name, "any_user", anyone, "groups", r.Groups, "users", r.Users, "providers", r.Providers, "claims", claims,
		"scopes", r.Scopes, "methods", r.Methods, "paths", r.Paths, "networks", r.Networks, "time", window, "when", r.When, "unless", r.Unless)
}

func loginFlow(l access.LoginRequire) string {
	if l.IsZero() {
		return ""
	}
	return flow("acr", l.ACR)
}

// duration writes a duration as a person would: "12h", not "12h0m0s".
func duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// raw is text that is YAML already.
type raw string

// flow writes {key: value, …} and leaves out what is empty.
func flow(pairs ...any) string {
	var parts []string
	for i := 0; i+1 < len(pairs); i += 2 {
		text := ""
		switch v := pairs[i+1].(type) {
		case raw:
			text = string(v)
		case string:
			if v != "" {
				text = scalar(v)
			}
		case []string:
			if len(v) > 0 {
				text = list(v)
			}
		}
		if text != "" {
			parts = append(parts, scalar(pairs[i].(string))+": "+text)
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = scalar(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)
	notPlain  = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|null|y|n)$`)
)

// scalar writes a text so that it is read as that text.
func scalar(s string) string {
	if plainText.MatchString(s) && !notPlain.MatchString(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// comment keeps a text in its line.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
