package send

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/doorward/doorward/internal/audit/format"
)

// Record is one event on its way.
type Record struct {
	// Time is when it happened.
	Time time.Time
	// Kind is the kind of the event, such as "decision".
	Kind string
	// Severity is how much it deserves attention.
	Severity format.Severity
	// Trace names the trace of the request: 32 hexadecimal digits, or nothing.
	Trace string
	// Body is a JSON object in the format that was asked for.
	Body []byte
}

// A Sender hands batches over. Its methods are called by one goroutine.
type Sender interface {
	// Send returns nil once the receiver has all records. After an error it has
	// none, some or all of them, and will be sent all again: *Rejected says that
	// this batch will never be taken, *Wait when to try again, and any other error
	// that it may be taken later.
	Send(ctx context.Context, batch []Record) error
	// Close ends connections.
	Close()
}

// Limits are what a sender takes at once.
type Limits struct{ Records, Bytes int }

// Rejected says that sending the same batch again is of no use.
type Rejected struct{ Err error }

// Error implements error.
func (r *Rejected) Error() string { return "rejected: " + r.Err.Error() }

// Unwrap returns what the receiver said.
func (r *Rejected) Unwrap() error { return r.Err }

// Wait says that the receiver asked for a pause.
type Wait struct {
	Err   error
	After time.Duration
}

// Error implements error.
func (w *Wait) Error() string { return w.Err.Error() }

// Unwrap returns what the receiver said.
func (w *Wait) Unwrap() error { return w.Err }

// Options give a sender its surroundings. All have defaults.
type Options struct {
	// Host is the name of this machine. Default "-".
	Host string
	// Version is that of Doorward.
	Version string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log receives what is odd and no failure. Default: nowhere.
	Log *slog.Logger
}

// New returns the sender of the one receiver that t names, and what it takes at
// once.
func New(t *To, opts Options) (Sender, Limits, error) {
	if opts.Host == "" {
		opts.Host = "-"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	var s Sender
	var err error
	switch {
	case t.Syslog.Address != "":
		s, err = newSyslog(t.Syslog, opts)
	case t.Splunk.URL != "":
		s, err = newSplunk(t.Splunk, opts)
	case t.OTLP.URL != "":
		s, err = newOTLP(t.OTLP, opts)
	case t.Azure.Endpoint != "":
		s, err = newAzure(t.Azure, opts)
	case t.Webhook.URL != "":
		s, err = newWebhook(t.Webhook, opts)
	default:
		err = errors.New("there is no receiver")
	}
	if err != nil {
		return nil, Limits{}, fmt.Errorf("audit log %s: %w", t.Name(), err)
	}
	return s, Limits{Records: 1000, Bytes: 768 << 10}, nil
}
