package authn

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

const (
	maxReturn = 2048 // bytes of a return address; a longer one loses its query
	maxInURL  = 256  // a longer one stays in the cookie
	maxOrigin = 8 + 253 + 6
)

// parseReturn accepts an address on this very host, as path and query: what a
// visitor may be sent to after a login. It is parsed once, here, and written out
// again with the host in front, so that no browser can read another host into it
// (//evil, /\evil, https:evil). Our own pages are refused, since coming back to
// the logout page would log out; except the portal, spelled exactly so, which
// only shows.
func parseReturn(text string) (string, bool) {
	if text == access.PortalPath {
		return text, true
	}
	if len(text) > maxReturn || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || !isPlainURL(text) {
		return "", false
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return "", false
	}
	clean := strings.ToLower(path.Clean(u.Path)) + "/" // path.Clean leaves no slash at the end
	if strings.Contains(u.Path, `\`) || strings.HasPrefix(clean, access.Prefix) {
		return "", false
	}
	return text, true
}

// isPlainURL allows what RFC 3986 allows, less the fragment and with percent
// signs taken on trust: no control characters, no backslash, no raw non-ASCII.
func isPlainURL(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune("\\\"<>^`{|}#", c)
	})
}

// returnOf is parseReturn for the address a request was sent to. What cannot be
// returned to is cut down to its path, or to the start page.
func returnOf(u *url.URL) string {
	for _, text := range []string{u.RequestURI(), u.EscapedPath()} {
		if to, ok := parseReturn(text); ok {
			return to
		}
	}
	return "/"
}

// parseOrigin accepts scheme://host exactly as an application's origin is
// written: lower case, ASCII, no default port spelled out, nothing after the host.
func parseOrigin(text string) (string, bool) {
	if len(text) > maxOrigin {
		return "", false
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || text != u.Scheme+"://"+u.Host || u.Hostname() == "" {
		return "", false
	}
	bad := strings.ContainsFunc(u.Host, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_:[]", c)
	})
	if bad || strings.HasSuffix(text, map[string]string{"http": ":80", "https": ":443"}[u.Scheme]) {
		return "", false
	}
	return text, true
}

// originOfURL returns the origin of a configured address such as auth_url.
func originOfURL(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	host := strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
	origin, ok := parseOrigin(u.Scheme + "://" + host)
	if !ok || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not an address such as https://auth.example.com", address)
	}
	return origin, nil
}

func schemeOf(origin string) string {
	scheme, _, _ := strings.Cut(origin, "://")
	return scheme
}

// fingerprint names a target in the cookie without spelling it out.
func fingerprint(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
