package config

import (
	"fmt"
	"strings"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/internal/access"
)

// Rehearsal is what came of a test.
type Rehearsal struct {
	Test     *Test
	Request  *access.Request
	Decision access.Decision
	Tree     *authz.Tree
	// Wrong lists what is not as expected, one sentence each. Empty: it passed.
	Wrong []string
}

// Rehearse decides on the request of a test, which AllTests returned, exactly as
// a live one would be decided on, and compares.
func (c *Config) Rehearse(t *Test) *Rehearsal {
	r := &Rehearsal{Test: t}
	req, err := c.request(t)
	r.Request = req
	if reason, refused := refusal(err); refused {
		r.Decision, r.Tree = access.Decision{Reason: reason, Policy: c.Policy.Version()}, new(authz.Tree)
	} else if err != nil {
		r.Wrong = []string{"cannot be decided: " + err.Error()}
		return r
	} else {
		r.Decision, r.Tree = c.Policy.Explain(req)
	}
	r.compare()
	return r
}

func (r *Rehearsal) wrong(format string, args ...any) {
	r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
}

// compare lists what differs from what the test expects.
func (r *Rehearsal) compare() {
	t, d := r.Test, &r.Decision
	if !r.expected() {
		r.wrong("wanted %s, got %s", t.Expect, outcomeText(d))
	}
	if t.Rule != "" && !namesRule(t.Rule, d.Rule) {
		r.wrong("wanted rule %s to decide, got %s", t.Rule, orNone(d.Rule))
	}
	if t.Reason != "" && t.Reason != string(d.Reason) {
		r.wrong("wanted reason %s, got %s", t.Reason, d.Reason)
	}
	if t.Message != "" && t.Message != d.Message {
		r.wrong("wanted message %q, got %q", t.Message, d.Message)
	}
	if t.Missing != "" && !r.misses(t.Missing) {
		r.wrong("wanted %s to be missing, got %s", t.Missing, r.whatIsMissing())
	}
}

// expected compares the outcome. A visitor who is refused for the device is
// challenged in principle, since the device can be cured, and refused in fact,
// since no login helps: where the test names the device, both words are right.
func (r *Rehearsal) expected() bool {
	t, d := r.Test, &r.Decision
	if string(t.Expect) == d.Outcome.String() {
		return true
	}
	aboutDevice, _, _ := strings.Cut(t.Missing, ".")
	_, loginHelps := d.LoginOnly()
	return t.Expect == ExpectDeny && aboutDevice == "device" && d.Outcome == access.Challenge && !loginHelps
}

// misses reports whether what a word stands for is missing.
func (r *Rehearsal) misses(word string) bool {
	kind, what, narrower := strings.Cut(word, ".")
	for i := range r.Decision.Needs {
		need := &r.Decision.Needs[i]
		switch {
		case kind == "device" && need.Reason.AboutDevice():
			if !narrower || need.Profile == what || need.Want == what {
				return true
			}
		case kind == "login" && need.Reason.CuredByLogin():
			if !narrower || loginWords[word] == need.Reason {
				return true
			}
		}
	}
	if kind == "device" && narrower {
		// What two profiles ask for is said once, in the name of one of them.
		for i := range r.Tree.Requires {
			if line := &r.Tree.Requires[i]; r.Decision.Outcome == access.Challenge && line.Device == what && missesDevice(line) {
				return true
			}
		}
	}
	if nearest := r.Decision.Nearest; nearest != nil {
		for _, miss := range nearest.Missing {
			if miss.Condition == word {
				return true
			}
		}
	}
	return false
}

func missesDevice(line *authz.TreeRequire) bool {
	for _, c := range line.Missing {
		if access.Reason(c.Condition).AboutDevice() {
			return true
		}
	}
	return false
}

// whatIsMissing words what stands in the way of a request.
func (r *Rehearsal) whatIsMissing() string {
	var list []string
	for i := range r.Decision.Needs {
		need := &r.Decision.Needs[i]
		text := string(need.Reason)
		if need.Profile != "" {
			text += " (device." + need.Profile + ")"
		}
		list = append(list, text)
	}
	if nearest := r.Decision.Nearest; nearest != nil {
		for _, miss := range nearest.Missing {
			list = append(list, miss.Condition+" of "+nearest.Rule)
		}
	}
	return orNone(strings.Join(list, ", "))
}

// outcomeText words a decision: "allow by allow/staff", "deny (not_allowed)".
func outcomeText(d *access.Decision) string {
	if d.Rule != "" {
		return d.Outcome.String() + " by " + d.Rule
	}
	return d.Outcome.String() + " (" + string(d.Reason) + ")"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
