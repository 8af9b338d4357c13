package history

import (
	"maps"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

// maxSeen is how many people and machines are kept in mind.
const maxSeen = 20_000

// seen holds, by user, the latest request of everybody with what was known of
// them then: identity, device and network.
type seen map[string]*access.Request

func (s seen) note(r *Record) {
	id := &r.Request.Identity
	if id.Nobody() {
		return
	}
	s.keep(id.User(), r.Request)
}

// keep remembers the later of two requests. The id decides between two of one
// moment, so that the order of files does not.
func (s seen) keep(user string, req *access.Request) {
	have := s[user]
	switch {
	case have == nil && len(s) >= maxSeen:
	case have == nil || req.Time.After(have.Time) || req.Time.Equal(have.Time) && req.ID > have.ID:
		s[user] = req
	}
}

func (s seen) add(more seen) {
	for _, user := range slices.Sorted(maps.Keys(more)) {
		s.keep(user, more[user])
	}
}

func (s seen) users() []string { return slices.Sorted(maps.Keys(s)) }
