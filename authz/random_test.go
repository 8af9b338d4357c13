package authz

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

// Random policies and requests over a small world, so that they often meet.
var (
	worldGlobs    = []string{"/**", "/a", "/a/**", "/*/b", "/**/c", "/a*"}
	worldPaths    = []string{"/", "/a", "/a/b", "/x/b", "/a/x/c", "/ab", "/a", "/a/b", "/", "/x/b", "/a;v=1/b", "/x//b", `/a\b`, "/%61/b", ""}
	worldMethods  = []string{"GET", "POST", "DELETE"}
	worldTimes    = []access.TimeWindow{{Days: "mon-fri"}, {Hours: "08:00-18:00", Zone: "Europe/Berlin"}, {Days: "sat,sun", Hours: "22:00-06:00"}, {Hours: "12:00-24:00"}, {Hours: "00:00-12:00"}}
	worldNetworks = []string{"10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"}
	worldUsers    = []string{"corp:u1", "corp:u2", "partners:u1"}
	worldGroups   = []string{"g1", "g2", "g3"}
)

func drawSome(t *rapid.T, label string, from []string, chance int) []string {
	if rapid.IntRange(1, chance).Draw(t, label+"?") > 1 {
		return nil
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 1, 2, rapid.ID).Draw(t, label)
}

func drawRule(t *rapid.T, name string, allow bool) access.Rule {
	r := access.Rule{Name: name}
	if rapid.IntRange(0, 3).Draw(t, "mode") == 3 {
		r.Mode = access.Report
	}
	r.Groups = drawSome(t, "groups", worldGroups, 2)
	r.Users = drawSome(t, "users", worldUsers, 4)
	r.Providers = drawSome(t, "providers", []string{"corp", "partners"}, 4)
	if rapid.IntRange(0, 3).Draw(t, "claims") == 3 {
		r.Claims = map[string][]string{rapid.SampledFrom([]string{"level", "roles", "flag"}).Draw(t, "claim"): {"2", "dev", "true"}}
	}
	drawMachines(t, &r)
	if allow {
		r.AnyUser = len(r.Groups)+len(r.Users)+len(r.Providers)+len(r.Claims) == 0 && !namesMachines(&r)
	}
	r.Methods = drawSome(t, "methods", worldMethods, 3)
	r.Paths = drawSome(t, "paths", worldGlobs, 2)
	r.Networks = drawSome(t, "networks", worldNetworks, 4)
	if rapid.IntRange(0, 4).Draw(t, "time") == 4 {
		r.Time = rapid.SampledFrom(worldTimes).Draw(t, "window")
	}
	if rapid.IntRange(0, 4).Draw(t, "cel") == 4 {
		r.When = rapid.SampledFrom(keys(expressions)).Draw(t, "when")
	}
	if rapid.IntRange(0, 6).Draw(t, "cel") == 6 {
		r.Unless = rapid.SampledFrom(keys(expressions)).Draw(t, "unless")
	}
	if !allow && len(r.Groups)+len(r.Users)+len(r.Providers)+len(r.Claims)+len(r.Methods)+len(r.Paths)+len(r.Networks)+len(r.When)+len(r.Unless) == 0 && r.Time.IsZero() && !namesMachines(&r) {
		r.Methods = []string{"DELETE"}
	}
	return r
}

func drawLoginRequire(t *rapid.T) (l access.LoginRequire) {
	if rapid.IntRange(0, 2).Draw(t, "acr") == 0 {
		l.ACR = []string{"phr"}
	}
	l.PhishingResistant = rapid.IntRange(0, 9).Draw(t, "phishing resistant") == 9
	l.AMR = drawSome(t, "amr", []string{"mfa", "hwk"}, 3)
	l.MaxAge = access.Duration(rapid.SampledFrom([]time.Duration{0, 0, 5 * time.Minute, time.Hour}).Draw(t, "max_age"))
	return l
}

