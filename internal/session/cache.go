package session

import (
	"crypto/sha256"
	"hash/maphash"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// cache keeps what the store holds, as far as it was asked for. It is divided
// so that cores seldom meet, and reading it allocates nothing.
type cache struct {
	seed    maphash.Seed
	tickets [shardCount]shard[[sha256.Size]byte, *ticket]
	logins  [shardCount]shard[string, *login]
	names   names
	near    near
}

const shardCount = 64

// newCache returns a cache that takes so many bytes, about.
func newCache(room int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range shardCount {
		c.tickets[i].init(room / shardCount / 2)
		c.logins[i].init(room / shardCount / 2)
	}
	return c
}

func (c *cache) ticketShard(hash *[sha256.Size]byte) *shard[[sha256.Size]byte, *ticket] {
	return &c.tickets[hash[0]%shardCount]
}

func (c *cache) loginShard(id string) *shard[string, *login] {
	return &c.logins[maphash.String(c.seed, id)%shardCount]
}

// dropAll forgets everything, as when changes of the store were missed. Closed,
// it keeps nothing until it is told otherwise.
func (c *cache) dropAll(closed bool) {
	for i := range shardCount {
		c.tickets[i].dropAll(closed)
		c.logins[i].dropAll(closed)
	}
}

// cached is what a shard keeps.
type cached interface {
	lastUsed() int64
	// weight is how many bytes it takes, about, and what the garbage collector
	// leaves lying around meanwhile. It never changes.
	weight() int
	// dropped is told when the shard lets go of it, under the lock of the shard.
	dropped()
}

type shard[K comparable, V cached] struct {
	mu         sync.RWMutex
	items      map[K]V
	room, held int // by weight
	// changed counts change notices. Whoever reads the store notes the count
	// before; if it has moved on, what was read may be old and is not kept.
	changed uint64
	closed  bool
	_       [64]byte // keeps neighbours off this lock's cache line
}

func (s *shard[K, V]) init(room int) {
	s.room = room
	s.items = make(map[K]V)
}

func (s *shard[K, V]) get(key K) (V, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.items[key], s.changed
}

// add keeps v under key, unless there was a change notice since count was noted:
// then v counts as dropped at once. If there is something under key already,
// that is kept and returned. What was last used before a moment is of no use, and
// makes room.
func (s *shard[K, V]) add(key K, v V, count uint64, useless int64) V {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.items[key]; ok {
		return have
	}
	if s.changed != count || s.closed {
		v.dropped()
		return v
	}
	s.sample(useless)
	for len(s.items) > 0 && s.held+v.weight() > s.room {
		s.remove(s.sample(useless))
	}
	s.items[key] = v
	s.held += v.weight()
	return v
}

// sample looks at a few, drops those of no use, and returns the least recently
// used of the others. Whoever is dropped in error is read again. Since more are
// looked at than are added, what is of no use never piles up.
func (s *shard[K, V]) sample(useless int64) (victim K) {
	const few = 8
	oldest, n := int64(math.MaxInt64), 0
	for key, v := range s.items { // Go begins at a random place
		switch used := v.lastUsed(); {
		case used < useless:
			s.remove(key)
		case used <= oldest:
			victim, oldest = key, used
		}
		if n++; n == few {
			break
		}
	}
	return victim
}

func (s *shard[K, V]) remove(key K) {
	if v, ok := s.items[key]; ok {
		delete(s.items, key)
		s.held -= v.weight()
		v.dropped()
	}
}

// drop forgets a key that was removed from the store.
func (s *shard[K, V]) drop(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed++
	s.remove(key)
}

// note counts a change and returns what is kept under key.
func (s *shard[K, V]) note(key K) V {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed++
	return s.items[key]
}

func (s *shard[K, V]) dropAll(closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed++
	s.closed = closed
	for _, v := range s.items {
		v.dropped()
	}
	clear(s.items)
	s.held = 0
}

func (s *shard[K, V]) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.items)
}

// ticket is a ticket in memory: what a request with its cookie needs. It holds no
// secret, not even a sealed one; whoever needs that reads the store.
type ticket struct {
	made       atomic.Pointer[view]  // the last; there is one from the first use on
	place      *atomic.Pointer[view] // of made, unless it is another's at the moment
	id, origin string                // id is that of the login
}

