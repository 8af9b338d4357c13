package authz

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// who words whom a rule is about.
func who(r *access.Rule) string {
	var parts []string
	say := func(before string, list []string) {
		if len(list) > 0 {
			parts = append(parts, before+anyOf(list))
		}
	}
	if r.AnyUser {
		parts = append(parts, "everybody who is logged in")
	}
	say("members of ", r.Groups)
	say("", r.Users)
	say("service accounts ", r.ServiceAccounts)
	say("workloads ", r.SPIFFE)
	say("clients ", r.ClientIDs)
	say("tokens with scope ", r.Scopes)
	say("those that log in with ", r.Providers)
	for _, name := range keys(r.Claims) {
		say("those with "+name+" ", r.Claims[name])
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, " who are also ")
}

// what words which requests a rule is about.
func what(r *access.Rule) string {
	text := "every method"
	if len(r.Methods) > 0 {
		text = anyOf(r.Methods)
	}
	if len(r.Paths) > 0 {
		text += " of " + anyOf(r.Paths)
	} else {
		text += " of every path"
	}
	if len(r.Networks) > 0 {
		text += " from " + anyOf(r.Networks)
	}
	if !r.Time.IsZero() {
		text += " at " + timeText(r.Time)
	}
	if r.When != "" {
		text += " when " + r.When
	}
	if r.Unless != "" {
		text += " unless " + r.Unless
	}
	return text
}

func timeText(t access.TimeWindow) string {
	return strings.Join(strings.Fields(t.Days+" "+t.Hours+" "+t.Zone), " ")
}

// ruleDetails tells key by key how a rule was rewritten.
func ruleDetails(was, is *access.Rule) (lines []string) {
	if was == nil || is == nil {
		return nil
	}
	if was.AnyUser != is.AnyUser {
		lines = append(lines, fmt.Sprintf("any_user: %v, before %v", is.AnyUser, was.AnyUser))
	}
	for _, key := range []struct {
		name   string
		before []string
		after  []string
	}{
		{"groups", was.Groups, is.Groups}, {"users", was.Users, is.Users}, {"providers", was.Providers, is.Providers},
		{"service_accounts", was.ServiceAccounts, is.ServiceAccounts}, {"spiffe", was.SPIFFE, is.SPIFFE},
		{"client_ids", was.ClientIDs, is.ClientIDs}, {"scopes", was.Scopes, is.Scopes},
		{"methods", was.Methods, is.Methods}, {"paths", was.Paths, is.Paths}, {"networks", was.Networks, is.Networks},
	} {
		lines = append(lines, listed(key.name, key.before, key.after)...)
	}
	for _, name := range union(was.Claims, is.Claims) {
		lines = append(lines, listed("claims."+name, was.Claims[name], is.Claims[name])...)
	}
	for _, key := range []struct{ name, before, after string }{
		{"time", timeText(was.Time), timeText(is.Time)}, {"when", was.When, is.When}, {"unless", was.Unless, is.Unless},
		{"message", was.Message, is.Message},
	} {
		if key.before != key.after {
			lines = append(lines, fmt.Sprintf("%s: %s, before %s", key.name, orNone(key.after), orNone(key.before)))
		}
	}
	return lines
}

// listed tells how a list changed: "methods: + POST, - PUT".
func listed(name string, was, is []string) []string {
	var parts []string
	for _, v := range is {
		if !slices.Contains(was, v) {
			parts = append(parts, "+ "+v)
		}
	}
	for _, v := range was {
		if !slices.Contains(is, v) {
			parts = append(parts, "- "+v)
		}
	}
	switch {
	case len(parts) == 0:
		return nil
	case len(was) == 0:
		return []string{name + ": limited to " + anyOf(is)}
	case len(is) == 0:
		return []string{name + ": not limited any more, before " + anyOf(was)}
	}
	return []string{name + ": " + strings.Join(parts, ", ")}
}

// names compares what rules refer to: providers, groups, profiles and tiers.
// What they do to a route is told with the route.
func (d *differ) names() {
	before, after := d.before.Input, d.after.Input
	for _, id := range after.Providers {
		if !slices.Contains(before.Providers, id) {
			d.add("providers/"+id, Loosens, nil, "the provider is new: rules for everybody admit its people, too")
		}
	}
	for _, id := range before.Providers {
		if !slices.Contains(after.Providers, id) {
			d.add("providers/"+id, Tightens, nil, "the provider is gone: nobody it vouched for gets in any more")
		}
	}
	for _, name := range union(before.Groups, after.Groups) {
		d.group(name)
	}
	for _, name := range union(d.before.Policy.profiles, d.after.Policy.profiles) {
		was, is := d.before.Policy.profiles[name], d.after.Policy.profiles[name]
		at := "profiles/" + name
		switch {
		case was == nil:
			d.add(at, Nothing, nil, "the device profile is new")
		case is == nil:
			d.add(at, Nothing, nil, "the device profile is gone")
		case was.implies(is) && is.implies(was):
		case is.implies(was):
			d.add(at, Nothing, nil, "the device profile asks for more; the routes that require it are named")
		case was.implies(is):
			d.add(at, Nothing, nil, "the device profile asks for less; the routes that require it are named")
		default:
			d.add(at, Nothing, nil, "the device profile asks for something else; the routes that require it are named")
		}
	}
	if !sameSessions(d.before.Policy.ladder, d.after.Policy.ladder) {
		d.add("tiers", Unclear, nil, "logins last differently long on devices of the trust tiers")
	}
}

// sameSessions reports whether two ladders limit sessions alike.
func sameSessions(a, b ladder) bool {
	unlimited := func(l ladder) bool { return !slices.ContainsFunc(l, func(t tier) bool { return t.session > 0 }) }
	return unlimited(a) && unlimited(b) || slices.EqualFunc(a, b, func(x, y tier) bool {
		return x.session == y.session && x.implies(y.profile) && y.implies(x.profile)
	})
}

// group compares who is in a group.
func (d *differ) group(name string) {
	was, had := d.before.Input.Groups[name]
	is, has := d.after.Input.Groups[name]
	at := "groups/" + name
	details := slices.Concat(listed("claim_groups", was.ClaimGroups, is.ClaimGroups), listed("users", was.Users, is.Users))
	if was.Provider != is.Provider && had && has {
		details = append(details, fmt.Sprintf("provider: %s, before %s", orNone(is.Provider), orNone(was.Provider)))
	}
	switch {
	case !had:
		d.add(at, Nothing, nil, "the group is new")
	case !has:
		d.add(at, Nothing, nil, "the group is gone")
	case len(details) > 0:
		d.add(at, Nothing, details, "other people are in the group; the rules that use it are named")
	}
}

// Summary joins the effects of changes by route. Changes that concern every
// route stand under the empty name.
func Summary(changes []Change) map[string]Effect {
	all := map[string]Effect{}
	for _, c := range changes {
		at, _, _ := strings.Cut(c.At, "/")
		if slices.Contains([]string{"providers", "groups", "profiles", "tiers"}, at) {
			at = ""
		}
		all[at] = all[at].And(c.Effect)
	}
	maps.DeleteFunc(all, func(_ string, e Effect) bool { return e == Nothing })
	return all
}
