package history

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

// place names an entry of a route's list of rules, or the route itself.
type place struct {
	route int
	list  string // allow, deny, public; empty: the route
	index int
}

func (p place) String() string {
	if p.list == "" {
		return fmt.Sprintf("routes[%d]", p.route)
	}
	return fmt.Sprintf("routes[%d].%s[%d]", p.route, p.list, p.index)
}

// change is all that happens to one entry.
type change struct {
	remove bool
	// without lists groups and users that go.
	without, withoutUsers []string
	// named takes the place of any_user.
	named          []string
	methods, paths []string // nil: as they are
	// readers are groups that get a rule of their own, called readName, with
	// readMethods.
	readers     []string
	readName    string
	readMethods []string
	enforce     bool // mode: report goes
}

// join adds what another proposal does to the same entry.
func (c *change) join(more change) {
	c.remove = c.remove || more.remove
	c.without = append(c.without, more.without...)
	c.withoutUsers = append(c.withoutUsers, more.withoutUsers...)
	c.named = append(c.named, more.named...)
	c.enforce = c.enforce || more.enforce
	if more.methods != nil {
		c.methods = more.methods
	}
	if more.paths != nil {
		c.paths = more.paths
	}
	if more.readName != "" {
		c.readers, c.readName, c.readMethods = more.readers, more.readName, more.readMethods
	}
}

// plan is the changes of all proposals that are carried out.
type plan map[place]*change

func planOf(proposals []Proposal) plan {
	all := plan{}
	for i := range proposals {
		if p := &proposals[i]; p.Held == "" {
			if all[p.at] == nil {
				all[p.at] = &change{}
			}
			all[p.at].join(p.change)
		}
	}
	return all
}

// edits says it for the text.
func (p plan) edits(cfg *config.Config) (list []config.EntryEdit) {
	for _, at := range slices.SortedFunc(maps.Keys(p), func(a, b place) int { return strings.Compare(a.String(), b.String()) }) {
		c := p[at]
		edit := config.EntryEdit{Path: at.String(), Remove: c.remove}
		if at.list == "allow" && !c.remove {
			rule := &cfg.Routes[at.route].Allow[at.index]
			edit.Keys = c.keys(rule, slices.Concat(c.without, c.readers), c.methods)
			if c.readName != "" {
				others := slices.DeleteFunc(slices.Clone(rule.Groups), func(g string) bool { return slices.Contains(c.readers, g) })
				edit.Copies = [][]config.KeyEdit{append([]config.KeyEdit{{Key: "name", Value: word(c.readName)}}, c.keys(rule, others, c.readMethods)...)}
			}
		}
		if c.enforce {
			edit.Keys = append(edit.Keys, config.KeyEdit{Key: "mode"})
		}
		list = append(list, edit)
	}
	return list
}

func (c *change) keys(rule *access.Rule, without, methods []string) (keys []config.KeyEdit) {
	if drop := indexes(rule.Groups, without); len(drop) > 0 {
		keys = append(keys, config.KeyEdit{Key: "groups", Drop: drop})
	}
	if drop := indexes(rule.Users, c.withoutUsers); len(drop) > 0 {
		keys = append(keys, config.KeyEdit{Key: "users", Drop: drop})
	}
	if len(c.named) > 0 {
		keys = append(keys, config.KeyEdit{Key: "groups", Value: flow(c.named, word), Instead: "any_user"})
	}
	if methods != nil {
		keys = append(keys, config.KeyEdit{Key: "methods", Value: flow(methods, word)})
	}
	if c.paths != nil {
		keys = append(keys, config.KeyEdit{Key: "paths", Value: flow(c.paths, strconv.Quote)})
	}
	return keys
}

func indexes(list, of []string) (at []int) {
	for i, name := range list {
		if slices.Contains(of, name) {
			at = append(at, i)
		}
	}
	return at
}

func flow(list []string, write func(string) string) string {
	written := make([]string, len(list))
	for i, s := range list {
		written[i] = write(s)
	}
	return "[" + strings.Join(written, ", ") + "]"
}

// plainWord is what YAML takes for text without quotes, whatever its version.
var plainWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

func word(s string) string {
	if plainWord.MatchString(s) && !slices.Contains([]string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	return strconv.Quote(s)
}

// routes says it for the data.
func (p plan) routes(before []access.Route) []access.Route {
	var after []access.Route
	for i := range before {
		if c := p[place{route: i}]; c != nil && c.remove {
			continue
		}
		rt := before[i]
		rt.Allow = p.rules(i, "allow", rt.Allow)
		rt.Deny = p.rules(i, "deny", rt.Deny)
		rt.Public = p.public(i, rt.Public)
		after = append(after, rt)
	}
	return after
}

func (p plan) public(route int, before []access.Public) (after []access.Public) {
	for i := range before {
		if c := p[place{route, "public", i}]; c == nil || !c.remove {
			after = append(after, before[i])
		}
	}
	return after
}

func (p plan) rules(route int, list string, before []access.Rule) (after []access.Rule) {
	for i := range before {
		c := p[place{route, list, i}]
		switch {
		case c == nil:
			after = append(after, before[i])
		case !c.remove:
			after = append(after, c.rule(before[i], slices.Concat(c.without, c.readers), c.methods))
			if c.readName != "" {
				others := slices.DeleteFunc(slices.Clone(before[i].Groups), func(g string) bool { return slices.Contains(c.readers, g) })
				read := c.rule(before[i], others, c.readMethods)
				read.Name = c.readName
				after = append(after, read)
			}
		}
	}
	return after
}

func (c *change) rule(r access.Rule, without, methods []string) access.Rule {
	r.Groups = except(r.Groups, without)
	r.Users = except(r.Users, c.withoutUsers)
	if len(c.named) > 0 {
		r.AnyUser, r.Groups = false, c.named
	}
	if methods != nil {
		r.Methods = methods
	}
	if c.paths != nil {
		r.Paths = c.paths
	}
	if c.enforce {
		r.Mode = access.Enforce
	}
	return r
}

func except(list, gone []string) []string {
	if len(gone) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(gone, s) })
}
