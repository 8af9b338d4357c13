package devicecheck

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	defaultRefresh = time.Minute
	minRefresh     = access.Duration(time.Second)
	remoteRefresh  = 5 * time.Minute
	minRemote      = access.Duration(10 * time.Second)
	maxSourceID    = 64
	maxClaimName   = 128
)

// Config is the section `devices` of the configuration. The zero value knows
// no inventory, so that no device requirement can be met.
type Config struct {
	// Sources lists the device inventories. Where several know a device, the
	// first in this list answers.
	Sources []Source `yaml:"sources"`
	// Match lists how a device identifies itself, in order of preference:
	// `certificate.fingerprint`, `certificate.serial`, `certificate.san`,
	// `certificate.subject_cn` or `claim.NAME` for a claim of the ID token, as
	// in `[certificate.serial, claim.deviceid]`. Fingerprint and serial are
	// looked up in the inventory fields of these names, everything else is the
	// device's id. Proofs that name different devices are refused. Serial
	// numbers are unique per certificate authority only: with more than one
	// device CA, use `certificate.fingerprint`. Required with `sources`.
	Match []string `yaml:"match"`
	// ClaimsFrom lists the providers whose claims may name a device. Whoever
	// sets claims at any other provider could pass for one of your devices, so
	// it is required where `match` lists a claim and there are several providers.
	ClaimsFrom []string `yaml:"claims_from"`

	// Owner says what of a person the owner in an inventory is compared with, for
	// the check `owned` of profiles: `email` (verified addresses only), `username`
	// (preferred_username), `sub`, or `claim.NAME`. The case of ASCII letters is
	// ignored in the first two; everything else is compared byte by byte. With
	// `claims_from`, only people of these providers own devices; it is required
	// where there are several. Default: it is not known who owns a device.
	Owner string `yaml:"owner"`

	// Certificates says what is asked of device certificates.
	Certificates Certificates `yaml:"certificates"`

	// DevicePolicy says what the facts are worth; package authz applies it.
	access.DevicePolicy `yaml:",inline"`
}

