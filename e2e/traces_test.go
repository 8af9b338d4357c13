package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// otlpReceiver takes traces as a collector does (OTLP 1.x over HTTP), and nothing that
// is not exactly that.
type otlpReceiver struct {
	t      *testing.T
	server *httptest.Server

	mu    sync.Mutex
	raw   bytes.Buffer
	spans []*tracepb.Span
	about map[string]string
}

func newOTLPReceiver(t *testing.T) *otlpReceiver {
	t.Helper()
	r := &otlpReceiver{t: t, about: map[string]string{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// ServeHTTP implements http.Handler.
func (r *otlpReceiver) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	body := io.Reader(in.Body)
	if in.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			r.t.Error(err)
			return
		}
		body = unzipped
	}
	text, err := io.ReadAll(body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(text, &request)
	}
	if err != nil || in.Method != http.MethodPost || in.URL.Path != "/v1/traces" || in.Header.Get("Content-Type") != "application/x-protobuf" || unknownFields(request.ProtoReflect()) {
		r.t.Errorf("%s %s %v: %v", in.Method, in.URL, in.Header, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.raw.Write(text)
	for _, of := range request.ResourceSpans {
		for _, a := range of.Resource.Attributes {
			r.about[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range of.ScopeSpans {
			r.spans = append(r.spans, scope.Spans...)
		}
	}
	r.mu.Unlock()
	answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Write(answer)
}

// unknownFields reports whether a message holds what its type does not know.
func unknownFields(m protoreflect.Message) (found bool) {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range v.List().Len() {
				found = found || unknownFields(v.List().Get(i).Message())
			}
		default:
			found = found || unknownFields(v.Message())
		}
		return !found
	})
	return found
}

// trace waits until the span of a request has come, and returns it and its parts.
func (r *otlpReceiver) trace(id string) (server *tracepb.Span, parts []*tracepb.Span) {
	r.t.Helper()
	eventually(r.t, "the trace "+id, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		server, parts = nil, nil
		for _, span := range r.spans {
			switch {
			case hex.EncodeToString(span.TraceId) != id:
			case span.Kind == tracepb.Span_SPAN_KIND_SERVER:
				server = span
			default:
				parts = append(parts, span)
			}
		}
		return server != nil
	})
	return server, parts
}

// says returns an attribute of a span as text.
func says(span *tracepb.Span, key string) string {
	for _, a := range span.Attributes {
		if a.Key == key {
			if text := a.Value.GetStringValue(); text != "" {
				return text
			}
			return fmt.Sprint(a.Value.GetIntValue())
		}
	}
	return ""
}

func find(spans []*tracepb.Span, name string) (list []*tracepb.Span) {
	for _, span := range spans {
		if span.Name == name {
			list = append(list, span)
		}
	}
	return list
}

// traced is a door whose requests are followed.
type traced struct {
	*process
	url, admin, log string

	mu  sync.Mutex
	got []http.Header // what the application got
}

// startTraced starts a door with an application at two addresses, the first of which
// nobody listens at.
func startTraced(t *testing.T, server string, env ...string) *traced {
	t.Helper()
	d := &traced{admin: freeAddress(t)}
	dir, addr := t.TempDir(), freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	at := func(host, path string) string { return "http://" + host + ".localhost:" + port + path }
	provider := startProvider(t, at("auth", "/.doorward/callback"), nil)
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.got = append(d.got, r.Header.Clone())
		io.WriteString(w, "<p>hello</p>")
	})
	writeFile(t, dir, "secret", "s3cret")
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, auth_url: %q, admin: {listen: %q}%s}
sessions: {store: {file: {path: doorward.db}}}
audit: {to: [{file: {path: audit.jsonl}}]}
providers:
  - {id: corp, issuer: %q, client_id: doorward, client_secret: {file: secret}}
routes:
  - id: app
    from: %q
    to: ["http://%s", %q]
    allow: [{name: all, any_user: true}]
    public: [{name: open, methods: [GET], paths: ["/open/**"]}]
`, addr, at("auth", ""), d.admin, server, provider.Issuer(), at("app", ""), freeAddress(t), app))
	cmd := exec.Command(filepath.Join(binaries, "doorward"), "serve", "--config", config)
	cmd.Env = append(os.Environ(), env...)
	d.process = startCommand(t, cmd)
	d.waitFor(`"msg":"serving"`, 1)
	d.url, d.log = at("app", ""), filepath.Join(dir, "audit.jsonl")
	return d
}

// open sends a request with headers, and returns what the application got with it
// and the trace that the record names.
func (d *traced) open(v *visitor, path string, header http.Header) (http.Header, string) {
	d.t.Helper()
	if p := v.send(v.client, "GET", d.url+path, header, nil); p.status != 200 {
		d.t.Fatalf("%s: %d", path, p.status)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.got[len(d.got)-1], d.id(path)
}

// id waits for the record of a request, and returns the trace that it names.
func (d *traced) id(path string) (id string) {
	d.t.Helper()
	path, _, _ = strings.Cut(path, "?")
	eventually(d.t, "the record of "+path, func() bool {
		for _, e := range events(d.t, d.log) {
			if e.Request != nil && e.Request.Path == path {
				id = e.TraceID
				return true
			}
		}
		return false
	})
	return id
}

var hostile = http.Header{
	"Traceparent": {"00-11111111111111111111111111111111-2222222222222222-01"}, "Tracestate": {"evil=yes"},
	"Baggage": {"role=admin"}, "X-B3-Traceid": {"33333333333333333333333333333333"}, "B3": {"0"}, "Uberctx-Role": {"admin"},
}

var traceparent = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])$`)

