package devicecheck

import (
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// maxSignals is how many devices one reading signals one by one. Beyond that,
// deciding on everything again is cheaper than telling who is concerned.
const maxSignals = 256

// follow fills in what one reading alone cannot tell: since when a device is not
// compliant. It is called once, before the inventory is published. before may be
// nil.
func (inv *inventory) follow(before *inventory, now time.Time) {
	for n := range inv.devices {
		d := &inv.devices[n]
		if d.Compliant != access.No {
			continue
		}
		var old *access.Device
		if before != nil {
			old = before.find(idKey, d.ID)
		}
		switch {
		case old != nil && old.Compliant == access.No && !old.NonCompliantSince.IsZero():
			d.NonCompliantSince = old.NonCompliantSince
		case old != nil && old.Compliant == access.Yes, !d.GraceUntil.IsZero():
			d.NonCompliantSince = now.UTC()
		}
	}
}

// signalChanges tells which devices have other facts after a reading than before.
func (s *source) signalChanges(old, next *state) {
	if s.signal == nil {
		return
	}
	if next.failing() && !old.failing() {
		s.signal(access.Signal{Reason: access.DeviceSourceUnavailable})
		return
	}
	signals, all := changes(old.inv, next.inv)
	if all {
		s.signal(access.Signal{Reason: access.DeviceChanged})
		return
	}
	for _, one := range signals {
		s.signal(one)
	}
}

// changes compares two inventories. all tells that the changes are too many to
// list, or that nothing was known before, so that this inventory may now answer
// for devices that another one answered for.
func changes(old, next *inventory) (signals []access.Signal, all bool) {
	switch {
	case old == next || next == nil:
		return nil, false
	case old == nil:
		return nil, true
	}
	for n := range next.devices {
		d := &next.devices[n]
		if before := old.find(idKey, d.ID); before == nil || !sameFacts(before, d) {
			signals = append(signals, access.Signal{Reason: newReason(before, d), Device: d.ID})
		}
		if len(signals) > maxSignals {
			return nil, true
		}
	}
	for n := range old.devices {
		if id := old.devices[n].ID; next.find(idKey, id) == nil {
			signals = append(signals, access.Signal{Reason: access.DeviceUnknown, Device: id})
		}
		if len(signals) > maxSignals {
			return nil, true
		}
	}
	return signals, false
}

// sameFacts compares what two readings of an inventory say about a device. That
// it was seen since is no news; that it was seen earlier than was said before is.
func sameFacts(a, b *access.Device) bool {
	return a.ID == b.ID && a.Known == b.Known && a.Managed == b.Managed && a.Compliant == b.Compliant &&
		a.DiskEncrypted == b.DiskEncrypted && a.Jailbroken == b.Jailbroken && a.Risk == b.Risk &&
		a.OS == b.OS && a.OSVersion == b.OSVersion && a.Owner == b.Owner && a.Name == b.Name &&
		slices.Equal(a.Reasons, b.Reasons) && a.GraceUntil.Equal(b.GraceUntil) &&
		a.NonCompliantSince.Equal(b.NonCompliantSince) && !b.SeenAt.Before(a.SeenAt) &&
		a.Certificate.Serial == b.Certificate.Serial && a.Certificate.Fingerprint == b.Certificate.Fingerprint
}

// newReason says what is worse about a device than before, for whoever is cut
// off. before may be nil.
func newReason(before, now *access.Device) access.Reason {
	if before == nil {
		return access.DeviceChanged
	}
	switch {
	case now.Compliant == access.No && before.Compliant != access.No:
		return access.DeviceNotCompliant
	case now.Managed == access.No && before.Managed != access.No:
		return access.DeviceNotManaged
	case now.DiskEncrypted == access.No && before.DiskEncrypted != access.No:
		return access.DeviceNotEncrypted
	case now.Jailbroken == access.Yes && before.Jailbroken != access.Yes:
		return access.DeviceJailbroken
	case now.Risk.Low() == access.No && before.Risk.Low() != access.No:
		return access.DeviceAtRisk
	}
	return access.DeviceChanged
}
