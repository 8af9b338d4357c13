package testidp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The families of event types that a Transmitter sends.
const (
	CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
	RISC = "https://schemas.openid.net/secevent/risc/event-type/"
	SSF  = "https://schemas.openid.net/secevent/ssf/event-type/"
)

// TransmitterToken is what the management and poll endpoints of a Transmitter want
// as a bearer token.
const TransmitterToken = "transmitter-token"

// Transmitter is a transmitter of the OpenID Shared Signals Framework 1.0 that
// follows the CAEP interoperability profile: RS256, a stream that is created over
// its API, push (RFC 8935) and poll (RFC 8936), verification on request. Its
// fields may be changed between calls.
type Transmitter struct {
	// Issuer is its issuer URL, with a path.
	Issuer string
	// Audience is the aud of its tokens.
	Audience string
	// OneStream answers 409 to a second stream.
	OneStream bool
	// Fault, if it returns a status, answers a request of a path with it.
	Fault func(path string) int
	// Critical is announced as critical_subject_members.
	Critical []string
	// Transport reaches the receivers. Default: http.DefaultTransport.
	Transport http.RoundTripper
	// Inactivity is announced as inactivity_timeout, in seconds.
	Inactivity int

	now    func() time.Time
	server *httptest.Server
	key    *key

	mu       sync.Mutex
	arrived  *sync.Cond
	streams  map[string]*feed
	requests map[string]int
	errors   map[string]map[string]string // by jti: what a receiver said of it
	acked    map[string]bool
	pushes   sync.WaitGroup
}

// feed is one stream.
type feed struct {
	config map[string]any
	status string
	queue  map[string]string // jti to token, for polling
}

// NewTransmitter starts a transmitter on this machine. Close it.
func NewTransmitter(now func() time.Time, audience string) (*Transmitter, error) {
	k, err := newKey("RS256")
	if err != nil {
		return nil, err
	}
	t := &Transmitter{Audience: audience, now: now, key: k, streams: map[string]*feed{}, requests: map[string]int{},
		errors: map[string]map[string]string{}, acked: map[string]bool{}}
	t.arrived = sync.NewCond(&t.mu)
	t.server = httptest.NewServer(t)
	t.Issuer = t.server.URL + "/tenant"
	return t, nil
}

// Close stops the transmitter once pushes under way have ended.
func (t *Transmitter) Close() {
	t.pushes.Wait()
	t.mu.Lock()
	t.arrived.Broadcast()
	t.mu.Unlock()
	t.server.CloseClientConnections()
	t.server.Close()
}

// Requests returns how often a path was asked for.
func (t *Transmitter) Requests(path string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests[path]
}

// Streams returns the configurations of all streams.
func (t *Transmitter) Streams() (list []map[string]any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.streams {
		list = append(list, f.config)
	}
	return list
}

// Claims returns those of a lawful token about an event, for tests to change.
func (t *Transmitter) Claims(event string, subject, fields map[string]any) map[string]any {
	now := t.now()
	if fields == nil {
		fields = map[string]any{}
	}
	if _, ok := fields["event_timestamp"]; !ok {
		fields["event_timestamp"] = now.Unix()
	}
	return map[string]any{"iss": t.Issuer, "jti": rand.Text(), "iat": now.Unix(), "aud": t.Audience, "sub_id": subject,
		"events": map[string]any{event: fields}}
}

// Header returns the header of a lawful token.
func (t *Transmitter) Header() map[string]any {
	return map[string]any{"typ": "secevent+jwt", "alg": "RS256", "kid": t.key.ID}
}

// Sign signs any header and claims with the transmitter's key.
func (t *Transmitter) Sign(header, claims map[string]any) string {
	token := jwt.Token{Header: header, Claims: jwt.MapClaims(claims), Method: jwt.SigningMethodRS256}
	signed, err := token.SignedString(t.key.signer)
	if err != nil {
		panic(err) // only for claims that are no JSON
	}
	return signed
}

// Send signs an event and delivers it to every stream: pushed at once, with the
// answers returned, or left to be polled.
func (t *Transmitter) Send(ctx context.Context, event string, subject, fields map[string]any) (jti string, answers []int, err error) {
	claims := t.Claims(event, subject, fields)
	jti = claims["jti"].(string)
	answers, err = t.Deliver(ctx, jti, t.Sign(t.Header(), claims))
	return jti, answers, err
}

