package proxy

import (
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// balance says which address of an upstream a request goes to.
type balance uint8

const (
	roundRobin balance = iota
	leastRequests
	bySessionHash
)

var balances = []string{roundRobin: "round_robin", leastRequests: "least_requests", bySessionHash: "session"}

// settings are what a route says about the use of its addresses, with defaults
// in the place of what it leaves out.
type settings struct {
	balance        balance
	timeout        time.Duration // until the headers of an answer
	tryTimeout     time.Duration // 0: as long as timeout
	bodyTimeout    time.Duration // 0: as long as timeout, where the length is known
	retryPercent   int           // 0: nothing is sent twice
	mostOpen       int           // 0: no limit
	mostWaiting    int
	mostUnanswered int64
	slowStart      time.Duration
	check          check
	ejectAfter     uint32 // 0: never
	ejectFor       time.Duration
	ejectPercent   int
	standardClient bool
	checkHost      string // of health checks; "": that of the address
}

// check is what a health check asks, how often, and what counts.
type check struct {
	asked             bool // false: nothing is
	path              pathname
	query             string
	interval, timeout time.Duration
	statuses          []int // nil: 200 to 299
	down, up          int
}

const (
	defaultRetryPercent  = 20
	defaultUnanswered    = 2048
	defaultSlowStart     = 10 * time.Second
	defaultCheckInterval = 10 * time.Second
	defaultCheckTimeout  = 2 * time.Second
	defaultDown          = 3
	defaultUp            = 2
	defaultEjectAfter    = 5
	defaultEjectFor      = 10 * time.Second
	defaultEjectPercent  = 50
	longestEject         = 5 * time.Minute

	mostConnections = 1 << 20
	mostCount       = 1000 // of checks and failures in a row
	longestTimeout  = 24 * time.Hour
)

// compileUpstream reads what the route says about the use of its addresses, and
// reports every mistake.
func (e *Entry) compileUpstream(f access.Faults) {
	c := &e.Route.Upstream
	s := &e.settings
	*s = settings{
		timeout:        e.Route.Timeout.Or(defaultTimeout),
		tryTimeout:     c.TryTimeout.Std(),
		bodyTimeout:    c.BodyTimeout.Std(),
		retryPercent:   max(0, orDefault(c.RetryPercent, defaultRetryPercent)),
		mostOpen:       c.MaxConnections,
		mostWaiting:    max(0, orDefault(c.MaxWaiting, c.MaxConnections)),
		mostUnanswered: int64(orDefault(c.MaxUnanswered, defaultUnanswered)),
		slowStart:      c.SlowStart.Or(defaultSlowStart),
		ejectAfter:     uint32(max(0, orDefault(c.Eject.After, defaultEjectAfter))),
		ejectFor:       c.Eject.For.Or(defaultEjectFor),
		ejectPercent:   orDefault(c.Eject.MaxPercent, defaultEjectPercent),
		standardClient: c.Client == standardClient,
	}
	if c.Client != "" && c.Client != standardClient {
		f.At("client").Add("write standard, or leave it out", "%q is no client", c.Client)
	}
	if i := slices.Index(balances, c.Balance); i >= 0 {
		s.balance = balance(i)
	} else if c.Balance != "" {
		f.At("balance").Add("one of round_robin, least_requests, session", "%q is no way to choose an address", c.Balance)
	}
	if c.TryTimeout.Std() > s.timeout {
		f.At("try_timeout").Add("write less than timeout", "%s is longer than timeout, %s", c.TryTimeout, s.timeout)
	}
	within(f, "retry_percent", c.RetryPercent, -1, 100, "write -1 to send nothing twice")
	within(f, "max_connections", c.MaxConnections, 1, mostConnections, "leave it out for no limit")
	within(f, "max_waiting", c.MaxWaiting, -1, mostConnections, "write -1 to let none wait")
	within(f, "max_unanswered", c.MaxUnanswered, 1, mostConnections, "")
	if c.MaxWaiting != 0 && c.MaxConnections == 0 {
		f.At("max_waiting").Add("add max_connections", "nothing waits without max_connections")
	}
	within(f.At("eject"), "after", c.Eject.After, -1, mostCount, "write -1 to leave none out")
	within(f.At("eject"), "max_percent", c.Eject.MaxPercent, 1, 99, "")
	for key, d := range map[string]access.Duration{"body_timeout": c.BodyTimeout, "slow_start": c.SlowStart, "eject.for": c.Eject.For} {
		if d.Std() > longestTimeout {
			f.At("%s", key).Add("", "%s is longer than %s", d, longestTimeout)
		}
	}
	e.compileCheck(f.At("health"))
}

// compileCheck reads what health checks are like.
func (e *Entry) compileCheck(f access.Faults) {
	c := &e.Route.Upstream.Health
	if c.Path == "" {
		if c.Interval != 0 || c.Timeout != 0 || len(c.Statuses) > 0 || c.Down != 0 || c.Up != 0 {
			f.At("path").Add("write /healthz, or whatever the application answers to", "nothing is asked without a path")
		}
		return
	}
	s := &e.settings.check
	*s = check{asked: true, interval: c.Interval.Or(defaultCheckInterval), statuses: c.Statuses,
		down: orDefault(c.Down, defaultDown), up: orDefault(c.Up, defaultUp)}
	s.timeout = c.Timeout.Or(min(defaultCheckTimeout, s.interval))
	path, query, _ := strings.Cut(c.Path, "?")
	var err error
	if s.path, err = parsePathname(path); err == nil {
		err = checkQuery(query)
	}
	if s.query = query; err != nil {
		f.At("path").Add("write /healthz", "%q: %v", c.Path, err)
	}
	if s.interval < time.Second || s.interval > longestTimeout {
		f.At("interval").Add("write 10s", "%s is not between 1s and %s", c.Interval, longestTimeout)
	}
	if s.timeout > s.interval {
		f.At("timeout").Add("write 2s", "%s is longer than the interval, %s", c.Timeout, s.interval)
	}
	for i, status := range c.Statuses {
		if status < 200 || status > 599 {
			f.At("statuses[%d]", i).Add("write 200", "%d is no status of an answer", status)
		}
	}
	within(f, "down", c.Down, 1, mostCount, "")
	within(f, "up", c.Up, 1, mostCount, "")
	e.settings.checkHost = e.shape.host
	if e.Route.PreserveHost {
		if _, host, _, err := parseFrom(e.Route.From); err == nil && host[0] != '*' {
			e.settings.checkHost = host
		}
	}
}

// within reports a number that is neither 0, which means a default, nor between
// two others.
func within(f access.Faults, key string, n, low, high int, cure string) {
	if n != 0 && (n < low || n > high) {
		f.At("%s", key).Add(cure, "%d is not between %d and %d", n, max(low, 1), high)
	}
}
