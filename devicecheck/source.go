package devicecheck

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	// fetchTimeout bounds one reading of a source; a large inventory has many
	// pages.
	fetchTimeout = 5 * time.Minute
	// startTimeout bounds the reading that the start and a reload wait for. Run
	// reads what took longer again, at once.
	startTimeout = 10 * time.Second
)

// fetcher reads one kind of inventory. There is one file per kind.
type fetcher interface {
	// fetch returns the whole inventory, or have itself if nothing has changed
	// since have was read. Everything that is not a complete and faultless
	// inventory is an error; it never returns half of one. have may be nil.
	fetch(ctx context.Context, have *inventory) (*inventory, error)
}

// announcer is a fetcher that can tell when a new reading is worthwhile.
type announcer interface {
	// announce sends on the returned channel, and closes it when ctx ends or it
	// cannot go on. Announcements may be lost; the refresh of the source makes
	// up for it.
	announce(ctx context.Context) (<-chan struct{}, error)
}

// state is what is known of a source at one moment. It is immutable and swapped
// as a whole, so that lookups take no lock and never see half an update.
type state struct {
	source string
	// inv is the last good inventory, nil until there was one.
	inv *inventory
	// observedAt is when inv was last found to be current.
	observedAt time.Time
	// failingSince and err are set while the source cannot be read.
	failingSince time.Time
	err          string
}

func (s *state) failing() bool { return !s.failingSince.IsZero() }

// source keeps one inventory current.
type source struct {
	Source
	fetcher fetcher
	state   atomic.Pointer[state]
	now     func() time.Time
	log     *slog.Logger
	// useLastKnown is how long facts count while the inventory cannot be read.
	useLastKnown time.Duration
	kept         *kept
	readings     readings
	signal       func(access.Signal) // may be nil
	// rand spreads the readings of remote inventories, so that replicas do not
	// ask all at once. Nil: they are read exactly every refresh.
	rand func() float64
}

// start gives the source its first state: that of the same source in the
// Inspector before, or else the snapshot that was kept, or else what can be read
// now. Nothing waits for the network while a kept snapshot counts.
func (s *source) start(previous *Inspector) {
	if previous != nil {
		for _, old := range previous.sources {
			if old.Source.same(s.Source) {
				s.state.Store(old.state.Load())
				return // run reads it again at once
			}
		}
	}
	first := &state{source: s.ID}
	if s.kept != nil {
		first = s.kept.load(first)
	}
	s.state.Store(first)
	if s.remote() && first.counts(s.now(), s.useLastKnown) {
		return
	}
	s.loadWithin(context.Background(), startTimeout)
}

// counts reports whether the facts of a failing source may still be used.
func (s *state) counts(now time.Time, useLastKnown time.Duration) bool {
	return s.inv != nil && useLastKnown > 0 && now.Sub(s.failingSince) <= useLastKnown
}

// load reads the inventory once and reports whether anything but its age
// changed. One goroutine at a time may call it.
func (s *source) load(ctx context.Context) bool {
	old, done := s.state.Load(), s.readings.begin(s.now)
	changed := s.loadWithin(ctx, fetchTimeout)
	done()
	next := s.state.Load()
	s.signalChanges(old, next) // after the swap, so that who decides again sees it
	if ctx.Err() == nil {
		s.kept.keep(ctx, next)
	}
	return changed
}

func (s *source) loadWithin(ctx context.Context, limit time.Duration) bool {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	old := s.state.Load()
	inv, err := s.fetcher.fetch(limited, old.inv)
	if ctx.Err() != nil {
		return false // we are stopping, which is no failure of the source
	}
	next := &state{source: s.ID, inv: inv, observedAt: s.now()}
	if err != nil {
		next.inv, next.observedAt = old.inv, old.observedAt
		next.err, next.failingSince = err.Error(), old.failingSince
		if !old.failing() {
			next.failingSince = s.now()
		}
	}
	if next.inv != nil && next.inv != old.inv {
		next.inv.follow(old.inv, s.now())
	}
	s.state.Store(next)
	return s.report(old, next)
}

// report logs a change, once, and says whether there was one.
func (s *source) report(old, next *state) bool {
	switch {
	case next.failing() && next.err != old.err:
		s.log.Warn("device inventory cannot be read", "source", s.ID, "err", next.err,
			"since", next.failingSince, "last_good", next.observedAt, "devices", next.size())
	case !next.failing() && old.failing():
		s.log.Info("device inventory can be read again", "source", s.ID, "devices", next.size(), "failed_since", old.failingSince)
	case next.inv != old.inv:
		s.log.Info("device inventory read", "source", s.ID, "devices", next.size())
	default:
		return false
	}
	return true
}

func (s *state) size() int {
	if s.inv == nil {
		return 0
	}
	return len(s.inv.devices)
}

// run loads the inventory at once, at every announcement, whenever somebody
// wants it to and at every refresh, until ctx ends. changed is called after each load that changed something.
func (s *source) run(ctx context.Context, changed func(SourceStatus)) {
	var announced <-chan struct{}
	watched := true // so that a failure is logged once
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if announced == nil {
			announced, watched = s.announcements(ctx, watched)
		}
		select {
		case <-ctx.Done():
			return
		case _, ok := <-announced:
			if !ok { // what was watched is gone, so look at once
				announced = nil
			}
		case <-s.readings.wanted:
		case <-timer.C:
		}
		if s.load(ctx) {
			changed(s.status())
		}
		timer.Reset(s.pause())
	}
}

// pause is the time until the next reading: the refresh of the source, for a
// remote inventory shortened by up to a tenth.
func (s *source) pause() time.Duration {
	if !s.remote() {
		return s.Refresh.Or(defaultRefresh)
	}
	pause := s.Refresh.Or(remoteRefresh)
	if s.rand != nil {
		pause -= time.Duration(s.rand() * float64(pause) / 10)
	}
	return pause
}

// announcements asks a fetcher that can for its announcements. It returns nil
// where there are none, and whether that is as it should be.
func (s *source) announcements(ctx context.Context, watched bool) (<-chan struct{}, bool) {
	a, ok := s.fetcher.(announcer)
	if !ok {
		return nil, true
	}
	announced, err := a.announce(ctx)
	if err != nil && watched {
		s.log.Warn("device inventory is polled only, because it cannot be watched", "source", s.ID, "err", err)
	}
	return announced, err == nil
}

func (s *source) status() SourceStatus {
	now := s.state.Load()
	odd := 0
	if now.inv != nil {
		odd = now.inv.odd
	}
	return SourceStatus{
		ID: s.ID, Type: s.Type, Devices: now.size(), UnknownValues: odd,
		ObservedAt: now.observedAt, FailingSince: now.failingSince, Err: now.err,
	}
}