// lastUsed is before everything once the login has been dropped: the ticket would
// keep it in memory, where nobody counts it any more.
func (t *ticket) lastUsed() int64 {
	if l := t.made.Load().login; l.seen.Load() != gone {
		return l.used.Load()
	}
	return 0
}

// weight includes what package proxy keeps with a session.
func (t *ticket) weight() int { return 2 << 10 }

// login is a login in memory, shared by its tickets. What every request looks at
// stands together.
type login struct {
	snap atomic.Pointer[snapshot]
	// seen is the highest version the store announced. A snapshot below it is
	// old. gone is above all versions.
	seen atomic.Uint64
	// used is the last use, in nanoseconds since 1970.
	used       atomic.Int64
	persisting atomic.Bool

	id    string
	bytes int // of the record when it was read

	mu      sync.Mutex // for the refresh, see refresh.go
	flight  *flight
	retryAt int64
	failed  int
}

const gone = math.MaxUint64

// account is what requests see of a login. It never changes, and versions of a
// login that say the same share it.
type account struct {
	identity         access.Identity
	created, expires time.Time
	// lists are the groups and other lists of the identity. Who has the same shares
	// them.
	lists [4]*access.Texts
}

// says reports whether a record says the same.
func (a *account) says(rec *loginRecord) bool {
	return a.created.Equal(rec.Created) && a.expires.Equal(rec.Expires) && reflect.DeepEqual(&a.identity, &rec.Identity)
}

// entry describes the login of an ID for requests to an origin.
func (a *account) entry(id, origin string) Entry {
	return Entry{Session: access.Session{ID: id, Created: a.created, Expires: a.expires}, Identity: &a.identity, Origin: origin}
}

// snapshot is a login as the store had it at one version, as far as it is needed
// to serve requests. It never changes.
type snapshot struct {
	*account
	version, renewal uint64
	// The times every request looks at, in nanoseconds since 1970; refreshAt and
	// due are 0 if the identity is not refreshed.
	ends, persisted, refreshAt, due int64
}

// snapshot returns what a record says, which is left as it is. before is an
// earlier one, if there is one.
func (n *names) snapshot(rec *loginRecord, version uint64, before *snapshot) *snapshot {
	s := &snapshot{version: version, renewal: rec.Renewal, ends: rec.Expires.UnixNano(), persisted: rec.Used.UnixNano()}
	if before != nil && before.says(rec) {
		s.account = before.account
	} else {
		s.account = n.account(rec)
	}
	if !rec.Due.IsZero() {
		s.due = rec.Due.UnixNano()
		s.refreshAt = refreshTime(rec.Issued, rec.Due).UnixNano()
	}
	return s
}

func (l *login) lastUsed() int64 { return l.used.Load() }

func (l *login) weight() int { return 1<<10 + 2*l.bytes }

// dropped makes tickets that still point here look the login up again: nobody
// would tell this one about changes any more.
func (l *login) dropped() { l.seen.Store(gone) }

// current returns the latest state, or nil if it has to be read again.
func (l *login) current() *snapshot {
	s := l.snap.Load()
	if s == nil || s.version < l.seen.Load() {
		return nil
	}
	return s
}

// announce notes that the store has a version.
func (l *login) announce(version uint64) {
	for {
		seen := l.seen.Load()
		if version <= seen || l.seen.CompareAndSwap(seen, version) {
			return
		}
	}
}

// install makes s the state unless a later one is there, and returns the later.
func (l *login) install(s *snapshot) *snapshot {
	l.use(s.persisted)
	for {
		have := l.snap.Load()
		if have != nil && have.version >= s.version {
			return have
		}
		if l.snap.CompareAndSwap(have, s) {
			return s
		}
	}
}

// use moves the last use forward.
func (l *login) use(at int64) {
	for {
		used := l.used.Load()
		if at <= used || l.used.CompareAndSwap(used, at) {
			return
		}
	}
}

// touchEvery is how exactly the last use is kept in memory: exact enough, and
// requests of one session on several cores seldom write the same word.
func (m *Manager) touchEvery() int64 { return int64(min(time.Second, m.idle/10)) }

// persistEvery is how exactly it is kept in the store. After a restart a session
// may count as unused for this much too long, never too short.
func (m *Manager) persistEvery() int64 { return int64(m.idle / 10) }
