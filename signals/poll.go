package signals

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/jose"
)

const (
	maxEvents = 50
	// longPoll is how long one poll may stay open. Transmitters answer earlier.
	longPoll = 2 * time.Minute
	// pollPause is the least time between two polls of which the first was left to
	// wait and brought nothing: a transmitter that does not keep polls open is not
	// asked all the time.
	pollPause = 2 * time.Second
	// noStreamPause is how often the store is asked whether there is a stream yet.
	noStreamPause = 250 * time.Millisecond
	maxPause      = time.Minute
)

// settled is what became of the events of one poll, for the next one to say.
type settled struct {
	acks []string
	errs map[string]map[string]string
}

func (s *settled) empty() bool { return len(s.acks)+len(s.errs) == 0 }

// poll asks for events until ctx ends (RFC 8936).
func (r *Receiver) poll(ctx context.Context, t *transmitter) {
	var done settled
	for failures := 0; ctx.Err() == nil; {
		asked, left := t.now(), done.empty() // left to wait for events
		got, err := r.pollOnce(ctx, t, &done)
		if ctx.Err() != nil {
			return
		}
		wait := time.Duration(0)
		switch {
		case errors.Is(err, errNoStream):
			wait = noStreamPause // run is setting it up
		case err != nil:
			t.outcome(fmt.Errorf("polling: %w", err))
			wait = min(firstRetry<<min(failures, 10), maxPause)
			failures++
			if after := retryAfter(err); after > wait {
				wait = min(after, 10*maxPause)
			}
			wait += rand.N(wait/10 + 1)
		default:
			if failures = 0; got == 0 && left {
				wait = pollPause - t.now().Sub(asked)
			}
		}
		if wait > 0 && !pause(ctx, wait) {
			return
		}
	}
}

// pollOnce settles what came before, asks for more, and carries it out. What
// could not be carried out is not acknowledged and comes again.
func (r *Receiver) pollOnce(ctx context.Context, t *transmitter, done *settled) (int, error) {
	address := t.cfg.PollURL
	if address == "" {
		s, err := t.stream(ctx)
		if err != nil {
			return 0, err
		}
		address = s.PollURL
	}
	ask := map[string]any{"maxEvents": maxEvents, "returnImmediately": !done.empty()}
	if len(done.acks) > 0 {
		ask["ack"] = done.acks
	}
	if len(done.errs) > 0 {
		ask["setErrs"] = done.errs
	}
	doc, err := t.askPoll(ctx, address, ask)
	if err != nil {
		return 0, err
	}
	*done = settled{}
	t.outcome(nil)
	t.note(func(s *Status) { s.Heard = t.now() })
	sets, ok := doc["sets"].(map[string]any)
	if !ok && doc["sets"] != nil {
		return 0, errors.New("sets is not an object")
	}
	if len(sets) > 10*maxEvents {
		return 0, fmt.Errorf("%d events at once", len(sets))
	}
	var failed error
	for id, value := range sets {
		raw, ok := value.(string)
		if !ok {
			done.fail(id, refuse(invalidRequest, "this is no token"))
			continue
		}
		err := r.takePolled(ctx, t, raw)
		var no *refusal
		switch {
		case err == nil:
			done.acks = append(done.acks, id)
		case errors.As(err, &no):
			done.fail(id, no)
		default:
			failed = err
		}
	}
	return len(sets), failed
}

func (r *Receiver) takePolled(ctx context.Context, t *transmitter, raw string) error {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	return r.take(ctx, t, raw, "")
}

func (s *settled) fail(id string, no *refusal) {
	if s.errs == nil {
		s.errs = map[string]map[string]string{}
	}
	s.errs[id] = describe(no)
}

// busyError is an answer that asks for patience.
type busyError struct {
	answerError
	after time.Duration
}

func (e *busyError) Unwrap() error { return &e.answerError }

func retryAfter(err error) time.Duration {
	if busy, ok := errors.AsType[*busyError](err); ok {
		return busy.after
	}
	return 0
}

func (t *transmitter) askPoll(ctx context.Context, address string, ask map[string]any) (jose.Object, error) {
	client := t.manage
	if client == nil {
		client = t.http
	}
	ctx, cancel := context.WithTimeout(ctx, longPoll)
	defer cancel()
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Language", "en") // of the descriptions in setErrs
	resp, doc, err := jose.AskJSON(client, req)
	switch {
	case resp == nil:
		return nil, err
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return nil, &busyError{answerError{address, resp.StatusCode}, time.Duration(min(max(seconds, 0), 3600)) * time.Second}
	case resp.StatusCode != http.StatusOK:
		return nil, &answerError{address, resp.StatusCode}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return doc, nil
}
