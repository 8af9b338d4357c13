package signals

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/store"
)

// The ways of delivery, as streams name them.
const (
	pushMethod = "urn:ietf:rfc:8935"
	pollMethod = "urn:ietf:rfc:8936"
)

const (
	manageTimeout = 10 * time.Second
	// verifyEvery is how often the stream has to prove that it works, where the
	// transmitter does not ask for more.
	verifyEvery = 6 * time.Hour
	// stateLife is how long an event that was asked for may take, and
	// statePatience after how long it is missed.
	stateLife     = 15 * time.Minute
	statePatience = 30 * time.Second
)

// streamRecord is our stream, as all replicas know it.
type streamRecord struct {
	ID       string   `json:"id"`
	Audience []string `json:"aud"`
	PollURL  string   `json:"poll_url,omitempty"`
	// Inactivity is how long the transmitter keeps a stream that nobody asks about,
	// in seconds; zero for ever.
	Inactivity int64 `json:"inactivity,omitempty"`
	// For names the configuration that it was set up for.
	For string `json:"for"`
}

func (t *transmitter) streamKey() string { return "signal/stream/" + t.cfg.ID }
func (t *transmitter) stateKey() string  { return "signal/state/" + t.cfg.ID }

// fingerprint names what a stream is set up for: another one needs an update.
func (t *transmitter) fingerprint() string {
	text, _ := json.Marshal([]any{t.cfg.Issuer, t.cfg.Delivery, t.endpoint, t.cfg.PushSecret.Reveal(), t.cfg.wanted(), t.cfg.ClientID})
	mac := hmac.New(sha256.New, t.key) // a plain hash would let readers of the store guess the secret
	mac.Write(text)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

var errNoStream = errors.New("the stream is not set up yet")

// stream returns the stream as it was set up, by whichever replica.
func (t *transmitter) stream(ctx context.Context) (*streamRecord, error) {
	item, err := t.store.Get(ctx, t.streamKey())
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoStream
	}
	if err != nil {
		return nil, err
	}
	s := new(streamRecord)
	if err := json.Unmarshal(item.Value, s); err != nil || s.ID == "" {
		return nil, errNoStream
	}
	return s, nil
}

// ensure sets the stream up, or brings the one there is up to date.
func (t *transmitter) ensure(ctx context.Context) (*streamRecord, error) {
	about, err := t.published.Get(ctx)
	if err != nil {
		return nil, err
	}
	if about.streams == "" {
		return nil, errors.New("it names no configuration_endpoint: set the stream up by hand and give audience")
	}
	known, err := t.stream(ctx)
	if err != nil && !errors.Is(err, errNoStream) {
		return nil, err
	}
	if known != nil && known.For == t.fingerprint() {
		if doc, err := t.call(ctx, http.MethodGet, about.streams+"?stream_id="+url.QueryEscape(known.ID), nil, http.StatusOK); err == nil {
			return t.keepStream(ctx, doc)
		} else if status := statusOf(err); status != http.StatusNotFound {
			return nil, err
		}
		known = nil // somebody removed it
	}
	// One replica at a time: two streams would bring every event twice.
	unlock, err := t.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	doc, err := t.create(ctx, about, known)
	if err != nil {
		return nil, err
	}
	return t.keepStream(ctx, doc)
}

