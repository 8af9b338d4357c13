package testidp

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// A vendor is how one inventory says what all of them say.
type vendor struct {
	// token is the path of the token endpoint; empty where there is a fixed
	// token.
	token string
	// scope is asked for, tokens are created (201), the client proves itself by
	// an assertion.
	scope, created, assertion bool
	lists                     map[string]list
	// next is where a page leads to the next one; nil where pages have numbers.
	next []string
	// records are the records of one device, the nth, by the list they are in.
	records func(n int, d access.Device) map[string][]any
}

// The lists of CrowdStrike and of Google.
const (
	crowdStrikeScores  = "/zero-trust-assessment/queries/assessments/v1"
	crowdStrikeDetails = "/zero-trust-assessment/entities/assessments/v1"
	googleDevices      = "/v1/devices"
	googleUsers        = "/v1/devices/-/deviceUsers"
	googleStates       = "/v1/devices/-/deviceUsers/-/clientStates"
)

var microsoftNext = []string{"@odata.nextLink"}

var vendors = map[string]vendor{
	"http": {
		lists: map[string]list{"/devices": linked(func(records []any, next any) any {
			return map[string]any{"data": map[string]any{"devices": records}, "paging": map[string]any{"@odata.next": next}}
		})},
		next:    []string{"paging", "@odata.next"},
		records: in("/devices", httpRecord),
	},
	"fleet": {
		lists: map[string]list{"/api/v1/fleet/hosts": numbered(func(records []any, _ int) any {
			return map[string]any{"hosts": records}
		})},
		records: in("/api/v1/fleet/hosts", fleetRecord),
	},
	"intune": {
		token: "/" + InventoryTenant + "/oauth2/v2.0/token", scope: true,
		lists: map[string]list{"/v1.0/deviceManagement/managedDevices": odata()}, next: microsoftNext,
		records: in("/v1.0/deviceManagement/managedDevices", intuneRecord),
	},
	"entra": {
		token: "/" + InventoryTenant + "/oauth2/v2.0/token", scope: true,
		lists: map[string]list{"/v1.0/devices/delta": delta, "/v1.0/deviceManagement/managedDevices": odata()}, next: microsoftNext,
		records: func(n int, d access.Device) map[string][]any {
			all := in("/v1.0/devices/delta", entraRecord)(n, d)
			maps.Copy(all, in("/v1.0/deviceManagement/managedDevices", intuneRecord)(n, d))
			return all
		},
	},
	"defender": {
		token: "/" + InventoryTenant + "/oauth2/v2.0/token", scope: true,
		lists: map[string]list{"/api/machines": odata()}, next: microsoftNext,
		records: in("/api/machines", defenderRecord),
	},
	"jamf": {
		token: "/api/oauth/token",
		lists: map[string]list{"/api/v1/computers-inventory": numbered(func(records []any, total int) any {
			return map[string]any{"totalCount": total, "results": records}
		})},
		records: in("/api/v1/computers-inventory", jamfRecord),
	},
	"google": {
		token: "/token", assertion: true,
		lists: map[string]list{
			googleDevices: googleList("devices"), googleUsers: googleList("deviceUsers"), googleStates: googleList("clientStates"),
		},
		next: []string{"nextPageToken"},
		records: func(n int, d access.Device) map[string][]any {
			device, user, state := googleRecords(n, d)
			return map[string][]any{googleDevices: {device}, googleUsers: {user}, googleStates: {state}}
		},
	},
	"crowdstrike": {
		token: "/oauth2/token", created: true,
		lists: map[string]list{crowdStrikeScores: assessments, crowdStrikeDetails: assessed},
		next:  []string{"meta", "pagination", "next"},
		records: func(n int, d access.Device) map[string][]any {
			score, detail := crowdStrikeRecords(n, d)
			return map[string][]any{crowdStrikeScores: {score}, crowdStrikeDetails: {detail}}
		},
	},
}

