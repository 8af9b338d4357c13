package devicecheck

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// entraAlone reads the directory without Intune.
func entraAlone(v *vendor, trust ...string) *source {
	s := v.source()
	s.WithIntune, s.TrustTypes = false, trust
	watched := &source{Source: s, fetcher: v.open(s), now: v.Now, log: v.outside().log}
	watched.state.Store(&state{})
	return watched
}

// after reads the vendor and returns a device, nil if there is none.
func (s *source) after(t *testing.T, id string) *access.Device {
	t.Helper()
	s.load(t.Context())
	now := s.state.Load()
	if now.failing() {
		t.Fatal(now.err)
	}
	return now.inv.find(idKey, id)
}

// asked returns the last requests of a vendor, without what is before the path's
// last part.
func (v *vendor) lastAsked(n int) string {
	all := v.Requests()
	return strings.Join(all[max(0, len(all)-n):], " ")
}

// Only what changed is asked for, and it is applied: a device that is disabled
// or removed is gone after one reading.
func TestEntraFollowsChanges(t *testing.T) {
	v := newVendor(t, "entra")
	a, b, c := healthy("a"), healthy("b"), healthy("c")
	v.Set(a, b, c)
	s := entraAlone(v)
	if d := s.after(t, "a"); d == nil || d.Compliant != access.Yes || d.Managed != access.Yes {
		t.Fatalf("%+v", d)
	}
	whole := len(v.Requests())

	a.Compliant = access.No
	v.Set(a, b, c)
	if d := s.after(t, "a"); d.Compliant != access.No || d.Managed != access.Yes || d.Name != "laptop a" {
		t.Errorf("a change of one property: %+v", d)
	}
	if len(v.Requests()) != whole+1 || !strings.Contains(v.lastAsked(1), "deltatoken") {
		t.Errorf("asked %v", v.Requests())
	}
	b.Known = access.No // disabled
	v.Set(a, b, c)
	if d := s.after(t, "b"); d != nil {
		t.Errorf("a disabled device: %+v", d)
	}
	b.Known = access.Yes
	v.Set(a, b)
	if d := s.after(t, "b"); d == nil || d.Compliant != access.Yes {
		t.Errorf("an enabled device: %+v", d)
	}
	if d := s.state.Load().inv.find(idKey, "c"); d != nil {
		t.Errorf("a removed device: %+v", d)
	}
	b.Compliant = access.Unknown // isCompliant: null
	v.Set(a, b)
	if d := s.after(t, "b"); d.Compliant != access.Unknown {
		t.Errorf("a property without a value: %+v", d)
	}
	if before := s.state.Load().inv; s.after(t, "b") == nil || s.state.Load().inv != before {
		t.Error("nothing changed, and it is another inventory")
	}
	v.Set()
	if d := s.after(t, "a"); d != nil || s.state.Load().size() != 0 {
		t.Errorf("an empty directory: %+v", d)
	}
}

// A server that forgot what it told, and a day that went by, lead to a whole
// reading; so nothing that was missed stays for long.
func TestEntraReadsEverythingAnew(t *testing.T) {
	v := newVendor(t, "entra")
	v.Set(healthy("a"), healthy("b"), healthy("c"))
	s := entraAlone(v)
	s.after(t, "a")
	v.Set(healthy("a"))
	v.Forget()
	if s.after(t, "a") == nil || s.state.Load().size() != 1 || !strings.Contains(v.lastAsked(1), "select") {
		t.Errorf("%d devices, asked %v", s.state.Load().size(), v.Requests())
	}
	for _, status := range []int{http.StatusBadRequest, http.StatusNotFound} {
		v.Once(testidp.Throttles(status, ""))
		if s.after(t, "a") == nil || !strings.Contains(v.lastAsked(1), "select") {
			t.Errorf("after %d: asked %v", status, v.Requests())
		}
	}
	v.Advance(entraAnew - time.Second)
	if s.after(t, "a"); !strings.Contains(v.lastAsked(1), "deltatoken") {
		t.Errorf("asked %s", v.lastAsked(1))
	}
	v.Advance(time.Second)
	if s.after(t, "a"); !strings.Contains(v.lastAsked(1), "select") {
		t.Errorf("asked %s", v.lastAsked(1))
	}
	// A refusal of who asks is no reason to ask for more.
	n := len(v.Requests())
	v.Once(testidp.Throttles(http.StatusForbidden, ""))
	if s.load(t.Context()); !s.state.Load().failing() || len(v.Requests()) != n+1 {
		t.Errorf("%+v, asked %v", s.state.Load(), v.Requests()[n:])
	}
}

