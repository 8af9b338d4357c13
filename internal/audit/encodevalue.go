package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/doorward/doorward/internal/access"
)

// encoder writes JSON as encoding/json does without the escapes for HTML, byte by
// byte. It knows the members of an event by heart (see event), which costs a
// fraction of asking for them by reflection: every request is encoded.
type encoder struct {
	kept  groups // of the event; a beginning with them is not in to
	to    []byte
	clean [2]int   // from where to where, in brackets, it was found to hold no token before
	keys  []string // of the maps that are being written, the innermost last
	err   error    // the first value that JSON cannot say
}

const (
	keptBuffer = 64 << 10 // what the rare longer line needed is given back
	deepClaims = 32       // how far claims are followed here; encoding/json notices cycles
)

var encoders = sync.Pool{New: func() any { return &encoder{to: make([]byte, 0, 4<<10)} }}

func newEncoder() *encoder {
	e := encoders.Get().(*encoder)
	e.kept, e.to, e.clean, e.keys, e.err = groups{}, e.to[:0], [2]int{}, e.keys[:0], nil
	return e
}

// free ends the use of the encoder, and of what it wrote.
func (e *encoder) free() {
	if cap(e.to) <= keptBuffer {
		encoders.Put(e)
	}
}

// add writes a text as it is. Unlike append it never stores the pointer to the
// buffer again, which costs more than the copy while garbage is collected.
func (e *encoder) add(text string) {
	n := len(e.to)
	if cap(e.to)-n < len(text) {
		e.to = slices.Grow(e.to, len(text))
	}
	e.to = e.to[:n+len(text)]
	copy(e.to[n:], text)
}

// open and shut write the braces of an object.
func (e *encoder) open() { e.to = append(e.to, '{') }
func (e *encoder) shut() { e.to = append(e.to, '}') }

// key begins a member. Its name is one that needs no escapes.
func (e *encoder) key(name string) {
	e.next()
	e.to = append(e.to, '"')
	e.add(name)
	e.to = append(e.to, '"', ':')
}

// next parts a member or an element from the one before. No value ends with a
// bracket that opens.
func (e *encoder) next() {
	if last := e.to[len(e.to)-1]; last != '{' && last != '[' {
		e.to = append(e.to, ',')
	}
}

// text writes a member, whatever it holds.
func (e *encoder) text(name, value string) {
	e.key(name)
	e.quoted(value)
}

// The functions with "some" leave a member out that is empty.

func (e *encoder) someText(name, value string) {
	if value != "" {
		e.text(name, value)
	}
}

func (e *encoder) someTexts(name string, list []string) {
	if len(list) == 0 {
		return
	}
	e.key(name)
	e.texts(list)
}

func (e *encoder) texts(list []string) {
	e.to = append(e.to, '[')
	for _, value := range list {
		e.next()
		e.quoted(value)
	}
	e.to = append(e.to, ']')
}

// encodedTexts returns a list as it is written, or "" if that looks as if it had a
// token in it.
func encodedTexts(list []string) string {
	e := newEncoder()
	defer e.free()
	e.texts(list)
	if !bytes.Equal(access.HideTokensIn(e.to), e.to) {
		return ""
	}
	return string(e.to)
}

// hidden returns what was written, without what looks like a token. No token goes
// on across a bracket, so what is clean need not be looked at again.
func (e *encoder) hidden() []byte {
	before, after := e.to[:e.clean[0]], e.to[e.clean[1]:]
	if bytes.Equal(access.HideTokensIn(before), before) && bytes.Equal(access.HideTokensIn(after), after) {
		return e.to
	}
	return access.HideTokensIn(e.to)
}

func (e *encoder) someTruth(name string, value bool) {
	if value {
		e.key(name)
		e.add("true")
	}
}

func (e *encoder) someNumber(name string, value int64) {
	if value != 0 {
		e.key(name)
		e.to = strconv.AppendInt(e.to, value, 10)
	}
}

func (e *encoder) time(name string, value time.Time) {
	e.key(name)
	e.to = append(e.to, '"')
	to, err := appendTime(e.to, value)
	if err != nil {
		e.fail(fmt.Errorf("%s: %w", name, err))
		to = e.to
	}
	e.to = append(to, '"')
}

