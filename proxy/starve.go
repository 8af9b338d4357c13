package proxy

import (
	"errors"
	"net/http"
)

// An answer that has begun may stop coming. No timer runs for that: the look that
// is taken at everything open once in a round (live.go) finds it.

var errStarved = errors.New("the upstream stopped in the middle of its answer (body_timeout)")

// patience returns for how many rounds an answer may bring nothing; 0: it may be a
// stream.
func (p *passage) patience(res *http.Response) uint32 {
	s := &p.entry.settings
	limit := s.bodyTimeout
	if limit == 0 && res.ContentLength > 0 {
		limit = s.timeout
	}
	return uint32((limit + roundTime - 1) / roundTime)
}

// awaits notes that the upstream is awaited to bring something within so many
// rounds, or that it has.
func (st *stream) awaits(rounds uint32) {
	if rounds == 0 {
		if st.until.Load() != 0 {
			st.until.Store(0)
		}
		return
	}
	until := st.passage.door.streams.rounds.Load() + rounds
	st.until.Store(max(1, until)) // 0 has another meaning
}

// starve ends a stream whose upstream brings nothing.
func (st *stream) starve() {
	st.mu.Lock()
	left := st.left || st.why != ""
	st.mu.Unlock()
	if left {
		return
	}
	st.starved.Store(true)
	st.passage.flight.End(errStarved)
}
