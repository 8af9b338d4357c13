package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Every request that was let in is decided on again while it is open: when a
// signal says that facts have changed which its decision used, when another
// configuration comes into force, and from time to time. See stream.go for what
// becomes of one that no longer passes.

const (
	streamShards = 64
	// checkers bounds how many decisions are made again at once. It is no
	// measure of work, of which there is little, but of stores and providers that
	// may keep some waiting.
	checkers = 32
	// The timer looks at all streams once in roundTime, a slice at a time, so that
	// many of them cause no spike.
	roundTime  = time.Second
	tickSlices = 8
	// defaultRecheck is how long a stream goes on at most without being decided on.
	defaultRecheck = time.Minute
)

// streams is what is open. The zero value is ready.
type streams struct {
	// signals counts what may have changed facts. Whoever gathers facts notes the
	// count before; see register.
	signals atomic.Uint64
	shards  [streamShards]streamShard

	mu       sync.Mutex
	waiting  []*stream
	checkers int

	// rounds counts how often all streams were looked at. One takes roundTime.
	rounds  atomic.Uint32
	ticking atomic.Bool
	timer   sync.Mutex // protects what follows
	ticker  *time.Timer
	next    int // the slice to look at next
	empty   int // slices found empty in a row
	closed  bool
}

// streamShard is a part of the open streams, so that cores seldom meet.
type streamShard struct {
	mu sync.Mutex
	// young are those that the timer has not come across yet. Most requests are over
	// before, and are in no map.
	young []*stream
	old   map[*stream]struct{}
	// by finds the old ones with one session, person or device. Signals about
	// anything else look at all of them.
	by map[streamKey][]*stream
	_  [64]byte // keeps neighbours off this lock's cache line
}

// any reports whether there is one. The shard is locked, as for all that follow.
func (s *streamShard) any() bool { return len(s.young) > 0 || len(s.old) > 0 }

// each calls f with every stream.
func (s *streamShard) each(f func(*stream)) {
	for _, st := range s.young {
		f(st)
	}
	for st := range s.old {
		f(st)
	}
}

// add takes up a stream.
func (s *streamShard) add(st *stream) {
	s.young = append(s.young, st)
	st.place = len(s.young)
}

// age indexes the young ones.
func (s *streamShard) age() {
	if s.old == nil {
		s.old, s.by = map[*stream]struct{}{}, map[streamKey][]*stream{}
	}
	for _, st := range s.young {
		st.place = 0
		s.old[st] = struct{}{}
		s.index(st)
	}
	clear(s.young)
	s.young = s.young[:0]
}

// remove forgets a stream.
func (s *streamShard) remove(st *stream) {
	if st.place == 0 {
		delete(s.old, st)
		s.unindex(st)
		return
	}
	last := len(s.young) - 1
	moved := s.young[last]
	s.young[st.place-1], moved.place = moved, st.place
	s.young[last], s.young, st.place = nil, s.young[:last], 0
}

// has reports whether a stream is in the shard.
func (s *streamShard) has(st *stream) bool {
	_, old := s.old[st]
	return old || st.place > 0
}

// streamKey is a session, a person or a device.
type streamKey struct {
	kind         uint8
	issuer, name string
}

const (
	bySession uint8 = iota
	byPerson
	byDevice
)

// keysOf returns what the facts of a decision are found by.
func keysOf(facts *access.Request) (keys [3]streamKey, n int) {
	if facts.Session.ID != "" {
		keys[n], n = streamKey{bySession, "", facts.Session.ID}, n+1
	}
	if facts.Identity.Subject != "" {
		keys[n], n = streamKey{byPerson, facts.Identity.Issuer, facts.Identity.Subject}, n+1
	}
	if facts.Device.ID != "" {
		keys[n], n = streamKey{byDevice, "", facts.Device.ID}, n+1
	}
	return keys, n
}

// candidates calls f with every stream that a signal may touch.
func (s *streamShard) candidates(sig *access.Signal, f func(*stream)) {
	var key streamKey
	switch {
	case sig.Session != "":
		key = streamKey{bySession, "", sig.Session}
	case sig.Device != "":
		key = streamKey{byDevice, "", sig.Device}
	case sig.Issuer != "" && sig.Subject != "":
		key = streamKey{byPerson, sig.Issuer, sig.Subject}
	default:
		s.each(f)
		return
	}
	for _, st := range s.young {
		f(st)
	}
	for _, st := range s.by[key] {
		f(st)
	}
}

// index and unindex keep `by` true to an old stream's facts.
func (s *streamShard) index(st *stream) {
	keys, n := keysOf(st.facts)
	for _, key := range keys[:n] {
		s.by[key] = append(s.by[key], st)
	}
}

func (s *streamShard) unindex(st *stream) {
	keys, n := keysOf(st.facts)
	for _, key := range keys[:n] {
		list := s.by[key]
		for i, have := range list {
			if have == st {
				last := len(list) - 1
				list[i], list[last] = list[last], nil
				list = list[:last]
				break
			}
		}
		if len(list) == 0 {
			delete(s.by, key)
		} else {
			s.by[key] = list
		}
	}
}

