package signals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// The subject says who is logged out: nobody else is.
func TestSessionRevokedEndsWhomItNames(t *testing.T) {
	alice, other := user(corp, "alice"), user("https://elsewhere.test", "alice")
	for name, c := range map[string]struct {
		subject map[string]any
		ended   []string // of alice, bob, mallory at corp and alice at partners
	}{
		"a person":                     {alice, []string{"alice"}},
		"a person by subject alone":    {opaque("alice"), []string{"alice"}},
		"a person by address":          {map[string]any{"format": "email", "email": "Alice@example.com"}, []string{"alice"}},
		"an address nobody vouches":    {map[string]any{"format": "email", "email": "mallory@example.com"}, nil},
		"a person elsewhere":           {other, nil},
		"a person of partners":         {user(partners, "alice"), nil},
		"one of several names":         {map[string]any{"format": "aliases", "identifiers": []any{other, user(corp, "bob")}}, []string{"bob"}},
		"a session":                    {complexSubject(map[string]any{"session": opaque("sid-bob")}), []string{"bob"}},
		"a session of another person":  {complexSubject(map[string]any{"session": opaque("sid-bob"), "user": alice}), nil},
		"a person on a device":         {complexSubject(map[string]any{"user": alice, "device": opaque("laptop")}), []string{"alice"}},
		"the tenant":                   {complexSubject(map[string]any{"tenant": opaque("t")}), []string{"alice", "bob", "mallory"}},
		"a person, an unknown group":   {complexSubject(map[string]any{"user": alice, "group": opaque("g")}), []string{"alice"}},
		"a group alone":                {complexSubject(map[string]any{"group": opaque("g")}), nil},
		"a phone number":               {map[string]any{"format": "phone_number", "phone_number": "+491"}, nil},
		"a format of tomorrow":         {map[string]any{"format": "x-new", "x": 1}, nil},
		"the device alone":             {complexSubject(map[string]any{"device": opaque("laptop")}), nil},
		"a session that does not live": {complexSubject(map[string]any{"session": opaque("sid-nobody")}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			cookies := map[string]string{"alice": w.login(corp, "alice"), "bob": w.login(corp, "bob"), "mallory": w.login(corp, "mallory")}
			guest := w.login(partners, "alice")
			w.stream()
			w.push(202, testidp.CAEP+"session-revoked", c.subject, map[string]any{"reason_admin": map[string]any{"en": "left\x1b[31m"}})
			for who, cookie := range cookies {
				if alive := w.who(cookie) != nil; alive == slices.Contains(c.ended, who) {
					t.Errorf("%s: alive %v", who, alive)
				}
			}
			if w.who(guest) == nil {
				t.Error("alice of partners was logged out by a transmitter that does not speak for partners")
			}
			e := w.last()
			if applied := len(c.ended)+len(w.revoked) > 0; applied != (e.Reason == access.SignalApplied) {
				t.Errorf("recorded as %s", e.Reason)
			}
			if strings.Contains(e.Note, "\x1b") {
				t.Errorf("the note obeys the transmitter: %q", e.Note)
			}
		})
	}
}

// Tokens have no login that could end: what was issued before the event counts no
// more, what is issued after it does.
func TestTokensAreRevokedToo(t *testing.T) {
	w := newWorld(t, nil)
	w.stream()
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	w.push(202, testidp.RISC+"account-disabled", user(corp, "robot"), map[string]any{"event_timestamp": at.Unix()})
	for issued, want := range map[time.Time]bool{at.Add(-time.Second): true, at.Add(time.Second): false} {
		if revoked, err := w.sessions.Revoked(corp, "robot", issued); err != nil || revoked != want {
			t.Errorf("issued at %s: revoked %v, %v", issued, revoked, err)
		}
	}
	if revoked, err := w.sessions.Revoked(partners, "robot", at.Add(-time.Hour)); err != nil || revoked {
		t.Errorf("another robot: %v, %v", revoked, err)
	}
}

// A login that began after the event is not meant by it, whenever it arrives.
func TestAnOlderEventEndsNoNewerLogin(t *testing.T) {
	w := newWorld(t, nil)
	cookie := w.login(corp, "alice")
	w.stream()
	w.push(202, testidp.CAEP+"session-revoked", user(corp, "alice"), map[string]any{"event_timestamp": time.Now().Add(-time.Hour).Unix()})
	if w.who(cookie) == nil {
		t.Fatal("logged out by an event from before the login")
	}
	w.push(202, testidp.CAEP+"session-revoked", user(corp, "alice"), nil)
	if w.who(cookie) != nil {
		t.Fatal("still logged in")
	}
}

