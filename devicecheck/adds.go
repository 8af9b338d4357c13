package devicecheck

import (
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// addable are the facts that one inventory can add to the devices of another.
var addable = map[string]func(d, from *access.Device){
	"managed":        func(d, from *access.Device) { d.Managed = added(d.Managed, from.Managed, access.No) },
	"compliant":      addCompliant,
	"disk_encrypted": func(d, from *access.Device) { d.DiskEncrypted = added(d.DiskEncrypted, from.DiskEncrypted, access.No) },
	"jailbroken":     func(d, from *access.Device) { d.Jailbroken = added(d.Jailbroken, from.Jailbroken, access.Yes) },
	riskField: func(d, from *access.Device) {
		if d.Risk.Low() != access.No {
			d.Risk = from.Risk
		}
		d.Risk = max(d.Risk, from.Risk)
	},
}

// added is what an inventory that has the say about a fact says, unless the
// other one already says the bad of it.
func added(have, say, bad access.Tri) access.Tri {
	if have == bad {
		return bad
	}
	return say
}

// addCompliant keeps with a no since when it holds, which is where a grace
// period begins: of two inventories that say no, the earlier one.
func addCompliant(d, from *access.Device) {
	switch {
	case d.Compliant == access.No && from.Compliant == access.No:
		d.NonCompliantSince, d.GraceUntil = earlier(d.NonCompliantSince, from.NonCompliantSince), earlier(d.GraceUntil, from.GraceUntil)
	case d.Compliant != access.No:
		d.NonCompliantSince, d.GraceUntil = from.NonCompliantSince, from.GraceUntil
	}
	d.Compliant = added(d.Compliant, from.Compliant, access.No)
}

// earlier returns the earlier of two times, zero if one of them is not known.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) { // as the zero time is
		return b
	}
	return a
}

// complete adds to a device what the inventories that add say about it.
func (i *Inspector) complete(d *access.Device) {
	for _, s := range i.sources {
		if len(s.Adds) > 0 {
			s.addTo(d, s.state.Load())
		}
	}
}

// addTo completes a device that another inventory knows by what this one says
// about it. A device that is not listed here has none of the facts that are
// added, and all facts are as old as the older report.
func (s *source) addTo(d *access.Device, state *state) {
	from := &access.Device{}
	if state.inv != nil {
		if found := state.inv.find(idKey, d.ID); found != nil {
			from = found
			d.SeenAt = earlier(d.SeenAt, from.SeenAt)
		}
	}
	for _, fact := range s.Adds {
		addable[fact](d, from)
	}
	if len(from.Reasons) > 0 { // the lists are shared
		d.Reasons = slices.Concat(d.Reasons, from.Reasons)
	}
	d.ObservedAt = earlier(d.ObservedAt, state.observedAt)
	state.failFor(d)
}
