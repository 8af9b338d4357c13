package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/doorward/doorward/internal/access"
)

// Tracing follows requests by OpenTelemetry and sends what it saw to a collector.
// Attributes follow the HTTP conventions and take their values from the
// configuration and closed lists: no path, query, person, device or address of a
// visitor is among them. Its methods may be called from many goroutines, and on
// nil, which follows nothing.
type Tracing struct {
	tracer   trace.Tracer
	provider *sdk.TracerProvider
	spans    *spans
}

// TracingOptions give NewTracing what it cannot know.
type TracingOptions struct {
	// Version is the version of the program.
	Version string
	// Log learns when spans cannot be sent, and when they can again.
	Log *slog.Logger
}

// NewTracing returns what OpenTelemetry's environment variables ask for. It is nil,
// without an error, where they name no collector (OTEL_EXPORTER_OTLP_ENDPOINT,
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_TRACES_EXPORTER=otlp for the one on
// this machine) or switch tracing off. An error names the variable that cannot be
// followed, and the cure.
func NewTracing(opts TracingOptions) (*Tracing, error) {
	env, err := readTraceEnv()
	if err != nil || !env.on {
		return nil, err
	}
	ctx := context.Background() // the exporter connects when it has something to send
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName("doorward"), semconv.ServiceVersion(opts.Version)), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) && !errors.Is(err, resource.ErrSchemaURLConflict) {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return newTracing(exporter, env, about, opts), nil
}

func newTracing(exporter sdk.SpanExporter, env traceEnv, about *resource.Resource, opts TracingOptions) *Tracing {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tracing{spans: newSpans(exporter, env, opts.Log)}
	t.provider = sdk.NewTracerProvider(sdk.WithSpanProcessor(t.spans), sdk.WithResource(about))
	t.tracer = t.provider.Tracer("github.com/doorward/doorward", trace.WithInstrumentationVersion(opts.Version))
	return t
}

// Close sends what is left, for as long as ctx lasts.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Request begins the span of a request that began at start, as a part of the trace
// that parent names (W3C Trace Context), or of a new one.
func (t *Tracing) Request(ctx context.Context, start time.Time, parent http.Header) (context.Context, *RequestTrace) {
	if len(parent["Traceparent"]) == 1 { // two name no trace
		states := propagation.MapCarrier{"traceparent": parent["Traceparent"][0], "tracestate": strings.Join(parent["Tracestate"], ",")}
		ctx = propagation.TraceContext{}.Extract(ctx, states)
	}
	ctx, span := t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start))
	return ctx, &RequestTrace{tracing: t, span: span}
}

// Call begins the span of a question to a part of our own side, such as the store
// or an identity provider, if ctx belongs to a request that is followed. end ends
// it, with the kind of failure, if it failed.
func (t *Tracing) Call(ctx context.Context, name string, attrs ...attribute.KeyValue) (within context.Context, end func(failed string)) {
	if t == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, endsNothing
	}
	within, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	return within, func(failed string) {
		fail(span, failed)
		span.End()
	}
}

func endsNothing(string) {}

// fail notes why a span did not succeed, if it did not.
func fail(span trace.Span, why string) {
	if why != "" {
		span.SetAttributes(semconv.ErrorTypeKey.String(why))
		span.SetStatus(codes.Error, "")
	}
}

// RequestTrace is one request that is followed.
type RequestTrace struct {
	tracing *Tracing
	span    trace.Span
}

// ID returns the id of the trace.
func (r *RequestTrace) ID() string { return r.span.SpanContext().TraceID().String() }

// Part begins the span of a part of the request; end ends it, with what kept it from
// succeeding.
func (r *RequestTrace) Part(ctx context.Context, name string) (within context.Context, end func(access.Reason)) {
	if !r.span.IsRecording() {
		return ctx, succeeds
	}
	within, span := r.tracing.tracer.Start(ctx, name)
	return within, func(why access.Reason) {
		if why != "" {
			span.SetAttributes(attribute.String("doorward.reason", reasonLabel(why)))
			if why.Known() && why.Info().Status >= http.StatusInternalServerError {
				fail(span, string(why))
			}
		}
		span.End()
	}
}

func succeeds(access.Reason) {}

// Attempt begins the span of an attempt to have the application answer, and tells
// the application of it in the header of the request.
func (r *RequestTrace) Attempt(out *http.Request, resend int) (end func(status int, failed access.Reason)) {
	// What else came with the request has been dealt with.
	delete(out.Header, "Tracestate")
	if !r.span.IsRecording() {
		propagation.TraceContext{}.Inject(out.Context(), propagation.HeaderCarrier(out.Header))
		return answers
	}
	attrs := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(methodLabel(out.Method)),
		semconv.URLScheme(out.URL.Scheme), semconv.ServerAddress(out.URL.Hostname())}
	if port, err := strconv.Atoi(out.URL.Port()); err == nil {
		attrs = append(attrs, semconv.ServerPort(port))
	} else if port := map[string]int{"http": 80, "https": 443}[out.URL.Scheme]; port != 0 {
		attrs = append(attrs, semconv.ServerPort(port))
	}
	if resend > 0 {
		attrs = append(attrs, semconv.HTTPRequestResendCount(resend))
	}
	ctx, span := r.tracing.tracer.Start(out.Context(), methodLabel(out.Method), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(out.Header))
	return func(status int, failed access.Reason) {
		if status != 0 {
			span.SetAttributes(semconv.HTTPResponseStatusCode(status))
			if status >= http.StatusBadRequest {
				fail(span, fmt.Sprint(status))
			}
		}
		if failed != "" {
			fail(span, reasonLabel(failed))
		}
		span.End()
	}
}

func answers(int, access.Reason) {}

// End ends the request with what became of it.
func (r *RequestTrace) End(e *access.Event) {
	if !r.span.IsRecording() {
		r.span.End()
		return
	}
	var request access.Request
	if e.Request != nil {
		request = *e.Request
	}
	reason := reasonLabel(finalReason(e))
	attrs := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(methodLabel(request.Method)),
		attribute.String("doorward.door", doorLabel(request.Door)),
		attribute.String("doorward.reason", reason),
		attribute.String("doorward.request_id", request.ID),
	}
	name := methodLabel(request.Method)
	if request.Route != "" {
		// The host is one of the configuration's, or below one of its wildcards.
		name += " " + request.Route
		attrs = append(attrs, attribute.String("doorward.route", request.Route), semconv.URLScheme(request.Scheme))
	}
	if e.Decision != nil {
		attrs = append(attrs, attribute.String("doorward.outcome", e.Decision.Outcome.String()))
		if e.Decision.Rule != "" {
			attrs = append(attrs, attribute.String("doorward.rule", e.Decision.Rule))
		}
	}
	if status := e.Response.Status; status != 0 {
		attrs = append(attrs, semconv.HTTPResponseStatusCode(status))
		if status >= http.StatusInternalServerError {
			if e.Response.Reason != "" {
				fail(r.span, reason)
			} else {
				fail(r.span, fmt.Sprint(status))
			}
		}
	}
	r.span.SetName(name)
	r.span.SetAttributes(attrs...)
	r.span.End()
}

// methodLabel bounds what a visitor can write: methods that HTTP knows, or _OTHER, as
// the conventions have it.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "_OTHER"
}
