package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// mostCheckBytes is how much of an answer to a health check is read, so that its
// connection can be used again.
const mostCheckBytes = 64 << 10

// startChecks begins the health checks of upstreams that are new in this
// generation. They end with ctx, or when no later generation has the upstream.
func (g *generation) startChecks(ctx context.Context) {
	for _, u := range g.upstreams {
		if !u.check.asked || u.stop != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		u.stop = stop
		for _, t := range u.targets {
			go u.watch(ctx, t)
		}
	}
}

func (u *upstream) stopChecks() {
	if u.stop != nil {
		u.stop()
	}
}

// watch asks a target at once, and then again after each interval: a tenth more
// or less, so that replicas and targets do not keep step.
func (u *upstream) watch(ctx context.Context, t *target) {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		err := u.askHealth(ctx, t)
		if ctx.Err() != nil {
			return // says nothing about the target
		}
		u.checked(t, err)
		next.Reset(u.check.interval*9/10 + rand.N(u.check.interval/5))
	}
}

// askHealth asks a target whether it is well; an error says why it is not.
func (u *upstream) askHealth(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, u.check.timeout)
	defer cancel()
	res, err := u.transport.RoundTrip(u.healthRequest(t).WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil {
			err = &lateError{u.check.timeout, "health.timeout"}
		}
		return fmt.Errorf("health check: %w", err)
	}
	defer res.Body.Close()
	io.CopyN(io.Discard, res.Body, mostCheckBytes)
	if !u.check.accepts(res.StatusCode) {
		return fmt.Errorf("health check: it answered %d", res.StatusCode)
	}
	return nil
}

// healthRequest says nothing about anybody, and carries no assertion.
func (u *upstream) healthRequest(t *target) *http.Request {
	req := &http.Request{
		Method: http.MethodGet, Host: u.checkHost,
		URL:    &url.URL{Scheme: t.url.Scheme, Host: t.url.Host, Path: u.check.path.Path, RawPath: u.check.path.Escaped, RawQuery: u.check.query},
		Header: http.Header{"User-Agent": {"doorward-health"}},
	}
	if req.Host == "" {
		req.Host = t.url.Host
	}
	return req
}

func (c *check) accepts(status int) bool {
	if c.statuses == nil {
		return status/100 == 2
	}
	return slices.Contains(c.statuses, status)
}
