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

// see returns what requests with the cookie of a ticket see of a login as it was at
// some time. Uses that the login before knows of and the store does not are carried
// over, and so is what was made for it, while it says the same.
func (t *ticket) see(hash *[sha256.Size]byte, l *login, s *snapshot) *view {
	before := t.made.Load()
	if before != nil && before.login == l && before.of == s {
		return before
	}
	v := &view{hash: *hash, ticket: t, login: l, of: s, entry: s.entry(t.id, t.origin)}
	v.kept.Of, v.kept.Groups = &s.identity, s.lists[0]
	v.entry.Session.Kept = &v.kept
	if before != nil {
		l.use(before.login.used.Load())
		if before.of.account == s.account {
			v.kept.Take(&before.kept)
		}
	}
	t.made.Store(v)
	return v
}

// put puts a view where its cookie finds it first, or one that was made of the same
// ticket meanwhile. That happens under the lock under which tickets are dropped, so
// that nothing stays there whose ticket has been.
func (c *cache) put(v *view) *view {
	shard := c.ticketShard(&v.hash)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	if t := v.ticket; shard.items[v.hash] == t {
		t.place.Store(t.made.Load())
	}
	return v
}

// dropped takes the view of a ticket away.
func (t *ticket) dropped() {
	if v := t.place.Load(); v != nil && v.ticket == t {
		t.place.CompareAndSwap(v, nil)
	}
}