// Every type of event, and what becomes of a login that phrh had opened.
func TestEveryTypeOfEvent(t *testing.T) {
	alive := func(levels ...string) string { return "levels " + strings.Join(levels, " ") }
	full := alive(access.LevelsUpTo("phrh")...)
	const ended, forgotten = "ended", "no login"
	for _, c := range []struct {
		event  string
		fields map[string]any
		want   string
	}{
		{"session-revoked", nil, ended},
		{"session-established", nil, full},
		{"session-presented", nil, full},
		{"credential-change", map[string]any{"credential_type": "password", "change_type": "update"}, forgotten},
		{"credential-change", map[string]any{"credential_type": "fido2-roaming", "change_type": "revoke"}, forgotten},
		{"credential-change", map[string]any{"credential_type": "fido2-roaming", "change_type": "create"}, full},
		{"assurance-level-change", map[string]any{"namespace": "NIST-AAL", "current_level": "nist-aal1", "change_direction": "decrease"}, alive(access.LevelsUpTo("aal1")...)},
		{"assurance-level-change", map[string]any{"namespace": "NIST-AAL", "current_level": "nist-aal2"}, alive(access.LevelsUpTo("aal2")...)},
		{"assurance-level-change", map[string]any{"namespace": "NIST-AAL", "current_level": "nist-aal3", "change_direction": "increase"}, full},
		{"assurance-level-change", map[string]any{"namespace": "x", "current_level": "y", "change_direction": "decrease"}, forgotten},
		{"risk-level-change", map[string]any{"principal": "USER", "current_level": "HIGH"}, ended},
		{"risk-level-change", map[string]any{"principal": "USER", "current_level": "MEDIUM"}, forgotten},
		{"risk-level-change", map[string]any{"principal": "USER", "current_level": "LOW"}, full},
		{"account-disabled", map[string]any{"reason": "hijacking"}, ended},
		{"account-purged", nil, ended},
		{"account-enabled", nil, full},
		{"account-credential-change-required", nil, forgotten},
		{"credential-compromise", map[string]any{"credential_type": "password"}, ended},
		{"identifier-changed", nil, forgotten},
		{"identifier-recycled", nil, ended},
		{"recovery-activated", nil, forgotten},
		{"recovery-information-changed", nil, full},
		{"sessions-revoked", nil, ended},
		{"opt-in", nil, full}, {"opt-out-initiated", nil, full}, {"opt-out-cancelled", nil, full}, {"opt-out-effective", nil, full},
	} {
		t.Run(fmt.Sprintf("%s %v", c.event, c.fields), func(t *testing.T) {
			w := newWorld(t, nil)
			cookie := w.login(corp, "alice")
			w.stream()
			uri := testidp.CAEP + c.event
			if kindOf(uri) == nil {
				uri = testidp.RISC + c.event
			}
			w.push(202, uri, user(corp, "alice"), c.fields)
			got := ended
			if id := w.who(cookie); id != nil {
				got = alive(id.Login.Levels...)
				if id.Login.Time.IsZero() && id.Login.ACR == "" && len(id.Login.AMR)+len(id.Login.Levels) == 0 {
					got = forgotten
				}
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	t.Run("token-claims-change", func(t *testing.T) {
		w := newWorld(t, nil)
		cookie := w.login(corp, "alice")
		w.stream()
		w.push(202, testidp.CAEP+"token-claims-change", user(corp, "alice"), map[string]any{"claims": map[string]any{"groups": []string{"none"}}})
		if id := w.who(cookie); !slices.Equal(id.Groups, []string{"none"}) {
			t.Errorf("groups %v", id.Groups)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		w := newWorld(t, nil)
		w.stream()
		w.push(202, "https://schemas.openid.net/secevent/caep/event-type/tomorrow", user(corp, "alice"), nil)
		if e := w.last(); e.Reason != access.SignalIgnored {
			t.Errorf("%+v", e)
		}
	})
}

// The configuration may choose something else for a type of event.
func TestActionsCanBeChosen(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.cfg.Actions = map[string]string{"session-revoked": "ignore", "credential-change": "end"}
	})
	cookie := w.login(corp, "alice")
	w.stream()
	if asked, _ := w.from.Streams()[0]["events_requested"].([]any); slices.Contains(asked, any(testidp.CAEP+"session-revoked")) {
		t.Error("asked for what is ignored")
	}
	w.push(202, testidp.CAEP+"session-revoked", user(corp, "alice"), nil)
	if w.who(cookie) == nil {
		t.Error("ended, though it is to be ignored")
	}
	w.push(202, testidp.CAEP+"credential-change", user(corp, "alice"), map[string]any{"credential_type": "password", "change_type": "update"})
	if w.who(cookie) != nil {
		t.Error("not ended")
	}
}

// One transmitter cannot end everybody's sessions at once, in one event or many.
func TestBlastLimit(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.MaxSessions = 3 })
	var cookies []string
	for i := range 5 {
		cookies = append(cookies, w.login(corp, fmt.Sprint("user", i)))
	}
	w.stream()
	alive := func() (n int) {
		for _, cookie := range cookies {
			if w.who(cookie) != nil {
				n++
			}
		}
		return n
	}
	w.push(202, testidp.CAEP+"session-revoked", complexSubject(map[string]any{"tenant": opaque("t")}), nil)
	if alive() != 5 || w.last().Reason != access.SignalHeld {
		t.Fatalf("%d alive, %s", alive(), w.last().Reason)
	}
	for i := range 5 {
		w.push(202, testidp.CAEP+"session-revoked", user(corp, fmt.Sprint("user", i)), nil)
	}
	if alive() != 2 || w.last().Reason != access.SignalHeld {
		t.Fatalf("%d alive after a storm, %s", alive(), w.last().Reason)
	}
	before := w.receiver
	w.receiver = w.newReceiver(before) // a reload does not start the count again
	w.push(202, testidp.CAEP+"session-revoked", user(corp, "user4"), nil)
	if alive() != 2 {
		t.Fatal("a reload lifted the limit")
	}
}

// Several providers may be clients of one issuer. A person is who they are at the
// issuer, so that their sessions end at all of them.
func TestSeveralClientsOfOneIssuer(t *testing.T) {
	for name, listed := range map[string][]string{"one": {"corp"}, "the other": {"cli"}, "both": {"corp", "cli"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.cfg.Providers = listed })
			here, there, bob := w.loginAt("corp", corp, "alice"), w.loginAt("cli", corp, "alice"), w.loginAt("cli", corp, "bob")
			w.stream()
			w.push(202, testidp.CAEP+"session-revoked", user(corp, "alice"), nil)
			if w.who(here) != nil || w.who(there) != nil {
				t.Errorf("goes on: at corp %v, at cli %v", w.who(here) != nil, w.who(there) != nil)
			}
			if w.who(bob) == nil {
				t.Error("somebody else's session ended")
			}
		})
	}
}

