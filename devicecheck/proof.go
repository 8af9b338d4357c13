package devicecheck

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// maxProof bounds what a claim or a certificate may name as a device.
const maxProof = 256

// proof is one entry of `match`: a way for a device to identify itself.
type proof struct {
	name string // as configured: "certificate.serial", "claim.deviceid"
	// claim is the claim's name, or empty for a part of the certificate.
	claim string
	// from lists the providers whose claims count. Empty: all.
	from []string
	// part is the part of the certificate.
	part part
	// key is the inventory field that the value is looked up in.
	key key
}

// part is a field of a certificate that can name a device.
type part uint8

const (
	noPart part = iota
	fingerprintPart
	serialPart
	sanPart
	subjectPart
)

func parseProof(entry string) (proof, error) {
	switch entry {
	case "certificate.fingerprint":
		return proof{name: entry, part: fingerprintPart, key: fingerprintKey}, nil
	case "certificate.serial":
		return proof{name: entry, part: serialPart, key: serialKey}, nil
	case "certificate.san":
		return proof{name: entry, part: sanPart}, nil
	case "certificate.subject_cn":
		return proof{name: entry, part: subjectPart}, nil
	}
	claim, ok := strings.CutPrefix(entry, "claim.")
	if !ok || claim == "" || len(claim) > maxClaimName || !isPlain(claim) || strings.Contains(claim, " ") {
		return proof{}, fmt.Errorf("%q is no proof of a device", clip(entry))
	}
	return proof{name: entry, claim: claim}, nil
}

// values returns what the proof says in this request, none if it is not there.
// one is room for a single value, so that nothing is allocated.
func (p *proof) values(id *access.Identity, cert *certificate, one *[1]string) []string {
	switch {
	case p.claim != "":
		if id.Nobody() || len(p.from) > 0 && !slices.Contains(p.from, id.Provider) {
			return nil
		}
		one[0], _ = id.Claims[p.claim].(string)
	case cert == nil:
		return nil
	case p.part == sanPart:
		return cert.sans
	case p.part == fingerprintPart:
		one[0] = cert.facts.Fingerprint
	case p.part == serialPart:
		one[0] = cert.facts.Serial
	case p.part == subjectPart:
		one[0] = cert.commonName
	}
	// A value that no inventory could list is no proof of anything.
	if !canName(one[0]) {
		return nil
	}
	return one[:]
}

func canName(value string) bool {
	return value != "" && len(value) <= maxProof && isPlain(value)
}

// evidence is everything the proofs of one request say.
type evidence struct {
	// device is what the most preferred proof found, as the inventory in state
	// lists it; matchedBy is that proof. If no inventory lists any, id is what
	// the most preferred proof names.
	device    *access.Device
	state     *state
	matchedBy string
	id        string

	// heard tells which parts said anything; heard[noPart] is for the claims.
	heard [subjectPart + 1]bool
	// certificate and claims are what each side found.
	certificate, claims *access.Device
	// claim is the device id that the most preferred claim names.
	claim string
	// conflict is set when two certificate parts, or two claims, found
	// different devices.
	conflict bool
}

// add takes one value of a proof and what it found, device being nil if nothing.
func (e *evidence) add(p *proof, value string, device *access.Device, in *state) {
	e.heard[p.part] = true
	if e.id == "" {
		e.id, e.matchedBy = value, p.name
	}
	if p.part == noPart && e.claim == "" {
		e.claim = value
	}
	if device == nil {
		return
	}
	if e.device == nil {
		e.device, e.state, e.id, e.matchedBy = device, in, device.ID, p.name
	}
	side := &e.certificate
	if p.part == noPart {
		side = &e.claims
	}
	if *side == nil {
		*side = device
	} else if !sameDevice(*side, device) {
		e.conflict = true
	}
}

// contradictory reports whether the proofs name different devices. certain
// tells that every inventory can be read, so that an id which was not found is
// truly that of another device.
func (e *evidence) contradictory(cert *certificate, certain bool) bool {
	if e.conflict {
		return true
	}
	if cert == nil || !e.heard[noPart] {
		return false
	}
	certNamesID := e.heard[sanPart] || e.heard[subjectPart]
	switch {
	case e.certificate != nil && e.claims != nil:
		return !sameDevice(e.certificate, e.claims)
	case e.claims != nil:
		// A certificate nobody lists does no harm by itself, unless the device
		// that the claim names is listed with another one.
		return e.heard[serialPart] && e.claims.Certificate.Serial != "" ||
			e.heard[fingerprintPart] && e.claims.Certificate.Fingerprint != "" ||
			certNamesID && certain
	case e.certificate != nil:
		return certain
	default:
		return certNamesID && !(e.heard[subjectPart] && cert.commonName == e.claim) &&
			!(e.heard[sanPart] && slices.Contains(cert.sans, e.claim))
	}
}

// sameDevice reports whether two records, maybe of two inventories, are about
// one device.
func sameDevice(a, b *access.Device) bool {
	return a == b || a.ID == b.ID ||
		a.Certificate.Serial != "" && a.Certificate.Serial == b.Certificate.Serial ||
		a.Certificate.Fingerprint != "" && a.Certificate.Fingerprint == b.Certificate.Fingerprint
}
