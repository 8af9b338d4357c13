package admin

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// The tally counts in slots of ten seconds, for an hour.
const (
	slotLength = 10 * time.Second
	slotCount  = 360
	// nowSlots are those that "now" is the mean of, without the one that is not
	// over.
	nowSlots = 3
)

// Tally counts the decisions of the last hour for the overview, and, since the
// configuration was loaded, what rules that only report and a candidate would
// have decided otherwise. It holds a bounded amount whatever happens.
//
// What is allowed is counted without a lock: every request of every core comes by
// here.
type Tally struct {
	now   func() time.Time
	slots [slotCount]atomic.Pointer[slot]

	mu     sync.Mutex // protects what follows, and the refusals of slots
	since  time.Time
	shadow map[shadowKey]*ShadowCount
	// more counts what had no place in shadow.
	more int
}

// slot is what happened in one span of slotLength; at says in which since the
// epoch.
type slot struct {
	at         int64
	outcomes   [access.Allow + 1]atomic.Int64
	whole, own stopwatch
	refusals   map[access.Reason]int
}

type shadowKey struct {
	route, rule   string
	is, would     access.Outcome
	reason, wants access.Reason
}

// ShadowCount is how often something that is not enforced would have changed a
// verdict, in the same way.
type ShadowCount struct {
	Route string
	// Rule is the rule that only reports; empty for the candidate configuration.
	Rule string
	// Is and Would are the verdicts, with and without it.
	Is, Would access.Outcome
	// Reason and WouldReason say why.
	Reason, WouldReason access.Reason
	Count               int
	// Last is when it happened last, ID the request.
	Last time.Time
	ID   string
}

// maxShadow bounds the different things that are counted.
const maxShadow = 1000

// NewTally returns an empty tally. The clock may be nil: time.Now.
func NewTally(now func() time.Time) *Tally {
	if now == nil {
		now = time.Now
	}
	return &Tally{now: now, since: now(), shadow: map[shadowKey]*ShadowCount{}}
}

// Restart forgets what would have been decided otherwise: another configuration
// is in force, or another candidate.
func (t *Tally) Restart() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since, t.more = t.now(), 0
	clear(t.shadow)
}

// Event counts an event, if it is a decision.
func (t *Tally) Event(e *access.Event) {
	if e.Kind != access.EventDecision || e.Decision == nil || e.Request == nil {
		return
	}
	d, now := e.Decision, t.now()
	s := t.slot(now)
	s.outcomes[min(d.Outcome, access.Allow)].Add(1)
	if e.Request.Door != access.Tunnel && e.Response.Status != 101 { // those last as long as somebody wants
		s.whole.add(e.Response.Duration)
	}
	s.own.add(e.Response.Decide)
	refused := d.Outcome != access.Allow || e.Response.Reason != ""
	if !refused && len(d.Shadow) == 0 && e.Candidate == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if refused {
		s.refuse(cmp.Or(e.Response.Reason, d.Reason))
	}
	for i := range d.Shadow {
		would := &d.Shadow[i]
		t.differs(now, e.Request, shadowKey{e.Request.Route, would.Rule, d.Outcome, would.Outcome, d.Reason, would.Reason})
	}
	if c := e.Candidate; c != nil {
		t.differs(now, e.Request, shadowKey{e.Request.Route, "", d.Outcome, c.Decision.Outcome, d.Reason, c.Decision.Reason})
	}
}

func (t *Tally) differs(now time.Time, req *access.Request, key shadowKey) {
	c := t.shadow[key]
	if c == nil {
		if len(t.shadow) >= maxShadow {
			t.more++
			return
		}
		c = &ShadowCount{Route: key.route, Rule: key.rule, Is: key.is, Would: key.would, Reason: key.reason, WouldReason: key.wants}
		t.shadow[key] = c
	}
	c.Count++
	c.Last, c.ID = now, req.ID
}

// slot returns the slot of a moment, empty if another one was there.
func (t *Tally) slot(now time.Time) *slot {
	at := now.UnixNano() / int64(slotLength)
	place := &t.slots[at%slotCount]
	for {
		s := place.Load()
		if s != nil && s.at == at {
			return s
		}
		if fresh := (&slot{at: at}); place.CompareAndSwap(s, fresh) {
			return fresh
		}
	}
}

// refuse counts a reason. The tally is locked.
func (s *slot) refuse(reason access.Reason) {
	if !reason.Known() {
		reason = access.InternalError
	}
	if s.refusals == nil {
		s.refusals = map[access.Reason]int{}
	}
	s.refusals[reason]++
}

