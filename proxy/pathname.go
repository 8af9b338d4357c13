package proxy

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/doorward/doorward/internal/access"
)

// ambiguity is a set of spellings that servers read differently.
type ambiguity uint8

const (
	encodedSlash   ambiguity = 1 << iota // %2f: one segment or two?
	encodedPercent                       // %252f: decoded once or twice?
	emptySegment                         // "//": one slash or two?
	semicolon                            // ";x": parameters or part of the name?
	backslash                            // "\" or %5c: a slash?
)

// ambiguityNames are the words of a route's `ambiguous_paths`.
var ambiguityNames = map[string]ambiguity{
	"encoded_slash": encodedSlash, "encoded_percent": encodedPercent,
	"empty_segment": emptySegment, "semicolon": semicolon, "backslash": backslash,
}

// names lists the spellings of a set in the words of the configuration, sorted.
func (a ambiguity) names() (names []string) {
	for name, bit := range ambiguityNames {
		if a&bit != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// pathname is the path of a request in the one form that is matched, decided
// on and forwarded.
type pathname struct {
	// Path is the decoded form, for routes and rules.
	Path string
	// Escaped is what the upstream gets. Decoding it once gives Path.
	Escaped string
	// Ambiguous is what a route has to permit before it sees this path.
	Ambiguous ambiguity
}

var (
	errPathByte    = errors.New("the path holds a byte that does not belong into a URL")
	errPercent     = errors.New("a percent sign is not followed by two hexadecimal digits")
	errControl     = errors.New("the path holds a control character")
	errUTF8        = errors.New("the path is not UTF-8")
	errDotSegment  = errors.New("the path holds . or .. as a segment")
	errRelative    = errors.New("the path does not begin with a slash")
	errDeepEncoded = errors.New("the path is encoded over and over")
)

// maxEncodings is how many times over a path may be percent-encoded before it
// is refused on every route.
const maxEncodings = 4

// parsePathname reads the path of a request target (RFC 3986 §3.3). Percent
// escapes of unreserved characters are decoded, others are written in upper
// case (§6.2.2). Segments that say "go up", however they are spelled, are
// never accepted. The errors carry access.BadRequest or access.AmbiguousPath.
func parsePathname(raw string) (pathname, error) {
	if raw == "" || raw[0] != '/' {
		return pathname{}, access.Because(access.BadRequest, errRelative)
	}
	p := pathname{Path: raw, Escaped: raw}
	if !plainPath(raw) {
		var err error
		if p, err = decodePath(raw); err != nil {
			return pathname{}, access.Because(access.BadRequest, err)
		}
	}
	if err := p.classify(); err != nil {
		return pathname{}, access.Because(access.AmbiguousPath, err)
	}
	return p, nil
}

// plainPath reports whether a path is its own decoded and encoded form.
func plainPath(raw string) bool {
	for i := range len(raw) {
		if c := raw[i]; !pathByte(c) || c == ';' {
			return false
		}
	}
	return true
}

// decodePath decodes raw once and writes it again, keeping the difference
// between a reserved character and its escape.
func decodePath(raw string) (pathname, error) {
	var (
		path, escaped strings.Builder
		p             pathname
	)
	path.Grow(len(raw))
	escaped.Grow(len(raw) + 8)
	for i := 0; i < len(raw); i++ {
		c, wasEscaped := raw[i], false
		if c == '%' {
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return p, errPercent
			}
			c, wasEscaped = unhex(raw[i+1])<<4|unhex(raw[i+2]), true
			i += 2
		}
		switch {
		case c < ' ' || c == 0x7f:
			return p, errControl
		case c == '/' && wasEscaped:
			p.Ambiguous |= encodedSlash
		case c == '\\':
			p.Ambiguous |= backslash
		case c == ';':
			p.Ambiguous |= semicolon
		case !wasEscaped && !pathByte(c) && c != '[' && c != ']': // browsers leave brackets as they are
			return p, errPathByte
		}
		path.WriteByte(c)
		if unreserved(c) || !wasEscaped && pathByte(c) {
			escaped.WriteByte(c)
		} else {
			escaped.WriteByte('%')
			escaped.WriteByte(upperHex[c>>4])
			escaped.WriteByte(upperHex[c&15])
		}
	}
	p.Path, p.Escaped = path.String(), escaped.String()
	if !utf8.ValidString(p.Path) {
		return p, errUTF8
	}
	return p, nil
}

// classify looks at the decoded path the way lenient servers do: decoding
// again, taking backslashes for slashes and cutting parameters off.
func (p *pathname) classify() error {
	path := p.Path
	if strings.Contains(path, "//") {
		p.Ambiguous |= emptySegment
	}
	for range maxEncodings {
		if dotSegment(path) {
			return errDotSegment
		}
		again, more := decodeAgain(path)
		if !more {
			return nil
		}
		p.Ambiguous |= encodedPercent
		path = again
	}
	return errDeepEncoded
}

// dotSegment reports whether some server would read a segment as "." or "..".
func dotSegment(path string) bool {
	for path != "" {
		end := strings.IndexAny(path, `/\`)
		segment := path
		if end >= 0 {
			segment, path = path[:end], path[end+1:]
		} else {
			path = ""
		}
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// decodeAgain decodes what still looks like a percent escape.
func decodeAgain(path string) (string, bool) {
	start := -1
	for i := 0; i+2 < len(path); i++ {
		if path[i] == '%' && isHex(path[i+1]) && isHex(path[i+2]) {
			start = i
			break
		}
	}
	if start < 0 {
		return path, false
	}
	out := append(make([]byte, 0, len(path)), path[:start]...)
	for i := start; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
			out = append(out, unhex(path[i+1])<<4|unhex(path[i+2]))
			i += 2
			continue
		}
		out = append(out, path[i])
	}
	return string(out), true
}

const upperHex = "0123456789ABCDEF"

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}

// unreserved is RFC 3986 §2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// pathByte reports whether a byte may stand in a path unescaped: pchar without
// the percent sign, and the slash (RFC 3986 §3.3).
func pathByte(c byte) bool {
	switch c {
	case '!', '$', '&', '\'', '(', ')', '*', '+', ',', ';', '=', ':', '@', '/':
		return true
	}
	return unreserved(c)
}
