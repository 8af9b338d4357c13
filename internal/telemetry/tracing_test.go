package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/doorward/doorward/internal/access"
)

func TestTraceVariables(t *testing.T) {
	type env = map[string]string
	for name, c := range map[string]struct {
		env  env
		on   bool
		says string // the fault names this variable
	}{
		"nothing":          {env{}, false, ""},
		"an endpoint":      {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, true, ""},
		"its own endpoint": {env{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, true, ""},
		"by name":          {env{"OTEL_TRACES_EXPORTER": "otlp"}, true, ""},
		"switched off":     {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, false, ""},
		"none":             {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		"logs only":        {env{"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:4318"}, false, ""},
		"zipkin":           {env{"OTEL_TRACES_EXPORTER": "zipkin"}, false, "OTEL_TRACES_EXPORTER"},
		"gRPC":             {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"no scheme":        {env{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, false, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a sampler":        {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, true, ""},
		"no sampler":       {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "sometimes"}, false, "OTEL_TRACES_SAMPLER"},
		"no share":         {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "NaN"}, false, "OTEL_TRACES_SAMPLER_ARG"},
		"no queue":         {env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "0"}, false, "OTEL_BSP_MAX_QUEUE_SIZE"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range c.env {
				t.Setenv(key, value)
			}
			tracing, err := NewTracing(TracingOptions{})
			if (tracing != nil) != c.on || (err != nil) != (c.says != "") || err != nil && !strings.HasPrefix(err.Error(), c.says+":") {
				t.Errorf("%v, %v", tracing, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			tracing.Close(ctx)
		})
	}
}

// collector is an exporter that can be slow or fail.
type collector struct {
	mu    sync.Mutex
	names []string
	fails error
	wait  chan struct{}
}

func (c *collector) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if c.wait != nil {
		select {
		case <-c.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails != nil {
		return c.fails
	}
	for _, span := range spans {
		c.names = append(c.names, span.Name())
	}
	return nil
}

// got returns the names of the spans that have come.
func (c *collector) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.names)
}

func (c *collector) Shutdown(context.Context) error { return nil }

func tracingTo(c sdk.SpanExporter, log *slog.Logger) *Tracing {
	return newTracing(c, traceEnv{queue: 8, batch: 4, delay: time.Second, timeout: time.Minute}, resource.Empty(), TracingOptions{Log: log})
}

func one(t *Tracing) {
	_, r := t.Request(context.Background(), noon, nil)
	r.End(decided("wiki", access.Allow, access.Allowed))
}

func TestSpansAreSentTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{}
		tracing := tracingTo(c, nil)
		for range 5 {
			one(tracing)
		}
		synctest.Wait()
		if got := c.got(); len(got) != 4 { // a full batch goes at once
			t.Errorf("%q", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := c.got(); len(got) != 5 || got[4] != "GET wiki" {
			t.Errorf("%q", got)
		}
		one(tracing)
		if err := tracing.Close(t.Context()); err != nil || len(c.got()) != 6 || tracing.spans.sent.Load() != 6 {
			t.Errorf("%v, %q", err, c.got())
		}
		one(tracing) // too late, and harmless
	})
}

// A collector that does not answer keeps nobody waiting, and memory bounded.
func TestSpansThatNobodyTakesAreLostAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, _ := NewLogger(&out, "", "")
		c := &collector{wait: make(chan struct{})}
		tracing := tracingTo(c, log)
		began := time.Now()
		for range 100 {
			one(tracing)
			synctest.Wait()
		}
		if time.Since(began) != 0 || tracing.spans.lost.Load() != 100-4-8 {
			t.Errorf("%s, %d lost", time.Since(began), tracing.spans.lost.Load())
		}
		time.Sleep(time.Minute) // the first batch is given up
		synctest.Wait()
		if lost := tracing.spans.lost.Load(); lost != 100-8 || strings.Count(out.String(), "are lost") != 1 {
			t.Errorf("%d lost, %s", lost, out.String())
		}
		close(c.wait)
		synctest.Wait()
		if sent := tracing.spans.sent.Load(); sent != 8 || !strings.Contains(out.String(), "are sent again") {
			t.Errorf("%d sent, %s", sent, out.String())
		}
		c.mu.Lock()
		c.fails = errors.New("503")
		c.mu.Unlock()
		one(tracing)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tracing.Close(ctx); err != nil || tracing.spans.lost.Load() != 100-8+1 {
			t.Errorf("%v, %d lost", err, tracing.spans.lost.Load())
		}
	})
}

// What a visitor writes is in no attribute: neither who they are nor what they ask for.
func TestSpansTellNothingOfVisitors(t *testing.T) {
	memory := tracetest.NewInMemoryExporter()
	tracing := newTracing(memory, traceEnv{queue: 8, batch: 8, delay: time.Hour, timeout: time.Second}, resource.Empty(), TracingOptions{})
	e := decided("wiki", access.Deny, access.NotAllowed)
	e.Request.Method, e.Request.Path, e.Request.Door = "INVENTED", "/hunter2", "hunter2"
	e.Request.Identity = access.Identity{Provider: "corp", Issuer: "hunter2", Subject: "hunter2", Email: "hunter2@example"}
	e.Request.Device.ID = "hunter2"
	e.Response.Status, e.Response.Reason = 503, access.Reason("hunter2")
	ctx, r := tracing.Request(t.Context(), noon, nil)
	out, _ := http.NewRequestWithContext(ctx, "HUNTER2", "https://10.0.0.7/hunter2?hunter2", nil)
	r.Attempt(out, 0)(0, access.Reason("hunter2"))
	_, end := r.Part(ctx, "identify")
	end(access.Reason("hunter2"))
	r.End(e)
	if err := tracing.provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := memory.GetSpans()
	if len(spans) != 3 {
		t.Fatalf("%d spans", len(spans))
	}
	for _, span := range spans {
		for _, a := range span.Attributes {
			if text := a.Value.Emit(); strings.Contains(strings.ToLower(text), "hunter2") || strings.Contains(text, "q=secret") {
				t.Errorf("%s says %s: %s", span.Name, a.Key, text)
			}
		}
		if span.Name == "INVENTED" || span.Name == "HUNTER2" {
			t.Errorf("a visitor named a span %s", span.Name)
		}
	}
	tracing.Close(t.Context())
}

// What a request pays for being followed: kept, and not.
func BenchmarkTrace(b *testing.B) {
	for name, sampler := range map[string]string{"kept": "always_on", "not-kept": "always_off"} {
		b.Run(name, func(b *testing.B) {
			b.Setenv("OTEL_TRACES_SAMPLER", sampler)
			tracing := newTracing(&collector{}, traceEnv{queue: 2048, batch: 512, delay: time.Second, timeout: time.Second}, resource.Empty(), TracingOptions{})
			e := decided("wiki", access.Allow, access.Allowed)
			b.ReportAllocs()
			for b.Loop() {
				ctx, r := tracing.Request(context.Background(), noon, nil)
				for _, part := range []string{"identify", "inspect"} {
					_, end := r.Part(ctx, part)
					end("")
				}
				out := (&http.Request{Method: "GET", URL: &url.URL{Scheme: "https", Host: "10.0.0.7"}, Header: http.Header{}}).WithContext(ctx)
				r.Attempt(out, 0)(200, "")
				r.End(e)
			}
			tracing.Close(b.Context())
		})
	}
}
