package authz

import (
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// namesMachines reports whether a rule has one of the keys by which machines are
// named. An allow rule without them is for people, whatever else it says.
func namesMachines(r *access.Rule) bool {
	return len(r.ServiceAccounts)+len(r.SPIFFE)+len(r.ClientIDs)+len(r.Scopes) > 0
}

// forPeople reports whether people is a condition of its own: an allow rule
// without any_user that names no machine.
func forPeople(kind string, r *access.Rule) bool {
	return kind == "allow" && !r.AnyUser && !namesMachines(r)
}

// machines compiles the keys that name machines.
func (c *compiler) machines(src *access.Rule, f access.Faults) (conditions []condition) {
	if len(src.ServiceAccounts) > 0 {
		conditions = append(conditions, c.serviceAccounts(src, f.At("service_accounts")))
	}
	if len(src.SPIFFE) > 0 {
		conditions = append(conditions, newWorkloads(src.SPIFFE, f.At("spiffe")))
	}
	if len(src.ClientIDs) > 0 {
		conditions = append(conditions, clients(c.people(src.ClientIDs, f.At("client_ids"))))
	}
	if len(src.Scopes) > 0 {
		for i, scope := range src.Scopes {
			if !isScope(scope) {
				f.At("scopes[%d]", i).Add("write one scope per entry", "%q is not a scope", scope)
			}
		}
		conditions = append(conditions, scopes(slices.Clone(src.Scopes)))
	}
	return conditions
}

func (c *compiler) serviceAccounts(src *access.Rule, f access.Faults) serviceAccounts {
	if len(src.Providers) == 0 && len(c.in.Providers) > 1 {
		f.Add("add providers: [ID] with the provider of the cluster", "every cluster may have service accounts of these names")
	}
	for i, account := range src.ServiceAccounts {
		namespace, name, ok := strings.Cut(account, "/")
		if !ok || !isDNSName(namespace) || !isDNSName(name) {
			f.At("[%d]", i).Add("write NAMESPACE/NAME, such as ci/runner", "%q is no service account", account)
		}
	}
	return serviceAccounts(slices.Clone(src.ServiceAccounts))
}

// isDNSName accepts a name of a Kubernetes object (RFC 1123 §2.1).
func isDNSName(s string) bool {
	return s != "" && len(s) <= 253 && strings.Trim(s, "-.") == s && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
}

// isScope follows RFC 6749 §3.3.
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

// serviceAccounts hits for certain Kubernetes service accounts.
type serviceAccounts []string

func (serviceAccounts) key() string { return "service_accounts" }
func (s serviceAccounts) test(req *access.Request) access.Tri {
	id := &req.Identity
	return access.TriOf(!id.Nobody() && id.ServiceAccount != "" && slices.Contains(s, id.ServiceAccount))
}
func (s serviceAccounts) describe(req *access.Request) (want, got string) {
	return anyOf(s), orNone(req.Identity.ServiceAccount)
}

// workload is one SPIFFE ID, or all below it.
type workload struct {
	id    string // with the final slash if below is set
	below bool
}

// workloads hits for certain SPIFFE IDs.
type workloads []workload

func newWorkloads(sources []string, f access.Faults) (list workloads) {
	for i, source := range sources {
		id, below := strings.CutSuffix(source, "/**")
		if !access.IsSPIFFE(id) {
			f.At("[%d]", i).Add("write spiffe://TRUST-DOMAIN/PATH, with /** at the end for everything below", "%q is no SPIFFE ID", source)
		}
		if below {
			id += "/"
		}
		list = append(list, workload{id, below})
	}
	return list
}

func (workloads) key() string { return "spiffe" }

func (w workloads) test(req *access.Request) access.Tri {
	id := req.Identity.SPIFFE
	if id == "" || req.Identity.Nobody() {
		return access.No
	}
	for i := range w {
		if id == w[i].id || w[i].below && strings.HasPrefix(id, w[i].id) {
			return access.Yes
		}
	}
	return access.No
}

func (w workloads) describe(req *access.Request) (want, got string) {
	names := make([]string, len(w))
	for i := range w {
		names[i] = w[i].id
		if w[i].below {
			names[i] += "**"
		}
	}
	return anyOf(names), orNone(req.Identity.SPIFFE)
}

// clients hits for access tokens that were issued to certain OAuth clients.
type clients people

func (clients) key() string { return "client_ids" }
func (c clients) test(req *access.Request) access.Tri {
	id := &req.Identity
	if id.Nobody() || id.ClientID == "" {
		return access.No
	}
	_, ok := c[person{id.Provider, id.ClientID}]
	return access.TriOf(ok)
}
func (c clients) describe(req *access.Request) (want, got string) {
	want, _ = people(c).describe(req)
	if req.Identity.ClientID == "" {
		return want, "none"
	}
	return want, req.Identity.Provider + ":" + req.Identity.ClientID
}

// scopes hits for access tokens with at least one of certain scopes.
type scopes []string

func (scopes) key() string { return "scopes" }

func (s scopes) test(req *access.Request) access.Tri {
	if req.Identity.Nobody() {
		return access.No
	}
	for _, scope := range s {
		if _, ok := slices.BinarySearch(req.Identity.Scopes, scope); ok {
			return access.Yes
		}
	}
	return access.No
}

func (s scopes) describe(req *access.Request) (want, got string) {
	return anyOf(s), shortList(req.Identity.Scopes)
}

// onlyPeople keeps machines out of an allow rule that does not name them.
type onlyPeople struct{}

func (onlyPeople) key() string { return "kind" }
func (onlyPeople) test(req *access.Request) access.Tri {
	return access.TriOf(!req.Identity.Nobody() && req.Identity.Kind == access.Person)
}
func (onlyPeople) describe(req *access.Request) (want, got string) {
	return "a person", kindName(&req.Identity)
}

func kindName(id *access.Identity) string {
	switch {
	case id.Nobody():
		return "nobody"
	case id.Kind == access.Person:
		return "a person"
	default:
		return "a " + string(id.Kind)
	}
}
