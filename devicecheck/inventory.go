package devicecheck

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/doorward/doorward/internal/access"
)

// Limits of one inventory. What lies beyond is a fault, never cut off.
const (
	maxRecords = 200_000
	maxField   = 4 << 10
	maxReasons = 64
	maxFaults  = 20 // told in one error
)

// inventory is an immutable set of devices with an index for every way a
// device can be found. In each device, Certificate holds the serial number and
// the fingerprint that the inventory lists for it.
type inventory struct {
	// version tells contents apart; equal versions hold equal devices.
	version string
	// odd is how many values the reading had that are not known here.
	odd int

	devices       []access.Device
	byID          map[string]int32
	bySerial      map[string]int32
	byFingerprint map[string]int32
}

// find returns the device that the index lists under key, or nil.
func (inv *inventory) find(by key, value string) *access.Device {
	index := inv.byID
	switch by {
	case serialKey:
		index = inv.bySerial
	case fingerprintKey:
		index = inv.byFingerprint
	}
	if n, ok := index[value]; ok {
		return &inv.devices[n]
	}
	return nil
}

// key is a field by which devices are found.
type key uint8

const (
	idKey key = iota
	serialKey
	fingerprintKey
)

// field is one column of a CSV inventory, or one member of a JSON record.
type field struct {
	name string
	// fact marks fields that are yes, no or unknown.
	fact bool
	// set stores a value that is not empty. Its error says what is wrong and
	// what would be right.
	set func(d *access.Device, value string) error
}

// fields is the whole vocabulary of an inventory file. The list of reasons has
// its own entry point in each format.
var fields = []field{
	{"id", false, func(d *access.Device, v string) error { d.ID = v; return trimmed(v) }},
	{"serial", false, func(d *access.Device, v string) (err error) {
		d.Certificate.Serial, err = normalSerial(v)
		return err
	}},
	{"fingerprint", false, func(d *access.Device, v string) (err error) {
		d.Certificate.Fingerprint, err = normalFingerprint(v)
		return err
	}},
	{"name", false, func(d *access.Device, v string) error { d.Name = v; return nil }},
	{"owner", false, func(d *access.Device, v string) error { d.Owner = v; return nil }},
	{"managed", true, func(d *access.Device, v string) error { return setFact(&d.Managed, v) }},
	{"compliant", true, func(d *access.Device, v string) error { return setFact(&d.Compliant, v) }},
	{"disk_encrypted", true, func(d *access.Device, v string) error { return setFact(&d.DiskEncrypted, v) }},
	{"jailbroken", true, func(d *access.Device, v string) error { return setFact(&d.Jailbroken, v) }},
	{riskField, false, func(d *access.Device, v string) error { return setRisk(&d.Risk, v) }},
	{"os", false, func(d *access.Device, v string) error { d.OS = normalOS(v); return nil }},
	{"os_version", false, func(d *access.Device, v string) error { d.OSVersion = strings.TrimSpace(v); return nil }},
	{"last_seen", false, func(d *access.Device, v string) error { return setTime(&d.SeenAt, v) }},
	{"grace_until", false, func(d *access.Device, v string) error { return setTime(&d.GraceUntil, v) }},
	{reasonsField, false, nil},
}

// Fields with a way of their own into the normal form.
const (
	riskField    = "risk"
	reasonsField = "reasons"
)

const fieldNames = "id, serial, fingerprint, name, owner, managed, compliant, disk_encrypted, jailbroken, risk, os, os_version, last_seen, grace_until, reasons"

// fieldIndex returns the place of a field in fields, or -1.
func fieldIndex(name string) int {
	return slices.IndexFunc(fields, func(f field) bool { return f.name == name })
}

// apply checks and stores one value. An empty value leaves the fact unknown.
func (f *field) apply(d *access.Device, value string) error {
	if value == "" {
		return nil
	}
	if err := checkText(value); err != nil {
		return err
	}
	return f.set(d, value)
}

func setFact(fact *access.Tri, value string) error {
	if err := fact.UnmarshalText([]byte(value)); err != nil {
		return fmt.Errorf("%q is neither yes nor no (write yes, no, or nothing where it is unknown)", clip(value))
	}
	return nil
}

func setRisk(risk *access.Risk, value string) error {
	if err := risk.UnmarshalText([]byte(value)); err != nil {
		return fmt.Errorf("%q is no risk (write none, low, medium, high, or nothing where it is unknown)", clip(value))
	}
	return nil
}

func setTime(at *time.Time, value string) error {
	if err := at.UnmarshalText([]byte(value)); err != nil {
		return fmt.Errorf("%q is no time (write RFC 3339, such as 2026-11-23T08:00:00Z)", clip(value))
	}
	*at = at.UTC()
	return nil
}

