package access

import (
	"fmt"
	"slices"
	"time"
)

// Outcome is the verdict on a request. The zero value denies.
type Outcome uint8

// The three outcomes. A challenge is a refusal the visitor can cure.
const (
	Deny Outcome = iota
	Challenge
	Allow
)

// String returns "deny", "challenge" or "allow".
func (o Outcome) String() string {
	switch o {
	case Challenge:
		return "challenge"
	case Allow:
		return "allow"
	default:
		return "deny"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Outcome) UnmarshalText(text []byte) error {
	switch string(text) {
	case "deny":
		*o = Deny
	case "challenge":
		*o = Challenge
	case "allow":
		*o = Allow
	default:
		return fmt.Errorf("%q is no outcome", text)
	}
	return nil
}

// Decision is the verdict with everything a visitor or an operator needs to
// understand it. The zero value is a deny without a reason.
type Decision struct {
	Outcome Outcome `json:"outcome"`
	Reason  Reason  `json:"reason,omitempty"`
	// Policy is the version of the policy that decided.
	Policy string `json:"policy,omitempty"`
	// Rule is the rule that decided: "allow/engineers-read", "public/health".
	Rule string `json:"rule,omitempty"`
	// Tier is the trust tier the device was in. Empty: in none, or there are none.
	Tier string `json:"tier,omitempty"`
	// Message is the deny rule's own text for the visitor.
	Message string `json:"message,omitempty"`
	// Needs lists everything that is missing, for a challenge.
	Needs []Need `json:"needs,omitempty"`
	// Nearest is the allow rule that came closest, for a deny.
	Nearest *NearMiss `json:"nearest,omitempty"`
	// Shadow lists what report-only rules would have changed.
	Shadow []Shadow `json:"shadow,omitempty"`
}

// PreflightRule is the name that decisions give to a route's `preflight`.
const PreflightRule = "preflight"

// Need is one thing the visitor lacks.
type Need struct {
	Reason Reason `json:"reason"`
	// Profile is the device profile or the trust tier that asks for it.
	Profile string `json:"profile,omitempty"`
	// Login is the demand a new login has to meet.
	Login LoginRequire `json:"login,omitzero"`
	// Want and Got are short values such as "15.5" and "14.2".
	Want string `json:"want,omitempty"`
	Got  string `json:"got,omitempty"`
	// Fix is a page that helps.
	Fix string `json:"fix,omitempty"`
	// Source is the inventory that said so, Since when it last heard of the
	// device, and Read when it was last read.
	Source string    `json:"source,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	Read   time.Time `json:"read,omitzero"`
	// Began is since when it is missing, where that is known.
	Began time.Time `json:"began,omitzero"`
	// Details are the inventory's own words.
	Details []string `json:"details,omitempty"`
}

// NearMiss names the allow rule with the fewest unmet conditions.
type NearMiss struct {
	Rule    string `json:"rule"`
	Missing []Miss `json:"missing"`
}

// Miss is one unmet condition of a rule.
type Miss struct {
	Condition string `json:"condition"` // "groups", "methods", "when" …
	Want      string `json:"want,omitempty"`
	Got       string `json:"got,omitempty"`
	// Unknown tells that the fact was missing rather than different.
	Unknown bool `json:"unknown,omitempty"`
}

// Shadow is what a report-only rule would have changed.
type Shadow struct {
	Rule    string  `json:"rule"`
	Outcome Outcome `json:"outcome"`
	Reason  Reason  `json:"reason,omitempty"`
}

// Differs reports whether two verdicts on one request mean something else to
// the visitor: another outcome, another reason, or other things that are
// missing. Which of several rules allowed is no difference.
func (d *Decision) Differs(other *Decision) bool {
	return d.Outcome != other.Outcome || d.Reason != other.Reason ||
		!slices.EqualFunc(d.Needs, other.Needs, func(a, b Need) bool { return a.Reason == b.Reason })
}

// LoginOnly reports whether a new login is all that is missing, and merges what
// it has to satisfy.
func (d *Decision) LoginOnly() (LoginRequire, bool) {
	var ask LoginRequire
	if d.Outcome != Challenge || len(d.Needs) == 0 {
		return ask, false
	}
	for i := range d.Needs {
		need := &d.Needs[i]
		if !need.Reason.CuredByLogin() {
			return LoginRequire{}, false
		}
		ask = ask.And(need.Login)
	}
	return ask, true
}
