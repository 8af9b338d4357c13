package serve

import (
	"errors"
	"sync/atomic"
)

// readiness is what /readyz reports: whether a load balancer should send
// visitors here. An identity provider that is down does not count, since
// people who are logged in go on working; neither does an audit log that cannot
// be written, unless requests are refused for it. A store that several share
// counts while this one cannot reach it: another one may.
type readiness struct {
	serving atomic.Bool
	live    *live
}

// sharedStore is a store that others may reach while this process cannot. Err is
// nil while it can.
type sharedStore interface{ Err() error }

var errNotServing = errors.New("starting or shutting down")

func (r *readiness) set(serving bool) { r.serving.Store(serving) }

func (r *readiness) checks() map[string]error {
	checks := map[string]error{"serving": nil}
	if !r.serving.Load() {
		checks["serving"] = errNotServing
	}
	if r.live.shared != nil {
		checks["store"] = r.live.shared.Err()
	}
	if r.live.current.Load().cfg.Audit.Required {
		checks["audit"] = r.live.records.Err()
	}
	return checks
}
