package access

import (
	"fmt"
	"time"
)

// Device is what is known about the machine a request comes from, with the
// source and the age of that knowledge. The zero value knows nothing.
type Device struct {
	// ID is the inventory's key for the device. Empty: the device did not
	// identify itself.
	ID string `json:"id,omitempty"`
	// MatchedBy names what identified it: "certificate.serial", "claim.deviceid" …
	MatchedBy string `json:"matched_by,omitempty"`
	// Source is the id of the inventory that answered, empty if none knows it.
	Source string `json:"source,omitempty"`

	Known         Tri `json:"known"`
	Managed       Tri `json:"managed"`
	Compliant     Tri `json:"compliant"`
	DiskEncrypted Tri `json:"disk_encrypted"`
	Jailbroken    Tri `json:"jailbroken"`
	// Risk is how endangered the inventory takes the device to be.
	Risk Risk `json:"risk"`

	// ByCertificate and ByClaim tell whether a client certificate, and a claim
	// of the identity provider, named this very device.
	ByCertificate Tri `json:"by_certificate,omitzero"`
	ByClaim       Tri `json:"by_claim,omitzero"`
	// Owned tells whether the visitor is the owner that the inventory names. It
	// is unknown where no owner is named, and where it was not asked for.
	Owned Tri `json:"owned,omitzero"`

	OS        string `json:"os,omitempty"`         // macos, windows, linux, ios, android, chromeos
	OSVersion string `json:"os_version,omitempty"` // dotted numbers, compared part by part
	Owner     string `json:"owner,omitempty"`      // as the inventory names the person
	Name      string `json:"name,omitempty"`       // as its owner knows it

	// Reasons are the inventory's own words for a failed compliance check or a
	// risk.
	Reasons []string `json:"reasons,omitempty"`

	// NonCompliantSince is when its inventory was first read saying that the
	// device is not compliant, after it had said that it is, or within a grace
	// period of its own. Zero: it is not so, or nobody saw it happen.
	NonCompliantSince time.Time `json:"non_compliant_since,omitzero"`
	// GraceUntil is when a grace period that the inventory itself grants ends.
	GraceUntil time.Time `json:"grace_until,omitzero"`

	// SeenAt is when the device last reported to its inventory. Zero means
	// unknown, which no maximum age accepts.
	SeenAt time.Time `json:"seen_at,omitzero"`
	// ObservedAt is when the inventory was last read.
	ObservedAt time.Time `json:"observed_at,omitzero"`
	// SourceFailingSince is set while an inventory that has a say cannot be read,
	// and SourceFailing names it. It need not be Source.
	SourceFailingSince time.Time `json:"source_failing_since,omitzero"`
	SourceFailing      string    `json:"source_failing,omitempty"`

	// Problem is set when the device identified itself in a way that cannot be
	// believed: a certificate that does not verify, two proofs that name
	// different devices. No device requirement holds then.
	Problem Reason `json:"problem,omitempty"`

	Certificate Certificate `json:"certificate,omitzero"`
}

// ProvenID is the id of a device that proved to be it: what an application may
// be told. It is empty where the proof cannot be believed.
func (d *Device) ProvenID() string {
	if d.Problem != "" {
		return ""
	}
	return d.ID
}

// Certificate is the part of a verified client certificate that policy may see.
type Certificate struct {
	Serial      string    `json:"serial,omitempty"` // lower-case hexadecimal, no separators
	Issuer      string    `json:"issuer,omitempty"`
	Subject     string    `json:"subject,omitempty"`
	SANs        []string  `json:"sans,omitempty"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Fingerprint string    `json:"fingerprint,omitempty"` // SHA-256 of the DER form, hexadecimal
}

// DevicePolicy says what facts about a device are worth.
type DevicePolicy struct {
	// Profiles are named sets of checks that `require.device` may ask for.
	Profiles map[string]Profile `yaml:"profiles"`
	// Tiers are levels of trust, from the lowest to the highest. Each asks for
	// everything the tiers before it ask for, and adds its own checks. A device
	// is in the highest tier whose checks it passes at that moment, so it sinks
	// as its facts grow old. `require.device` may name a tier; higher ones
	// satisfy it.
	Tiers []Tier `yaml:"tiers"`
	// MaxAge is how long ago a device may have last reported to its inventory
	// before its facts count as unknown. Default 24h.
	MaxAge Duration `yaml:"max_age"`
	// OnUnavailable says what holds while an inventory cannot be read: `deny`
	// (the default) or `{use_last_known: 1h}`.
	OnUnavailable OnUnavailable `yaml:"on_unavailable"`
}

// Profile is a named set of checks a device must pass, all of them.
type Profile struct {
	// All lists the checks: `known`, `managed`, `compliant`, `disk_encrypted`,
	// `not_jailbroken`, `low_risk` (no risk or a low one), `owned` (by the
	// visitor, see devices.owner), `certificate` and `claim` (a proof of this
	// kind named the device; list both to demand both), or the name of another
	// profile.
	All []string `yaml:"all"`
	// MinOS gives the oldest accepted version per operating system, such as
	// `{macos: "15.5"}`. A system that is not listed is refused.
	MinOS map[string]string `yaml:"min_os"`
	// MaxAge tightens devices.max_age for this profile.
	MaxAge Duration `yaml:"max_age"`
	// Sources lists the inventories whose word counts for this profile, by id.
	// Default: all.
	Sources []string `yaml:"sources"`
	// Grace lets a device go on that fails `compliant`, and nothing else, for
	// this long after its inventory was first read saying so. It begins only
	// where the inventory called the device compliant before, or grants a grace
	// period of its own, and ends with that period if it is shorter. A device at
	// high risk has none. It needs `compliant` in `all`. Default: not at all.
	Grace Duration `yaml:"grace"`
	// Fix is the page that helps a visitor to pass the checks.
	Fix string `yaml:"fix"`
}

// Tier is a level of trust in devices: a profile with a place in an order.
type Tier struct {
	// Name is what `require.device` and the audit log call the tier. Required;
	// no profile may have the same name.
	Name string `yaml:"name"`

	// Profile is what the tier asks for in addition to the tiers before it.
	Profile `yaml:",inline"`

	// Session is how long ago a person may have logged in who uses a device of
	// this tier, on every route; then they have to log in again. No tier may have
	// a longer one than the tiers above it. Devices in no tier have that of the
	// lowest. Default: sessions.lifetime alone counts.
	Session Duration `yaml:"session"`
}

// OnUnavailable is the rule for an inventory that cannot be read. The zero
// value denies.
type OnUnavailable struct {
	// UseLastKnown lets the last facts count for this long after the inventory
	// was first found unreadable.
	UseLastKnown Duration `yaml:"use_last_known"`
}

// UnmarshalText accepts the word `deny`.
func (o *OnUnavailable) UnmarshalText(text []byte) error {
	if string(text) != "deny" {
		return fmt.Errorf("%q is neither deny nor {use_last_known: DURATION}", text)
	}
	*o = OnUnavailable{}
	return nil
}
