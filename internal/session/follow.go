package session

import (
	"context"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// rewatch is the pause before a watch that broke off is begun again.
const rewatch = time.Second

// changeFeed is what the store reports on logins, tickets and revocations.
type changeFeed struct {
	logins, tickets, revoked <-chan store.Change
	end                      context.CancelFunc
}

func (m *Manager) watch() (feed changeFeed, err error) {
	ctx, end := context.WithCancel(m.watching)
	feed.end = end
	if feed.logins, err = m.store.Watch(ctx, loginPrefix); err == nil {
		feed.tickets, err = m.store.Watch(ctx, ticketPrefix)
	}
	if err == nil {
		feed.revoked, err = m.store.Watch(ctx, revokedPrefix)
	}
	if err == nil {
		err = m.revocations.begin(ctx)
	}
	if err != nil {
		end()
	}
	return feed, err
}

// follow keeps the cache true: what another replica changes or removes is read
// again or refused. While the store reports nothing, nothing is kept.
func (m *Manager) follow(feed changeFeed) {
	for {
		m.apply(feed)
		feed.end()
		m.cache.dropAll(true)
		m.revocations.doubt()
		if m.watching.Err() != nil {
			return
		}
		m.signal(access.Signal{})
		m.log.Error("the store stopped reporting changes; every request reads it until it does again")
		for {
			if !pause(m.watching, rewatch) {
				return
			}
			var err error
			if feed, err = m.watch(); err == nil {
				break
			}
			m.log.Warn("the store still reports no changes", "error", err)
		}
		m.cache.dropAll(false)
		m.signal(access.Signal{}) // whatever happened meanwhile
	}
}

// apply takes notice of changes until the feed ends.
func (m *Manager) apply(feed changeFeed) {
	for {
		select {
		case c, ok := <-feed.revoked:
			sig, err := access.Signal{}, error(nil)
			switch {
			case !ok:
				return
			case c.Lost:
				err = m.revocations.begin(m.watching)
			default:
				sig, err = m.revocations.changed(m.watching, c)
			}
			if err != nil {
				m.log.Error("a revocation could not be read", "error", err)
				return // and begin anew
			}
			m.signal(sig)
		case c, ok := <-feed.logins:
			switch {
			case !ok:
				return
			case c.Lost:
				m.cache.dropAll(false)
				m.signal(access.Signal{})
			default:
				id := strings.TrimPrefix(c.Key, loginPrefix)
				m.cache.loginChanged(id, c)
				m.signal(changed(id, c))
			}
		case c, ok := <-feed.tickets:
			switch {
			case !ok:
				return
			case c.Lost:
				m.cache.dropAll(false)
				m.signal(access.Signal{})
			case c.Deleted:
				m.cache.ticketGone(strings.TrimPrefix(c.Key, ticketPrefix))
			}
		}
	}
}

// changed is what to tell of a login that was removed or written. It may have
// been written for another reason than a change of who it is; whoever is told
// finds out.
func changed(id string, c store.Change) access.Signal {
	if c.Deleted {
		return access.Signal{Reason: access.SessionEnded, Session: id}
	}
	return access.Signal{Session: id}
}

func (c *cache) loginChanged(id string, change store.Change) {
	shard := c.loginShard(id)
	if change.Deleted {
		shard.drop(id)
	} else if l := shard.note(id); l != nil {
		l.announce(change.Version)
	}
}

func (c *cache) ticketGone(written string) {
	var hash [secretBytes]byte
	if n, err := encoding.Decode(hash[:], []byte(written)); err == nil && n == len(hash) {
		c.ticketShard(&hash).drop(hash)
	}
}

// pause waits, and reports false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
