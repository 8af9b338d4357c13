package proxy

import (
	"net/http"
	"strings"
	"unicode/utf8"
)

// reservedHeaders are request headers by which somebody in front of an
// application tells it who the visitor is, which certificate they showed, where
// they come from, or what they really asked for. A visitor who could send one
// would be believed. All are in canonical form.
var reservedHeaders = map[string]bool{
	"Forwarded": true, "X-Forwarded": true, "Forwarded-For": true, "X-Real-Ip": true, "X-Client-Ip": true,
	"X-Cluster-Client-Ip": true, "True-Client-Ip": true, "Cf-Connecting-Ip": true, "Cf-Connecting-Ipv6": true,
	"Fastly-Client-Ip": true, "X-Appengine-User-Ip": true, "X-Azure-Clientip": true, "X-Azure-Socketip": true,
	"X-Request-Id": true, "X-Host": true, "X-Http-Host-Override": true,
	// A method other than the one that was decided on.
	"X-Http-Method": true, "X-Http-Method-Override": true, "X-Method-Override": true,
	"X-Arr-Clientcert": true, "X-Arr-Ssl": true,
	"Proxy": true, // becomes HTTP_PROXY in CGI programs (CVE-2016-5385)
}

// reservedPrefixes are whole namespaces of such headers.
var reservedPrefixes = []string{
	"X-Forwarded-", "X-Original-", "X-Originating-", "X-Rewrite-", "X-Auth-Request-", "X-Remote-", "Remote-",
	"Doorward-", "X-Doorward-", "X-Goog-Authenticated-", "X-Goog-Iap-", "Cf-Access-", "X-Pomerium-",
	"X-Amzn-Oidc-", "X-Amzn-Ava-", "X-Amzn-Mtls-", "X-Authelia-", "X-Authentik-", "X-Webauth-", "X-Envoy-",
	"Client-Cert", "X-Client-Cert", "X-Ssl-", "Ssl-Client-",
}

// dropUntrusted removes what no visitor may say from the request headers: the
// reserved names, and every name with a character other than letters, digits
// and hyphens. Many servers map such characters to hyphens or underscores, so
// that X_Forwarded_User and X.Forwarded.User would become X-Forwarded-User
// behind us, and Content_Length a second Content-Length. Values of trusted
// proxies have been read before. What tells of traces goes as well, unless traced
// says that the sender may. It reports whether any of them all looks like a
// certificate that is handed on.
func dropUntrusted(h http.Header, traced bool) (certificate bool) {
	for name := range h {
		certificate = certificate || carriesCertificate(name)
		if !plainName(name) || reserved(name) || !traced && traceHeader(name) {
			delete(h, name)
		}
	}
	return certificate
}

func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != ""
}

// reserved reports whether a plain name is ours to set or nobody's. Names come
// from net/http in canonical form; the slow way is for those that do not.
func reserved(name string) bool {
	if name == "" || !reservedFirst[name[0]|0x20] {
		return false // nearly all
	}
	name = http.CanonicalHeaderKey(name)
	if reservedHeaders[name] {
		return true
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// reservedFirst are the small letters that reserved names may begin with.
var reservedFirst = func() (table [256]bool) {
	for name := range reservedHeaders {
		table[name[0]|0x20] = true
	}
	for _, prefix := range reservedPrefixes {
		table[prefix[0]|0x20] = true
	}
	return table
}()

// skeleton returns what two spellings of a header name have in common on a
// server that maps everything but letters and digits to one character.
func skeleton(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= utf8.RuneSelf {
			return '-'
		}
		return rune(skeletal(byte(c)))
	}, name)
}

// likens reports whether the skeleton of a name begins like another one.
func likens(name, start string) bool {
	if len(name) < len(start) {
		return false
	}
	for i := range len(start) {
		if name[i] >= utf8.RuneSelf {
			return strings.HasPrefix(skeleton(name), start)
		}
		if skeletal(name[i]) != start[i] {
			return false
		}
	}
	return true
}

// skeletal is what an ASCII character becomes in a skeleton.
func skeletal(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return '-'
}

// believes reports whether the upstream of a route would take a header for one
// that the route sets.
func (e *Entry) believes(name string) bool {
	var room [64]byte
	if len(name) > len(room) {
		return e.names[skeleton(name)]
	}
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return e.names[skeleton(name)]
		}
		room[i] = skeletal(name[i])
	}
	return e.names[string(room[:len(name)])]
}

// headerBytes is the size of a header block as HTTP/2 counts it (RFC 9113
// §6.5.2).
func headerBytes(r *http.Request) int {
	n := len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			n += len(name) + len(value) + 32
		}
	}
	return n
}

// hasToken reports whether a header with a comma-separated list of tokens names
// one, without regard to case (RFC 9110 §5.6.1).
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// oursCookie reports whether a cookie name belongs to Doorward. The case is
// ignored because some applications ignore it.
func oursCookie(name string) bool {
	if len(name) >= len(hostPrefix) && strings.EqualFold(name[:len(hostPrefix)], hostPrefix) {
		name = name[len(hostPrefix):]
	}
	return strings.EqualFold(name, "doorward") || strings.EqualFold(name, "doorward-login")
}

const hostPrefix = "__Host-"

// stripCookies removes our own cookies from the values of Cookie headers and
// leaves every other byte as it came. The result shares the input where nothing
// had to be removed, and is empty where nothing is left.
func stripCookies(values []string) []string {
	var out []string
	removed := false
	for i, value := range values {
		stripped, changed := stripCookie(value)
		if changed && !removed {
			removed = true
			out = append(out, values[:i]...)
		}
		if removed && !(changed && stripped == "") {
			out = append(out, stripped)
		}
	}
	if !removed {
		return values
	}
	return out
}

func stripCookie(value string) (string, bool) {
	var kept []string
	found := false
	for pair := range strings.SplitSeq(value, ";") {
		name, _, _ := strings.Cut(pair, "=")
		if oursCookie(strings.Trim(name, " \t\r\n")) { // as readers of cookies trim
			found = true
			continue
		}
		kept = append(kept, pair)
	}
	if !found {
		return value, false
	}
	if len(kept) > 0 {
		kept[0] = strings.TrimLeft(kept[0], " ")
	}
	return strings.Join(kept, ";"), true
}

// cleanResponse removes from an upstream's response headers what is about its
// connection, unless that has switched to another protocol, and what only Doorward
// may say: its own cookies and headers, and offers of other protocols, which would
// be the upstream's and not this door's (RFC 7838).
func cleanResponse(h http.Header, switched bool) {
	if !switched {
		dropNamed(h, h["Connection"])
	}
	for name := range h {
		if !switched && isHop(name) || strings.HasPrefix(name, "Doorward-") || name == "Alt-Svc" {
			delete(h, name)
		}
	}
	cookies := h["Set-Cookie"]
	if cookies == nil {
		return
	}
	for i := 0; i < len(cookies); i++ {
		pair, _, _ := strings.Cut(cookies[i], ";")
		// Browsers send a cookie without a name back as its bare value, which
		// then reads as a name.
		name, _, _ := strings.Cut(strings.TrimLeft(pair, "= \t"), "=")
		if oursCookie(strings.Trim(name, " \t")) {
			cookies = append(cookies[:i:i], cookies[i+1:]...)
			i--
		}
	}
	if len(cookies) == 0 {
		delete(h, "Set-Cookie")
	} else {
		h["Set-Cookie"] = cookies
	}
}
