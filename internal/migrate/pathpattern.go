package migrate

import (
	"regexp"
	"strconv"
	"strings"
)

// A pattern is a set of paths: globs where they say exactly the same as the
// original, or else a regular expression for a condition.
type pattern struct {
	globs []string
	regex string
}

// all matches every path.
var all = pattern{globs: []string{"/**"}}

// prefixPattern matches paths that begin with a text. "/a" also matches "/ab".
func prefixPattern(prefix string) pattern {
	switch {
	case prefix == "" || prefix == "/":
		return all
	case globText(prefix):
		return pattern{globs: []string{prefix + "*/**"}}
	}
	return pattern{regex: "^" + regexp.QuoteMeta(prefix)}
}

// below matches a path and everything behind the next slash.
func below(path string) pattern {
	path = strings.TrimSuffix(path, "/")
	switch {
	case path == "":
		return all
	case globText(path):
		return pattern{globs: []string{path + "/**"}}
	}
	return pattern{regex: "^" + regexp.QuoteMeta(path) + "(/|$)"}
}

// exactPattern matches one path.
func exactPattern(path string) pattern {
	if globText(path) {
		return pattern{globs: []string{path}}
	}
	return pattern{regex: "^" + regexp.QuoteMeta(path) + "$"}
}

// globText reports whether a text stands for itself in a glob.
func globText(s string) bool {
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, `*?#[]{}\%;`) || strings.Contains(s, "//") {
		return false
	}
	for _, segment := range strings.Split(s, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// maxRegex is far above what anybody writes, and below what a condition may be.
const maxRegex = 1000

// regexPattern reads a regular expression (RE2) on paths. It fails for one that
// Go does not understand.
func regexPattern(re string) (pattern, bool) {
	if len(re) > maxRegex {
		return pattern{}, false
	}
	if _, err := regexp.Compile(re); err != nil {
		return pattern{}, false
	}
	if re == ".*" || re == "^.*$" || re == "^.*" || re == "^/.*$" || re == "^/.*" || re == "^/" || re == "^" || re == "" {
		return all, true
	}
	if body, anchored := strings.CutPrefix(re, "^"); anchored {
		for _, tail := range []struct {
			suffix string
			make   func(string) pattern
		}{
			{`(/.*)?$`, below}, {`([/?].*)?$`, below}, {`(?:/.*)?$`, below}, {`(/|$)`, below},
			{`.*$`, prefixPattern}, {`.*`, prefixPattern}, {`$`, exactPattern}, {``, prefixPattern},
		} {
			rest, ok := strings.CutSuffix(body, tail.suffix)
			if !ok {
				continue
			}
			if text, plain := literalText(rest); plain && globText(text) {
				return tail.make(text), true
			}
			break
		}
	}
	return pattern{regex: re}, true
}

// literalText returns the text that a regular expression without operators
// matches.
func literalText(re string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(re); i++ {
		switch c := re[i]; {
		case c == '\\' && i+1 < len(re) && strings.IndexByte(`.+*?()|[]{}^$\/-_`, re[i+1]) >= 0:
			i++
			b.WriteByte(re[i])
		case strings.IndexByte(`\.+*?()|[]{}^$`, c) >= 0:
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

// around returns globs that match whatever the pattern does, and perhaps more;
// nil stands for every path.
func (p pattern) around() []string {
	if p.regex == "" {
		return p.globs
	}
	body, anchored := strings.CutPrefix(p.regex, "^")
	head := body
	if i := strings.IndexAny(body, `\.+*?()|[]{}^$`); i >= 0 {
		head = body[:i]
		if strings.IndexByte(`*?{`, body[i]) >= 0 {
			head = head[:max(0, len(head)-1)] // its last character need not be there
		}
	}
	if !anchored || alternatives(body) || !globText(head) {
		return nil
	}
	return prefixPattern(head).globs
}

// alternatives reports whether an expression has alternatives outside brackets,
// or something that looks like it.
func alternatives(re string) bool {
	depth := 0
	for i := 0; i < len(re); i++ {
		switch re[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			depth--
		case '|':
			if depth <= 0 {
				return true
			}
		}
	}
	return depth != 0 || strings.Contains(re, "[(") || strings.Contains(re, "[)") || strings.Contains(re, "(?") && !strings.Contains(re, "(?:")
}

// celText writes a text for an expression.
func celText(s string) string { return strconv.Quote(s) }
