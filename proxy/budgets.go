package proxy

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/fetch"
)

// budgets count who uses how much of the door. Their number is fixed, so that
// nobody fills memory by coming as many: where there is no room, the budget that
// has the least to tell is forgotten. One that is forgotten starts anew as full,
// as one that was never seen; one of somebody who has something under way is
// never forgotten.
//
// They lie in shards with locks of their own. Nothing is allocated after the
// first use of a shard.
type budgets struct {
	shards [budgetShards]budgetShard
}

// budgetSeed keeps anybody outside from choosing whom to share a place with. All
// doors of a process have the same, because sessions keep keys.
var budgetSeed = maphash.MakeSeed()

const (
	budgetShards = 64
	budgetSets   = 256 // of a shard
	budgetWays   = 8   // places in a set; a budget has one set
)

type budgetShard struct {
	mu   sync.Mutex
	sets atomic.Pointer[[budgetSets]budgetSet] // nil until the first use
	// crowd is the one budget of all for whom there is no place.
	crowd budget
	_     [64]byte // shards do not share a cache line
}

// clockSlack is how much later than another a moment may be that was looked at
// before it, since requests wait for each other. Beyond it the clock was set back,
// and all budgets are full.
const clockSlack = int64(10 * time.Minute)

type budgetSet [budgetWays]budget

// budget is what one party has used. The zero budget is full and nobody's.
type budget struct {
	key uint64 // 0: nobody's
	// spent is the moment at which it will be full again, in Unix nanoseconds (the
	// theoretical arrival time of the generic cell rate algorithm, ITU-T I.371).
	spent             int64
	requests, streams int32
}

// pace is how often something may happen. Without every it may always.
type pace struct {
	burst int
	every time.Duration
}

// quota is a limit in numbers; what is not positive sets none.
type quota struct {
	pace
	concurrent, streams int
}

// none reports whether the quota limits nothing.
func (q *quota) none() bool { return q.every <= 0 && q.concurrent <= 0 && q.streams <= 0 }

// use is what something counts as.
type use uint8

const (
	asQuestion use = iota // is over at once: only how often it happens counts
	asRequest
	asStream
)

// shortage says of what there is too little. The zero value is of nothing.
type shortage struct {
	of   ration
	wait time.Duration // until it may be tried again, where that is known
}

type ration uint8

const (
	enough ration = iota
	tooOften
	tooManyRequests
	tooManyStreams
)

// holding is a place in a budget that is given back later. The zero value is none.
type holding struct {
	shard   *budgetShard
	budget  *budget
	use     use
	party   party // whose budget it is, where that is said to anybody
	streams int   // the limit of streams, should it become one
}

