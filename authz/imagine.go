package authz

import (
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// The words that describe a device besides profiles and checks.
const (
	noDevice      = "none"
	unknownDevice = "unknown"
	silentDevice  = "silent"
)

// Device returns a device as a word describes it: "none", "unknown", "silent",
// the name of a profile or of a check. One like a profile has what the profile
// checks, at an instant, and no other fact about it is known; one that is silent
// has everything, years ago. It fails for other words, and for a profile that no
// device made of these facts passes.
func (p *Policy) Device(like string, at time.Time) (access.Device, bool) {
	dev := access.Device{ID: "imagined", Source: "imagined", Known: access.Yes, SeenAt: at, ObservedAt: at}
	switch like {
	case noDevice:
		return access.Device{}, true
	case unknownDevice:
		return access.Device{ID: "imagined", Known: access.No}, true
	case silentDevice:
		for _, name := range checkNames() {
			show(&dev, name)
		}
		dev.SeenAt = at.AddDate(-10, 0, 0)
		return dev, true
	}
	wanted := p.profiles[like]
	if wanted == nil {
		return dev, show(&dev, like)
	}
	for _, c := range wanted.checks {
		show(&dev, c.name)
	}
	if len(wanted.sources) > 0 {
		dev.Source = wanted.sources[0]
	}
	if systems := keys(wanted.minOS); len(systems) > 0 {
		dev.OS, dev.OSVersion = systems[0], wanted.minOS[systems[0]]
	}
	return dev, len(wanted.missing(&access.Request{Time: at, Device: dev}, nil)) == 0
}

// show gives a device the fact that a check asks for.
func show(dev *access.Device, name string) bool {
	if name == "low_risk" {
		dev.Risk = access.RiskLow
		return true
	}
	facts := map[string]*access.Tri{
		"known": &dev.Known, "managed": &dev.Managed, "compliant": &dev.Compliant,
		"disk_encrypted": &dev.DiskEncrypted, "not_jailbroken": &dev.Jailbroken,
		"owned": &dev.Owned, "certificate": &dev.ByCertificate, "claim": &dev.ByClaim,
	}
	i := slices.IndexFunc(deviceChecks, func(c check) bool { return c.name == name })
	if i < 0 || facts[name] == nil {
		return false
	}
	*facts[name] = deviceChecks[i].pass
	return true
}

// DeviceWords lists the words that Device understands.
func (p *Policy) DeviceWords() []string {
	return slices.Concat([]string{noDevice, unknownDevice, silentDevice}, checkNames(), keys(p.profiles))
}
