package authz

import (
	"github.com/doorward/doorward/internal/access"
)

// A Tree tells how a decision came about: every rule of the route with every
// condition, also those the decision did not depend on.
type Tree struct {
	Request  TreeRequest     `json:"request"`
	Decision access.Decision `json:"decision"`
	// Rules are all rules of the route: public, deny, allow.
	Rules []TreeRule `json:"rules,omitempty"`
	// Tier is how far the device is trusted. Nil: there are no tiers.
	Tier *TreeTier `json:"tier,omitempty"`
	// Requires are all demands of the route.
	Requires []TreeRequire `json:"requires,omitempty"`
	// Change is the smallest change that would allow the request, one step each.
	Change []Step `json:"change,omitempty"`
	// NoChange says why Change is empty although the request is not allowed.
	NoChange string `json:"no_change,omitempty"`
}

// TreeRequest names what was decided on.
type TreeRequest struct {
	Method string `json:"method,omitempty"`
	URL    string `json:"url"`
	Route  string `json:"route,omitempty"`
	User   string `json:"user"`
}

// Result is the answer of a rule or a condition.
type Result string

// The answers. For a deny rule, Hit and Unknown refuse.
const (
	Hit     Result = "hit"
	Miss    Result = "miss"
	Unknown Result = "unknown"
	// Idle marks a demand that does not concern the request.
	Idle Result = "does not apply"
)

// TreeRule is one rule and its answer.
type TreeRule struct {
	// Rule is kind and name: "deny/no-deletes".
	Rule   string `json:"rule"`
	Result Result `json:"result"`
	// Report is set for rules that only report.
	Report     bool            `json:"report,omitempty"`
	Conditions []TreeCondition `json:"conditions"`
}

// TreeCondition is one condition and its answer.
type TreeCondition struct {
	Condition string `json:"condition"`
	Result    Result `json:"result"`
	Want      string `json:"want,omitempty"`
	Got       string `json:"got,omitempty"`
}

// TreeRequire is one `require` of the configuration and what it misses.
type TreeRequire struct {
	// Require is its path: "routes[0].rules[1].require".
	Require string          `json:"require"`
	Result  Result          `json:"result"`
	Device  string          `json:"device,omitempty"`
	Missing []TreeCondition `json:"missing,omitempty"`
}

// TreeTier is the trust tier of the device, and what keeps it from a higher one.
type TreeTier struct {
	// Tier is empty for a device in no tier.
	Tier string `json:"tier"`
	// Session is how old a login may be there. Empty: there is no limit.
	Session string `json:"session,omitempty"`
	// Higher are the tiers above, the next one first.
	Higher []TreeStep `json:"higher,omitempty"`
}

// TreeStep is a tier the device is not in, with what it lacks.
type TreeStep struct {
	Tier    string          `json:"tier"`
	Missing []TreeCondition `json:"missing"`
}

// Explain decides exactly as Decide does, by the same walk, and tells why.
func (p *Policy) Explain(req *access.Request) (access.Decision, *Tree) {
	rec := &recorder{rules: map[*rule]TreeRule{}, conditions: map[*rule][]TreeCondition{}}
	d := p.walk(req, rec)
	tree := &Tree{Decision: d}
	if p == nil || req == nil {
		return d, tree
	}
	tree.Request = TreeRequest{Method: req.Method, URL: req.Origin() + req.Path, Route: req.Route, User: userName(&req.Identity)}
	rt := p.routes[req.Route]
	if rt == nil {
		tree.NoChange = "no route publishes this address"
		return d, tree
	}
	rec.complete(rt, req)
	for _, r := range rt.all() {
		tree.Rules = append(tree.Rules, rec.rules[r])
	}
	tree.Tier = p.ladder.explain(req)
	tree.Requires = rec.demands
	if d.Outcome != access.Allow {
		var complete bool
		tree.Change, complete = p.smallestChange(rt, req)
		switch {
		case tree.Change != nil:
		case complete:
			tree.NoChange = "no change of the request would do: the policy itself refuses"
		default:
			tree.NoChange = "none was found among the first thousands of combinations"
		}
	}
	return d, tree
}

