package access

import "fmt"

// Tri is a fact that may be unknown. Its zero value is Unknown, and no check
// that asks for Yes is ever satisfied by Unknown.
type Tri uint8

// The three values of a fact. The order is part of no contract; compare with ==.
const (
	Unknown Tri = iota
	No
	Yes
)

// TriOf turns a known boolean into a fact.
func TriOf(b bool) Tri {
	if b {
		return Yes
	}
	return No
}

// String returns "unknown", "no" or "yes".
func (t Tri) String() string {
	switch t {
	case No:
		return "no"
	case Yes:
		return "yes"
	default:
		return "unknown"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (t Tri) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts yes/true, no/false and unknown or the empty string.
// Any other word is an error, so that a misspelt inventory value is noticed.
func (t *Tri) UnmarshalText(text []byte) error {
	switch string(text) {
	case "yes", "true":
		*t = Yes
	case "no", "false":
		*t = No
	case "unknown", "":
		*t = Unknown
	default:
		return fmt.Errorf("%q is neither yes, no nor unknown", text)
	}
	return nil
}
