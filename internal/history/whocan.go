package history

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/proxy"
)

// Access tells who of those who were seen could open an address.
type Access struct {
	Method string   `json:"method"`
	URL    string   `json:"url"`
	Route  string   `json:"route"`
	Log    Contents `json:"log"`
	// Anybody is the rule by which everybody gets in, without a login.
	Anybody string `json:"anybody_by,omitempty"`
	// Can could open it. Nearly lack something that can be cured, or that is
	// different at another time or place. Unknown are people whose record does not
	// tell enough. Refused have no rule for them.
	Can     []Visitor `json:"can"`
	Nearly  []Visitor `json:"nearly"`
	Unknown []Visitor `json:"unknown,omitempty"`
	Refused []Visitor `json:"refused"`
	// More tells that more people were seen than are kept in mind.
	More bool `json:"more,omitempty"`
}

// Visitor is a person or a machine on one device.
type Visitor struct {
	User   string    `json:"user"`
	Email  string    `json:"email,omitempty"`
	Device string    `json:"device,omitempty"`
	Seen   time.Time `json:"seen"`
	// Rule is the one that lets them in.
	Rule string `json:"rule,omitempty"`
	// Session is the newest session of theirs, where the running doorward was asked.
	Session string `json:"session,omitempty"`
	// Missing is the smallest change that would let them in, one step each.
	Missing []string `json:"missing,omitempty"`
}

// WhoCan asks a configuration about everybody who was seen: could they open this
// address, if they came at that moment as they came last? Logins and facts about
// devices are taken to be as old as they were then.
func WhoCan(ctx context.Context, files *audit.Files, cfg *config.Config, method string, target *url.URL, at time.Time, filter Filter) (*Access, error) {
	ask, err := proxy.Imagine(cfg.Table, method, target)
	if err != nil {
		return nil, err
	}
	ask.Time = at
	all, log, err := sightings(ctx, files, filter)
	if err != nil {
		return nil, err
	}
	a := &Access{Method: method, URL: ask.Origin() + ask.Path, Route: ask.Route, Log: log, More: len(all) >= maxSeen,
		Can: []Visitor{}, Nearly: []Visitor{}, Refused: []Visitor{}}
	if d := cfg.Policy.Decide(ask); d.Outcome == access.Allow {
		a.Anybody = d.Rule
	}
	for _, key := range all.keys() {
		a.judge(cfg, ask, all[key])
	}
	return a, nil
}

// sightings finds the latest record of everybody on each device.
func sightings(ctx context.Context, files *audit.Files, filter Filter) (seen, Contents, error) {
	type part struct {
		seen seen
		log  Contents
	}
	all := part{seen: seen{}}
	err := scan(ctx, files, func(batch audit.Batch) part {
		p := part{seen: seen{}}
		p.log = each(batch, &filter, func(r *Record) {
			if r.Obscure != "" || r.Request.Identity.Nobody() {
				return
			}
			p.seen.keep(r.Request.Identity.User()+"\n"+r.Request.Device.ID, r)
		})
		return p
	}, func(p part) {
		all.seen.add(p.seen)
		all.log.add(&p.log)
	})
	return all.seen, all.log, err
}

func (a *Access) judge(cfg *config.Config, ask *access.Request, last *Record) {
	req := asLast(ask, last.Request)
	v := Visitor{User: req.Identity.User(), Email: req.Identity.Email, Device: cmp.Or(req.Device.Name, req.Device.ID), Seen: last.Time}
	decision, tree := cfg.Policy.Explain(req)
	v.Rule = decision.Rule
	for _, step := range tree.Change {
		v.Missing = append(v.Missing, step.String())
	}
	near := circumstances(tree)
	switch {
	case cfg.Policy.Depends(req, last.Gaps):
		v.Missing = []string{lacking(last.Gaps)}
		a.Unknown = append(a.Unknown, v)
	case decision.Outcome == access.Allow:
		a.Can = append(a.Can, v)
	case decision.Reason == access.NotAllowed && near != nil:
		v.Missing = near
		a.Nearly = append(a.Nearly, v)
	case decision.Outcome == access.Challenge, decision.Reason == access.GroupsUnknown, decision.Reason == access.DeniedByRule && allowed(tree):
		a.Nearly = append(a.Nearly, v)
	default:
		a.Refused = append(a.Refused, v)
	}
}

// asLast is a request as somebody would make it who comes as they came last.
func asLast(ask, last *access.Request) *access.Request {
	req := *ask
	req.Identity, req.Device, req.Session, req.Network = last.Identity, last.Device, last.Session, last.Network
	req.Time = last.Time
	req.MoveTo(ask.Time)
	return &req
}

