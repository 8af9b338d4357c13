package telemetry

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// traceEnv is what OpenTelemetry's environment variables say about traces, as far as
// the exporter and the sampler do not read them themselves.
type traceEnv struct {
	on bool
	// Of the queue: how many spans it holds, how many are sent at once, how long the
	// first waits for others, and how long sending may take.
	queue, batch   int
	delay, timeout time.Duration
}

// readTraceEnv reads the variables. What the libraries would report past our log, or
// guess, is an error here.
func readTraceEnv() (env traceEnv, err error) {
	const base, own = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	exporter := getenv("OTEL_TRACES_EXPORTER")
	env.on = exporter == "otlp" || exporter == "" && (getenv(base) != "" || getenv(own) != "")
	switch {
	case strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return traceEnv{}, nil
	case exporter != "" && exporter != "otlp":
		return traceEnv{}, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not spoken here; write otlp or none", exporter)
	case !env.on:
		return traceEnv{}, nil
	}
	for _, name := range []string{base, own} {
		if text := getenv(name); text != "" {
			if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return traceEnv{}, fmt.Errorf("%s: no address of a collector; write http://127.0.0.1:4318", name)
			}
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if text := getenv(name); text != "" && text != "http/protobuf" && text != "http/json" {
			return traceEnv{}, fmt.Errorf("%s: %q is not spoken here; write http/protobuf and the collector's address for HTTP, such as http://127.0.0.1:4318", name, text)
		}
	}
	if err := checkSampler(); err != nil {
		return traceEnv{}, err
	}
	var delay, timeout int
	for _, number := range []struct {
		name    string
		without int
		to      *int
	}{
		{"OTEL_BSP_MAX_QUEUE_SIZE", 2048, &env.queue},
		{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, &env.batch},
		{"OTEL_BSP_SCHEDULE_DELAY", 5000, &delay},
		{"OTEL_BSP_EXPORT_TIMEOUT", 30000, &timeout},
	} {
		if *number.to, err = positive(number.name, number.without); err != nil {
			return traceEnv{}, err
		}
	}
	env.delay, env.timeout = time.Duration(delay)*time.Millisecond, time.Duration(timeout)*time.Millisecond
	env.batch = min(env.batch, env.queue)
	return env, nil
}

func getenv(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// positive reads a number of things or milliseconds.
func positive(name string, without int) (int, error) {
	text := getenv(name)
	if text == "" {
		return without, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 || n > 1<<20 {
		return 0, fmt.Errorf("%s: %q is no number between 1 and %d", name, text, 1<<20)
	}
	return n, nil
}

func checkSampler() error {
	switch sampler := strings.ToLower(getenv("OTEL_TRACES_SAMPLER")); sampler {
	case "", "always_on", "always_off", "parentbased_always_on", "parentbased_always_off":
		return nil
	case "traceidratio", "parentbased_traceidratio":
	default:
		return fmt.Errorf("OTEL_TRACES_SAMPLER: %q is no sampler; write parentbased_traceidratio, and the share in OTEL_TRACES_SAMPLER_ARG", sampler)
	}
	if text := getenv("OTEL_TRACES_SAMPLER_ARG"); text != "" {
		if share, err := strconv.ParseFloat(text, 64); err != nil || !(share >= 0 && share <= 1) {
			return fmt.Errorf("OTEL_TRACES_SAMPLER_ARG: %q is no share; write a number between 0 and 1, such as 0.1", text)
		}
	}
	return nil
}
