package serve

import (
	"context"
	"errors"
	"log/slog"
	"net/rpc"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/telemetry"
)

// recorder sends each event to everyone who counts or keeps it.
type recorder struct {
	metrics *telemetry.Metrics
	log     *slog.Logger

	// What the admin pages show.
	decisions, actions recent
	tally              *admin.Tally

	changing sync.RWMutex // held while audit is used, or becomes another one
	audit    trail
}

// trail is where events are kept: here, or by the doorward that comes after.
type trail interface {
	Record(*access.Event)
	Err() error
}

// Record implements proxy.Recorder.
func (r *recorder) Record(e *access.Event) {
	r.metrics.Event(e)
	telemetry.LogEvent(context.Background(), r.log, e)
	r.remember(e)
	r.changing.RLock()
	defer r.changing.RUnlock()
	r.audit.Record(e) // last: it may have to wait
}

// Err implements proxy.Recorder.
func (r *recorder) Err() error {
	r.changing.RLock()
	defer r.changing.RUnlock()
	return r.audit.Err()
}

// state tells how the log is doing, where it is kept here.
func (r *recorder) state() (s admin.AuditState) {
	r.changing.RLock()
	defer r.changing.RUnlock()
	s.Failure = said(r.audit.Err())
	if log, ok := r.audit.(*audit.Log); ok {
		s.Waiting, s.Lost = log.Depth(), log.Lost()
		for _, sink := range log.Sinks() {
			s.Receivers = append(s.Receivers, admin.Receiver{Name: sink.Name, Waiting: sink.Waiting, Lag: sink.Lag, Lost: sink.Rejected + sink.Dropped, Failing: sink.Failing})
		}
	}
	return s
}

// reopen opens the files of the log again, where it is kept here.
func (r *recorder) reopen() error {
	r.changing.RLock()
	defer r.changing.RUnlock()
	if log, ok := r.audit.(*audit.Log); ok {
		return log.Reopen()
	}
	return nil
}

// closeLimit is how long the log may take to write what is queued.
const closeLimit = 10 * time.Second

// close completes the log, where it is kept here.
func (r *recorder) close() {
	r.changing.RLock()
	defer r.changing.RUnlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if log, ok := r.audit.(*audit.Log); ok {
		r.report(log.Close(ctx))
	}
}

// leave completes the log for somebody who opens it at once. Events wait for
// arrive, which has to follow.
func (r *recorder) leave() {
	r.changing.Lock()
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if log, ok := r.audit.(*audit.Log); ok {
		r.report(log.HandOver(ctx))
	}
}

// arrive says where events are kept from here on.
func (r *recorder) arrive(at trail) {
	r.audit = at
	r.changing.Unlock()
}

func (r *recorder) report(err error) {
	if err != nil {
		r.log.Error("the audit log could not be completed", "error", err)
	}
}

// nowhere keeps nothing.
type nowhere struct{}

func (nowhere) Record(*access.Event) {}
func (nowhere) Err() error           { return nil }

// missing stands for a log that should be here and cannot be opened: what has to
// be recorded does not happen then.
type missing struct{ log *slog.Logger }

var errMissing = errors.New("the audit log cannot be opened again")

// Record implements trail.
func (m missing) Record(e *access.Event) {
	line := audit.Encode(e, m.log)
	m.log.Error("an audit event is lost", "error", errMissing, "event", string(line[:min(len(line), 4096)]))
}

// Err implements trail.
func (missing) Err() error { return errMissing }

// recordService is the name of a Keeper (net/rpc).
const recordService = "audit"

// Keeper keeps the events of the doorward before, which calls its methods.
type Keeper struct{ log *audit.Log }

// Record keeps one event. The answer says why the next one cannot be kept.
func (k *Keeper) Record(line []byte, failing *string) error {
	k.log.Append(line)
	if err := k.log.Err(); err != nil {
		*failing = err.Error()
	}
	return nil
}

// elsewhere is the audit log that the doorward after this one keeps.
type elsewhere struct {
	client *rpc.Client
	log    *slog.Logger
	mu     sync.Mutex
	err    error
}

// Record implements trail.
func (e *elsewhere) Record(event *access.Event) {
	line, failing := audit.Encode(event, e.log), ""
	err := e.client.Call(recordService+".Record", line, &failing)
	if err != nil {
		e.log.Error("an audit event is lost: the doorward that keeps the log has ended", "error", err, "event", string(line[:min(len(line), 4096)]))
	} else if failing != "" {
		err = errors.New(failing)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

// Err implements trail.
func (e *elsewhere) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}
