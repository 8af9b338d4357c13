package authz

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

func TestProfile(t *testing.T) {
	lastKnown := access.OnUnavailable{UseLastKnown: access.Duration(time.Hour)}
	tests := []struct {
		name    string
		policy  func(*access.DevicePolicy)
		change  func(*access.Device)
		reasons string
		want    access.Need // Want and Got of the first need
	}{
		{name: "healthy", change: func(*access.Device) {}},
		{name: "a problem beats everything", change: func(d *access.Device) { *d = access.Device{Problem: access.DeviceMismatch} }, reasons: "device_mismatch"},
		{name: "a problem on a good device", change: func(d *access.Device) { d.Problem = access.DeviceCertInvalid }, reasons: "device_certificate_invalid"},
		{name: "no id", change: func(d *access.Device) { d.ID = "" }, reasons: "device_missing"},
		{name: "known to nobody", change: func(d *access.Device) { *d = access.Device{ID: "x"} }, reasons: "device_unknown"},
		{name: "not in the inventory", change: func(d *access.Device) { d.Known = access.No }, reasons: "device_unknown"},
		{name: "inventory silent on known", change: func(d *access.Device) { d.Known = access.Unknown }, reasons: "device_fact_missing", want: access.Need{Want: "known", Got: "unknown"}},
		{name: "inventory gone", change: func(d *access.Device) { d.SourceFailingSince = noon }, reasons: "device_source_unavailable"},
		{name: "inventory gone a day ago", change: func(d *access.Device) { d.SourceFailingSince = noon.Add(-24 * time.Hour) }, reasons: "device_source_unavailable"},
		{name: "inventory gone before it was read", change: func(d *access.Device) { *d = access.Device{ID: "x", SourceFailingSince: noon} }, reasons: "device_source_unavailable"},
		{name: "last known counts", policy: func(p *access.DevicePolicy) { p.OnUnavailable = lastKnown }, change: func(d *access.Device) { d.SourceFailingSince = noon.Add(-time.Hour) }},
		{name: "last known is over", policy: func(p *access.DevicePolicy) { p.OnUnavailable = lastKnown }, change: func(d *access.Device) { d.SourceFailingSince = noon.Add(-time.Hour - 1) }, reasons: "device_source_unavailable"},
		{name: "last known does not stretch the age", policy: func(p *access.DevicePolicy) { p.OnUnavailable = lastKnown },
			change: func(d *access.Device) { d.SourceFailingSince, d.SeenAt = noon, noon.Add(-25*time.Hour) }, reasons: "device_facts_too_old"},
		{name: "never known is not last known", policy: func(p *access.DevicePolicy) { p.OnUnavailable = lastKnown },
			change: func(d *access.Device) { *d = access.Device{ID: "x", SourceFailingSince: noon} }, reasons: "device_source_unavailable"},
		{name: "never seen", change: func(d *access.Device) { d.SeenAt = time.Time{} }, reasons: "device_facts_too_old", want: access.Need{Want: "24h", Got: "never"}},
		{name: "seen just in time", change: func(d *access.Device) { d.SeenAt = noon.Add(-24 * time.Hour) }},
		{name: "seen thirty days ago", change: func(d *access.Device) { d.SeenAt = noon.Add(-30 * 24 * time.Hour) }, reasons: "device_facts_too_old", want: access.Need{Want: "24h", Got: "30d ago"}},
		{name: "clock ahead", change: func(d *access.Device) { d.SeenAt = noon.Add(5 * time.Minute) }},
		{name: "seen in the future", change: func(d *access.Device) { d.SeenAt = noon.Add(5*time.Minute + 1) }, reasons: "device_facts_too_old", want: access.Need{Want: "24h", Got: "in the future"}},
		{name: "policy age", policy: func(p *access.DevicePolicy) { p.MaxAge = access.Duration(30 * time.Minute) }, change: func(*access.Device) {}, reasons: "device_facts_too_old", want: access.Need{Want: "30m", Got: "1h ago"}},
		{name: "profile age", policy: func(p *access.DevicePolicy) { tighten(p, "healthy", 30*time.Minute) }, change: func(*access.Device) {}, reasons: "device_facts_too_old", want: access.Need{Want: "30m", Got: "1h ago"}},
		{name: "age of an included profile", policy: func(p *access.DevicePolicy) { tighten(p, "managed", 30*time.Minute) }, change: func(*access.Device) {}, reasons: "device_facts_too_old", want: access.Need{Want: "30m", Got: "1h ago"}},
		{name: "compliant is not known", change: func(d *access.Device) { d.Compliant = access.Unknown }, reasons: "device_fact_missing", want: access.Need{Want: "compliant", Got: "unknown"}},
		{name: "a value outside the three", change: func(d *access.Device) { d.Compliant = 77 }, reasons: "device_fact_missing", want: access.Need{Want: "compliant", Got: "unknown"}},
		{name: "two things at once", change: func(d *access.Device) { d.Compliant, d.DiskEncrypted = access.No, access.Unknown },
			reasons: "device_not_compliant device_fact_missing", want: access.Need{Want: "compliant", Got: "no"}},
		{name: "another person's", policy: also("owned"), change: func(d *access.Device) { d.Owned = access.No }, reasons: "device_of_another_user", want: access.Need{Want: "owned", Got: "no"}},
		{name: "nobody's, as far as is known", policy: also("owned"), change: func(d *access.Device) { d.Owned = access.Unknown }, reasons: "device_fact_missing", want: access.Need{Want: "owned", Got: "unknown"}},
		{name: "another person's, but nobody asks", change: func(d *access.Device) { d.Owned = access.No }},
		{name: "both proofs", policy: also("certificate", "claim"), change: func(*access.Device) {}},
		{name: "without the certificate", policy: also("certificate", "claim"), change: func(d *access.Device) { d.ByCertificate = access.No }, reasons: "device_certificate_missing", want: access.Need{Want: "certificate", Got: "no"}},
		{name: "without the claim", policy: also("certificate", "claim"), change: func(d *access.Device) { d.ByClaim = access.No }, reasons: "device_claim_missing", want: access.Need{Want: "claim", Got: "no"}},
		{name: "old system", change: func(d *access.Device) { d.OSVersion = "15.4.9" }, reasons: "device_os_too_old", want: access.Need{Want: "15.5", Got: "15.4.9"}},
		{name: "newer system", change: func(d *access.Device) { d.OSVersion = "15.10" }},
		{name: "system not listed", change: func(d *access.Device) { d.OS = "linux" }, reasons: "device_os_too_old", want: access.Need{Want: "macos 15.5", Got: "linux"}},
		{name: "system not known", change: func(d *access.Device) { d.OS = "" }, reasons: "device_fact_missing", want: access.Need{Want: "os", Got: "unknown"}},
		{name: "version not known", change: func(d *access.Device) { d.OSVersion = "" }, reasons: "device_fact_missing", want: access.Need{Want: "os_version", Got: "unknown"}},
		{name: "version in words", change: func(d *access.Device) { d.OSVersion = "Sequoia" }, reasons: "device_fact_missing", want: access.Need{Want: "os_version", Got: "Sequoia"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := billing()
			if tt.policy != nil {
				tt.policy(&in.Devices)
			}
			d := compile(t, in).Decide(with(func(r *access.Request) { tt.change(&r.Device) }))
			if got := reasons(d.Needs); got != tt.reasons {
				t.Fatalf("needs %q, want %q", got, tt.reasons)
			}
			if len(d.Needs) > 0 && tt.want.Want != "" && (d.Needs[0].Want != tt.want.Want || d.Needs[0].Got != tt.want.Got) {
				t.Errorf("want %q, got %q", d.Needs[0].Want, d.Needs[0].Got)
			}
		})
	}
}