// in says that a device is one record of one list.
func in(path string, record func(n int, d access.Device) map[string]any) func(int, access.Device) map[string][]any {
	return func(n int, d access.Device) map[string][]any { return map[string][]any{path: {record(n, d)}} }
}

// word returns a vendor's word for a fact, nil where it is unknown.
func word(fact access.Tri, yes, no any) any {
	switch fact {
	case access.Yes:
		return yes
	case access.No:
		return no
	}
	return nil
}

// level returns a vendor's word for a risk, nil where it is unknown.
func level(risk access.Risk, words ...string) any {
	if risk == access.RiskUnknown || int(risk) > len(words) {
		return nil
	}
	return words[risk-1]
}

func at(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}

func httpRecord(_ int, d access.Device) map[string]any {
	return map[string]any{
		"udid": d.ID, "label": d.Name, "person": map[string]any{"mail": d.Owner},
		"compliance": map[string]any{"state": word(d.Compliant, "OK", "BAD"), "why": d.Reasons}, "mdm": word(d.Managed, "yes", "no"),
		"fv": word(d.DiskEncrypted, true, false), "root": word(d.Jailbroken, 1, 0), "threat": level(d.Risk, "0", "1", "3", "red"),
		"system": d.OS, "version": d.OSVersion, "contact": at(d.SeenAt),
	}
}

func fleetRecord(n int, d access.Device) map[string]any {
	failing := 0
	if d.Compliant == access.No {
		failing = 1
	}
	policy := map[string]any{"id": 1, "name": "Firewall on", "response": word(d.Compliant, "pass", "fail")}
	if d.Compliant == access.Unknown {
		policy["response"] = ""
	}
	return map[string]any{
		"id": n, "uuid": d.ID, "hostname": d.Name, "platform": d.OS, "os_version": d.OS + " " + d.OSVersion,
		"seen_time": at(d.SeenAt), "detail_updated_at": at(d.SeenAt), "status": "online",
		"disk_encryption_enabled": word(d.DiskEncrypted, true, false), "policies": []any{policy},
		"issues": map[string]any{"failing_policies_count": failing, "total_issues_count": failing},
		"mdm":    map[string]any{"enrollment_status": word(d.Managed, "On (automatic)", "Off")},
	}
}

func intuneRecord(n int, d access.Device) map[string]any {
	return map[string]any{
		"id": fmt.Sprintf("managed-%d", n), "azureADDeviceId": d.ID, "deviceName": d.Name, "userPrincipalName": d.Owner,
		"serialNumber": fmt.Sprintf("SN%d", n), "operatingSystem": d.OS, "osVersion": d.OSVersion, "lastSyncDateTime": at(d.SeenAt),
		"complianceState": word(d.Compliant, "compliant", "noncompliant"), "managementAgent": word(d.Managed, "mdm", "eas"),
		"isEncrypted": word(d.DiskEncrypted, true, false), "jailBroken": word(d.Jailbroken, "True", "False"),
		"partnerReportedThreatState": level(d.Risk, "secured", "lowSeverity", "mediumSeverity", "highSeverity"),
	}
}

func entraRecord(_ int, d access.Device) map[string]any {
	return map[string]any{
		"id": "object-" + d.ID, "deviceId": d.ID, "displayName": d.Name, "accountEnabled": d.Known != access.No,
		"isCompliant": word(d.Compliant, true, false), "isManaged": word(d.Managed, true, false), "trustType": "AzureAd",
		"operatingSystem": d.OS, "operatingSystemVersion": d.OSVersion, "approximateLastSignInDateTime": at(d.SeenAt),
	}
}

func defenderRecord(n int, d access.Device) map[string]any {
	record := map[string]any{
		"id": fmt.Sprintf("%040x", n), "aadDeviceId": d.ID, "computerDnsName": d.Name, "osPlatform": d.OS, "version": d.OSVersion,
		"lastSeen": at(d.SeenAt), "healthStatus": "Active", "onboardingStatus": "Onboarded", "exposureLevel": "Low",
		"riskScore": level(d.Risk, "None", "Low", "Medium", "High"),
	}
	if d.Risk == access.RiskHigh {
		record["exposureLevel"] = "High"
	}
	return record
}

