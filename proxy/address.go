package proxy

import (
	"errors"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Address is where a route is reached, as its `from` says in canonical form.
type Address struct {
	// Scheme is http, https or tcp.
	Scheme string
	// Host is exact, or begins with a dot and stands for all names one label below.
	Host string
	// Prefix is empty, or begins with a slash and ends without.
	Prefix string
}

// Addresses returns the addresses of all routes by their ids.
func (t *Table) Addresses() map[string]Address {
	all := map[string]Address{}
	for scheme, at := range map[string]hosts{"http": t.http, "https": t.https, "tcp": t.tcp} {
		for _, sites := range []map[string]*site{at.exact, at.wildcard} {
			for host, s := range sites {
				for prefix, entry := range s.byPrefix {
					all[entry.Route.ID] = Address{scheme, host, prefix}
				}
			}
		}
	}
	return all
}

// Covers reports whether a wildcard host stands for an exact one.
func (a Address) Covers(b Address) bool {
	first, rest, ok := strings.Cut(b.Host, ".")
	return ok && first != "" && a.Scheme == b.Scheme && a.Host == "."+rest
}

// HidesParameter reports whether the values of a query parameter are replaced
// before any rule sees them, because its name is that of a secret.
func HidesParameter(name string) bool { return secretName(name) }

// NeverMethod tells why no request ever has a method; empty if some may.
func NeverMethod(method string) string {
	if err := checkMethod(method); err != nil {
		var e *access.Error
		if errors.As(err, &e) && e.Err != nil {
			err = e.Err
		}
		return err.Error()
	}
	return ""
}