func drawRequire(t *rapid.T) access.Require {
	return access.Require{Device: rapid.SampledFrom([]string{"", "", "p1", "p2", "p3", "t1", "t2"}).Draw(t, "device"), Login: drawLoginRequire(t)}
}

func drawProfile(t *rapid.T, others ...string) (p access.Profile) {
	p.All = rapid.SliceOfNDistinct(rapid.SampledFrom(append(checkNames(), others...)), 1, 3, rapid.ID).Draw(t, "all")
	if rapid.Bool().Draw(t, "min_os") {
		p.MinOS = map[string]string{"macos": rapid.SampledFrom([]string{"14", "15"}).Draw(t, "macos")}
	}
	p.MaxAge = access.Duration(rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "profile age"))
	if rapid.IntRange(0, 4).Draw(t, "sources") == 0 {
		p.Sources = []string{"inv", "other"}
	}
	if len(others) == 0 && slices.Contains(p.All, "compliant") {
		p.Grace = access.Duration(rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "grace"))
	}
	return p
}

// drawTiers draws a ladder of two, or none.
func drawTiers(t *rapid.T) []access.Tier {
	if rapid.IntRange(0, 3).Draw(t, "tiers") == 0 {
		return []access.Tier{{Name: "t1", Profile: access.Profile{All: []string{"known"}}}, {Name: "t2", Profile: access.Profile{All: []string{"managed"}}}}
	}
	sessions := rapid.SampledFrom([][2]time.Duration{{0, 0}, {5 * time.Minute, 0}, {5 * time.Minute, time.Hour}}).Draw(t, "tier sessions")
	return []access.Tier{
		{Name: "t1", Profile: drawProfile(t), Session: access.Duration(sessions[0])},
		{Name: "t2", Profile: drawProfile(t, "p2"), Session: access.Duration(sessions[1])},
	}
}

func drawDevicePolicy(t *rapid.T) access.DevicePolicy {
	return access.DevicePolicy{
		Profiles:      map[string]access.Profile{"p1": drawProfile(t), "p2": drawProfile(t, "p1"), "p3": drawProfile(t, "p1", "p2")},
		Tiers:         drawTiers(t),
		MaxAge:        access.Duration(rapid.SampledFrom([]time.Duration{0, 2 * time.Hour}).Draw(t, "devices age")),
		OnUnavailable: access.OnUnavailable{UseLastKnown: access.Duration(rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "last known"))},
	}
}

func drawInput(t *rapid.T) Input {
	in := Input{
		Providers: []string{"corp", "partners"}, Devices: drawDevicePolicy(t), Defaults: access.Defaults{Require: drawRequire(t)},
		Groups: map[string]access.Group{
			"g1": {Provider: "corp", ClaimGroups: []string{"eng", "ops"}},
			"g2": {Provider: "partners", ClaimGroups: []string{"eng"}},
			"g3": {Users: []string{"corp:u2"}},
		},
	}
	for i := range 2 {
		rt := access.Route{ID: fmt.Sprint("r", i), Require: drawRequire(t)}
		for j := range rapid.IntRange(1, 3).Draw(t, "allows") {
			rt.Allow = append(rt.Allow, drawRule(t, fmt.Sprint("allow", j), true))
		}
		rt.Allow[0].Mode = access.Enforce
		for j := range rapid.IntRange(0, 2).Draw(t, "denies") {
			rt.Deny = append(rt.Deny, drawRule(t, fmt.Sprint("deny", j), false))
		}
		if rapid.IntRange(0, 3).Draw(t, "public") == 0 {
			rt.Public = []access.Public{{Name: "public", Methods: []string{"GET"}, Paths: []string{rapid.SampledFrom(worldGlobs[1:]).Draw(t, "open")}, Networks: drawSome(t, "from", worldNetworks, 3)}}
		}
		if stricter := (access.Stricter{Paths: drawSome(t, "stricter", worldGlobs, 2), Require: drawRequire(t)}); stricter.Require.Device != "" || !stricter.Require.Login.IsZero() {
			rt.Rules = []access.Stricter{stricter}
		}
		if rapid.IntRange(0, 3).Draw(t, "exception") == 0 && in.Defaults.Require.Device != "" {
			rt.Exceptions.Device = "ticket 42"
		}
		if rapid.IntRange(0, 3).Draw(t, "exception of login") == 3 && !in.Defaults.Require.Login.IsZero() {
			rt.Exceptions.Login = "ticket 43"
		}
		rt.Preflight = rapid.IntRange(0, 3).Draw(t, "preflight") == 3
		in.Routes = append(in.Routes, rt)
	}
	return in
}

