package access

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestZeroValuesRefuse(t *testing.T) {
	var (
		identity Identity
		device   Device
		decision Decision
		request  Request
		require  LoginRequire
		onOutage OnUnavailable
		secret   Secret
		window   TimeWindow
		mode     Mode
		fact     Tri
		risk     Risk
	)
	for name, ok := range map[string]bool{
		"identity is Nobody":                  identity.Nobody(),
		"identity names no user":              identity.User() == "",
		"device is not identified":            device.ID == "",
		"device is not known":                 device.Known == Unknown,
		"device is not managed":               device.Managed == Unknown,
		"device is not compliant":             device.Compliant == Unknown,
		"device facts have no age":            device.SeenAt.IsZero(),
		"decision denies":                     decision.Outcome == Deny,
		"decision has no reason to allow":     decision.Reason != Allowed && decision.Reason != PublicRoute,
		"empty reason reads as our own fault": decision.Reason.Info().Status == http.StatusInternalServerError,
		"request has no route":                request.Route == "",
		"request is nobody's":                 request.Identity.Nobody(),
		"identity has no scope":               len(identity.Scopes) == 0 && identity.ClientID == "",
		"identity is no workload":             identity.ServiceAccount == "" && identity.SPIFFE == "",
		"no token was sent":                   request.Credential == Credential{},
		"no demand is no demand":              require.IsZero(),
		"outage denies":                       onOutage.UseLastKnown == 0,
		"secret is empty":                     secret.Reveal() == "" && secret.IsZero(),
		"window restricts nothing by itself":  window.IsZero(),
		"rule is enforced":                    mode == Enforce,
		"fact is unknown":                     fact == Unknown,
		"risk is unknown":                     risk == RiskUnknown && risk.Low() == Unknown,
	} {
		if !ok {
			t.Errorf("not true of the zero value: %s", name)
		}
	}
}

// An identity is somebody only when it can be told apart from everybody else.
func TestNobodyUnlessWhole(t *testing.T) {
	whole := Identity{Provider: "corp", Issuer: "https://login.example", Subject: "8f1c"}
	if whole.Nobody() || whole.User() != "corp:8f1c" {
		t.Fatalf("%+v should be corp:8f1c", whole)
	}
	for _, part := range []Identity{
		{Issuer: "https://login.example", Subject: "8f1c"},
		{Provider: "corp", Subject: "8f1c"},
		{Provider: "corp", Issuer: "https://login.example", Email: "root@example.com"},
	} {
		if !part.Nobody() {
			t.Errorf("%+v should be Nobody", part)
		}
	}
}

// The list of reasons is closed: every constant has its text, and every text
// belongs to a constant.
func TestReasonsAreComplete(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[Reason]bool{}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			value := spec.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value
			declared[Reason(strings.Trim(value, `"`))] = true
		}
	}
	if len(declared) < 40 {
		t.Fatalf("found only %d constants; has reason.go changed its shape?", len(declared))
	}
	for r := range declared {
		if !r.Known() {
			t.Errorf("%s has no entry in infos", r)
		}
	}
	for _, r := range Reasons() {
		if !declared[r] {
			t.Errorf("%s has a text but no constant", r)
		}
		info := r.Info()
		if info.Title == "" || info.Text == "" || strings.HasSuffix(info.Title, ".") {
			t.Errorf("%s: title %q, text %q", r, info.Title, info.Text)
		}
		if info.Status < 400 != slices.Contains([]Reason{Allowed, PublicRoute, SignalApplied, SignalIgnored, SignalHeld}, r) {
			t.Errorf("%s answers %d", r, info.Status)
		}
		if info.Status >= 400 && info.Cure == "" && r != ClientGone {
			t.Errorf("%s tells nobody what to do", r)
		}
		if r.AboutDevice() != strings.HasPrefix(string(r), "device_") {
			t.Errorf("AboutDevice(%s) = %v", r, r.AboutDevice())
		}
		if r.CuredByLogin() && info.Status != http.StatusUnauthorized {
			t.Errorf("%s is cured by a login but answers %d", r, info.Status)
		}
	}
}

// A request is the audit record: reading it back must give the same value.
func TestRequestSurvivesTheLog(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 123, time.UTC)
	in := Request{
		ID: "r1", Time: at, Door: Standalone, Method: "GET", Scheme: "https", Host: "app.example", Path: "/a b",
		Query: "x=1", Route: "app", Network: Network{IP: netip.MustParseAddr("192.0.2.1")},
		Identity: Identity{Provider: "corp", Issuer: "https://i", Subject: "s", Groups: []string{"a", "b"}, GroupsIncomplete: true,
			Claims: map[string]any{"n": 1.5, "l": []any{"x"}}, Login: Login{Time: at, ACR: "phr", AMR: []string{"hwk"}}},
		Session: Session{ID: "1", Created: at, Expires: at.Add(time.Hour)},
		Device: Device{ID: "d", Known: Yes, Compliant: No, Reasons: []string{"x"}, SeenAt: at, Problem: DeviceMismatch,
			Certificate: Certificate{Serial: "0a", SANs: []string{"d"}, NotAfter: at}},
		Credential: Credential{Scheme: "DPoP", Expires: at, Problem: TokenExpired},
		Fault:      StoreUnavailable,
	}
	in.Identity.Kind = Service
	in.Identity.Workload = Workload{ClientID: "c", Scopes: []string{"a", "b"}, ServiceAccount: "ns/sa", SPIFFE: "spiffe://prod.example/a"}
	line, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Request
	if err := json.Unmarshal(line, &out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("read back\n%+v\nwant\n%+v", out, in)
	}
}

