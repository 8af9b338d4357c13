package jose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxDepth bounds nesting. Real tokens have three or four levels.
const maxDepth = 32

// Object is a JSON Object that says one thing only: no member occurs twice at
// any level, and names are compared byte by byte. encoding/json would take "AUD"
// for "aud" and the last of two equal names, so that whoever controls one claim
// of a token could replace another.
//
// Numbers stay json.Number until a claim is read as one.
type Object map[string]any

// ParseObject reads exactly one JSON object.
func ParseObject(data []byte) (Object, error) {
	value, err := ParseValue(data)
	if err != nil {
		return nil, err
	}
	members, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	return members, nil
}

// ParseValue reads exactly one JSON value, as strictly.
func ParseValue(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	value, err := parseValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("data after the JSON value")
	}
	return value, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return nil, noEOF(err)
	}
	switch token {
	case json.Delim('{'):
		members := map[string]any{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, noEOF(err)
			}
			name := key.(string) // the decoder accepts nothing else here
			if _, twice := members[name]; twice {
				return nil, fmt.Errorf("member %.40q occurs twice", name)
			}
			if members[name], err = parseValue(dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err := dec.Token()
		return members, noEOF(err)
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			value, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := dec.Token()
		return list, noEOF(err)
	}
	return token, nil
}

// noEOF keeps a truncated document from looking like the end of a complete one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Text returns a string member, "" if it is absent.
func (o Object) Text(name string) (string, error) {
	switch value := o[name].(type) {
	case nil:
		if _, present := o[name]; !present {
			return "", nil
		}
	case string:
		return value, nil
	}
	return "", fmt.Errorf("%s is not a string", name)
}

// Flag returns a boolean member, false if it is absent.
func (o Object) Flag(name string) (bool, error) {
	value, present := o[name]
	if !present {
		return false, nil
	}
	b, ok := value.(bool)
	if !ok {
		return false, fmt.Errorf("%s is not true or false", name)
	}
	return b, nil
}

// Texts returns a member that is a list of strings, nil if it is absent.
func (o Object) Texts(name string) ([]string, error) {
	value, present := o[name]
	if !present {
		return nil, nil
	}
	return stringList(name, value)
}

// TextOrTexts is Texts for members that may also be a single string, such as aud.
func (o Object) TextOrTexts(name string) ([]string, error) {
	if s, ok := o[name].(string); ok {
		return []string{s}, nil
	}
	return o.Texts(name)
}

func stringList(name string, value any) ([]string, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%s is not a list", name)
	}
	texts := make([]string, len(list))
	for i, member := range list {
		if texts[i], ok = member.(string); !ok {
			return nil, fmt.Errorf("%s holds something other than strings", name)
		}
	}
	return texts, nil
}

// latest is the end of the year 9999, after which time stops being printable.
const latest = 253402300799

// Time returns a NumericDate member (RFC 7519 §2), and whether it is present. A
// number in a string is no number.
func (o Object) Time(name string) (time.Time, bool, error) {
	value, present := o[name]
	if !present {
		return time.Time{}, false, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, false, fmt.Errorf("%s is not a number", name)
	}
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > latest {
		return time.Time{}, false, fmt.Errorf("%s is not a point in time", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)).UTC(), true, nil
}

// Plain turns the numbers within a value into what encoding/json would make of
// them, so that a claim is the same before and after the audit log. An integer
// that float64 cannot hold exactly becomes its digits: two employee numbers must
// not become one.
func Plain(value any) any {
	switch v := value.(type) {
	case json.Number:
		f, err := v.Float64()
		if _, intErr := strconv.ParseInt(v.String(), 10, 64); err != nil || intErr == nil && math.Abs(f) >= 1<<53 || math.Abs(f) > math.MaxInt64 {
			return v.String()
		}
		return f
	case []any:
		for i := range v {
			v[i] = Plain(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = Plain(v[name])
		}
	}
	return value
}
