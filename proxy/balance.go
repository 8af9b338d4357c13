package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

var errBusy = errors.New("the upstream has as many requests as it may have (max_unanswered, max_connections, max_waiting)")

// enter chooses the target of a request among those that were not tried, and
// counts the request there until leaveTarget. Nil, nil: all were tried. turn counts the
// requests of the upstream.
//
// A lone target is the one, whatever is known against it. Where nothing can be
// used, everything is: a health check that is wrong must not turn into an outage,
// and a target that is down refuses by itself. It is not if somebody may have had
// the request already (again).
func (u *upstream) enter(p *passage, turn uint64, ctx context.Context, tried []*target, again bool) (*target, error) {
	if len(u.targets) == 1 && u.mostOpen == 0 {
		if t := u.targets[0]; t.enter(u.mostUnanswered) {
			return t, nil
		}
		u.refused.Add(1)
		return nil, access.Because(access.UpstreamBusy, errBusy)
	}
	var room [16]*target
	list := u.candidates(room[:0], tried, !again)
	if len(list) == 0 {
		return nil, nil
	}
	first := u.choose(p, turn, list)
	for i := range list { // whoever has room, beginning with the chosen one
		t := list[(first+i)%len(list)]
		if !t.take() {
			continue
		}
		if t.enter(u.mostUnanswered) {
			return t, nil
		}
		t.giveBack()
	}
	for i := range list {
		t := list[(first+i)%len(list)]
		if t.slots == nil || !t.wait(ctx.Done(), u.mostWaiting) {
			continue
		}
		if t.enter(u.mostUnanswered) {
			return t, nil
		}
		t.giveBack()
	}
	u.refused.Add(1)
	return nil, access.Because(access.UpstreamBusy, errBusy)
}

// hasOther reports whether a target can be used that was not tried.
func (u *upstream) hasOther(tried []*target) bool {
	for _, t := range u.targets {
		if u.usable(t) && !slices.Contains(tried, t) {
			return true
		}
	}
	return false
}

// candidates appends the targets that may be used for a request; all that were not
// tried as a last resort.
func (u *upstream) candidates(list, tried []*target, lastResort bool) []*target {
	for _, t := range u.targets {
		if u.usable(t) && !slices.Contains(tried, t) {
			list = append(list, t)
		}
	}
	if len(list) > 0 || !lastResort {
		return list
	}
	for _, t := range u.targets {
		if !slices.Contains(tried, t) {
			list = append(list, t)
		}
	}
	return list
}

// choose returns the index of the target that a request should go to. For
// sessions it sorts the list, so that those behind it are the next best.
func (u *upstream) choose(p *passage, turn uint64, list []*target) int {
	if len(list) == 1 {
		return 0
	}
	next := int(turn % uint64(len(list)))
	switch u.balance {
	case leastRequests:
		a := rand.IntN(len(list))
		b := (a + 1 + rand.IntN(len(list)-1)) % len(list)
		if u.burden(list[b]) < u.burden(list[a]) {
			return b
		}
		return a
	case bySessionHash:
		key := stickiness(p.req)
		if key == 0 {
			return next
		}
		slices.SortFunc(list, func(a, b *target) int {
			switch x, y := mix(key^a.hash), mix(key^b.hash); {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return 0
		})
		return 0
	default:
		if t := list[next]; t.standing.Load()&warming != 0 && rand.Float64() >= u.share(t) {
			return (next + 1) % len(list)
		}
		return next
	}
}

// burden is how much a target has to do, measured by what it should have.
func (u *upstream) burden(t *target) float64 { return float64(t.open()+1) / u.share(t) }

// stickiness returns what stands for the session of a request, or for who asks
// without one; 0 for nobody.
func stickiness(req *access.Request) uint64 {
	switch {
	case req.Session.ID != "":
		return hashOf(req.Session.ID)
	case req.Identity.Subject != "":
		return hashOf(req.Identity.Issuer) ^ mix(hashOf(req.Identity.Subject))
	}
	return 0
}

// hashOf is FNV-1a: the same on every replica and after every start.
func hashOf(text string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return h
}

// mix spreads what differs in a few bits over all of them (the finalizer of
// SplitMix64), so that sessions divide evenly among targets, and those of a
// target that is out among the others.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
