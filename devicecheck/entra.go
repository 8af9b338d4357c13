package devicecheck

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const entraSelect = "id,deviceId,displayName,accountEnabled,isCompliant,isManaged,trustType,operatingSystem,operatingSystemVersion," +
	"approximateLastSignInDateTime,complianceExpirationDateTime"

// entraAnew is how often everything is read again, whatever changes were told.
const entraAnew = 24 * time.Hour

// entraTrust are the ways a device can belong to a tenant: registered, joined,
// hybrid joined.
var entraTrust = []string{"Workplace", "AzureAd", "ServerAd"}

// entra is the list of devices of Microsoft Entra, kept current by delta
// queries, on request joined with the managed devices of Intune.
type entra struct {
	*remote
	key    string
	trust  []string
	intune *intune // nil: Entra alone

	// What the last whole round ended with. It is replaced as a whole.
	round entraRound
}

// entraRound is the state of a delta query.
type entraRound struct {
	link    *url.URL // to the changes since; nil before the first round
	since   time.Time
	devices map[string]entraDevice // by the id of the directory object
}

// entraDevice is one directory object, as the changes so far leave it.
type entraDevice struct {
	id, object, name, os, osVersion string
	seen, compliantUntil            time.Time
	// As they were given, or short texts in the place of anything larger.
	enabled, compliant, managed, trust any
}

func newEntra(s Source, o outside) (*entra, error) {
	r, err := newMicrosoft(s, graphURL, o)
	if err != nil {
		return nil, err
	}
	e := &entra{remote: r, key: s.Key, trust: s.TrustTypes}
	if s.WithIntune {
		e.intune = &intune{remote: r, key: "azureADDeviceId"}
	}
	return e, nil
}

// fetch implements fetcher.
func (e *entra) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := e.begin()
	if err != nil {
		return nil, err
	}
	round, err := e.changes(ctx, p)
	if err != nil {
		return nil, err
	}
	managed, err := e.managed(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, object := range slices.Sorted(maps.Keys(round.devices)) {
		d, ok := e.device(p, round.devices[object])
		if !ok {
			continue
		}
		if managed != nil {
			join(&d, managed.device(round.devices[object].id))
		}
		if err := p.add(d); err != nil {
			return nil, err
		}
	}
	inv, err := p.done(have)
	if err == nil {
		e.round = round
	}
	return inv, err
}

// changes ends a round: the devices as they are now. Where the server does not
// remember the round before, or that was long ago, everything is read.
func (e *entra) changes(ctx context.Context, p *pull) (entraRound, error) {
	if e.round.link != nil && e.now().Sub(e.round.since) < entraAnew {
		next := entraRound{since: e.round.since, devices: maps.Clone(e.round.devices)}
		err := e.read(ctx, p, e.round.link, &next)
		var no *refused
		if !errors.As(err, &no) || no.status != http.StatusGone && no.status != http.StatusBadRequest && no.status != http.StatusNotFound {
			return next, err
		}
		e.round = entraRound{}
	}
	u := e.home.JoinPath("v1.0/devices/delta")
	u.RawQuery = url.Values{"$select": {entraSelect}}.Encode()
	whole := entraRound{since: e.now(), devices: map[string]entraDevice{}}
	err := e.read(ctx, p, u, &whole)
	return whole, err
}

// read follows the pages from u on and applies what they say.
func (e *entra) read(ctx context.Context, p *pull, u *url.URL, round *entraRound) error {
	around, err := p.byLink(ctx, u, odataItems, odataNext, func(record map[string]any) error {
		return round.apply(record)
	})
	if err != nil {
		return err
	}
	link, there, err := nextLink(jsonPath{"@odata.deltaLink"}, around)
	if err != nil || !there {
		return errors.New("the last page has no link to later changes")
	}
	if round.link, err = e.home.Parse(link); err != nil || !sameHost(round.link, e.home) {
		return fmt.Errorf("the link to later changes is not on %s", e.home.Host)
	}
	return nil
}

