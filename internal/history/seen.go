package history

import (
	"maps"
	"slices"
)

// maxSeen is how many people and machines are kept in mind.
const maxSeen = 20_000

// seen holds the latest record of everybody, by user or by user and device, with
// what was known of them then.
type seen map[string]*Record

// keep remembers the later of two records. The id decides between two of one
// moment, so that the order of files does not.
func (s seen) keep(key string, r *Record) {
	have := s[key]
	switch {
	case have == nil && len(s) >= maxSeen:
	case have == nil || r.Time.After(have.Time) || r.Time.Equal(have.Time) && r.RequestID > have.RequestID:
		s[key] = r
	}
}

func (s seen) add(more seen) {
	for _, key := range more.keys() {
		s.keep(key, more[key])
	}
}

func (s seen) keys() []string { return slices.Sorted(maps.Keys(s)) }
