package format

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// filled returns an event in which every member is set, every text to one that
// stands nowhere else.
func filled(kind access.EventKind) *access.Event {
	n := 0
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		n++
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			v.Set(reflect.ValueOf(time.Date(2026, 11, 26, 18, 0, n, 0, time.UTC)))
			return
		case v.Type() == reflect.TypeFor[netip.Addr]():
			v.Set(reflect.ValueOf(netip.MustParseAddr("203.0.113.7")))
			return
		case v.Type() == reflect.TypeFor[access.Outcome]():
			v.Set(reflect.ValueOf(access.Challenge))
			return
		case v.Type() == reflect.TypeFor[access.Tri]():
			v.Set(reflect.ValueOf(access.Yes))
			return
		case v.Type() == reflect.TypeFor[access.Risk]():
			v.Set(reflect.ValueOf(access.RiskMedium))
			return
		}
		switch v.Kind() {
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).Tag.Get("json") != "-" { // is in no record
					fill(v.Field(i))
				}
			}
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0))
		case reflect.Map:
			v.Set(reflect.ValueOf(map[string]any{"claim": fmt.Sprintf("text%dx", n)}))
		case reflect.String:
			v.SetString(fmt.Sprintf("text%dx", n))
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(int64(n) * 1_000_003)
		case reflect.Uint64:
			v.SetUint(uint64(n) * 1_000_003)
		}
	}
	e := new(access.Event)
	fill(reflect.ValueOf(e).Elem())
	e.Kind = kind
	e.Request.Method = "POST"
	return e
}

var kinds = []access.EventKind{access.EventDecision, access.EventLogin, access.EventLogout, access.EventSession, access.EventConfig,
	access.EventSignal, access.EventAdmin, access.EventClosed, access.EventAudit}

