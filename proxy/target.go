package proxy

import (
	"net/url"
	"sync/atomic"
	"time"
)

// target is one address of an upstream: how much it has to do and how it is
// doing. Requests that go well write nothing of it but load.
type target struct {
	url   url.URL
	name  string        // scheme://host
	hash  uint64        // of the name
	slots chan struct{} // one element for each open request; nil: no limit

	// standing says what is known against it. 0: nothing.
	standing atomic.Uint32
	// fails counts the visitors' requests in a row that failed here.
	fails atomic.Uint32
	// term changes with being left out and being used again: how a request of an
	// earlier term ends says nothing about this one.
	term atomic.Uint32
	// until is when an ejection ends, by the upstream's own clock.
	until atomic.Int64

	record // protected by the upstream's lock

	_ [64]byte // keeps what changes always off the cache lines of what seldom does
	// load counts requests: those that have no answer yet in the upper half, those
	// that have not ended in the lower half.
	load    atomic.Int64
	waiting atomic.Int64 // for a slot
	_       [64]byte
}

// What may be known against a target.
const (
	// down: health checks say so.
	down uint32 = 1 << iota
	// ejected: it failed visitors, and is left out until a certain time.
	ejected
	// struggling: it failed visitors, and is used all the same, because it is the only
	// one or because enough others are out.
	struggling
	// doubtful: it was ejected, and nobody has been answered since. One failure
	// suffices.
	doubtful
	// warming: it came back a moment ago, and gets less than its share.
	warming
)

const unused = down | ejected

// record is what happened to a target.
type record struct {
	since     time.Time // of the last change between well and not
	lastError string    // what it failed with last
	failedAt  time.Time
	back      time.Duration // when it was used again, by the upstream's own clock
	ejections int           // in a row
	ejectedN  uint64        // ever
	checked   bool          // a health check has come to an end
	row       int           // health checks in a row that contradict what is known
}

// What one request adds to load: until it is answered, and until it ends.
const (
	loadUnanswered = 1 << 32
	loadOpen       = 1
)

// open returns how many requests are open, unanswered how many of them have no
// answer yet.
func (t *target) open() int64       { return t.load.Load() & (loadUnanswered - 1) }
func (t *target) unanswered() int64 { return t.load.Load() >> 32 }

// enter counts one more request, unless too many have no answer yet.
func (t *target) enter(most int64) bool {
	if t.load.Add(loadUnanswered+loadOpen)>>32 > most {
		t.load.Add(-loadUnanswered - loadOpen)
		return false
	}
	return true
}

