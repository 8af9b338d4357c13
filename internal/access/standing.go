package access

import "time"

// Standing is what one device profile or trust tier says about a device at one
// moment.
type Standing struct {
	// Name is that of the profile or tier.
	Name string `json:"name"`
	Tier bool   `json:"tier,omitempty"`
	// Holds tells whether the device passes.
	Holds bool `json:"holds"`
	// Until is when a failed compliance check stops being tolerated, where it is
	// the grace of the profile that lets the device pass.
	Until time.Time `json:"grace_until,omitzero"`
	// Missing is everything the device lacks.
	Missing []Need `json:"missing,omitempty"`
}
