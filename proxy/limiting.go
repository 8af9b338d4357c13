package proxy

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// party is who a limit is for.
type party uint8

const (
	ofIdentity party = iota
	ofNetwork
	ofEverybody
	ofStrangers
	parties
)

// parties in words, for header fields and the log.
var partyNames = [parties]string{"identity", "network", "route", "strangers"}

// limitReasons says which limit has refused a request.
var limitReasons = [parties]map[ration]access.Reason{
	ofIdentity:  {tooOften: access.IdentityTooFast, tooManyRequests: access.IdentityTooManyRequests, tooManyStreams: access.IdentityTooManyStreams},
	ofNetwork:   {tooOften: access.NetworkTooFast, tooManyRequests: access.NetworkTooManyRequests, tooManyStreams: access.NetworkTooManyStreams},
	ofEverybody: {tooOften: access.RouteTooFast, tooManyRequests: access.RouteTooManyRequests, tooManyStreams: access.RouteTooManyStreams},
	ofStrangers: {tooOften: access.StrangersTooFast},
}

// limiting is what limits a passage, and what it holds.
type limiting struct {
	network netip.Prefix // invalid: none that is limited
	held    [4]holding
	n       int // how many are held
	// refused is the limit that has refused the request.
	refused struct {
		shortage
		party party
		quota quota
	}
}

// ofMany reports whether the limit of a network has refused the request: behind
// that are as many as like to be, and all of them are refused.
func (l *limiting) ofMany() bool {
	return l.refused.of != enough && (l.refused.party == ofNetwork || l.refused.party == ofStrangers)
}

// use says what the request counts as: whoever only asks about a request does not
// tell when it ends.
func (p *passage) use() use {
	switch {
	case p.answering != ourselves:
		return asQuestion
	case p.tunnel != nil || p.upgrade:
		return asStream
	}
	return asRequest
}

// limit takes what the request needs of one budget, and returns an error if there
// is a shortage.
func (p *passage) limit(who party, key uint64, q *quota, as use) error {
	if q.none() {
		return nil
	}
	held, short := p.door.budgets.take(key, q, as, p.start)
	if short.of != enough {
		return p.overLimit(who, short, q)
	}
	if held.budget != nil {
		held.party = who
		p.limiting.held[p.limiting.n] = held
		p.limiting.n++
	}
	return nil
}

func (p *passage) overLimit(who party, short shortage, q *quota) error {
	r := &p.limiting.refused
	r.shortage, r.party, r.quota = short, who, *q
	return access.Becausef(limitReasons[who][short.of], "limits of %s", partyNames[who])
}

// limitNetwork is the part of station 1 that comes before anything that costs.
func (p *passage) limitNetwork() error {
	l := &p.gen.limits
	p.limiting.network = l.networkOf(p.req.Network.IP)
	if l.network.none() || !p.limiting.network.IsValid() {
		return nil
	}
	return p.limit(ofNetwork, p.networkKey("network", ""), &l.network, p.use())
}

// refuseNetwork answers a request of a network that has sent too much.
func (p *passage) refuseNetwork(err error) {
	switch {
	case p.tunnel != nil && p.tunnel.target != "":
		asTunnel(p.req, p.tunnel.target)
	case p.isReserved():
		p.reserved = true
		p.refuseServing(err)
		return
	}
	// Which route it was for costs nothing to find out, and belongs on the record.
	if entry := p.gen.Routes.Match(p.req.Scheme, p.req.Host, p.req.Path); entry != nil {
		p.entry, p.req.Route = entry, entry.Route.ID
	}
	p.refuseBefore(err)
}

func (p *passage) networkKey(kind, route string) uint64 {
	return networkBudgetKey(kind, route, p.limiting.network)
}

// limitDecided stands between the decision and what it leads to. What the policy
// thinks of the request does not matter: refusals cost, too.
func (p *passage) limitDecided() error {
	as, route := p.use(), p.entry.limits
	id := p.entry.Route.ID
	if route.network.set() && p.limiting.network.IsValid() {
		if err := p.limit(ofNetwork, p.networkKey("network of route", id), &route.network, as); err != nil {
			return err
		}
	}
	switch who := &p.req.Identity; {
	case who.Nobody() && p.req.Fault != "": // on our side; it may be anybody
	case who.Nobody() && p.dec.Outcome != access.Allow:
		if err := p.limitStrangers(); err != nil {
			return err
		}
	case who.Nobody():
	default:
		if p.tunnel != nil {
			as = asQuestion // server.tunnels says how many
		}
		quota, where := p.gen.limits.identity, ""
		if route.identity.set() {
			quota, where = route.identity.or(&quota), id
		}
		if quota.none() {
			break // and its key need not be made
		}
		if err := p.limit(ofIdentity, p.identityKey(where), &quota, as); err != nil {
			return err
		}
	}
	// Last, so that whoever is refused for himself takes nothing from the others.
	if p.dec.Outcome == access.Allow && route.everybody.set() {
		return p.limit(ofEverybody, budgetKey("route", [3]string{id}), &route.everybody, as)
	}
	return nil
}