func encoded(t *testing.T, name string, e *access.Event) (record map[string]any, text string) {
	t.Helper()
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	event, err := Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(name, event, Options{Version: "1.2.3", Host: "door-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return record, string(b)
}

// Nothing of an event is left out, whatever the schema has a word for.
func TestNothingIsLeftOut(t *testing.T) {
	for _, name := range []string{Native, OCSF, ECS} {
		for _, kind := range kinds {
			e := filled(kind)
			_, text := encoded(t, name, e)
			line, _ := json.Marshal(e)
			var all any
			json.Unmarshal(line, &all)
			var walk func(any)
			walk = func(v any) {
				switch v := v.(type) {
				case map[string]any:
					for _, inner := range v {
						walk(inner)
					}
				case []any:
					for _, inner := range v {
						walk(inner)
					}
				case string:
					if strings.HasPrefix(v, "text") && !strings.Contains(text, v) {
						t.Errorf("%s of a %s leaves out %q", name, kind, v)
					}
				}
			}
			walk(all)
		}
	}
}

// What each class of OCSF demands, and which members of its objects.
var ocsfRequired = map[int][]string{
	classBase:   {},
	classAuth:   {"user", "user.name|user.uid", "service.name|dst_endpoint.hostname"},
	classEntity: {"entity.name|entity.uid"},
	classHTTP: {"http_request.http_method", "http_request.url.hostname", "http_response.code", "dst_endpoint.hostname",
		"src_endpoint.ip|src_endpoint.name", "action_id", "disposition_id"},
	classAPI: {"actor.user.name|actor.user.uid", "api.operation", "src_endpoint.ip|src_endpoint.name"},
}

var ocsfAlways = []string{"activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "metadata.version", "metadata.product.name", "metadata.product.vendor_name"}

// ocsfEnums are the numbers that a member may have.
var ocsfEnums = map[string][]int{
	"severity_id": {0, 1, 2, 3, 4, 5, 6, 99}, "status_id": {0, 1, 2, 99}, "action_id": {0, 1, 2, 3, 4, 99},
	"disposition_id": {0, 1, 2, 17, 23, 24, 26, 27}, "device.type_id": {0, 1, 2, 3, 99}, "device.os.type_id": {0, 100, 200, 201, 300, 301, 99},
	"actor.user.type_id": {0, 1, 2, 3, 99}, "device.risk_level_id": {0, 1, 2, 3, 4},
}

func checkOCSF(record map[string]any) (faults []string) {
	r := Event(record)
	class, ok := r.Get("class_uid").(float64)
	required, known := ocsfRequired[int(class)]
	if !ok || !known {
		return []string{"class_uid"}
	}
	for _, path := range append(ocsfAlways, required...) {
		found := false
		for alternative := range strings.SplitSeq(path, "|") {
			found = found || r.Get(alternative) != nil
		}
		if !found {
			faults = append(faults, path)
		}
	}
	activity, _ := r.Get("activity_id").(float64)
	if r.Get("type_uid") != class*100+activity {
		faults = append(faults, "type_uid")
	}
	if category, _ := r.Get("category_uid").(float64); int(category) != int(class)/1000 {
		faults = append(faults, "category_uid")
	}
	if activity == activityOther && r.Text("activity_name") == "" {
		faults = append(faults, "activity_name")
	}
	if at, _ := r.Get("time").(float64); at < 1e12 || at > 1e13 {
		faults = append(faults, "time")
	}
	for path, allowed := range ocsfEnums {
		value := r.Get(path)
		if value == nil {
			continue
		}
		in := false
		for _, n := range allowed {
			in = in || value == float64(n)
		}
		if !in {
			faults = append(faults, path)
		}
	}
	if device := r.Get("device"); device != nil && r.Get("device.type_id") == nil {
		faults = append(faults, "device.type_id")
	}
	return faults
}

func TestOCSFHasWhatItsClassesDemand(t *testing.T) {
	now := time.Date(2026, 11, 26, 18, 0, 0, 0, time.UTC)
	bare := func(kind access.EventKind) *access.Event {
		e := &access.Event{Kind: kind, Time: now}
		if kind == access.EventDecision || kind == access.EventClosed {
			e.Request = &access.Request{ID: "r1", Method: "BREW", Scheme: "https", Host: "app.example", Path: "/"}
			e.Decision = &access.Decision{Reason: access.NoRoute}
		}
		return e
	}
	for _, kind := range kinds {
		for name, e := range map[string]*access.Event{"full": filled(kind), "bare": bare(kind)} {
			record, text := encoded(t, OCSF, e)
			if faults := checkOCSF(record); len(faults) > 0 {
				t.Errorf("%s %s: %v in %s", name, kind, faults, text)
			}
		}
	}
	// The check itself finds what is missing.
	record, _ := encoded(t, OCSF, filled(access.EventDecision))
	for path := range strings.SplitSeq("class_uid|type_uid|category_uid|time|severity_id|dst_endpoint|http_request|http_response|metadata|action_id", "|") {
		damaged, _ := encoded(t, OCSF, filled(access.EventDecision))
		delete(damaged, path)
		if len(checkOCSF(damaged)) == 0 {
			t.Errorf("nobody misses %s", path)
		}
	}
	if len(checkOCSF(record)) != 0 {
		t.Error("the undamaged record is at fault")
	}
}

func decided(outcome access.Outcome, reason access.Reason) *access.Event {
	return &access.Event{Kind: access.EventDecision, Time: time.UnixMilli(1774000000000), Response: access.Response{Status: 403},
		Request: &access.Request{ID: "r1", Method: "POST", Scheme: "https", Host: "payroll.example.com", Path: "/run", Route: "payroll",
			Network:  access.Network{IP: netip.MustParseAddr("198.51.100.7")},
			Identity: access.Identity{Provider: "corp", Issuer: "https://idp.example", Subject: "248289", Username: "anna", Groups: []string{"hr"}},
			Device:   access.Device{ID: "3f2a", Managed: access.Yes, Compliant: access.No, OS: "macos", OSVersion: "15.5", Risk: access.RiskMedium}},
		Decision: &access.Decision{Outcome: outcome, Reason: reason, Rule: "allow/staff", Policy: "ab12"}}
}

func TestWordsOfADecision(t *testing.T) {
	for _, c := range []struct {
		outcome             access.Outcome
		action, disposition float64
		status              float64
		ecsOutcome, ecsType string
	}{
		{access.Allow, 1, 1, 1, "success", "allowed"},
		{access.Deny, 2, 2, 2, "failure", "denied"},
		{access.Challenge, 2, 23, 2, "failure", "denied"},
	} {
		reason := access.NotAllowed
		if c.outcome == access.Allow {
			reason = access.Allowed
		}
		record, text := encoded(t, OCSF, decided(c.outcome, reason))
		r := Event(record)
		for path, want := range map[string]any{
			"class_uid": 4002.0, "activity_id": 6.0, "type_uid": 400206.0, "time": 1774000000000.0, "action_id": c.action, "disposition_id": c.disposition,
			"status_id": c.status, "status_detail": string(reason), "actor.user.uid": "corp:248289", "actor.user.name": "anna", "src_endpoint.ip": "198.51.100.7",
			"device.is_managed": true, "device.is_compliant": false, "device.os.type_id": 300.0, "device.risk_level_id": 2.0, "http_response.code": 403.0,
			"http_request.url.path": "/run", "policy.name": "allow/staff", "metadata.correlation_uid": "r1",
		} {
			if got := r.Get(path); got != want {
				t.Errorf("%v: %s is %v, not %v, in %s", c.outcome, path, got, want, text)
			}
		}
		record, text = encoded(t, ECS, decided(c.outcome, reason))
		r = Event(record)
		for path, want := range map[string]any{
			"ecs.version": ECSVersion, "event.outcome": c.ecsOutcome, "event.action": "decision", "event.reason": string(reason), "user.id": "corp:248289", "user.name": "anna",
			"source.ip": "198.51.100.7", "url.domain": "payroll.example.com", "http.request.method": "POST", "http.response.status_code": 403.0, "rule.name": "allow/staff",
		} {
			if got := r.Get(path); got != want {
				t.Errorf("%v: %s is %v, not %v, in %s", c.outcome, path, got, want, text)
			}
		}
		if got := fmt.Sprint(r.Get("event.type"), r.Get("event.category"), r.Text("@timestamp") != ""); got != "[access "+c.ecsType+"] [web] true" {
			t.Error(got)
		}
	}
}

func TestSeverity(t *testing.T) {
	for want, e := range map[Severity]*access.Event{
		Informational: decided(access.Allow, access.Allowed), Low: decided(access.Deny, access.NotAllowed),
		Medium: decided(access.Deny, access.StoreUnavailable), High: {Kind: access.EventLogin, Reason: access.LoginMixUp},
	} {
		line, _ := json.Marshal(e)
		if event, err := Parse(line); err != nil || event.Severity() != want {
			t.Error(event.Severity(), want, err)
		}
	}
}

func TestParseRefusesWhatIsNoEvent(t *testing.T) {
	for _, text := range []string{"", "x", "[]", "{}", `{"kind":7}`, `{"kind":"login"} {}`, `null`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Error(text)
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, kind := range kinds {
		line, _ := json.Marshal(filled(kind))
		f.Add(line)
	}
	f.Add([]byte(`{"kind":"decision","request":7,"decision":[]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, name := range []string{Native, OCSF, ECS} {
			event, err := Parse(line)
			if err != nil {
				return
			}
			event.Severity()
			if b, err := Encode(name, event, Options{}); err != nil || !json.Valid(b) {
				t.Errorf("%s: %v %s", name, err, b)
			}
		}
	})
}
