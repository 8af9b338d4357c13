package send

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// splunk sends to a Splunk HTTP Event Collector: events one behind the other,
// without an array around them.
type splunk struct {
	*poster
	cfg  Splunk
	opts Options
}

func newSplunk(cfg Splunk, opts Options) (Sender, error) {
	p, err := newPoster(cfg.TLS, cfg.URL, opts)
	if err != nil {
		return nil, err
	}
	return &splunk{p, cfg, opts}, nil
}

type splunkEvent struct {
	Time       json.Number     `json:"time"`
	Host       string          `json:"host"`
	Source     string          `json:"source"`
	SourceType string          `json:"sourcetype"`
	Index      string          `json:"index,omitempty"`
	Event      json.RawMessage `json:"event"`
}

// Send implements Sender.
func (s *splunk) Send(ctx context.Context, batch []Record) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	for _, r := range batch {
		ms := r.Time.UnixMilli()
		at := json.Number(fmt.Sprintf("%d.%03d", ms/1000, ms%1000))
		if ms < 0 {
			at = "0"
		}
		if err := enc.Encode(splunkEvent{at, s.opts.Host, "doorward", "doorward:" + r.Kind, s.cfg.Index, r.Body}); err != nil {
			return &Rejected{err}
		}
	}
	header := http.Header{"Authorization": {"Splunk " + s.cfg.Token.Reveal()}, "Content-Type": {"application/json"}}
	_, err := s.post(ctx, strings.TrimRight(s.cfg.URL, "/")+"/services/collector/event", header, body.Bytes())
	var rejected *Rejected
	if errors.As(err, &rejected) && splunkConfigured(rejected) {
		return rejected.Err // other events would fare no better
	}
	return err
}

// splunkConfigured reports whether Splunk rejects the batch for its index or
// channel, which is a mistake in a configuration and not in an event.
func splunkConfigured(rejected *Rejected) bool {
	var status *Status
	var said struct {
		Code int `json:"code"`
	}
	if !errors.As(rejected, &status) || json.Unmarshal(status.Answer, &said) != nil {
		return false
	}
	return said.Code == 7 || said.Code == 10 || said.Code == 11
}
