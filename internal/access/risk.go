package access

import "fmt"

// Risk is how endangered a device is in the judgement of its inventory. Its
// zero value is RiskUnknown, which passes no check.
type Risk uint8

// The levels, from the best to the worst.
const (
	RiskUnknown Risk = iota
	RiskNone
	RiskLow
	RiskMedium
	RiskHigh
)

var riskNames = [...]string{"unknown", "none", "low", "medium", "high"}

// Low returns whether the risk is none or low, unknown where it is unknown.
func (r Risk) Low() Tri {
	switch r {
	case RiskNone, RiskLow:
		return Yes
	case RiskMedium, RiskHigh:
		return No
	default:
		return Unknown
	}
}

// String returns "unknown", "none", "low", "medium" or "high".
func (r Risk) String() string {
	if int(r) < len(riskNames) {
		return riskNames[r]
	}
	return riskNames[RiskUnknown]
}

// MarshalText implements encoding.TextMarshaler.
func (r Risk) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText accepts the words of String and, for unknown, the empty string.
// Any other word is an error, so that a misspelt inventory value is noticed.
func (r *Risk) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = RiskUnknown
		return nil
	}
	for n, name := range riskNames {
		if name == string(text) {
			*r = Risk(n)
			return nil
		}
	}
	return fmt.Errorf("%q is neither none, low, medium, high nor unknown", text)
}
