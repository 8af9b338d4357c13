package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/audit/format"
	"github.com/doorward/doorward/internal/audit/send"
)

const (
	firstPause = time.Second      // after a failure, doubled up to
	lastPause  = time.Minute      // this
	gather     = time.Second / 2  // how long events are gathered for a batch
	deadLetter = "rejected.jsonl" // events that the receiver will never take
)

// shipper brings the events of a backlog to a receiver: at least once, in order.
type shipper struct {
	name    string
	backlog *backlog
	sender  send.Sender
	limits  send.Limits
	prepare func(line []byte) (send.Record, error)
	now     func() time.Time
	log     *slog.Logger

	sent, rejected, dropped atomic.Uint64
	oldest                  atomic.Int64 // when the event happened that is sent now, Unix nanoseconds; 0: none
	failing                 atomic.Bool

	cancel context.CancelFunc
	quit   chan struct{} // send what is there, then end
	done   chan struct{}
}

// SinkState is how a receiver of events is doing.
type SinkState struct {
	// Name is "syslog logs.example:6514" or alike.
	Name string
	// Waiting are the events on disk that the receiver has not got yet.
	Waiting int64
	// Lag is how long ago the oldest event in transmission happened; 0: none is.
	Lag time.Duration
	// Sent counts events that the receiver has, Rejected those it will never take,
	// which are in a file, Dropped those that were deleted to make room.
	Sent, Rejected, Dropped uint64
	// Failing tells that the last attempt failed.
	Failing bool
}

func (s *shipper) state() SinkState {
	state := SinkState{Name: s.name, Waiting: s.backlog.waiting(), Sent: s.sent.Load(), Rejected: s.rejected.Load(), Dropped: s.dropped.Load(), Failing: s.failing.Load()}
	if oldest := s.oldest.Load(); oldest != 0 {
		state.Lag = max(0, s.now().Sub(time.Unix(0, oldest)))
	}
	return state
}

func (s *shipper) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.quit, s.done = cancel, make(chan struct{}), make(chan struct{})
	go s.run(ctx)
}

// stop sends what is there, for as long as ctx lasts and the receiver takes it.
// The rest stays on disk.
func (s *shipper) stop(ctx context.Context) {
	close(s.quit)
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	s.cancel()
	<-s.done
}

func (s *shipper) run(ctx context.Context) {
	defer close(s.done)
	defer s.sender.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.quit:
			s.empty(ctx)
			return
		case <-s.backlog.arrivals:
		}
		s.pause(ctx, gather)
		if !s.empty(ctx) {
			return
		}
	}
}

// pause reports false if it was cut short.
func (s *shipper) pause(ctx context.Context, length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.quit:
		return false
	case <-timer.C:
		return true
	}
}

// empty sends until nothing waits. It reports false if it has to give up: after
// quit at the first failure, and when ctx ends.
func (s *shipper) empty(ctx context.Context) bool {
	defer s.oldest.Store(0)
	for {
		lines, from, to, err := s.backlog.next(s.limits.Records, s.limits.Bytes)
		if err == nil && len(lines) == 0 {
			return true
		}
		if err == nil {
			if !s.batch(ctx, lines) {
				return false
			}
			err = s.backlog.received(from, to, len(lines))
		}
		if err != nil {
			// Either it cannot be read, or it is sent again.
			s.log.Error("an audit spool does not work", "sink", s.name, "dir", s.backlog.dir, "error", err)
			if !s.pause(ctx, lastRetry) {
				return false
			}
		}
	}
}

// item is a record with the line it was made from.
type item struct {
	line   []byte
	record send.Record
}

// batch sends lines. Those that no record can be made from are put aside.
func (s *shipper) batch(ctx context.Context, lines [][]byte) bool {
	items := make([]item, 0, len(lines))
	for _, line := range lines {
		record, err := s.prepare(line)
		if err != nil {
			if !s.putAside(ctx, line, err) {
				return false
			}
			continue
		}
		items = append(items, item{line, record})
	}
	if len(items) == 0 {
		return true
	}
	s.oldest.Store(max(1, items[0].record.Time.UnixNano()))
	return s.deliver(ctx, items)
}

// deliver sends items, however often that takes. A batch that is rejected is
// halved until the event that is to blame stands alone, and is put aside.
func (s *shipper) deliver(ctx context.Context, items []item) bool {
	records := make([]send.Record, len(items))
	for i := range items {
		records[i] = items[i].record
	}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		err := s.sender.Send(ctx, records)
		if err == nil {
			s.sent.Add(uint64(len(items)))
			if s.failing.Swap(false) {
				s.log.Info("audit events are sent again", "sink", s.name, "waiting", s.backlog.waiting())
			}
			return true
		}
		var rejected *send.Rejected
		if errors.As(err, &rejected) {
			if half := len(items) / 2; half > 0 {
				return s.deliver(ctx, items[:half]) && s.deliver(ctx, items[half:])
			}
			return s.putAside(ctx, items[0].line, err)
		}
		if ctx.Err() != nil {
			return false
		}
		if !s.failing.Swap(true) {
			s.log.Error("audit events cannot be sent and wait on disk", "sink", s.name, "error", err, "waiting", s.backlog.waiting())
		}
		if !s.pause(ctx, longer(wait, err)) {
			return false
		}
	}
}

// longer is the pause before another try: what the receiver asks for, or wait,
// and up to half as much again, so that replicas do not come back together.
func longer(wait time.Duration, err error) time.Duration {
	var asked *send.Wait
	if errors.As(err, &asked) {
		wait = max(asked.After, firstPause)
	}
	return wait + rand.N(wait/2)
}

// putAside keeps an event that the receiver will never take in a file beside the
// spool. Until that works, nothing goes on.
func (s *shipper) putAside(ctx context.Context, line []byte, why error) bool {
	for {
		err := s.appendRejected(line, why)
		if err == nil {
			break
		}
		s.log.Error("a rejected audit event cannot be put aside; nothing is sent until it can", "sink", s.name, "error", err)
		if !s.pause(ctx, lastRetry) {
			return false
		}
	}
	if n := s.rejected.Add(1); n%logEvery == 1 {
		s.log.Error("an audit event was rejected and put aside", "sink", s.name, "rejected", n, "error", why, "file", filepath.Join(s.backlog.dir, deadLetter))
	}
	return true
}

func (s *shipper) appendRejected(line []byte, why error) error {
	path := filepath.Join(s.backlog.dir, deadLetter)
	if info, err := os.Lstat(path); err == nil && (!info.Mode().IsRegular() || info.Size() > s.backlog.max) {
		return fmt.Errorf("%s is full, or no file: see what is in it, then move it away", path)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	kept := map[string]any{"rejected_at": s.now().UTC(), "error": why.Error(), "event": json.RawMessage(line)}
	if !json.Valid(line) {
		kept["event"] = string(line)
	}
	if err := enc.Encode(kept); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(b.Bytes())
	return errors.Join(err, out.Close())
}

// preparer turns a line into a record in a format.
func preparer(name string, opts format.Options) func(line []byte) (send.Record, error) {
	return func(line []byte) (send.Record, error) {
		event, err := format.Parse(line)
		if err != nil {
			return send.Record{}, err
		}
		record := send.Record{Time: event.Time(), Kind: event.Text("kind"), Severity: event.Severity(), Trace: event.Text("trace_id")}
		record.Body, err = format.Encode(name, event, opts)
		return record, err
	}
}
