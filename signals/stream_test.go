package signals

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// Events that are polled: acknowledged when carried out, refused with a code when
// they are no events, and fetched again when they could not be carried out.
func TestPolling(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.cfg.Delivery, w.cfg.Endpoint, w.cfg.PushSecret = "poll", "", access.Secret{}
	})
	cookie := w.login(corp, "alice")
	w.stream() // the verification event came by poll
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	jti, _, err := w.from.Send(ctx, testidp.CAEP+"session-revoked", user(corp, "alice"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := w.from.Settled(ctx, jti); err != nil || code != "" {
		t.Fatalf("%q, %v", code, err)
	}
	if w.who(cookie) != nil {
		t.Error("still logged in")
	}
	for id, c := range map[string]struct{ raw, code string }{
		"forged":  {strings.Repeat("x", 40), invalidRequest},
		"foreign": {w.from.Sign(w.from.Header(), map[string]any{"iss": "https://evil.test"}), invalidIssuer},
	} {
		if _, err := w.from.Deliver(ctx, id, c.raw); err != nil {
			t.Fatal(err)
		}
		if code, err := w.from.Settled(ctx, id); err != nil || code != c.code {
			t.Errorf("%s: %q, %v; want %s", id, code, err, c.code)
		}
	}
}

// A transmitter that throttles, fails and comes back is asked with patience, and
// nothing that it keeps is lost.
func TestPollingThroughFaults(t *testing.T) {
	broken := make(chan int, 100)
	w := newWorld(t, func(w *world) {
		w.cfg.Delivery, w.cfg.Endpoint, w.cfg.PushSecret = "poll", "", access.Secret{}
		w.from.Fault = func(path string) int {
			if !strings.HasSuffix(path, "/poll") {
				return 0
			}
			select {
			case status := <-broken:
				return status
			default:
				return 0
			}
		}
	})
	cookie := w.login(corp, "alice")
	w.stream()
	broken <- http.StatusTooManyRequests
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	jti, _, err := w.from.Send(ctx, testidp.CAEP+"session-revoked", user(corp, "alice"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := w.from.Settled(ctx, jti); err != nil || code != "" || w.who(cookie) != nil {
		t.Fatalf("%q, %v", code, err)
	}
}

// The stream: made once for all replicas and restarts, changed when the
// configuration is another one, made again when somebody removed it.
func TestStreamIsSetUpOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.stream()
	ask := func(r *Receiver) error {
		_, err := r.transmitters[0].ensure(t.Context())
		return err
	}
	for range 3 {
		if err := ask(w.newReceiver(nil)); err != nil {
			t.Fatal(err)
		}
	}
	streams := w.from.Streams()
	if len(streams) != 1 {
		t.Fatalf("%d streams", len(streams))
	}
	delivery, _ := streams[0]["delivery"].(map[string]any)
	if delivery["authorization_header"] != secret || delivery["endpoint_url"] != w.door.URL {
		t.Errorf("%v", delivery)
	}
	w.cfg.Events = []string{"session-revoked"}
	if err := ask(w.newReceiver(nil)); err != nil {
		t.Fatal(err)
	}
	streams = w.from.Streams()
	if asked, _ := streams[0]["events_requested"].([]any); len(streams) != 1 || len(asked) != 1 {
		t.Errorf("%v", streams)
	}
	id, _ := streams[0]["stream_id"].(string)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, w.from.Issuer+"/stream?stream_id="+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testidp.TransmitterToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := ask(w.newReceiver(nil)); err != nil {
		t.Fatal(err)
	}
	if streams = w.from.Streams(); len(streams) != 1 || streams[0]["stream_id"] == id {
		t.Errorf("%v", streams)
	}
}

// A transmitter that allows one stream only: the one there is becomes ours.
func TestOnlyOneStreamAllowed(t *testing.T) {
	w := newWorld(t, func(w *world) { w.from.OneStream = true })
	if _, err := w.newReceiver(nil).transmitters[0].ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Delete(t.Context(), "signal/stream/hub", ^uint64(0)); err != nil { // all memory of it is lost
		t.Fatal(err)
	}
	w.stream()
	if n := len(w.from.Streams()); n != 1 {
		t.Errorf("%d streams", n)
	}
}

// A stream that the transmitter has switched off is noticed and switched on.
func TestDisabledStreamIsEnabled(t *testing.T) {
	w := newWorld(t, nil)
	w.stream()
	w.from.SetStatus("disabled")
	var due = w.now().Add(-1)
	if err := w.receiver.transmitters[0].maintain(t.Context(), &due); err != nil {
		t.Fatal(err)
	}
	t1 := w.receiver.transmitters[0]
	s, err := t1.stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := t1.call(t.Context(), http.MethodGet, w.from.Issuer+"/status?stream_id="+s.ID, nil, http.StatusOK)
	if err != nil || doc["status"] != "enabled" {
		t.Errorf("%v, %v", doc, err)
	}
	w.push(202, testidp.SSF+"stream-updated", opaque(s.ID), map[string]any{"status": "paused", "reason": "licence"})
	if st := w.receiver.Status()[0]; st.Problem == "" || st.FailingSince.IsZero() {
		t.Errorf("%+v", st)
	}
}

// An event that was asked for and does not come is a fault that names its cure.
func TestMissedVerificationIsNoticed(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.Endpoint = "http://127.0.0.1:1/nobody" })
	var due time.Time
	t1 := w.receiver.transmitters[0]
	if err := t1.maintain(t.Context(), &due); err != nil {
		t.Fatal(err)
	}
	if err := t1.maintain(t.Context(), &due); err == nil || !strings.Contains(err.Error(), w.cfg.Endpoint) {
		t.Errorf("%v", err)
	}
}

