package devicecheck

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

var updateGolden = flag.Bool("update", false, "write the golden files of vendors' answers")

// vendorKinds are all kinds of inventory that are asked over HTTP. The table of
// faults below holds for each of them.
var vendorKinds = []string{"http", "fleet", "intune", "entra", "defender", "jamf", "google", "crowdstrike"}

// TestEveryRemoteKindMeetsTheFaults keeps that list complete.
func TestEveryRemoteKindMeetsTheFaults(t *testing.T) {
	for name := range kinds {
		if (Source{Type: name}).remote() != strings.Contains(" "+strings.Join(vendorKinds, " ")+" ", " "+name+" ") {
			t.Errorf("%s is not tried", name)
		}
	}
}

// vendor is an inventory of one kind, and the world of whoever asks it.
type vendor struct {
	*testidp.Inventory
	*testidp.Clock
	t     testing.TB
	kind  string
	url   string
	slept []time.Duration
	log   bytes.Buffer
}

func newVendor(t testing.TB, kind string) *vendor {
	v := &vendor{t: t, kind: kind, Clock: testidp.NewClock(noon)}
	v.Inventory = testidp.NewInventory(kind, v.Now)
	server := httptest.NewServer(v.Inventory)
	t.Cleanup(server.Close)
	v.url = server.URL
	return v
}

func (v *vendor) outside() outside {
	return outside{
		now: v.Now, rand: func() float64 { return 0.5 }, log: slog.New(slog.NewTextHandler(&v.log, nil)),
		sleep: func(_ context.Context, d time.Duration) error { v.slept = append(v.slept, d); return nil },
	}.orReal()
}

// source is what the documentation says to configure, and everything the vendor
// can be made to say.
func (v *vendor) source() Source {
	s := Source{ID: "corp", Type: v.kind, URL: v.url}
	switch v.kind {
	case "http":
		s.URL += "/devices"
		s.Items, s.Next = "data.devices", `paging.@odata\.next`
		s.Headers = map[string]access.Secret{"Authorization": access.NewSecret("Bearer " + testidp.InventoryAPIToken)}
		s.Fields = map[string]Field{
			"id": {Path: "udid"}, "name": {Path: "label"}, "owner": {Path: "person.mail"}, "serial": {Path: "cert.sn"},
			"compliant": {Path: "compliance.state", Yes: []string{"OK"}, No: []string{"BAD"}}, "managed": {Path: "mdm"},
			"disk_encrypted": {Path: "fv"}, "jailbroken": {Path: "root", Yes: []string{"1"}, No: []string{"0"}},
			"os": {Path: "system"}, "os_version": {Path: "version"}, "last_seen": {Path: "contact"}, "reasons": {Path: "compliance.why"},
			"risk": {Path: "threat", Levels: map[string][]string{"none": {"0"}, "low": {"1", "2"}, "medium": {"3"}, "high": {"red"}}},
		}
	case "fleet":
		s.Token = access.NewSecret(testidp.InventoryAPIToken)
	case "google":
		s.ServiceAccount = access.NewSecret(testidp.ServiceAccount(v.url))
	default:
		s.ClientID, s.ClientSecret = testidp.InventoryClient, access.NewSecret(testidp.InventorySecret)
	}
	switch v.kind {
	case "entra":
		s.WithIntune = true
		fallthrough
	case "intune", "defender":
		s.AuthURL, s.Tenant = v.url, testidp.InventoryTenant
	case "jamf":
		s.CompliantGroup = "Compliant"
	case "crowdstrike":
		s.MinScore, s.Key = 80, "system_serial_number"
	}
	return s
}

func (v *vendor) fetcher() fetcher { return v.open(v.source()) }

func (v *vendor) open(s Source) fetcher {
	v.t.Helper()
	faults := access.NewFaults("")
	s.validate(faults)
	f, err := newFetcher(s, v.outside())
	if err != nil || len(faults.List()) > 0 {
		v.t.Fatal(err, faults.List())
	}
	return f
}