func drawTri(t *rapid.T, label string) access.Tri {
	return rapid.SampledFrom([]access.Tri{access.Yes, access.Yes, access.Yes, access.Yes, access.No, access.Unknown}).Draw(t, label)
}

func drawTime(t *rapid.T, label string) time.Time {
	ago := rapid.SampledFrom([]time.Duration{time.Minute, time.Minute, 5 * time.Minute, time.Hour, time.Hour + 1, 25 * time.Hour, -time.Minute, -time.Hour, 0}).Draw(t, label)
	if ago == 0 {
		return time.Time{}
	}
	return noon.Add(-ago)
}

func drawDevice(t *rapid.T) access.Device {
	if rapid.IntRange(0, 5).Draw(t, "device") == 0 {
		return access.Device{}
	}
	d := access.Device{
		ID: rapid.SampledFrom([]string{"d", "d", "d", ""}).Draw(t, "id"), Source: rapid.SampledFrom([]string{"inv", "inv", ""}).Draw(t, "source"),
		Known: drawTri(t, "known"), Managed: drawTri(t, "managed"), Compliant: drawTri(t, "compliant"), DiskEncrypted: drawTri(t, "disk"),
		Jailbroken: rapid.SampledFrom([]access.Tri{access.No, access.No, access.Yes, access.Unknown}).Draw(t, "jailbroken"),
		Owned:      drawTri(t, "owned"), ByCertificate: drawTri(t, "by certificate"), ByClaim: drawTri(t, "by claim"),
		Risk:      rapid.SampledFrom([]access.Risk{access.RiskNone, access.RiskLow, access.RiskLow, access.RiskMedium, access.RiskHigh, access.RiskUnknown}).Draw(t, "risk"),
		OS:        rapid.SampledFrom([]string{"macos", "macos", "linux", ""}).Draw(t, "os"),
		OSVersion: rapid.SampledFrom([]string{"16", "15", "13", ""}).Draw(t, "version"),
		SeenAt:    drawTime(t, "seen"),
	}
	if d.Compliant == access.No && rapid.Bool().Draw(t, "newly") {
		d.NonCompliantSince = drawTime(t, "non-compliant since")
		if rapid.IntRange(0, 3).Draw(t, "grace of the inventory") == 0 {
			d.GraceUntil = drawTime(t, "grace until")
		}
	}
	if rapid.IntRange(0, 4).Draw(t, "failing") == 0 {
		d.SourceFailingSince = drawTime(t, "failing since")
		if d.SourceFailingSince.After(noon) {
			d.SourceFailingSince = noon
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "problem") == 0 {
		d.Problem = access.DeviceMismatch
	}
	return d
}

// lifelike tells requests that can come in from those that only a record with
// holes in it holds. A route has to permit paths that servers read differently,
// and none of the random ones does.
func lifelike(req *access.Request) bool {
	return req.Network.IP.IsValid() && req.Method != "" && !req.Time.IsZero() && req.Path != "" && !ambiguous(req.Path)
}

func drawRequest(t *rapid.T) *access.Request {
	req := &access.Request{
		Time: noon, Scheme: "https", Host: "app.example.com", Route: rapid.SampledFrom([]string{"r0", "r0", "r1", "r1", "r1", "r1", "none"}).Draw(t, "route"),
		Method: rapid.SampledFrom([]string{"GET", "GET", "GET", "POST", "GET", "DELETE", "OPTIONS", ""}).Draw(t, "method"), Path: rapid.SampledFrom(worldPaths).Draw(t, "path"), Device: drawDevice(t),
	}
	if ip := rapid.SampledFrom([]string{"10.1.2.3", "10.1.2.3", "10.9.9.9", "192.0.2.1", "2001:db8::1", "::ffff:10.1.2.3", "fe80::1%eth0", ""}).Draw(t, "ip"); ip != "" {
		req.Network.IP = netip.MustParseAddr(ip)
	}
	if rapid.IntRange(0, 19).Draw(t, "no time") == 19 {
		req.Time = time.Time{}
	}
	req.Preflight = req.Method == "OPTIONS" && rapid.Bool().Draw(t, "preflight?")
	req.Query = rapid.SampledFrom([]string{"", "x=1", "x=2&x=1", "x=%zz", "x=1&token=" + access.HiddenValue}).Draw(t, "query")
	if rapid.IntRange(0, 19).Draw(t, "fault") == 19 {
		req.Fault = access.StoreUnavailable
	}
	if rapid.IntRange(0, 19).Draw(t, "credential") == 19 {
		req.Credential.Problem = access.TokenExpired
	}
	if rapid.IntRange(0, 9).Draw(t, "nobody") == 9 {
		return req
	}
	drawWorkload(t, &req.Identity)
	id := &req.Identity
	id.Provider, id.Issuer = rapid.SampledFrom([]string{"corp", "corp", "corp", "partners", "partners", "gone"}).Draw(t, "provider"), "https://issuer.example.com"
	id.Subject = rapid.SampledFrom([]string{"u1", "u2", "u3"}).Draw(t, "sub")
	id.Email = rapid.SampledFrom([]string{"a@example.com", ""}).Draw(t, "email")
	id.Groups = rapid.SliceOfDistinct(rapid.SampledFrom([]string{"eng", "ops", "all"}), rapid.ID).Draw(t, "claimed")
	id.GroupsIncomplete = rapid.IntRange(0, 3).Draw(t, "incomplete") == 0
	id.Claims = map[string]any{}
	values := map[string][]any{"level": {1.0, 2.0, 1e300, "2"}, "roles": {[]any{"dev", "x"}, []any{}, []any{[]any{"dev"}}, map[string]any{"dev": true}}, "flag": {true, false, nil}}
	for _, name := range keys(values) {
		if rapid.Bool().Draw(t, name+"?") {
			id.Claims[name] = rapid.SampledFrom(values[name]).Draw(t, name)
		}
	}
	id.Login = access.Login{Time: drawTime(t, "auth_time"), ACR: rapid.SampledFrom([]string{"phr", "phrh", "phr", "", "0"}).Draw(t, "login acr")}
	id.Login.Levels = slices.Clone(rapid.SampledFrom([][]string{nil, nil, nil, nil, access.LevelsUpTo("mfa"), access.LevelsUpTo("phr")}).Draw(t, "login levels"))
	id.Login.AMR = slices.Clone(rapid.SampledFrom([][]string{nil, {"pwd"}, {"mfa", "pwd"}, {"hwk", "mfa"}}).Draw(t, "login amr"))
	if rapid.Bool().Draw(t, "well equipped") {
		req.Device = access.Device{ID: "d", Source: "inv", Known: access.Yes, Managed: access.Yes, Compliant: access.Yes, DiskEncrypted: access.Yes,
			Jailbroken: access.No, Risk: access.RiskNone, Owned: access.Yes, ByCertificate: access.Yes, ByClaim: access.Yes, OS: "macos", OSVersion: "16", SeenAt: noon}
		id.Groups = []string{"eng", "ops"}
		id.Login = access.Login{Time: noon, ACR: "phr", AMR: []string{"hwk", "mfa"}}
	}
	id.Normalize()
	return req
}
