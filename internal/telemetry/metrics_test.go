package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/doorward/doorward/internal/access"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newMetrics() *Metrics {
	m := New(Options{Version: "v1.2.3", Now: func() time.Time { return noon }})
	m.Loaded("c1", []string{"wiki", "billing"}, []string{"corp", "partners"})
	return m
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// wantLines compares whole lines of the exposition; a leading "!" means that
// no line may begin so.
func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if start, not := strings.CutPrefix(want, "!"); not {
			if strings.Contains("\n"+text, "\n"+start) {
				t.Errorf("there is a line %s", start)
			}
		} else if !strings.Contains("\n"+text, "\n"+want+"\n") {
			t.Errorf("there is no line %s", want)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "doorward_") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

func decided(route string, outcome access.Outcome, reason access.Reason) *access.Event {
	return &access.Event{Kind: access.EventDecision, Time: noon,
		Request:  &access.Request{ID: "r1", Door: access.Standalone, Method: "GET", Scheme: "https", Host: "wiki.example", Path: "/a", Query: "q=secret", Route: route},
		Decision: &access.Decision{Outcome: outcome, Reason: reason, Rule: "allow/staff"},
		Response: access.Response{Status: 200, Duration: 40 * time.Millisecond, Decide: 90 * time.Microsecond}}
}

func TestEventsAreCounted(t *testing.T) {
	m := newMetrics()
	m.Event(decided("wiki", access.Allow, access.Allowed))
	shadowed := decided("wiki", access.Allow, access.Allowed)
	shadowed.Decision.Shadow = []access.Shadow{{Rule: "deny/old-scope", Outcome: access.Deny}}
	m.Event(shadowed)
	refused := decided("billing", access.Challenge, access.DeviceMissing)
	refused.Response.Status = 403
	m.Event(refused)
	down := decided("wiki", access.Allow, access.Allowed)
	down.Response.Status, down.Response.Reason, down.Response.Upstream, down.Response.Wait = 502, access.UpstreamUnreachable, "http://10.0.0.7", time.Second
	m.Event(down)
	m.Event(&access.Event{Kind: access.EventDecision}) // a panic before anything was known
	m.Event(&access.Event{Kind: access.EventLogin, Actor: "corp:8f1c", Reason: access.Allowed})
	m.Event(&access.Event{Kind: access.EventLogin, Actor: "corp:", Reason: access.LoginRefused})
	m.Event(&access.Event{Kind: access.EventLogin, Reason: access.LoginStateUnknown})
	m.Event(&access.Event{Kind: access.EventConfig})
	m.Event(&access.Event{Kind: access.EventClosed, Reason: access.SessionEnded, Request: &access.Request{Route: "wiki"}})
	m.Event(&access.Event{Kind: access.EventClosed, Reason: access.NoRoute})
	wantLines(t, scrape(t, m),
		`doorward_requests_total{door="standalone",outcome="allow",reason="allowed",route="wiki"} 2`,
		`doorward_requests_total{door="standalone",outcome="challenge",reason="device_missing",route="billing"} 1`,
		`doorward_requests_total{door="standalone",outcome="allow",reason="upstream_unreachable",route="wiki"} 1`,
		`doorward_requests_total{door="none",outcome="deny",reason="none",route="none"} 1`,
		`doorward_responses_total{class="4xx",route="billing"} 1`,
		`doorward_upstream_errors_total{reason="upstream_unreachable",route="wiki"} 1`,
		`doorward_upstream_wait_seconds_bucket{route="wiki",le="1"} 1`, `doorward_upstream_wait_seconds_count{route="wiki"} 1`,
		`doorward_events_total{kind="login",reason="login_state_unknown"} 1`, `doorward_events_total{kind="config",reason="none"} 1`,
		`doorward_closed_total{reason="session_ended",route="wiki"} 1`,
		`doorward_closed_total{reason="no_route",route="none"} 1`,
		`doorward_shadow_decisions_total{outcome="deny",route="wiki",rule="deny/old-scope"} 1`,
		`doorward_request_duration_seconds_bucket{route="wiki",le="0.05"} 3`,
		`doorward_decide_duration_seconds_bucket{le="0.0001"} 5`,
		`doorward_logins_total{provider="corp",result="ok"} 1`,
		`doorward_logins_total{provider="corp",result="login_refused_by_provider"} 1`,
		`doorward_logins_total{provider="none",result="login_state_unknown"} 1`,
		`doorward_build_info{version="v1.2.3"} 1`)
}