// TestTraces: a request is one trace, from the door through identity provider, store
// and a retry to the application, and nobody who is not believed has a say in it.
func TestTraces(t *testing.T) {
	t.Parallel()
	receiver := newOTLPReceiver(t)
	d := startTraced(t, "", "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.server.URL, "OTEL_BSP_SCHEDULE_DELAY=20",
		"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip")
	alice := newVisitor(t)
	alice.login(d.url+"/", "alice").says(t, 200, "hello")

	got, id := d.open(alice, "/private/4711?token=s3cret-query", hostile)
	parent := traceparent.FindStringSubmatch(got.Get("Traceparent"))
	if parent == nil || parent[1] != id || parent[1] == strings.Repeat("1", 32) || parent[3] == "00" || len(got["Traceparent"]) != 1 {
		t.Errorf("the application got %q, the record names %s", got["Traceparent"], id)
	}
	for name := range hostile {
		if name != "Traceparent" && got.Get(name) != "" {
			t.Errorf("%s: %q reached the application", name, got.Get(name))
		}
	}
	server, parts := receiver.trace(id)
	if len(server.ParentSpanId) != 0 || server.Name != "GET app" || server.TraceState != "" {
		t.Errorf("%+v", server)
	}
	for key, want := range map[string]string{"http.request.method": "GET", "http.response.status_code": "200", "doorward.route": "app",
		"doorward.outcome": "allow", "doorward.reason": "allowed", "doorward.door": "standalone", "url.scheme": "http"} {
		if says(server, key) != want {
			t.Errorf("%s: %q", key, says(server, key))
		}
	}
	if len(find(parts, "identify")) != 1 || len(find(parts, "inspect")) != 1 {
		t.Errorf("%v", parts)
	}
	// The two addresses take turns: one of two requests is sent again.
	again, retried := d.open(alice, "/second", nil)
	if attempts := len(find(parts, "GET")); attempts == 1 {
		_, parts = receiver.trace(retried)
		got = again
	}
	attempts := find(parts, "GET")
	if len(attempts) != 2 || says(attempts[0], "error.type") != "upstream_unreachable" || attempts[0].Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR ||
		says(attempts[1], "http.request.resend_count") != "1" || says(attempts[1], "http.response.status_code") != "200" || says(attempts[1], "server.address") != "127.0.0.1" {
		t.Errorf("%v", attempts)
	} else if parent := traceparent.FindStringSubmatch(got.Get("Traceparent")); hex.EncodeToString(attempts[1].SpanId) != parent[2] {
		t.Errorf("the application continues %s, not the attempt that reached it", parent[2])
	}

	// The way back from the provider waits for it.
	_, parts = receiver.trace(d.id("/.doorward/callback")) // the first, at the login host
	login, asked, kept := find(parts, "login"), find(parts, "identity provider corp"), find(parts, "store put")
	if len(login) != 1 || len(asked) == 0 || len(kept) == 0 || !bytes.Equal(asked[0].ParentSpanId, login[0].SpanId) {
		t.Errorf("%v", parts)
	}
	if receiver.about["service.name"] != "doorward" || receiver.about["deployment.environment.name"] != "test" {
		t.Errorf("%v", receiver.about)
	}
	// The log names the trace, and the trace nobody.
	d.waitFor(`"trace_id":"`+id+`"`, 1)
	receiver.mu.Lock()
	defer receiver.mu.Unlock()
	for _, secret := range []string{"alice", "4711", "s3cret", "127.0.0.1:", "Mozilla", "Go-http-client", "evil", "role=admin", "doorward="} {
		if bytes.Contains(receiver.raw.Bytes(), []byte(secret)) {
			t.Errorf("the collector learns %q", secret)
		}
	}
}

