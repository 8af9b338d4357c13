package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// loginsAtOnce is how many people log in at the same time.
const loginsAtOnce = 16

var logins = benchCase{
	id:    "logins",
	title: "New logins",
	about: "16 people at a time log in, each with a browser of their own: redirect, authorization at the provider (which remembers them), code,\n" +
		"token, session, and the page that was asked for, which is read. The provider and the browsers are on the core of the load. Doorward\n" +
		"writes each session to its state file and waits for the disk.",
	run: func(b *bench) (*table, error) {
		release, err := stayingOn(b.loadCore)
		if err != nil {
			return nil, err
		}
		defer release()
		list := append([]participant{
			apacheServer("server cache", "OIDCSessionType server-cache"),
			apacheServer("client cookie", "OIDCSessionType client-cookie"),
			oauth2ProxyServer(),
		}, door{name: "Doorward"}.participants()...)
		results, err := b.compare(list, b.logins)
		if err != nil {
			return nil, err
		}
		t := newTable(results, "logins/s", "logins / CPU-s", "CPU", "p50", "p99", "× mod_auth_openidc, server cache")
		for _, m := range results {
			if m.skipped == "" {
				t.Rows = append(t.Rows, []string{m.name, count(m.median(round.perSecond)), count(m.median(round.perCPU)), percent(m.median(round.busy)),
					micros(m.median(p50)), micros(m.median(p99)), times(ratioTo(&m, results, "mod_auth_openidc, server cache", round.perCPU))})
			}
		}
		return t, nil
	},
}

// logins is a generator: people who log in.
func (b *bench) logins(ctx context.Context, l *load, d time.Duration) (s sample, err error) {
	target := l.scheme + "://" + l.host + l.path
	known := newVisitor()
	if _, err := known.logIn(ctx, target); err != nil {
		return s, err
	}
	var (
		work   sync.WaitGroup
		mu     sync.Mutex
		took   []time.Duration
		failed atomic.Pointer[error]
	)
	start := time.Now()
	for range loginsAtOnce {
		work.Go(func() {
			for time.Since(start) < d && failed.Load() == nil && ctx.Err() == nil {
				begun := time.Now()
				v, err := known.again(b.issuer)
				if err == nil {
					_, err = v.logIn(ctx, target)
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
			}
		})
	}
	work.Wait()
	known.client.CloseIdleConnections()
	if err := failed.Load(); err != nil {
		return s, *err
	}
	if ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	s = sample{requests: len(took), elapsed: time.Since(start)}
	s.p50, s.p99 = percentiles(took)
	return s, nil
}
