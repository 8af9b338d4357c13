package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/format"
)

// Options give a Log its surroundings. All have defaults.
type Options struct {
	// Stdout is what the stdout sink writes to. Default os.Stdout.
	Stdout io.Writer
	// OpenFile opens the file of a file sink for appending. Default: with
	// permissions 0600, never through a symbolic link.
	OpenFile func(path string) (io.WriteCloser, error)
	// Queue is how many events may wait for each sink. Default 4096.
	Queue int
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log receives what goes wrong with the audit log itself. Default: nowhere.
	Log *slog.Logger

	// Version is that of Doorward, for formats that name it.
	Version string
	// Host is the name of this machine, for formats that name it. Default: what
	// the system says.
	Host string

	key ed25519.PrivateKey // signs files, if there is one
}

func (o *Options) format() format.Options { return format.Options{Version: o.Version, Host: o.Host} }

// Log writes audit events. Its methods may be called from many goroutines.
type Log struct {
	spools []*spool
	// pseudonyms is nil where no sink wants any.
	pseudonyms *Pseudonyms
	log        *slog.Logger
	now        func() time.Time

	// closing ends waiting in Record; then, with mu held, closed ends Record.
	closing chan struct{}
	mu      sync.RWMutex
	closed  bool
	once    sync.Once
}

// Open opens every sink, or none: the error names the one that failed and what
// to do about it.
func Open(cfg Config, opts Options) (*Log, error) {
	if opts.Stdout == nil {
		opts.Stdout = os.Stdout
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.OpenFile == nil {
		opts.OpenFile = func(path string) (io.WriteCloser, error) { return openFile(path, opts.Log) }
	}
	if opts.Host == "" {
		opts.Host, _ = os.Hostname() // a name that is not known is not said
	}
	if opts.Queue <= 0 {
		opts.Queue = 4096
	}
	if !cfg.Key.IsZero() {
		key, err := SigningKey(cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("audit.key: %w", err)
		}
		opts.key = key
	}
	sinks := cfg.To
	if len(sinks) == 0 {
		sinks = []Sink{{Stdout: true}}
	}
	l := &Log{log: opts.Log, now: opts.Now, closing: make(chan struct{})}
	if slices.ContainsFunc(sinks, func(s Sink) bool { return s.Privacy == privacyPseudonyms }) {
		if l.pseudonyms = NewPseudonyms(&cfg); l.pseudonyms == nil {
			return nil, errors.New("audit.key: pseudonyms are made with a key, and there is none")
		}
	}
	for _, sink := range sinks {
		s, err := newSpool(sink, cfg.Required, opts, l.closing)
		if err != nil {
			for _, s := range l.spools {
				s.out.Close()
			}
			return nil, err
		}
		l.spools = append(l.spools, s)
	}
	for _, s := range l.spools {
		s.alone = len(l.spools) == 1
		s.start()
	}
	return l, nil
}

// Record queues one event for every sink. The event is encoded before Record
// returns, so the caller may change it afterwards. A full queue makes Record
// wait: with Required until there is room, otherwise for a second at most and
// only while the sink works.
func (l *Log) Record(e *access.Event) {
	line := encodeOrSay(e, l.log)
	var hidden encoded
	if l.pseudonyms != nil {
		hidden = encodeOrSay(l.pseudonyms.hide(e), l.log)
	}
	l.add(line, hidden, isRefusalForAudit(e))
}

// Append is Record for an event that another process has encoded, with Encode.
func (l *Log) Append(line []byte) {
	var hidden encoded
	if l.pseudonyms != nil {
		e := new(access.Event)
		if err := json.Unmarshal(line, e); err != nil {
			*e = access.Event{Kind: access.EventAudit, Time: l.now(), Reason: access.InternalError, Note: "an event of the process before could not be read"}
		}
		hidden = encodeOrSay(l.pseudonyms.hide(e), l.log)
	}
	l.add(encoded{rest: line}, hidden, false)
}

func (l *Log) add(line, hidden encoded, refusal bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	lineFor := func(s *spool) encoded {
		if s.hidden {
			return hidden
		}
		return line
	}
	var full []*spool
	for _, s := range l.spools {
		switch {
		case l.closed:
			s.lose(lineFor(s))
		case !s.offer(lineFor(s)):
			full = append(full, s)
		}
	}
	for _, s := range full {
		s.wait(lineFor(s), refusal)
	}
}

// Encode returns an event as the Append of another process takes it, where nothing
// is kept of its session.
func Encode(e *access.Event, log *slog.Logger) []byte {
	alone := e.Clone()
	if alone.Request != nil {
		alone.Request.Session.Kept = nil
	}
	return encodeOrSay(alone, log).rest
}

// encodeOrSay returns the best line there is for an event.
func encodeOrSay(e *access.Event, log *slog.Logger) encoded {
	line, err := encode(e)
	if err != nil {
		log.Error("an audit event could not be encoded as it is", "error", err, "kind", e.Kind, "request_id", requestID(e))
	}
	return line
}

// Err tells why events cannot be written at the moment; nil if they can. It is
// cheap enough to be asked for every request.
func (l *Log) Err() error {
	var failed error
	for _, s := range l.spools {
		if err := s.err(); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// Lost counts events that could not be kept, summed over the sinks.
func (l *Log) Lost() uint64 {
	var n uint64
	for _, s := range l.spools {
		n += s.lost.Load()
	}
	return n
}

// Depth is the number of events that wait to be written, in the longest queue.
func (l *Log) Depth() int {
	var n int
	for _, s := range l.spools {
		n = max(n, s.depth())
	}
	return n
}

// Sinks tells how the receivers elsewhere are doing.
func (l *Log) Sinks() []SinkState {
	var list []SinkState
	for _, s := range l.spools {
		if s.shipper != nil {
			list = append(list, s.shipper.state())
		}
	}
	return list
}

// Reopen opens every file again under its name, after logrotate moved it away.
// Where that fails, the file that is open stays in use. It returns when the
// switch is done, and no event is written to the old file afterwards.
func (l *Log) Reopen() error {
	var failed error
	for _, s := range l.spools {
		failed = errors.Join(failed, s.requestReopen())
	}
	return failed
}

// Close writes what is queued, for as long as ctx lasts, and closes the files.
// Events recorded later are lost, and counted. Only the first call does anything.
func (l *Log) Close(ctx context.Context) error { return l.close(ctx, ctx) }

// HandOver is Close for somebody who opens the same log at once: what waits for a
// receiver elsewhere is left to them, on disk.
func (l *Log) HandOver(ctx context.Context) error {
	gone, cancel := context.WithCancel(ctx)
	cancel()
	return l.close(ctx, gone)
}

func (l *Log) close(writing, sending context.Context) (failed error) {
	l.once.Do(func() {
		close(l.closing)
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		for _, s := range l.spools {
			close(s.quit)
		}
		for _, s := range l.spools {
			failed = errors.Join(failed, s.finish(writing, sending))
		}
	})
	return failed
}

// isRefusalForAudit recognises the event of a request that was refused because
// events cannot be written. Such requests keep coming while the disk is full;
// when the queue is full too, they are counted instead of queued.
func isRefusalForAudit(e *access.Event) bool {
	if e.Response.Reason == access.AuditUnavailable {
		return true
	}
	return e.Decision != nil && e.Decision.Outcome != access.Allow &&
		(e.Decision.Reason == access.AuditUnavailable || e.Request != nil && e.Request.Fault == access.AuditUnavailable)
}

func requestID(e *access.Event) string {
	if e.Request != nil {
		return e.Request.ID
	}
	return e.RequestID
}
