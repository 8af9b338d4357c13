package devicecheck

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fetchFile reads a file as a source of type file does.
func fetchFile(path string) (*inventory, error) {
	f, err := newFile(path)
	if err != nil {
		return nil, err
	}
	return f.fetch(context.Background(), nil)
}

// The same three devices, written in either format.
func TestInventoryFiles(t *testing.T) {
	want := []access.Device{
		{
			ID: "laptop-1", Known: access.Yes, Managed: access.Yes, Compliant: access.Yes, DiskEncrypted: access.Yes, Jailbroken: access.No,
			Name: "Alice's laptop", Owner: "alice@example.com", Risk: access.RiskLow, OS: "macos", OSVersion: "15.5",
			SeenAt: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC), Certificate: access.Certificate{Serial: "4f01a2"},
		},
		{
			ID: "laptop-2", Known: access.Yes, Managed: access.Yes, Compliant: access.No,
			Risk: access.RiskHigh, OS: "windows", OSVersion: "10.0.22631.3447", Reasons: []string{"Firewall is off", "Virus definitions are old"},
			Certificate: access.Certificate{Fingerprint: strings.Repeat("ab", 32)},
		},
		{ID: "phone-3", Known: access.Yes},
	}
	for _, name := range []string{"devices.json", "devices.csv"} {
		inv, err := fetchFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(inv.devices, want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", name, inv.devices, want)
		}
		if inv.find(serialKey, "4f01a2") != &inv.devices[0] || inv.find(fingerprintKey, strings.Repeat("ab", 32)) != &inv.devices[1] ||
			inv.find(idKey, "phone-3") != &inv.devices[2] || inv.find(serialKey, "") != nil || inv.find(idKey, "4f01a2") != nil {
			t.Errorf("%s: the index leads elsewhere", name)
		}
	}
}

func TestInventoryWithByteOrderMark(t *testing.T) {
	for name, text := range map[string]string{"a.csv": "\ufeffid\r\nx\r\n", "a.json": "\ufeff[{\"id\":\"x\"}]"} {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, text)
		if inv, err := fetchFile(path); err != nil || len(inv.devices) != 1 || inv.devices[0].ID != "x" {
			t.Errorf("%s: %v, %v", name, inv, err)
		}
	}
}

// Every faulty file is refused as a whole, and the message leads to the place
// and to the cure.
func TestFaultyInventoriesNameThePlaceAndTheCure(t *testing.T) {
	want := map[string]string{
		"unknown_column.csv":       `:1:4: unknown column "encrypted" (the columns, separated by commas, are id, serial,`,
		"semicolons.csv":           `:1:1: unknown column "id;managed" (the columns, separated by commas,`,
		"column_twice.csv":         `:1:10: column owner is there twice (remove`,
		"no_id_column.csv":         `:1:1: the column id is missing (`,
		"empty.csv":                `:1:1: the file is empty (begin with a header line`,
		"empty_id.csv":             `:2:1: record 1 has no id (`,
		"id_twice.csv":             `:4:1: record 3 has the same id "a" as record 1 (`,
		"serial_twice.csv":         `:3:1: record 2 has the same serial "0a" as record 1 (`,
		"bad_fact.csv":             `:2:7: compliant: "ok" is neither yes nor no (write yes, no, or nothing`,
		"capital_fact.csv":         `:2:3: managed: "TRUE" is neither`,
		"bad_time.csv":             `:2:3: last_seen: "2026-11-23 08:00" is no time (write RFC 3339`,
		"hardware_serial.csv":      `:2:3: serial: "C02XK0AAJGH5" is no certificate serial number (`,
		"short_fingerprint.csv":    `:2:3: fingerprint: "abcd" is no SHA-256 fingerprint (`,
		"too_few_values.csv":       `:2:1: wrong number of fields (write one value per column`,
		"cut_off.csv":              `:3:1: the last line is not complete (`,
		"open_quote.csv":           `extraneous or missing " in quoted-field (`,
		"control.csv":              `:2:3: name: "x\ny" holds a control character`,
		"blank_id.csv":             `:2:1: id: " a" begins or ends with a blank (`,
		"latin1.csv":               `holds a control character or is not UTF-8 (`,
		"many.csv":                 `too many faults, the rest was not read`,
		"unknown_field.json":       `:2:3: record 1: unknown field "encrypted" (the fields are id,`,
		"field_case.json":          `:1:14: record 1: unknown field "Managed" (`,
		"field_twice.json":         `:2:3: record 1: field compliant is there twice (`,
		"field_twice_escaped.json": `record 1: field compliant is there twice (`,
		"devices_twice.json":       `:1:17: member "devices" does not belong here (`,
		"other_member.json":        `:1:2: member "version" does not belong here (`,
		"no_devices.json":          `:1:2: the object has no member "devices" (`,
		"not_a_list.json":          `:1:13: "devices" is no array (`,
		"a_word.json":              `:1:1: the file is neither an array of devices nor an object (`,
		"a_null.json":              `:1:1: the file is neither an array of devices nor an object (`,
		"record_is_text.json":      `:1:2: record 1 is no object (`,
		"no_id.json":               `:1:2: record 1 has no id (`,
		"id_twice.json":            `:2:2: record 2 has the same id "a" as record 1 (`,
		"fingerprint_twice.json":   `:2:2: record 2 has the same fingerprint "abab`,
		"number.json":              `:1:28: record 1: os_version: 15.5 is a number (write it in quotes)`,
		"bool_name.json":           `record 1: owner: true is no text (`,
		"number_fact.json":         `record 1: managed: 1 is a number (`,
		"nested.json":              `:1:23: record 1: owner: a list or an object does not belong here (`,
		"reasons_text.json":        `record 1: reasons: this is no list (`,
		"reasons_nested.json":      `record 1: reasons: a list or an object does not belong here (`,
		"bad_fact.json":            `:3:29: record 2: jailbroken: "False" is neither`,
		"cut_off.json":             `:3:15: the file ends too early (`,
		"cut_off_between.json":     `:2:1: the file ends too early (`,
		"empty.json":               `:1:1: the file ends too early (`,
		"trailing.json":            `:1:15: there is more after the end of the inventory (`,
		"comma.json":               `(correct the JSON syntax)`,
		"surrogate.json":           `holds a control character or is not UTF-8 (`,
		"latin1.json":              `:2:12: the file is not UTF-8 (`,
		"line_break.json":          `holds a control character`,
	}
	entries, err := os.ReadDir("testdata/faults")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("%d files, %d expectations", len(entries), len(want))
	}
	for _, entry := range entries {
		path := filepath.Join("testdata/faults", entry.Name())
		inv, err := fetchFile(path)
		if err == nil || inv != nil {
			t.Errorf("%s was accepted", entry.Name())
			continue
		}
		if !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), want[entry.Name()]) || want[entry.Name()] == "" {
			t.Errorf("%s: got\n%s\nwant …%s", entry.Name(), err, want[entry.Name()])
		}
	}
}

