package devicecheck

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
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
	// `fleet` (Fleet, osquery) or `intune` (Microsoft Intune through Graph).
	// Required.
	Type string `yaml:"type"`
	// Path is the file of an inventory of type `file`. `.json` holds an array of
	// records, or an object with that array as its member `devices`; `.csv`
	// begins with a line that names the columns. A record has an `id` and may
	// have `serial` and `fingerprint` (of the client certificate, hexadecimal;
	// SHA-256), `name`, `owner`, `managed`, `compliant`, `disk_encrypted`,
	// `jailbroken` (yes, no, or nothing where it is unknown), `risk` (none, low,
	// medium, high, or nothing), `os`, `os_version`, `last_seen` (RFC 3339) and
	// `reasons` (a list; in CSV separated by `;`). The file is watched; replace it by renaming a complete
	// file onto it. A file that is missing or faulty does not stop Doorward: the
	// last good content stays, and the inventory counts as unavailable.
	Path string `yaml:"path"`
	// Refresh is how often the inventory is read even if nothing announced a
	// change. Default 1m for a file, at least 1s; 5m for all others, at least
	// 10s, shortened by up to a tenth at random.
	Refresh access.Duration `yaml:"refresh"`

	// URL is the address of the inventory: for `http` that of the first page,
	// for `fleet` that of the server, for `intune` that of Graph (default
	// https://graph.microsoft.com). It begins with https://, or http:// for this
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
	// Tenant is the Entra tenant of `intune`, by id or domain.
	Tenant string `yaml:"tenant"`
	// ClientID is the application that reads `intune`. It needs the permission
	// DeviceManagementManagedDevices.Read.All.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the secret of that application.
	ClientSecret access.Secret `yaml:"client_secret"`
	// AuthURL is where `intune` gets its tokens. Default
	// https://login.microsoftonline.com; other clouds have their own.
	AuthURL string `yaml:"auth_url"`
	// Key is the member of a vendor's record that is the id of the device, which
	// `match` looks up. For `fleet` it is one of `uuid`, `hardware_serial` and
	// `hostname`; for `intune` one of `azureADDeviceId` (the claim `deviceid` of
	// Entra), `id` and `serialNumber`. Default: the first of them.
	Key string `yaml:"key"`
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

// remote reports whether the inventory is asked over HTTP.
func (s Source) remote() bool { return s.Type == "http" || s.Type == "fleet" || s.Type == "intune" }

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

func (s Source) validate(f access.Faults) {
	switch {
	case s.ID == "":
		f.At("id").Add("give the source a name, such as id: inventory", "id is missing")
	case len(s.ID) > maxSourceID || strings.Trim(s.ID, idLetters) != "":
		f.At("id").Add("use up to 64 letters, digits, -, _ and .", "%q is no id", clip(s.ID))
	}
	least := minRefresh
	if s.remote() {
		least = minRemote
	}
	if s.Refresh != 0 && s.Refresh < least {
		f.At("refresh").Add(fmt.Sprintf("use %s or more", least), "%s is too short", s.Refresh)
	}
	switch s.Type {
	case "file":
		s.validateFile(f)
	case "http":
		s.validateHTTP(f)
	case "fleet":
		s.validateFleet(f)
	case "intune":
		s.validateIntune(f)
	case "":
		f.At("type").Add("add type: file", "type is missing")
		return
	default:
		f.At("type").Add("use file, http, fleet or intune", "%q is no type of inventory", clip(s.Type))
		return
	}
	s.validateKeys(f)
}

// validateKeys reports what has no meaning for the type.
func (s Source) validateKeys(f access.Faults) {
	for _, key := range []struct {
		name  string
		set   bool
		types string
	}{
		{"path", s.Path != "", "file"},
		{"url", s.URL != "", "http fleet intune"},
		{"headers", len(s.Headers) > 0, "http"},
		{"items", s.Items != "", "http"},
		{"next", s.Next != "", "http"},
		{"fields", len(s.Fields) > 0, "http"},
		{"token", !s.Token.IsZero(), "fleet"},
		{"tenant", s.Tenant != "", "intune"},
		{"client_id", s.ClientID != "", "intune"},
		{"client_secret", !s.ClientSecret.IsZero(), "intune"},
		{"auth_url", s.AuthURL != "", "intune"},
		{"key", s.Key != "", "fleet intune"},
	} {
		if key.set && !slices.Contains(strings.Fields(key.types), s.Type) {
			f.At("%s", key.name).Add("remove it", "%s has no meaning for an inventory of type %s", key.name, s.Type)
		}
	}
}

func validateURL(f access.Faults, address, example string) {
	if address == "" {
		f.Add("add one, such as "+example, "the address is missing")
	} else if _, err := parseHome(address); err != nil {
		f.Add("write an address such as "+example, "%s", err)
	}
}

