package authz

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	// defaultMaxAge holds where devices.max_age is not set.
	defaultMaxAge = 24 * time.Hour
	// futureSlack is how far the clock of an inventory may be ahead of ours.
	futureSlack = 5 * time.Minute
)

// A check is one fact a device must show.
type check struct {
	name string
	// fact is the device's fact and pass the value it must have.
	fact func(*access.Device) access.Tri
	pass access.Tri
	// reason is given when the fact is known and wrong.
	reason access.Reason
}

// deviceChecks are the names a profile may list, besides other profiles.
var deviceChecks = []check{
	{"known", func(d *access.Device) access.Tri { return d.Known }, access.Yes, access.DeviceUnknown},
	{"managed", func(d *access.Device) access.Tri { return d.Managed }, access.Yes, access.DeviceNotManaged},
	{"compliant", func(d *access.Device) access.Tri { return d.Compliant }, access.Yes, access.DeviceNotCompliant},
	{"disk_encrypted", func(d *access.Device) access.Tri { return d.DiskEncrypted }, access.Yes, access.DeviceNotEncrypted},
	{"not_jailbroken", func(d *access.Device) access.Tri { return d.Jailbroken }, access.No, access.DeviceJailbroken},
	{"low_risk", func(d *access.Device) access.Tri { return d.Risk.Low() }, access.Yes, access.DeviceAtRisk},
	{"owned", func(d *access.Device) access.Tri { return d.Owned }, access.Yes, access.DeviceOfAnotherUser},
	{"certificate", func(d *access.Device) access.Tri { return d.ByCertificate }, access.Yes, access.DeviceCertMissing},
	{"claim", func(d *access.Device) access.Tri { return d.ByClaim }, access.Yes, access.DeviceClaimMissing},
}

// operatingSystems are the names min_os may list.
var operatingSystems = []string{"android", "chromeos", "ios", "linux", "macos", "windows"}

// A profile is a device profile with all it includes.
type profile struct {
	name   string
	checks []profileCheck
	// minOS is the oldest accepted version per system. Nil accepts every system.
	minOS    map[string]string
	minOSFix string
	// maxAge is the strictest age that the profile, what it includes and the
	// policy ask for; never zero.
	maxAge time.Duration
	fix    string
	// useLastKnown is how long facts count after their inventory went away.
	useLastKnown time.Duration
}

// profileCheck is a check with the page that helps to pass it.
type profileCheck struct {
	*check
	fix string
}

// missing appends what the device lacks for the profile, nothing if it passes.
//
// A device that is not there, not known or not freshly known yields exactly one
// need: naming every fact that follows from it would only hide the cure.
func (p *profile) missing(req *access.Request, needs []access.Need) []access.Need {
	dev := &req.Device
	if reason, want, got := p.credible(dev, req.Time); reason != "" {
		return addNeed(needs, p.need(dev, reason, want, got, p.fix))
	}
	for i := range p.checks {
		c := &p.checks[i]
		switch fact := c.fact(dev); {
		case fact == c.pass:
		case fact == access.Yes, fact == access.No:
			needs = addNeed(needs, p.need(dev, c.reason, c.name, fact.String(), c.fix))
		default:
			needs = addNeed(needs, p.need(dev, access.DeviceFactMissing, c.name, "unknown", c.fix))
		}
	}
	if reason, want, got := p.outdated(dev); reason != "" {
		needs = addNeed(needs, p.need(dev, reason, want, got, p.minOSFix))
	}
	return needs
}

// credible asks whether the facts about the device may be believed at all. It
// returns an empty reason if they may.
func (p *profile) credible(dev *access.Device, now time.Time) (reason access.Reason, want, got string) {
	failing := dev.SourceFailingSince
	switch {
	case dev.Problem != "":
		return dev.Problem, "", ""
	case dev.ID == "":
		return access.DeviceMissing, "", ""
	case dev.Known == access.No:
		return access.DeviceUnknown, "known", "no"
	case dev.Known != access.Yes && dev.Source == "" && !failing.IsZero():
		// Nobody can say whether the inventory would know the device.
		return access.DeviceSourceUnavailable, "", ""
	case dev.Known != access.Yes && dev.Source == "":
		return access.DeviceUnknown, "known", "unknown"
	case !failing.IsZero() && !within(failing, now, p.useLastKnown):
		return access.DeviceSourceUnavailable, "", ""
	case dev.SeenAt.IsZero() || !within(dev.SeenAt, now, p.maxAge):
		return access.DeviceFactsTooOld, span(p.maxAge), age(dev.SeenAt, now)
	}
	return "", "", ""
}