// Whose sessions end on a device is bounded like whose sessions end at all: nobody
// else's.
func TestDeviceEventEndsNobodyElsesSessions(t *testing.T) {
	w := newWorld(t, nil) // it speaks for corp only
	w.stream()
	w.push(202, testidp.CAEP+"session-revoked", complexSubject(map[string]any{"device": opaque("laptop-1")}), nil)
	for issuer, want := range map[string]bool{corp: true, partners: false} {
		if revoked, err := w.sessions.RevokedDevice(issuer, "laptop-1", w.now().Add(-time.Hour)); revoked != want || err != nil {
			t.Errorf("%s: %v, %v", issuer, revoked, err)
		}
	}
}

// What is held is not carried out in another way either: what no login stands for
// stays, too.
func TestBlastLimitHoldsTokensToo(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.MaxSessions = 1 })
	cookies := []string{w.login(corp, "alice"), w.login(corp, "alice")}
	w.stream()
	w.push(202, testidp.CAEP+"session-revoked", user(corp, "alice"), map[string]any{"event_timestamp": w.now().Add(10 * time.Second).Unix()})
	if w.last().Reason != access.SignalHeld || len(w.revoked) > 0 {
		t.Errorf("%s, and revoked are %+v", w.last().Reason, w.revoked)
	}
	for i, cookie := range cookies {
		if w.who(cookie) == nil {
			t.Errorf("login %d is refused", i)
		}
	}
}

