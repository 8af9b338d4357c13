package devicecheck

import (
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// One inventory knows the devices, another one has the say about some facts.
func TestOneInventoryAddsToAnother(t *testing.T) {
	mdm := jsonSource(t, "mdm", `[
		{"id": "a", "managed": "yes", "compliant": "yes", "disk_encrypted": "yes", "last_seen": "2026-11-23T11:00:00Z"},
		{"id": "b", "managed": "yes", "compliant": "no", "risk": "high", "last_seen": "2026-11-23T11:00:00Z", "reasons": ["Firewall is off"]},
		{"id": "c", "managed": "yes", "compliant": "yes", "risk": "none", "last_seen": "2026-11-23T11:00:00Z"}]`)
	edr := jsonSource(t, "edr", `[
		{"id": "a", "compliant": "no", "managed": "no", "risk": "low", "last_seen": "2026-11-23T10:00:00Z", "reasons": ["No sensor policy"]},
		{"id": "b", "compliant": "yes", "risk": "low", "last_seen": "2026-11-23T11:30:00Z"},
		{"id": "stranger", "compliant": "yes", "risk": "none", "last_seen": "2026-11-23T11:30:00Z"}]`)
	edr.Adds = []string{"compliant", "risk"}
	for _, order := range [][]Source{{mdm, edr}, {edr, mdm}} {
		i := newInspector(t, Options{Config: Config{Sources: order, Match: []string{"claim.id"}}})
		a, b, c := known(t, i, "a"), known(t, i, "b"), known(t, i, "c")
		if a.Source != "mdm" || a.Managed != access.Yes || a.Compliant != access.No || a.Risk != access.RiskLow || a.DiskEncrypted != access.Yes ||
			a.SeenAt.Hour() != 10 || len(a.Reasons) != 1 {
			t.Errorf("what both know: %+v", a)
		}
		if b.Compliant != access.No || b.Risk != access.RiskHigh || b.SeenAt.Hour() != 11 || len(b.Reasons) != 1 {
			t.Errorf("what is bad stays so: %+v", b)
		}
		if c.Compliant != access.Unknown || c.Risk != access.RiskUnknown || c.Known != access.Yes {
			t.Errorf("what the second one does not list: %+v", c)
		}
		n := 0
		for d := range i.All() { // the operator sees what the door sees
			n++
			if d.ID == "a" && (d.Compliant != access.No || d.Risk != access.RiskLow) {
				t.Errorf("listed: %+v", d)
			}
		}
		if found := i.Find("b"); n != 3 || len(found) != 1 || found[0].Source != "mdm" || found[0].Risk != access.RiskHigh {
			t.Errorf("%d devices listed, b is %+v", n, found)
		}
		if d := known(t, i, "stranger"); d.Known != access.No {
			t.Errorf("a device that is only in the second one: %+v", d)
		}
		if again := known(t, i, "a"); len(again.Reasons) != 1 {
			t.Errorf("the inventory itself was changed: %+v", again)
		}
	}
}

// An inventory that cannot be read takes its facts, and the device's age, along.
func TestWhatIsAddedFailsWithItsSource(t *testing.T) {
	mdm := jsonSource(t, "mdm", `[{"id": "a", "compliant": "yes", "risk": "low", "last_seen": "2026-11-23T11:00:00Z"}]`)
	edr := jsonSource(t, "edr", "")
	edr.Adds = []string{"risk"}
	i := newInspector(t, Options{Config: Config{Sources: []Source{mdm, edr}, Match: []string{"claim.id"}}})
	if d := known(t, i, "a"); d.Compliant != access.Yes || d.Risk != access.RiskUnknown || !d.SourceFailingSince.Equal(noon) || d.SourceFailing != "edr" || !d.ObservedAt.IsZero() {
		t.Errorf("%+v", d)
	}
	if d := known(t, i, "b"); d.Known != access.No || !d.SourceFailingSince.IsZero() {
		t.Errorf("who is known is the other one's to say: %+v", d)
	}
}

// Nothing that is added makes a fact better than its own inventory says it.
func TestAddedFactsAreNoBetter(t *testing.T) {
	three := []access.Tri{access.Unknown, access.No, access.Yes}
	for _, have := range three {
		for _, say := range three {
			d := access.Device{Compliant: have, Managed: have, DiskEncrypted: have, Jailbroken: have, NonCompliantSince: noon}
			from := access.Device{Compliant: say, Managed: say, DiskEncrypted: say, Jailbroken: say, NonCompliantSince: noon.Add(-time.Hour)}
			for _, add := range addable {
				add(&d, &from)
			}
			for _, got := range []access.Tri{d.Compliant, d.Managed, d.DiskEncrypted} {
				if want := map[bool]access.Tri{true: access.No, false: say}[have == access.No]; got != want {
					t.Errorf("%s and %s: %+v", have, say, d)
				}
			}
			if d.Jailbroken == access.No && (say != access.No || have == access.Yes) {
				t.Errorf("%s and %s: %+v", have, say, d)
			}
			if both := have == access.No && say == access.No; both && !d.NonCompliantSince.Equal(from.NonCompliantSince) {
				t.Errorf("a grace period begins late: %+v", d)
			}
		}
	}
	for have := access.RiskUnknown; have <= access.RiskHigh; have++ {
		for say := access.RiskUnknown; say <= access.RiskHigh; say++ {
			d := access.Device{Risk: have}
			addable[riskField](&d, &access.Device{Risk: say})
			if d.Risk.Low() == access.Yes && (say.Low() != access.Yes || have.Low() == access.No) || have.Low() == access.No && d.Risk < have {
				t.Errorf("%s and %s: %s", have, say, d.Risk)
			}
		}
	}
}
