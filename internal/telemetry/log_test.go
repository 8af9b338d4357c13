package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

const (
	jwt    = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI4ZjFjMmQifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
	cookie = "__Host-doorward=hunter2hunter2hunter2hunter2hunter2hunter2xyz"
)

func TestLoggerWritesNoSecrets(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log, err := NewLogger(&out, "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("secrets",
			"cookie", "hunter2", "Set-Cookie", "hunter2", "authorization", "hunter2", "Authorization", "hunter2", "refresh_token", "hunter2",
			"id_token", []byte("hunter2"), "code", "hunter2", "auth_code", "hunter2", "client_secret", "hunter2", "password", "hunter2",
			"code_verifier", "hunter2", "accessToken", "hunter2", slog.Group("tokens", "a", "hunter2"),
			"header", http.Header{"Cookie": {"hunter2"}}, "form", url.Values{"x": {"hunter2"}}, "key", access.NewSecret("hunter2"),
			"request", &http.Request{Header: http.Header{"Cookie": {"hunter2"}}}, "cookies", []*http.Cookie{{Value: "hunter2"}})
		log.Warn("told "+jwt, "error", fmt.Errorf("exchange: %w", errors.New("bad answer "+jwt)), "path", "/confirm/"+jwt, "line", cookie)
		for _, secret := range []string{"hunter2", "c2lnbmF0dXJl", "aHVudGVyMg"} {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%s: %q in %s", format, secret, out.String())
			}
		}
	}
}

func TestLoggerKeepsWhatIsNoSecret(t *testing.T) {
	var out bytes.Buffer
	log, _ := NewLogger(&out, "", "")
	log.Info("discovered", "token_endpoint", "https://idp.example/token", "status_code", 502, "token_file", "/run/secrets/x", "zip_code", "1010",
		"error", errors.New("refused"), "ip", netip.MustParseAddr("192.0.2.1"), "client_id", "doorward")
	log.Debug("not at this level")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err, out.String())
	}
	for key, want := range map[string]any{"msg": "discovered", "level": "INFO", "token_endpoint": "https://idp.example/token", "status_code": 502.0,
		"token_file": "/run/secrets/x", "zip_code": "1010", "error": "refused", "ip": "192.0.2.1", "client_id": "doorward"} {
		if line[key] != want {
			t.Errorf("%s = %v, want %v", key, line[key], want)
		}
	}
}

func TestLogSettings(t *testing.T) {
	for _, bad := range []Config{{Level: "loud"}, {Format: "xml"}, {Level: "INFO", Format: "JSON"}} {
		f := access.NewFaults("log")
		bad.Validate(f)
		if _, err := NewLogger(nil, bad.Level, bad.Format); err == nil || len(f.List()) == 0 {
			t.Errorf("%+v: %v, %v", bad, err, f.List())
		}
	}
	for _, good := range []Config{{}, {Level: "warn", Format: "text"}, {Level: "error"}} {
		f := access.NewFaults("log")
		good.Validate(f)
		if _, err := NewLogger(&bytes.Buffer{}, good.Level, good.Format); err != nil || len(f.List()) != 0 {
			t.Errorf("%+v: %v, %v", good, err, f.List())
		}
	}
}

func TestAccessLogLine(t *testing.T) {
	var out bytes.Buffer
	log, _ := NewLogger(&out, "info", "json")
	e := decided("wiki", access.Allow, access.Allowed)
	e.Request.Path = "/a\n{\"level\":\"forged\"}"
	e.Request.Identity = access.Identity{Provider: "corp", Issuer: "https://i", Subject: "8f1c", Claims: map[string]any{"x": "personal"}}
	e.Request.Network.IP = netip.MustParseAddr("192.0.2.1")
	LogEvent(t.Context(), log, e)
	if strings.Count(out.String(), "\n") != 1 || strings.Contains(out.String(), "q=secret") || strings.Contains(out.String(), "personal") {
		t.Error(out.String())
	}
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"msg": "request", "level": "INFO", "request_id": "r1", "user": "corp:8f1c", "outcome": "allow", "reason": "allowed",
		"status": 200.0, "duration_ms": 40.0, "decide_ms": 0.09, "ip": "192.0.2.1", "route": "wiki"} {
		if line[key] != want {
			t.Errorf("%s = %v, want %v", key, line[key], want)
		}
	}
	if _, there := line["device"]; there {
		t.Error("an empty field was written")
	}
}

func TestLevelOfEvents(t *testing.T) {
	broken := decided("wiki", access.Allow, access.Allowed)
	broken.Response.Reason = access.UpstreamTimeout
	gone := decided("wiki", access.Allow, access.Allowed)
	gone.Response.Reason = access.ClientGone
	for name, c := range map[string]struct {
		e    *access.Event
		want slog.Level
	}{
		"refusal":        {decided("wiki", access.Deny, access.NotAllowed), slog.LevelInfo},
		"upstream fault": {broken, slog.LevelWarn},
		"client gone":    {gone, slog.LevelInfo},
		"login":          {&access.Event{Kind: access.EventLogin, Reason: access.LoginRefused}, slog.LevelInfo},
		"provider down":  {&access.Event{Kind: access.EventLogin, Reason: access.ProviderUnavailable}, slog.LevelWarn},
		"empty decision": {&access.Event{Kind: access.EventDecision}, slog.LevelInfo},
	} {
		if got := eventLevel(c.e); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		LogEvent(t.Context(), slog.New(slog.DiscardHandler), c.e)
	}
}
