package migrate

import (
	"net/netip"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/access"
)

// criterion reads one criterion into a rule; it fails for one that cannot be
// written.
func (p *pomerium) criterion(c *section, rule *access.Rule, what string) bool {
	ok := true
	for _, name := range c.keys() {
		node := c.take(name)
		if !p.known(name, node, rule) {
			p.leave(c.at(name), closedOr(rule.Name), what+"."+name, "the criterion cannot be written here")
			ok = false
		}
	}
	return ok && len(c.keys()) > 0
}

// known reads a criterion with its matcher.
func (p *pomerium) known(name string, n *yaml.Node, rule *access.Rule) bool {
	if claim, ok := strings.CutPrefix(name, "claim/"); ok {
		values := matcher(n, "is", "has")
		if len(values) == 0 || len(rule.Claims[claim]) > 0 || strings.Contains(claim, "/") || claim == "groups" && len(rule.Groups) > 0 {
			return false
		}
		from := p.claimRule(claim, values)
		rule.Groups = append(rule.Groups, from.Groups...)
		if from.Claims != nil {
			if rule.Claims == nil {
				rule.Claims = map[string][]string{}
			}
			rule.Claims[claim] = values
		}
		p.by(rule)
		return true
	}
	switch name {
	case "accept":
		rule.AnyUser = true
		return n != nil && (n.Kind == yaml.ScalarNode && n.Value == "true" || n.Kind == yaml.MappingNode && len(n.Content) == 0)
	case "authenticated_user":
		p.by(rule)
		return true
	case "domain", "email", "user":
		return p.person(name, n, rule)
	case "groups":
		values := matcher(n, "has", "is")
		if len(values) == 0 || len(rule.Groups) > 0 {
			return false
		}
		for _, v := range values {
			rule.Groups = append(rule.Groups, p.group(p.id, v))
		}
		return true
	case "http_method":
		values := matcher(n, "is", "in")
		if len(values) == 0 || len(rule.Methods) > 0 || !methodsText(values) {
			return false
		}
		rule.Methods = values
		return true
	case "http_path":
		return httpPath(n, rule)
	case "source_ip":
		return sourceIP(n, rule)
	}
	return false
}

// by makes a rule one for whoever logged in, unless it says more.
func (p *pomerium) by(rule *access.Rule) {
	if len(rule.Groups) == 0 && len(rule.Providers) == 0 {
		openTo(rule, p.id)
	}
}

func (p *pomerium) person(name string, n *yaml.Node, rule *access.Rule) bool {
	var terms []string
	for _, v := range matcher(n, "is") {
		switch name {
		case "domain":
			terms = append(terms, "user.email.endsWith("+celText("@"+strings.ToLower(v))+")")
		case "email":
			terms = append(terms, "user.email == "+celText(v))
		case "user":
			if v == "" {
				return false
			}
			rule.Users = append(rule.Users, p.id+":"+v)
		}
	}
	if name == "user" {
		return len(rule.Users) == 1
	}
	if len(terms) == 0 {
		return false
	}
	p.by(rule)
	if rule.Name != "deny" { // an address that nobody verified refuses as well
		require(rule, "user.email_verified")
	}
	require(rule, strings.Join(terms, " || "))
	return true
}

var methodText = regexp.MustCompile(`^[A-Z]{1,20}$`)

// methodsText reports whether texts can be methods.
func methodsText(list []string) bool {
	for _, m := range list {
		if !methodText.MatchString(m) || m == "CONNECT" {
			return false
		}
	}
	return true
}

func httpPath(n *yaml.Node, rule *access.Rule) bool {
	if len(rule.Paths) > 0 {
		return false
	}
	switch values := matcher(n, "is"); {
	case len(values) == 1:
		limit(rule, []pattern{exactPattern(values[0])})
		return true
	}
	if values := matcher(n, "starts_with"); len(values) == 1 {
		limit(rule, []pattern{prefixPattern(values[0])})
		return true
	}
	for _, other := range []struct{ matcher, function string }{{"ends_with", "endsWith"}, {"contains", "contains"}} {
		if values := matcher(n, other.matcher); len(values) == 1 {
			require(rule, "request.path."+other.function+"("+celText(values[0])+")")
			return true
		}
	}
	return false
}

func sourceIP(n *yaml.Node, rule *access.Rule) bool {
	values := matcher(n, "is", "in")
	for _, v := range values {
		network, ok := networkOf(v)
		if !ok {
			return false
		}
		rule.Networks = append(rule.Networks, network)
	}
	return len(values) > 0
}

// networkOf reads an address or a network.
func networkOf(text string) (string, bool) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()).String(), true
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().Is4In6() {
		return "", false
	}
	return network.Masked().String(), true
}

var plainMatcher = regexp.MustCompile(`^[a-z_]+$`)

// matcher returns the values of one of the matchers, or a plain value; nil where
// there is another one as well.
func matcher(n *yaml.Node, names ...string) []string {
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.MappingNode:
		return scalars(n)
	case len(n.Content) != 2 || !plainMatcher.MatchString(n.Content[0].Value):
		return nil
	}
	for _, name := range names {
		if n.Content[0].Value == name {
			return scalars(n.Content[1])
		}
	}
	return nil
}
