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

// A profile is a device profile, or what a trust tier asks for, with all it
// includes.
type profile struct {
	name   string
	checks []profileCheck
	// minOS is the oldest accepted version per system. Nil accepts every system.
	minOS    map[string]string
	minOSFix string
	// maxAge is the strictest age that the profile, what it includes and the
	// policy ask for; never zero.
	maxAge time.Duration
	// sources are the inventories that count. Nil: all.
	sources []string
	fix     string
	// useLastKnown is how long facts count after their inventory went away.
	useLastKnown time.Duration
}

// profileCheck is a check with the page that helps to pass it.
type profileCheck struct {
	*check
	fix string
	// grace is how long a failure of it is tolerated.
	grace time.Duration
}

// result is the answer to a check: Yes passes, also where a failure is tolerated.
func (c *profileCheck) result(dev *access.Device, now time.Time) access.Tri {
	switch fact := c.fact(dev); {
	case fact == c.pass:
		return access.Yes
	case fact != access.Yes && fact != access.No:
		return access.Unknown
	case c.grace > 0 && now.Before(c.graceEnds(dev)) && within(dev.NonCompliantSince, now, c.grace):
		return access.Yes
	}
	return access.No
}

// graceEnds is when a failure stops being tolerated, the zero time if it never
// was. A failure that nobody saw begin is not, nor is any on a device at high risk.
func (c *profileCheck) graceEnds(dev *access.Device) time.Time {
	if c.grace == 0 || dev.NonCompliantSince.IsZero() || c.fact(dev) == c.pass || dev.Risk == access.RiskHigh {
		return time.Time{}
	}
	ends := dev.NonCompliantSince.Add(c.grace)
	if until := dev.GraceUntil; !until.IsZero() && until.Before(ends) {
		ends = until
	}
	return ends
}

// holds reports whether the device passes. It allocates nothing, and says what
// missing says.
func (p *profile) holds(dev *access.Device, now time.Time) bool {
	if p.credible(dev, now) != "" {
		return false
	}
	for i := range p.checks {
		if p.checks[i].result(dev, now) != access.Yes {
			return false
		}
	}
	return p.outdated(dev) == "" && p.accepts(dev.Source)
}

// accepts reports whether the word of an inventory counts.
func (p *profile) accepts(source string) bool {
	return p.sources == nil || slices.Contains(p.sources, source)
}

// missing appends what the device lacks for the profile, nothing if it passes.
//
// A device that is not there, not known or not freshly known yields exactly one
// need: naming every fact that follows from it would only hide the cure.
func (p *profile) missing(req *access.Request, needs []access.Need) []access.Need {
	dev := &req.Device
	if reason := p.credible(dev, req.Time); reason != "" {
		want, got := p.doubt(reason, dev, req.Time)
		return addNeed(needs, p.need(dev, reason, want, got, p.fix))
	}
	for i := range p.checks {
		c := &p.checks[i]
		switch c.result(dev, req.Time) {
		case access.Yes:
		case access.No:
			needs = addNeed(needs, p.need(dev, c.reason, c.name, c.fact(dev).String(), c.fix))
		default:
			needs = addNeed(needs, p.need(dev, access.DeviceFactMissing, c.name, "unknown", c.fix))
		}
	}
	if reason := p.outdated(dev); reason != "" {
		want, got := p.versions(dev)
		needs = addNeed(needs, p.need(dev, reason, want, got, p.minOSFix))
	}
	if !p.accepts(dev.Source) {
		needs = addNeed(needs, p.need(dev, access.DeviceSourceNotAccepted, anyOf(p.sources), orUnknown(dev.Source), p.fix))
	}
	return needs
}

// credible asks whether the facts about the device may be believed at all. It
// returns an empty reason if they may.
func (p *profile) credible(dev *access.Device, now time.Time) access.Reason {
	failing := dev.SourceFailingSince
	switch {
	case dev.Problem != "":
		return dev.Problem
	case dev.ID == "":
		return access.DeviceMissing
	case dev.Known == access.No:
		return access.DeviceUnknown
	case dev.Known != access.Yes && dev.Source == "" && !failing.IsZero():
		// Nobody can say whether the inventory would know the device.
		return access.DeviceSourceUnavailable
	case dev.Known != access.Yes && dev.Source == "":
		return access.DeviceUnknown
	case !failing.IsZero() && !within(failing, now, p.useLastKnown):
		return access.DeviceSourceUnavailable
	case dev.SeenAt.IsZero() || !within(dev.SeenAt, now, p.maxAge):
		return access.DeviceFactsTooOld
	}
	return ""
}

