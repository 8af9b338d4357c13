package h1

import (
	"net/http"
	"net/textproto"
	"strings"
)

// What a byte may be part of.
const (
	tokenByte = 1 << iota // a name or a method (RFC 9110 §5.6.2)
	lowerByte
	upperByte
	valueByte // a value (RFC 9110 §5.5), blanks included
	hexByte
	targetByte // a request target: visible ASCII
)

// class says what each byte may be part of.
var class = func() (table [256]uint8) {
	for c := range table {
		switch b := byte(c); {
		case b == '\t', b == ' ', b >= 0x80:
			table[c] = valueByte
		case b > ' ' && b < 0x7f:
			table[c] = valueByte | targetByte
		}
		switch b := byte(c); {
		case '0' <= b && b <= '9':
			table[c] |= tokenByte | hexByte
		case 'a' <= b && b <= 'z':
			table[c] |= tokenByte | lowerByte
		case 'A' <= b && b <= 'Z':
			table[c] |= tokenByte | upperByte
		case b < 0x7f && strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0:
			table[c] |= tokenByte
		}
		switch b := byte(c); {
		case 'a' <= b && b <= 'f', 'A' <= b && b <= 'F':
			table[c] |= hexByte
		}
	}
	return table
}()

// all reports whether every byte of s is of a class.
func all(s string, of uint8) bool {
	for i := range len(s) {
		if class[s[i]]&of == 0 {
			return false
		}
	}
	return true
}

// isValue reports whether every byte of s is a valueByte. It looks at eight
// visible ones at a time.
func isValue(s string) bool {
	for len(s) >= 8 && visible(s) {
		s = s[8:]
	}
	return all(s, valueByte)
}

// visible reports whether the first eight bytes of s are visible ASCII or blanks.
func visible(s string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	_ = s[7]
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	// Below a blank, taking one away borrows the top bit; adding 1 to DEL sets it.
	return (w|(w-' '*ones)|(w+ones))&tops == 0
}

// fieldName returns the canonical form of a name, which shares the bytes of one
// that is written so already, and false for what is no name.
func fieldName(s string) (string, bool) {
	first, plain := true, true // first: of a word, which begins with a capital
	for i := range len(s) {
		c := class[s[i]]
		if c&tokenByte == 0 {
			return "", false
		}
		if first && c&lowerByte != 0 || !first && c&upperByte != 0 {
			plain = false
		}
		first = s[i] == '-'
	}
	if !plain {
		s = textproto.CanonicalMIMEHeaderKey(s)
	}
	return s, s != ""
}

// trimmed returns a value without the blanks around it.
func trimmed(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// parseFields reads the lines of a header or trailer section, each of which ends
// with CRLF; n is how many there are (RFC 9112 §5). There is no blank before the
// colon, nothing is folded, and no value has a control character but the tab.
func parseFields(text string, n int) (http.Header, error) {
	h := make(http.Header, n)
	values := make([]string, n)
	for text != "" {
		end := strings.IndexByte(text, '\n')
		line := text[:end-1]
		text = text[end+1:]
		colon := strings.IndexByte(line, ':')
		if colon < 0 {
			return nil, bad("a header field has no colon")
		}
		name, ok := fieldName(line[:colon])
		if !ok {
			return nil, bad("the name of a header field has a character that none may have")
		}
		value := trimmed(line[colon+1:])
		if !isValue(value) {
			return nil, bad("the value of %s has a control character", name)
		}
		if have, again := h[name]; again {
			h[name] = append(have, value)
		} else {
			values[0] = value
			h[name] = values[:1:1]
			values = values[1:]
		}
	}
	return h, nil
}

// hasToken reports whether a header with a comma-separated list of tokens names
// one, without regard to case (RFC 9110 §5.6.1).
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(trimmed(part), token) {
				return true
			}
		}
	}
	return false
}
