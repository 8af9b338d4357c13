package access

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limit is how much of a door one party may use. What is zero takes a default; -1
// sets no limit.
type Limit struct {
	// Rate is how many requests may come in the long run, such as `100/s`, `600/m`
	// or `1000/h`; `none` sets no limit.
	Rate Rate `yaml:"rate"`
	// Burst is how many requests may come at once after a pause. Default: the number
	// in `rate`.
	Burst int `yaml:"burst"`
	// Concurrent is how many requests may be under way at the same time; -1 sets no
	// limit. What counts as a stream does not count here.
	Concurrent int `yaml:"concurrent"`
	// Streams is how many WebSockets and event streams may be open at the same time;
	// -1 sets no limit.
	Streams int `yaml:"streams"`
}

// RouteLimits are the limits of one route.
type RouteLimits struct {
	// Identity limits each person and each machine on this route, in place of
	// server.limits.identity and counted apart from it. What it leaves out is as it
	// is there.
	Identity Limit `yaml:"identity"`
	// Network limits what comes to this route from one network (see
	// server.limits.network, which holds as well). Default: no limit.
	Network Limit `yaml:"network"`
	// Everybody limits what comes to this route from all together, so that it stays
	// within what the application can take. Default: no limit.
	Everybody Limit `yaml:"everybody"`
}

// Validate reports every mistake in the limit.
func (l *Limit) Validate(f Faults) {
	if l.Burst < 0 {
		f.At("burst").Add("write 200, or leave it out", "%d is no number of requests", l.Burst)
	}
	if l.Burst > 0 && l.Rate.none {
		f.At("burst").Add("remove it, or write a rate", "without a rate nothing is counted that could come at once")
	}
	if l.Burst > mostBurst {
		f.At("burst").Add("", "%d is more than %d", l.Burst, mostBurst)
	}
	for key, n := range map[string]int{"concurrent": l.Concurrent, "streams": l.Streams} {
		if n < -1 || n > mostAtOnce {
			f.At("%s", key).Add("write -1 for no limit", "%d is not between 1 and %d", n, mostAtOnce)
		}
	}
}

const (
	mostRate   = 1_000_000 // per second
	mostBurst  = 1_000_000
	mostAtOnce = 1_000_000
)

// Rate is how often something may happen, as the configuration writes it:
// `100/s`, `600/m`, `1000/h`, or `none` for no limit. The zero value says nothing.
type Rate struct {
	count int
	per   time.Duration
	none  bool
}

// PerSecond is the rate of n in a second.
func PerSecond(n int) Rate { return Rate{count: n, per: time.Second} }

var ratePeriods = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// IsZero reports whether nothing was written.
func (r Rate) IsZero() bool { return r == Rate{} }

// Unlimited reports whether it was written that there is no limit.
func (r Rate) Unlimited() bool { return r.none }

// Count is the number that was written, 0 if none was.
func (r Rate) Count() int { return r.count }

// Every is the time between two at an even pace; 0 where there is no limit.
func (r Rate) Every() time.Duration {
	if r.count <= 0 {
		return 0
	}
	return r.per / time.Duration(r.count)
}

// String returns the notation of the configuration.
func (r Rate) String() string {
	if r.none {
		return "none"
	}
	for unit, per := range ratePeriods {
		if per == r.per {
			return strconv.Itoa(r.count) + "/" + unit
		}
	}
	return ""
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "none" {
		*r = Rate{none: true}
		return nil
	}
	number, unit, _ := strings.Cut(s, "/")
	per, known := ratePeriods[unit]
	n, err := strconv.Atoi(number)
	if !known || err != nil || n < 1 {
		return fmt.Errorf("%q is no rate: write 100/s, 600/m, 1000/h or none", s)
	}
	if int64(n) > mostRate*int64(per/time.Second) {
		return fmt.Errorf("%q is more than %d/s: write none for no limit", s, mostRate)
	}
	*r = Rate{count: n, per: per}
	return nil
}
