package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/testidp"
)

// Somebody else reports what has happened: a session is revoked at the identity
// provider, a laptop falls out of compliance. What is open closes, and the next
// request is refused, without anybody logging in or a list being read again.
func TestSharedSignals(t *testing.T) {
	for _, delivery := range []string{"push", "poll"} {
		t.Run(delivery, func(t *testing.T) { sharedSignals(t, delivery) })
	}
}

func sharedSignals(t *testing.T, delivery string) {
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	base := "http://app.localhost:" + port
	provider := startProvider(t, base+"/.doorward/callback", nil)
	hub, err := testidp.NewTransmitter(time.Now, "https://door.example.com")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	hub.Transport = &http.Transport{DialContext: dialLocalhost}

	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			io.WriteString(w, "<p>hello "+r.Header.Get("X-User")+"</p>")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: first\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	dir := t.TempDir()
	writeFile(t, dir, "secret", "s3cret")
	writeFile(t, dir, "push", "Bearer agreed")
	writeFile(t, dir, "token", testidp.TransmitterToken)
	seen := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	writeFile(t, dir, "devices.csv", "id,managed,compliant,last_seen\nlaptop-alice,yes,yes,"+seen+"\nlaptop-dave,yes,yes,"+seen+"\n")
	how := "delivery: poll"
	if delivery == "push" {
		how = "endpoint: \"" + base + "/.doorward/signals\", push_secret: {file: push}"
	}
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}}
sessions: {store: {memory: true}}
log: {format: text}
providers: [{id: demo, issuer: %q, client_id: doorward, client_secret: {file: secret}}]
devices:
  sources: [{id: list, type: file, path: devices.csv}]
  match: [claim.deviceid]
  profiles: {healthy: {all: [known, managed, compliant]}}
signals: [{id: hub, issuer: %q, devices: true, %s, token: {file: token}}]
routes:
  - {id: app, from: %s, to: [%s], require: {device: healthy}, headers: {X-User: user}, allow: [{name: all, any_user: true}]}
`, addr, freeAddress(t), provider.Issuer(), hub.Issuer, how, base, app))
	d := start(t, "doorward", "serve", "--config", config)
	d.waitFor("serving", 1)
	d.waitFor("the stream works", 1)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	report := func(event string, subject, fields map[string]any) {
		t.Helper()
		jti, answers, err := hub.Send(ctx, event, subject, fields)
		if err == nil && delivery == "poll" {
			var code string
			if code, err = hub.Settled(ctx, jti); code != "" {
				t.Fatalf("refused: %s", code)
			}
		}
		if err != nil || delivery == "push" && (len(answers) != 1 || answers[0] != http.StatusAccepted) {
			t.Fatalf("%s: %v, %v", event, answers, err)
		}
	}
	person := func(sub string) map[string]any {
		return map[string]any{"format": "iss_sub", "iss": provider.Issuer(), "sub": sub}
	}
	alice, dave := newVisitor(t), newVisitor(t)
	alice.login(base+"/", "alice").says(t, 200, "hello demo:alice")
	dave.login(base+"/", "dave").says(t, 200, "hello demo:dave")
	open := alice.stream(base + "/events")

	report(testidp.CAEP+"session-revoked", person("alice"), nil)
	open.ends(t)
	if p := alice.once("GET", base+"/", alice.header, nil); p.status != 302 {
		t.Errorf("alice: %d", p.status)
	}
	dave.open(base+"/").says(t, 200, "hello demo:dave") // nobody else
	alice.login(base+"/", "alice").says(t, 200, "hello demo:alice")

	laptop := map[string]any{"format": "complex", "device": map[string]any{"format": "opaque", "id": "laptop-dave"}}
	open = dave.stream(base + "/events")
	report(testidp.CAEP+"device-compliance-change", laptop, map[string]any{"previous_status": "compliant", "current_status": "not-compliant"})
	open.ends(t)
	dave.open(base+"/").says(t, 403, "This device is not compliant", "reported as not compliant by hub")
	report(testidp.CAEP+"device-compliance-change", laptop, map[string]any{"previous_status": "not-compliant", "current_status": "compliant", "event_timestamp": time.Now().Add(time.Second).Unix()})
	dave.open(base+"/").says(t, 200, "hello demo:dave")
	alice.open(base+"/").says(t, 200, "hello demo:alice")
}

// openStream is a response that does not end by itself.
type openStream struct {
	body io.ReadCloser
	read *bufio.Reader
}

// stream opens a stream of server-sent events and reads the first.
func (v *visitor) stream(target string) *openStream {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header = v.header.Clone()
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { resp.Body.Close() })
	s := &openStream{resp.Body, bufio.NewReader(resp.Body)}
	if line, err := s.read.ReadString('\n'); err != nil || !strings.Contains(line, "first") {
		v.t.Fatalf("%d %q, %v", resp.StatusCode, line, err)
	}
	return s
}

// ends waits until Doorward ends the stream, which it does with an event that
// says so.
func (s *openStream) ends(t *testing.T) {
	t.Helper()
	timer := time.AfterFunc(patience, func() { s.body.Close() })
	defer timer.Stop()
	rest, err := io.ReadAll(s.read)
	if !strings.Contains(string(rest), "doorward-closed") {
		t.Fatalf("the stream ended with %q, %v", rest, err)
	}
}
