package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Whatever comes, ages, changes and goes in whatever order: a shard has what is open,
// and a signal finds all that it touches.
func TestShardsFindWhatSignalsTouch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	facts := func() *access.Request {
		who := fmt.Sprint(random.IntN(4))
		r := &access.Request{Identity: access.Identity{Issuer: "https://login.example", Subject: who}}
		r.Session.ID = "s" + fmt.Sprint(random.IntN(6))
		if random.IntN(2) == 0 {
			r.Device.ID = "d" + fmt.Sprint(random.IntN(3))
		}
		return r
	}
	l := &streams{}
	shard := &l.shards[0]
	open := map[*stream]bool{}
	pick := func() *stream {
		return slices.Collect(maps.Keys(open))[random.IntN(len(open))]
	}
	for step := range 2_000 {
		switch n := random.IntN(10); {
		case n < 4 || len(open) == 0:
			st := &stream{shard: shard, facts: facts()}
			l.register(st, 0)
			open[st] = true
		case n < 7:
			st := pick()
			l.unregister(st)
			delete(open, st)
			if l.settled(st, facts(), st.due) {
				t.Fatal("what is over has moved")
			}
		case n < 9:
			l.settled(pick(), facts(), time.Time{})
		default:
			shard.age()
		}
		found := map[*stream]int{}
		shard.each(func(st *stream) { found[st]++ })
		if len(found) != len(open) || shard.any() != (len(open) > 0) {
			t.Fatalf("step %d: %d found of %d", step, len(found), len(open))
		}
		for st, times := range found {
			if !open[st] || times != 1 || !shard.has(st) {
				t.Fatalf("step %d: found %d times, open: %v", step, times, open[st])
			}
		}
		who := facts()
		for _, sig := range []*access.Signal{
			{Session: who.Session.ID}, {Issuer: who.Identity.Issuer, Subject: who.Identity.Subject}, {Device: "d1"}, {Issuer: who.Identity.Issuer},
		} {
			touched := map[*stream]bool{}
			shard.candidates(sig, func(st *stream) { touched[st] = true })
			for st := range open {
				if sig.Touches(st.facts) && !touched[st] {
					t.Fatalf("step %d: %+v does not find %+v", step, sig, st.facts)
				}
			}
		}
	}
	for st := range open {
		l.unregister(st)
	}
	if l.any() || len(shard.by) > 0 || len(shard.old) > 0 {
		t.Errorf("something is left: %d keys", len(shard.by))
	}
}