func TestInventoryReportsSeveralFaultsInOneRun(t *testing.T) {
	_, err := fetchFile("testdata/faults/bad_fact.json")
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("want two lines, got\n%v", err)
	}
}

func TestInventoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	records := func(n int) string {
		var s strings.Builder
		s.WriteString("id\n")
		for i := range n {
			fmt.Fprintln(&s, "d", i)
		}
		return s.String()
	}
	var jsonRecords strings.Builder
	jsonRecords.WriteString("[")
	for i := range maxRecords {
		fmt.Fprintf(&jsonRecords, "{\"id\":\"%d\"},\n", i)
	}
	jsonRecords.WriteString(`{"id":"one more"}]`)
	for _, c := range []struct{ name, text, want string }{
		{"field.csv", "id,name\na," + strings.Repeat("x", maxField+1) + "\n", "name: the value is longer than 4096 bytes"},
		{"reasons.csv", "id,reasons\na," + strings.Repeat("x;", maxField) + "\n", "reasons: the value is longer than 4096 bytes"},
		{"reasons2.csv", "id,reasons\na," + strings.Repeat("x;", maxReasons+1) + "\n", "more than 64 reasons"},
		{"field.json", `[{"id":"` + strings.Repeat("x", maxField+1) + `"}]`, "id: the value is longer than 4096 bytes"},
		{"records.csv", records(maxRecords + 1), "more than 200000 records"},
		{"records.json", jsonRecords.String(), ":200001:1: there are more than 200000 records"},
	} {
		path := filepath.Join(dir, c.name)
		write(t, path, c.text)
		if _, err := fetchFile(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.200v, want %s", c.name, err, c.want)
		}
	}
	path := filepath.Join(dir, "just-right.csv")
	write(t, path, records(maxRecords))
	if inv, err := fetchFile(path); err != nil || len(inv.devices) != maxRecords {
		t.Error(err)
	}
	path = filepath.Join(dir, "huge.json")
	write(t, path, "[]")
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := fetchFile(path); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Error(err)
	}
}

func TestInventoryMustBeARegularFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir.json")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := fetchFile(dir); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Error(err)
	}
	if _, err := fetchFile(filepath.Join(dir, "absent.csv")); err == nil || !strings.Contains(err.Error(), "put the inventory there") {
		t.Error(err)
	}
}

