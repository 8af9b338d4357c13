package devicecheck

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// ownerKey says what of an identity the owner in an inventory is compared with.
// The zero value compares nothing, so that nobody owns anything.
type ownerKey struct {
	by    string // email, username, sub or claim
	claim string // the claim's name
	// from lists the providers whose people can own a device. Empty: all.
	from []string
}

func parseOwner(entry string) (ownerKey, error) {
	switch entry {
	case "", "email", "username", "sub":
		return ownerKey{by: entry}, nil
	}
	p, err := parseProof(entry)
	if err != nil || p.claim == "" {
		return ownerKey{}, fmt.Errorf("%q does not name the owner of a device", clip(entry))
	}
	return ownerKey{by: "claim", claim: p.claim}, nil
}

// owned tells whether somebody is the owner that an inventory names. It is
// unknown where either of the two is; an e-mail address that the provider has
// not verified is not known.
func (k *ownerKey) owned(id *access.Identity, owner string) access.Tri {
	if owner == "" || id.Nobody() || id.Kind != access.Person {
		return access.Unknown
	}
	if len(k.from) > 0 && !slices.Contains(k.from, id.Provider) {
		return access.Unknown
	}
	same, person := equalFoldASCII, ""
	switch k.by {
	case "email":
		if id.EmailVerified {
			person = id.Email
		}
	case "username":
		person = id.Username
	case "sub":
		same, person = equal, id.Subject
	case "claim":
		same = equal
		person, _ = id.Claims[k.claim].(string)
	}
	if person == "" {
		return access.Unknown
	}
	return access.TriOf(same(owner, person))
}

func equal(a, b string) bool { return a == b }

// equalFoldASCII ignores the case of ASCII letters and of no others: Unicode
// has letters, such as the Kelvin sign, that fold to ASCII ones, and by them two
// people would be one.
func equalFoldASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	return strings.IndexFunc(a, notASCII) < 0 && strings.IndexFunc(b, notASCII) < 0 && strings.EqualFold(a, b) || a == b
}

func notASCII(r rune) bool { return r >= 0x80 }