// apply takes one change. A property that is not there has not changed; one that
// is null has no value any more.
func (r *entraRound) apply(record map[string]any) error {
	object, _ := record["id"].(string)
	if object == "" {
		return errors.New(`a device has no text "id"`)
	}
	if _, removed := record["@removed"]; removed {
		delete(r.devices, object)
		return nil
	}
	d, known := r.devices[object]
	if !known && len(r.devices) == maxRecords {
		return fmt.Errorf("there are more than %d devices", maxRecords)
	}
	d.object = object
	for name, set := range map[string]func(any){
		"deviceId":                      func(v any) { d.id, _ = v.(string) },
		"displayName":                   func(v any) { d.name = plain(v) },
		"operatingSystem":               func(v any) { d.os = plain(v) },
		"operatingSystemVersion":        func(v any) { d.osVersion = plain(v) },
		"trustType":                     func(v any) { d.trust = small(v) },
		"accountEnabled":                func(v any) { d.enabled = small(v) },
		"isCompliant":                   func(v any) { d.compliant = small(v) },
		"isManaged":                     func(v any) { d.managed = small(v) },
		"approximateLastSignInDateTime": func(v any) { d.seen = moment(v) },
		"complianceExpirationDateTime":  func(v any) { d.compliantUntil = moment(v) },
	} {
		if value, there := record[name]; there {
			set(value)
		}
	}
	r.devices[object] = d
	return nil
}

// device returns the normal form. A device that is not enabled is none: Entra
// refuses it everywhere, and so do we.
func (e *entra) device(p *pull, from entraDevice) (access.Device, bool) {
	if truth(p.odd, "accountEnabled", from.enabled) != access.Yes {
		return access.Device{}, false
	}
	d := access.Device{
		ID: from.id, Name: from.name, OS: normalOS(from.os), OSVersion: from.osVersion,
		Compliant: truth(p.odd, "isCompliant", from.compliant), Managed: truth(p.odd, "isManaged", from.managed), SeenAt: from.seen,
	}
	if e.key == "id" {
		d.ID = from.object
	}
	if d.ID == nobodysID {
		d.ID = ""
	}
	if d.Compliant == access.No {
		note(&d, "Entra: not compliant")
	}
	if until := from.compliantUntil; d.Compliant == access.Yes && !until.IsZero() && !e.now().Before(until) {
		d.Compliant = access.Unknown
		note(&d, "Entra: the compliance ended at "+until.Format(time.RFC3339))
	}
	trust, _ := from.trust.(string)
	switch {
	case !slices.Contains(entraTrust, trust):
		p.odd.note("trustType", from.trust)
		if len(e.trust) > 0 {
			d.Managed = access.Unknown
		}
	case len(e.trust) > 0 && !slices.Contains(e.trust, trust):
		d.Managed = access.No
	}
	return d, true
}

// small is a value that can be kept for long: what is neither true nor false
// becomes a short text.
func small(value any) any {
	switch value.(type) {
	case nil, bool:
		return value
	}
	text, ok := scalar(value)
	if !ok {
		return "a list or an object"
	}
	return clip(text)
}

// managed reads the managed devices of Intune, nil where they do not matter.
func (e *entra) managed(ctx context.Context, p *pull) (*pull, error) {
	if e.intune == nil {
		return nil, nil
	}
	second := *p // shares the limits and what is odd, not the devices
	second.devices, second.byID = nil, map[string]int{}
	err := e.intune.read(ctx, &second)
	p.left, p.retries, p.renewed = second.left, second.retries, second.renewed
	return &second, err
}

// device returns what was added under an id, or nil.
func (p *pull) device(id string) *access.Device {
	if n, ok := p.byID[id]; ok {
		return &p.devices[n]
	}
	return nil
}

// join adds to a device of Entra what Intune says about it, nil for nothing.
// Compliant and managed it is only if both say so.
func join(d, managed *access.Device) {
	if managed == nil {
		managed = &access.Device{}
		note(d, "Intune does not know the device")
	}
	d.Compliant, d.Managed = both(d.Compliant, managed.Compliant), both(d.Managed, managed.Managed)
	d.GraceUntil = managed.GraceUntil
	d.DiskEncrypted, d.Jailbroken, d.Risk, d.Owner = managed.DiskEncrypted, managed.Jailbroken, managed.Risk, managed.Owner
	if managed.OS != "" {
		d.OS, d.OSVersion = managed.OS, managed.OSVersion
	}
	d.SeenAt = managed.SeenAt // the facts are as old as the report to Intune
	for _, reason := range managed.Reasons {
		note(d, reason)
	}
}

// both is yes if both are, no if one is, unknown otherwise.
func both(a, b access.Tri) access.Tri {
	switch {
	case a == access.No || b == access.No:
		return access.No
	case a == access.Yes && b == access.Yes:
		return access.Yes
	}
	return access.Unknown
}
