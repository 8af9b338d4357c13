package devicecheck

import (
	"context"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// jsonSource writes an inventory and returns the source that reads it.
func jsonSource(t testing.TB, id, text string) Source {
	path := filepath.Join(t.TempDir(), id+".json")
	if text != "" {
		write(t, path, text)
	}
	return Source{ID: id, Type: "file", Path: path}
}

func newInspector(t testing.TB, opts Options) *Inspector {
	t.Helper()
	if opts.Now == nil {
		opts.Now = func() time.Time { return noon }
	}
	i, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// claiming returns a request of somebody whose ID token holds claims.
func claiming(claims map[string]any) *access.Request {
	return &access.Request{
		Time:     noon,
		Identity: access.Identity{Provider: "corp", Issuer: "https://login.example", Subject: "8f1c", Claims: claims},
	}
}

func inspect(t testing.TB, i *Inspector, r *http.Request, req *access.Request) access.Device {
	t.Helper()
	if err := i.Inspect(r, req); err != nil {
		t.Fatal(err)
	}
	return req.Device
}

func TestDeviceByClaim(t *testing.T) {
	i := newInspector(t, Options{Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "laptop-1", "compliant": false, "os": "macOS", "last_seen": "2026-11-22T12:00:00Z", "reasons": ["Firewall is off"]}]`)},
		Match:   []string{"claim.deviceid", "claim.hw"},
	}})
	listed := access.Device{
		ID: "laptop-1", MatchedBy: "claim.deviceid", Source: "corp", Known: access.Yes, Compliant: access.No, OS: "macos",
		ByClaim: access.Yes, ByCertificate: access.No,
		SeenAt: noon.Add(-24 * time.Hour), ObservedAt: noon, Reasons: []string{"Firewall is off"},
	}
	second := listed
	second.MatchedBy = "claim.hw"
	for name, c := range map[string]struct {
		claims map[string]any
		want   access.Device
	}{
		"listed":                        {map[string]any{"deviceid": "laptop-1"}, listed},
		"listed under the second claim": {map[string]any{"hw": "laptop-1"}, second},
		"not listed":                    {map[string]any{"deviceid": "toaster"}, access.Device{ID: "toaster", MatchedBy: "claim.deviceid", Known: access.No, ObservedAt: noon}},
		"in other letters":              {map[string]any{"deviceid": "LAPTOP-1"}, access.Device{ID: "LAPTOP-1", MatchedBy: "claim.deviceid", Known: access.No, ObservedAt: noon}},
		"no claims":                     {nil, access.Device{}},
		"an empty claim":                {map[string]any{"deviceid": ""}, access.Device{}},
		"a list":                        {map[string]any{"deviceid": []any{"laptop-1"}}, access.Device{}},
		"a claim that is too long":      {map[string]any{"deviceid": strings.Repeat("x", maxProof+1)}, access.Device{}},
		"a claim with a line break":     {map[string]any{"deviceid": "laptop-1\r\nX: y"}, access.Device{}},
		"a claim of another name":       {map[string]any{"DeviceID": "laptop-1"}, access.Device{}},
	} {
		if got := inspect(t, i, &http.Request{}, claiming(c.claims)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", name, got, c.want)
		}
	}
}

// A partner's provider must not be able to pass its users' machines off as ours.
func TestOnlyTrustedProvidersNameDevices(t *testing.T) {
	config := Config{Sources: []Source{jsonSource(t, "corp", `[{"id": "laptop-1"}]`)}, Match: []string{"claim.deviceid"}, ClaimsFrom: []string{"corp"}}
	i := newInspector(t, Options{Config: config})
	req := claiming(map[string]any{"deviceid": "laptop-1"})
	if got := inspect(t, i, &http.Request{}, req); got.Known != access.Yes {
		t.Errorf("corp's word does not count: %+v", got)
	}
	req.Identity.Provider = "partner"
	if got := inspect(t, i, &http.Request{}, req); !reflect.DeepEqual(got, access.Device{}) {
		t.Errorf("the partner's word counts: %+v", got)
	}
}

func TestClaimsOfNobodyNameNoDevice(t *testing.T) {
	i := newInspector(t, Options{Config: Config{Sources: []Source{jsonSource(t, "corp", `[{"id": "laptop-1"}]`)}, Match: []string{"claim.deviceid"}}})
	req := claiming(map[string]any{"deviceid": "laptop-1"})
	req.Identity.Subject = ""
	if got := inspect(t, i, &http.Request{}, req); !reflect.DeepEqual(got, access.Device{}) {
		t.Errorf("%+v", got)
	}
}

// What a client writes into headers or what stood in the request before is
// nothing that the device said.
func TestUntrustedCertificateHeadersDoNothing(t *testing.T) {
	ca := newCA(t, "Device CA")
	leaf := ca.issue(t, leafOf("laptop-1", 0x4f01))
	i := newInspector(t, Options{ClientCAs: ca.pool(), Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "laptop-1", "serial": "4f01", "managed": true}]`)},
		Match:   []string{"certificate.serial", "certificate.subject_cn"},
	}})
	r := &http.Request{Header: http.Header{}}
	for name, value := range certificateHeaders(leaf) {
		r.Header.Set(name, value)
	}
	req := claiming(nil)
	req.Device = access.Device{ID: "laptop-1", Known: access.Yes, Managed: access.Yes, Certificate: access.Certificate{Serial: "4f01"}}
	if got := inspect(t, i, r, req); !reflect.DeepEqual(got, access.Device{}) {
		t.Errorf("%+v", got)
	}
}