// What the transmitter says about itself is believed only for its own issuer and
// only with addresses that are safe.
func TestDiscoveryIsChecked(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://tr.test":     "https://tr.test/.well-known/ssf-configuration",
		"https://tr.test/":    "https://tr.test/.well-known/ssf-configuration",
		"https://tr.test/a/b": "https://tr.test/.well-known/ssf-configuration/a/b",
	} {
		if got, err := discoveryURL(issuer); err != nil || got != want {
			t.Errorf("%s: %s, %v", issuer, got, err)
		}
	}
	w := newWorld(t, func(w *world) { w.cfg.Issuer += "/other" })
	if err := w.receiver.transmitters[0].published.Refresh(t.Context()); err == nil {
		t.Error("accepted")
	}
}

func TestValidateReportsEverything(t *testing.T) {
	bad := Transmitter{ID: "A b", Issuer: "http://evil.test", Delivery: "pigeon", Events: []string{"sesion-revoked"}, Actions: map[string]string{"x": "y"}, MaxSessions: -1,
		TokenURL: "https://x.test", Endpoint: "ftp://x"}
	f := access.NewFaults("signals[0]")
	bad.Validate(f)
	for _, path := range []string{"id", "issuer", "delivery", "events[0]", "actions.x", "max_sessions", "client_id", "endpoint"} {
		found := false
		for _, fault := range f.List() {
			found = found || fault.Path == "signals[0]."+path && fault.Cure != ""
		}
		if !found {
			t.Errorf("no fault with a cure at %s: %v", path, f.List())
		}
	}
	push, poll := access.NewFaults(""), access.NewFaults("")
	(&Transmitter{ID: "a", Issuer: "https://x.test", Audience: "a"}).Validate(push)
	(&Transmitter{ID: "a", Issuer: "https://x.test", Delivery: "poll", Audience: "a"}).Validate(poll)
	if len(push.List()) != 1 || push.List()[0].Path != "push_secret" || len(poll.List()) != 1 || poll.List()[0].Path != "poll_url" {
		t.Errorf("%v %v", push.List(), poll.List())
	}
}
