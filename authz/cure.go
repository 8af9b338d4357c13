package authz

import (
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// cure returns the states in which something that was missing no longer is. A
// need without a fact that could be changed is taken for cured.
func (s *search) cure(need access.Need, at *state) (list []state) {
	step := Step{Condition: string(need.Reason), Become: Hit, Want: need.Want, Got: need.Got}
	if need.Reason.AboutDevice() && need.Profile != "" {
		step.For = "device profile " + need.Profile
	}
	for _, v := range s.remedies(need, &at.req) {
		one := step
		one.Example = v.example
		n := at.next(move{Step: one, set: v.set})
		if !slices.ContainsFunc(s.rt.missing(&n.req, nil), func(left access.Need) bool {
			return left.Reason == need.Reason && left.Profile == need.Profile && left.Want == need.Want && left.Got == need.Got
		}) {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		list = append(list, at.next(move{Step: step, cure: &need}))
	}
	return list
}

// remedies lists values of the facts that a need is about.
func (s *search) remedies(need access.Need, req *access.Request) (list []value) {
	device := func(example string, change func(*access.Device)) {
		list = append(list, value{example, func(r *access.Request) { change(&r.Device) }})
	}
	login := func(example string, change func(*access.Login)) {
		list = append(list, value{example, func(r *access.Request) { change(&r.Identity.Login) }})
	}
	asked := s.asked(req)
	switch need.Reason {
	case access.DeviceMissing, access.DeviceUnknown:
		s.goodDevices(req, asked, device)
	case access.DeviceSourceUnavailable:
		if dev := &req.Device; dev.Known != access.Yes && dev.Source == "" {
			s.goodDevices(req, asked, device)
		}
		device("", func(d *access.Device) { d.SourceFailingSince, d.SourceFailing = time.Time{}, "" })
	case access.DeviceFactsTooOld:
		now := req.Time
		device("", func(d *access.Device) { d.SeenAt = now })
	case access.DeviceSourceNotAccepted:
		for _, p := range asked.profiles {
			for _, source := range p.sources {
				device(source, func(d *access.Device) { d.Source = source })
			}
		}
	case access.DeviceOSTooOld:
		s.systems(asked, device)
	case access.DeviceFactMissing:
		if need.Want == "os" || need.Want == "os_version" {
			s.systems(asked, device)
		}
		device("", func(d *access.Device) { show(d, need.Want) })
	case access.LoginTooOld, access.SessionTooOld:
		now := req.Time
		login("", func(l *access.Login) { l.Time = now })
	case access.AMRInsufficient:
		for _, method := range asked.amr {
			login(method, func(l *access.Login) { satisfy(l, access.LoginRequire{AMR: []string{method}}, req.Time) })
		}
	case access.ACRInsufficient:
		for _, class := range asked.acr {
			login(class, func(l *access.Login) { satisfy(l, access.LoginRequire{ACR: []string{class}}, req.Time) })
		}
		login("phr", func(l *access.Login) { satisfy(l, access.LoginRequire{PhishingResistant: true}, req.Time) })
	case access.PhishingResistantNeeded:
		login("", func(l *access.Login) { satisfy(l, access.LoginRequire{PhishingResistant: true}, req.Time) })
	default:
		if req.Device.Problem == need.Reason {
			s.goodDevices(req, asked, device)
			device("", func(d *access.Device) { d.Problem = "" })
		}
		for i := range deviceChecks {
			if c := &deviceChecks[i]; c.reason == need.Reason {
				device("", func(d *access.Device) { show(d, c.name) })
			}
		}
	}
	return list
}

// demanded is what the demands that concern a request name.
type demanded struct {
	profiles []*profile
	acr, amr []string
}

func (s *search) asked(req *access.Request) (all demanded) {
	for i := range s.rt.demands {
		d := &s.rt.demands[i]
		if !d.applies(req) {
			continue
		}
		if d.device != nil {
			all.profiles = append(all.profiles, d.device)
		}
		all.acr, all.amr = append(all.acr, d.login.ACR...), append(all.amr, d.login.AMR...)
	}
	return all
}

// goodDevices offers a device in the place of none, or of one that nobody knows:
// with another device all its facts are others.
func (s *search) goodDevices(req *access.Request, asked demanded, offer func(string, func(*access.Device))) {
	for i, p := range asked.profiles {
		dev, ok := s.policy.Device(p.name, req.Time)
		if !ok {
			continue
		}
		names := []string{p.name}
		for _, other := range slices.Concat(asked.profiles[:i], asked.profiles[i+1:]) {
			if !slices.Contains(names, other.name) {
				other.shape(&dev)
				names = append(names, other.name)
			}
		}
		offer("one that passes "+strings.Join(names, " and "), func(d *access.Device) { *d = dev })
	}
}

// shape gives a device that passes another profile what this one asks for
// besides, as far as the two agree.
func (p *profile) shape(dev *access.Device) {
	for _, c := range p.checks {
		show(dev, c.name)
	}
	if systems := keys(p.minOS); dev.OS == "" && len(systems) > 0 {
		dev.OS, dev.OSVersion = systems[0], p.minOS[systems[0]]
	}
}

func (s *search) systems(asked demanded, offer func(string, func(*access.Device))) {
	for _, p := range asked.profiles {
		for _, system := range keys(p.minOS) {
			version := p.minOS[system]
			offer(system+" "+version, func(d *access.Device) { d.OS, d.OSVersion = system, version })
		}
	}
}

// satisfy gives a login what is asked for, in addition to what it has.
func satisfy(l *access.Login, ask access.LoginRequire, now time.Time) {
	if len(l.Levels) == 0 && (len(ask.ACR) > 0 || ask.PhishingResistant) {
		l.Levels = access.LevelsUpTo(l.ACR)
	}
	for _, class := range ask.Classes() {
		if !l.Reaches(class) {
			l.Levels = append(slices.Clone(l.Levels), class)
			l.Levels = append(l.Levels, access.LevelsUpTo(class)...)
			slices.Sort(l.Levels)
			l.Levels = slices.Compact(l.Levels)
		}
		break // one suffices
	}
	if len(ask.AMR) > 0 && !slices.ContainsFunc(ask.AMR, func(m string) bool { return slices.Contains(l.AMR, m) }) {
		l.AMR = slices.Sorted(slices.Values(append(slices.Clone(l.AMR), ask.AMR[0])))
	}
	if ask.MaxAge > 0 {
		l.Time = now
	}
}
