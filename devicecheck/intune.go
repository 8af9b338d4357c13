package devicecheck

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	// nobodysID stands for a device that Entra does not know.
	nobodysID = "00000000-0000-0000-0000-000000000000"
)

const intuneSelect = "id,deviceName,managementAgent,lastSyncDateTime,operatingSystem,osVersion,complianceState," +
	"complianceGracePeriodExpirationDateTime,jailBroken,isEncrypted,azureADDeviceId,userPrincipalName,serialNumber,partnerReportedThreatState"

// intune is the list managedDevices of Microsoft Graph.
type intune struct {
	*remote
	key string
}

func newIntune(s Source, o outside) (*intune, error) {
	r, err := newMicrosoft(s, graphURL, o)
	if err != nil {
		return nil, err
	}
	return &intune{remote: r, key: s.Key}, nil
}

// fetch implements fetcher. The links between pages are followed as they are.
func (i *intune) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := i.begin()
	if err != nil {
		return nil, err
	}
	if err := i.read(ctx, p); err != nil {
		return nil, err
	}
	return p.done(have)
}

// read adds every managedDevice to a pull.
func (i *intune) read(ctx context.Context, p *pull) error {
	u := i.home.JoinPath("v1.0/deviceManagement/managedDevices")
	u.RawQuery = url.Values{"$select": {intuneSelect}}.Encode()
	_, err := p.byLink(ctx, u, odataItems, odataNext, p.adding(i.device))
	return err
}

func (i *intune) device(p *pull, record map[string]any) (access.Device, error) {
	if id, _ := record["id"].(string); id == "" {
		return access.Device{}, errors.New(`a device has no text "id"`)
	}
	id, _ := record[i.key].(string) // without one it is left out
	if id == nobodysID {
		id = ""
	}
	d := access.Device{
		ID: id, Name: plain(record["deviceName"]), Owner: plain(record["userPrincipalName"]),
		OS: normalOS(plain(record["operatingSystem"])), OSVersion: plain(record["osVersion"]),
		Managed: meaning(p.odd, "managementAgent", record["managementAgent"], intuneManaged), DiskEncrypted: truth(p.odd, "isEncrypted", record["isEncrypted"]),
		SeenAt: moment(record["lastSyncDateTime"]),
	}
	d.Jailbroken = meaning(p.odd, "jailBroken", record["jailBroken"], intuneJailbroken)
	d.Risk = meaning(p.odd, "partnerReportedThreatState", record["partnerReportedThreatState"], intuneRisk)
	d.Compliant = meaning(p.odd, "complianceState", record["complianceState"], intuneCompliant)
	intuneReasons(&d, record)
	return d, nil
}

// The words of Intune. Those that are unknown here are listed so that they are
// not counted as new ones.
var (
	intuneCompliant = map[string]access.Tri{
		"compliant": access.Yes, "noncompliant": access.No, "inGracePeriod": access.No,
		"unknown": access.Unknown, "conflict": access.Unknown, "error": access.Unknown, "configManager": access.Unknown,
	}
	intuneJailbroken = map[string]access.Tri{ // a text, not a boolean
		"True": access.Yes, "False": access.No, "Unknown": access.Unknown,
	}
	// intuneManaged lists the management agents that can enforce settings.
	intuneManaged = map[string]access.Tri{
		"mdm": access.Yes, "easMdm": access.Yes, "intuneClient": access.Yes, "easIntuneClient": access.Yes,
		"configurationManagerClientMdm": access.Yes, "configurationManagerClientMdmEas": access.Yes,
	}
	intuneRisk = map[string]access.Risk{
		"secured": access.RiskNone, "lowSeverity": access.RiskLow, "mediumSeverity": access.RiskMedium,
		"highSeverity": access.RiskHigh, "compromised": access.RiskHigh,
		"unknown": access.RiskUnknown, "activated": access.RiskUnknown, "deactivated": access.RiskUnknown,
		"unresponsive": access.RiskUnknown, "misconfigured": access.RiskUnknown,
	}
)

// intuneReasons says why a device is not compliant. It is not either while a
// partner reports a serious threat.
func intuneReasons(d *access.Device, record map[string]any) {
	switch state := plain(record["complianceState"]); state {
	case "compliant", "":
	case "noncompliant":
		note(d, "Intune: not compliant")
	case "inGracePeriod":
		until := "a date that is not known"
		if at := moment(record["complianceGracePeriodExpirationDateTime"]); !at.IsZero() {
			until = at.Format(time.RFC3339)
			d.GraceUntil = at
		}
		note(d, "Intune: not compliant, in the grace period until "+until)
	default: // unknown, conflict, error, configManager, and what is not known here
		note(d, "Intune: the compliance state is "+clip(state))
	}
	if d.Risk.Low() == access.No {
		note(d, "Threat protection reports: "+plain(record["partnerReportedThreatState"]))
	}
	if d.Risk == access.RiskHigh {
		d.Compliant = access.No
	}
}
