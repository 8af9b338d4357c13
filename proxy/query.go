package proxy

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

var (
	errQueryByte      = errors.New("the query holds a byte that does not belong into a URL")
	errQueryPercent   = errors.New("a percent sign in the query is not followed by two hexadecimal digits")
	errQuerySemicolon = errors.New("a semicolon stands in the query, which some servers take for a separator")
	errQueryParams    = errors.New("the query has too many parameters")
)

// maxQueryParams keeps the query below the size at which net/http would write
// it anew.
const maxQueryParams = 1000

// checkQuery refuses a query that policy and upstream could read differently:
// bytes outside RFC 3986, broken escapes, and semicolons. What passes is
// forwarded byte by byte.
func checkQuery(raw string) error {
	params := 1
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '%':
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return access.Because(access.BadRequest, errQueryPercent)
			}
			i += 2
		case c == ';':
			return access.Because(access.AmbiguousPath, errQuerySemicolon)
		case c == '&':
			params++
		case !pathByte(c) && c != '?' && c != '[' && c != ']':
			return access.Because(access.BadRequest, errQueryByte)
		}
	}
	if params > maxQueryParams {
		return access.Because(access.BadRequest, errQueryParams)
	}
	return nil
}

const redacted = "[redacted]"

// secretWords make a parameter secret wherever they occur in its name,
// secretNames only as the whole name.
var (
	secretWords = []string{"token", "secret", "passw", "pwd", "signature", "session", "apikey", "api_key", "accesskey",
		"access_key", "credential", "assertion", "samlrequest", "samlresponse", "jwt", "otp", "authorization", "private"}
	secretNames = []string{"auth", "code", "key", "pass", "pin", "sid", "sig", "ticket"}
)

// redactQuery returns the query as rules and the audit log may see it: the
// values of parameters that carry secrets, by their name or by their look, are
// replaced. What only looks like a secret gets a mark of its own: any parameter
// can be made to look like one, and rules must not be evaded that way. The
// upstream gets the query as it came.
func redactQuery(raw string) string {
	if raw == "" || !anySecret(raw) {
		return raw
	}
	var out strings.Builder
	out.Grow(len(raw))
	first := true
	for pair := range strings.SplitSeq(raw, "&") {
		if !first {
			out.WriteByte('&')
		}
		first = false
		name, value, hasValue := strings.Cut(pair, "=")
		switch {
		case looksLikeJWT(name):
			out.WriteString(access.HiddenValue)
		case hasValue && looksLikeJWT(value) && !secretName(name):
			out.WriteString(name)
			out.WriteByte('=')
			out.WriteString(access.HiddenValue)
		case hasValue && secretName(name):
			out.WriteString(name)
			out.WriteByte('=')
			out.WriteString(redacted)
		default:
			out.WriteString(pair)
		}
	}
	return out.String()
}

func anySecret(raw string) bool {
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if secretName(name) || looksLikeJWT(name) || looksLikeJWT(value) {
			return true
		}
	}
	return false
}

func secretName(name string) bool {
	name = strings.ToLower(unescaped(name))
	if strings.Contains(name, "-") {
		name = strings.ReplaceAll(name, "-", "_")
	}
	return slices.Contains(secretNames, name) ||
		slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(name, word) })
}

// looksLikeJWT recognises the compact form of a signed or encrypted JWT: three
// or five parts, of which the first is a JSON object in base64url.
func looksLikeJWT(value string) bool {
	value = unescaped(value)
	i := strings.Index(value, "eyJ")
	return i >= 0 && strings.Count(value[i:], ".") >= 2
}

func unescaped(s string) string {
	if strings.Contains(s, "%") {
		if plain, err := url.QueryUnescape(s); err == nil {
			return plain
		}
	}
	return s
}
