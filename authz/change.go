package authz

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// A Step is part of a change that would allow a request: one condition that has
// to answer differently, or one thing that is missing.
type Step struct {
	// For is the rule, or the device profile, that the step is for.
	For string `json:"for,omitempty"`
	// Condition is the key of a rule's condition, the reason of what is missing,
	// or one of LogIn, NewToken and Facts.
	Condition string `json:"condition"`
	// Become is what the condition has to become: Miss for one of a deny rule.
	Become Result `json:"become"`
	// Want and Got are as in the tree.
	Want string `json:"want,omitempty"`
	Got  string `json:"got,omitempty"`
	// Example is a value with which the whole change was tried.
	Example string `json:"example,omitempty"`
}

// Conditions of changes that no rule names.
const (
	// LogIn asks for a login, or for a machine's credential.
	LogIn = "login"
	// NewToken asks for an access token that is accepted.
	NewToken = "credential"
	// Facts asks for facts that could not be gathered.
	Facts = "fault"
)

// String writes the step for people.
func (c Step) String() string {
	switch c.Condition {
	case LogIn:
		text := "log in"
		if c.Want != "" {
			text += " " + c.Want
		}
		return text
	case NewToken:
		return "send another access token: " + c.Got
	case Facts:
		return "try again once the facts can be gathered: " + c.Got
	}
	text := c.Condition + " " + wantGot(c.Want, c.Got)
	switch {
	case c.Become == Miss:
		text = "so that " + c.For + " misses: " + c.Condition + " " + wantGot("anything but "+c.Want, c.Got)
	case c.For != "":
		text = "for " + c.For + ": " + text
	}
	if c.Become == Miss && c.Example != "" {
		text += ", for example " + c.Example
	}
	return text
}

// Bounds of the search for a change. A change of more steps is no advice, and
// one that is not found by then would be found by nobody.
const (
	maxSteps  = 10
	maxStates = 5_000
)

// search looks for the fewest changes of a request after which a route allows
// it. It changes a copy of the request for real and asks the compiled conditions
// again, so that a change that one rule wants and another refuses is never
// proposed. Only expressions are changed by assuming their value.
type search struct {
	policy *Policy
	rt     *route
	from   *access.Request
	// free lets it change what is asked for, method and path, which is another
	// request rather than a change of this one.
	free   bool
	states int
	// cut tells that the depth has kept it from looking further.
	cut   bool
	times []time.Time // see moments
}

// state is the request after some steps.
type state struct {
	req     access.Request
	assumed map[string]bool // values of expressions by their source
	cured   []access.Need   // needs that are taken for cured, for want of a fact to change
	moves   []move
}

// move is a step with what it does to a state.
type move struct {
	Step
	// set changes a fact. Nil: one of the others is set.
	set    func(*access.Request)
	assume *expects
	cure   *access.Need
}

// next is a state one step further. What it shares with the one before is
// replaced and never changed.
func (s *state) next(m move) state {
	n := *s
	n.moves = append(slices.Clip(s.moves), m)
	switch {
	case m.set != nil:
		m.set(&n.req)
	case m.assume != nil:
		if n.assumed = maps.Clone(s.assumed); n.assumed == nil {
			n.assumed = map[string]bool{}
		}
		n.assumed[m.assume.source] = m.assume.want == (m.Become == Hit)
	case m.cure != nil:
		n.cured = append(slices.Clip(s.cured), *m.cure)
	}
	return n
}

// smallestChange returns the fewest steps after which the request is allowed,
// nil where there are none. Whether it looked everywhere is told by complete.
// Steps that keep method and path come first, however many they are: what else
// the visitor could have asked for is of interest only where no rule would ever
// let this request pass.
func (p *Policy) smallestChange(rt *route, req *access.Request) (steps []Step, complete bool) {
	complete = true
	for _, free := range []bool{false, true} {
		s := &search{policy: p, rt: rt, from: req, free: free}
		for depth := 1; depth <= maxSteps; depth++ {
			s.cut = false
			for _, way := range s.ways() {
				if found := s.try(way, &state{req: *req}, depth); found != nil {
					return s.needed(found.moves), true
				}
			}
			if s.states > maxStates || s.cut && depth == maxSteps {
				complete = false
				break
			}
			if !s.cut {
				break // whatever there is was looked at
			}
		}
	}
	return nil, complete
}

// needed leaves out steps that a later one made superfluous, and returns the
// others: a fact that an expression looks at may be changed for another reason.
func (s *search) needed(moves []move) (steps []Step) {
	for i := 0; i < len(moves); {
		fewer := slices.Concat(moves[:i], moves[i+1:])
		at := state{req: *s.from}
		for _, m := range fewer {
			at = at.next(m)
		}
		free := slices.ContainsFunc(s.ways(), func(way *rule) bool {
			_, stands := s.obstacle(way, &at)
			return !stands
		})
		if !free || moves[i].Condition == LogIn {
			i++ // whoever is known by what rules name still has to log in
		} else {
			moves, i = fewer, 0
		}
	}
	for _, m := range moves {
		steps = append(steps, m.Step)
	}
	return steps
}