// Source is one device inventory. A source whose Source says the same after a
// reload of the configuration, secrets included, keeps what it has read.
type Source struct {
	// ID names the inventory in logs, metrics and decisions: letters, digits,
	// `-`, `_` and `.`, at most 64. Required, unique.
	ID string `yaml:"id"`
	// Type is the kind of inventory: `file`, `http` (any that answers JSON),
	// `fleet` (Fleet, osquery), `intune` (Microsoft Intune), `entra` (the devices
	// of Microsoft Entra, on request joined with Intune), `defender` (Microsoft
	// Defender for Endpoint), `jamf` (Jamf Pro), `google` (Google Cloud Identity)
	// or `crowdstrike` (CrowdStrike Zero Trust Assessment). Required.
	Type string `yaml:"type"`
	// Path is the file of an inventory of type `file`. `.json` holds an array of
	// records, or an object with that array as its member `devices`; `.csv`
	// begins with a line that names the columns. A record has an `id` and may
	// have `serial` and `fingerprint` (of the client certificate, hexadecimal;
	// SHA-256), `name`, `owner`, `managed`, `compliant`, `disk_encrypted`,
	// `jailbroken` (yes, no, or nothing where it is unknown), `risk` (none, low,
	// medium, high, or nothing), `os`, `os_version`, `last_seen` and
	// `grace_until` (RFC 3339; the end of a grace period for a device that is not
	// compliant) and `reasons` (a list; in CSV separated by `;`). The file is
	// watched; replace it by renaming a complete file onto it. A file that is
	// missing or faulty does not stop Doorward: the last good content stays, and
	// the inventory counts as unavailable.
	Path string `yaml:"path"`
	// Refresh is how often the inventory is read even if nothing announced a
	// change. Default 1m for a file, at least 1s; 5m for all others, at least
	// 10s, shortened by up to a tenth at random.
	Refresh access.Duration `yaml:"refresh"`

	// Adds lists facts about which this inventory has the say, for devices that
	// another one knows by the same id: `managed`, `compliant`, `disk_encrypted`,
	// `jailbroken`, `risk`. What the other one says against a device stands. By
	// itself an inventory that adds makes no device known; while it cannot be
	// read, `on_unavailable` holds for all devices. Default: it adds to no other
	// inventory, but answers for the devices it lists.
	Adds []string `yaml:"adds"`

	// URL is the address of the inventory: for `http` that of the first page,
	// for `fleet` and `jamf` that of the server, for the others that of the API
	// (default that of the vendor's own cloud: https://graph.microsoft.com for
	// `intune` and `entra`, https://api.securitycenter.microsoft.com for
	// `defender`, https://cloudidentity.googleapis.com for `google`,
	// https://api.crowdstrike.com for `crowdstrike`). It begins with https://, or http:// for this
	// machine only. Every page must be on its host; redirects to other hosts are
	// not followed.
	URL string `yaml:"url"`
	// Headers are sent with every request of type `http`, as in
	// `{Authorization: {file: /run/secrets/inventory}}`; the secret is the whole
	// value, `Bearer …`.
	Headers map[string]access.Secret `yaml:"headers"`
	// Items is the path to the array of records in an answer, for type `http`:
	// member names with dots between them, such as `data.devices`; a dot in a
	// name is written `\.`. Default: the answer is that array.
	Items string `yaml:"items"`
	// Next is the path to the link to the next page, for type `http`. The last
	// page has none, null or an empty text there. Default: there is one page.
	Next string `yaml:"next"`
	// Fields says where in a record of type `http` our fields are; the names are
	// those of a file. `id` is required. What is missing or has a value that is
	// not listed is unknown.
	Fields map[string]Field `yaml:"fields"`
	// Token is the API token of a `fleet` server; a user that may only observe
	// is enough.
	Token access.Secret `yaml:"token"`
	// Tenant is the Entra tenant of `intune`, `entra` and `defender`, by id or
	// domain.
	Tenant string `yaml:"tenant"`
	// ClientID is the application, or API client, that reads `intune`, `entra`,
	// `defender`, `jamf` or `crowdstrike`.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the secret of that application.
	ClientSecret access.Secret `yaml:"client_secret"`
	// AuthURL is where `intune`, `entra` and `defender` get their tokens. Default
	// https://login.microsoftonline.com; other clouds have their own.
	AuthURL string `yaml:"auth_url"`
	// Key is the member of a vendor's record that is the id of the device, which
	// `match` looks up. For `fleet` it is one of `uuid`, `hardware_serial` and
	// `hostname`; for `intune` one of `azureADDeviceId` (the claim `deviceid` of
	// Entra), `id` and `serialNumber`; for `entra` one of `deviceId` and `id`; for
	// `defender` one of `aadDeviceId`, `id` and `computerDnsName`; for `jamf` one
	// of `udid`, `serialNumber`, `managementId` and `id`; for `google` one of
	// `deviceId`, `serialNumber` and `name`; for `crowdstrike` one of `aid` and
	// `system_serial_number`. Default: the first of them.
	Key string `yaml:"key"`
	// WithIntune lets `entra` read the managed devices of Intune too. A device is
	// compliant and managed then if both say so. Default false.
	WithIntune bool `yaml:"with_intune"`
	// TrustTypes lists what `entra` accepts as managed: `AzureAd` (joined),
	// `ServerAd` (hybrid joined) and `Workplace` (registered). Default: all.
	TrustTypes []string `yaml:"trust_types"`
	// CompliantGroup is the name of the smart group of `jamf` whose members are
	// compliant. Default: none, so that compliance is unknown.
	CompliantGroup string `yaml:"compliant_group"`
	// ServiceAccount is the key of the service account that reads `google`: the
	// whole JSON file that Google made.
	ServiceAccount access.Secret `yaml:"service_account"`
	// Subject is the administrator in whose name the service account reads, by
	// domain-wide delegation. Default: it reads in its own name.
	Subject string `yaml:"subject"`
	// TokenURL is where `google` gets its tokens instead of by a service account's
	// key: a metadata server, or what speaks like one. Plain http is for this
	// machine and for metadata.google.internal.
	TokenURL string `yaml:"token_url"`
	// Customer is the organization whose devices `google` reads. Default
	// `customers/my_customer`.
	Customer string `yaml:"customer"`
	// Partner is the last part of the name of the client states that `google`
	// believes, such as `C0123-acme`. Default: all, and all must agree.
	Partner string `yaml:"partner"`
	// MinScore is the lowest score of `crowdstrike` that counts as compliant, 1 to
	// 100. Required for it.
	MinScore int `yaml:"min_score"`
}

