package devicecheck

import (
	"iter"

	"github.com/doorward/doorward/internal/access"
)

// All yields every device that an inventory lists, as Inspect would report it to
// its owner who proves it in every way there is. Where several inventories list
// an id, the first answers. The lists in a device must not be changed.
func (i *Inspector) All() iter.Seq[access.Device] {
	states := i.states(nil)
	return func(yield func(access.Device) bool) {
		for n, s := range states {
			for d := range s.devices() {
				if first, _ := lookup(states[:n], idKey, d.ID); first == nil && !yield(i.imagine(states, d, s)) {
					return
				}
			}
		}
	}
}

// Find returns what each inventory that lists an id says of it, that which
// answers first.
func (i *Inspector) Find(id string) (list []access.Device) {
	states := i.states(nil)
	for _, s := range states {
		if d, in := lookup([]*state{s}, idKey, id); d != nil {
			list = append(list, i.imagine(states, d, in))
		}
	}
	return list
}

// states appends the state of every source that answers for devices, at this
// moment.
func (i *Inspector) states(to []*state) []*state {
	for _, s := range i.sources {
		if len(s.Adds) == 0 {
			to = append(to, s.state.Load())
		}
	}
	return to
}

func (s *state) devices() iter.Seq[*access.Device] {
	return func(yield func(*access.Device) bool) {
		if s.inv == nil {
			return
		}
		for n := range s.inv.devices {
			if !yield(&s.inv.devices[n]) {
				return
			}
		}
	}
}

func (i *Inspector) imagine(states []*state, listed *access.Device, in *state) access.Device {
	d := report(states, listed, in)
	i.complete(&d)
	d.Owned, d.ByCertificate, d.ByClaim = access.Yes, access.Yes, access.Yes
	if i.reports != nil {
		i.reports.Apply(&d)
	}
	return d
}

// report is what one of the sources says of a device it lists, with the age of
// it. While a source before it was never read, nobody can say whether that one
// would have the say: the device is then as unavailable as that source.
func report(states []*state, listed *access.Device, in *state) access.Device {
	d := *listed
	d.Source, d.ObservedAt = in.source, in.observedAt
	in.failFor(&d)
	for _, s := range states {
		if s == in {
			break
		}
		if s.inv == nil {
			s.failFor(&d)
		}
	}
	return d
}
