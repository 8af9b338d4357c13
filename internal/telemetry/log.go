package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Config is the section `log` of the configuration file: the operator's log on
// standard error, not the audit log.
type Config struct {
	// Level is the least severe level to write: `debug`, `info`, `warn` or
	// `error`. Default `info`, which includes one line per request.
	Level string `yaml:"level"`
	// Format is `json` or `text`. Default `json`.
	Format string `yaml:"format"`
}

// Validate reports every mistake in the section.
func (c *Config) Validate(f access.Faults) {
	if _, err := parseLevel(c.Level); err != nil {
		f.At("level").Add("write debug, info, warn or error", "%q is no level", c.Level)
	}
	if c.Format != "" && c.Format != "json" && c.Format != "text" {
		f.At("format").Add("write json or text", "%q is no format", c.Format)
	}
}

func parseLevel(text string) (slog.Level, error) {
	switch text {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is no log level: write debug, info, warn or error", text)
}

// NewLogger returns a structured logger. Level and format are those of Config,
// with its defaults. What looks like a secret is not written, by the name of
// its key, its type or its form: a last line of defence, not a licence to log
// secrets.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	least, err := parseLevel(level)
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: least, ReplaceAttr: redact}
	switch format {
	case "", "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("%q is no log format: write json or text", format)
}

const redacted = "[redacted]"

// redact is a slog.HandlerOptions.ReplaceAttr.
func redact(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return a
	}
	if secretKey(a.Key) || slices.ContainsFunc(groups, secretKey) {
		return slog.String(a.Key, redacted)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(access.HideTokens(a.Value.String()))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case http.Header, *http.Request, *http.Response, *http.Cookie, []*http.Cookie, url.Values:
			return slog.String(a.Key, redacted)
		case error:
			a.Value = slog.StringValue(access.HideTokens(v.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(access.HideTokens(v.String()))
		}
	}
	return a
}

// secretKey reports whether a value under this key may be a secret. Words that
// tell something about a secret (where it is, how old) are no secrets.
func secretKey(key string) bool {
	key = strings.ToLower(key)
	words := strings.FieldsFunc(key, func(r rune) bool { return r == '_' || r == '-' || r == '.' || r == ' ' })
	if len(words) == 0 || slices.Contains([]string{"endpoint", "type", "count", "expires", "file", "age", "url", "name"}, words[len(words)-1]) {
		return false
	}
	for _, part := range []string{"cookie", "authorization", "token", "secret", "password", "passphrase", "credential"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return key == "code" || strings.HasSuffix(key, "auth_code") || slices.Contains(words, "verifier")
}

// LogEvent writes one line for an event: the access log for decisions. It
// leaves out the query and the claims, which the audit log holds.
func LogEvent(ctx context.Context, log *slog.Logger, e *access.Event) {
	level := eventLevel(e)
	if !log.Enabled(ctx, level) {
		return
	}
	if e.Kind != access.EventDecision {
		log.LogAttrs(ctx, level, string(e.Kind), filled(
			slog.String("reason", string(e.Reason)), slog.String("actor", e.Actor), slog.String("request_id", e.RequestID),
			slog.String("session", e.Session), slog.String("note", e.Note), slog.String("why", e.Why))...)
		return
	}
	var request access.Request
	if e.Request != nil {
		request = *e.Request
	}
	var decision access.Decision
	if e.Decision != nil {
		decision = *e.Decision
	}
	ip := ""
	if request.Network.IP.IsValid() {
		ip = request.Network.IP.String()
	}
	log.LogAttrs(ctx, level, "request", filled(
		slog.String("request_id", request.ID), slog.String("door", string(request.Door)),
		slog.String("method", request.Method), slog.String("host", request.Host), slog.String("path", request.Path),
		slog.String("ip", ip), slog.String("route", request.Route),
		slog.String("user", request.Identity.User()), slog.String("device", request.Device.ID),
		slog.String("outcome", decision.Outcome.String()), slog.String("reason", string(finalReason(e))), slog.String("rule", decision.Rule),
		slog.Int("status", e.Response.Status), slog.Int64("bytes_in", e.Response.BytesIn), slog.Int64("bytes_out", e.Response.BytesOut),
		slog.Float64("duration_ms", milliseconds(e.Response.Duration)), slog.Float64("decide_ms", milliseconds(e.Response.Decide)),
		slog.String("trace_id", e.TraceID), slog.String("upstream", e.Response.Upstream), slog.String("tls", e.Response.TLS.Version), slog.String("tls_group", e.Response.TLS.Group))...)
}

// eventLevel is warn for what an operator should look at: faults on our side
// or behind us. A refusal is everyday business.
func eventLevel(e *access.Event) slog.Level {
	if reason := finalReason(e); reason != access.ClientGone && reason.Known() && reason.Info().Status >= 500 {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// filled leaves out empty strings.
func filled(attrs ...slog.Attr) []slog.Attr {
	return slices.DeleteFunc(attrs, func(a slog.Attr) bool { return a.Value.Kind() == slog.KindString && a.Value.String() == "" })
}