// also adds checks to the profile "healthy".
func also(checks ...string) func(*access.DevicePolicy) {
	return func(p *access.DevicePolicy) {
		healthy := p.Profiles["healthy"]
		healthy.All = slices.Concat(healthy.All, checks)
		p.Profiles["healthy"] = healthy
	}
}

func tighten(p *access.DevicePolicy, name string, age time.Duration) {
	profile := p.Profiles[name]
	profile.MaxAge = access.Duration(age)
	p.Profiles[name] = profile
}

func TestNeedTellsWhoSaidSoAndWhereToGo(t *testing.T) {
	req := with(func(r *access.Request) {
		r.Device.Compliant, r.Device.Reasons = access.No, []string{"firewall is off"}
	})
	need := compile(t, billing()).Decide(req).Needs[0]
	if need.Profile != "healthy" || need.Fix != "https://it.example.com/fix" || need.Source != "inventory" ||
		!need.Since.Equal(req.Device.SeenAt) || !slices.Equal(need.Details, []string{"firewall is off"}) {
		t.Errorf("got %+v", need)
	}
}

func TestNearestFixWins(t *testing.T) {
	in := billing()
	in.Devices.Profiles["managed"] = access.Profile{All: []string{"known", "compliant"}, Fix: "https://it.example.com/enrol"}
	d := compile(t, in).Decide(with(func(r *access.Request) { r.Device.Compliant, r.Device.DiskEncrypted = access.No, access.No }))
	if d.Needs[0].Fix != "https://it.example.com/enrol" || d.Needs[1].Fix != "https://it.example.com/fix" {
		t.Errorf("got %+v", d.Needs)
	}
}

