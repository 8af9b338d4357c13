package authn

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// Assurance says what a provider's statements about a login are worth, in
// levels that a route can name. The file gives the name of a table that
// Doorward knows, or a table of its own; what no table lists is worth `aal1`.
type Assurance struct {
	// Like names the table to start from: `entra`, `okta`, `keycloak` or
	// `google`. Default: a class that is itself the name of a level counts as
	// that level. `assurance: entra` is short for `{like: entra}`.
	Like string `yaml:"like"`
	// ACR maps values of the claim `acr` to levels: `{gold: phr}`.
	ACR map[string]string `yaml:"acr"`
	// AMR maps values of the claim `amr` to levels, such as `{hwk: phr}` for a
	// provider that says `hwk` only of security keys.
	AMR map[string]string `yaml:"amr"`
	// ACRS maps authentication contexts of Entra (`c1` to `c99`) to the levels
	// that their conditional access policies enforce: `{c1: phr}`. Routes may
	// name a context itself without this.
	ACRS map[string]string `yaml:"acrs"`
}

// UnmarshalText reads the short form.
func (a *Assurance) UnmarshalText(text []byte) error {
	*a = Assurance{Like: string(text)}
	if _, known := vendorTables()[a.Like]; !known || a.Like == "" {
		return fmt.Errorf("%.40q is no table of assurance: choose %s, or write {acr: {gold: phr}}", text, strings.Join(vendors(), ", "))
	}
	return nil
}

// Validate reports every mistake.
func (a *Assurance) Validate(f access.Faults) {
	if _, known := vendorTables()[a.Like]; !known {
		f.At("like").Add("choose "+strings.Join(vendors(), ", "), "%.40q is no table of assurance", a.Like)
	}
	for claim, table := range map[string]map[string]string{"acr": a.ACR, "amr": a.AMR, "acrs": a.ACRS} {
		for _, value := range slices.Sorted(maps.Keys(table)) {
			if !access.IsLevel(table[value]) {
				f.At("%s.%s", claim, value).Add("choose from "+strings.Join(access.LevelNames(), ", "), "%.40q is no level", table[value])
			}
			if claim == "acrs" && !access.IsAuthContext(value) {
				f.At("acrs.%s", value).Add("write c1 to c99", "%.40q is no authentication context", value)
			}
		}
	}
}

// levelTable is what the values of three claims are worth.
type levelTable struct {
	acr, amr, acrs map[string]string
	// contexts tells that the provider states authentication contexts and
	// understands the claims parameter that asks for them (Entra).
	contexts bool
}

// vendorTables are the tables Doorward knows. None of them concludes phishing
// resistance from several factors, a one-time code or a text message: only a
// statement that means nothing else counts.
func vendorTables() map[string]levelTable {
	// The classes of OpenID EAP and the names of our own levels, for providers
	// whose administrator chooses the classes.
	named := map[string]string{}
	for _, name := range access.LevelNames() {
		named[name] = name
	}
	okta := map[string]string{
		"urn:okta:loa:1fa:any": "aal1",
		"urn:okta:loa:1fa:pwd": "aal1",
		"urn:okta:loa:2fa:any": "mfa", // "2fa:any:ifpossible" promises nothing
		"phr":                  "phr",
		"phrh":                 "phrh",
	}
	keycloak := maps.Clone(named)
	maps.Copy(keycloak, map[string]string{"1": "aal1", "2": "mfa"}) // the levels of its step-up guide; "0" is a remembered session
	return map[string]levelTable{
		"": {acr: named},
		// Entra states amr in tokens of version 1.0 and where it is configured.
		// "wiaormfa" may be either, "rsa" and "otp" are one factor.
		"entra":    {amr: map[string]string{"mfa": "mfa", "ngcmfa": "mfa"}, contexts: true},
		"okta":     {acr: okta, amr: map[string]string{"mfa": "mfa"}},
		"keycloak": {acr: keycloak},
		// Google says nothing about how somebody logged in.
		"google": {},
	}
}

func vendors() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(vendorTables())), func(name string) bool { return name == "" })
}

// table joins the vendor's table with the operator's, which wins.
func (a *Assurance) table() levelTable {
	t := vendorTables()[a.Like]
	t.acr, t.amr, t.acrs = joined(t.acr, a.ACR), joined(t.amr, a.AMR), joined(t.acrs, a.ACRS)
	t.contexts = t.contexts || len(a.ACRS) > 0
	return t
}

func joined(base, over map[string]string) map[string]string {
	all := maps.Clone(base)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, over)
	return all
}

// levels returns all that the claims of a verified token are worth. A claim of
// the wrong type is worth nothing.
func (t *levelTable) levels(claims jose.Object) []string {
	acr, _ := claims.Text("acr")
	amr, _ := claims.TextOrTexts("amr")
	contexts, _ := claims.TextOrTexts("acrs")
	return t.worth(acr, amr, contexts)
}

// worth returns all that statements about a login are worth, sorted: levels of
// assurance, and authentication contexts by their own names.
func (t *levelTable) worth(acr string, amr, contexts []string) []string {
	reached := access.LevelsUpTo("aal1") // the person did log in
	add := func(table map[string]string, values ...string) {
		for _, value := range values {
			reached = append(reached, access.LevelsUpTo(table[value])...)
		}
	}
	add(t.acr, acr)
	add(t.amr, amr...)
	if t.contexts {
		add(t.acrs, contexts...)
		reached = append(reached, slices.DeleteFunc(slices.Clone(contexts), func(c string) bool { return !access.IsAuthContext(c) })...)
	}
	slices.Sort(reached)
	return slices.Compact(reached)
}

// Levels returns what a login with these statements is worth, for logins that
// are only imagined: the values of the claims acr, amr and acrs.
func (a *Assurance) Levels(acr string, amr, acrs []string) []string {
	table := a.table()
	return table.worth(acr, amr, acrs)
}

// request returns how to ask the provider for one of some classes: by its own
// acr values, or by authentication contexts. The best liked come first.
func (t *levelTable) request(classes []string) (acr, contexts []string) {
	for _, class := range classes {
		switch {
		case t.contexts && access.IsAuthContext(class):
			contexts = append(contexts, class)
		case !access.IsLevel(class):
			acr = append(acr, class)
		default:
			for _, level := range access.LevelsFrom(class) {
				acr = append(acr, valuesOf(t.acr, level, class)...)
				contexts = append(contexts, valuesOf(t.acrs, level, level)...)
			}
		}
	}
	return unique(acr), unique(contexts)
}

// valuesOf returns the values that a table gives a level, the one of the same
// name first. Levels that only repeat a name of ours are asked for by name.
func valuesOf(table map[string]string, level, named string) (values []string) {
	for _, value := range slices.Sorted(maps.Keys(table)) {
		if table[value] == level && (!access.IsLevel(value) || value == named) {
			values = append(values, value)
		}
	}
	return values
}

func unique(list []string) []string {
	var once []string
	for _, v := range list {
		if !slices.Contains(once, v) {
			once = append(once, v)
		}
	}
	return once
}

// Reaches reports whether a login can ever be of a class: a level that a
// statement of the provider is worth, or a class of its own, of which nothing is
// known here.
func (a *Assurance) Reaches(class string) bool {
	t := a.table()
	if !access.IsLevel(class) {
		return true
	}
	for _, values := range []map[string]string{{"": "aal1"}, t.acr, t.amr, t.acrs} {
		for _, level := range values {
			if slices.Contains(access.LevelsUpTo(level), class) {
				return true
			}
		}
	}
	return false
}
