package devicecheck

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// garbage has no meaning to any vendor, in any place. Nothing stands for a
// member that is missing.
var garbage = []any{
	nil, missing, "", " ", "quux", "COMPLIANT ", "Unknown", "unknown", "TRUE", "None ", json.Number("-1"), json.Number("7"), json.Number("1e400"),
	[]any{}, []any{"compliant"}, map[string]any{}, map[string]any{"compliant": true}, strings.Repeat("x", 5000), "a\u0000b",
}

type missingMember struct{}

var missing = missingMember{}

// spoil puts garbage in the place of some values of a record.
func spoil(t *rapid.T, value any) any {
	switch v := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if inner := spoil(t, v[name]); inner == missing {
				delete(v, name)
			} else {
				v[name] = inner
			}
		}
	case []any:
		for n := range v {
			if inner := spoil(t, v[n]); inner != missing {
				v[n] = inner
			}
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "spoil") == 9 {
		return rapid.SampledFrom(garbage).Draw(t, "garbage")
	}
	return value
}

// Whatever is missing or not known here in a vendor's records, no device becomes
// better by it: no fact is as it should be unless the vendor said so.
func TestGarbageMakesNoDeviceBetter(t *testing.T) {
	three := rapid.SampledFrom([]access.Tri{access.Unknown, access.No, access.Yes})
	for _, kind := range vendorKinds {
		t.Run(kind, func(t *testing.T) {
			v := newVendor(t, kind)
			read := 0
			rapid.Check(t, func(t *rapid.T) {
				honest := healthy("d")
				honest.Managed, honest.Compliant = three.Draw(t, "managed"), three.Draw(t, "compliant")
				honest.DiskEncrypted, honest.Jailbroken = three.Draw(t, "disk"), three.Draw(t, "jailbroken")
				honest.Risk = access.Risk(rapid.IntRange(0, 4).Draw(t, "risk"))
				v.Set(honest)
				v.Change(func(_ string, record any) any { return spoil(t, record) })
				inv, err := v.fetcher().fetch(t.Context(), nil)
				if err != nil {
					return // nothing is known then
				}
				for _, d := range inv.devices {
					read++
					if d.Managed == access.Yes && honest.Managed != access.Yes || d.Compliant == access.Yes && honest.Compliant != access.Yes ||
						d.DiskEncrypted == access.Yes && honest.DiskEncrypted != access.Yes || d.Jailbroken == access.No && honest.Jailbroken != access.No ||
						d.Risk.Low() == access.Yes && honest.Risk.Low() != access.Yes || d.SeenAt.After(honest.SeenAt) {
						t.Fatalf("from\n%+v\ncame\n%+v", honest, d)
					}
				}
			})
			if read == 0 {
				t.Error("no device was read at all")
			}
			t.Log(read, "devices")
		})
	}
}

// What is not known here is logged once for every value, and counted.
func TestWhatIsNotKnownIsToldOnce(t *testing.T) {
	v := newVendor(t, "intune")
	record := func(id, state string) string {
		return fmt.Sprintf(`{"id":%q,"azureADDeviceId":%q,"complianceState":%q,"isEncrypted":true,"jailBroken":"False","managementAgent":"mdm","partnerReportedThreatState":"secured"}`, id, id, state)
	}
	v.SetRecords("/v1.0/deviceManagement/managedDevices", record("a", "splendid"), record("b", "splendid"), record("c", "compliant"))
	f := v.fetcher()
	inv, err := f.fetch(t.Context(), nil)
	if err != nil || inv.odd != 2 {
		t.Fatal(err, inv)
	}
	v.SetRecords("/v1.0/deviceManagement/managedDevices", record("a", "splendid"), record("b", "superb"))
	if inv, err = f.fetch(t.Context(), inv); err != nil || inv.odd != 2 {
		t.Fatal(err, inv)
	}
	for _, word := range []string{"splendid", "superb"} {
		if n := strings.Count(v.log.String(), "field=complianceState value="+word); n != 1 {
			t.Errorf("%s is logged %d times:\n%s", word, n, v.log.String())
		}
	}
	odd := oddities{}
	for n := range 10_000 {
		odd.note("f", fmt.Sprint(n))
	}
	if len(odd) > maxOddities+1 || odd.total() != 10_000 {
		t.Errorf("%d oddities, %d values", len(odd), odd.total())
	}
}