// watched is a source that has read the vendor once, without a fault.
func (v *vendor) watched() *source {
	v.t.Helper()
	s := &source{Source: v.source(), fetcher: v.fetcher(), now: v.Now, log: slog.New(slog.DiscardHandler)}
	s.start(nil)
	if now := s.state.Load(); now.failing() || now.size() == 0 {
		v.t.Fatalf("%+v", now)
	}
	return s
}

// healthy is a device that every vendor praises as far as it can.
func healthy(id string) access.Device {
	return access.Device{
		ID: id, Known: access.Yes, Managed: access.Yes, Compliant: access.Yes, DiskEncrypted: access.Yes, Jailbroken: access.No,
		Risk: access.RiskLow, OS: "macos", OSVersion: "15.4", Owner: "alice@example.com", Name: "laptop " + id, SeenAt: noon.Add(-time.Hour),
	}
}

// praised reports whether a vendor found a device good in the one way it has.
func (v *vendor) praised(d *access.Device) bool {
	if v.kind == "defender" { // which does not judge compliance
		return d != nil && d.Risk.Low() == access.Yes
	}
	return d != nil && d.Compliant == access.Yes
}

// records puts the documented records of the vendor into its lists.
func (v *vendor) records() {
	v.t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "vendor", v.kind+".json"))
	if err != nil {
		v.t.Fatal(err)
	}
	var lists map[string][]json.RawMessage
	if err := json.Unmarshal(text, &lists); err != nil {
		v.t.Fatal(err)
	}
	for path, records := range lists {
		texts := make([]string, len(records))
		for n, record := range records {
			texts[n] = string(record)
		}
		v.SetRecords(path, texts...)
	}
}

func TestVendorAnswersBecomeTheNormalForm(t *testing.T) {
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			v := newVendor(t, kind)
			v.records()
			f := v.fetcher()
			inv, err := f.fetch(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			said := v.log.String()
			if again, err := f.fetch(t.Context(), inv); again != inv || err != nil {
				t.Errorf("the same answer again is another inventory: %v", err)
			}
			if v.log.String() != said {
				t.Errorf("what is not known is logged again:\n%s", v.log.String()[len(said):])
			}
			checkInventory(t, inv)
			got, err := json.MarshalIndent(inv.devices, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			var odd []string
			for line := range strings.Lines(said) {
				_, what, _ := strings.Cut(line, "field=")
				odd = append(odd, what)
			}
			text := fmt.Sprintf("%s\nnot known, %d values:\n%s", got, inv.odd, strings.Join(odd, ""))
			golden := filepath.Join("testdata", "vendor", kind+".golden")
			if *updateGolden {
				write(t, golden, text)
			}
			if want, err := os.ReadFile(golden); err != nil || string(want) != text {
				t.Errorf("%v; got\n%s", err, text)
			}
		})
	}
}

// What the vendor of the tests says of a device is what is read, as far as the
// vendor has words for it.
func TestEveryVendorSaysWhatItCan(t *testing.T) {
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			v := newVendor(t, kind)
			want := healthy("d-1")
			v.Set(healthy("d-0"), want, healthy("d-2"))
			inv, err := v.fetcher().fetch(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			switch kind {
			case "fleet":
				want.Jailbroken, want.Risk, want.Owner = access.Unknown, access.RiskUnknown, ""
			case "jamf":
				want.Risk = access.RiskUnknown
			case "defender":
				want.Managed, want.Compliant, want.DiskEncrypted, want.Jailbroken, want.Owner = 0, 0, 0, 0, ""
			case "crowdstrike":
				want.Managed, want.DiskEncrypted, want.Jailbroken, want.Risk = 0, 0, 0, 0
				want.Owner, want.Name, want.OSVersion = "", "", ""
			}
			if got := inv.find(idKey, "d-1"); len(inv.devices) != 3 || got == nil || fmt.Sprint(*got) != fmt.Sprint(want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}