// recorder notes what a walk sees. All its methods accept a nil recorder, which
// notes nothing and costs nothing.
type recorder struct {
	rules      map[*rule]TreeRule
	conditions map[*rule][]TreeCondition
	demands    []TreeRequire
	required   bool // step 6 has been reached
}

func (rec *recorder) condition(r *rule, c condition, answer access.Tri, req *access.Request) {
	if rec == nil {
		return
	}
	if _, unwritten := c.(onlyPeople); unwritten && answer == access.Yes {
		return // worth a line only where it keeps a machine out
	}
	want, got := c.describe(req)
	rec.conditions[r] = append(rec.conditions[r], TreeCondition{Condition: c.key(), Result: resultOf(answer), Want: want, Got: got})
}

func (rec *recorder) rule(r *rule, answer access.Tri) {
	if rec == nil {
		return
	}
	rec.rules[r] = TreeRule{Rule: r.name, Result: resultOf(answer), Conditions: rec.conditions[r]}
}

func (rec *recorder) demand(d *demand, applies bool, req *access.Request) {
	if rec == nil {
		return
	}
	line := TreeRequire{Require: d.path, Result: Idle}
	if d.device != nil {
		line.Device = d.device.name
	}
	if applies {
		var needs []access.Need
		if d.device != nil {
			needs = d.device.missing(req, nil)
		}
		var gap loginGap
		gap.check(&d.login, &req.Identity.Login, req.Time)
		line.Result = Hit
		line.Missing = conditionsOf(append(needs, gap.needs(d.login, req)...))
		if len(line.Missing) > 0 {
			line.Result = Miss
		}
	}
	rec.demands = append(rec.demands, line)
}

func conditionsOf(needs []access.Need) (list []TreeCondition) {
	for _, need := range needs {
		list = append(list, TreeCondition{Condition: string(need.Reason), Result: Miss, Want: need.Want, Got: need.Got})
	}
	return list
}

// explain tells the tier of a request's device and why it is in no higher one.
func (l ladder) explain(req *access.Request) *TreeTier {
	if len(l) == 0 {
		return nil
	}
	at := l.of(&req.Device, req.Time)
	t := &TreeTier{Tier: l.nameOf(&req.Device, req.Time)}
	if limit := l.session(req); limit != nil {
		t.Session = span(limit.session)
	}
	for i := at + 1; i < len(l); i++ {
		t.Higher = append(t.Higher, TreeStep{Tier: l[i].name, Missing: conditionsOf(l[i].missing(req, nil))})
	}
	return t
}

func (rec *recorder) demanded() {
	if rec != nil {
		rec.required = true
	}
}

// complete takes the steps that the walk had no reason to take.
func (rec *recorder) complete(rt *route, req *access.Request) {
	for _, r := range rt.all() {
		if _, seen := rec.rules[r]; !seen {
			r.test(req, rec)
		}
	}
	if !rec.required {
		rt.missing(req, rec)
	}
	for _, reported := range [][]rule{rt.reportedDeny, rt.reportedAllow} {
		for i := range reported {
			line := rec.rules[&reported[i]]
			line.Report = true
			rec.rules[&reported[i]] = line
		}
	}
}

// all lists the rules of the route, enforced ones first within a kind.
func (rt *route) all() (list []*rule) {
	for _, rules := range [][]rule{rt.public, rt.preflight, rt.deny, rt.reportedDeny, rt.allow, rt.reportedAllow} {
		for i := range rules {
			list = append(list, &rules[i])
		}
	}
	return list
}

func resultOf(answer access.Tri) Result {
	switch answer {
	case access.Yes:
		return Hit
	case access.No:
		return Miss
	default:
		return Unknown
	}
}
