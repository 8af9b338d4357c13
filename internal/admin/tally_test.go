package admin

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func decided(outcome access.Outcome, reason access.Reason, took time.Duration) *access.Event {
	e := &access.Event{Kind: access.EventDecision, Request: &access.Request{ID: "r", Route: "app"}, Decision: &access.Decision{Outcome: outcome, Reason: reason}}
	e.Response.Duration, e.Response.Decide, e.Response.Status = took, took/10, 200
	return e
}

// An hour is counted minute by minute, and what is older falls out.
func TestTallyOfAnHour(t *testing.T) {
	now := time.Unix(1.7e9, 0).Truncate(time.Minute)
	tally := NewTally(func() time.Time { return now })
	tally.Event(&access.Event{Kind: access.EventLogin})
	for range 61 { // two a minute, of which one is refused; the first minute is forgotten
		tally.Event(decided(access.Allow, access.Allowed, 10*time.Millisecond))
		tally.Event(decided(access.Deny, access.NotAllowed, time.Millisecond))
		now = now.Add(time.Minute)
	}
	broken := decided(access.Allow, access.Allowed, time.Second)
	broken.Response.Reason = access.UpstreamUnreachable
	stream := decided(access.Allow, access.Allowed, time.Hour)
	stream.Response.Status = 101
	unknown := decided(access.Challenge, "something new", time.Millisecond)
	for _, e := range []*access.Event{broken, stream, unknown} {
		tally.Event(e)
	}
	now = now.Add(slotLength)
	h := tally.hour()
	if h.minutes[59].requests() != 3 || h.minutes[0].requests() != 2 || h.total.requests() != 3+59*2 || h.total.outcomes[access.Deny] != 59 || h.rate != 0.1 {
		t.Errorf("%d %d %d %d %v", h.minutes[59].requests(), h.minutes[0].requests(), h.total.requests(), h.total.outcomes[access.Deny], h.rate)
	}
	want := []reasonCount{{access.NotAllowed, 59}, {access.InternalError, 1}, {access.UpstreamUnreachable, 1}}
	if len(h.refusals) != 3 || h.refusals[0] != want[0] || h.refusals[1] != want[1] || h.refusals[2] != want[2] {
		t.Errorf("%+v", h.refusals)
	}
	if slowest := h.total.whole.quantile(1); slowest < time.Second || slowest > 1200*time.Millisecond {
		t.Errorf("a connection counts as a slow request: %s", slowest)
	}
	c := requestChart(&h)
	if len(c.Bars) != 59*2+2 || !strings.Contains(c.Words, "121 in all") || latencyChart(&h).Line == "" {
		t.Errorf("%d bars: %s", len(c.Bars), c.Words)
	}
	for _, b := range c.Bars {
		if b.Y < 0 || b.Height < 2 || b.Y+b.Height > chartHeight || b.X+b.Width > chartWidth {
			t.Errorf("%+v sticks out", b)
		}
	}
	now = now.Add(2 * time.Hour)
	if h := tally.hour(); h.total.requests() != 0 || h.rate != 0 || len(requestChart(&h).Bars) != 0 || latencyChart(&h).Line != "" {
		t.Errorf("after two hours: %+v", h.total)
	}
}

func TestQuantiles(t *testing.T) {
	var counted stopwatch
	d := counted.durations()
	if d.quantile(.5) != 0 {
		t.Error("of nothing")
	}
	for i := range 1000 {
		counted.add(time.Duration(i+1) * time.Millisecond)
	}
	counted.add(1000 * time.Hour) // ends in the last step
	d = counted.durations()
	for share, want := range map[float64]time.Duration{0: time.Millisecond, .5: 500 * time.Millisecond, .99: 990 * time.Millisecond} {
		if got := d.quantile(share); got < want || got > want*6/5 {
			t.Errorf("%v: %s, want %s", share, got, want)
		}
	}
	for took, want := range map[time.Duration]int{-time.Second: 0, 0: 0, shortest: 0, shortest + 1: 1, 2 * shortest: 4, 2*shortest + 1: 5, 1000 * time.Hour: 127} {
		if got := step(took); got != want {
			t.Errorf("%s is in step %d, want %d", took, got, want)
		}
	}
	for range 1000 { // whatever is counted is never told too low, nor more than a fifth too high
		took := time.Duration(rand.Int64N(int64(8*time.Hour))) + shortest
		var one durations
		one[step(took)]++
		if one.quantile(1) < took-time.Microsecond || one.quantile(1) > took*6/5 {
			t.Fatalf("%s: %s", took, one.quantile(1))
		}
	}
}

// Nothing is missed where many count at once, in the first moment of a slot as well.
func TestTallyOfMany(t *testing.T) {
	var seconds atomic.Int64
	tally := NewTally(func() time.Time { return time.Unix(1.7e9+10*seconds.Load(), 0) })
	const many, times = 8, 500
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			for i := range times {
				if i%100 == 0 {
					seconds.Add(1)
				}
				tally.Event(decided(access.Allow, access.Allowed, time.Millisecond))
				tally.Event(decided(access.Deny, access.DeniedByRule, time.Millisecond))
			}
		})
	}
	all.Wait()
	h := tally.hour()
	if h.total.outcomes[access.Allow] != many*times || h.total.outcomes[access.Deny] != many*times || len(h.refusals) != 1 || h.refusals[0].Count != many*times {
		t.Errorf("%v, refused %v", h.total.outcomes, h.refusals)
	}
}

// What is not enforced is counted by what it would change, in bounded memory.
func TestTallyOfWhatIsNotEnforced(t *testing.T) {
	now := time.Unix(1.7e9, 0)
	tally := NewTally(func() time.Time { return now })
	e := decided(access.Allow, access.Allowed, 0)
	e.Decision.Shadow = []access.Shadow{{Rule: "deny/new", Reason: access.DeniedByRule}}
	e.Candidate = &access.Candidate{Decision: access.Decision{Outcome: access.Challenge, Reason: access.DeviceMissing}}
	tally.Event(e)
	tally.Event(e)
	tally.Event(decided(access.Allow, access.Allowed, 0))
	list, more, since := tally.shadows()
	if len(list) != 2 || more != 0 || !since.Equal(now) || list[0].Rule != "" || list[0].Would != access.Challenge || list[0].Count != 2 ||
		list[1] != (ShadowCount{"app", "deny/new", access.Allow, access.Deny, access.Allowed, access.DeniedByRule, 2, now, "r"}) {
		t.Errorf("%+v %d %s", list, more, since)
	}
	for i := range maxShadow {
		e := decided(access.Allow, access.Allowed, 0)
		e.Decision.Shadow = []access.Shadow{{Rule: "deny/" + strconv.Itoa(i)}}
		tally.Event(e)
	}
	if list, more, _ := tally.shadows(); len(list) != maxShadow || more != 2 {
		t.Errorf("%d, %d more", len(list), more)
	}
	now = now.Add(time.Minute)
	tally.Restart()
	if list, more, since := tally.shadows(); len(list) != 0 || more != 0 || !since.Equal(now) {
		t.Errorf("%d %d %s", len(list), more, since)
	}
}

func BenchmarkTally(b *testing.B) {
	tally := NewTally(nil)
	e := decided(access.Allow, access.Allowed, 3*time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		tally.Event(e)
	}
}