// Changes that were read, but not to the end, are asked for again.
func TestEntraAppliesARoundWholeOrNotAtAll(t *testing.T) {
	v := newVendor(t, "entra")
	a, b, c := healthy("a"), healthy("b"), healthy("c")
	v.Set(a, b, c)
	s := v.watched() // with Intune
	good := s.state.Load().inv
	a.Compliant, b.Compliant, c.Compliant = access.No, access.No, access.No
	v.Set(a, b, c)
	for name, lies := range map[string][]testidp.Misbehaviour{
		"the second page fails":       {nil, testidp.Throttles(http.StatusInternalServerError, "")},
		"Intune fails":                {nil, nil, testidp.Throttles(http.StatusInternalServerError, "")},
		"a link to nowhere":           {nil, testidp.LiesAbout(func(answer map[string]any) { delete(answer, "@odata.deltaLink") })},
		"a link to another host":      {nil, testidp.LiesAbout(func(answer map[string]any) { answer["@odata.deltaLink"] = "https://evil.example/" })},
		"a link that is a number":     {nil, testidp.LiesAbout(func(answer map[string]any) { answer["@odata.deltaLink"] = 7 })},
		"both links at once, a cycle": {v.Next(func() any { return v.url + v.lastAsked(1) })},
	} {
		v.Once(lies...)
		if s.load(t.Context()); !s.state.Load().failing() || s.state.Load().inv != good {
			t.Errorf("%s: %+v", name, s.state.Load())
		}
	}
	if d := s.after(t, "a"); d == nil || d.Compliant != access.No || s.state.Load().inv.find(idKey, "c").Compliant != access.No {
		t.Errorf("%+v", d)
	}
}

func TestEntraTrustTypes(t *testing.T) {
	v := newVendor(t, "entra")
	v.SetRecords("/v1.0/devices/delta",
		`{"id":"1","deviceId":"joined","accountEnabled":true,"isManaged":true,"trustType":"AzureAd"}`,
		`{"id":"2","deviceId":"registered","accountEnabled":true,"isManaged":true,"trustType":"Workplace"}`,
		`{"id":"3","deviceId":"new","accountEnabled":true,"isManaged":true,"trustType":"Quantum"}`)
	all, some := entraAlone(v), entraAlone(v, "AzureAd", "ServerAd")
	for id, want := range map[string][2]access.Tri{
		"joined": {access.Yes, access.Yes}, "registered": {access.Yes, access.No}, "new": {access.Yes, access.Unknown},
	} {
		if got := [2]access.Tri{all.after(t, id).Managed, some.after(t, id).Managed}; got != want {
			t.Errorf("%s: %v, want %v", id, got, want)
		}
	}
	byObject := v.source()
	byObject.Key = "id"
	if inv, err := v.open(byObject).fetch(t.Context(), nil); err != nil || inv.find(idKey, "1") == nil {
		t.Error(err)
	}
}

// What two inventories say together is never better than what each says alone.
func TestJoinIsNoBetterThanEither(t *testing.T) {
	three := []access.Tri{access.Unknown, access.No, access.Yes}
	for _, a := range three {
		for _, b := range three {
			d, managed := access.Device{Compliant: a, Managed: b}, access.Device{Compliant: b, Managed: a, Risk: access.RiskLow}
			join(&d, &managed)
			if d.Compliant == access.Yes && (a != access.Yes || b != access.Yes) || d.Compliant != d.Managed ||
				d.Compliant != access.No && (a == access.No || b == access.No) {
				t.Errorf("%s and %s: %+v", a, b, d)
			}
		}
		d := access.Device{Compliant: a, Managed: a, SeenAt: noon}
		if join(&d, nil); d.Compliant == access.Yes || d.Managed == access.Yes || !d.SeenAt.IsZero() {
			t.Errorf("a device that Intune does not know: %+v", d)
		}
	}
}
