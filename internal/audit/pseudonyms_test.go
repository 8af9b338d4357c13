package audit

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var discard = slog.New(slog.DiscardHandler)

// personal are the values of an event that tell who somebody is.
var personal = []string{"alice", "Adams", "alice@corp.example", "198.51.100.77", "laptop-7", "alice's laptop", "0a1b2c", "CN=alice", "dept-secret", "secret-query", "the visitor said", "got-value",
	"corp:carol", "dan@corp.example"}

func tellingEvent() *access.Event {
	e := by("alice", 1)
	e.Request.Identity.Username, e.Request.Identity.Name, e.Request.Identity.Groups = "alice", "Alice Adams", []string{"eng"}
	e.Request.Identity.Claims = map[string]any{"dept": "dept-secret"}
	e.Request.Query = "q=secret-query"
	e.Request.Network.IP = netip.MustParseAddr("198.51.100.77")
	e.Request.Session.ID, e.Session = "s-1", "s-1"
	e.Request.Device = access.Device{ID: "laptop-7", Owner: "alice", Name: "alice's laptop", Reasons: []string{"the visitor said"},
		Certificate: access.Certificate{Serial: "0a1b2c", Subject: "CN=alice", SANs: []string{"alice@corp.example"}, Fingerprint: "0a1b2c"}}
	e.Decision = &access.Decision{Outcome: access.Deny, Reason: access.NotAllowed, Needs: []access.Need{{Reason: access.DeviceOSTooOld, Got: "got-value", Details: []string{"the visitor said"}}},
		Nearest: &access.NearMiss{Rule: "allow/x", Missing: []access.Miss{{Condition: "groups", Want: "eng", Got: "got-value"},
			{Condition: "users", Want: "corp:carol"}, {Condition: "when", Want: "identity.email == 'dan@corp.example'"}}}}
	e.Actor, e.Note, e.Why = "corp:alice", "", ""
	return e
}

// A sink with pseudonyms gets nobody's name, and the others get everything.
func TestPseudonymsTellNobody(t *testing.T) {
	dir := t.TempDir()
	whole, hidden := filepath.Join(dir, "whole.jsonl"), filepath.Join(dir, "hidden.jsonl")
	cfg := Config{Key: auditKey, To: []Sink{{File: FileSink{Path: whole}}, {File: FileSink{Path: hidden}, Privacy: "pseudonyms"}}}
	login := &access.Event{Kind: access.EventLogin, Time: time.Unix(2, 0), Actor: "corp:alice", Session: "s-1", Note: "alice said so"}
	deed := &access.Event{Kind: access.EventAdmin, Time: time.Unix(3, 0), Actor: "alice", Why: "alice left", Note: "user corp:alice revoked"}
	bob := by("bob", 4)
	bob.Request.Session.ID, bob.Session = "s-2", "s-2"
	recordAll(t, cfg, tellingEvent(), login, deed, bob)
	full, _ := os.ReadFile(whole)
	for _, value := range personal {
		if !strings.Contains(string(full), value) {
			t.Errorf("the whole log lacks %q", value)
		}
	}
	text, _ := os.ReadFile(hidden)
	for _, value := range append(personal, "bob") {
		if strings.Contains(string(text), value) {
			t.Errorf("%q is in\n%s", value, text)
		}
	}
	for _, kept := range []string{`"eng"`, `"s-1"`, "198.51.100.0", `"not_allowed"`, `"incomplete":true`, "corp:p-"} {
		if !strings.Contains(string(text), kept) {
			t.Errorf("%q is not in\n%s", kept, text)
		}
	}
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, hidden); !v.Sound() || v.Records != 4 {
		t.Errorf("%+v", v)
	}

	// The holder of the key can tell, as long as a whole log has them.
	pseudonyms := NewPseudonyms(&cfg)
	alice := pseudonyms.subject("corp", "alice", time.Unix(1, 0))
	if !strings.Contains(string(text), `"sub":"`+alice+`"`) || !strings.Contains(string(text), `"actor":"corp:`+alice+`"`) {
		t.Errorf("%s is not in\n%s", alice, text)
	}
	for asked, want := range map[string]Who{
		alice:           {Pseudonym: alice, Kind: "person", Value: "corp:alice", Email: "alice@corp.example", Name: "Alice Adams"},
		"corp:" + alice: {Pseudonym: alice, Kind: "person", Value: "corp:alice", Email: "alice@corp.example", Name: "Alice Adams"},
		pseudonyms.of("device", time.Unix(1, 0), "laptop-7"):     {Kind: "device", Value: "laptop-7"},
		pseudonyms.of("administrator", time.Unix(3, 0), "alice"): {Kind: "administrator", Value: "alice"},
	} {
		who, err := pseudonyms.Behind(asked, find(t, whole))
		if want.Pseudonym == "" {
			want.Pseudonym = asked
		}
		if err != nil || who == nil || who.Kind != want.Kind || who.Value != want.Value || who.Pseudonym != want.Pseudonym {
			t.Errorf("%s: %+v, %v", asked, who, err)
		}
	}
	other := NewPseudonyms(&Config{Key: access.NewSecret(strings.Repeat("o", 32))})
	if who, err := other.Behind(alice, find(t, whole)); who != nil || err != nil {
		t.Errorf("another key tells: %+v, %v", who, err)
	}
	if _, err := pseudonyms.Behind("alice", find(t, whole)); err == nil {
		t.Error("a name is a pseudonym")
	}

	// Erased from the whole log, nobody can tell any more; erased from both, both
	// are whole.
	erase(t, "corp:alice", EraseOptions{}, whole)
	if who, err := pseudonyms.Behind(alice, find(t, whole)); who != nil || err != nil {
		t.Errorf("after the erasure: %+v, %v", who, err)
	}
	if done := erase(t, "corp:alice", EraseOptions{}, hidden); done.Records != 2 { // what an administrator did names nobody here
		t.Errorf("%+v", done)
	}
	if v := verify(t, VerifyOptions{Key: publicKey(t)}, hidden); !v.Sound() || v.Erased != 2 {
		t.Errorf("%+v", v)
	}
}

