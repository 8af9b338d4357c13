package authz

import "github.com/doorward/doorward/internal/access"

// Member returns the sorted names of all top-level groups that somebody is in. A
// group that is only unknown is left out.
func (p *Policy) Member(id *access.Identity) (names []string) {
	if !p.knows(id) {
		return nil
	}
	for _, name := range keys(p.groups) {
		if p.groups[name].has(id) == access.Yes {
			names = append(names, name)
		}
	}
	return names
}

// Uses returns the names of all enforced allow rules of the route that hit, with
// their kind: "allow/engineers". A decision names the first of them only.
func (p *Policy) Uses(req *access.Request) (names []string) {
	rt := p.routes[req.Route]
	if rt == nil {
		return nil
	}
	for i := range rt.allow {
		if rt.allow[i].test(req, nil) == access.Yes {
			names = append(names, rt.allow[i].name)
		}
	}
	return names
}
