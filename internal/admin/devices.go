package admin

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Devices shows what the inventories say, and what the policy makes of it.
type Devices interface {
	// Sources returns the state of every inventory.
	Sources() []DeviceSource
	// Names returns the profiles and tiers of the policy.
	Names() []string
	// List returns the devices that a filter picks, at most limit, and how many
	// there are. Their standings are left out.
	List(pick DeviceFilter, limit int) (list []DeviceInfo, matching int)
	// Show returns one device, nil if no inventory lists it.
	Show(id string) *DeviceInfo
}

// DeviceFilter picks devices. Every field that is not empty narrows it.
type DeviceFilter struct {
	// Source is the inventory that answers for them, Owner whom it names.
	Source, Owner string
	// Tier is the tier they are in; "none" picks those in no tier.
	Tier string
	// Failing is a profile or tier that they do not pass.
	Failing string
}

// DeviceSource is the state of one inventory.
type DeviceSource struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Devices int    `json:"devices"`
	// ObservedAt is when it was last read without a fault.
	ObservedAt time.Time `json:"observed_at,omitzero"`
	// FailingSince is set while it cannot be read, and Error says why.
	FailingSince time.Time `json:"failing_since,omitzero"`
	Error        string    `json:"error,omitempty"`
}

// DeviceInfo is one device as its owner would come with it, proving it in every
// way the policy asks for.
type DeviceInfo struct {
	access.Device
	// Tier is the trust tier it is in at this moment, empty for none.
	Tier string `json:"tier"`
	// Failing are the profiles and tiers that it does not pass.
	Failing []string `json:"failing"`
	// Also are other inventories that list it, and are not asked.
	Also []string `json:"also_listed_by,omitempty"`
	// Standings say what every tier, highest first, and every profile makes of it.
	Standings []access.Standing `json:"standings,omitempty"`
}

// DeviceList is the answer of GET /api/v1/devices.
type DeviceList struct {
	// Time is the moment everything here was judged at.
	Time    time.Time      `json:"time"`
	Sources []DeviceSource `json:"sources"`
	Devices []DeviceInfo   `json:"devices"`
	// Matching is how many devices the filter picks, listed or not.
	Matching int `json:"matching"`
}

func (a *api) deviceEndpoints() []endpoint {
	if a.Devices == nil {
		return nil
	}
	return []endpoint{
		{"GET /api/v1/devices", a.show(func(r *http.Request) (any, error) {
			limit, err := limitOf(r)
			if err != nil {
				return nil, err
			}
			pick := DeviceFilter{Source: r.FormValue("source"), Owner: r.FormValue("owner"), Tier: r.FormValue("tier"), Failing: r.FormValue("failing")}
			answer := DeviceList{Time: a.Now().UTC(), Sources: a.Devices.Sources(), Devices: []DeviceInfo{}}
			if err := knownFilter(pick, answer.Sources, a.Devices.Names()); err != nil {
				return nil, err
			}
			list, matching := a.Devices.List(pick, limit)
			answer.Devices, answer.Matching = append(answer.Devices, list...), matching
			return answer, nil
		})},
		{"GET /api/v1/devices/{id}", a.show(func(r *http.Request) (any, error) {
			info := a.Devices.Show(r.PathValue("id"))
			if info == nil {
				return nil, errNoDevice
			}
			return info, nil
		})},
	}
}

var errNoDevice = &Fault{http.StatusNotFound, "no inventory lists this device", "see: doorward devices list"}

// knownFilter refuses a filter by something that does not exist, which would pick
// nothing and look like good news.
func knownFilter(pick DeviceFilter, sources []DeviceSource, names []string) error {
	for _, name := range []string{pick.Failing, pick.Tier} {
		if name != "" && name != NoTier && !slices.Contains(names, name) {
			return &Fault{http.StatusBadRequest, fmt.Sprintf("%.100q is neither a profile nor a tier", name), fmt.Sprintf("there are: %.300q", names)}
		}
	}
	var ids []string
	for _, s := range sources {
		ids = append(ids, s.ID)
	}
	if pick.Source != "" && !slices.Contains(ids, pick.Source) {
		return &Fault{http.StatusBadRequest, fmt.Sprintf("%.100q is no inventory", pick.Source), fmt.Sprintf("there are: %.300q", ids)}
	}
	return nil
}

// NoTier is the tier of devices that are in none.
const NoTier = "none"
