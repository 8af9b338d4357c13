package serve

import (
	"time"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

// adminDevices implements admin.Devices with what is in force.
type adminDevices struct{ *live }

func (a adminDevices) Sources() []admin.DeviceSource {
	list := []admin.DeviceSource{}
	for _, s := range a.current.Load().devices.Status() {
		list = append(list, admin.DeviceSource{ID: s.ID, Type: s.Type, Devices: s.Devices, ObservedAt: s.ObservedAt, FailingSince: s.FailingSince, Error: s.Err})
	}
	return list
}

func (a adminDevices) Names() []string { return a.current.Load().cfg.Policy.DeviceNames() }

func (a adminDevices) List(pick admin.DeviceFilter, limit int) (list []admin.DeviceInfo, matching int) {
	now := a.current.Load()
	at, policy := time.Now(), now.cfg.Policy
	for d := range now.devices.All() {
		tier := policy.DeviceTier(&d, at)
		switch {
		case pick.Source != "" && d.Source != pick.Source,
			pick.Owner != "" && d.Owner != pick.Owner,
			pick.Tier == admin.NoTier && tier != "",
			pick.Tier != "" && pick.Tier != admin.NoTier && tier != pick.Tier,
			pick.Failing != "" && policy.DevicePasses(pick.Failing, &d, at):
			continue
		}
		if matching++; matching <= limit {
			list = append(list, judged(policy, d, tier, at))
		}
	}
	return list, matching
}

func (a adminDevices) Show(id string) *admin.DeviceInfo {
	now := a.current.Load()
	found := now.devices.Find(id)
	if len(found) == 0 {
		return nil
	}
	at, policy := time.Now(), now.cfg.Policy
	info := judged(policy, found[0], policy.DeviceTier(&found[0], at), at)
	info.Standings = policy.Standings(&found[0], at)
	for _, other := range found[1:] {
		info.Also = append(info.Also, other.Source)
	}
	return &info
}

func judged(policy *authz.Policy, d access.Device, tier string, at time.Time) admin.DeviceInfo {
	info := admin.DeviceInfo{Device: d, Tier: tier, Failing: []string{}}
	for _, name := range policy.DeviceNames() {
		if !policy.DevicePasses(name, &d, at) {
			info.Failing = append(info.Failing, name)
		}
	}
	return info
}
