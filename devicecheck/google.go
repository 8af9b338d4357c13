package devicecheck

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

const (
	googleURL   = "https://cloudidentity.googleapis.com"
	googleScope = "https://www.googleapis.com/auth/cloud-identity.devices.readonly"
	// The largest pages that the API gives.
	googleDevices = 100
	googleUsers   = 20
)

// google is Cloud Identity: devices, their users, and what partners said about
// each of the two together.
type google struct {
	*remote
	key, customer, partner string
}

func newGoogle(s Source, o outside) (*google, error) {
	r, err := newRemote(orText(s.URL, googleURL), o)
	if err != nil {
		return nil, err
	}
	if err := r.useGoogleTokens(s); err != nil {
		return nil, err
	}
	customer := "customers/" + strings.TrimPrefix(orText(s.Customer, "my_customer"), "customers/")
	return &google{remote: r, key: s.Key, customer: customer, partner: s.Partner}, nil
}

// googleReading is what one reading collects, device by device.
type googleReading struct {
	google *google
	pull   *pull
	found  []*googleDevice
	byName map[string]*googleDevice
	users  map[string]bool // by name
}

// googleDevice is a device with the votes of all who speak about it.
type googleDevice struct {
	access.Device
	managed, compliant, intact votes
	users, scores              int
}

// votes is what several voices say. One no decides, and so does nothing else
// than yes.
type votes struct{ yes, no, unknown int }

func (v *votes) add(t access.Tri) {
	switch t {
	case access.Yes:
		v.yes++
	case access.No:
		v.no++
	default:
		v.unknown++
	}
}

func (v votes) verdict() access.Tri {
	switch {
	case v.no > 0:
		return access.No
	case v.yes > 0 && v.unknown == 0:
		return access.Yes
	}
	return access.Unknown
}

// fetch implements fetcher. The three lists are read whole, one after the other.
func (g *google) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := g.begin()
	if err != nil {
		return nil, err
	}
	r := &googleReading{google: g, pull: p, byName: map[string]*googleDevice{}, users: map[string]bool{}}
	for _, list := range []struct {
		path, items string
		size        int // of a page; zero: as the API likes
		each        each
	}{
		{"v1/devices", "devices", googleDevices, r.device},
		{"v1/devices/-/deviceUsers", "deviceUsers", googleUsers, r.user},
		{"v1/devices/-/deviceUsers/-/clientStates", "clientStates", 0, r.clientState},
	} {
		query := url.Values{"customer": {g.customer}}
		if list.size > 0 {
			query.Set("pageSize", strconv.Itoa(list.size))
		}
		if err := r.read(ctx, g.home.JoinPath(list.path), query, list.items, list.each); err != nil {
			return nil, err
		}
	}
	for _, d := range r.found {
		if err := p.add(d.judge()); err != nil {
			return nil, err
		}
	}
	return p.done(have)
}

// read reads one list. Google leaves an empty list out of its answer, in which
// nothing else may be then, or it would be somebody else's.
func (r *googleReading) read(ctx context.Context, u *url.URL, query url.Values, items string, each each) error {
	u.RawQuery = query.Encode()
	next := func(around any) (string, bool, error) { return nextLink(jsonPath{"nextPageToken"}, around) }
	r.pull.emptyAs = func(answer any) bool {
		object, ok := answer.(map[string]any)
		_, token := object["nextPageToken"]
		return ok && (len(object) == 0 || token && len(object) == 1)
	}
	_, err := r.pull.byToken(ctx, u, jsonPath{items}, "pageToken", next, each)
	return err
}

// The words of Google. What is not specified is unknown.
var (
	googleOS = map[string]string{
		"ANDROID": "android", "IOS": "ios", "WINDOWS": "windows", "MAC_OS": "macos", "LINUX": "linux", "CHROME_OS": "chromeos",
		"GOOGLE_SYNC": "", "DEVICE_TYPE_UNSPECIFIED": "",
	}
	googleEncrypted = map[string]access.Tri{
		"ENCRYPTED": access.Yes, "NOT_ENCRYPTED": access.No, "UNSUPPORTED_BY_DEVICE": access.No, "ENCRYPTION_STATE_UNSPECIFIED": access.Unknown,
	}
	googleIntact = map[string]access.Tri{
		"UNCOMPROMISED": access.Yes, "COMPROMISED": access.No, "COMPROMISED_STATE_UNSPECIFIED": access.Unknown,
	}
	// googleManaged is the state of a device, or of a user on it.
	googleManaged = map[string]access.Tri{
		"APPROVED": access.Yes, "BLOCKED": access.No, "PENDING": access.No, "PENDING_APPROVAL": access.No, "UNPROVISIONED": access.No,
		"UNENROLLED": access.No, "WIPING": access.No, "WIPED": access.No, "MANAGEMENT_STATE_UNSPECIFIED": access.Unknown,
	}
	googleStateManaged = map[string]access.Tri{
		"MANAGED": access.Yes, "UNMANAGED": access.No, "MANAGED_STATE_UNSPECIFIED": access.Unknown,
	}
	googleCompliant = map[string]access.Tri{
		"COMPLIANT": access.Yes, "NON_COMPLIANT": access.No, "COMPLIANCE_STATE_UNSPECIFIED": access.Unknown,
	}
	googleHealth = map[string]access.Risk{
		"VERY_GOOD": access.RiskNone, "GOOD": access.RiskLow, "NEUTRAL": access.RiskMedium, "POOR": access.RiskHigh,
		"VERY_POOR": access.RiskHigh, "HEALTH_SCORE_UNSPECIFIED": access.RiskUnknown,
	}
)