// create makes a stream, or changes the only one that we may have.
func (t *transmitter) create(ctx context.Context, about *configuration, known *streamRecord) (jose.Object, error) {
	delivery := map[string]any{"method": pollMethod}
	if !t.cfg.polls() {
		if t.endpoint == "" {
			return nil, errors.New("nobody knows where to push events to: add endpoint, or server.auth_url")
		}
		delivery = map[string]any{"method": pushMethod, "endpoint_url": t.endpoint, "authorization_header": t.cfg.PushSecret.Reveal()}
	}
	ask := map[string]any{"delivery": delivery, "events_requested": t.cfg.wanted(), "description": "doorward " + t.cfg.ID}
	if known == nil {
		doc, err := t.call(ctx, http.MethodPost, about.streams, ask, http.StatusCreated)
		if statusOf(err) != http.StatusConflict {
			return doc, err
		}
		// There is one already, and no second one is possible.
		list, err := t.list(ctx, about)
		if err != nil {
			return nil, err
		}
		if len(list) != 1 {
			return nil, fmt.Errorf("it refuses another stream, and lists %d", len(list))
		}
		id, err := jose.Object(list[0]).Text("stream_id")
		if err != nil {
			return nil, err
		}
		known = &streamRecord{ID: id}
	}
	ask["stream_id"] = known.ID
	doc, err := t.call(ctx, http.MethodPatch, about.streams, ask, http.StatusOK)
	if statusOf(err) == http.StatusAccepted {
		return nil, errors.New("it has not carried out the change of the stream yet")
	}
	return doc, err
}

// list returns our streams. Some answer with a list, some with the one there is.
func (t *transmitter) list(ctx context.Context, about *configuration) ([]map[string]any, error) {
	value, err := t.callAny(ctx, http.MethodGet, about.streams, nil, http.StatusOK)
	if err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case map[string]any:
		return []map[string]any{v}, nil
	case []any:
		var list []map[string]any
		for _, one := range v {
			if stream, ok := one.(map[string]any); ok {
				list = append(list, stream)
			}
		}
		return list, nil
	}
	return nil, errors.New("the list of streams is no list")
}

// keepStream checks the configuration of a stream and keeps it.
func (t *transmitter) keepStream(ctx context.Context, doc jose.Object) (*streamRecord, error) {
	s := &streamRecord{For: t.fingerprint()}
	var err error
	if s.ID, err = member(doc, "stream_id"); err != nil {
		return nil, fmt.Errorf("the stream: %w", err)
	}
	if iss, err := doc.Text("iss"); err != nil || iss != t.cfg.Issuer {
		return nil, fmt.Errorf("the stream is of another issuer, %.100q", iss)
	}
	if s.Audience, err = doc.TextOrTexts("aud"); err != nil || len(s.Audience) == 0 && t.cfg.Audience == "" {
		return nil, errors.New("the stream does not say which aud its tokens have; add audience")
	}
	if number, ok := doc["inactivity_timeout"].(json.Number); ok {
		s.Inactivity, _ = number.Int64()
	}
	if t.cfg.polls() && t.cfg.PollURL == "" {
		delivery, _ := doc["delivery"].(map[string]any)
		if s.PollURL, err = jose.Object(delivery).Text("endpoint_url"); err != nil {
			return nil, err
		}
		if err := checkAddress(s.PollURL); err != nil {
			return nil, fmt.Errorf("where to poll: %w", err)
		}
	}
	t.warnOfMissing(doc)
	value, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if _, err := t.store.Put(ctx, store.Item{Key: t.streamKey(), Value: value, Version: store.Any}); err != nil {
		return nil, err
	}
	t.note(func(st *Status) { st.Stream = s.ID })
	return s, nil
}

// warnOfMissing names the events that were asked for and will not come.
func (t *transmitter) warnOfMissing(doc jose.Object) {
	delivered, err := doc.Texts("events_delivered")
	if err != nil || delivered == nil {
		return
	}
	have := map[string]bool{}
	for _, uri := range delivered {
		have[uri] = true
	}
	var missing []string
	for _, uri := range t.cfg.wanted() {
		if k := kindOf(uri); !have[uri] {
			missing = append(missing, k.name)
		}
	}
	if len(missing) > 0 {
		t.log.Info("some types of events will not come from this transmitter", "events", missing)
	}
}

// challenge asks for an event, to see that events arrive (SSF 1.0 §8.1.4). Any
// replica may get it.
func (t *transmitter) challenge(ctx context.Context, s *streamRecord) error {
	about, err := t.published.Get(ctx)
	if err != nil || about.verify == "" {
		return err
	}
	state := rand.Text()
	_, err = t.store.Put(ctx, store.Item{Key: t.stateKey(), Value: []byte(state), Version: store.Any, Expires: t.now().Add(stateLife)})
	if err != nil {
		return err
	}
	_, err = t.callAny(ctx, http.MethodPost, about.verify, map[string]any{"stream_id": s.ID, "state": state}, http.StatusNoContent)
	return err
}