func TestOperatingSystemNames(t *testing.T) {
	for given, want := range map[string]string{
		"macOS": "macos", "Mac OS X": "macos", "mac  os x": "macos", "darwin": "macos", "macOS 15.4": "macos", "Mac OS": "macos",
		"Windows": "windows", "Windows 11": "windows", "Microsoft Windows 11 Pro": "windows",
		"iPadOS": "ios", "iOS": "ios", "Android": "android", "Chrome OS": "chromeos", "GNU/Linux": "linux",
		"Plan 9": "plan 9", "Windowsill": "windowsill", "Ubuntu": "ubuntu", "": "",
	} {
		if got := normalOS(given); got != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
}

func TestSerialNumbersHaveOneSpelling(t *testing.T) {
	for given, want := range map[string]string{"4F:01:A2": "4f01a2", "4f01a2": "4f01a2", "A": "0a", "00:0A": "0a", "0": "00", "00": "00"} {
		if got, err := normalSerial(given); err != nil || got != want {
			t.Errorf("%q is %q, %v", given, got, err)
		}
	}
	for _, given := range []string{":", "0x4f", "4f 01", "12.5", strings.Repeat("ab", 65)} {
		if got, err := normalSerial(given); err == nil {
			t.Errorf("%q was read as %q", given, got)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is written in either format reads back as the same devices.
func TestInventoryReadsBackWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		devices := drawDevices(t)
		for _, format := range []struct {
			name   string
			read   func(*builder, []byte)
			render func([]access.Device) []byte
		}{{"json", readJSON, renderJSON}, {"csv", readCSV, renderCSV}} {
			text := format.render(devices)
			b := newBuilder("f", "")
			format.read(b, text)
			inv, err := b.done()
			if err != nil {
				t.Fatalf("%s: %v\n%s", format.name, err, text)
			}
			if len(inv.devices)+len(devices) > 0 && !reflect.DeepEqual(inv.devices, devices) {
				t.Fatalf("%s: read\n%+v\nwant\n%+v\nfrom\n%s", format.name, inv.devices, devices, text)
			}
		}
	})
}

func drawDevices(t *rapid.T) []access.Device {
	plain := rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != '\ufffd' && !unicode.IsControl(r) }))
	id := plain.Filter(func(s string) bool { return s != "" && strings.TrimSpace(s) == s })
	reason := id.Filter(func(s string) bool { return !strings.Contains(s, ";") })
	fact := rapid.SampledFrom([]access.Tri{access.Unknown, access.No, access.Yes})
	seconds := rapid.Int64Range(0, 4e9)
	ids := rapid.SliceOfNDistinct(id, 0, 8, rapid.ID).Draw(t, "ids")
	var devices []access.Device
	for n, id := range ids {
		d := access.Device{
			ID: id, Known: access.Yes, Name: plain.Draw(t, "name"), Owner: plain.Draw(t, "owner"),
			Managed: fact.Draw(t, "managed"), Compliant: fact.Draw(t, "compliant"),
			DiskEncrypted: fact.Draw(t, "disk"), Jailbroken: fact.Draw(t, "jailbroken"),
			Risk:      rapid.SampledFrom([]access.Risk{access.RiskUnknown, access.RiskNone, access.RiskLow, access.RiskMedium, access.RiskHigh}).Draw(t, "risk"),
			OS:        rapid.SampledFrom([]string{"", "macos", "windows", "plan 9"}).Draw(t, "os"),
			OSVersion: rapid.StringMatching(`([0-9]{1,3}(\.[0-9]{1,3}){0,3})?`).Draw(t, "version"),
		}
		if rapid.Bool().Draw(t, "seen") {
			d.SeenAt = time.Unix(seconds.Draw(t, "last_seen"), 0).UTC()
		}
		if rapid.Bool().Draw(t, "graced") {
			d.GraceUntil = time.Unix(seconds.Draw(t, "grace_until"), 0).UTC()
		}
		if rapid.Bool().Draw(t, "certificate") {
			d.Certificate.Serial = fmt.Sprintf("%04x", n+256)
			d.Certificate.Fingerprint = fmt.Sprintf("%064x", n)
		}
		if rapid.Bool().Draw(t, "has reasons") {
			d.Reasons = rapid.SliceOfN(reason, 1, 3).Draw(t, "reasons")
		}
		devices = append(devices, d)
	}
	return devices
}

// row returns the values of a record, in the order of fields, without reasons.
func row(d *access.Device) []string {
	fact := func(t access.Tri) string {
		if t == access.Unknown {
			return ""
		}
		return t.String()
	}
	level := func(r access.Risk) string {
		if r == access.RiskUnknown {
			return ""
		}
		return r.String()
	}
	moment := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.Format(time.RFC3339Nano)
	}
	return []string{
		d.ID, d.Certificate.Serial, d.Certificate.Fingerprint, d.Name, d.Owner,
		fact(d.Managed), fact(d.Compliant), fact(d.DiskEncrypted), fact(d.Jailbroken), level(d.Risk), d.OS, d.OSVersion, moment(d.SeenAt), moment(d.GraceUntil),
	}
}

func renderCSV(devices []access.Device) []byte {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	var header []string
	for _, f := range fields {
		header = append(header, f.name)
	}
	w.Write(header)
	for _, d := range devices {
		w.Write(append(row(&d), strings.Join(d.Reasons, ";")))
	}
	w.Flush()
	return out.Bytes()
}

func renderJSON(devices []access.Device) []byte {
	records := []map[string]any{}
	for _, d := range devices {
		record := map[string]any{reasonsField: d.Reasons}
		for n, value := range row(&d) {
			record[fields[n].name] = value
		}
		records = append(records, record)
	}
	text, err := json.Marshal(map[string]any{"devices": records})
	if err != nil {
		panic(err)
	}
	return text
}
