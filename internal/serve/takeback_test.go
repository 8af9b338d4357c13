package serve

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/internal/telemetry"
)

// A hand-over fails while this process is told to stop, and the log cannot be opened
// again. Requests that waited for it must not pass as if there was nothing to
// record, and what they leave is told at least to the operator.
func TestNothingPassesWhereTheLogCannotBeTakenBack(t *testing.T) {
	var said strings.Builder
	log := slog.New(slog.NewTextHandler(&said, nil))
	cfg := new(config.Config)
	cfg.Audit.To = []audit.Sink{{File: audit.FileSink{Path: t.TempDir()}}} // no file
	r := &running{
		opts: Options{Now: time.Now}, cfg: cfg, log: log, metrics: telemetry.New(telemetry.Options{}),
		startIssuing: func(context.Context) {},
	}
	r.records = &recorder{metrics: r.metrics, log: log, audit: nowhere{}, tally: admin.NewTally(time.Now)}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	r.records.leave()
	r.takeBack(stopped)
	if r.records.Err() == nil {
		t.Error("nothing is wrong with a log that is not there")
	}
	r.records.Record(&access.Event{Kind: access.EventAdmin, Note: "something happened"})
	if text := said.String(); !strings.Contains(text, "an audit event is lost") || !strings.Contains(text, "something happened") {
		t.Error(text)
	}
}