// within reports whether t lies at most limit before now, and not in the future
// beyond what clocks differ by. A limit of zero accepts nothing.
func within(t, now time.Time, limit time.Duration) bool {
	return limit > 0 && now.Sub(t) <= limit && t.Sub(now) <= futureSlack
}

// outdated asks whether the operating system is too old.
func (p *profile) outdated(dev *access.Device) (reason access.Reason, want, got string) {
	if p.minOS == nil {
		return "", "", ""
	}
	if dev.OS == "" {
		return access.DeviceFactMissing, "os", "unknown"
	}
	oldest, listed := p.minOS[dev.OS]
	if !listed {
		return access.DeviceOSTooOld, p.systems(), dev.OS
	}
	switch order, ok := compareVersions(dev.OSVersion, oldest); {
	case !ok:
		return access.DeviceFactMissing, "os_version", orUnknown(dev.OSVersion)
	case order < 0:
		return access.DeviceOSTooOld, oldest, dev.OSVersion
	}
	return "", "", ""
}

// systems lists the accepted systems: "ios 17 or macos 15.5".
func (p *profile) systems() string {
	var list []string
	for _, system := range keys(p.minOS) {
		list = append(list, system+" "+p.minOS[system])
	}
	return anyOf(list)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func (p *profile) need(dev *access.Device, reason access.Reason, want, got, fix string) access.Need {
	need := access.Need{
		Reason: reason, Profile: p.name, Want: want, Got: got, Fix: fix,
		Source: dev.Source, Since: dev.SeenAt,
	}
	if reason == access.DeviceNotCompliant || reason == access.DeviceAtRisk {
		need.Details = slices.Clone(dev.Reasons)
	}
	return need
}

// addNeed appends a need unless a profile asked for earlier already says so.
// What makes a device not credible is said once, whatever the profile wanted.
func addNeed(needs []access.Need, more access.Need) []access.Need {
	for i := range needs {
		if have := &needs[i]; have.Reason == more.Reason &&
			(have.Reason != access.DeviceFactMissing || have.Want == more.Want) {
			return needs
		}
	}
	return append(needs, more)
}

// Bounds on versions; real ones have up to four parts of up to five digits.
const (
	maxVersionParts  = 8
	maxVersionDigits = 9
)

// compareVersions compares dotted numbers part by part, as numbers; parts that
// are not written are zero. It fails where one of them is anything else.
func compareVersions(a, b string) (order int, ok bool) {
	for range maxVersionParts {
		var x, y int
		var okA, okB bool
		x, a, okA = versionPart(a)
		y, b, okB = versionPart(b)
		switch {
		case !okA || !okB:
			return 0, false
		case order == 0 && x != y:
			order = 1
			if x < y {
				order = -1
			}
		}
		if a == "" && b == "" {
			return order, true
		}
		// An exhausted version goes on as zero.
		a, b = orZero(a), orZero(b)
	}
	return 0, false
}

func orZero(version string) string {
	if version == "" {
		return "0"
	}
	return version
}

// versionPart splits the first number off a version: "10.0.9" into 10 and "0.9".
func versionPart(version string) (n int, rest string, ok bool) {
	part, rest, more := strings.Cut(version, ".")
	if part == "" || len(part) > maxVersionDigits || more && rest == "" {
		return 0, "", false
	}
	for _, c := range []byte(part) {
		if c < '0' || c > '9' {
			return 0, "", false
		}
		n = n*10 + int(c-'0')
	}
	return n, rest, true
}

// validVersion reports whether a version is dotted numbers.
func validVersion(version string) bool {
	_, ok := compareVersions(version, "0")
	return ok
}

// compileProfiles flattens all profiles. A profile with a fault is in the result
// too, so that a route that names it is not reported as well.
func compileProfiles(policy access.DevicePolicy, f access.Faults) map[string]*profile {
	c := profileCompiler{policy: policy, faults: f.At("profiles"), done: map[string]*profile{}}
	if policy.MaxAge < 0 {
		f.At("max_age").Add("write 24h", "a negative duration")
	}
	if policy.OnUnavailable.UseLastKnown < 0 {
		f.At("on_unavailable.use_last_known").Add("write 1h", "a negative duration")
	}
	for _, name := range keys(policy.Profiles) {
		c.compile(name)
	}
	return c.done
}

// freshness is the profile that asks for nothing but facts that still count.
func freshness(policy access.DevicePolicy) *profile {
	return &profile{maxAge: policy.MaxAge.Or(defaultMaxAge), useLastKnown: policy.OnUnavailable.UseLastKnown.Std()}
}

type profileCompiler struct {
	policy access.DevicePolicy
	faults access.Faults
	done   map[string]*profile
	// path is the chain of profiles being compiled, to notice cycles.
	path []string
}

func (c *profileCompiler) compile(name string) *profile {
	if p := c.done[name]; p != nil {
		return p
	}
	source, f := c.policy.Profiles[name], c.faults.At("%s", name)
	policyAge := c.policy.MaxAge.Or(defaultMaxAge)
	p := &profile{
		name: name, fix: source.Fix, minOSFix: source.Fix,
		maxAge:       source.MaxAge.Or(policyAge),
		useLastKnown: c.policy.OnUnavailable.UseLastKnown.Std(),
	}
	checkName(f, "profile", name)
	if p.maxAge < 0 {
		f.At("max_age").Add("write 24h", "a negative duration")
	}
	if p.maxAge > policyAge {
		f.At("max_age").Add("raise devices.max_age and tighten the other profiles",
			"%s is longer than devices.max_age, %s; a profile may only tighten it", span(p.maxAge), span(policyAge))
	}
	if source.Fix != "" && !webPage(source.Fix) {
		f.At("fix").Add("write https://…", "%q is no web address", source.Fix)
	}
	if len(source.All) == 0 && len(source.MinOS) == 0 {
		f.Add("list checks under all", "the profile asks for nothing")
	}

	c.path = append(c.path, name)
	c.minOS(p, source, f.At("min_os"))
	for i, item := range source.All {
		c.include(p, item, f.At("all[%d]", i))
	}
	c.path = c.path[:len(c.path)-1]

	for i := range p.checks {
		if p.checks[i].fix == "" {
			p.checks[i].fix = p.fix
		}
	}
	if p.minOSFix == "" {
		p.minOSFix = p.fix
	}
	c.done[name] = p
	return p
}

func checkNames() []string {
	names := make([]string, len(deviceChecks))
	for i := range deviceChecks {
		names[i] = deviceChecks[i].name
	}
	return names
}

// include adds one entry of `all`: a check, or all that another profile asks for.
// A profile may be named like a check and then stands for it everywhere, except
// in itself: `managed: {all: [managed, compliant]}` makes "managed" stricter.
func (c *profileCompiler) include(p *profile, item string, f access.Faults) {
	_, isProfile := c.policy.Profiles[item]
	if i := slices.Index(checkNames(), item); i >= 0 && (!isProfile || item == p.name) {
		p.add(profileCheck{&deviceChecks[i], p.fix})
		return
	}
	if !isProfile {
		f.Add(didYouMean(item, slices.Concat(checkNames(), keys(c.policy.Profiles))), "%q is neither a check nor a profile", item)
		return
	}
	if i := slices.Index(c.path, item); i >= 0 {
		f.Add("remove one of them", "the profiles include each other: %s", strings.Join(append(slices.Clone(c.path[i:]), item), " → "))
		return
	}
	other := c.compile(item)
	for _, check := range other.checks {
		p.add(check)
	}
	p.maxAge = min(p.maxAge, other.maxAge)
	if other.minOS == nil {
		return
	}
	if p.minOS == nil {
		p.minOS, p.minOSFix = other.minOS, other.minOSFix
		return
	}
	if p.minOS = stricterOS(p.minOS, other.minOS); len(p.minOS) == 0 {
		f.Add("list the same systems in both", "no operating system is accepted by this profile and by %q", item)
	}
}

func (p *profile) add(c profileCheck) {
	if !slices.ContainsFunc(p.checks, func(have profileCheck) bool { return have.check == c.check }) {
		p.checks = append(p.checks, c)
	}
}

func (c *profileCompiler) minOS(p *profile, source access.Profile, f access.Faults) {
	if len(source.MinOS) > 0 {
		p.minOS = map[string]string{}
	}
	for _, system := range keys(source.MinOS) {
		if !slices.Contains(operatingSystems, system) {
			f.At("%s", system).Add(didYouMean(system, operatingSystems), "unknown operating system %q", system)
		}
		version := source.MinOS[system]
		if !validVersion(version) {
			f.At("%s", system).Add(`write dotted numbers, such as "15.5"`, "%s is no version", strconv.Quote(version))
		}
		p.minOS[system] = version
	}
}

// stricterOS keeps the systems both accept, each with the newer version.
func stricterOS(a, b map[string]string) map[string]string {
	both := map[string]string{}
	for system, version := range a {
		other, ok := b[system]
		if !ok {
			continue
		}
		if order, ok := compareVersions(version, other); ok && order < 0 {
			version = other
		}
		both[system] = version
	}
	return both
}