// Logins end also where tokens cannot be revoked, and the event comes again for
// those.
func TestLoginsEndThoughTokensCannotBeRevoked(t *testing.T) {
	w := newWorld(t, nil)
	cookie := w.login(corp, "alice")
	w.stream()
	w.receiver.opts.Revoke = func(context.Context, access.Revocation) (access.Revocation, error) {
		return access.Revocation{}, errors.New("too many are remembered")
	}
	w.push(503, testidp.CAEP+"session-revoked", user(corp, "alice"), nil)
	if w.who(cookie) != nil {
		t.Error("the login goes on")
	}
}

// A part of the subject that must not be left out, and that we do not know.
func TestCriticalSubjectMembers(t *testing.T) {
	w := newWorld(t, func(w *world) { w.from.Critical = []string{"group"} })
	cookie := w.login(corp, "alice")
	w.stream()
	w.push(202, testidp.CAEP+"session-revoked", complexSubject(map[string]any{"user": user(corp, "alice"), "group": opaque("g")}), nil)
	if w.who(cookie) == nil || w.last().Reason != access.SignalIgnored {
		t.Error("the event was widened")
	}
}

// Devices belong to no provider: whoever speaks for some people only can lock out
// nobody else's laptop, and whoever may report devices not all of them at once.
func TestWhoMayReportDevices(t *testing.T) {
	for name, test := range map[string]struct {
		limit func(*world)
		want  []access.Reason
	}{
		"not asked to": {func(w *world) { w.cfg.Devices = false }, []access.Reason{access.SignalIgnored, access.SignalIgnored, access.SignalIgnored}},
		"two at most":  {func(w *world) { w.cfg.MaxSessions = 2 }, []access.Reason{access.SignalApplied, access.SignalApplied, access.SignalHeld}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.limit)
			w.stream()
			for i, want := range test.want {
				device := fmt.Sprintf("laptop-%d", i)
				w.push(202, testidp.CAEP+"device-compliance-change", complexSubject(map[string]any{"device": opaque(device)}),
					map[string]any{"current_status": "not-compliant", "previous_status": "compliant"})
				if got := w.last().Reason; got != want {
					t.Errorf("report %d is recorded as %s", i, got)
				}
				d := access.Device{ID: device, Compliant: access.Yes}
				w.receiver.Reports().Apply(&d)
				if locked := d.Compliant == access.No; locked != (want == access.SignalApplied) {
					t.Errorf("%s: compliant %v", device, d.Compliant)
				}
			}
		})
	}
}

