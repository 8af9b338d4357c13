package proxy

import (
	"cmp"
	"slices"
	"time"
)

// Upstream is how the addresses behind one route are doing, for operators.
type Upstream struct {
	// Route is the id of the route.
	Route string `json:"route"`
	// Balance is how requests are spread.
	Balance string `json:"balance"`
	// Checked tells that there are health checks.
	Checked bool `json:"checked"`
	// Repeated counts requests that were sent to a second address, Refused those
	// that none had room for.
	Repeated uint64           `json:"repeated"`
	Refused  uint64           `json:"refused"`
	Targets  []UpstreamTarget `json:"targets"`
}

// UpstreamTarget is how one address is doing.
type UpstreamTarget struct {
	// Address is such as `https://10.0.0.7:8443`.
	Address string `json:"address"`
	// State is `up`; `down`, because its health checks fail; `ejected`, because it
	// failed visitors; or `failing`: it did, and is used all the same, because it is
	// the only one or enough others are out.
	State string `json:"state"`
	// Since is when that began; zero: it has always been up.
	Since time.Time `json:"since,omitzero"`
	// EjectedFor is how much longer it is left out.
	EjectedFor time.Duration `json:"ejected_for_ns,omitempty"`
	// Warming tells that it came back a moment ago and gets less than its share.
	Warming bool `json:"warming,omitempty"`
	// Open counts requests that have not ended, WebSockets and streams included;
	// Unanswered those of them that have no answer yet; Waiting those that wait for
	// one of max_connections.
	Open       int `json:"open"`
	Unanswered int `json:"unanswered"`
	Waiting    int `json:"waiting"`
	// Failures counts requests in a row that failed, Ejections how often it was
	// left out for that since it was first used.
	Failures  int    `json:"failures"`
	Ejections uint64 `json:"ejections"`
	// LastError is what it failed with last, in words of the operator's log, and
	// FailedAt when.
	LastError string    `json:"last_error,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
}

// Used reports whether the address gets requests while others can be used.
func (t *UpstreamTarget) Used() bool { return t.State == "up" || t.State == "failing" }

// Upstreams returns how the upstreams of all routes are doing, by route.
func (d *Door) Upstreams() []Upstream {
	g := d.live.Load()
	if g == nil {
		return nil
	}
	var list []Upstream
	for _, u := range g.upstreams {
		if len(u.targets) > 0 {
			list = append(list, u.describe())
		}
	}
	slices.SortFunc(list, func(a, b Upstream) int { return cmp.Compare(a.Route, b.Route) })
	return list
}

func (u *upstream) describe() Upstream {
	d := Upstream{Route: u.route, Balance: balances[u.balance], Checked: u.check.asked, Repeated: u.repeated.Load(), Refused: u.refused.Load()}
	for _, t := range u.targets {
		d.Targets = append(d.Targets, u.describeTarget(t))
	}
	return d
}

func (u *upstream) describeTarget(t *target) UpstreamTarget {
	u.usable(t) // what is over is over
	u.share(t)
	u.mu.Lock()
	defer u.mu.Unlock()
	d := UpstreamTarget{
		Address: t.name, State: "up", Since: t.since,
		Open: int(t.open()), Unanswered: int(t.unanswered()), Waiting: int(t.waiting.Load()),
		Failures: int(t.fails.Load()), Ejections: t.ejectedN, LastError: t.lastError, FailedAt: t.failedAt,
	}
	switch standing := t.standing.Load(); {
	case standing&down != 0:
		d.State = "down"
	case standing&ejected != 0:
		d.State, d.EjectedFor = "ejected", time.Duration(t.until.Load())-u.age()
	case standing&struggling != 0:
		d.State = "failing"
	default:
		d.Warming = standing&warming != 0
	}
	return d
}