// Deliver delivers a token to every stream.
func (t *Transmitter) Deliver(ctx context.Context, jti, raw string) (answers []int, err error) {
	t.mu.Lock()
	var pushed []map[string]any
	for _, f := range t.streams {
		delivery, _ := f.config["delivery"].(map[string]any)
		if delivery["method"] == "urn:ietf:rfc:8935" {
			pushed = append(pushed, delivery)
			continue
		}
		f.queue[jti] = raw
	}
	t.arrived.Broadcast()
	t.mu.Unlock()
	for _, delivery := range pushed {
		header, _ := delivery["authorization_header"].(string)
		address, _ := delivery["endpoint_url"].(string)
		status, _, pushErr := push(ctx, &http.Client{Transport: t.Transport}, address, header, raw)
		if pushErr != nil {
			return answers, pushErr
		}
		answers = append(answers, status)
	}
	return answers, nil
}

// Push sends a token as RFC 8935 §2 wants it, and returns the answer.
func Push(ctx context.Context, address, header, raw string) (int, map[string]string, error) {
	return push(ctx, http.DefaultClient, address, header, raw)
}

func push(ctx context.Context, client *http.Client, address, header, raw string) (int, map[string]string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(raw))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/secevent+jwt")
	r.Header.Set("Accept", "application/json")
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, fmt.Errorf("testidp: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return resp.StatusCode, nil, err
	}
	var said map[string]string
	if len(body) > 0 && resp.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(body, &said); err != nil {
			return resp.StatusCode, nil, err
		}
	}
	return resp.StatusCode, said, nil
}

// Settled waits until a receiver acknowledged a token by poll, or ctx ends. It
// returns the error that the receiver gave, "" if it accepted.
func (t *Transmitter) Settled(ctx context.Context, jti string) (code string, err error) {
	defer context.AfterFunc(ctx, func() { t.mu.Lock(); t.arrived.Broadcast(); t.mu.Unlock() })()
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if said, ok := t.errors[jti]; ok {
			return said["err"], nil
		}
		if t.acked[jti] {
			return "", nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		t.arrived.Wait()
	}
}

// SetStatus changes the status of all streams, as an administrator would.
func (t *Transmitter) SetStatus(status string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.streams {
		f.status = status
	}
}

// ServeHTTP implements http.Handler.
func (t *Transmitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	t.requests[r.URL.Path]++
	fault := t.Fault
	t.mu.Unlock()
	if fault != nil {
		if status := fault(r.URL.Path); status != 0 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(status)
			return
		}
	}
	switch r.URL.Path {
	case "/.well-known/ssf-configuration/tenant":
		base := t.server.URL + "/tenant"
		about := map[string]any{
			"spec_version": "1_0", "issuer": t.Issuer, "jwks_uri": base + "/jwks",
			"delivery_methods_supported": []string{"urn:ietf:rfc:8935", "urn:ietf:rfc:8936"},
			"configuration_endpoint":     base + "/stream", "status_endpoint": base + "/status", "verification_endpoint": base + "/verify",
			"authorization_schemes": []map[string]string{{"spec_urn": "urn:ietf:rfc:6749"}}, "default_subjects": "ALL",
		}
		if len(t.Critical) > 0 {
			about["critical_subject_members"] = t.Critical
		}
		writeJSON(w, http.StatusOK, about)
		return
	case "/tenant/jwks":
		public, err := t.key.public()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{"keys": []jwk{public}})
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+TransmitterToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var body map[string]any
	if r.Method == http.MethodPost || r.Method == http.MethodPatch {
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	switch r.URL.Path {
	case "/tenant/stream":
		t.manage(w, r, body)
	case "/tenant/status":
		t.statusOf(w, r, body)
	case "/tenant/verify":
		t.verify(w, body)
	case "/tenant/poll":
		t.poll(w, r, body)
	default:
		http.NotFound(w, r)
	}
}