// take counts one more connection, unless there are too many.
func (t *target) take() bool {
	if t.slots == nil {
		return true
	}
	select {
	case t.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// wait waits in line for a connection until done, unless too many do.
func (t *target) wait(done <-chan struct{}, most int) bool {
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > int64(most) {
		return false
	}
	select {
	case t.slots <- struct{}{}:
		return true
	case <-done:
		return false
	}
}

// giveBack gives back what take or wait took.
func (t *target) giveBack() {
	if t.slots != nil {
		<-t.slots
	}
}

// share is the part of its share that a target gets which came back a moment
// ago, from a tenth to the whole.
func (u *upstream) share(t *target) float64 {
	if t.standing.Load()&warming == 0 {
		return 1
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	part := float64(u.age()-t.back) / float64(u.slowStart)
	if part >= 1 {
		t.standing.And(^warming)
		return 1
	}
	return max(part, .1)
}

// usable reports whether nothing keeps a target from being used. It ends an
// ejection whose time is over.
func (u *upstream) usable(t *target) bool {
	standing := t.standing.Load()
	if standing&ejected != 0 && int64(u.age()) >= t.until.Load() {
		u.mu.Lock()
		if t.standing.Load()&ejected != 0 && int64(u.age()) >= t.until.Load() {
			u.release(t, "its time is over")
		}
		u.mu.Unlock()
		standing = t.standing.Load()
	}
	return standing&unused == 0
}

// succeeded notes that a target began to answer a request of a term.
func (u *upstream) succeeded(t *target, term uint32) {
	if t.fails.Load() == 0 && t.standing.Load()&(struggling|doubtful|ejected) == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if t.term.Load() != term {
		return
	}
	t.fails.Store(0)
	was := t.standing.And(^(struggling | doubtful))
	switch {
	case was&ejected != 0: // it was asked because all were out
		u.release(t, "it answers")
		t.standing.And(^doubtful)
	case was&struggling != 0 && was&down == 0:
		t.since = time.Now()
		u.log.Info("an upstream answers again", "route", u.route, "upstream", t.name)
	}
}

// failed notes that a target failed a request of a term.
func (u *upstream) failed(t *target, term uint32, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t.term.Load() != term {
		return
	}
	t.noteError(err)
	n, standing := t.fails.Add(1), t.standing.Load()
	switch {
	case u.ejectAfter == 0 || n < u.ejectAfter && standing&doubtful == 0, standing&ejected != 0:
	case len(u.targets) > 1 && u.mayEject(t):
		u.eject(t)
	case standing&(struggling|down) == 0:
		t.standing.Or(struggling)
		t.since = time.Now()
		why := "it is the only one"
		if len(u.targets) > 1 {
			why = "enough others are left out"
		}
		u.log.Warn("an upstream fails, and is used all the same: "+why, "route", u.route, "upstream", t.name, "failures", n, "error", t.lastError)
	}
}

// mayEject reports whether so few targets are out that one more may be. u.mu is
// held.
func (u *upstream) mayEject(t *target) bool {
	out := 1
	for _, other := range u.targets {
		if other != t && other.standing.Load()&unused != 0 {
			out++
		}
	}
	return out <= max(1, len(u.targets)*u.ejectPercent/100)
}

// eject leaves a target out for a while: longer each time, unless it was well
// for long. u.mu is held.
func (u *upstream) eject(t *target) {
	if u.age()-t.back > longestEject {
		t.ejections = 0
	}
	length := u.ejectFor
	for range t.ejections {
		length = min(2*length, max(longestEject, u.ejectFor))
	}
	t.ejections++
	t.ejectedN++
	was := t.standing.Load()
	t.until.Store(int64(u.age() + length))
	t.standing.Store(was&down | ejected)
	t.term.Add(1)
	t.since = time.Now()
	u.log.Warn("an upstream is left out, because it fails", "route", u.route, "upstream", t.name, "for", length, "failures", t.fails.Load(), "error", t.lastError)
}

// release ends an ejection. u.mu is held.
func (u *upstream) release(t *target, why string) {
	t.standing.And(^ejected)
	t.standing.Or(doubtful)
	u.comeBack(t, why)
}

// comeBack has a target used again, unless something else is known against it.
// u.mu is held.
func (u *upstream) comeBack(t *target, why string) {
	t.fails.Store(0)
	t.term.Add(1)
	if t.standing.Load()&unused != 0 {
		return
	}
	t.since, t.back = time.Now(), u.age()
	t.standing.Or(warming)
	u.log.Info("an upstream is used again: "+why, "route", u.route, "upstream", t.name)
}

// checked notes how a health check ended; nil is well.
func (u *upstream) checked(t *target, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		t.noteError(err)
	}
	was := t.standing.Load()&down != 0
	first := !t.record.checked
	t.record.checked = true
	if was == (err != nil) {
		t.row = 0
		return
	}
	t.row++
	need := u.check.down
	if was {
		need = u.check.up
	}
	if t.row < need && !first {
		return
	}
	t.row = 0
	if was {
		t.standing.And(^down)
		u.comeBack(t, "its health checks succeed")
		return
	}
	t.standing.Or(down)
	t.standing.And(^(struggling | warming))
	t.term.Add(1)
	t.since = time.Now()
	u.log.Warn("an upstream is down: its health checks fail", "route", u.route, "upstream", t.name, "error", t.lastError)
}

// inherit takes over what an upstream of the same route knew about addresses that
// this one has too.
func (u *upstream) inherit(old *upstream) {
	old.mu.Lock()
	defer old.mu.Unlock()
	for _, t := range u.targets {
		for _, was := range old.targets {
			if was.name != t.name {
				continue
			}
			standing := was.standing.Load()
			if !u.check.asked {
				standing &^= down
			}
			if u.ejectAfter == 0 || len(u.targets) == 1 {
				standing &^= ejected | doubtful
			}
			t.record = was.record
			t.record.checked = was.record.checked && u.check.asked
			t.back -= old.age()
			t.standing.Store(standing)
			t.fails.Store(was.fails.Load())
			t.until.Store(was.until.Load() - int64(old.age()))
		}
	}
}

// note keeps what a target failed with that had begun to answer.
func (u *upstream) note(t *target, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t.noteError(err)
}

func (t *target) noteError(err error) {
	t.lastError, t.failedAt = err.Error(), time.Now()
	if len(t.lastError) > mostErrorBytes {
		t.lastError = t.lastError[:mostErrorBytes] + " ..."
	}
}

const mostErrorBytes = 300