// A visitor must not be able to make series: every label value comes from the
// configuration or a closed list.
func TestLabelsAreBounded(t *testing.T) {
	m := newMetrics()
	before := strings.Count(scrape(t, m), "\ndoorward_")
	for i := range 200 {
		e := decided(fmt.Sprint("route", i), access.Deny, access.Reason(fmt.Sprint("reason", i)))
		e.Request.Door, e.Response.Status = access.Door(fmt.Sprint("door", i)), 600+i
		m.Event(e)
		m.Event(&access.Event{Kind: access.EventKind(fmt.Sprint("kind", i)), Reason: access.Reason(fmt.Sprint(i))})
		m.Event(&access.Event{Kind: access.EventLogin, Actor: fmt.Sprint("provider", i, ":x"), Reason: access.Reason(fmt.Sprint(i))})
		m.Begin(access.Door(fmt.Sprint(i)))()
	}
	text := scrape(t, m)
	wantLines(t, text, `doorward_requests_total{door="other",outcome="deny",reason="other",route="other"} 200`)
	if grown := strings.Count(text, "\ndoorward_") - before; grown > 40 {
		t.Errorf("%d new series", grown)
	}
}

func TestReload(t *testing.T) {
	m := newMetrics()
	m.Event(decided("wiki", access.Allow, access.Allowed))
	m.Event(decided("billing", access.Allow, access.Allowed))
	m.LoadFailed()
	wantLines(t, scrape(t, m), `doorward_config_last_reload_successful 0`)
	m.Loaded("c2", []string{"wiki"}, []string{"corp"})
	wantLines(t, scrape(t, m),
		`doorward_config_info{version="c2"} 1`, `!doorward_config_info{version="c1"}`,
		`doorward_config_reload_total{result="ok"} 2`, `doorward_config_reload_total{result="failed"} 1`, `doorward_config_last_reload_successful 1`,
		`doorward_config_last_reload_success_timestamp_seconds 1.7954352e+09`,
		`doorward_responses_total{class="2xx",route="wiki"} 1`, `!doorward_responses_total{class="2xx",route="billing"}`)
}

type fakeAudit struct{}

func (fakeAudit) Depth() int   { return 7 }
func (fakeAudit) Lost() uint64 { return 3 }
func (fakeAudit) Err() error   { return errors.New("disk full") }

