package devicecheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	graphURL      = "https://graph.microsoft.com"
	microsoftAuth = "https://login.microsoftonline.com"
	// A token is renewed this long before it expires.
	tokenMargin = time.Minute
	// nobodysID stands for a device that Entra does not know.
	nobodysID = "00000000-0000-0000-0000-000000000000"
)

// intuneKeys are the members of a managedDevice that may be the device's id.
var intuneKeys = []string{"azureADDeviceId", "id", "serialNumber"}

const intuneSelect = "id,deviceName,managementAgent,lastSyncDateTime,operatingSystem,osVersion,complianceState," +
	"complianceGracePeriodExpirationDateTime,jailBroken,isEncrypted,azureADDeviceId,userPrincipalName,serialNumber,partnerReportedThreatState"

// intune is the list managedDevices of Microsoft Graph.
type intune struct {
	*remote
	key      string
	tokenURL string
	form     url.Values

	token   string
	expires time.Time
}

func newIntune(s Source, o outside) (*intune, error) {
	r, err := newRemote(orText(s.URL, graphURL), o)
	if err != nil {
		return nil, err
	}
	auth, err := parseHome(orText(s.AuthURL, microsoftAuth))
	if err != nil {
		return nil, err
	}
	i := &intune{
		remote: r, key: orText(s.Key, intuneKeys[0]),
		tokenURL: auth.JoinPath(s.Tenant, "oauth2/v2.0/token").String(),
		form: url.Values{
			"grant_type": {"client_credentials"}, "client_id": {s.ClientID}, "client_secret": {s.ClientSecret.Reveal()},
			"scope": {r.home.JoinPath(".default").String()},
		},
	}
	i.authorize = i.bearer
	return i, nil
}

func orText(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// bearer adds the token, after asking for one where that is due.
func (i *intune) bearer(ctx context.Context, p *pull, header http.Header, fresh bool) (bool, error) {
	if fresh || i.token == "" || !i.now().Before(i.expires) {
		i.token = ""
		if err := i.renew(ctx, p); err != nil {
			return false, fmt.Errorf("no token: %w", err)
		}
	}
	header.Set("Authorization", "Bearer "+i.token)
	return true, nil
}

func (i *intune) renew(ctx context.Context, p *pull) error {
	body, err := p.ask(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.tokenURL, strings.NewReader(i.form.Encode()))
		if err != nil {
			return nil, errors.New("the address for tokens is invalid")
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Accept", "application/json")
		return req, nil
	})
	if errors.Is(err, errUnauthorized) {
		// Not that of a page, which a fresh token could cure.
		return errors.New("the client id or its secret is refused")
	}
	if err != nil {
		return err
	}
	var answer struct {
		Token   string `json:"access_token"`
		Type    string `json:"token_type"`
		Expires int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return errors.New("the answer is no token") // the error could repeat it
	}
	if answer.Token == "" || strings.ContainsFunc(answer.Token, func(r rune) bool { return r <= ' ' || r > '~' }) || !strings.EqualFold(answer.Type, "Bearer") {
		return errors.New("the answer holds no bearer token")
	}
	life := time.Duration(min(max(answer.Expires, 0), 24*3600)) * time.Second
	i.token, i.expires = answer.Token, i.now().Add(life-tokenMargin)
	return nil
}

// fetch implements fetcher. The links between pages are followed as they are.
func (i *intune) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := i.begin()
	if err != nil {
		return nil, err
	}
	u := i.home.JoinPath("v1.0/deviceManagement/managedDevices")
	u.RawQuery = url.Values{"$select": {intuneSelect}}.Encode()
	for {
		around, err := p.take(ctx, u, jsonPath{"value"}, i.device)
		if err != nil {
			return nil, err
		}
		link, more, err := nextLink(jsonPath{"@odata.nextLink"}, around)
		if err != nil {
			return nil, err
		}
		if !more {
			return p.done(have)
		}
		if u, err = url.Parse(link); err != nil {
			return nil, errors.New("the link to the next page is no URL")
		}
	}
}

func (i *intune) device(record map[string]any) (access.Device, error) {
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
		Managed: intuneManaged(record["managementAgent"]), DiskEncrypted: fact(record["isEncrypted"]),
		SeenAt: moment(record["lastSyncDateTime"]),
	}
	switch record["jailBroken"] { // a text, not a boolean
	case "True":
		d.Jailbroken = access.Yes
	case "False":
		d.Jailbroken = access.No
	}
	intuneCompliance(&d, record)
	return d, nil
}

// intuneCompliance: only the state "compliant" is, and only while no partner
// reports a serious threat.
func intuneCompliance(d *access.Device, record map[string]any) {
	switch state := plain(record["complianceState"]); state {
	case "compliant":
		d.Compliant = access.Yes
	case "noncompliant":
		d.Compliant = access.No
		note(d, "Intune: not compliant")
	case "inGracePeriod":
		d.Compliant = access.No
		until := "a date that is not known"
		if at := moment(record["complianceGracePeriodExpirationDateTime"]); !at.IsZero() {
			until = at.Format(time.RFC3339)
		}
		note(d, "Intune: not compliant, in the grace period until "+until)
	case "":
	default: // unknown, conflict, error, configManager, and what is not known here
		note(d, "Intune: the compliance state is "+clip(state))
	}
	switch threat := plain(record["partnerReportedThreatState"]); threat {
	case "highSeverity", "compromised":
		d.Compliant = access.No
		note(d, "Threat protection reports: "+threat)
	}
}

// intuneManaged reports whether a management agent is one that can enforce
// settings. Agents that are not listed are unknown.
func intuneManaged(agent any) access.Tri {
	switch agent {
	case "mdm", "easMdm", "intuneClient", "easIntuneClient", "configurationManagerClientMdm", "configurationManagerClientMdmEas":
		return access.Yes
	}
	return access.Unknown
}
