package devicecheck

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// defender is the list machines of Microsoft Defender for Endpoint. It knows how
// endangered a device is, and nothing about compliance.
type defender struct {
	*remote
	key string
}

func newDefender(s Source, o outside) (*defender, error) {
	r, err := newMicrosoft(s, defenderURL, o)
	if err != nil {
		return nil, err
	}
	return &defender{remote: r, key: s.Key}, nil
}

// fetch implements fetcher.
func (d *defender) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := d.begin()
	if err != nil {
		return nil, err
	}
	if _, err := p.byLink(ctx, d.home.JoinPath("api/machines"), odataItems, odataNext, p.adding(d.device)); err != nil {
		return nil, err
	}
	return p.done(have)
}

// The words of Defender.
var (
	defenderRisk = map[string]access.Risk{
		"None": access.RiskNone, "Informational": access.RiskLow, "Low": access.RiskLow,
		"Medium": access.RiskMedium, "High": access.RiskHigh,
	}
	// defenderHealth tells whether the sensor reports, so that its silence about
	// threats means something.
	defenderHealth = map[string]access.Tri{
		"Active": access.Yes, "Inactive": access.No, "ImpairedCommunication": access.No,
		"NoSensorData": access.No, "NoSensorDataImpairedCommunication": access.No, "Unknown": access.Unknown,
	}
	defenderOnboarded = map[string]access.Tri{
		"Onboarded": access.Yes, "CanBeOnboarded": access.No, "Unsupported": access.No, "InsufficientInfo": access.No,
	}
)

func (d *defender) device(p *pull, record map[string]any) (access.Device, error) {
	if id, _ := record["id"].(string); id == "" {
		return access.Device{}, errors.New(`a machine has no text "id"`)
	}
	id, _ := record[d.key].(string) // without one it is left out
	if id == nobodysID {
		id = ""
	}
	platform := plain(record["osPlatform"])
	out := access.Device{ID: id, Name: plain(record["computerDnsName"]), OS: defenderOS(platform), SeenAt: moment(record["lastSeen"])}
	out.OSVersion = defenderVersion(out.OS, record)

	out.Risk = meaning(p.odd, "riskScore", record["riskScore"], defenderRisk)
	onboarding, there := record["onboardingStatus"]
	if !there {
		onboarding = record["onboardingstatus"] // as some pages spell it
	}
	watched := meaning(p.odd, "onboardingStatus", onboarding, defenderOnboarded)
	healthy := meaning(p.odd, "healthStatus", record["healthStatus"], defenderHealth)
	if out.Risk.Low() == access.Yes && (watched != access.Yes || healthy != access.Yes) {
		out.Risk = access.RiskUnknown // nobody is watching
		note(&out, "Defender: the sensor does not report")
	}
	if out.Risk.Low() == access.No {
		note(&out, "Defender: the risk is "+out.Risk.String())
	}
	if exposure := plain(record["exposureLevel"]); exposure == "High" || exposure == "Medium" {
		note(&out, "Defender: the exposure is "+strings.ToLower(exposure))
	}
	return out, nil
}

// defenderOS returns the common name for a platform such as Windows11.
func defenderOS(platform string) string {
	if strings.HasPrefix(platform, "Windows") {
		return "windows"
	}
	return normalOS(platform)
}

// defenderVersion returns the version: the property of this name is that of the
// marketing for Windows, whose build is a number of its own.
func defenderVersion(system string, record map[string]any) string {
	if system != "windows" {
		return versionIn(system, plain(record["version"]))
	}
	build, ok := record["osBuild"].(json.Number)
	if platform := record["osPlatform"]; !ok || platform != "Windows10" && platform != "Windows11" {
		return ""
	}
	return "10.0." + build.String()
}
