package serve

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/telemetry"
	"github.com/doorward/doorward/proxy"
)

// tracer lets the door follow requests without knowing by what.
type tracer struct{ *telemetry.Tracing }

func tracerOf(t *telemetry.Tracing) proxy.Tracer {
	if t == nil {
		return nil
	}
	return tracer{t}
}

// Trace implements proxy.Tracer.
func (t tracer) Trace(ctx context.Context, start time.Time, parent http.Header) (context.Context, proxy.Trace) {
	return t.Request(ctx, start, parent)
}

// tracingPatience is how long the end of the process waits for the collector.
const tracingPatience = 3 * time.Second

func closeTracing(t *telemetry.Tracing, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), tracingPatience)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		log.Warn("the last traces were not sent", "error", err)
	}
}

// observedStore times what is asked of the store, and follows it within requests.
type observedStore struct {
	store.Store
	metrics *telemetry.Metrics
	tracing *telemetry.Tracing
}

// Get implements store.Store.
func (s observedStore) Get(ctx context.Context, key string) (item store.Item, err error) {
	ctx, done := s.ask(ctx, "get")
	item, err = s.Store.Get(ctx, key)
	done(err)
	return item, err
}

// Put implements store.Store.
func (s observedStore) Put(ctx context.Context, item store.Item) (version uint64, err error) {
	ctx, done := s.ask(ctx, "put")
	version, err = s.Store.Put(ctx, item)
	done(err)
	return version, err
}

// Delete implements store.Store.
func (s observedStore) Delete(ctx context.Context, key string, version uint64) error {
	ctx, done := s.ask(ctx, "delete")
	err := s.Store.Delete(ctx, key, version)
	done(err)
	return err
}

// ask begins to observe one operation. That nothing is there, that somebody else was
// faster and that nobody waits any more are answers.
func (s observedStore) ask(ctx context.Context, operation string) (context.Context, func(error)) {
	began := time.Now()
	within, end := s.tracing.Call(ctx, "store "+operation)
	return within, func(err error) {
		failed := ""
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			failed = "unavailable"
		}
		end(failed)
		s.metrics.StoreAsked(operation, time.Since(began), failed != "")
	}
}

// followProvider times what an identity provider is asked, and follows it within
// requests. The provider is not told of the trace.
func (l *live) followProvider(provider string, way http.RoundTripper) http.RoundTripper {
	return &providerWay{way, provider, l}
}

type providerWay struct {
	http.RoundTripper
	provider string
	live     *live
}

// RoundTrip implements http.RoundTripper.
func (w *providerWay) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	ctx, end := w.live.tracing.Call(r.Context(), "identity provider "+w.provider)
	if ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	res, err := w.RoundTripper.RoundTrip(r)
	failed := ""
	switch {
	case err != nil:
		failed = "unreachable"
	case res.StatusCode >= http.StatusInternalServerError:
		failed = strconv.Itoa(res.StatusCode)
	}
	end(failed)
	w.live.metrics.ProviderAsked(w.provider, time.Since(began), failed != "")
	return res, err
}