func (r *googleReading) device(record map[string]any) error {
	name, _ := record["name"].(string)
	if part := strings.TrimPrefix(name, "devices/"); part == name || !isSegment(part) {
		return errors.New(`a device has no "name" such as devices/1`)
	}
	if r.byName[name] != nil {
		return nil // pages shift while they are read
	}
	if len(r.found) == maxRecords {
		return fmt.Errorf("there are more than %d devices", maxRecords)
	}
	odd := r.pull.odd
	id, _ := record[r.google.key].(string) // without one it is left out
	d := &googleDevice{Device: access.Device{
		ID: id, Name: plain(record["hostname"]), OS: meaning(odd, "deviceType", record["deviceType"], googleOS),
		DiskEncrypted: meaning(odd, "encryptionState", record["encryptionState"], googleEncrypted),
		SeenAt:        moment(record["lastSyncTime"]),
	}}
	d.OSVersion = versionIn(d.OS, plain(record["osVersion"]))
	d.intact.add(meaning(odd, "compromisedState", record["compromisedState"], googleIntact))
	if state, there := record["managementState"]; there { // which not every kind of device has
		d.managed.add(meaning(odd, "managementState", state, googleManaged))
		d.refuse("this device", state)
	}
	r.found = append(r.found, d)
	r.byName[name] = d
	return nil
}

// refuse notes a state in which Google lets a device do nothing.
func (d *googleDevice) refuse(whose string, state any) {
	switch state {
	case "BLOCKED", "WIPING", "WIPED":
		d.compliant.add(access.No)
		note(&d.Device, fmt.Sprintf("Google: %s is %s", whose, strings.ToLower(plain(state))))
	}
}

// of returns the device that a name such as devices/1/deviceUsers/2 is below,
// nil where it was not listed.
func (r *googleReading) of(record map[string]any, parts ...string) (*googleDevice, []string, error) {
	name, _ := record["name"].(string)
	path := strings.Split(name, "/")
	for n, part := range parts {
		if len(path) != 2*len(parts) || path[2*n] != part || !isSegment(path[2*n+1]) {
			return nil, nil, fmt.Errorf("%q is no name of %s", clip(name), parts[len(parts)-1])
		}
	}
	return r.byName[path[0]+"/"+path[1]], path, nil
}

func (r *googleReading) user(record map[string]any) error {
	d, path, err := r.of(record, "devices", "deviceUsers")
	if err != nil || d == nil {
		return err
	}
	r.users[strings.Join(path, "/")] = true
	odd := r.pull.odd
	d.managed.add(meaning(odd, "deviceUsers.managementState", record["managementState"], googleManaged))
	d.refuse("an account on this device", record["managementState"])
	if state, there := record["compromisedState"]; there {
		d.intact.add(meaning(odd, "deviceUsers.compromisedState", state, googleIntact))
	}
	d.users++
	d.Owner = plain(record["userEmail"])
	return nil
}

func (r *googleReading) clientState(record map[string]any) error {
	d, path, err := r.of(record, "devices", "deviceUsers", "clientStates")
	if err != nil || d == nil || r.google.partner != "" && path[len(path)-1] != r.google.partner {
		return err
	}
	odd := r.pull.odd
	state := meaning(odd, "clientStates.complianceState", record["complianceState"], googleCompliant)
	d.compliant.add(state)
	if !r.users[strings.Join(path[:4], "/")] { // nobody said whether the account is blocked
		d.compliant.add(access.Unknown)
	}
	if managed, there := record["managed"]; there {
		d.managed.add(meaning(odd, "clientStates.managed", managed, googleStateManaged))
	}
	if score, there := record["healthScore"]; there {
		risk := meaning(odd, "clientStates.healthScore", score, googleHealth)
		if d.scores++; d.scores == 1 {
			d.Risk = risk
		} else {
			d.Risk = worse(d.Risk, risk)
		}
	}
	if reason := plain(record["scoreReason"]); reason != "" && (state == access.No || d.Risk.Low() == access.No) {
		note(&d.Device, reason)
	}
	return nil
}

// judge counts the votes.
func (d *googleDevice) judge() access.Device {
	d.Managed, d.Compliant = d.managed.verdict(), d.compliant.verdict()
	switch d.intact.verdict() {
	case access.Yes:
		d.Jailbroken = access.No
	case access.No:
		d.Jailbroken = access.Yes
	}
	if d.users != 1 {
		d.Owner = "" // nobody's, or several people's
	}
	return d.Device
}

// isSegment reports whether a text is one part of a resource's name.
func isSegment(text string) bool {
	return text != "" && text != "-" && len(text) <= 256 && strings.Trim(text, idLetters) == "" && strings.Trim(text, ".") != ""
}
