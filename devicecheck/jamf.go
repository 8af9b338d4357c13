package devicecheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const jamfPerPage = 100

// jamfSections are the parts of a computer's record that are asked for.
var jamfSections = []string{"GENERAL", "HARDWARE", "OPERATING_SYSTEM", "DISK_ENCRYPTION", "SECURITY", "USER_AND_LOCATION"}

// jamf is the inventory of computers of a Jamf Pro server.
type jamf struct {
	*remote
	key   string
	group string // whose members are compliant
}

func newJamf(s Source, o outside) (*jamf, error) {
	r, err := newRemote(s.URL, o)
	if err != nil {
		return nil, err
	}
	r.useClientCredentials(r.home.JoinPath("api/oauth/token"), s, "")
	return &jamf{remote: r, key: s.Key, group: s.CompliantGroup}, nil
}

// fetch implements fetcher.
func (j *jamf) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := j.begin()
	if err != nil {
		return nil, err
	}
	sections := jamfSections
	if j.group != "" {
		sections = append(sections[:len(sections):len(sections)], "GROUP_MEMBERSHIPS")
	}
	address := func(page int) *url.URL {
		u := j.home.JoinPath("api/v1/computers-inventory")
		u.RawQuery = url.Values{
			"section": sections, "page": {strconv.Itoa(page)}, "page-size": {strconv.Itoa(jamfPerPage)}, "sort": {"id:asc"},
		}.Encode()
		return u
	}
	name := func(computer map[string]any) string { id, _ := scalar(computer["id"]); return id }
	around, total, err := p.byNumber(ctx, address, jsonPath{"results"}, name, p.adding(j.device))
	if err != nil {
		return nil, err
	}
	// The server counts, so that a list that ends too early is noticed.
	if count, ok := (jsonPath{"totalCount"}).in(around).(json.Number); !ok || count.String() != strconv.Itoa(total) {
		return nil, fmt.Errorf("%s lists %d computers and counts %v", j.home.Host, total, (jsonPath{"totalCount"}).in(around))
	}
	return p.done(have)
}

// The words of Jamf.
var (
	jamfEncrypted = map[string]access.Tri{
		"ENCRYPTED": access.Yes, "UNENCRYPTED": access.No, "INELIGIBLE": access.No, "DECRYPTED": access.No,
		"DECRYPTING": access.No, "ENCRYPTING": access.No, "RESTART_NEEDED": access.No, "OPTIMIZING": access.No,
		"DECRYPTING_PAUSED": access.No, "ENCRYPTING_PAUSED": access.No, "UNKNOWN": access.Unknown,
	}
	// jamfProtected is about System Integrity Protection, without which the
	// system can be changed at will.
	jamfProtected = map[string]access.Tri{
		"ENABLED": access.No, "DISABLED": access.Yes, "NOT_COLLECTED": access.Unknown, "NOT_AVAILABLE": access.Unknown,
	}
)

func (j *jamf) device(p *pull, computer map[string]any) (access.Device, error) {
	if id, _ := scalar(computer["id"]); id == "" {
		return access.Device{}, errors.New(`a computer has no text "id"`)
	}
	at := func(path ...string) any { return jsonPath(path).in(computer) }
	id, _ := computer[j.key].(string)
	switch j.key {
	case "serialNumber":
		id, _ = at("hardware", "serialNumber").(string)
	case "managementId":
		id, _ = at("general", "managementId").(string)
	}
	d := access.Device{
		ID: id, Name: plain(at("general", "name")), Owner: plain(at("userAndLocation", "email")),
		OS: normalOS(plain(at("operatingSystem", "name"))), OSVersion: plain(at("operatingSystem", "version")),
		Managed:       truth(p.odd, "general.remoteManagement.managed", at("general", "remoteManagement", "managed")),
		DiskEncrypted: meaning(p.odd, "partitionFileVault2State", at("diskEncryption", "bootPartitionEncryptionDetails", "partitionFileVault2State"), jamfEncrypted),
		Jailbroken:    meaning(p.odd, "security.sipStatus", at("security", "sipStatus"), jamfProtected),
		SeenAt:        jamfSeen(at("general", "lastContactTime"), at("general", "reportDate")),
	}
	if d.Owner == "" {
		d.Owner = plain(at("userAndLocation", "username"))
	}
	if d.DiskEncrypted == access.Yes && at("diskEncryption", "fileVault2Enabled") == false {
		d.DiskEncrypted = access.Unknown // the record contradicts itself
	}
	if j.group != "" {
		d.Compliant = j.compliance(p, computer["groupMemberships"])
		if d.Compliant == access.No {
			note(&d, "Jamf: not in the group "+clip(j.group))
		}
	}
	return d, nil
}

// jamfSeen returns the age of the facts: a computer that calls in without
// telling its inventory is as old as that.
func jamfSeen(contact, report any) time.Time {
	seen, told := moment(contact), moment(report)
	if told.Before(seen) {
		return told
	}
	return seen
}

// compliance is membership in the smart group. A list that cannot be read says
// nothing.
func (j *jamf) compliance(p *pull, memberships any) access.Tri {
	list, ok := memberships.([]any)
	if !ok {
		p.odd.note("groupMemberships", memberships)
		return access.Unknown
	}
	verdict := access.No
	for _, one := range list {
		group, _ := one.(map[string]any)
		name, ok := group["groupName"].(string)
		switch {
		case !ok:
			p.odd.note("groupMemberships.groupName", group["groupName"])
			return access.Unknown
		case name == j.group && group["smartGroup"] == true:
			verdict = access.Yes
		}
	}
	return verdict
}