// shadows returns what would have been decided otherwise, the most frequent
// first, what else there was, and since when that counts.
func (t *Tally) shadows() (list []ShadowCount, more int, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.shadow {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b ShadowCount) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Route, b.Route), strings.Compare(a.Rule, b.Rule), b.Last.Compare(a.Last), strings.Compare(a.ID, b.ID))
	})
	return list, t.more, t.since
}

// minute is one minute of the last hour.
type minute struct {
	outcomes   [access.Allow + 1]int
	whole, own durations
}

func (m *minute) requests() int {
	return m.outcomes[access.Allow] + m.outcomes[access.Challenge] + m.outcomes[access.Deny]
}

func (m *minute) join(other *minute) {
	for outcome, n := range other.outcomes {
		m.outcomes[outcome] += n
	}
	m.whole.join(&other.whole)
	m.own.join(&other.own)
}

// counted returns what the slot has counted so far as a part of its minute.
func (s *slot) counted() (m minute) {
	for outcome := range s.outcomes {
		m.outcomes[outcome] = int(s.outcomes[outcome].Load())
	}
	m.whole, m.own = s.whole.durations(), s.own.durations()
	return m
}

// hour is what the overview shows.
type hour struct {
	// minutes are the last sixty, the oldest first; the last one is under way.
	minutes [60]minute
	// rate is of the last half minute, in requests a second.
	rate     float64
	refusals []reasonCount // the most frequent first
	total    minute
}

type reasonCount struct {
	Reason access.Reason
	Count  int
}

// hour sums up the last hour.
func (t *Tally) hour() hour {
	now := t.now()
	last := now.UnixNano() / int64(slotLength)
	perMinute := int64(time.Minute / slotLength)
	var h hour
	refusals, recent := map[access.Reason]int{}, 0
	t.mu.Lock()
	for i := range t.slots {
		s := t.slots[i].Load()
		if s == nil || s.at > last {
			continue
		}
		ago := last/perMinute - s.at/perMinute
		if ago >= int64(len(h.minutes)) {
			continue
		}
		counted := s.counted()
		h.minutes[int64(len(h.minutes))-1-ago].join(&counted)
		h.total.join(&counted)
		for reason, n := range s.refusals {
			refusals[reason] += n
		}
		if s.at < last && s.at >= last-nowSlots {
			recent += counted.requests()
		}
	}
	t.mu.Unlock()
	h.rate = float64(recent) / (nowSlots * slotLength).Seconds()
	for _, reason := range slices.Sorted(maps.Keys(refusals)) {
		h.refusals = append(h.refusals, reasonCount{reason, refusals[reason]})
	}
	slices.SortStableFunc(h.refusals, func(a, b reasonCount) int { return b.Count - a.Count })
	return h
}

// durations counts how long something took, in steps of a fourth of a doubling.
type durations [128]uint32

// stopwatch is durations while they are being counted.
type stopwatch [len(durations{})]atomic.Uint32

// shortest is the end of the first step; everything shorter is in it.
const shortest = 10 * time.Microsecond

func (w *stopwatch) add(took time.Duration) { w[step(took)].Add(1) }

func (w *stopwatch) durations() (d durations) {
	for i := range w {
		d[i] = w[i].Load()
	}
	return d
}

// step returns the step that a duration falls into: the first that does not end before
// it.
func step(took time.Duration) int {
	if took <= shortest {
		return 0
	}
	part, doublings := math.Frexp(float64(took) / float64(shortest)) // part is from a half to one
	n := 4 * doublings
	for _, end := range &stepEnds {
		if part <= end {
			n--
		}
	}
	return min(n, len(durations{})-1)
}

// stepEnds are where the steps of a doubling end but the last.
var stepEnds = [4]float64{0.5, math.Exp2(-0.75), math.Exp2(-0.5), math.Exp2(-0.25)}

func (d *durations) join(other *durations) {
	for i, n := range other {
		d[i] += n
	}
}

// quantile returns what a share of them, from 0 to 1, did not exceed, at most a
// fifth too much; zero if there are none.
func (d *durations) quantile(share float64) time.Duration {
	var all uint64
	for _, n := range d {
		all += uint64(n)
	}
	if all == 0 {
		return 0
	}
	rest := max(uint64(math.Ceil(share*float64(all))), 1)
	for i, n := range d {
		if uint64(n) >= rest {
			return time.Duration(float64(shortest) * math.Exp2(float64(i)/4))
		}
		rest -= uint64(n)
	}
	return 0
}