func (e *encoder) someTime(name string, value time.Time) {
	if !value.IsZero() {
		e.time(name, value)
	}
}

func (e *encoder) someAddr(name string, value netip.Addr) {
	switch {
	case value == netip.Addr{}:
	case value.Zone() != "": // which may be any text
		e.text(name, value.String())
	default:
		e.key(name)
		e.to = append(e.to, '"')
		e.to = value.AppendTo(e.to)
		e.to = append(e.to, '"')
	}
}

// someClaims writes what a provider said.
func (e *encoder) someClaims(name string, claims map[string]any) {
	if len(claims) > 0 {
		e.key(name)
		e.object(claims, 0)
	}
}

func (e *encoder) object(members map[string]any, depth int) {
	e.open()
	first := len(e.keys)
	for key := range members {
		e.keys = append(e.keys, key)
	}
	slices.Sort(e.keys[first:])
	for i := first; i < first+len(members); i++ {
		e.next()
		e.quoted(e.keys[i])
		e.to = append(e.to, ':')
		e.value(members[e.keys[i]], depth+1)
	}
	clear(e.keys[first:])
	e.keys = e.keys[:first]
	e.shut()
}

// value writes what encoding/json makes of JSON. Anything else is its own to write.
func (e *encoder) value(value any, depth int) {
	switch v := value.(type) {
	case nil:
		e.add("null")
		return
	case string:
		e.quoted(v)
		return
	case bool:
		e.to = strconv.AppendBool(e.to, v)
		return
	case float64:
		if abs := math.Abs(v); abs == 0 || abs >= 1e-6 && abs < 1e21 { // others have an exponent
			e.to = strconv.AppendFloat(e.to, v, 'f', -1, 64)
			return
		}
	case []any:
		if v != nil && depth < deepClaims {
			e.to = append(e.to, '[')
			for _, element := range v {
				e.next()
				e.value(element, depth+1)
			}
			e.to = append(e.to, ']')
			return
		}
	case map[string]any:
		if v != nil && depth < deepClaims {
			e.object(v, depth)
			return
		}
	}
	e.reflected(value)
}

// reflected has encoding/json write a value.
func (e *encoder) reflected(value any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // "&" in a query should be found by grep
	if err := enc.Encode(value); err != nil {
		e.fail(err)
		return
	}
	e.to = append(e.to, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// quoted writes a string (RFC 8259 §7). What is no UTF-8 becomes U+FFFD, and the
// line separators of JavaScript are escaped.
func (e *encoder) quoted(s string) {
	e.to = append(e.to, '"')
	if plain(s) {
		e.add(s)
	} else {
		e.escaped(s)
	}
	e.to = append(e.to, '"')
}

func (e *encoder) escaped(s string) {
	done := 0
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		if r >= ' ' && r != '"' && r != '\\' && r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		e.add(s[done:i])
		switch r {
		case '"', '\\':
			e.to = append(e.to, '\\', s[i])
		case '\b':
			e.add(`\b`)
		case '\f':
			e.add(`\f`)
		case '\n':
			e.add(`\n`)
		case '\r':
			e.add(`\r`)
		case '\t':
			e.add(`\t`)
		default:
			const digits = "0123456789abcdef"
			e.to = append(e.to, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
		}
		i += size
		done = i
	}
	e.add(s[done:])
}

// plain reports whether a string is ASCII without anything to escape. It looks at
// eight bytes at a time.
func plain(s string) bool {
	if len(s) < 8 {
		for i := range len(s) {
			if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
				return false
			}
		}
		return true
	}
	odd := oddIn(s[len(s)-8:])
	for ; len(s) > 8; s = s[8:] {
		odd |= oddIn(s)
	}
	return odd == 0
}

// oddIn looks at the first eight bytes of s. It returns 0 if all are plain.
func oddIn(s string) uint64 {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	_ = s[7]
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	// Taking away its limit sets the top bit of a byte that is below it. A borrow
	// can set that of the byte above as well, but only then.
	return (w | (w - ' '*ones) | ((w ^ '"'*ones) - ones) | ((w ^ '\\'*ones) - ones)) & tops
}