// doubt puts a reason of credible into values.
func (p *profile) doubt(reason access.Reason, dev *access.Device, now time.Time) (want, got string) {
	switch reason {
	case access.DeviceUnknown:
		return "known", dev.Known.String()
	case access.DeviceFactsTooOld:
		return span(p.maxAge), age(dev.SeenAt, now)
	}
	return "", ""
}

// within reports whether t lies at most limit before now, and not in the future
// beyond what clocks differ by. A limit of zero accepts nothing.
func within(t, now time.Time, limit time.Duration) bool {
	return limit > 0 && now.Sub(t) <= limit && t.Sub(now) <= futureSlack
}

// outdated asks whether the operating system is too old. It returns an empty
// reason if it is not.
func (p *profile) outdated(dev *access.Device) access.Reason {
	if p.minOS == nil {
		return ""
	}
	if dev.OS == "" {
		return access.DeviceFactMissing
	}
	oldest, listed := p.minOS[dev.OS]
	if !listed {
		return access.DeviceOSTooOld
	}
	switch order, ok := compareVersions(dev.OSVersion, oldest); {
	case !ok:
		return access.DeviceFactMissing
	case order < 0:
		return access.DeviceOSTooOld
	}
	return ""
}

// versions puts a reason of outdated into values.
func (p *profile) versions(dev *access.Device) (want, got string) {
	oldest, listed := p.minOS[dev.OS]
	switch {
	case dev.OS == "":
		return "os", "unknown"
	case !listed:
		return p.systems(), dev.OS
	case p.outdated(dev) == access.DeviceFactMissing:
		return "os_version", orUnknown(dev.OSVersion)
	}
	return oldest, dev.OSVersion
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
		Source: dev.Source, Since: dev.SeenAt, Read: dev.ObservedAt,
	}
	switch reason {
	case access.DeviceNotCompliant:
		need.Began = dev.NonCompliantSince
	case access.DeviceSourceUnavailable:
		need.Began = dev.SourceFailingSince
		if dev.SourceFailing != "" && dev.SourceFailing != dev.Source {
			need.Source, need.Since, need.Read = dev.SourceFailing, time.Time{}, time.Time{} // the others are of the one that answers
		}
	case access.DeviceFactsTooOld:
		if !dev.SeenAt.IsZero() {
			need.Began = dev.SeenAt.Add(p.maxAge)
		}
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

// compileProfiles flattens all profiles, and tiers, which are profiles that
// include the tier below. One with a fault is in the result too, so that a route
// that names it is not reported as well.
func compileProfiles(policy access.DevicePolicy, f access.Faults) map[string]*profile {
	c := profileCompiler{policy: policy, sources: map[string]profileSource{}, done: map[string]*profile{}}
	if policy.MaxAge < 0 {
		f.At("max_age").Add("write 24h", "a negative duration")
	}
	if policy.OnUnavailable.UseLastKnown < 0 {
		f.At("on_unavailable.use_last_known").Add("write 1h", "a negative duration")
	}
	for _, name := range keys(policy.Profiles) {
		c.sources[name] = profileSource{policy.Profiles[name], "profile", "", f.At("profiles").At("%s", name)}
	}
	c.addTiers(f.At("tiers"))
	for _, name := range keys(c.sources) {
		c.compile(name)
	}
	return c.done
}

// freshness is the profile that asks for nothing but facts that still count.
func freshness(policy access.DevicePolicy) *profile {
	return &profile{maxAge: policy.MaxAge.Or(defaultMaxAge), useLastKnown: policy.OnUnavailable.UseLastKnown.Std()}
}

type profileCompiler struct {
	policy  access.DevicePolicy
	sources map[string]profileSource
	done    map[string]*profile
	// path is the chain of profiles being compiled, to notice cycles.
	path []string
}

// profileSource is a profile or a tier as the configuration writes it.
type profileSource struct {
	access.Profile
	kind   string // "profile" or "tier"
	below  string // the tier it includes
	faults access.Faults
}

func (c *profileCompiler) compile(name string) *profile {
	if p := c.done[name]; p != nil {
		return p
	}
	source := c.sources[name]
	f := source.faults
	policyAge := c.policy.MaxAge.Or(defaultMaxAge)
	p := &profile{
		name: name, fix: source.Fix, minOSFix: source.Fix,
		maxAge:       source.MaxAge.Or(policyAge),
		sources:      slices.Clone(source.Sources),
		useLastKnown: c.policy.OnUnavailable.UseLastKnown.Std(),
	}
	checkName(f, source.kind, name)
	if p.maxAge < 0 {
		f.At("max_age").Add("write 24h", "a negative duration")
	}
	if source.Grace < 0 {
		f.At("grace").Add("write 4h", "a negative duration")
	}
	if p.maxAge > policyAge {
		f.At("max_age").Add("raise devices.max_age and tighten the other profiles",
			"%s is longer than devices.max_age, %s; a %s may only tighten it", span(p.maxAge), span(policyAge), source.kind)
	}
	if source.Fix != "" && !webPage(source.Fix) {
		f.At("fix").Add("write https://…", "%q is no web address", source.Fix)
	}
	onlyFresher := source.below != "" && (source.MaxAge > 0 || len(source.Sources) > 0)
	if len(source.All) == 0 && len(source.MinOS) == 0 && !onlyFresher {
		f.Add("list checks under all", "the %s asks for nothing", source.kind)
	}

	c.path = append(c.path, name)
	c.minOS(p, source, f.At("min_os"))
	for i, item := range source.All {
		c.include(p, item, f.At("all[%d]", i))
	}
	if source.below != "" {
		c.includeProfile(p, source.below, f.At("all"))
	}
	c.path = c.path[:len(c.path)-1]
	c.checkGrace(p, source, f.At("grace"))

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

// checkGrace reports a grace that would tolerate nothing.
func (c *profileCompiler) checkGrace(p *profile, source profileSource, f access.Faults) {
	if source.Grace <= 0 {
		return
	}
	i := slices.IndexFunc(p.checks, func(have profileCheck) bool { return have.reason == access.DeviceNotCompliant })
	switch {
	case i < 0 || !slices.Contains(source.All, p.checks[i].name):
		f.Add("add compliant to all", "grace is for the check compliant, which this %s does not list", source.kind)
	case p.checks[i].grace < source.Grace.Std():
		f.Add("allow as much in what it includes", "%s does not hold, since something it includes asks for compliant with less", span(source.Grace.Std()))
	}
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
	_, isProfile := c.sources[item]
	if i := slices.Index(checkNames(), item); i >= 0 && (!isProfile || item == p.name) {
		one := profileCheck{check: &deviceChecks[i], fix: p.fix}
		if one.reason == access.DeviceNotCompliant {
			one.grace = c.sources[p.name].Grace.Std()
		}
		p.add(one)
		return
	}
	if !isProfile {
		f.Add(didYouMean(item, slices.Concat(checkNames(), keys(c.sources))), "%q is neither a check nor a profile", item)
		return
	}
	c.includeProfile(p, item, f)
}

func (c *profileCompiler) includeProfile(p *profile, item string, f access.Faults) {
	if i := slices.Index(c.path, item); i >= 0 {
		f.Add("remove one of them", "the profiles include each other: %s", strings.Join(append(slices.Clone(c.path[i:]), item), " → "))
		return
	}
	other := c.compile(item)
	for _, check := range other.checks {
		p.add(check)
	}
	p.maxAge = min(p.maxAge, other.maxAge)
	if p.sources == nil {
		p.sources = other.sources
	} else if other.sources != nil {
		p.sources = slices.DeleteFunc(p.sources, func(id string) bool { return !slices.Contains(other.sources, id) })
		if len(p.sources) == 0 {
			f.Add("list an inventory that both name", "no inventory counts for both this and %q", item)
		}
	}
	if other.minOS == nil {
		return
	}
	if p.minOS == nil {
		p.minOS, p.minOSFix = other.minOS, other.minOSFix
		return
	}
	if p.minOS = stricterOS(p.minOS, other.minOS); len(p.minOS) == 0 {
		f.Add("list the same systems in both", "no operating system is accepted by both this and %q", item)
	}
}

// add adds a check once, with the least grace anyone asks for.
func (p *profile) add(c profileCheck) {
	i := slices.IndexFunc(p.checks, func(have profileCheck) bool { return have.check == c.check })
	if i < 0 {
		p.checks = append(p.checks, c)
		return
	}
	p.checks[i].grace = min(p.checks[i].grace, c.grace)
}

func (c *profileCompiler) minOS(p *profile, source profileSource, f access.Faults) {
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
