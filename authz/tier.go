package authz

import (
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// tier is a trust tier: what it asks for, flattened, and how long a login lasts.
type tier struct {
	*profile
	// session is how old a login may be. Zero: as old as any.
	session time.Duration
}

// ladder is all trust tiers, lowest first. Each includes the one before it, so
// that a device that passes one passes all below.
type ladder []tier

// of returns the place of the highest tier the device is in at that moment, -1
// for none. It depends on the recorded facts and the time alone.
func (l ladder) of(dev *access.Device, now time.Time) int {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].holds(dev, now) {
			return i
		}
	}
	return -1
}

// nameOf is the name of that tier, empty for none.
func (l ladder) nameOf(dev *access.Device, now time.Time) string {
	if i := l.of(dev, now); i >= 0 {
		return l[i].name
	}
	return ""
}

// session returns the tier whose session holds for a request, nil if no tier
// limits it. Machines have no session, and a device in no tier has that of the
// lowest.
func (l ladder) session(req *access.Request) *tier {
	if len(l) == 0 || l[0].session == 0 || req.Identity.Kind != access.Person {
		return nil
	}
	if t := &l[max(0, l.of(&req.Device, req.Time))]; t.session > 0 {
		return t
	}
	return nil
}

// addTiers makes profiles of the tiers.
func (c *profileCompiler) addTiers(f access.Faults) {
	below := ""
	for i, t := range c.policy.Tiers {
		at := f.At("[%d]", i)
		switch taken := c.sources[t.Name]; {
		case t.Name == "":
			checkName(at.At("name"), "tier", "")
			continue
		case taken.kind != "":
			at.At("name").Add("choose another name", "%q is already the name of a %s", t.Name, taken.kind)
			continue
		}
		c.sources[t.Name] = profileSource{t.Profile, "tier", below, at}
		below = t.Name
	}
}

// compileTiers puts the compiled tiers in their order, and checks their sessions.
func compileTiers(policy access.DevicePolicy, profiles map[string]*profile, f access.Faults) ladder {
	var l ladder
	for i, t := range policy.Tiers {
		at := f.At("[%d].session", i)
		switch {
		case t.Session < 0:
			at.Add("write 1h", "a negative duration")
		case i > 0 && t.Session > 0 && policy.Tiers[i-1].Session == 0:
			f.At("[%d].session", i-1).Add("give it a session of at most "+span(t.Session.Std()), "a session would be longer than in the tier above, which has %s", span(t.Session.Std()))
		case i > 0 && t.Session > 0 && t.Session < policy.Tiers[i-1].Session:
			at.Add("shorten that of the tier below", "%s is shorter than %s in the tier below", span(t.Session.Std()), span(policy.Tiers[i-1].Session.Std()))
		}
		if p := profiles[t.Name]; p != nil {
			l = append(l, tier{profile: p, session: t.Session.Std()})
		}
	}
	return l
}

// DeviceNames returns the names of all tiers, highest first, and of all profiles.
func (p *Policy) DeviceNames() (names []string) {
	for i := len(p.ladder) - 1; i >= 0; i-- {
		names = append(names, p.ladder[i].name)
	}
	for _, name := range keys(p.profiles) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// DevicePasses reports whether a device passes a profile or tier of that name.
func (p *Policy) DevicePasses(name string, dev *access.Device, now time.Time) bool {
	one := p.profiles[name]
	return one != nil && one.holds(dev, now)
}

// DeviceTier returns the tier that a device is in, empty for none.
func (p *Policy) DeviceTier(dev *access.Device, now time.Time) string {
	return p.ladder.nameOf(dev, now)
}

// Standings judges a device by every tier and profile, in the order of
// DeviceNames.
func (p *Policy) Standings(dev *access.Device, now time.Time) (list []access.Standing) {
	req := &access.Request{Time: now, Device: *dev}
	for n, name := range p.DeviceNames() {
		list = append(list, p.profiles[name].standing(req))
		list[n].Tier = n < len(p.ladder)
	}
	return list
}

func (p *profile) standing(req *access.Request) access.Standing {
	s := access.Standing{Name: p.name, Missing: p.missing(req, nil)}
	s.Holds = len(s.Missing) == 0
	for i := range p.checks {
		if ends := p.checks[i].graceEnds(&req.Device); s.Holds && !ends.IsZero() {
			s.Until = ends
		}
	}
	return s
}