// expected reports whether a verification event answers what we asked. One that
// nobody asked for has no state (SSF 1.0 §8.1.4.1).
func (t *transmitter) expected(ctx context.Context, e *event) error {
	state, err := e.fields.Text("state")
	if err != nil {
		return refuse(invalidRequest, "%w", err)
	}
	if _, present := e.fields["state"]; !present {
		return nil
	}
	item, err := t.store.Get(ctx, t.stateKey())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuse(invalidState, "nobody asked for this")
	case err != nil:
		return err
	case string(item.Value) != state:
		return refuse(invalidState, "this is not what was asked")
	}
	if err := t.store.Delete(ctx, t.stateKey(), item.Version); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	t.note(func(s *Status) { s.Verified = t.now() })
	t.log.Info("the stream works: the event that was asked for has come")
	return nil
}

// missed reports an event that was asked for and has not come, to any replica.
func (t *transmitter) missed(ctx context.Context) error {
	_, err := t.store.Get(ctx, t.stateKey())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case t.cfg.polls():
		return errors.New("the event that was asked for has not come")
	}
	return fmt.Errorf("the event that was asked for has not come: see that the transmitter can reach %s", t.endpoint)
}

// inspect asks whether the stream is enabled, and enables one that is not: a
// stream that the transmitter has paused loses events.
func (t *transmitter) inspect(ctx context.Context, s *streamRecord) error {
	about, err := t.published.Get(ctx)
	if err != nil || about.status == "" {
		return err
	}
	doc, err := t.call(ctx, http.MethodGet, about.status+"?stream_id="+url.QueryEscape(s.ID), nil, http.StatusOK)
	if err != nil {
		return err
	}
	status, err := doc.Text("status")
	if err != nil || status == "enabled" {
		return err
	}
	t.log.Warn("the stream is not enabled; asking to enable it", "status", status)
	_, err = t.call(ctx, http.MethodPost, about.status, map[string]any{"stream_id": s.ID, "status": "enabled"}, http.StatusOK)
	return err
}

// lock keeps other replicas from setting up the stream at the same time.
func (t *transmitter) lock(ctx context.Context) (unlock func(), err error) {
	key := "signal/lock/" + t.cfg.ID
	version, err := t.store.Put(ctx, store.Item{Key: key, Version: store.New, Expires: t.now().Add(time.Minute)})
	if errors.Is(err, store.ErrConflict) {
		return nil, errors.New("another replica is setting up the stream")
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = t.store.Delete(context.WithoutCancel(ctx), key, version) }, nil // else it expires
}

// answerError is an answer with an unexpected status.
type answerError struct {
	address string
	status  int
}

func (e *answerError) Error() string { return fmt.Sprintf("%s answered %d", e.address, e.status) }

func statusOf(err error) int {
	if answer, ok := errors.AsType[*answerError](err); ok {
		return answer.status
	}
	return 0
}

// call asks the stream management API (SSF 1.0 §8.1) for an object.
func (t *transmitter) call(ctx context.Context, method, address string, body any, want int) (jose.Object, error) {
	value, err := t.callAny(ctx, method, address, body, want)
	if err != nil {
		return nil, err
	}
	doc, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s did not answer with an object", address)
	}
	return doc, nil
}

func (t *transmitter) callAny(ctx context.Context, method, address string, body any, want int) (any, error) {
	if t.manage == nil {
		return nil, errors.New("there is no token to manage the stream with")
	}
	ctx, cancel := context.WithTimeout(ctx, manageTimeout)
	defer cancel()
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, address, &content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, value, err := jose.AskAny(t.manage, req)
	switch {
	case resp == nil:
		return nil, err
	case resp.StatusCode != want:
		return nil, &answerError{address, resp.StatusCode}
	case want == http.StatusNoContent:
		return nil, nil
	}
	return value, err
}
