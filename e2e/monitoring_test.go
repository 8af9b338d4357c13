package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store/redistest"
)

// healthyDay are the values that make a good day of a door that has just begun:
// people come and go, everything answers at once. See e2e/promql for the notation.
var healthyDay = []string{
	`doorward_requests_total{reason="allowed"} += 60`,
	`doorward_decide_duration_seconds_bucket += 60`,
	`doorward_request_duration_seconds_bucket += 60`,
	`doorward_upstream_wait_seconds_bucket += 60`,
	`doorward_provider_request_duration_seconds_bucket += 5`,
	`doorward_store_operation_duration_seconds_bucket += 60`,
	`doorward_upstream_up = 1`,           // nor does one of its applications
	`doorward_signal_stream_failing = 0`, // the one of the story does not exist
}

// badDays are, for each alert, what is different on the day that it is for.
var badDays = map[string][]string{
	"DoorwardGone":                  {`doorward_build_info gone`},
	"DoorwardNotReady":              {`doorward_ready{check="store"} = 0`},
	"DoorwardRestarting":            {`process_start_time_seconds += 60`},
	"DoorwardBug":                   {`doorward_requests_total{reason="allowed"} as reason=internal_error += 1`},
	"DoorwardSlow":                  {`doorward_decide_duration_seconds_bucket{le!~"5.0|5|\\+Inf"} += 0`},
	"DoorwardOpenFiles":             {`process_open_fds = 900`, `process_max_fds = 1000`},
	"DoorwardConfigRefused":         {`doorward_config_last_reload_successful = 0`},
	"DoorwardReplicasDiffer":        {`doorward_config_info as version=before = 1`},
	"DoorwardCertificateEnds":       {`doorward_certificate_expiry_timestamp_seconds = 1`},
	"DoorwardCertificateEndsSoon":   {`doorward_certificate_expiry_timestamp_seconds = 1`},
	"DoorwardCertificateNotRenewed": {`doorward_certificate_renewal_failing = 1`},
	"DoorwardUpstreamFailing":       {`doorward_upstream_errors_total{reason="upstream_unreachable"} += 10`, `doorward_requests_total{reason="upstream_unreachable"} += 10`},
	"DoorwardUpstreamBusy":          {`doorward_upstream_busy_total += 60`},
	"DoorwardUpstreamAddressOut":    {`doorward_upstream_up = 0`},
	"DoorwardUpstreamSlow":          {`doorward_upstream_wait_seconds_bucket{le!~"10|30|60|\\+Inf"} += 0`},
	"DoorwardProviderDown":          {`doorward_provider_up = 0`},
	"DoorwardProviderSlow":          {`doorward_provider_request_duration_seconds_bucket{le!~"10|30|\\+Inf"} += 0`},
	"DoorwardLoginsFailing":         {`doorward_logins_total{result="ok"} as result=login_failed += 3`, `doorward_logins_total{result="ok"} += 1`},
	"DoorwardDevicesRefused":        {`doorward_requests_total{reason="device_unknown"} += 40`},
	"DoorwardStoreDown":             {`doorward_store_up = 0`},
	"DoorwardStoreFailing":          {`doorward_store_errors_total{operation="get"} += 10`},
	"DoorwardStoreSlow":             {`doorward_store_operation_duration_seconds_bucket{le!~"1|5|\\+Inf"} += 0`},
	"DoorwardInventoryFailing":      {`doorward_device_source_failing_seconds = 901`},
	"DoorwardInventoryOld":          {`doorward_device_source_age_seconds = 30000`},
	"DoorwardInventoryEmpty":        {`doorward_device_source_devices = 0`},
	"DoorwardSignalsFailing":        {`doorward_signal_stream_failing = 1`},
	"DoorwardAuditFailing":          {`doorward_audit_failing = 1`},
	"DoorwardAuditLost":             {`doorward_audit_lost_total += 1`},
	"DoorwardAuditQueue":            {`doorward_audit_queue_length = 4000`},
	"DoorwardAuditReceiverBehind":   {`doorward_audit_sink_lag_seconds = 1000`},
	"DoorwardAuditReceiverLoses":    {`doorward_audit_sink_events_total{result="dropped"} += 1`},
	"DoorwardTracesLost":            {`doorward_trace_spans_total{result="lost"} += 1`},
}