// TestTracesOfAHopThatIsBelieved: a listed proxy's trace goes on, as it wants it.
func TestTracesOfAHopThatIsBelieved(t *testing.T) {
	t.Parallel()
	receiver := newOTLPReceiver(t)
	d := startTraced(t, ", traceparent_from: [127.0.0.1]", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="+receiver.server.URL+"/v1/traces",
		"OTEL_BSP_SCHEDULE_DELAY=20", "OTEL_TRACES_SAMPLER=parentbased_always_off")
	v := newVisitor(t)
	got, id := d.open(v, "/open/own", nil) // sampled by nobody, and still one trace for whoever comes behind us
	if parent := traceparent.FindStringSubmatch(got.Get("Traceparent")); parent == nil || parent[1] != id || parent[3] == "01" {
		t.Errorf("%v, the record names %q", got["Traceparent"], id)
	}
	ours := strings.Repeat("4", 32)
	got, id = d.open(v, "/open/theirs", http.Header{"Traceparent": {"00-" + ours + "-5555555555555555-01"}, "Tracestate": {"vendor=a", "other=b"}, "Baggage": {"tenant=7"}})
	if parent := traceparent.FindStringSubmatch(got.Get("Traceparent")); parent == nil || parent[1] != ours || id != ours || parent[2] == "5555555555555555" {
		t.Errorf("%v, the record names %q", got["Traceparent"], id)
	}
	if got.Get("Tracestate") != "vendor=a,other=b" || got.Get("Baggage") != "tenant=7" {
		t.Errorf("%v, %v", got["Tracestate"], got["Baggage"])
	}
	server, _ := receiver.trace(ours)
	if hex.EncodeToString(server.ParentSpanId) != "5555555555555555" || server.TraceState != "vendor=a,other=b" {
		t.Errorf("%+v", server)
	}
	// Two parents are none, and neither is one that cannot be read.
	for i, parents := range [][]string{{"00-" + ours + "-5555555555555555-01", "00-" + ours + "-6666666666666666-01"}, {"00-" + ours + "-zzzz-01"}, {"00-" + strings.Repeat("0", 32) + "-5555555555555555-01"}} {
		got, id = d.open(v, fmt.Sprintf("/open/unreadable/%d", i), http.Header{"Traceparent": parents, "Tracestate": {"vendor=a"}})
		if parent := traceparent.FindStringSubmatch(got.Get("Traceparent")); parent == nil || parent[1] == ours || parent[1] != id || got.Get("Tracestate") != "" {
			t.Errorf("%v: %v, %v", parents, got["Traceparent"], got["Tracestate"])
		}
	}
	for _, span := range receiver.spans {
		if hex.EncodeToString(span.TraceId) != ours {
			t.Errorf("%s of a trace that nobody wanted was sent", span.Name)
		}
	}
}

// TestTracesWithoutACollector: requests do not notice that nobody takes their traces;
// what is lost is counted. Without any variable nothing is followed.
func TestTracesWithoutACollector(t *testing.T) {
	t.Parallel()
	hangs := make(chan struct{})
	silent := serveApp(t, func(http.ResponseWriter, *http.Request) { <-hangs })
	t.Cleanup(func() { close(hangs) })
	d := startTraced(t, "", "OTEL_EXPORTER_OTLP_ENDPOINT="+silent, "OTEL_BSP_SCHEDULE_DELAY=1", "OTEL_BSP_MAX_QUEUE_SIZE=4", "OTEL_BSP_EXPORT_TIMEOUT=100")
	v := newVisitor(t)
	for i := range 20 {
		d.open(v, fmt.Sprintf("/open/%d", i), nil)
	}
	d.waitFor("traces cannot be sent and are lost", 1)
	text := newVisitor(t).open("http://" + d.admin + "/metrics").text(t)
	if lost := regexp.MustCompile(`doorward_trace_spans_total\{result="lost"\} ([0-9]+)`).FindStringSubmatch(text); lost == nil || len(lost[1]) < 2 {
		t.Errorf("%v", lost)
	}

	quiet := startTraced(t, "")
	got, id := quiet.open(v, "/open/quiet", hostile)
	for name := range hostile {
		if got.Get(name) != "" {
			t.Errorf("%s: %q reached the application", name, got.Get(name))
		}
	}
	if id != "" {
		t.Errorf("a request that nobody follows is recorded under the trace %s", id)
	}
	wrong := startTraced(t, "", "OTEL_EXPORTER_OTLP_ENDPOINT="+silent, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
	wrong.waitFor("OTEL_EXPORTER_OTLP_PROTOCOL", 1) // and serves
	wrong.open(v, "/open/served", nil)
}

// TestTracesReachTheCollector: the receiver of OpenTelemetry's own collector takes
// them, in both encodings of the protocol.
func TestTracesReachTheCollector(t *testing.T) {
	t.Parallel()
	program := filepath.Join(buildModule(t, "collector", "."), "collector")
	address := freeAddress(t)
	receiver := startCommand(t, exec.Command(program, address))
	receiver.waitFor("listening", 1)
	for _, encoding := range []string{"http/protobuf", "http/json"} {
		d := startTraced(t, "", "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+address, "OTEL_BSP_SCHEDULE_DELAY=20",
			"OTEL_EXPORTER_OTLP_PROTOCOL="+encoding, "OTEL_EXPORTER_OTLP_COMPRESSION=gzip", "OTEL_SERVICE_NAME=door-"+encoding)
		_, id := d.open(newVisitor(t), "/open/to-the-collector", nil)
		receiver.waitFor(`"traceId":"`+id+`"`, 1)
		receiver.waitFor(`{"key":"service.name","value":{"stringValue":"door-`+encoding+`"}}`, 1)
		d.stop()
	}
}
