package proxy

import (
	"net/netip"

	"github.com/doorward/doorward/internal/access"
)

// Limits is the section `server.limits`: how much of the door one party may use,
// so that it cannot get in the way of others. Every replica counts for itself.
type Limits struct {
	// Identity limits each person and each machine, on all routes together that set
	// no limits.identity of their own. Default: 512 requests under way and 2048
	// streams, at any rate.
	Identity access.Limit `yaml:"identity"`
	// Network limits everything that comes from one network, before anything else
	// is looked at. Default: no limit, since a whole office may share one address.
	Network access.Limit `yaml:"network"`
	// Strangers limits what comes from one network and is of nobody: logins that
	// begin, requests that would need a login, tokens that are not accepted.
	Strangers Strangers `yaml:"strangers"`
	// IPv4Prefix is how many bits of an IPv4 address make one network. Default 32:
	// every address is one.
	IPv4Prefix int `yaml:"ipv4_prefix"`
	// IPv6Prefix is the same for IPv6. Default 64, what one subscriber has.
	IPv6Prefix int `yaml:"ipv6_prefix"`
	// Exempt lists the networks (`10.0.0.7`, `10.1.0.0/24`) that no limit of a
	// network or of strangers is for.
	Exempt []string `yaml:"exempt"`
}

// Strangers limits those who are not known.
type Strangers struct {
	// Rate is how many such requests may come in the long run, such as `100/s`;
	// `none` sets no limit. Default `200/s`.
	Rate access.Rate `yaml:"rate"`
	// Burst is how many may come at once after a pause. Default: ten times the
	// number in `rate`.
	Burst int `yaml:"burst"`
}

// What holds where nothing is written. People and nearly all programs stay far
// below, so that nobody is refused who does not keep others waiting.
const (
	defaultConcurrent     = 512
	defaultStreams        = 2048
	defaultStrangers      = 200 // per second
	defaultStrangersBurst = 10  // times the rate
	defaultIPv4Prefix     = 32
	defaultIPv6Prefix     = 64
)

// Validate reports every mistake in the section.
func (l *Limits) Validate(f access.Faults) {
	l.Identity.Validate(f.At("identity"))
	l.Network.Validate(f.At("network"))
	strangers := access.Limit{Rate: l.Strangers.Rate, Burst: l.Strangers.Burst}
	strangers.Validate(f.At("strangers"))
	if n := l.IPv4Prefix; n < 0 || n > 32 {
		f.At("ipv4_prefix").Add("write 32", "%d is not between 1 and 32", n)
	}
	if n := l.IPv6Prefix; n < 0 || n > 128 {
		f.At("ipv6_prefix").Add("write 64", "%d is not between 1 and 128", n)
	}
	for i, text := range l.Exempt {
		if _, err := parsePrefix(text); err != nil {
			f.At("exempt[%d]", i).Add("write 10.0.0.7 or 10.1.0.0/24", "%q is no address or network", text)
		}
	}
}

func validateRouteLimits(route *access.Route, f access.Faults) {
	route.Limits.Identity.Validate(f.At("identity"))
	route.Limits.Network.Validate(f.At("network"))
	route.Limits.Everybody.Validate(f.At("everybody"))
}

// limits are the section in numbers.
type limits struct {
	identity, network  quota
	strangers          pace
	ipv4Bits, ipv6Bits int
	exempt             []netip.Prefix
}

// routeLimits are those of a route. What its identity leaves out is still open.
type routeLimits struct{ identity, network, everybody quota }

func newRouteLimits(c *access.RouteLimits) routeLimits {
	return routeLimits{quotaOf(c.Identity), quotaOf(c.Network), quotaOf(c.Everybody)}
}

func newLimits(c *Limits) (limits, error) {
	l := limits{
		identity: quotaOf(c.Identity), network: quotaOf(c.Network),
		strangers: quotaOf(access.Limit{Rate: c.Strangers.Rate, Burst: c.Strangers.Burst}).pace,
		ipv4Bits:  orDefault(c.IPv4Prefix, defaultIPv4Prefix), ipv6Bits: orDefault(c.IPv6Prefix, defaultIPv6Prefix),
	}
	l.identity.concurrent = orDefault(l.identity.concurrent, defaultConcurrent)
	l.identity.streams = orDefault(l.identity.streams, defaultStreams)
	if rate := c.Strangers.Rate; !rate.Unlimited() {
		if rate.IsZero() {
			l.strangers = quotaOf(access.Limit{Rate: access.PerSecond(defaultStrangers)}).pace
		}
		l.strangers.burst = orDefault(c.Strangers.Burst, defaultStrangersBurst*orDefault(rate.Count(), defaultStrangers))
	}
	for _, text := range c.Exempt {
		prefix, err := parsePrefix(text)
		if err != nil {
			return l, err
		}
		l.exempt = append(l.exempt, prefix)
	}
	return l, nil
}

// quotaOf is a limit in numbers: 0 where nothing is written, -1 where no limit is
// wanted.
func quotaOf(c access.Limit) quota {
	q := quota{pace{c.Burst, c.Rate.Every()}, c.Concurrent, c.Streams}
	if c.Rate.Unlimited() {
		q.every = -1
	}
	if q.burst == 0 {
		q.burst = c.Rate.Count()
	}
	return q
}

// or fills in what the quota leaves open.
func (q quota) or(other *quota) quota {
	if q.every == 0 {
		q.every = other.every
		if q.burst == 0 {
			q.burst = other.burst
		}
	}
	q.concurrent = orDefault(q.concurrent, other.concurrent)
	q.streams = orDefault(q.streams, other.streams)
	return q
}

// set reports whether anything is written, be it that there is no limit.
func (q *quota) set() bool {
	return q.every != 0 || q.burst != 0 || q.concurrent != 0 || q.streams != 0
}

// network returns the network that an address belongs to, invalid for one that no
// limit is for: an exempt one, and none at all, such as that of a socket.
func (l *limits) networkOf(addr netip.Addr) netip.Prefix {
	if !addr.IsValid() || listed(l.exempt, addr) {
		return netip.Prefix{}
	}
	bits := l.ipv6Bits
	if addr.Is4() {
		bits = l.ipv4Bits
	}
	prefix, _ := addr.Prefix(bits) // the bits are within bounds
	return prefix
}
