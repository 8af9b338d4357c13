package proxy

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var tenPerSecond = quota{pace: pace{burst: 5, every: 100 * time.Millisecond}}

func TestABudgetIsSpentAndRecovers(t *testing.T) {
	b, now := new(budgets), epoch
	key := budgetKey("identity", [3]string{"", "https://idp", "alice"})
	take := func() shortage { _, short := b.take(key, &tenPerSecond, asRequest, now); return short }
	for i := range 5 {
		if got := take(); got.of != enough {
			t.Fatalf("request %d of the burst: %+v", i, got)
		}
	}
	if got := take(); got != (shortage{tooOften, 100 * time.Millisecond}) {
		t.Fatalf("behind the burst: %+v", got)
	}
	if wait := b.short(key, tenPerSecond.pace, now); wait != 100*time.Millisecond {
		t.Errorf("short says %s", wait)
	}
	now = now.Add(100 * time.Millisecond)
	if got := take(); got.of != enough {
		t.Errorf("after the wait: %+v", got)
	}
	if got := take(); got.of != tooOften {
		t.Errorf("twice after one wait: %+v", got)
	}
	earlier := now.Add(-time.Minute) // of a request that had to wait
	if _, got := b.take(key, &tenPerSecond, asRequest, earlier); got.of != tooOften || got.wait > 500*time.Millisecond {
		t.Errorf("a request that had to wait: %+v", got)
	}
	now = now.Add(-24 * time.Hour) // the clock was wrong
	if wait := b.short(key, tenPerSecond.pace, now); wait != 0 {
		t.Errorf("after the clock was set back one has to wait for %s", wait)
	}
	for range 5 {
		if got := take(); got.of != enough {
			t.Errorf("after the clock was set back: %+v", got)
		}
	}
	if _, other := b.take(budgetKey("identity", [3]string{"", "https://idp", "bob"}), &tenPerSecond, asRequest, now); other.of != enough {
		t.Errorf("somebody else pays: %+v", other)
	}
	b.charge(key, tenPerSecond.pace, now)
	if wait := b.short(key, tenPerSecond.pace, now); wait > 500*time.Millisecond {
		t.Errorf("a charge beyond empty makes somebody wait for %s", wait)
	}
}

func TestWordsOfAKeyDoNotRunTogether(t *testing.T) {
	if budgetKey("k", [3]string{"a\x00b", "c"}) == budgetKey("k", [3]string{"a", "b\x00c"}) || budgetKey("ab", [3]string{"c"}) == budgetKey("a", [3]string{"bc"}) ||
		budgetKey("k", [3]string{"ab", "", "c"}) == budgetKey("k", [3]string{"a", "b", "c"}) ||
		networkBudgetKey("k", "", netip.MustParsePrefix("10.0.0.0/24")) == networkBudgetKey("k", "", netip.MustParsePrefix("10.0.0.0/25")) ||
		networkBudgetKey("k", "", netip.MustParsePrefix("10.0.0.0/24")) == networkBudgetKey("k", "r", netip.MustParsePrefix("10.0.0.0/24")) {
		t.Error("two parties share a budget")
	}
}

func TestRequestsAndStreamsAreCountedApart(t *testing.T) {
	b := new(budgets)
	q := quota{concurrent: 2, streams: 1}
	key := budgetKey("identity", [3]string{"", "https://idp", "alice"})
	first, _ := b.take(key, &q, asRequest, epoch)
	second, _ := b.take(key, &q, asRequest, epoch)
	if _, short := b.take(key, &q, asRequest, epoch); short.of != tooManyRequests {
		t.Fatalf("a third request: %+v", short)
	}
	if !first.becomesStream() {
		t.Fatal("there is room for a stream")
	}
	third, short := b.take(key, &q, asRequest, epoch)
	if short.of != enough {
		t.Fatalf("a stream still counts as a request: %+v", short)
	}
	if second.becomesStream() {
		t.Error("a second stream")
	}
	if _, short := b.take(key, &q, asStream, epoch); short.of != tooManyStreams {
		t.Errorf("a second stream: %+v", short)
	}
	for _, h := range []*holding{&first, &second, &third, &first, &second} { // twice is once
		h.giveBack()
	}
	shard, set := b.place(key)
	if own := shard.find(set, key); own.requests != 0 || own.streams != 0 {
		t.Errorf("after everything was given back: %+v", own)
	}
	if _, short := b.take(key, &q, asQuestion, epoch); short.of != enough {
		t.Errorf("a question: %+v", short)
	}
}