func TestPresentState(t *testing.T) {
	m := newMetrics()
	wantLines(t, scrape(t, m), `!doorward_provider_up`, `!doorward_store_up`) // nothing to watch is nothing to report
	m.WatchProviders(func() map[string]error {
		return map[string]error{"corp": nil, "partners": errors.New("no route to host")}
	})
	m.WatchSources(func() []Source {
		return []Source{{ID: "intune", ObservedAt: noon.Add(-90 * time.Second), UnknownValues: 5}, {ID: "file", FailingSince: noon.Add(-time.Hour)}, {ID: "crl", ObservedAt: noon, Devices: -1}}
	})
	m.WatchAudit(fakeAudit{})
	m.WatchReceivers(func() []Receiver {
		return []Receiver{{Name: "syslog logs", Waiting: 4, Lag: 90 * time.Second, Sent: 5, Rejected: 1, Dropped: 2, Failing: true}}
	})
	wantLines(t, scrape(t, m), `doorward_audit_sink_backlog{sink="syslog logs"} 4`, `doorward_audit_sink_lag_seconds{sink="syslog logs"} 90`,
		`doorward_audit_sink_failing{sink="syslog logs"} 1`, `doorward_audit_sink_events_total{result="sent",sink="syslog logs"} 5`,
		`doorward_audit_sink_events_total{result="rejected",sink="syslog logs"} 1`, `doorward_audit_sink_events_total{result="dropped",sink="syslog logs"} 2`)
	m.WatchUpstreams(func() []RouteUpstreams {
		return []RouteUpstreams{{Route: "wiki", Repeated: 3, Refused: 4, Targets: []Upstream{
			{Address: "https://10.0.0.7", Used: true, Open: 12, Waiting: 1}, {Address: "https://10.0.0.8", Ejections: 2}}}}
	})
	wantLines(t, scrape(t, m), `doorward_upstream_up{route="wiki",upstream="https://10.0.0.7"} 1`, `doorward_upstream_up{route="wiki",upstream="https://10.0.0.8"} 0`,
		`doorward_upstream_requests_open{route="wiki",upstream="https://10.0.0.7"} 12`, `doorward_upstream_requests_waiting{route="wiki",upstream="https://10.0.0.7"} 1`,
		`doorward_upstream_ejections_total{route="wiki",upstream="https://10.0.0.8"} 2`, `doorward_upstream_repeated_total{route="wiki"} 3`, `doorward_upstream_busy_total{route="wiki"} 4`)
	m.WatchCertificates(func() []Certificate {
		return []Certificate{{"server", "wiki.example", noon, false}, {"server", "wiki.example", noon.Add(-time.Hour), true}, {"server", "new.example", time.Time{}, false},
			{"server.spoe", "wiki.example", noon, false}}
	})
	m.WatchSignals(func() []Stream { return []Stream{{ID: "corp"}, {ID: "mdm", Failing: true}} })
	m.WatchReady(func() map[string]error { return map[string]error{"serving": nil, "store": errors.New("no answer")} })
	m.WatchSessions(func() int { return 12 })
	m.WatchTracing(nil)
	m.StoreAsked("get", time.Millisecond, true)
	m.ProviderAsked("corp", time.Second, true)
	m.ProviderAsked("stranger", time.Second, false)
	wantLines(t, scrape(t, m), `doorward_certificate_expiry_timestamp_seconds{listener="server",name="wiki.example"} 1.7954316e+09`, `doorward_certificate_expiry_timestamp_seconds{listener="server.spoe",name="wiki.example"} 1.7954352e+09`, `doorward_certificate_expiry_timestamp_seconds{listener="server",name="new.example"} 0`,
		`doorward_certificate_renewal_failing{listener="server",name="wiki.example"} 1`, `doorward_signal_stream_failing{transmitter="corp"} 0`, `doorward_signal_stream_failing{transmitter="mdm"} 1`,
		`doorward_ready{check="serving"} 1`, `doorward_ready{check="store"} 0`, `doorward_sessions_in_memory 12`, `!doorward_trace_spans_total`,
		`doorward_store_errors_total{operation="get"} 1`, `doorward_store_errors_total{operation="put"} 0`, `doorward_store_operation_duration_seconds_count{operation="get"} 1`,
		`doorward_provider_errors_total{provider="corp"} 1`, `doorward_provider_request_duration_seconds_count{provider="other"} 1`)
	end := m.Begin(access.Tunnel)
	m.WatchStore(func() error { return errors.New("no answer") })
	wantLines(t, scrape(t, m), `doorward_store_up 0`)
	m.WatchStore(func() error { return nil })
	wantLines(t, scrape(t, m), `doorward_store_up 1`)
	wantLines(t, scrape(t, m), `doorward_provider_up{provider="corp"} 1`, `doorward_provider_up{provider="partners"} 0`,
		`doorward_device_source_age_seconds{source="intune"} 90`, `!doorward_device_source_age_seconds{source="file"}`,
		`doorward_device_source_failing{source="intune"} 0`, `doorward_device_source_failing{source="file"} 1`,
		`doorward_device_source_failing_seconds{source="intune"} 0`, `doorward_device_source_failing_seconds{source="file"} 3600`,
		`doorward_device_source_devices{source="intune"} 0`, `!doorward_device_source_devices{source="crl"}`,
		`doorward_device_source_unknown_values{source="intune"} 5`, `doorward_device_source_unknown_values{source="file"} 0`,
		`doorward_audit_queue_length 7`, `doorward_audit_lost_total 3`, `doorward_audit_failing 1`,
		`doorward_requests_in_flight{door="tunnel"} 1`, `doorward_requests_in_flight{door="standalone"} 0`)
	end()
	wantLines(t, scrape(t, m), `doorward_requests_in_flight{door="tunnel"} 0`)
}

func TestMetricsFollowTheConventions(t *testing.T) {
	m := newMetrics()
	m.WatchAudit(fakeAudit{})
	m.WatchReceivers(func() []Receiver { return []Receiver{{Name: "syslog logs"}} })
	m.WatchUpstreams(func() []RouteUpstreams {
		return []RouteUpstreams{{Route: "wiki", Targets: []Upstream{{Address: "https://10.0.0.7"}}}}
	})
	m.Event(decided("wiki", access.Allow, access.Allowed))
	var own bytes.Buffer
	for line := range strings.Lines(scrape(t, m)) {
		if strings.Contains(line, "doorward_") {
			own.WriteString(line)
		}
	}
	problems, err := promlint.New(&own).Lint()
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func BenchmarkEvent(b *testing.B) {
	m := newMetrics()
	e := decided("wiki", access.Allow, access.Allowed)
	b.ReportAllocs()
	for b.Loop() {
		m.Event(e)
	}
}