// Field is the place of a value in a record. A plain text is the path alone.
type Field struct {
	// Path leads from the record to the value: member names with dots between
	// them. Required.
	Path string `yaml:"path"`
	// Yes lists the values that mean yes, for a field that is yes, no or
	// unknown. Numbers and booleans are compared as they are written. Default,
	// without `no`: `[true, yes]`.
	Yes []string `yaml:"yes"`
	// No lists the values that mean no. Default, without `yes`: `[false, no]`.
	No []string `yaml:"no"`
	// Levels lists, for the field risk, the values that mean each of `none`,
	// `low`, `medium` and `high`, as in `{low: [minor], high: [severe]}`. Default:
	// those four words.
	Levels map[string][]string `yaml:"levels"`
}

// UnmarshalText accepts the path alone.
func (f *Field) UnmarshalText(text []byte) error {
	*f = Field{Path: string(text)}
	return nil
}

// same reports whether two sources are configured alike. Secrets are compared
// by what they hold.
func (s Source) same(other Source) bool { return reflect.DeepEqual(s, other) }

// Validate reports every mistake in sources and match, and sources that a
// profile or tier names and that do not exist. Everything else about them is
// checked by package authz, which compiles them.
func (c Config) Validate(f access.Faults) {
	seen := map[string]int{}
	for n, s := range c.Sources {
		at := f.At("sources[%d]", n)
		s.validate(at)
		if first, dup := seen[s.ID]; dup && s.ID != "" {
			at.At("id").Add("give every source its own id", "%q is already the id of sources[%d]", s.ID, first)
			continue
		}
		seen[s.ID] = n
	}
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		c.validateNamed(c.Profiles[name].Sources, f.At("profiles").At("%s", name))
	}
	for n, tier := range c.Tiers {
		c.validateNamed(tier.Sources, f.At("tiers[%d]", n))
	}
	if len(c.Sources) > 0 && !slices.ContainsFunc(c.Sources, func(s Source) bool { return len(s.Adds) == 0 }) {
		f.At("sources").Add("remove adds from the inventory that knows all devices", "every source only adds to others, so no device is known")
	}
	if len(c.Sources) > 0 && len(c.Match) == 0 {
		f.At("match").Add("add match: [certificate.serial]", "match is empty, so no device can be found in the sources")
	}
	c.Certificates.Revocation.validate(f.At("certificates.revocation"))
	if _, err := parseOwner(c.Owner); err != nil {
		f.At("owner").Add("use email, username, sub or claim.NAME", "%s", err)
	}
	for n, entry := range c.Match {
		at := f.At("match[%d]", n)
		if _, err := parseProof(entry); err != nil {
			at.Add("use certificate.fingerprint, certificate.serial, certificate.san, certificate.subject_cn or claim.NAME", "%s", err)
		} else if slices.Index(c.Match, entry) < n {
			at.Add("remove one of them", "%q is listed twice", entry)
		}
	}
}

// validateNamed checks the sources that a profile names.
func (c Config) validateNamed(ids []string, f access.Faults) {
	known := make([]string, len(c.Sources))
	for n, s := range c.Sources {
		known[n] = s.ID
	}
	for n, id := range ids {
		if !slices.Contains(known, id) {
			f.At("sources[%d]", n).Add("name one of devices.sources by its id", "there is no inventory %q", clip(id))
		}
	}
}
