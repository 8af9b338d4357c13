package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// spans sends ended spans to a collector, many at once. It is a processor of our own
// because the SDK's tells nobody how many spans it lost, and reports errors past our
// log. Its queue is bounded; who ends a span never waits.
type spans struct {
	exporter sdk.SpanExporter
	env      traceEnv
	log      *slog.Logger

	queue chan sdk.ReadOnlySpan
	flush chan chan struct{}
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	sent, lost atomic.Uint64
	failing    atomic.Bool
}

func newSpans(exporter sdk.SpanExporter, env traceEnv, log *slog.Logger) *spans {
	s := &spans{exporter: exporter, env: env, log: log,
		queue: make(chan sdk.ReadOnlySpan, env.queue), flush: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// OnStart implements sdk.SpanProcessor.
func (s *spans) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor.
func (s *spans) OnEnd(span sdk.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	select {
	case <-s.stop:
		s.lost.Add(1)
		return
	default:
	}
	select {
	case s.queue <- span:
	default:
		s.lost.Add(1)
	}
}

// run collects spans and sends them: a full batch at once, others after the delay.
func (s *spans) run() {
	defer close(s.done)
	batch := make([]sdk.ReadOnlySpan, 0, s.env.batch)
	var due <-chan time.Time
	send := func() {
		batch, due = s.send(batch), nil
	}
	for {
		select {
		case span := <-s.queue:
			if batch = append(batch, span); len(batch) == cap(batch) {
				send()
			} else if due == nil {
				due = time.After(s.env.delay)
			}
			continue
		case <-due:
			send()
			continue
		case flushed := <-s.flush:
			batch = s.drain(batch)
			due = nil
			close(flushed)
			continue
		case <-s.stop:
		}
		s.drain(batch)
		return
	}
}

// drain sends what is queued at the moment.
func (s *spans) drain(batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	for {
		select {
		case span := <-s.queue:
			if batch = append(batch, span); len(batch) == cap(batch) {
				batch = s.send(batch)
			}
		default:
			return s.send(batch)
		}
	}
}

// send sends a batch and returns it empty. What cannot be sent is lost: a trace of
// an hour ago helps nobody, and memory is for requests.
func (s *spans) send(batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	if len(batch) == 0 {
		return batch
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.env.timeout)
	defer cancel()
	err := s.exporter.ExportSpans(ctx, batch)
	if err != nil {
		s.lost.Add(uint64(len(batch)))
		if !s.failing.Swap(true) {
			s.log.Warn("traces cannot be sent and are lost; requests are not affected", "error", err)
		}
	} else {
		s.sent.Add(uint64(len(batch)))
		if s.failing.Swap(false) {
			s.log.Info("traces are sent again", "lost", s.lost.Load())
		}
	}
	clear(batch)
	return batch[:0]
}

// ForceFlush implements sdk.SpanProcessor.
func (s *spans) ForceFlush(ctx context.Context) error {
	flushed := make(chan struct{})
	select {
	case s.flush <- flushed:
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown implements sdk.SpanProcessor. When ctx ends it stops waiting for the
// collector; what is left is lost.
func (s *spans) Shutdown(ctx context.Context) error {
	s.once.Do(func() { close(s.stop) })
	select {
	case <-s.done:
		return s.exporter.Shutdown(ctx)
	case <-ctx.Done():
		s.exporter.Shutdown(ctx) // ends what is being sent
		return ctx.Err()
	}
}
