package access

import (
	"slices"
	"strings"
	"time"
)

// loginSlack is how far the clock of a provider may be ahead of ours.
const loginSlack = time.Minute

// phishingResistant is the level that LoginRequire.PhishingResistant asks for.
const phishingResistant = "phr"

// levelNames are the levels of assurance by strength, weakest first. Names of
// one strength mean the same: `aal1` is any login, `aal2` or `mfa` several
// factors, `phr` phishing resistant, `phrh` with a key in hardware besides
// (OpenID EAP ACR Values 1.0; NIST SP 800-63B). Each includes those before it.
var levelNames = [][]string{{"aal1"}, {"aal2", "mfa"}, {phishingResistant}, {"phrh"}}

// strength returns how strong a level is, from 1. 0 is no level.
func strength(name string) int {
	for i, names := range levelNames {
		if slices.Contains(names, name) {
			return i + 1
		}
	}
	return 0
}

// IsLevel reports whether a name is one of the levels of assurance.
func IsLevel(name string) bool { return strength(name) > 0 }

// IsAuthContext reports whether a name is the id of an authentication context of
// Entra, c1 to c99.
func IsAuthContext(name string) bool {
	digits, ok := strings.CutPrefix(name, "c")
	return ok && (len(digits) == 1 || len(digits) == 2) && digits[0] != '0' && strings.Trim(digits, "0123456789") == ""
}

// LevelNames returns the names of the levels of assurance, weakest first.
func LevelNames() []string { return slices.Concat(levelNames...) }

// LevelsUpTo returns a level with all it includes, sorted; nil for no level.
func LevelsUpTo(name string) []string {
	levels := slices.Concat(levelNames[:strength(name)]...)
	slices.Sort(levels)
	return levels
}

// LevelsFrom returns a level with all that include it, weakest first, or the
// name alone where it is no level but a provider's own class.
func LevelsFrom(name string) []string {
	n := strength(name)
	if n == 0 {
		return []string{name}
	}
	names := slices.Concat(levelNames[n-1:]...)
	// The name as it was asked for stands before its synonym.
	return slices.Concat([]string{name}, slices.DeleteFunc(names, func(v string) bool { return v == name }))
}

// Reaches reports whether the login is of a class: a level of assurance, or a
// class of the provider's own, byte by byte.
//
// Where authn has translated the provider's statements, only its table says
// which level was reached. Elsewhere (facts written by hand, sessions of an
// older version) the class itself counts if it is the name of a level.
func (l *Login) Reaches(class string) bool {
	want := strength(class)
	switch {
	case want == 0:
		return class != "" && (class == l.ACR || slices.Contains(l.Levels, class))
	case len(l.Levels) > 0:
		return slices.Contains(l.Levels, class)
	}
	return strength(l.ACR) >= want
}

// Missing returns which parts of a demand the login does not meet, as reasons
// that a new login cures, in the order a visitor is told; nil if it meets all.
// It is the one judge of logins: whoever asks a provider for a login and
// whoever decides on it afterwards must agree, or visitors would go round for
// ever.
func (l *Login) Missing(ask *LoginRequire, now time.Time) (missing []Reason) {
	if len(ask.ACR) > 0 && !slices.ContainsFunc(ask.ACR, l.Reaches) {
		missing = append(missing, ACRInsufficient)
	}
	if ask.PhishingResistant && !l.Reaches(phishingResistant) {
		missing = append(missing, PhishingResistantNeeded)
	}
	if len(ask.AMR) > 0 && !slices.ContainsFunc(ask.AMR, func(m string) bool { return slices.Contains(l.AMR, m) }) {
		missing = append(missing, AMRInsufficient)
	}
	if ask.MaxAge > 0 && !l.freshEnough(ask.MaxAge.Std(), now) {
		missing = append(missing, LoginTooOld)
	}
	return missing
}

// freshEnough fails for a login whose time is not known or lies in the future.
func (l *Login) freshEnough(maxAge time.Duration, now time.Time) bool {
	return !l.Time.IsZero() && now.Sub(l.Time) <= maxAge && l.Time.Sub(now) <= loginSlack
}

// Satisfies reports whether the login is what was asked for.
func (l *Login) Satisfies(ask *LoginRequire, now time.Time) bool {
	return len(l.Missing(ask, now)) == 0
}

// Classes returns the authentication context classes to ask a provider for, the
// best liked first. It spells out PhishingResistant, which replaces weaker levels.
func (r *LoginRequire) Classes() []string {
	if !r.PhishingResistant {
		return r.ACR
	}
	strong := LevelsFrom(phishingResistant)
	kept := slices.DeleteFunc(slices.Clone(r.ACR), func(class string) bool {
		return IsLevel(class) && !slices.Contains(strong, class)
	})
	if len(kept) == 0 {
		return strong
	}
	return kept
}

// And returns the demand to meet both. Where two lists share no value, that of
// more is asked for, and the decision after the login judges.
func (r LoginRequire) And(more LoginRequire) LoginRequire {
	both := LoginRequire{
		ACR: narrow(r.ACR, more.ACR), AMR: narrow(r.AMR, more.AMR), MaxAge: r.MaxAge,
		PhishingResistant: r.PhishingResistant || more.PhishingResistant,
	}
	if len(r.ACR) > 0 && len(more.ACR) > 0 && !slices.Equal(r.ACR, more.ACR) {
		both.ACR = weakest(narrow(withStronger(r.ACR), withStronger(more.ACR)))
	}
	if more.MaxAge > 0 && (r.MaxAge == 0 || more.MaxAge < r.MaxAge) {
		both.MaxAge = more.MaxAge
	}
	return both
}

// Compatible reports whether one login can meet both lists of classes: a login
// has one class of its own and one level.
func Compatible(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	b = withStronger(b)
	return slices.ContainsFunc(withStronger(a), func(v string) bool { return slices.Contains(b, v) })
}

// withStronger spells out what a list of classes also accepts.
func withStronger(acr []string) (all []string) {
	for _, class := range acr {
		for _, name := range LevelsFrom(class) {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// weakest leaves out levels that another one of the list accepts anyway.
func weakest(classes []string) []string {
	var kept []string
	for i, class := range classes {
		implied := slices.ContainsFunc(classes, func(other string) bool {
			return IsLevel(other) && strength(other) < strength(class)
		}) || slices.ContainsFunc(classes[:i], func(other string) bool {
			return IsLevel(other) && strength(other) == strength(class)
		})
		if !implied {
			kept = append(kept, class)
		}
	}
	return kept
}

// narrow keeps of a what b has too. Where they share nothing it is b.
func narrow(a, b []string) []string {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	both := slices.DeleteFunc(slices.Clone(a), func(v string) bool { return !slices.Contains(b, v) })
	if len(both) == 0 {
		return b
	}
	return both
}