// addReason appends one of the inventory's own words for a failed check.
func addReason(d *access.Device, value string) error {
	if value = strings.TrimSpace(value); value == "" {
		return nil
	}
	if err := checkText(value); err != nil {
		return err
	}
	if len(d.Reasons) == maxReasons {
		return fmt.Errorf("there are more than %d reasons (keep the most important ones)", maxReasons)
	}
	d.Reasons = append(d.Reasons, value)
	return nil
}

// checkText refuses what no name or id holds: these values reach logs, pages
// and request headers, so a line break in one of them is an attack or a defect.
func checkText(value string) error {
	if len(value) > maxField {
		return fmt.Errorf("the value is longer than %d bytes (shorten it)", maxField)
	}
	if !isPlain(value) {
		return fmt.Errorf("%q holds a control character or is not UTF-8 (remove it)", clip(value))
	}
	return nil
}

func isPlain(value string) bool {
	for _, r := range value {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return false
		}
	}
	return true
}

func trimmed(value string) error {
	if strings.TrimSpace(value) != value {
		return fmt.Errorf("%q begins or ends with a blank (remove it)", clip(value))
	}
	return nil
}

// normalSerial brings a certificate serial number into the form of
// access.Certificate: lower-case hexadecimal, whole bytes, no leading zeros.
func normalSerial(value string) (string, error) {
	const cure = "write the serial number of the device's certificate in hexadecimal, such as 4f:01:a2; it is not the serial number of the hardware"
	digits := strings.ReplaceAll(value, ":", "")
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) == 0 || len(raw) > 64 {
		return "", fmt.Errorf("%q is no certificate serial number (%s)", clip(value), cure)
	}
	for len(raw) > 1 && raw[0] == 0 {
		raw = raw[1:]
	}
	return hex.EncodeToString(raw), nil
}

func normalFingerprint(value string) (string, error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(value, ":", ""))
	if err != nil || len(raw) != 32 {
		return "", fmt.Errorf("%q is no SHA-256 fingerprint (write the SHA-256 of the certificate's DER form as 64 hexadecimal digits)", clip(value))
	}
	return hex.EncodeToString(raw), nil
}

// builder collects the devices of one file, and everything wrong with it.
type builder struct {
	file   string
	inv    *inventory
	faults []string
}

func newBuilder(file, version string) *builder {
	return &builder{file: file, inv: &inventory{
		version:       version,
		byID:          map[string]int32{},
		bySerial:      map[string]int32{},
		byFingerprint: map[string]int32{},
	}}
}

// enough reports whether so much is wrong that reading on helps nobody.
func (b *builder) enough() bool { return len(b.faults) >= maxFaults }

// fault notes one mistake. The cure stands in parentheses at the end of text.
func (b *builder) fault(line, column int, format string, args ...any) {
	b.faults = append(b.faults, fmt.Sprintf("%s:%d:%d: ", b.file, line, column)+fmt.Sprintf(format, args...))
}

// full reports that one more record, which begins at line and column, is too many.
func (b *builder) full(line, column int) bool {
	if len(b.inv.devices) < maxRecords {
		return false
	}
	b.fault(line, column, "there are more than %d records (split the file into several sources)", maxRecords)
	return true
}

// add takes one record that begins at line and column. Two records may share
// neither id nor certificate, or it would depend on their order who is who.
func (b *builder) add(d access.Device, line, column int) {
	d.Known = access.Yes
	number := int32(len(b.inv.devices))
	b.inv.devices = append(b.inv.devices, d)
	if d.ID == "" {
		b.fault(line, column, "record %d has no id (give every device one)", number+1)
		return
	}
	for _, key := range []struct {
		name, value string
		index       map[string]int32
	}{
		{"id", d.ID, b.inv.byID},
		{"serial", d.Certificate.Serial, b.inv.bySerial},
		{"fingerprint", d.Certificate.Fingerprint, b.inv.byFingerprint},
	} {
		if key.value == "" {
			continue
		}
		if first, dup := key.index[key.value]; dup {
			b.fault(line, column, "record %d has the same %s %q as record %d (remove one of them)", number+1, key.name, clip(key.value), first+1)
			continue
		}
		key.index[key.value] = number
	}
}

// done returns the inventory if nothing is wrong with it.
func (b *builder) done() (*inventory, error) {
	if len(b.faults) == 0 {
		return b.inv, nil
	}
	if b.enough() {
		b.faults = append(b.faults, b.file+": too many faults, the rest was not read")
	}
	return nil, errors.New(strings.Join(b.faults, "\n"))
}

// clip shortens a value for a message.
func clip(value string) string {
	const most = 60
	if len(value) <= most {
		return value
	}
	return strings.ToValidUTF8(value[:most], "") + "…"
}
