package proxy

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

var (
	errNotURL           = errors.New("not a URL")
	errNotHTTP          = errors.New("neither http nor https")
	errNotOrigin        = errors.New("more than scheme, host and port")
	errNotOriginAndPath = errors.New("more than scheme, host, port and path")
	errAmbiguousPrefix  = errors.New("the path can be read in several ways")
	errAmbiguous        = errors.New("the route does not permit this spelling of the path")
	errBadHost          = errors.New("not a host name")
	errBadPort          = errors.New("not a port")
	errTrailingDot      = errors.New("the host ends with a dot")
	errUserinfo         = errors.New("a user name stands before the host")
	errHostTooLong      = errors.New("the host is too long")
	errBadIPLiteral     = errors.New("not an IPv6 address in brackets")
)

// maxHostBytes is the longest DNS name in text form (RFC 1035 §2.3.4).
const maxHostBytes = 253

// canonicalHost returns the one spelling of a host and port that routes are
// found by: lower-case, without the scheme's default port, IPv6 addresses in
// their shortest form. A spelling that servers could take for two different
// hosts is an error. The result is canonical again.
func canonicalHost(raw, scheme string) (string, error) {
	if strings.Contains(raw, "@") {
		return "", errUserinfo
	}
	name, port, err := splitHost(raw)
	if err != nil {
		return "", err
	}
	if name[0] == '[' {
		addr, err := netip.ParseAddr(name[1 : len(name)-1])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", errBadIPLiteral
		}
		name = "[" + addr.String() + "]"
	} else if name, err = canonicalName(name); err != nil {
		return "", err
	}
	if port == "" || port == "80" && scheme == "http" || port == "443" && scheme == "https" {
		return name, nil
	}
	return name + ":" + port, nil
}

// splitHost separates a port, which comes back empty or in its shortest form.
func splitHost(raw string) (name, port string, err error) {
	end := 0
	if strings.HasPrefix(raw, "[") {
		if end = strings.IndexByte(raw, ']'); end < 0 {
			return "", "", errBadIPLiteral
		}
		end++
	} else if end = strings.IndexByte(raw, ':'); end < 0 {
		end = len(raw)
	}
	name, rest := raw[:end], raw[end:]
	if name == "" {
		return "", "", errBadHost
	}
	if rest == "" {
		return name, "", nil
	}
	if rest[0] != ':' || len(rest) < 2 || len(rest) > 6 {
		return "", "", errBadPort
	}
	for _, c := range []byte(rest[1:]) {
		if c < '0' || c > '9' {
			return "", "", errBadPort
		}
	}
	n, err := strconv.ParseUint(rest[1:], 10, 16)
	if err != nil || n == 0 {
		return "", "", errBadPort
	}
	if rest[1] == '0' {
		return name, strconv.FormatUint(n, 10), nil
	}
	return name, rest[1:], nil
}

// canonicalName checks a DNS name or IPv4 address and lowers its case. The
// underscore is no letter of host names, but names in private zones have it.
func canonicalName(name string) (string, error) {
	if len(name) > maxHostBytes {
		return "", errHostTooLong
	}
	if name[len(name)-1] == '.' {
		return "", errTrailingDot
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "", errBadHost
			}
			label = 0
			continue
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return "", errBadHost
		}
		if label++; label > 63 {
			return "", errHostTooLong
		}
	}
	return strings.ToLower(name), nil
}