// readRecord reads one record of a list as each kind does.
func readRecord(f fetcher, p *pull, record map[string]any) error {
	switch f := f.(type) {
	case *httpInventory:
		return p.adding(f.device)(record)
	case *fleetServer:
		return p.adding(f.device)(record)
	case *intune:
		return p.adding(f.device)(record)
	case *defender:
		return p.adding(f.device)(record)
	case *jamf:
		return p.adding(f.device)(record)
	case *crowdStrike:
		return p.adding(f.device)(record)
	case *google:
		r := &googleReading{google: f, pull: p, byName: map[string]*googleDevice{}, users: map[string]bool{}}
		if err := r.device(record); err != nil {
			return err
		}
		record["name"] = fmt.Sprint(record["name"]) + "/deviceUsers/u"
		if err := r.user(record); err != nil {
			return err
		}
		record["name"] = fmt.Sprint(record["name"]) + "/clientStates/s"
		if err := r.clientState(record); err != nil {
			return err
		}
		return p.add(r.found[0].judge())
	case *entra:
		round := entraRound{devices: map[string]entraDevice{}}
		if err := round.apply(record); err != nil {
			return err
		}
		for _, one := range round.devices {
			d, ok := f.device(p, one)
			if join(&d, nil); ok {
				return p.add(d)
			}
		}
		return nil
	}
	panic("no such kind")
}

// FuzzRecord gives any object to every kind of inventory.
func FuzzRecord(f *testing.F) {
	fetchers := map[string]fetcher{}
	for _, kind := range vendorKinds {
		fetchers[kind] = newVendor(f, kind).fetcher()
		text, err := os.ReadFile(filepath.Join("testdata", "vendor", kind+".json"))
		if err != nil {
			f.Fatal(err)
		}
		var lists map[string][]json.RawMessage
		if err := json.Unmarshal(text, &lists); err != nil {
			f.Fatal(err)
		}
		for _, records := range lists {
			for _, record := range records {
				f.Add([]byte(record))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for kind, fetcher := range fetchers {
			record, err := readObject(text)
			if err != nil {
				return
			}
			r, err := newRemote("https://inventory.example", outside{now: testidp.NewClock(noon).Now}.orReal())
			if err != nil {
				t.Fatal(err)
			}
			p, err := r.begin()
			if err != nil {
				t.Fatal(err)
			}
			if readRecord(fetcher, p, record) != nil {
				continue
			}
			inv, err := p.done(nil)
			if err != nil || len(inv.devices) > 1 {
				t.Fatalf("%s: %v, %+v", kind, err, inv)
			}
			checkInventory(t, inv)
		}
	})
}

// FuzzToken: a token answer is a token or an error that repeats none of it.
func FuzzToken(f *testing.F) {
	f.Add([]byte(`{"access_token":"abc","token_type":"bearer","expires_in":3599}`))
	f.Add([]byte(`{"access_token":"abc","token_type":"Bearer"}`))
	f.Add([]byte(testidp.ServiceAccount("https://inventory.example")))
	f.Fuzz(func(t *testing.T, text []byte) {
		token, life, err := readToken(text)
		if err == nil && (token == "" || life < 0 || life > maxTokenLife || strings.ContainsAny(token, " \r\n")) {
			t.Fatalf("%q for %s", token, life)
		}
		account, err := parseServiceAccount(access.NewSecret(string(text)))
		if err == nil && (account.email == "" || account.key == nil || account.tokenURL == nil) {
			t.Fatalf("%+v", account)
		}
	})
}

// FuzzPage: what is accepted as a page is JSON.
func FuzzPage(f *testing.F) {
	for _, kind := range vendorKinds {
		text, err := os.ReadFile(filepath.Join("testdata", "vendor", kind+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "/devices")
	}
	f.Fuzz(func(t *testing.T, text []byte, items string) {
		path, err := parsePath(items)
		if err != nil {
			return
		}
		if _, err := readPage(text, path, func(map[string]any) error { return nil }); err == nil && !json.Valid(text) {
			t.Fatalf("accepted what is no JSON: %q", text)
		}
	})
}
