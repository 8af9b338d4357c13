package signals

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/jose"
)

// maxName bounds every identifier in a subject, maxAliases how many of them
// stand for one thing.
const (
	maxName    = 512
	maxAliases = 16
)

// A name is one simple subject that means something here (RFC 9493).
type name struct {
	// issuer is set for iss_sub: value is only unique there.
	issuer string
	value  string
	email  bool
}

// subject is who or what an event is about. A part that is not named is nil: the
// event is about all of that kind (SSF 1.0 §3.5).
type subject struct {
	user, session, device []name
	tenant                bool
	// simple is set where the event names one thing without saying which kind it
	// is; the type of the event tells.
	simple []name
	// unread lists members of a complex subject that mean nothing to us.
	unread []string
}

// parseSubject reads sub_id. A format that is well formed and means nothing here
// is no error: it is left out.
func parseSubject(o jose.Object) (s subject, err error) {
	format, err := o.Text("format")
	if err != nil {
		return s, err
	}
	if format != "complex" {
		s.simple, err = parseNames(o, true)
		return s, err
	}
	for _, member := range slices.Sorted(maps.Keys(o)) {
		if member == "format" {
			continue
		}
		part, ok := o[member].(map[string]any)
		if !ok {
			return s, fmt.Errorf("member %.40q of the subject is no subject", member)
		}
		names, err := parseNames(part, true)
		if err != nil {
			return s, fmt.Errorf("%.40s: %w", member, err)
		}
		into := map[string]*[]name{"user": &s.user, "session": &s.session, "device": &s.device}[member]
		switch {
		case member == "tenant":
			s.tenant = true
		case into == nil || len(names) == 0:
			s.unread = append(s.unread, member)
		default:
			*into = names
		}
	}
	return s, nil
}

// parseNames reads a simple subject, which several names may stand for.
func parseNames(o jose.Object, aliases bool) ([]name, error) {
	format, err := o.Text("format")
	if err != nil {
		return nil, err
	}
	switch format {
	case "":
		return nil, errors.New("a subject without a format")
	case "iss_sub":
		n := name{}
		if n.issuer, err = member(o, "iss"); err == nil {
			n.value, err = member(o, "sub")
		}
		return []name{n}, err
	case "opaque":
		value, err := member(o, "id")
		return []name{{value: value}}, err
	case "email":
		value, err := member(o, "email")
		return []name{{value: strings.ToLower(value), email: true}}, err
	case "aliases":
		list, ok := o["identifiers"].([]any)
		if !ok || !aliases || len(list) == 0 || len(list) > maxAliases {
			return nil, errors.New("aliases without a proper list of identifiers")
		}
		var names []name
		for _, one := range list {
			fields, ok := one.(map[string]any)
			if !ok {
				return nil, errors.New("an alias that is no subject")
			}
			more, err := parseNames(fields, false)
			if err != nil {
				return nil, err
			}
			names = append(names, more...)
		}
		return names, nil
	case "complex":
		return nil, errors.New("a complex subject within another")
	}
	return nil, nil // account, phone_number, did, uri, jwt_id …: not how we know anyone
}

// member returns a member that must be there.
func member(o jose.Object, key string) (string, error) {
	value, err := o.Text(key)
	switch {
	case err != nil:
		return "", err
	case value == "" || len(value) > maxName:
		return "", fmt.Errorf("%s is missing, empty or too long", key)
	}
	return value, nil
}
