package signals

import (
	"testing"
	"time"
)

// What was spent before a reload counts on in both: a push that is under way
// still goes to the transmitter of before.
func TestAdoptedBudgetIsNobodyElses(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	before, after := &transmitter{now: clock, cfg: Transmitter{MaxSessions: 10}}, &transmitter{now: clock, cfg: Transmitter{MaxSessions: 10}}
	for range 3 {
		before.spend(1) // with room behind the last one
	}
	after.adopt(before)
	after.spend(4)
	before.spend(1)
	if after.within(4) {
		t.Error("what another transmitter spends takes the place of what this one has spent")
	}
}