func jamfRecord(n int, d access.Device) map[string]any {
	groups := []any{map[string]any{"groupId": "1", "groupName": "All Managed Clients", "smartGroup": true}}
	if d.Compliant == access.Yes {
		groups = append(groups, map[string]any{"groupId": "7", "groupName": "Compliant", "smartGroup": true})
	}
	return map[string]any{
		"id": strconv.Itoa(n), "udid": d.ID,
		"general": map[string]any{
			"name": d.Name, "lastContactTime": at(d.SeenAt), "reportDate": at(d.SeenAt), "managementId": "m-" + d.ID,
			"remoteManagement": map[string]any{"managed": word(d.Managed, true, false)},
		},
		"hardware":        map[string]any{"serialNumber": fmt.Sprintf("C%d", n)},
		"userAndLocation": map[string]any{"username": d.Owner, "email": d.Owner},
		"operatingSystem": map[string]any{"name": d.OS, "version": d.OSVersion},
		"diskEncryption": map[string]any{
			"fileVault2Enabled":              d.DiskEncrypted == access.Yes,
			"bootPartitionEncryptionDetails": map[string]any{"partitionFileVault2State": word(d.DiskEncrypted, "ENCRYPTED", "UNENCRYPTED")},
		},
		"security":         map[string]any{"sipStatus": word(d.Jailbroken, "DISABLED", "ENABLED")},
		"groupMemberships": groups,
	}
}

// googleTypes are the words for operating systems.
var googleTypes = map[string]string{"macos": "MAC_OS", "windows": "WINDOWS", "linux": "LINUX", "android": "ANDROID", "ios": "IOS", "chromeos": "CHROME_OS"}

func googleRecords(n int, d access.Device) (device, user, state map[string]any) {
	name := fmt.Sprintf("devices/%d", n)
	device = map[string]any{
		"name": name, "deviceId": d.ID, "hostname": d.Name, "serialNumber": fmt.Sprintf("G%d", n), "deviceType": googleTypes[d.OS],
		"osVersion": d.OS + " " + d.OSVersion, "lastSyncTime": at(d.SeenAt),
		"encryptionState":  word(d.DiskEncrypted, "ENCRYPTED", "NOT_ENCRYPTED"),
		"compromisedState": word(d.Jailbroken, "COMPROMISED", "UNCOMPROMISED"),
	}
	user = map[string]any{
		"name": name + "/deviceUsers/u", "userEmail": d.Owner, "managementState": word(d.Managed, "APPROVED", "PENDING_APPROVAL"),
	}
	state = map[string]any{
		"name": name + "/deviceUsers/u/clientStates/C01-demo", "complianceState": word(d.Compliant, "COMPLIANT", "NON_COMPLIANT"),
		"healthScore": level(d.Risk, "VERY_GOOD", "GOOD", "NEUTRAL", "POOR"),
	}
	return device, user, state
}

// crowdStrikePlatforms are the words for operating systems.
var crowdStrikePlatforms = map[string]string{"macos": "Mac", "windows": "Win", "linux": "Lin"}

func crowdStrikeRecords(n int, d access.Device) (score, detail map[string]any) {
	agent := fmt.Sprintf("%032x", n)
	overall := word(d.Compliant, 90, 60)
	score = map[string]any{"aid": agent, "score": overall}
	detail = map[string]any{
		"aid": agent, "cid": fmt.Sprintf("%032x", 1<<20), "system_serial_number": d.ID, "event_platform": crowdStrikePlatforms[d.OS],
		"product_type_desc": "Workstation", "modified_time": at(d.SeenAt),
		"assessment": map[string]any{"overall": overall, "os": overall, "sensor_config": overall, "version": "3.5.1"},
	}
	return score, detail
}