// take counts one more use in the budget of a key, unless there is a shortage,
// and then nothing.
func (b *budgets) take(key uint64, q *quota, as use, now time.Time) (holding, shortage) {
	shard, set := b.place(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	own := shard.find(set, key)
	switch {
	case as == asRequest && q.concurrent > 0 && int(own.requests) >= q.concurrent:
		return holding{}, shortage{of: tooManyRequests}
	case as == asStream && q.streams > 0 && int(own.streams) >= q.streams:
		return holding{}, shortage{of: tooManyStreams}
	}
	if wait := own.spend(q.pace, now.UnixNano()); wait > 0 {
		return holding{}, shortage{tooOften, wait}
	}
	if as == asQuestion || q.concurrent <= 0 && q.streams <= 0 {
		return holding{}, shortage{}
	}
	own.add(as, 1)
	return holding{shard: shard, budget: own, use: as, streams: q.streams}, shortage{}
}

// charge counts one more, whether or not there is enough.
func (b *budgets) charge(key uint64, p pace, now time.Time) {
	shard, set := b.place(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	own := shard.find(set, key)
	if own.spend(p, now.UnixNano()) > 0 {
		own.spent = now.UnixNano() + int64(p.burst)*int64(p.every)
	}
}

// short returns how long it is until the budget of a key has anything left. It
// takes nothing, and no place.
func (b *budgets) short(key uint64, p pace, now time.Time) time.Duration {
	shard, set := b.place(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	sets := shard.sets.Load()
	if sets == nil {
		return 0
	}
	for _, own := range sets[set] {
		if own.key == key {
			return own.spend(p, now.UnixNano()) // of the copy
		}
	}
	return 0
}

// place finds where the budget of a key is kept.
func (b *budgets) place(key uint64) (shard *budgetShard, set int) {
	return &b.shards[key%budgetShards], int(key / budgetShards % budgetSets)
}

// expect tells that a key will be asked for soon, which then is fetched from memory
// meanwhile.
func (b *budgets) expect(key uint64) {
	shard, set := b.place(key)
	if sets := shard.sets.Load(); sets != nil {
		fetch.Of(&sets[set])
	}
}

// find returns the budget of a key, a full one if there was none. The shard is
// locked.
func (s *budgetShard) find(set int, key uint64) *budget {
	sets := s.sets.Load()
	if sets == nil {
		sets = new([budgetSets]budgetSet)
		s.sets.Store(sets)
	}
	var worst *budget
	for i := range sets[set] {
		b := &sets[set][i]
		if b.key == key {
			return b
		}
		if b.requests == 0 && b.streams == 0 && (worst == nil || b.spent < worst.spent) {
			worst = b // the fullest loses the least
		}
	}
	if worst == nil {
		return &s.crowd
	}
	*worst = budget{key: key}
	return worst
}

// spend takes one, or returns how long it is until there is one.
func (b *budget) spend(p pace, now int64) time.Duration {
	if p.every <= 0 {
		return 0
	}
	every, most := int64(p.every), int64(p.every)*int64(max(p.burst, 1))
	spent := max(b.spent, now)
	if spent-now > most+clockSlack {
		spent = now
	}
	spent = min(spent, now+most) // never emptier than empty
	if over := spent + every - now - most; over > 0 {
		b.spent = spent
		return time.Duration(over)
	}
	b.spent = spent + every
	return 0
}

func (b *budget) add(as use, n int32) {
	if as == asStream {
		b.streams += n
	} else {
		b.requests += n
	}
}

// giveBack ends the use.
func (h *holding) giveBack() {
	if h.budget == nil {
		return
	}
	h.shard.mu.Lock()
	h.budget.add(h.use, -1)
	h.shard.mu.Unlock()
	*h = holding{}
}

// becomesStream counts a request as a stream from here on, unless there are too
// many.
func (h *holding) becomesStream() bool {
	if h.budget == nil || h.use == asStream {
		return true
	}
	h.shard.mu.Lock()
	defer h.shard.mu.Unlock()
	if h.streams > 0 && int(h.budget.streams) >= h.streams {
		return false
	}
	h.budget.add(h.use, -1)
	h.use = asStream
	h.budget.add(h.use, 1)
	return true
}

// budgetKey makes a key of words. Words that are joined differently differ.
func budgetKey(kind string, words [3]string) uint64 {
	h := budgetHash(kind, words[0])
	for _, word := range words[1:] {
		write(&h, word)
	}
	return max(h.Sum64(), 1)
}

// networkBudgetKey makes a key of a network, on a route or on all.
func networkBudgetKey(kind, route string, network netip.Prefix) uint64 {
	h := budgetHash(kind, route)
	address := network.Addr().As16()
	h.Write(address[:])
	h.WriteByte(byte(network.Bits()))
	return max(h.Sum64(), 1)
}

func budgetHash(kind, word string) (h maphash.Hash) {
	h.SetSeed(budgetSeed)
	write(&h, kind)
	write(&h, word)
	return h
}

// write adds a word with its length before it.
func write(h *maphash.Hash, word string) {
	var length [4]byte
	binary.LittleEndian.PutUint32(length[:], uint32(len(word)))
	h.Write(length[:])
	h.WriteString(word)
}
