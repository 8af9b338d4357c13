package store

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

const (
	// heartbeat is how often the log is read though nothing rang, after a write that
	// says nothing. It bounds, with the time one command may take, how long a server
	// that silently went away is believed to have nothing to tell. The write is for
	// a master that was cut off from its replicas and does not know yet that one of
	// them has taken over: with min-replicas-to-write it refuses.
	heartbeat = time.Second
	// feedRetry is the pause after the first failure; it doubles up to lastFeedRetry.
	feedRetry     = 50 * time.Millisecond
	lastFeedRetry = time.Second
	// feedPage is how many changes are read at once.
	feedPage = 1000
	beatLife = "60" // seconds
	// headLife is how long the client may keep the head without asking; the
	// server pushes every change of it.
	headLife = time.Hour
)

var errFeedStarts = errors.New("the changes are not read yet")

// feed reads the log of changes and hands them to the hub.
//
// What pushes is client-side caching (RESP3): the head of the log is read in a
// way that makes the server remember who did, and send word the moment it
// changes. What is then read is the log itself, from the last change this
// replica has seen on. That one is read again each time. If it is not there any
// more, or is not the same, then changes are missing (the log was cut, the
// server lost or changed its memory, a failover undid something), and everybody
// is told Lost. So a connection may break at any point and no change is missed.
type feed struct {
	redis *Redis
	grace time.Duration
	bell  chan struct{}
	tried chan struct{} // closed after the first attempt

	// The last change that was read; run's own.
	last rueidis.XRangeEntry
}

func newFeed(r *Redis, grace time.Duration) *feed {
	return &feed{redis: r, grace: grace, bell: make(chan struct{}, 1), tried: make(chan struct{})}
}

// invalidated is called by the client, which must not wait, when the server
// pushes that keys have changed, or with nil when any may have.
func (f *feed) invalidated(keys []rueidis.RedisMessage) {
	ring := keys == nil
	for _, key := range keys {
		name, err := key.ToString()
		ring = ring || err != nil || name == f.redis.head
	}
	if ring {
		select {
		case f.bell <- struct{}{}:
		default: // it rings already
		}
	}
}

// started waits until the log was read for the first time, or could not be.
func (f *feed) started(ctx context.Context) error {
	select {
	case <-f.tried:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run keeps reading until ctx ends. When the log has not been read for longer
// than the grace, every watcher is closed; new ones are let in as soon as it is
// read again.
func (f *feed) run(ctx context.Context) {
	hub := &f.redis.hub
	shut, first := true, true
	var complete time.Time // up to this moment no change is missing
	var beaten time.Time
	pause := feedRetry
	for {
		asked := time.Now()
		var err error
		if asked.Sub(beaten) >= heartbeat {
			if err = f.beat(ctx); err == nil {
				beaten = asked
			}
		}
		if err == nil {
			err = f.read(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		bell, wait := f.bell, heartbeat
		if err == nil {
			complete, pause = asked, feedRetry
			if shut {
				hub.open()
				shut = false
			}
		} else {
			bell, wait = nil, pause
			pause = min(2*pause, lastFeedRetry)
			left := f.grace - time.Since(complete)
			switch {
			case shut || left <= 0:
				hub.close(f.redis.failed(ctx, err)) // again, for the latest reason
				shut = true
			default:
				wait = min(wait, left)
			}
		}
		if first {
			close(f.tried)
			first = false
		}
		timer := time.NewTimer(wait)
		select {
		case <-bell:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// beat makes sure that the server is still the master. One that takes no write
// from anybody, as its memory or its disk is full, is the master all the same:
// nothing changes there, so nothing is missed.
func (f *feed) beat(ctx context.Context) error {
	r := f.redis
	return r.do(ctx, func(ctx context.Context) error {
		err := r.client.Do(ctx, r.client.B().Arbitrary("SET").Keys(r.alive).Args("", "EX", beatLife).Build()).Error()
		if refusal, is := rueidis.IsRedisErr(err); is && (strings.HasPrefix(refusal.Error(), "OOM") || strings.HasPrefix(refusal.Error(), "MISCONF")) {
			return nil
		}
		return err
	})
}

// read hands on all changes there are. Before it begins to read, the server is
// made to ring at the next one.
func (f *feed) read(ctx context.Context) error {
	r := f.redis
	err := r.do(ctx, func(ctx context.Context) error {
		err := r.client.DoCache(ctx, r.client.B().Get().Key(r.head).Cache(), headLife).Error()
		if rueidis.IsRedisNil(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for {
		if f.last.ID == "" {
			// First the new place to read on from, then the word that everything has
			// to be read again: what changes in between is read here. However often it
			// takes to find that place, nobody knows what happened before it.
			if err := f.begin(ctx); err != nil {
				return err
			}
			r.hub.lost()
		}
		var entries []rueidis.XRangeEntry
		err := r.do(ctx, func(ctx context.Context) (err error) {
			entries, err = r.client.Do(ctx, r.client.B().Xrange().Key(r.log).Start(f.last.ID).End("+").Count(feedPage).Build()).AsXRange()
			return err
		})
		if err != nil {
			return err
		}
		if len(entries) == 0 || entries[0].ID != f.last.ID || !maps.Equal(entries[0].FieldValues, f.last.FieldValues) {
			f.last = rueidis.XRangeEntry{}
			continue
		}
		for _, entry := range entries[1:] {
			if !f.publish(entry) {
				r.hub.lost()
			}
		}
		f.last = entries[len(entries)-1]
		if len(entries) < feedPage {
			return nil
		}
	}
}

// begin makes the newest entry of the log the last one read, and writes a first
// one if there is none.
func (f *feed) begin(ctx context.Context) error {
	r := f.redis
	var entries []rueidis.XRangeEntry
	err := r.do(ctx, func(ctx context.Context) (err error) {
		keys := []string{r.items, r.head, r.log}
		if err := beginScript.Exec(ctx, r.client, keys, []string{newNonce()}).Error(); err != nil {
			return err
		}
		entries, err = r.client.Do(ctx, r.client.B().Xrevrange().Key(r.log).End("+").Start("-").Count(1).Build()).AsXRange()
		return err
	})
	if err != nil {
		return err
	}
	if len(entries) != 1 {
		return errors.New("the log of changes does not stay")
	}
	f.last = entries[0]
	return nil
}

// beginScript writes a change of nothing where there is no log: KEYS any, head,
// log; ARGV nonce.
var beginScript = rueidis.NewLuaScript(luaChange + `
if redis.call('EXISTS', KEYS[3]) == 0 then change('', '0', ARGV[1], '1') end
return 1
`)

// publish hands on one change, and reports whether it could be read.
func (f *feed) publish(entry rueidis.XRangeEntry) bool {
	number, _, _ := strings.Cut(entry.ID, "-")
	version, err := strconv.ParseUint(number, 10, 64)
	key, known := entry.FieldValues["k"]
	if err != nil || !known {
		return false
	}
	if key != "" {
		f.redis.hub.publish(Change{Key: key, Deleted: entry.FieldValues["d"] == "1", Version: version})
	}
	return true
}

// newNonce tells two entries of the log apart that claim to be the same.
func newNonce() string { return rand.Text()[:12] }
