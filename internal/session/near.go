package session

import (
	"crypto/sha256"
	"hash/maphash"
	"sync/atomic"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/fetch"
)

// nearCount is how many places there are: about as many as the default room has
// sessions for, in half a megabyte.
const nearCount = 1 << 16

// near is what a cookie finds first, without a search or a lock: each has one
// place, where the last of those that share it is. The others are found as ever.
type near [nearCount]atomic.Pointer[view]

// view is a session as requests with one cookie see it, with all that a request
// asks about it: in one piece, so that it can be fetched in one go, and with
// pointers to whatever else has to be fetched.
type view struct {
	hash   [sha256.Size]byte // of the cookie
	ticket *ticket
	login  *login
	of     *snapshot // which it was made of
	entry  Entry
	kept   access.Kept
}

// Expect tells that Load will be called for a secret soon. It begins to fetch what
// that takes from memory, and does nothing else: whether the secret opens anything
// is for Load to find out.
func (m *Manager) Expect(secret string) {
	fetch.Of(m.cache.nearby(secret))
}

// nearby is what is in the place of a secret, if anything is: perhaps what it
// opens.
func (c *cache) nearby(secret string) *view {
	if len(secret) != secretSize {
		return nil
	}
	return c.place(secret).Load()
}

// place is where the view of a secret is, if it was the last to come there.
func (c *cache) place(secret string) *atomic.Pointer[view] {
	return &c.near[maphash.String(c.seed, secret)%nearCount]
}

// fetch begins to fetch what a view points to.
func (v *view) fetch() {
	if v != nil {
		fetch.Of(&v.login.snap)
		fetch.Of(v.of)
		fetch.Of(v.entry.Identity)
	}
}

// fits reports whether the view is of a cookie with this hash, and says what is
// known of the login now.
func (v *view) fits(hash *[sha256.Size]byte) bool {
	return v != nil && v.hash == *hash && v.login.current() == v.of
}

// view returns what requests with the cookie of a ticket see, and puts it where
// the next of them finds it first.
func (c *cache) view(hash *[sha256.Size]byte, t *ticket, l *login, s *snapshot) *view {
	v := t.made.Load()
	if v == nil || v.login != l || v.of != s {
		next := &view{hash: *hash, ticket: t, login: l, of: s, entry: s.entry(t.id, t.origin)}
		next.kept.Of, next.kept.Groups = &s.identity, s.lists[0]
		if v != nil && v.of.account == s.account {
			next.kept.Take(&v.kept) // it says the same of the same
		}
		next.entry.Session.Kept = &next.kept
		t.made.Store(next)
		v = next
	}
	// Under the lock, so that none is put there whose ticket has been dropped.
	shard := c.ticketShard(hash)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	if shard.items[*hash] == t {
		t.place.Store(v)
	}
	return v
}

// dropped takes the view of a ticket away.
func (t *ticket) dropped() {
	if v := t.place.Load(); v != nil && v.ticket == t {
		t.place.CompareAndSwap(v, nil)
	}
}