// ways are the rules that could let a request pass.
func (s *search) ways() (list []*rule) {
	for _, rules := range [][]rule{s.rt.public, s.rt.allow} {
		for i := range rules {
			list = append(list, &rules[i])
		}
	}
	return list
}

// try follows one way to the end with at most depth more steps. It repairs the
// first thing that stands in the way, in every manner there is.
func (s *search) try(way *rule, at *state, depth int) *state {
	if s.states++; s.states > maxStates {
		return nil
	}
	repairs, stands := s.obstacle(way, at)
	if !stands {
		return at
	}
	if depth == 0 {
		s.cut = s.cut || len(repairs) > 0
		return nil
	}
	for i := range repairs {
		if found := s.try(way, &repairs[i], depth-1); found != nil {
			return found
		}
	}
	return nil
}

// obstacle finds the first thing that stands in the way, and every repair of it.
func (s *search) obstacle(way *rule, at *state) (repairs []state, stands bool) {
	req := &at.req
	if req.Fault != "" {
		return []state{at.next(move{Step{Condition: Facts, Become: Hit, Got: string(req.Fault)}, func(r *access.Request) { r.Fault = "" }, nil, nil})}, true
	}
	if req.Credential.Problem == "" && slices.ContainsFunc(s.rt.preflight, func(r rule) bool { return s.test(&r, at) == access.Yes }) {
		return nil, false
	}
	// What is asked for comes first: it decides what a login has to satisfy.
	for _, c := range way.conditions {
		if aboutTheRequest(c) && s.answer(c, at) != access.Yes {
			return s.flip(way, c, at, access.Yes), true
		}
	}
	public := slices.ContainsFunc(s.rt.public, func(r rule) bool { return r.name == way.name })
	if !public && (req.Credential.Problem != "" || !s.policy.knows(&req.Identity)) {
		return s.logins(at), true
	}
	for _, c := range way.conditions {
		if s.answer(c, at) == access.Yes {
			continue
		}
		stands = true
		repairs = append(repairs, s.flip(way, c, at, access.Yes)...)
		if !aboutWhom(c) {
			return s.flip(way, c, at, access.Yes), true
		}
	}
	if public || stands {
		return repairs, stands
	}
	for i := range s.rt.deny {
		if r := &s.rt.deny[i]; s.test(r, at) != access.No {
			for _, c := range r.conditions {
				repairs = append(repairs, s.flip(r, c, at, access.No)...)
			}
			return repairs, true
		}
	}
	for _, need := range s.rt.missing(req, nil) {
		if !slices.ContainsFunc(at.cured, func(c access.Need) bool {
			return c.Reason == need.Reason && c.Profile == need.Profile && c.Want == need.Want
		}) {
			return s.cure(need, at), true
		}
	}
	return nil, false
}

// aboutTheRequest tells conditions that do not look at who somebody is.
func aboutTheRequest(c condition) bool {
	switch c.(type) {
	case methods, paths, networks, *schedule:
		return true
	}
	return false
}

// aboutWhom tells conditions that look at who somebody is: another person may
// meet several of them at once, so that it matters which is repaired first.
func aboutWhom(c condition) bool {
	switch c.(type) {
	case people, providers, clients, membership:
		return true
	}
	return false
}

func (s *search) answer(c condition, at *state) access.Tri {
	if e, ok := c.(expects); ok {
		if value, ok := at.assumed[e.source]; ok {
			return access.TriOf(value == e.want)
		}
	}
	return c.test(&at.req)
}

// test is rule.test with assumptions.
func (s *search) test(r *rule, at *state) access.Tri {
	result := access.Yes
	for _, c := range r.conditions {
		switch s.answer(c, at) {
		case access.No:
			return access.No
		case access.Unknown:
			result = access.Unknown
		}
	}
	return result
}

// logins are the ways to be somebody: as a person or, where a rule names
// machines, as one.
func (s *search) logins(at *state) (list []state) {
	step := Step{Condition: LogIn, Become: Hit, Want: strings.TrimSpace(demandText(s.rt.loginDemand(&at.req))), Got: "nobody"}
	if problem := at.req.Credential.Problem; problem != "" {
		step = Step{Condition: NewToken, Become: Hit, Got: string(problem)}
	}
	for _, kind := range []access.Kind{access.Person, access.Service} {
		for _, provider := range slices.Sorted(maps.Keys(s.policy.providers)) {
			step.Example = provider
			if kind == access.Service {
				step.Example += " (a machine)"
			}
			list = append(list, at.next(move{Step: step, set: func(r *access.Request) {
				r.Credential.Problem = ""
				if !s.policy.knows(&r.Identity) {
					r.Identity = access.Identity{Provider: provider, Issuer: "https://" + provider, Subject: "somebody"}
				}
				r.Identity.Kind = kind
				if kind == access.Person { // one login for all that is demanded of one
					r.Identity.Login.Time = r.Time
					satisfy(&r.Identity.Login, s.rt.loginDemand(r), r.Time)
					for i := range s.rt.demands {
						if d := &s.rt.demands[i]; d.applies(r) {
							satisfy(&r.Identity.Login, d.login, r.Time)
						}
					}
				}
			}}))
		}
	}
	return list
}
