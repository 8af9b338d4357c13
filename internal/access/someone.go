package access

import (
	"fmt"
	"slices"
	"time"
)

// Someone is a visitor who is only imagined, for a question or a test. The word
// `nobody`, and an entry that names no provider, stand for nobody.
type Someone struct {
	// Provider is the id of the provider that vouches for them. Default: nobody does.
	Provider string `yaml:"provider"`
	// Sub is who they are at that provider. Default `someone`.
	Sub string `yaml:"sub"`
	// Email is their address.
	Email string `yaml:"email"`
	// EmailVerified is whether the provider verified the address. Default: yes, if
	// there is one.
	EmailVerified Tri `yaml:"email_verified"`
	// Name is what they are called.
	Name string `yaml:"name"`
	// Username is their `preferred_username`.
	Username string `yaml:"username"`
	// Groups are their groups as the provider claims them, as in `claim_groups`.
	Groups []string `yaml:"groups"`
	// GroupsIncomplete tells that the provider withheld further groups. Default false.
	GroupsIncomplete bool `yaml:"groups_incomplete"`
	// Claims are further claims of the provider.
	Claims map[string]any `yaml:"claims"`

	// ACR is the class of their login, as the provider states it.
	ACR string `yaml:"acr"`
	// AMR lists how they logged in.
	AMR []string `yaml:"amr"`
	// ACRS lists the authentication contexts of their login (Entra).
	ACRS []string `yaml:"acrs"`
	// LoginAge is how long ago they logged in. Default: just now.
	LoginAge Duration `yaml:"login_age"`

	// Machine tells that it is no person. Default false.
	Machine bool `yaml:"machine"`
	// ClientID is the OAuth client of a machine's access token.
	ClientID string `yaml:"client_id"`
	// Scopes are those of its access token.
	Scopes []string `yaml:"scopes"`
	// ServiceAccount is its Kubernetes service account, as NAMESPACE/NAME.
	ServiceAccount string `yaml:"service_account"`
	// SPIFFE is its SPIFFE ID.
	SPIFFE string `yaml:"spiffe"`

	// IP is the address they come from. Default 127.0.0.1.
	IP string `yaml:"ip"`
}

// UnmarshalText accepts the word `nobody`.
func (s *Someone) UnmarshalText(text []byte) error {
	if string(text) != "nobody" {
		return fmt.Errorf("%.40q is neither nobody nor {provider: ID, …}", text)
	}
	*s = Someone{}
	return nil
}

// Identity returns who they are, at an instant: vouched for by a provider with
// that issuer, and with a login that is worth the levels.
func (s *Someone) Identity(issuer string, levels []string, at time.Time) Identity {
	if s.Provider == "" {
		return Identity{}
	}
	id := Identity{
		Provider: s.Provider, Issuer: issuer, Subject: s.Sub,
		Email: s.Email, EmailVerified: s.Email != "" && s.EmailVerified != No, Name: s.Name, Username: s.Username,
		Groups: slices.Clone(s.Groups), GroupsIncomplete: s.GroupsIncomplete, Claims: s.Claims,
		Workload: Workload{ClientID: s.ClientID, Scopes: slices.Clone(s.Scopes), ServiceAccount: s.ServiceAccount, SPIFFE: s.SPIFFE},
	}
	if id.Subject == "" {
		id.Subject = "someone"
	}
	if s.Machine {
		id.Kind = Service
	} else {
		id.Login = Login{Time: at.Add(-s.LoginAge.Std()), ACR: s.ACR, AMR: slices.Clone(s.AMR), Levels: levels}
	}
	id.Normalize()
	return id
}

// SomeDevice is a device that is only imagined. A single word is short for
// `{like: WORD}`. The zero value is no device.
type SomeDevice struct {
	// Like is what the device is like: `none`, `unknown` (it has an id that no
	// inventory knows), `silent` (it has not reported for years), the name of a
	// profile, or a check that a profile may list, such as `managed`. A device
	// like a profile has what the profile checks, and nothing else is known of
	// it. Default: `none`, or where facts are given a device that is known.
	Like string `yaml:"like"`
	// ID is its id in the inventory.
	ID string `yaml:"id"`
	// Known is whether an inventory has it.
	Known *Tri `yaml:"known"`
	// Managed is whether it is managed.
	Managed *Tri `yaml:"managed"`
	// Compliant is whether its management finds it compliant.
	Compliant *Tri `yaml:"compliant"`
	// DiskEncrypted is whether its disk is encrypted.
	DiskEncrypted *Tri `yaml:"disk_encrypted"`
	// Jailbroken is whether it was tampered with.
	Jailbroken *Tri `yaml:"jailbroken"`
	// Risk is how endangered it is: none, low, medium or high.
	Risk *Risk `yaml:"risk"`
	// Owned is whether it belongs to the visitor.
	Owned *Tri `yaml:"owned"`
	// ByCertificate is whether its certificate named it.
	ByCertificate *Tri `yaml:"by_certificate"`
	// ByClaim is whether a claim of the identity provider named it.
	ByClaim *Tri `yaml:"by_claim"`
	// OS is its operating system: android, chromeos, ios, linux, macos or windows.
	OS string `yaml:"os"`
	// OSVersion is the version of the operating system.
	OSVersion string `yaml:"os_version"`
	// Owner is whom the inventory names as its owner.
	Owner string `yaml:"owner"`
	// Source is the inventory that knows it.
	Source string `yaml:"source"`
	// Seen is how long ago it reported to its inventory. Default: just now.
	Seen Duration `yaml:"seen"`
}

// UnmarshalText reads the short form.
func (d *SomeDevice) UnmarshalText(text []byte) error {
	*d = SomeDevice{Like: string(text)}
	return nil
}

// IsZero reports whether there is no device.
func (d *SomeDevice) IsZero() bool {
	return *d == SomeDevice{} || *d == SomeDevice{Like: "none"}
}

// Over puts the facts that are given over a device.
func (d *SomeDevice) Over(dev Device, at time.Time) Device {
	for _, text := range []struct{ to, from *string }{
		{&dev.ID, &d.ID}, {&dev.OS, &d.OS}, {&dev.OSVersion, &d.OSVersion}, {&dev.Owner, &d.Owner}, {&dev.Source, &d.Source},
	} {
		if *text.from != "" {
			*text.to = *text.from
		}
	}
	for _, fact := range []struct{ to, from *Tri }{
		{&dev.Known, d.Known}, {&dev.Managed, d.Managed}, {&dev.Compliant, d.Compliant},
		{&dev.DiskEncrypted, d.DiskEncrypted}, {&dev.Jailbroken, d.Jailbroken},
		{&dev.Owned, d.Owned}, {&dev.ByCertificate, d.ByCertificate}, {&dev.ByClaim, d.ByClaim},
	} {
		if fact.from != nil {
			*fact.to = *fact.from
		}
	}
	if d.Risk != nil {
		dev.Risk = *d.Risk
	}
	if d.Seen != 0 {
		dev.SeenAt = at.Add(-d.Seen.Std())
	}
	return dev
}