// However many come, memory stays the same, nobody gets more than somebody new
// would, and what is under way stays counted.
func TestManyPartiesFillNothing(t *testing.T) {
	b := new(budgets)
	limited := quota{pace: tenPerSecond.pace, concurrent: 1}
	busy := budgetKey("identity", [3]string{"", "https://idp", "busy"})
	held, _ := b.take(busy, &limited, asRequest, epoch)
	noisy := budgetKey("identity", [3]string{"", "https://idp", "noisy"})
	for range 5 {
		b.take(noisy, &tenPerSecond, asRequest, epoch)
	}
	for i := range 4 * budgetShards * budgetSets * budgetWays {
		b.take(budgetKey("network", [3]string{"", fmt.Sprint(i)}), &tenPerSecond, asRequest, epoch)
	}
	if _, short := b.take(busy, &limited, asRequest, epoch); short.of != tooManyRequests {
		t.Errorf("what is under way was forgotten: %+v", short)
	}
	if _, short := b.take(noisy, &tenPerSecond, asRequest, epoch); short.of != tooOften {
		t.Errorf("a crowd made the noisy one look new: %+v", short)
	}
	held.giveBack()
	if _, short := b.take(busy, &limited, asRequest, epoch); short.of != enough {
		t.Errorf("after it was given back: %+v", short)
	}
	next := uint64(1)
	if n := testing.AllocsPerRun(1000, func() { next++; b.take(next, &tenPerSecond, asRequest, epoch) }); n != 0 {
		t.Errorf("somebody new takes memory: %v allocations", n)
	}
}

// Where every place is taken by somebody who has something under way, all others
// share one budget, and everything is given back to where it was taken.
func TestACrowdSharesOneBudget(t *testing.T) {
	b := new(budgets)
	q := quota{concurrent: 3}
	shard, set := b.place(1)
	var all []holding
	for key := uint64(1); len(all) < budgetWays; key += budgetShards * budgetSets {
		h, short := b.take(key, &q, asRequest, epoch)
		if short.of != enough {
			t.Fatal(short)
		}
		all = append(all, h)
	}
	late := func(i uint64) uint64 { return 1 + (100+i)*budgetShards*budgetSets }
	for i := range uint64(3) {
		h, short := b.take(late(i), &q, asRequest, epoch)
		if short.of != enough || h.budget != &shard.crowd {
			t.Fatalf("one of the crowd: %+v, %+v", h, short)
		}
		all = append(all, h)
	}
	if _, short := b.take(late(3), &q, asRequest, epoch); short.of != tooManyRequests {
		t.Errorf("the crowd got more than one party: %+v", short)
	}
	for i := range all {
		all[i].giveBack()
	}
	for _, own := range append(shard.sets.Load()[set][:], shard.crowd) {
		if own.requests != 0 {
			t.Errorf("left over: %+v", own)
		}
	}
}

// A budget agrees with the plainest way to count: no window of any length holds
// more than a burst and what the rate allows within it.
func TestNoWindowHoldsMoreThanItsShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pace{burst: rapid.IntRange(1, 20).Draw(t, "burst"), every: time.Duration(rapid.IntRange(1, 1000).Draw(t, "every")) * time.Millisecond}
		b, now := new(budgets), epoch
		var granted []time.Time
		for _, pause := range rapid.SliceOfN(rapid.IntRange(0, 2000), 1, 200).Draw(t, "pauses") {
			now = now.Add(time.Duration(pause) * time.Millisecond)
			_, short := b.take(7, &quota{pace: p}, asRequest, now)
			if short.of == enough {
				granted = append(granted, now)
			} else if _, again := b.take(7, &quota{pace: p}, asRequest, now.Add(short.wait)); again.of != enough {
				t.Fatalf("after %s there is still a shortage", short.wait)
			} else {
				now = now.Add(short.wait)
				granted = append(granted, now)
			}
		}
		for i, from := range granted {
			for j, to := range granted[i:] {
				if most := p.burst + int(to.Sub(from)/p.every); j+1 > most {
					t.Fatalf("%d within %s, at most %d are due", j+1, to.Sub(from), most)
				}
			}
		}
	})
}

func TestBudgetsUnderManyHands(t *testing.T) {
	b := new(budgets)
	q := quota{concurrent: 4, streams: 2}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			key := budgetKey("identity", [3]string{"", "https://idp", fmt.Sprint(i % 4)})
			for range 500 {
				h, _ := b.take(key, &q, asRequest, epoch)
				h.becomesStream()
				h.giveBack()
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		key := budgetKey("identity", [3]string{"", "https://idp", fmt.Sprint(i)})
		shard, set := b.place(key)
		if own := shard.find(set, key); own.requests != 0 || own.streams != 0 {
			t.Errorf("left over: %+v", own)
		}
	}
}

// What the limits add to a request: one budget, of one party or of as many as
// there are places.
func BenchmarkBudget(b *testing.B) {
	q := quota{pace: pace{burst: 1 << 30, every: time.Nanosecond}, concurrent: 1 << 30}
	for name, parties := range map[string]int{"one": 1, "many": 100_000} {
		b.Run(name, func(b *testing.B) {
			budgets := new(budgets)
			subjects := make([]string, parties)
			for i := range subjects {
				subjects[i] = fmt.Sprint("subject-", i)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					h, _ := budgets.take(budgetKey("identity", [3]string{"", "https://idp.example.com", subjects[i%parties]}), &q, asRequest, epoch)
					h.giveBack()
				}
			})
		})
	}
}
