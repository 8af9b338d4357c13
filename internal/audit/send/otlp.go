package send

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/doorward/doorward/internal/audit/format"
)

// otlp sends OpenTelemetry logs over HTTP in the JSON encoding of the protocol.
type otlp struct {
	*poster
	cfg      OTLP
	resource otlpResource
}

func newOTLP(cfg OTLP, opts Options) (Sender, error) {
	p, err := newPoster(cfg.TLS, cfg.URL, opts)
	if err != nil {
		return nil, err
	}
	return &otlp{p, cfg, otlpResource{[]otlpAttribute{
		attribute("service.name", "doorward"), attribute("service.version", opts.Version), attribute("host.name", opts.Host)}}}, nil
}

type otlpAttribute struct {
	Key   string    `json:"key"`
	Value otlpValue `json:"value"`
}

type otlpValue struct {
	Text string `json:"stringValue"`
}

func attribute(key, value string) otlpAttribute { return otlpAttribute{key, otlpValue{value}} }

type otlpResource struct {
	Attributes []otlpAttribute `json:"attributes"`
}

type otlpRecord struct {
	// 64-bit numbers are texts in the JSON of protocol buffers.
	Time           string          `json:"timeUnixNano"`
	Observed       string          `json:"observedTimeUnixNano"`
	SeverityNumber int             `json:"severityNumber"`
	SeverityText   string          `json:"severityText"`
	Body           otlpValue       `json:"body"`
	Attributes     []otlpAttribute `json:"attributes"`
	Trace          string          `json:"traceId,omitempty"` // in this encoding hexadecimal, not base64
}

// otlpSeverities are the numbers and names of the data model.
var otlpSeverities = map[format.Severity]struct {
	number int
	text   string
}{
	format.Informational: {9, "INFO"}, format.Low: {10, "INFO2"}, format.Medium: {13, "WARN"}, format.High: {17, "ERROR"},
}

type otlpScope struct {
	Scope struct {
		Name string `json:"name"`
	} `json:"scope"`
	Records []otlpRecord `json:"logRecords"`
}

type otlpResourceLogs struct {
	Resource otlpResource `json:"resource"`
	Scopes   []otlpScope  `json:"scopeLogs"`
}

type otlpRequest struct {
	Logs []otlpResourceLogs `json:"resourceLogs"`
}

// Send implements Sender.
func (o *otlp) Send(ctx context.Context, batch []Record) error {
	var scope otlpScope
	scope.Scope.Name = "doorward.audit"
	now := strconv.FormatInt(o.now().UnixNano(), 10)
	for _, r := range batch {
		severity := otlpSeverities[r.Severity]
		scope.Records = append(scope.Records, otlpRecord{
			Time: strconv.FormatInt(max(r.Time.UnixNano(), 0), 10), Observed: now,
			SeverityNumber: severity.number, SeverityText: severity.text,
			Body: otlpValue{string(r.Body)}, Attributes: []otlpAttribute{attribute("event.name", "doorward."+r.Kind)}, Trace: r.Trace,
		})
	}
	body, err := json.Marshal(otlpRequest{[]otlpResourceLogs{{o.resource, []otlpScope{scope}}}})
	if err != nil {
		return &Rejected{err}
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if !o.cfg.Header.IsZero() {
		header.Set("Authorization", o.cfg.Header.Reveal())
	}
	answer, err := o.post(ctx, o.cfg.URL, header, body)
	if err != nil {
		return err
	}
	return partial(answer)
}

// partial reads how many records were refused although the answer is a success.
// Which ones it does not say; sending smaller batches finds out.
func partial(answer []byte) error {
	var said struct {
		Partial struct {
			Rejected json.RawMessage `json:"rejectedLogRecords"`
			Message  string          `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &said) != nil {
		return nil // protocol buffers, or nothing
	}
	switch n := string(said.Partial.Rejected); n {
	case "", "0", `"0"`, "null":
		return nil
	default:
		return &Rejected{fmt.Errorf("%s records were refused: %.300q", n, said.Partial.Message)}
	}
}