// Devices: of two reports the later counts, whatever comes first, and nothing
// reported makes a device better than its inventory says.
func TestDeviceReports(t *testing.T) {
	w := newWorld(t, nil)
	w.stream()
	now := time.Now().Truncate(time.Second)
	compliance := func(status string, at time.Time) {
		t.Helper()
		w.push(202, testidp.CAEP+"device-compliance-change", complexSubject(map[string]any{"device": opaque("laptop-1")}),
			map[string]any{"current_status": status, "previous_status": "compliant", "event_timestamp": at.Unix()})
	}
	look := func(seen time.Time, have access.Tri) access.Device {
		d := access.Device{ID: "laptop-1", Known: access.Yes, Compliant: have, SeenAt: seen, Risk: access.RiskNone}
		w.receiver.Reports().Apply(&d)
		return d
	}
	compliance("not-compliant", now.Add(-10*time.Second))
	compliance("compliant", now.Add(-20*time.Second)) // late, and older
	if d := look(now.Add(-time.Minute), access.Yes); d.Compliant != access.No || len(d.Reasons) != 1 {
		t.Errorf("%+v", d)
	}
	if d := look(now, access.Yes); d.Compliant != access.Yes {
		t.Errorf("the inventory heard of the device since: %+v", d)
	}
	compliance("compliant", now.Add(-5*time.Second))
	for _, have := range []access.Tri{access.Yes, access.No, access.Unknown} {
		if d := look(now.Add(-time.Minute), have); d.Compliant != have {
			t.Errorf("compliant %v became %v", have, d.Compliant)
		}
	}
	risk := func(level string, at time.Time) {
		t.Helper()
		w.push(202, testidp.CAEP+"risk-level-change", opaque("laptop-1"), map[string]any{"principal": "DEVICE", "current_level": level, "event_timestamp": at.Unix()})
	}
	risk("HIGH", now.Add(-5*time.Second))
	if d := look(now.Add(-time.Minute), access.Yes); d.Risk != access.RiskHigh {
		t.Errorf("%+v", d)
	}
	risk("LOW", now.Add(-4*time.Second))
	if d := look(now.Add(-time.Minute), access.Yes); d.Risk != access.RiskNone {
		t.Errorf("%+v", d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.ContainsFunc(w.signals, func(s access.Signal) bool { return s.Device == "laptop-1" }) {
		t.Error("nobody was told that the device changed")
	}
}

// What a transmitter says in a device's favour takes back what it said itself, and
// nothing that another one said.
func TestNobodyTakesBackWhatAnotherOneReported(t *testing.T) {
	w := newWorld(t, nil)
	reports, now := w.receiver.Reports(), time.Now()
	look := func() access.Device {
		d := access.Device{ID: "laptop-1", Known: access.Yes, Compliant: access.Yes, Risk: access.RiskNone}
		reports.Apply(&d)
		return d
	}
	for i, says := range []report{
		{From: "mdm", Compliant: access.No, At: now}, {From: "mdm", Risk: access.RiskHigh, At: now},
		{From: "partner", Compliant: access.Yes, At: now.Add(time.Second)}, {From: "partner", Risk: access.RiskLow, At: now.Add(time.Second)},
	} {
		if _, err := reports.say(t.Context(), "laptop-1", says); err != nil {
			t.Fatal(i, err)
		}
	}
	if d := look(); d.Compliant != access.No || d.Risk != access.RiskHigh || len(d.Reasons) != 1 {
		t.Errorf("%+v", d)
	}
	for _, says := range []report{{From: "mdm", Compliant: access.Yes, At: now.Add(2 * time.Second)}, {From: "mdm", Risk: access.RiskLow, At: now.Add(2 * time.Second)}} {
		if _, err := reports.say(t.Context(), "laptop-1", says); err != nil {
			t.Fatal(err)
		}
	}
	if d := look(); d.Compliant != access.Yes || d.Risk != access.RiskNone {
		t.Errorf("%+v", d)
	}
}

// A certificate that was withdrawn identifies nothing, however its serial number
// and issuer are written.
func TestWithdrawnCertificates(t *testing.T) {
	w := newWorld(t, nil)
	w.stream()
	w.push(202, testidp.CAEP+"credential-change", user(corp, "alice"), map[string]any{
		"credential_type": "x509", "change_type": "revoke", "x509_serial": "0A:0B", "x509_issuer": "cn=Devices, o=Corp"})
	for serial, refused := range map[string]bool{"0a0b": true, "0a0c": false} {
		d := access.Device{ID: "d", Certificate: access.Certificate{Serial: serial, Issuer: "CN=Devices,O=Corp"}}
		if w.receiver.Reports().Apply(&d); (d.Problem == access.DeviceCertRevoked) != refused {
			t.Errorf("%s: %q", serial, d.Problem)
		}
	}
	d := access.Device{Certificate: access.Certificate{Serial: "0a0b", Issuer: "CN=Others"}}
	if w.receiver.Reports().Apply(&d); d.Problem != "" {
		t.Error("a certificate of another authority is refused")
	}
	w.push(202, testidp.CAEP+"credential-change", user(corp, "alice"), map[string]any{
		"credential_type": "x509", "change_type": "delete", "x509_serial": "4660"})
	d = access.Device{Certificate: access.Certificate{Serial: "1234"}}
	if w.receiver.Reports().Apply(&d); d.Problem == "" {
		t.Error("a decimal serial number is not understood")
	}
}

// What was reported survives a restart and reaches other replicas.
func TestReportsReachEveryReplica(t *testing.T) {
	w := newWorld(t, nil)
	other := w.newReceiver(nil)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go other.Reports().follow(ctx)
	w.stream()
	w.push(202, testidp.CAEP+"device-compliance-change", complexSubject(map[string]any{"device": opaque("laptop-1")}), map[string]any{"current_status": "not-compliant"})
	w.until("the other replica", func() bool {
		d := access.Device{ID: "laptop-1", Compliant: access.Yes}
		other.Reports().Apply(&d)
		return d.Compliant == access.No
	})
	late := w.newReceiver(nil) // knows before it runs, and so before anything is decided
	d := access.Device{ID: "laptop-1", Compliant: access.Yes}
	if late.Reports().Apply(&d); d.Compliant != access.No {
		t.Error("forgotten")
	}
}