func (s Source) validateHTTP(f access.Faults) {
	validateURL(f.At("url"), s.URL, "https://inventory.example.com/devices")
	for _, path := range [][2]string{{"items", s.Items}, {"next", s.Next}} {
		if _, err := parsePath(path[1]); err != nil {
			f.At("%s", path[0]).Add("write member names with dots between them", "%s", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		at, value := f.At("headers").At("%s", name), s.Headers[name]
		switch {
		case name == "" || strings.Trim(name, headerLetters) != "" || slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)):
			at.Add("use the name of a header such as Authorization", "%q cannot be set", clip(name))
		case value.IsZero() || strings.ContainsFunc(value.Reveal(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			at.Add("write {file: PATH} or {env: NAME} of a text of one line", "the value is missing or has several lines")
		}
	}
	if _, ok := s.Fields["id"]; !ok {
		f.At("fields").Add("add fields: {id: PATH}", "the path of the id is missing")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Fields)) {
		s.Fields[name].validate(f.At("fields").At("%s", name), name)
	}
}

func (want Field) validate(f access.Faults, name string) {
	n := fieldIndex(name)
	if n < 0 {
		f.Add("use "+fieldNames, "%q is no field of a device", clip(name))
		return
	}
	if path, err := parsePath(want.Path); err != nil || len(path) == 0 {
		f.Add("write member names with dots between them, such as compliance.state", "the path of %s is missing or faulty", name)
	}
	if len(want.Yes)+len(want.No) > 0 && !fields[n].fact {
		f.Add("write the path alone", "%s is not a field of yes and no", name)
	}
	for _, word := range want.Yes {
		if word == "" || slices.Contains(want.No, word) {
			f.At("yes").Add("remove it", "%q cannot mean yes", clip(word))
		}
	}
	if slices.Contains(want.No, "") {
		f.At("no").Add("remove it", "an empty value is unknown, never no")
	}
	want.validateLevels(f.At("levels"), name)
}

func (want Field) validateLevels(f access.Faults, name string) {
	if len(want.Levels) > 0 && name != riskField {
		f.Add("remove it", "%s is no risk", name)
		return
	}
	meant := map[string]string{}
	for _, level := range slices.Sorted(maps.Keys(want.Levels)) {
		var risk access.Risk
		if risk.UnmarshalText([]byte(level)) != nil || risk == access.RiskUnknown {
			f.At("%s", level).Add("use none, low, medium or high; every other value is unknown", "%q is no risk", clip(level))
		}
		for _, word := range want.Levels[level] {
			if other, twice := meant[word]; word == "" || twice && other != level {
				f.At("%s", level).Add("remove it", "%q cannot mean %s", clip(word), level)
			}
			meant[word] = level
		}
	}
}

func (s Source) validateFleet(f access.Faults) {
	validateURL(f.At("url"), s.URL, "https://fleet.corp.example.com")
	if s.Token.IsZero() {
		f.At("token").Add("add token: {file: PATH}", "the token is missing")
	} else {
		validateToken(f.At("token"), s.Token)
	}
	s.validateKey(f, fleetKeys)
}

func (s Source) validateIntune(f access.Faults) {
	if s.URL != "" {
		validateURL(f.At("url"), s.URL, graphURL)
	}
	if s.AuthURL != "" {
		validateURL(f.At("auth_url"), s.AuthURL, microsoftAuth)
	}
	if strings.Trim(s.Tenant, idLetters) != "" || strings.Trim(s.Tenant, ".") == "" {
		f.At("tenant").Add("write the id of the tenant or one of its domains", "tenant is missing or faulty")
	}
	if s.ClientID == "" {
		f.At("client_id").Add("write the id of the application that may read the devices", "client_id is missing")
	}
	if s.ClientSecret.IsZero() {
		f.At("client_secret").Add("add client_secret: {file: PATH}", "client_secret is missing")
	}
	s.validateKey(f, intuneKeys)
}

func (s Source) validateKey(f access.Faults, keys []string) {
	if s.Key != "" && !slices.Contains(keys, s.Key) {
		f.At("key").Add("use "+strings.Join(keys, ", "), "%q is no key of a device", clip(s.Key))
	}
}

func validateToken(f access.Faults, token access.Secret) {
	if strings.ContainsFunc(token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		f.Add("write the token alone, without Bearer", "the token holds a blank or a character that no token has")
	}
}

func (s Source) validateFile(f access.Faults) {
	if s.Path == "" {
		f.At("path").Add("add path: /etc/doorward/devices.json", "path is missing")
	} else if _, err := formatOf(s.Path); err != nil {
		f.At("path").Add("name a file that ends in .json or .csv", "%s", err)
	}
}

// idLetters are what the id of a source is made of.
const idLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// headerLetters are what the name of a header is made of here.
const headerLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// ownHeaders are set by the connection.
var ownHeaders = []string{"Host", "Connection", "Content-Length", "Transfer-Encoding", "Accept-Encoding", "Te", "Trailer", "Upgrade"}