func TestPseudonymsHoldForAPeriod(t *testing.T) {
	p := NewPseudonyms(&Config{Key: auditKey, PseudonymPeriod: access.Duration(24 * time.Hour)})
	day := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	morning, evening, next := p.subject("corp", "alice", day.Add(time.Hour)), p.subject("corp", "alice", day.Add(23*time.Hour)), p.subject("corp", "alice", day.Add(25*time.Hour))
	if morning != evening {
		t.Error("a pseudonym changed within its period")
	}
	if morning == next {
		t.Error("a pseudonym outlived its period")
	}
	if p.subject("corp", "bob", day) == p.subject("corp", "alice", day) || p.of("device", day, "x") == p.of("administrator", day, "x") {
		t.Error("two have one pseudonym")
	}
	if p.of("k", day, "ab", "c") == p.of("k", day, "a", "bc") {
		t.Error("words run together")
	}
	// Machines are nobody's personal data.
	e := by("builder", 1)
	e.Request.Identity.Kind, e.Actor = access.Service, "corp:builder"
	if hidden := p.hide(e); hidden.Request.Identity.Subject != "builder" || hidden.Actor != "corp:builder" {
		t.Errorf("%+v", hidden)
	}
	// The event itself is not changed: others get it as it is.
	e = tellingEvent()
	p.hide(e)
	if e.Request.Identity.Subject != "alice" || e.Request.Device.Owner != "alice" || e.Decision.Needs[0].Got != "got-value" || e.Decision.Nearest.Missing[0].Got != "got-value" {
		t.Errorf("%+v", e)
	}
}

func TestFaultsOfPrivacy(t *testing.T) {
	for want, cfg := range map[string]Config{
		"to[0].privacy":    {To: []Sink{{Stdout: true, Privacy: "pseudonyms"}}},
		"to[0].privacy ":   {Key: auditKey, To: []Sink{{Stdout: true, Privacy: "some"}}},
		"pseudonym_period": {Key: auditKey, To: []Sink{{Stdout: true}}, PseudonymPeriod: access.Duration(time.Minute)},
	} {
		faults := access.NewFaults("")
		cfg.Validate(faults)
		if list := faults.List(); len(list) != 1 || list[0].Path != strings.TrimSpace(want) {
			t.Errorf("%s: %+v", want, list)
		}
	}
	if _, err := Open(Config{To: []Sink{{Stdout: true, Privacy: "pseudonyms"}}}, Options{}); err == nil {
		t.Error("pseudonyms without a key")
	}
}