func TestProfileNamedLikeACheck(t *testing.T) {
	in := billing()
	in.Devices.Profiles["managed"] = access.Profile{All: []string{"managed", "compliant"}}
	p := compile(t, in)
	for _, change := range []func(*access.Request){
		func(r *access.Request) { r.Device.Managed = access.No },
		func(r *access.Request) { r.Device.Compliant = access.No },
	} {
		if d := p.Decide(with(change)); d.Outcome != access.Challenge {
			t.Errorf("got %+v", d)
		}
	}
}

func TestIncludedMinimaJoin(t *testing.T) {
	in := billing()
	in.Devices.Profiles["strict"] = access.Profile{All: []string{"healthy"}, MinOS: map[string]string{"macos": "15.6", "linux": "6.8"}}
	in.Routes[0].Require.Device = "strict"
	p := compile(t, in)
	for version, want := range map[string]access.Outcome{"15.5.9": access.Challenge, "15.6": access.Allow} {
		if d := p.Decide(with(func(r *access.Request) { r.Device.OSVersion = version })); d.Outcome != want {
			t.Errorf("%s: %+v", version, d)
		}
	}
	if d := p.Decide(with(func(r *access.Request) { r.Device.OS, r.Device.OSVersion = "linux", "6.9" })); d.Reason != access.DeviceOSTooOld {
		t.Errorf("linux is accepted by only one of them: %+v", d)
	}
}

func TestCompareVersions(t *testing.T) {
	tests := []struct {
		a, b  string
		order int
		ok    bool
	}{
		{"10.0.9", "10.0.10", -1, true}, {"10.0.10", "10.0.9", 1, true}, {"15", "15.0.0", 0, true}, {"15.5", "15.5.1", -1, true},
		{"015", "15", 0, true}, {"10.0.22631.3155", "10.0.22631", 1, true}, {"1", "2.x", 0, false}, {"2", "1.x", 0, false},
		{"", "1", 0, false}, {"1.", "1", 0, false}, {".1", "1", 0, false}, {"1..2", "1", 0, false}, {"1.2-rc1", "1", 0, false},
		{"+1", "1", 0, false}, {"-1", "1", 0, false}, {" 1", "1", 0, false}, {"１", "1", 0, false}, {"99999999999", "1", 0, false},
		{"1.1.1.1.1.1.1.1", "1", 1, true}, {"1.1.1.1.1.1.1.1.1", "1", 0, false},
	}
	for _, tt := range tests {
		if order, ok := compareVersions(tt.a, tt.b); order != tt.order || ok != tt.ok {
			t.Errorf("%q and %q: %d %v", tt.a, tt.b, order, ok)
		}
	}
}

func FuzzVersion(f *testing.F) {
	for _, s := range []string{"10.0.9", "15", "", "1.", "１.2", "999999999.999999999", "1e3"} {
		f.Add(s, "10.0.10")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		order, ok := compareVersions(a, b)
		back, okBack := compareVersions(b, a)
		if ok != okBack || order != -back {
			t.Errorf("%q and %q: %d %v, the other way %d %v", a, b, order, ok, back, okBack)
		}
		if ok && strings.Trim(a+b, "0123456789.") != "" {
			t.Errorf("%q and %q were compared", a, b)
		}
	})
}