// identityKey makes a key of who asks, on a route or on all. That for all routes is
// kept with the session.
func (p *passage) identityKey(route string) uint64 {
	who, kept := &p.req.Identity, p.req.Session.Kept
	isKept := route == "" && kept != nil && who.Issuer == kept.Of.Issuer && who.Subject == kept.Of.Subject
	if isKept {
		if key := kept.Budget.Load(); key != 0 {
			return key
		}
	}
	key := budgetKey("identity", [3]string{route, who.Issuer, who.Subject})
	if isKept {
		kept.Budget.Store(key)
	}
	return key
}

// limitStrangers refuses what nobody known asks for, of a network that has asked
// for too much of it. The request itself is charged at its end, when it is clear
// that it was one.
func (p *passage) limitStrangers() error {
	pace := p.gen.limits.strangers
	if pace.every <= 0 || !p.limiting.network.IsValid() {
		return nil
	}
	if wait := p.door.budgets.short(p.networkKey("strangers", ""), pace, p.start); wait > 0 {
		return p.overLimit(ofStrangers, shortage{tooOften, wait}, &quota{pace: pace})
	}
	return nil
}

// tokenReader is an Identifier that tells which requests have a token that it
// would verify. One that does not tell may verify whatever there is.
type tokenReader interface{ ReadsToken(r *http.Request) bool }

// limitCredential is limitStrangers for a request whose token would cost
// something to verify. A token for the application costs nothing here: its sender
// is known by a session, or is not.
func (p *passage) limitCredential() error {
	if len(p.in.Header["Authorization"]) == 0 {
		return nil
	}
	if reader, tells := p.gen.Identify.(tokenReader); tells && !reader.ReadsToken(p.in) {
		return nil
	}
	return p.limitStrangers()
}

// limitReserved is limitStrangers for our own addresses. Logouts and security
// events are always heard, and our keys are for everybody.
func (p *passage) limitReserved() error {
	switch p.req.Path {
	case access.LogoutPath, access.BackChannelPath, access.FrontChannelPath, access.SignalsPath, access.KeysPath, access.ClientKeysPath:
		return nil
	case access.LoginPath, access.CallbackPath, access.ReplayPath:
		return p.limitStrangers()
	}
	return p.limitCredential()
}

// settle gives back what the request holds, and charges its network for what was
// of nobody.
func (p *passage) settle() {
	l := &p.limiting
	for i := range l.n {
		l.held[i].giveBack()
	}
	l.n = 0
	if p.gen == nil || !l.network.IsValid() || p.gen.limits.strangers.every <= 0 || !p.ofStranger() {
		return
	}
	p.door.budgets.charge(p.networkKey("strangers", ""), p.gen.limits.strangers, p.start)
}

// ofStranger reports whether the request was of nobody and came to nothing, or
// began a login.
func (p *passage) ofStranger() bool {
	switch {
	case !p.req.Identity.Nobody():
		return false
	case p.limiting.refused.of != enough:
		return false // it has cost next to nothing; the budget recovers at its pace
	case p.decided:
		return p.dec.Outcome != access.Allow && !ours(p.dec.Reason)
	}
	switch p.req.Path {
	case access.LoginPath, access.CallbackPath, access.ReplayPath:
		return true
	}
	reason := p.event.Response.Reason
	return reason != "" && !ours(reason) || p.req.Credential.Problem != ""
}

// ours reports whether a reason is a failure on our side: while the store is
// down, nobody is known.
func ours(reason access.Reason) bool { return reason.Info().Status >= http.StatusInternalServerError }

// becomesStream counts the request as a stream from here on: its answer has no
// end.
func (p *passage) becomesStream() error {
	for i := range p.limiting.n {
		held := &p.limiting.held[i]
		if !held.becomesStream() {
			return p.overLimit(held.party, shortage{of: tooManyStreams}, &quota{streams: held.streams})
		}
	}
	return nil
}

// tellLimit says when to come back (RFC 9110 §10.2.3), and which limit it was, in
// the fields of draft-ietf-httpapi-ratelimit-headers. Only a refusal has them: in
// an application's answer they are the application's.
func (p *passage) tellLimit(h http.Header) {
	r := &p.limiting.refused
	if r.of == enough {
		return
	}
	name := strconv.Quote(partyNames[r.party])
	wait := "1" // whatever is under way may end at any moment
	switch r.of {
	case tooOften:
		wait = seconds(r.wait)
		window := time.Duration(r.quota.burst) * r.quota.every
		h.Set("RateLimit-Policy", fmt.Sprintf("%s;q=%d;w=%s", name, r.quota.burst, seconds(window)))
		h.Set("RateLimit", fmt.Sprintf("%s;r=0;t=%s", name, wait))
	case tooManyRequests:
		h.Set("RateLimit-Policy", fmt.Sprintf(`%s;q=%d;qu="concurrent-requests"`, name, r.quota.concurrent))
		h.Set("RateLimit", name+";r=0")
	}
	h.Set("Retry-After", wait)
}

// seconds writes a time in whole seconds, rounded up.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}
