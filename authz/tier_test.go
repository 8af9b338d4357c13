package authz

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// laddered is billing with three tiers: a device sinks from each when it has
// been silent for 30m, 4h and 24h.
func laddered() Input {
	in := billing()
	in.Defaults, in.Routes[0].Require = access.Defaults{}, access.Require{}
	in.Devices.Tiers = []access.Tier{
		{Name: "basic", Profile: access.Profile{All: []string{"known"}}, Session: access.Duration(time.Hour)},
		{Name: "trusted", Profile: access.Profile{All: []string{"healthy"}, MaxAge: access.Duration(4 * time.Hour)}, Session: access.Duration(8 * time.Hour)},
		{Name: "full", Profile: access.Profile{All: []string{"not_jailbroken"}, MaxAge: access.Duration(30 * time.Minute), Sources: []string{"inventory"}}},
	}
	return in
}

func TestTiersDecayToTheSecond(t *testing.T) {
	p, dev := compile(t, laddered()), goodDevice()
	seen := dev.SeenAt
	for _, tt := range []struct {
		silent time.Duration
		tier   string
	}{
		{0, "full"}, {30 * time.Minute, "full"}, {30*time.Minute + time.Second, "trusted"},
		{4 * time.Hour, "trusted"}, {4*time.Hour + time.Second, "basic"}, {24 * time.Hour, "basic"}, {24*time.Hour + time.Second, ""},
	} {
		d := p.Decide(with(func(r *access.Request) {
			r.Time = seen.Add(tt.silent)
			r.Identity.Login.Time = r.Time
		}))
		if d.Tier != tt.tier || d.Outcome != access.Allow {
			t.Errorf("silent for %v: tier %q, %s", tt.silent, d.Tier, d.Outcome)
		}
	}
}

func TestRequireATier(t *testing.T) {
	in := laddered()
	in.Routes[0].Require.Device = "trusted"
	p := compile(t, in)
	tests := []struct {
		name   string
		change func(*access.Device)
		tier   string
		reason access.Reason
	}{
		{"a higher one satisfies", func(d *access.Device) { d.SeenAt = noon }, "full", access.Allowed},
		{"this one", func(*access.Device) {}, "trusted", access.Allowed},
		{"a lower one does not", func(d *access.Device) { d.DiskEncrypted = access.No }, "basic", access.DeviceNotEncrypted},
		{"silence", func(d *access.Device) { d.SeenAt = noon.Add(-5 * time.Hour) }, "basic", access.DeviceFactsTooOld},
		{"unknown is not yes", func(d *access.Device) { d.Compliant = access.Unknown }, "basic", access.DeviceFactMissing},
		{"none", func(d *access.Device) { *d = access.Device{} }, "", access.DeviceMissing},
		{"an inventory that does not count", func(d *access.Device) { d.SeenAt, d.Source = noon, "list" }, "trusted", access.Allowed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Decide(with(func(r *access.Request) { tt.change(&r.Device) }))
			if d.Tier != tt.tier || d.Reason != tt.reason {
				t.Errorf("tier %q, %s", d.Tier, d.Reason)
			}
		})
	}
}

func TestSessionsAreShorterOnLowerTiers(t *testing.T) {
	p := compile(t, laddered())
	decide := func(loggedIn time.Duration, change func(*access.Request)) access.Decision {
		return p.Decide(with(func(r *access.Request) {
			r.Identity.Login.Time = noon.Add(-loggedIn)
			change(r)
		}))
	}
	full := func(r *access.Request) { r.Device.SeenAt = noon }
	trusted := func(*access.Request) {}
	basic := func(r *access.Request) { r.Device.Compliant = access.No }
	none := func(r *access.Request) { r.Device = access.Device{} }
	for _, tt := range []struct {
		name     string
		loggedIn time.Duration
		change   func(*access.Request)
		want     access.Outcome
	}{
		{"no limit", 100 * time.Hour, full, access.Allow},
		{"within", 8 * time.Hour, trusted, access.Allow},
		{"a second too long", 8*time.Hour + time.Second, trusted, access.Challenge},
		{"within, lowest", time.Hour, basic, access.Allow},
		{"a second too long, lowest", time.Hour + time.Second, basic, access.Challenge},
		{"in no tier, as in the lowest", time.Hour + time.Second, none, access.Challenge},
		{"machines have no session", 100 * time.Hour, func(r *access.Request) { none(r); r.Identity.Kind = access.Service }, access.Deny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := decide(tt.loggedIn, tt.change)
			if d.Outcome != tt.want {
				t.Fatalf("%+v", d)
			}
			if tt.want != access.Challenge {
				return
			}
			ask, login := d.LoginOnly()
			if !login || d.Reason != access.SessionTooOld || ask.MaxAge == 0 {
				t.Errorf("a login does not cure it: %+v", d)
			}
			if d := decide(0, tt.change); d.Outcome != access.Allow {
				t.Errorf("after the login: %+v", d)
			}
		})
	}
	if d := p.Decide(with(func(r *access.Request) { r.Identity.Login.Time = time.Time{} })); d.Reason != access.SessionTooOld {
		t.Errorf("a login of unknown age: %+v", d)
	}
}