// Known is No only where every inventory could have said so.
func TestUnknownNeverTurnsIntoNo(t *testing.T) {
	good := jsonSource(t, "good", `[{"id": "laptop-1"}]`)
	absent := jsonSource(t, "absent", "")
	listed := access.Device{ID: "laptop-1", MatchedBy: "claim.id", Source: "good", Known: access.Yes, ByClaim: access.Yes, ByCertificate: access.No, ObservedAt: noon}
	unasked := listed
	unasked.SourceFailingSince, unasked.SourceFailing = noon, "absent"
	unknown := access.Device{ID: "toaster", MatchedBy: "claim.id", SourceFailingSince: noon, SourceFailing: "absent"}
	for name, c := range map[string]struct {
		sources []Source
		id      string
		want    access.Device
	}{
		"no inventory at all":              {nil, "toaster", access.Device{ID: "toaster", MatchedBy: "claim.id"}},
		"never loaded":                     {[]Source{absent}, "toaster", unknown},
		"one of two failing, neither says": {[]Source{good, absent}, "toaster", unknown},
		"one of two failing, other order":  {[]Source{absent, good}, "toaster", unknown},
		"the first one knows":              {[]Source{good, absent}, "laptop-1", listed},
		"the first one was never asked":    {[]Source{absent, good}, "laptop-1", unasked},
		"all say no":                       {[]Source{good}, "toaster", access.Device{ID: "toaster", MatchedBy: "claim.id", Known: access.No, ObservedAt: noon}},
	} {
		i := newInspector(t, Options{Config: Config{Sources: c.sources, Match: []string{"claim.id"}}})
		if got := inspect(t, i, &http.Request{}, claiming(map[string]any{"id": c.id})); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", name, got, c.want)
		}
	}
}

func TestFirstInventoryThatKnowsTheDeviceAnswers(t *testing.T) {
	i := newInspector(t, Options{Config: Config{
		Sources: []Source{
			jsonSource(t, "first", `[{"id": "a", "managed": false}]`),
			jsonSource(t, "second", `[{"id": "a", "managed": true}, {"id": "b", "managed": true}]`),
		},
		Match: []string{"claim.id"},
	}})
	for id, want := range map[string]access.Device{
		"a": {ID: "a", MatchedBy: "claim.id", Source: "first", Known: access.Yes, Managed: access.No, ByClaim: access.Yes, ByCertificate: access.No, ObservedAt: noon},
		"b": {ID: "b", MatchedBy: "claim.id", Source: "second", Known: access.Yes, Managed: access.Yes, ByClaim: access.Yes, ByCertificate: access.No, ObservedAt: noon},
	} {
		if got := inspect(t, i, &http.Request{}, claiming(map[string]any{"id": id})); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v\nwant\n%+v", got, want)
		}
	}
}

// Authz refuses facts from the future; here they must stay visible.
func TestFutureReportsPassThrough(t *testing.T) {
	i := newInspector(t, Options{Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "a", "last_seen": "2036-01-01T00:00:00Z"}]`)}, Match: []string{"claim.id"},
	}})
	if got := inspect(t, i, &http.Request{}, claiming(map[string]any{"id": "a"})); got.SeenAt.Year() != 2036 {
		t.Errorf("%+v", got)
	}
}

func TestZeroConfigKnowsNothing(t *testing.T) {
	i := newInspector(t, Options{})
	if got := inspect(t, i, &http.Request{}, claiming(map[string]any{"deviceid": "a"})); !reflect.DeepEqual(got, access.Device{}) {
		t.Errorf("%+v", got)
	}
	i.Run(context.Background()) // has nothing to do
	if len(i.Status()) != 0 {
		t.Error(i.Status())
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	f := access.NewFaults("devices")
	Config{
		Sources: []Source{
			{},
			{ID: "a", Type: "fax"},
			{ID: "a", Type: "file"},
			{ID: "no blank", Type: "file", Path: "/x.xlsx", Refresh: 1},
			{ID: "fine", Type: "file", Path: "/x.CSV"},
		},
		Match: []string{"certificate.serial", "certificate.cn", "claim.", "claim.a b", "serial", "certificate.serial", "claim.x"},
		Owner: "certificate.serial",
	}.Validate(f)
	Config{Sources: []Source{{ID: "a", Type: "file", Path: "/x.json"}}}.Validate(f)
	Config{Match: []string{"claim.x"}, DevicePolicy: access.DevicePolicy{
		Profiles: map[string]access.Profile{"p": {Sources: []string{"b"}}},
		Tiers:    []access.Tier{{Profile: access.Profile{Sources: []string{"c"}}}},
	}}.Validate(f)
	var got []string
	for _, fault := range f.List() {
		if fault.Cure == "" {
			t.Errorf("%+v has no cure", fault)
		}
		got = append(got, fault.Path)
	}
	want := []string{
		"devices.sources[0].id", "devices.sources[0].type",
		"devices.sources[1].type",
		"devices.sources[2].path", "devices.sources[2].id",
		"devices.sources[3].id", "devices.sources[3].refresh", "devices.sources[3].path",
		"devices.owner",
		"devices.match[1]", "devices.match[2]", "devices.match[3]", "devices.match[4]", "devices.match[5]",
		"devices.match",
		"devices.profiles.p.sources[0]", "devices.tiers[0].sources[0]",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if _, err := New(Options{Config: Config{Match: []string{"hostname"}}}); err == nil {
		t.Error("an invalid configuration was accepted")
	}
}