// TestAlertsAndDashboardAskForWhatThereIs: every query of the alert rules and the
// dashboard that are shipped is shown to what a door exposes that has seen people,
// refusals and a dead application: metrics, labels, and the values that are matched.
// By Prometheus' own engine every alert fires on the day it is for and on no good one,
// and no panel is empty.
func TestAlertsAndDashboardAskForWhatThereIs(t *testing.T) {
	server := redistest.Start(t)
	checker := filepath.Join(buildModule(t, "promql", "."), "promql")
	question := map[string]any{
		"Rules": "../deploy/prometheus/alerts.yaml", "Dashboard": "../deploy/grafana/doorward.json",
		"Scrapes": []string{scrapeOfABusyDoor(t, server)}, "Values": map[string]any{"reason": access.Reasons(), "result": access.Reasons()},
		"Healthy": append(healthyDay, fmt.Sprintf("doorward_certificate_expiry_timestamp_seconds = %d", time.Now().AddDate(0, 0, 60).Unix())), // the story's own lasts an hour
		"Bad":     badDays,
	}
	ask := func(what string) (answer struct {
		Problems, Alerts []string
		Queries          int
	}) {
		t.Helper()
		text, err := json.Marshal(question)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(checker)
		cmd.Stdin = bytes.NewReader(text)
		var failed bytes.Buffer
		cmd.Stderr = &failed
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, &answer)
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, failed.String())
		}
		return answer
	}
	answer := ask("as shipped")
	for _, problem := range answer.Problems {
		t.Error(problem)
	}
	if len(answer.Alerts) < 25 || answer.Queries < 80 {
		t.Errorf("%d alerts, %d queries", len(answer.Alerts), answer.Queries)
	}
	t.Logf("%d alerts, %d queries", len(answer.Alerts), answer.Queries)

	scrape := question["Scrapes"].([]string)[0]
	for _, listener := range []string{"server", "server.forward_auth"} {
		if !strings.Contains(scrape, `doorward_certificate_expiry_timestamp_seconds{listener="`+listener+`",name="app.localhost"} `) {
			t.Errorf("nobody says when the certificate of %s ends", listener)
		}
	}

	// Each has its page for 3 a.m., and no page is about nothing.
	text, err := os.ReadFile("../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	var pages []string
	for _, m := range regexp.MustCompile(`(?m)^### (Doorward\w+)$`).FindAllStringSubmatch(string(text), -1) {
		pages = append(pages, m[1])
	}
	slices.Sort(pages)
	slices.Sort(answer.Alerts)
	if !slices.Equal(pages, answer.Alerts) {
		t.Errorf("docs/alerts.md has %q, the rules are %q", pages, answer.Alerts)
	}

	// And the documents name no metric that there is not.
	for _, name := range []string{"alerts.md", "operations.md", "telemetry.md"} {
		text, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, metric := range regexp.MustCompile(`doorward_[a-z_]*[a-z]`).FindAllString(string(text), -1) {
			if !strings.Contains(scrape, "# TYPE "+metric+" ") {
				t.Errorf("docs/%s names %s, which no door exposes", name, metric)
			}
		}
	}

	// A metric, a label or a value that has another name by now is noticed.
	for from, to := range map[string]string{"doorward_audit_lost_total": "doorward_audit_lost_events_total", `sink="`: `receiver="`,
		`result="lost"`: `result="dropped"`, "doorward_upstream_wait_seconds": "doorward_upstream_seconds"} {
		if !strings.Contains(scrape, from) {
			t.Errorf("the door does not expose %s", from)
		}
		question["Scrapes"] = []string{strings.ReplaceAll(scrape, from, to)}
		if answer := ask(from); len(answer.Problems) == 0 {
			t.Errorf("nobody notices that %s is %s now", from, to)
		}
	}
}