// manage is the stream configuration endpoint (SSF 1.0 §8.1.1).
func (t *Transmitter) manage(w http.ResponseWriter, r *http.Request, body map[string]any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := r.URL.Query().Get("stream_id")
	if r.Method == http.MethodPatch {
		id, _ = body["stream_id"].(string)
	}
	switch {
	case r.Method == http.MethodPost && t.OneStream && len(t.streams) > 0:
		w.WriteHeader(http.StatusConflict)
	case r.Method == http.MethodPost:
		id := rand.Text()
		f := &feed{status: "enabled", queue: map[string]string{}, config: map[string]any{"stream_id": id, "iss": t.Issuer, "aud": []string{t.Audience}}}
		t.configure(f, body)
		t.streams[id] = f
		writeJSON(w, http.StatusCreated, f.config)
	case r.Method == http.MethodGet && id == "":
		list := []map[string]any{}
		for _, f := range t.streams {
			list = append(list, f.config)
		}
		writeJSON(w, http.StatusOK, list)
	case t.streams[id] == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPatch:
		t.configure(t.streams[id], body)
		fallthrough
	case r.Method == http.MethodGet:
		writeJSON(w, http.StatusOK, t.streams[id].config)
	case r.Method == http.MethodDelete:
		delete(t.streams, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (t *Transmitter) configure(f *feed, body map[string]any) {
	delivery, _ := body["delivery"].(map[string]any)
	if delivery == nil {
		delivery = map[string]any{"method": "urn:ietf:rfc:8936"}
	}
	if delivery["method"] == "urn:ietf:rfc:8936" {
		delivery["endpoint_url"] = t.server.URL + "/tenant/poll"
	}
	f.config["delivery"] = delivery
	f.config["events_requested"], f.config["events_delivered"] = body["events_requested"], body["events_requested"]
	f.config["description"] = body["description"]
	f.config["min_verification_interval"] = 1
	if t.Inactivity > 0 {
		f.config["inactivity_timeout"] = t.Inactivity
	}
}

func (t *Transmitter) statusOf(w http.ResponseWriter, r *http.Request, body map[string]any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := r.URL.Query().Get("stream_id")
	if body != nil {
		id, _ = body["stream_id"].(string)
	}
	f := t.streams[id]
	if f == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if status, ok := body["status"].(string); ok {
		f.status = status
	}
	writeJSON(w, http.StatusOK, map[string]any{"stream_id": id, "status": f.status})
}

// verify sends a verification event, after its own answer (SSF 1.0 §8.1.4).
func (t *Transmitter) verify(w http.ResponseWriter, body map[string]any) {
	id, _ := body["stream_id"].(string)
	t.mu.Lock()
	known := t.streams[id] != nil
	t.mu.Unlock()
	if !known {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fields := map[string]any{}
	if state, ok := body["state"]; ok {
		fields["state"] = state
	}
	t.pushes.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _, _ = t.Send(ctx, SSF+"verification", map[string]any{"format": "opaque", "id": id}, fields)
	})
	w.WriteHeader(http.StatusNoContent)
}

// poll answers a poll (RFC 8936 §2): at once where there is something to say or
// the receiver wants it, else when something arrives.
func (t *Transmitter) poll(w http.ResponseWriter, r *http.Request, body map[string]any) {
	defer context.AfterFunc(r.Context(), func() { t.mu.Lock(); t.arrived.Broadcast(); t.mu.Unlock() })()
	t.mu.Lock()
	defer t.mu.Unlock()
	settle := func(jti string) {
		for _, f := range t.streams {
			delete(f.queue, jti)
		}
	}
	acks, _ := body["ack"].([]any)
	for _, jti := range acks {
		if id, ok := jti.(string); ok {
			t.acked[id] = true
			settle(id)
		}
	}
	errs, _ := body["setErrs"].(map[string]any)
	for jti, said := range errs {
		text, _ := json.Marshal(said)
		var fields map[string]string
		_ = json.NewDecoder(bytes.NewReader(text)).Decode(&fields)
		t.errors[jti] = fields
		settle(jti)
	}
	t.arrived.Broadcast()
	waiting := func() map[string]string {
		sets := map[string]string{}
		for _, f := range t.streams {
			for jti, raw := range f.queue {
				sets[jti] = raw
			}
		}
		return sets
	}
	most, _ := body["maxEvents"].(float64)
	sets := waiting()
	for now, _ := body["returnImmediately"].(bool); len(sets) == 0 && !now && r.Context().Err() == nil && most != 0; sets = waiting() {
		t.arrived.Wait()
	}
	more := false
	for _, jti := range slices.Sorted(maps.Keys(sets)) {
		if len(sets) <= int(most) {
			break
		}
		delete(sets, jti)
		more = true
	}
	writeJSON(w, http.StatusOK, map[string]any{"sets": sets, "moreAvailable": more})
}