func TestExplainTellsTheTierAndWhyNotHigher(t *testing.T) {
	in := laddered()
	_, tree := compile(t, in).Explain(with(func(r *access.Request) { r.Device.DiskEncrypted = access.No }))
	var text strings.Builder
	if err := tree.WriteText(&text, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"device tier  basic  (a login lasts 1h)", "not in trusted\n  device_not_encrypted", "not in full\n", "want 30m, got 1h ago"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing:\n%s", want, &text)
		}
	}
	if tree.Tier.Tier != "basic" || len(tree.Tier.Higher) != 2 || tree.Decision.Tier != "basic" {
		t.Errorf("got %+v", tree.Tier)
	}
}

func TestTierFaults(t *testing.T) {
	tests := []struct {
		name, path, text string
		change           func(*access.DevicePolicy)
	}{
		{"name of a profile", "devices.tiers[0].name", "already the name of a profile", func(p *access.DevicePolicy) { p.Tiers[0].Name = "managed" }},
		{"name twice", "devices.tiers[2].name", "already the name of a tier", func(p *access.DevicePolicy) { p.Tiers[2].Name = "basic" }},
		{"no name", "devices.tiers[1].name", "has no name", func(p *access.DevicePolicy) { p.Tiers[1].Name = "" }},
		{"nothing asked", "devices.tiers[2]", "the tier asks for nothing", func(p *access.DevicePolicy) { p.Tiers[2].Profile = access.Profile{} }},
		{"longer below", "devices.tiers[1].session", "30m is shorter than 1h in the tier below", func(p *access.DevicePolicy) { p.Tiers[1].Session = access.Duration(30 * time.Minute) }},
		{"no limit below", "devices.tiers[0].session", "longer than in the tier above", func(p *access.DevicePolicy) { p.Tiers[0].Session = 0 }},
		{"a profile that asks for a tier that asks for it", "devices.profiles.managed.all[0]", "include each other", func(p *access.DevicePolicy) { p.Profiles["managed"] = access.Profile{All: []string{"trusted"}} }},
		{"no common inventory", "devices.tiers[2].all", "no inventory counts", func(p *access.DevicePolicy) { p.Tiers[0].Sources = []string{"other"} }},
		{"grace for nothing", "devices.tiers[0].grace", "which this tier does not list", func(p *access.DevicePolicy) { p.Tiers[0].Grace = 1 }},
		{"grace that an included profile takes away", "devices.tiers[1].grace", "does not hold", func(p *access.DevicePolicy) {
			p.Tiers[1].All, p.Tiers[1].Grace = []string{"compliant", "healthy"}, access.Duration(time.Hour)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := laddered()
			in.Defaults.Require.Device = ""
			tt.change(&in.Devices)
			_, faults := Compile(in)
			for _, f := range faults {
				if f.Path == tt.path && strings.Contains(f.Text, tt.text) && f.Cure != "" {
					return
				}
			}
			t.Errorf("got %q", faults)
		})
	}
}

func TestGraceToTheSecond(t *testing.T) {
	in := billing()
	in.Devices.Profiles["managed"] = access.Profile{All: []string{"known", "compliant"}, Grace: access.Duration(4 * time.Hour)}
	p := compile(t, in)
	tests := []struct {
		name   string
		change func(*access.Device)
		want   access.Outcome
	}{
		{"just failed", func(d *access.Device) { d.NonCompliantSince = noon }, access.Allow},
		{"the last moment", func(d *access.Device) { d.NonCompliantSince = noon.Add(time.Second - 4*time.Hour) }, access.Allow},
		{"over", func(d *access.Device) { d.NonCompliantSince = noon.Add(-4 * time.Hour) }, access.Challenge},
		{"nobody saw it begin", func(*access.Device) {}, access.Challenge},
		{"the inventory ends it earlier", func(d *access.Device) { d.NonCompliantSince, d.GraceUntil = noon.Add(-time.Hour), noon }, access.Challenge},
		{"the inventory lets it last", func(d *access.Device) { d.NonCompliantSince, d.GraceUntil = noon.Add(-time.Hour), noon.Add(1) }, access.Allow},
		{"the inventory cannot make it longer", func(d *access.Device) {
			d.NonCompliantSince, d.GraceUntil = noon.Add(-5*time.Hour), noon.Add(time.Hour)
		}, access.Challenge},
		{"unknown is not tolerated", func(d *access.Device) { d.Compliant, d.NonCompliantSince = access.Unknown, noon }, access.Challenge},
		{"for nothing but compliance", func(d *access.Device) { d.NonCompliantSince, d.DiskEncrypted = noon, access.No }, access.Challenge},
		{"not at high risk", func(d *access.Device) { d.NonCompliantSince, d.Risk = noon, access.RiskHigh }, access.Challenge},
		{"in the future", func(d *access.Device) { d.NonCompliantSince = noon.Add(time.Hour) }, access.Challenge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Decide(with(func(r *access.Request) { r.Device.Compliant = access.No; tt.change(&r.Device) }))
			if d.Outcome != tt.want {
				t.Errorf("%+v", d)
			}
		})
	}
	// Whoever does not write it has none.
	if d := compile(t, billing()).Decide(with(func(r *access.Request) { r.Device.Compliant, r.Device.NonCompliantSince = access.No, noon })); d.Outcome != access.Challenge {
		t.Errorf("%+v", d)
	}
}