// WebSocket handshakes are identified by the cookie of the page.
func TestWebSocketSchemesShareTheOrigin(t *testing.T) {
	for scheme, want := range map[string]string{"wss": "https://h", "ws": "http://h", "https": "https://h", "http": "http://h"} {
		if got := (&Request{Scheme: scheme, Host: "h"}).Origin(); got != want {
			t.Errorf("%s: %s", scheme, got)
		}
	}
}

func TestNormalizeMakesListsSearchable(t *testing.T) {
	id := Identity{Groups: []string{"b", "a", "b"}, Login: Login{AMR: []string{"pwd", "otp", "pwd"}}}
	id.Normalize()
	if got := fmt.Sprint(id.Groups, id.Login.AMR); got != "[a b] [otp pwd]" {
		t.Error(got)
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	const value = "hunter2"
	s := Secret{File: "/run/secrets/x"}.Resolve(value)
	holder := struct {
		S      Secret
		hidden Secret
	}{s, s}
	asJSON, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(asJSON), fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s),
		fmt.Sprintf("%v %+v %#v", holder, &holder, holder),
	} {
		if strings.Contains(text, value) || strings.Contains(text, fmt.Sprintf("%x", value)) {
			t.Errorf("printed: %s", text)
		}
	}
	if s.Reveal() != value {
		t.Error("the holder of the secret cannot use it")
	}
}

func TestTriRejectsOtherWords(t *testing.T) {
	for text, want := range map[string]Tri{"yes": Yes, "true": Yes, "no": No, "false": No, "unknown": Unknown, "": Unknown} {
		got := Yes + 1
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"Yes", "1", "compliant", "ok"} {
		got := No
		if err := got.UnmarshalText([]byte(text)); err == nil || got != No {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "10", "-1h", "1.5d", "99999999d", "soon"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

// A login that is about to happen has to satisfy everything at once, or the
// visitor would be sent to log in again and again.
func TestOneLoginForAllNeeds(t *testing.T) {
	d := Decision{Outcome: Challenge, Needs: []Need{
		{Reason: ACRInsufficient, Login: LoginRequire{ACR: []string{"mfa", "phr"}}},
		{Reason: ACRInsufficient, Login: LoginRequire{ACR: []string{"phr", "phrh"}}},
		{Reason: LoginTooOld, Login: LoginRequire{MaxAge: Duration(time.Hour)}},
		{Reason: LoginTooOld, Login: LoginRequire{MaxAge: Duration(time.Minute)}},
	}}
	ask, ok := d.LoginOnly()
	if !ok || fmt.Sprint(ask.ACR) != "[phr]" || ask.MaxAge.Std() != time.Minute {
		t.Errorf("ask = %+v, %v", ask, ok)
	}
	d.Needs = append(d.Needs, Need{Reason: DeviceMissing})
	if _, ok := d.LoginOnly(); ok {
		t.Error("a login does not enrol a device")
	}
	d.Needs, d.Outcome = d.Needs[:1], Deny
	if _, ok := d.LoginOnly(); ok {
		t.Error("a login does not cure a deny")
	}
}

func TestReasonOfAnError(t *testing.T) {
	inner := Becausef(ProviderUnavailable, "dial: %w", http.ErrHandlerTimeout)
	if got := ReasonOf(fmt.Errorf("login: %w", inner)); got != ProviderUnavailable {
		t.Error(got)
	}
	if got := ReasonOf(http.ErrHandlerTimeout); got != InternalError {
		t.Error(got)
	}
	if got := ReasonOf(nil); got != "" {
		t.Error(got)
	}
}

func TestFaultsKeepTheirPlace(t *testing.T) {
	f := NewFaults("")
	f.At("routes[%d]", 2).At("allow[0]").At("when").Add("cure", "text %d", 1)
	f.At("server").Add("", "other")
	list := f.List()
	if len(list) != 2 || list[0].Path != "routes[2].allow[0].when" || list[0].Text != "text 1" || list[1].Path != "server" {
		t.Errorf("%+v", list)
	}
}

// What is close is offered, what is far is not.
func TestClosest(t *testing.T) {
	keys := []string{"client_id", "client_secret", "issuer", "groups_claim", "allow", "to"}
	for word, want := range map[string]string{
		"clientID": "client_id", "client-secret": "client_secret", "isuser": "issuer", "alow": "allow",
		"claim": "groups_claim", "tot": "to", "zebra": "", "x": "", strings.Repeat("allow", 100): "",
	} {
		if got := Closest(word, keys); got != want {
			t.Errorf("Closest(%q) = %q, want %q", word, got, want)
		}
	}
}
