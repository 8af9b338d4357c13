package access

// Upstream says how the addresses in `to` are used. Without it a route is well
// behaved already; docs/upstreams.md has the whole story.
type Upstream struct {
	// Balance says which address a request goes to: `round_robin`, each in turn;
	// `least_requests`, the one of two chosen by chance that has fewer requests open;
	// `session`, always the same one for a session, or for a machine, as long as it
	// can be used. Default `round_robin`.
	Balance string `yaml:"balance"`
	// TryTimeout is how long one address may take until it sends response headers,
	// before another one is asked. It counts for requests that may be asked again,
	// where there is another address, and is part of `timeout`. Default: `timeout`.
	TryTimeout Duration `yaml:"try_timeout"`
	// BodyTimeout is how long an answer may bring nothing once it has begun. Event
	// streams, gRPC and WebSockets are exempt. Default: `timeout` for an answer
	// that says how long it is; no limit for others, which may be streams.
	BodyTimeout Duration `yaml:"body_timeout"`
	// RetryPercent is how many of a hundred requests may be sent to a second address
	// after the first one had them and did not answer; ten in ten seconds always
	// may. -1 sends nothing twice. Default 20.
	RetryPercent int `yaml:"retry_percent"`
	// MaxConnections is how many requests one address has open at most, streams,
	// downloads and WebSockets included. Others wait. Default: no limit.
	MaxConnections int `yaml:"max_connections"`
	// MaxWaiting is how many requests wait at most for one address with
	// max_connections. Others are answered 503 at once; -1 lets none wait. Default:
	// as many as max_connections.
	MaxWaiting int `yaml:"max_waiting"`
	// MaxUnanswered is how many requests one address may have that it has not begun
	// to answer. Others are answered 503 at once. Default 2048.
	MaxUnanswered int `yaml:"max_unanswered"`
	// SlowStart is how long an address that comes back gets less than its share, so that it
	// can warm up. Sessions go back at once. Default 10s.
	SlowStart Duration `yaml:"slow_start"`
	// Client says which client speaks to addresses of the scheme http: `standard` is
	// the one of Go's standard library, which speaks to https and h2c in any case.
	// Default: Doorward's own, which costs less and reads answers more strictly; see
	// docs/upstream-client.md.
	Client string `yaml:"client"`
	// Health has the addresses asked now and then whether they are well.
	Health HealthCheck `yaml:"health"`
	// Eject says when an address that fails visitors is left out for a while.
	Eject Eject `yaml:"eject"`
}

// HealthCheck is a request that an upstream that is well answers. It carries
// nothing about a visitor, and no assertion.
type HealthCheck struct {
	// Path is what is asked for, with GET, such as `/healthz`. Without it nothing
	// is asked.
	Path string `yaml:"path"`
	// Interval is the time between two checks, a tenth more or less. At least 1s.
	// Default 10s.
	Interval Duration `yaml:"interval"`
	// Timeout is how long an answer may take; at most the interval. Default 2s, or
	// the interval where that is shorter.
	Timeout Duration `yaml:"timeout"`
	// Statuses lists the answers of an upstream that is well. Default: 200 to 299.
	Statuses []int `yaml:"statuses"`
	// Down is how many checks in a row have to fail before an address is left out.
	// The first one after the start suffices. Default 3.
	Down int `yaml:"down"`
	// Up is how many checks in a row have to succeed before it is used again.
	// Default 2.
	Up int `yaml:"up"`
}

// Eject says when an address is left out because of what visitors' requests met
// there: no connection, no answer in time, a broken answer, 502, 503 or 504.
type Eject struct {
	// After is how many requests in a row have to fail. -1 leaves none out. Default 5.
	After int `yaml:"after"`
	// For is how long it is left out the first time. Each time soon after makes it
	// twice as long, up to 5m. Default 10s.
	For Duration `yaml:"for"`
	// MaxPercent is how many of a hundred addresses may be out before no more are
	// ejected; one of two or more always may. At most 99. Default 50.
	MaxPercent int `yaml:"max_percent"`
}