// TestNothingUnknownSatisfiesAProfile: from any device that passes any profile,
// taking away the facts the profile needs, or their freshness, makes it fail.
func TestNothingUnknownSatisfiesAProfile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := drawDevicePolicy(t)
		faults := access.NewFaults("")
		profiles := compileProfiles(policy, faults)
		if len(faults.List()) > 0 {
			t.Skip("the profiles are not valid")
		}
		p := profiles[rapid.SampledFrom(keys(profiles)).Draw(t, "profile")]
		req := &access.Request{Time: noon, Device: drawDevice(t)}
		if holds := p.holds(&req.Device, noon); holds != (len(p.missing(req, nil)) == 0) {
			t.Fatalf("%s: holds says %v, missing %+v", p.name, holds, p.missing(req, nil))
		} else if !holds {
			return
		}
		dev := &req.Device
		switch {
		case dev.Problem != "", dev.ID == "", dev.SeenAt.IsZero(), dev.Known == access.No,
			dev.Known == access.Unknown && dev.Source == "",
			noon.Sub(dev.SeenAt) > policy.MaxAge.Or(defaultMaxAge),
			!dev.SourceFailingSince.IsZero() && policy.OnUnavailable.UseLastKnown == 0:
			t.Fatalf("%s is satisfied by %+v", p.name, dev)
		}
		damage := map[string]func(*access.Device){
			"id":             func(d *access.Device) { d.ID = "" },
			"seen_at":        func(d *access.Device) { d.SeenAt = time.Time{} },
			"stale":          func(d *access.Device) { d.SeenAt = noon.Add(-31 * 24 * time.Hour) },
			"known":          func(d *access.Device) { d.Known = access.Unknown },
			"managed":        func(d *access.Device) { d.Managed = access.Unknown },
			"compliant":      func(d *access.Device) { d.Compliant = access.Unknown },
			"disk_encrypted": func(d *access.Device) { d.DiskEncrypted = access.Unknown },
			"not_jailbroken": func(d *access.Device) { d.Jailbroken = access.Unknown },
			"low_risk":       func(d *access.Device) { d.Risk = access.RiskUnknown },
			"owned":          func(d *access.Device) { d.Owned = access.Unknown },
			"certificate":    func(d *access.Device) { d.ByCertificate = access.Unknown },
			"claim":          func(d *access.Device) { d.ByClaim = access.Unknown },
			"os_version":     func(d *access.Device) { d.OSVersion = "" },
			"version words":  func(d *access.Device) { d.OSVersion = "Sequoia" },
			"future":         func(d *access.Device) { d.SeenAt = noon.Add(time.Hour) },
			"source gone":    func(d *access.Device) { d.SourceFailingSince = noon.Add(-2 * time.Hour) },
			"impossible": func(d *access.Device) {
				d.Known, d.Managed, d.Compliant, d.DiskEncrypted, d.Jailbroken, d.Risk, d.Owned, d.ByCertificate, d.ByClaim = 7, 7, 7, 7, 7, 77, 7, 7, 7
			},
			"grace unseen":  func(d *access.Device) { d.Compliant, d.NonCompliantSince = access.No, time.Time{} },
			"grace over":    func(d *access.Device) { d.Compliant, d.NonCompliantSince = access.No, noon.Add(-time.Hour) },
			"grace revoked": func(d *access.Device) { d.Compliant, d.NonCompliantSince, d.GraceUntil = access.No, noon, noon },
		}
		needed := []string{"id", "seen_at", "stale", "future", "source gone"}
		for _, c := range p.checks {
			needed = append(needed, c.name, "impossible")
			if c.name == "compliant" {
				needed = append(needed, "grace unseen", "grace over", "grace revoked")
			}
		}
		if p.minOS != nil {
			needed = append(needed, "os_version", "version words")
		}
		for _, fact := range needed {
			worse := *req
			damage[fact](&worse.Device)
			if len(p.missing(&worse, nil)) == 0 {
				t.Fatalf("%s is satisfied without %s: %+v", p.name, fact, worse.Device)
			}
		}
	})
}