// circumstances says what is missing where nothing but the time, the place or the
// request itself keeps somebody out of an allow rule; nil where no rule is for
// them.
func circumstances(tree *authz.Tree) (missing []string) {
	for _, rule := range tree.Rules {
		if !strings.HasPrefix(rule.Rule, "allow/") || rule.Report {
			continue
		}
		var steps []string
		theirs := true
		for _, c := range rule.Conditions {
			if c.Result == authz.Hit {
				continue
			}
			theirs = theirs && slices.Contains([]string{"methods", "paths", "networks", "time", "when", "unless"}, c.Condition)
			steps = append(steps, fmt.Sprintf("%s: %s wants %s, got %s", rule.Rule, c.Condition, c.Want, c.Got))
		}
		if theirs && (missing == nil || len(steps) < len(missing)) {
			missing = steps
		}
	}
	return missing
}

// allowed reports whether an allow rule hits, whatever else does.
func allowed(tree *authz.Tree) bool {
	return slices.ContainsFunc(tree.Rules, func(r authz.TreeRule) bool {
		return strings.HasPrefix(r.Rule, "allow/") && !r.Report && r.Result == authz.Hit
	})
}

// LoggedIn notes who of them is logged in. A session does not tell groups, so
// that of people who are not in the log nothing is known.
func (a *Access) LoggedIn(sessions []access.SessionInfo) {
	newest := map[string]*access.SessionInfo{}
	for i := range sessions {
		one := &sessions[i]
		if have := newest[one.User]; have == nil || one.Used.After(have.Used) {
			newest[one.User] = one
		}
	}
	for _, list := range [][]Visitor{a.Can, a.Nearly, a.Unknown, a.Refused} {
		for i := range list {
			if one := newest[list[i].User]; one != nil {
				list[i].Session = one.ID
			}
		}
	}
	for _, list := range [][]Visitor{a.Can, a.Nearly, a.Unknown, a.Refused} {
		for _, v := range list {
			delete(newest, v.User)
		}
	}
	for _, user := range slices.Sorted(maps.Keys(newest)) {
		one := newest[user]
		a.Unknown = append(a.Unknown, Visitor{User: user, Email: one.Email, Seen: one.Used, Session: one.ID, Missing: []string{"logged in, but not in the log"}})
	}
}

// WriteText writes the answer for people.
func (a *Access) WriteText(w io.Writer) error {
	b := new(bytes.Buffer)
	fmt.Fprintf(b, "%s %s  (%s)\n", a.Method, a.URL, cmp.Or(prefixed("route ", a.Route), "no route"))
	all := len(a.Can) + len(a.Nearly) + len(a.Unknown) + len(a.Refused)
	more := ""
	if a.More {
		more = ", and there are more"
	}
	fmt.Fprintf(b, "%d of %d who were seen%s could open it, if they came as they came last%s\n", len(a.Can), all, span(&a.Log), more)
	if a.Anybody != "" {
		fmt.Fprintf(b, "\nanybody can, without a login, by %s\n", a.Anybody)
	}
	byRule := slices.Clone(a.Can)
	slices.SortStableFunc(byRule, func(x, y Visitor) int { return strings.Compare(x.Rule, y.Rule) })
	rule := ""
	for _, v := range byRule {
		if v.Rule != rule {
			rule = v.Rule
			fmt.Fprintf(b, "\ncan, by %s\n", rule)
		}
		fmt.Fprintf(b, "  %s\n", v.text())
	}
	for _, group := range []struct {
		head string
		list []Visitor
	}{{"nearly", a.Nearly}, {"not known", a.Unknown}} {
		if len(group.list) > 0 {
			fmt.Fprintf(b, "\n%s\n", group.head)
		}
		for _, v := range group.list {
			fmt.Fprintf(b, "  %s\n", v.text())
			for _, step := range v.Missing {
				fmt.Fprintf(b, "      %s\n", step)
			}
		}
	}
	if len(a.Refused) > 0 {
		var names []string
		for _, v := range a.Refused {
			names = append(names, v.User)
		}
		fmt.Fprintf(b, "\nno rule for them: %s\n", shorten(slices.Compact(names), false))
	}
	a.Log.writeText(b)
	return writePlain(w, b)
}

func (v *Visitor) text() string {
	text := v.User
	if v.Email != "" {
		text += " (" + v.Email + ")"
	}
	if v.Device != "" {
		text += " on " + v.Device
	}
	if v.Session != "" {
		text += ", logged in now"
	}
	return text + ", seen " + v.Seen.UTC().Format("2006-01-02 15:04")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