// register takes up a stream whose decision used facts that were gathered when
// the count of signals was seen. If there has been one since, it may have been
// about this stream and found nothing, so the decision is made again at once.
func (l *streams) register(st *stream, seen uint64) {
	st.shard.mu.Lock()
	st.shard.add(st)
	missed := l.signals.Load() != seen // one from here on finds the stream
	st.found = missed
	st.shard.mu.Unlock()
	if missed {
		l.check(st)
	}
}

// unregister reports whether somebody may still know the stream.
func (l *streams) unregister(st *stream) (found bool) {
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	st.shard.remove(st)
	return st.found
}

// settled notes the facts of a decision that let a stream go on, and when to
// make it again. It reports whether the stream is found by other keys from here
// on: signals from before may have been about these and found nothing.
func (l *streams) settled(st *stream, facts *access.Request, due time.Time) (moved bool) {
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	st.due = due
	if !st.shard.has(st) {
		return false
	}
	before, _ := keysOf(st.facts)
	after, _ := keysOf(facts)
	st.shard.remove(st)
	st.facts = facts
	st.shard.add(st)
	return before != after
}

// Signal has everything decided on again that a change of facts may touch. It
// waits for nothing.
func (d *Door) Signal(sig access.Signal) {
	d.streams.signals.Add(1)
	var touched []*stream
	for i := range d.streams.shards {
		shard := &d.streams.shards[i]
		shard.mu.Lock()
		shard.candidates(&sig, func(st *stream) {
			if sig.Touches(st.facts) {
				st.found = true
				touched = append(touched, st)
			}
		})
		shard.mu.Unlock()
	}
	d.streams.check(touched...)
}

// OpenStreams returns how many requests a session has open at this door.
func (d *Door) OpenStreams(session string) int {
	n := 0
	for i := range d.streams.shards {
		shard := &d.streams.shards[i]
		shard.mu.Lock()
		for _, st := range shard.young {
			if st.facts.Session.ID == session {
				n++
			}
		}
		n += len(shard.by[streamKey{bySession, "", session}])
		shard.mu.Unlock()
	}
	return n
}

// check has streams decided on again, as soon as there is somebody to do it.
func (l *streams) check(list ...*stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, st := range list {
		if !st.waiting { // otherwise what is to come sees the newest facts anyway
			st.waiting = true
			l.waiting = append(l.waiting, st)
		}
	}
	for l.checkers < min(checkers, len(l.waiting)) {
		l.checkers++
		go l.work()
	}
}

func (l *streams) work() {
	for {
		l.mu.Lock()
		if len(l.waiting) == 0 {
			l.waiting = nil
			l.checkers--
			l.mu.Unlock()
			return
		}
		st := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		st.waiting = false
		l.mu.Unlock()
		st.check()
	}
}

// tickWhileOpen sees to it that the timer runs while something is open.
func (d *Door) tickWhileOpen() {
	l := &d.streams
	if l.ticking.Load() {
		return
	}
	l.timer.Lock()
	defer l.timer.Unlock()
	if l.closed || l.ticking.Load() {
		return
	}
	l.ticking.Store(true)
	l.empty = 0
	l.ticker = time.AfterFunc(roundTime/tickSlices, d.tick)
}

// tick looks at one slice of the streams, and stops the timer where there are
// none any more.
func (d *Door) tick() {
	l := &d.streams
	l.timer.Lock()
	defer l.timer.Unlock()
	if l.closed {
		return
	}
	if d.checkDue(l.next, d.now()) {
		l.empty = 0
	} else {
		l.empty++
	}
	if l.next = (l.next + 1) % tickSlices; l.next == 0 {
		l.rounds.Add(1)
	}
	if l.empty >= tickSlices {
		// One that registers from here on starts the timer itself; one that did
		// before is seen now.
		l.ticking.Store(false)
		if !l.any() {
			return
		}
		l.ticking.Store(true)
		l.empty = 0
	}
	l.ticker.Reset(roundTime / tickSlices)
}

// checkDue has those streams of a slice decided on again whose time has come, ends
// those whose upstream brings nothing, and reports whether the slice has any.
func (d *Door) checkDue(slice int, now time.Time) (any bool) {
	var due, starved []*stream
	round := d.streams.rounds.Load()
	for i := slice; i < streamShards; i += tickSlices {
		shard := &d.streams.shards[i]
		shard.mu.Lock()
		any = any || shard.any()
		shard.age()
		for st := range shard.old {
			if !now.Before(st.due) {
				st.found = true
				due = append(due, st)
			}
			if last := st.until.Load(); last != 0 && int32(round-last) > 0 {
				st.found = true
				starved = append(starved, st)
			}
		}
		shard.mu.Unlock()
	}
	d.streams.check(due...)
	for _, st := range starved {
		st.starve()
	}
	return any
}

func (l *streams) any() bool {
	for i := range l.shards {
		l.shards[i].mu.Lock()
		any := l.shards[i].any()
		l.shards[i].mu.Unlock()
		if any {
			return true
		}
	}
	return false
}

// stop ends the timer for good.
func (l *streams) stop() {
	l.timer.Lock()
	defer l.timer.Unlock()
	l.closed = true
	if l.ticker != nil {
		l.ticker.Stop()
	}
}
