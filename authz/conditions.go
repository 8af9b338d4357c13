package authz

import (
	"encoding/json"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// A condition is one key of a rule. Its answer is Yes for a hit, No for a miss
// and Unknown where the fact it needs is not known.
type condition interface {
	// key is the configuration key: "groups", "methods" …
	key() string
	// test answers without allocating, except for CEL.
	test(*access.Request) access.Tri
	// describe says for people what is wanted and what the request has.
	describe(*access.Request) (want, got string)
}

// anyUser hits for every person who is logged in.
type anyUser struct{}

func (anyUser) key() string                         { return "any_user" }
func (anyUser) test(req *access.Request) access.Tri { return onlyPeople{}.test(req) }
func (anyUser) describe(req *access.Request) (want, got string) {
	if req.Identity.Kind != access.Person {
		return "any person who is logged in", kindName(&req.Identity)
	}
	return "anyone who is logged in", userName(&req.Identity)
}

// A person is the pair that `users: [PROVIDER:SUB]` names.
type person struct{ provider, subject string }

func (p person) String() string { return p.provider + ":" + p.subject }

// people hits for single persons.
type people map[person]struct{}

func (people) key() string                           { return "users" }
func (p people) test(req *access.Request) access.Tri { return access.TriOf(p.has(&req.Identity)) }

func (p people) has(id *access.Identity) bool {
	if id.Nobody() {
		return false
	}
	_, ok := p[person{id.Provider, id.Subject}]
	return ok
}

func (p people) describe(req *access.Request) (want, got string) {
	names := make([]string, 0, len(p))
	for one := range p {
		names = append(names, one.String())
	}
	slices.Sort(names)
	return anyOf(names), userName(&req.Identity)
}

// A group is a compiled entry of the top-level `groups`.
type group struct {
	name     string
	provider string
	claims   []string // sorted
	users    people
}

// has tells whether the person is a member. Where the provider withheld groups,
// one that is not listed is unknown, not absent.
func (g *group) has(id *access.Identity) access.Tri {
	switch {
	case id.Nobody():
		return access.No
	case g.users.has(id):
		return access.Yes
	case id.Provider != g.provider || len(g.claims) == 0:
		return access.No
	}
	for _, claim := range g.claims {
		if _, ok := slices.BinarySearch(id.Groups, claim); ok {
			return access.Yes
		}
	}
	if id.GroupsIncomplete {
		return access.Unknown
	}
	return access.No
}

// membership hits for members of at least one group.
type membership []*group

func (membership) key() string { return "groups" }

func (m membership) test(req *access.Request) access.Tri {
	result := access.No
	for _, g := range m {
		switch g.has(&req.Identity) {
		case access.Yes:
			return access.Yes
		case access.Unknown:
			result = access.Unknown
		}
	}
	return result
}

func (m membership) describe(req *access.Request) (want, got string) {
	names := make([]string, len(m))
	for i, g := range m {
		names[i] = g.name
	}
	got = shortList(req.Identity.Groups)
	if req.Identity.GroupsIncomplete {
		got += " (the provider withheld groups)"
	}
	return anyOf(names), got
}

// providers hits for people of certain identity providers.
type providers []string

func (providers) key() string { return "providers" }
func (p providers) test(req *access.Request) access.Tri {
	return access.TriOf(!req.Identity.Nobody() && slices.Contains(p, req.Identity.Provider))
}
func (p providers) describe(req *access.Request) (want, got string) {
	return anyOf(p), orNone(req.Identity.Provider)
}

// claim hits if a claim has one of the accepted values.
type claim struct {
	name   string
	accept []string
}

func (c *claim) key() string { return "claims." + c.name }

func (c *claim) test(req *access.Request) access.Tri {
	value, ok := req.Identity.Claims[c.name]
	if !ok || req.Identity.Nobody() {
		return access.No
	}
	return c.accepts(value)
}

// accepts compares one value, or the members of a list. A structure, and a
// number too large to be exact, is not comparable and thereby unknown.
func (c *claim) accepts(value any) access.Tri {
	var buffer [32]byte
	switch v := value.(type) {
	case nil:
		return access.No
	case string:
		return access.TriOf(slices.Contains(c.accept, v))
	case bool:
		return access.TriOf(slices.Contains(c.accept, strconv.FormatBool(v)))
	case int:
		return c.acceptsText(strconv.AppendInt(buffer[:0], int64(v), 10))
	case int64:
		return c.acceptsText(strconv.AppendInt(buffer[:0], v, 10))
	case float64:
		if math.IsNaN(v) || math.Abs(v) > 1<<53 {
			return access.Unknown
		}
		return c.acceptsText(strconv.AppendFloat(buffer[:0], v, 'f', -1, 64))
	case json.Number:
		if _, err := v.Int64(); err != nil && !slices.Contains(c.accept, v.String()) {
			return access.Unknown // "1e3" may or may not be the accepted "1000"
		}
		return access.TriOf(slices.Contains(c.accept, v.String()))
	case []string:
		for _, member := range v {
			if slices.Contains(c.accept, member) {
				return access.Yes
			}
		}
		return access.No
	case []any:
		result := access.No
		for _, member := range v {
			if _, nested := member.([]any); nested {
				result = access.Unknown
				continue
			}
			switch c.accepts(member) {
			case access.Yes:
				return access.Yes
			case access.Unknown:
				result = access.Unknown
			}
		}
		return result
	default:
		return access.Unknown
	}
}

func (c *claim) acceptsText(text []byte) access.Tri {
	for _, accepted := range c.accept {
		if accepted == string(text) {
			return access.Yes
		}
	}
	return access.No
}

func (c *claim) describe(req *access.Request) (want, got string) {
	value, ok := req.Identity.Claims[c.name]
	if !ok {
		return anyOf(c.accept), "no such claim"
	}
	return anyOf(c.accept), claimText(value)
}

// methods hits for certain HTTP methods. A request without a method, such as
// that of a TCP tunnel, is unknown to it.
type methods []string

func (methods) key() string { return "methods" }
func (m methods) test(req *access.Request) access.Tri {
	if req.Method == "" {
		return access.Unknown
	}
	return access.TriOf(slices.Contains(m, req.Method))
}
func (m methods) describe(req *access.Request) (want, got string) {
	return anyOf(m), orNone(req.Method)
}

// paths hits for certain paths. Unknown to it are what is no path at all, and
// one that only some servers would take for one of these: a route may permit
// such spellings, but no rule is evaded by them.
type paths []glob

func (paths) key() string { return "paths" }

func (p paths) test(req *access.Request) access.Tri {
	if !strings.HasPrefix(req.Path, "/") {
		return access.Unknown
	}
	hit := p.match(req.Path)
	if ambiguous(req.Path) && p.match(leniently(req.Path)) != hit {
		return access.Unknown
	}
	return access.TriOf(hit)
}

func (p paths) match(path string) bool {
	for i := range p {
		if p[i].match(path) {
			return true
		}
	}
	return false
}

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// ambiguous reports whether servers may read a canonical path differently.
func ambiguous(path string) bool {
	return strings.ContainsAny(path, `;%\`) || strings.Contains(path, "//")
}

// leniently returns a path as the most lenient server reads it: decoded over and
// over, with backslashes for slashes, without parameters and empty segments.
func leniently(path string) string {
	for escaped.MatchString(path) { // each time it gets shorter
		path = escaped.ReplaceAllStringFunc(path, func(escape string) string {
			n, _ := strconv.ParseUint(escape[1:], 16, 8)
			return string([]byte{byte(n)})
		})
	}
	segments := strings.Split(strings.ReplaceAll(path, `\`, "/"), "/")
	kept := segments[:1]
	for i, segment := range segments[1:] {
		segment, _, _ = strings.Cut(segment, ";")
		if segment != "" || i == len(segments)-2 { // a slash at the end stays
			kept = append(kept, segment)
		}
	}
	return strings.Join(kept, "/")
}

func (p paths) describe(req *access.Request) (want, got string) {
	sources := make([]string, len(p))
	for i := range p {
		sources[i] = p[i].source
	}
	return anyOf(sources), orNone(req.Path)
}

// networks hits for visitors from certain networks.
type networks []netip.Prefix

func (networks) key() string { return "networks" }

func (n networks) test(req *access.Request) access.Tri {
	ip := address(req)
	if !ip.IsValid() {
		return access.Unknown
	}
	for _, network := range n {
		if network.Contains(ip) {
			return access.Yes
		}
	}
	return access.No
}

func (n networks) describe(req *access.Request) (want, got string) {
	list := make([]string, len(n))
	for i, network := range n {
		list[i] = network.String()
	}
	if ip := address(req); ip.IsValid() {
		return anyOf(list), ip.String()
	}
	return anyOf(list), "an address that is not known"
}

// address returns the visitor's address in the one form that compares: IPv4
// addresses unmapped, without zone.
func address(req *access.Request) netip.Addr {
	return req.Network.IP.Unmap().WithZone("")
}

// schedule hits inside a weekly window.
type schedule struct {
	window
	source access.TimeWindow
}

func (*schedule) key() string { return "time" }

func (s *schedule) test(req *access.Request) access.Tri {
	if req.Time.IsZero() {
		return access.Unknown
	}
	return access.TriOf(s.open(req.Time))
}

func (s *schedule) describe(req *access.Request) (want, got string) {
	want = strings.Join(strings.Fields(s.source.Days+" "+s.source.Hours+" "+s.zone.String()), " ")
	return want, req.Time.In(s.zone).Format("Mon 15:04")
}

// expects hits if an expression has the wanted value: true for `when`, false for
// `unless`.
type expects struct {
	*expression
	want bool
}

func (e expects) key() string {
	if e.want {
		return "when"
	}
	return "unless"
}

func (e expects) test(req *access.Request) access.Tri {
	got, err := e.eval(req)
	if err != nil {
		return access.Unknown
	}
	return access.TriOf(got == e.want)
}

func (e expects) describe(req *access.Request) (want, got string) {
	result, err := e.eval(req)
	if err != nil {
		return e.source, err.Error()
	}
	return e.source, strconv.FormatBool(result)
}