// TestVersionsAreOrderedAsNumbers: the order of two versions is that of their
// parts as numbers, however many parts are written.
func TestVersionsAreOrderedAsNumbers(t *testing.T) {
	part := rapid.SliceOfN(rapid.IntRange(0, 30000), 1, maxVersionParts)
	write := func(parts []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(parts), " ", "."), "[]") }
	rapid.Check(t, func(t *rapid.T) {
		a, b := part.Draw(t, "a"), part.Draw(t, "b")
		if rapid.Bool().Draw(t, "alike") { // 10.0.9 and 10.0.10
			b = append(append([]int{}, a[:len(a)-1]...), a[len(a)-1]+rapid.IntRange(-1, 1).Draw(t, "step")*rapid.IntRange(0, 9).Draw(t, "by"))
			b[len(b)-1] = max(0, b[len(b)-1])
		}
		want := 0
		for i := range maxVersionParts {
			x, y := 0, 0
			if i < len(a) {
				x = a[i]
			}
			if i < len(b) {
				y = b[i]
			}
			if x != y {
				want = 1
				if x < y {
					want = -1
				}
				break
			}
		}
		if order, ok := compareVersions(write(a), write(b)); !ok || order != want {
			t.Fatalf("%s and %s: %d %v, want %d", write(a), write(b), order, ok, want)
		}
	})
}

// TestFleetOfDevicesSinksOnTime simulates a fleet in which every device falls
// silent at its own moment: each is in the tier its silence allows, at every
// second around the three limits, with reasons for every higher tier.
func TestFleetOfDevicesSinksOnTime(t *testing.T) {
	p, random := compile(t, laddered()), rand.New(rand.NewPCG(1, 2))
	limits := []time.Duration{30 * time.Minute, 4 * time.Hour, 24 * time.Hour}
	ranks := map[string]int{"full": 0, "trusted": 1, "basic": 2, "": 3}
	for n := range 5000 {
		dev := goodDevice()
		dev.ID, dev.SeenAt = fmt.Sprint("device-", n), noon.Add(-time.Duration(random.IntN(3600))*time.Second)
		worst := 0 // the best tier its facts allow, fresh or not
		if n%5 == 0 {
			dev.Compliant, worst = access.No, 2
		} else if n%7 == 0 {
			dev.Jailbroken, worst = access.Unknown, 1
		}
		for i, limit := range limits {
			for _, late := range []time.Duration{0, time.Second} {
				now := dev.SeenAt.Add(limit + late)
				want := max(i, worst)
				if late > 0 {
					want = max(i+1, worst)
				}
				tier, standings := p.DeviceTier(&dev, now), p.Standings(&dev, now)
				if ranks[tier] != want {
					t.Fatalf("%s silent for %v: tier %q", dev.ID, limit+late, tier)
				}
				for _, s := range standings[:3] {
					if s.Holds != (ranks[s.Name] >= want) || s.Holds == (len(s.Missing) > 0) {
						t.Fatalf("%s silent for %v, in %q: %+v", dev.ID, limit+late, tier, s)
					}
				}
			}
		}
	}
}

func TestTiersDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := compile(t, laddered())
	for name, req := range map[string]*access.Request{
		"high": with(func(r *access.Request) { r.Device.SeenAt = noon }),
		"low":  with(func(r *access.Request) { r.Device.Compliant, r.Device.OSVersion = access.No, "14" }),
		"none": with(func(r *access.Request) { r.Device.SeenAt = time.Time{} }),
	} {
		if d := p.Decide(req); d.Outcome != access.Allow {
			t.Fatalf("%s: %+v", name, d)
		}
		if n := testing.AllocsPerRun(1000, func() { p.Decide(req) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDecideTier(b *testing.B) { benchmark(b, laddered(), good(), access.Allow) }