// scrapeOfABusyDoor returns /metrics of a door with everything configured that has
// metrics of its own, after it has served what leaves traces in them.
func scrapeOfABusyDoor(t *testing.T, server *redistest.Server) string {
	t.Helper()
	dir, addr, admin := t.TempDir(), freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	at := func(host, path string) string { return "https://" + host + ".localhost:" + port + path }
	provider := startProvider(t, at("auth", "/.doorward/callback"), nil)
	receiver := serveApp(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }) // of traces and audit events
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			io.WriteString(w, "<p>hello</p>")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: first\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	certificate(t, dir, "app.localhost", "auth.localhost", "dead.localhost")
	writeFile(t, dir, "secret", "s3cret")
	writeFile(t, dir, "push", "Bearer agreed")
	writeFile(t, dir, "devices.csv", "id,managed,compliant\nlaptop-7,yes,yes\n")
	rest := fmt.Sprintf(`
server: {listen: %q, auth_url: %q, admin: {listen: %q}, tls: {certificates: [{cert: tls.crt, key: tls.key}]},
  forward_auth: {listen: %q, peers: [127.0.0.1], cert: tls.crt, key: tls.key}}
sessions: %s
audit: {to: [{file: {path: audit.jsonl}}, {otlp: {url: %q}, spool: {dir: spool}}]}
providers:
  - {id: corp, issuer: %q, client_id: doorward, client_secret: {file: secret}}
devices:
  sources: [{id: list, type: file, path: devices.csv}]
  match: [claim.deviceid]
  profiles: {healthy: {all: [known]}}
signals: [{id: hub, issuer: "http://%s", audience: doorward, push_secret: {file: push}}]
routes:
  - {id: app, from: %q, to: [%q], allow: [{name: all, any_user: true}], deny: [{name: not-yet, methods: [GET], mode: report}]}
  - {id: dead, from: %q, to: ["http://%s"], allow: [{name: all, any_user: true}]}
  - {id: strict, from: %q, to: [%q], require: {device: healthy}, allow: [{name: all, any_user: true}]}
`, addr, at("auth", ""), admin, freeAddress(t), onRedis(t, server), receiver+"/v1/logs", provider.Issuer(), freeAddress(t),
		at("app", ""), app, at("dead", ""), freeAddress(t), at("app", "/strict"), app)
	writeFile(t, dir, "next.yaml", "version: 1"+rest)
	config := writeFile(t, dir, "doorward.yaml", "version: 1\nshadow: next.yaml"+rest)
	cmd := exec.Command(filepath.Join(binaries, "doorward"), "serve", "--config", config)
	cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver, "OTEL_BSP_SCHEDULE_DELAY=20")
	d := startCommand(t, cmd)
	d.waitFor(`"msg":"serving"`, 1)

	v := newVisitor(t)
	v.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	v.login(at("app", "/"), "alice").says(t, 200, "hello")
	if p := v.open(at("dead", "/")); p.status != 502 {
		t.Errorf("the dead application: %d", p.status)
	}
	if p := v.open(at("app", "/strict")); p.status != 403 {
		t.Errorf("without a device: %d", p.status)
	}
	open := v.stream(at("app", "/events"))
	v.once("POST", at("app", "/.doorward/logout"), http.Header{"Origin": {at("app", "")}, "Sec-Fetch-Site": {"same-origin"}}, nil)
	open.ends(t)

	var text string
	eventually(t, "the last event in the metrics", func() bool {
		text = newVisitor(t).open("http://" + admin + "/metrics").body
		return strings.Contains(text, `doorward_events_total{kind="closed"`) && !strings.Contains(text, `doorward_trace_spans_total{result="sent"} 0`)
	})
	return text
}
