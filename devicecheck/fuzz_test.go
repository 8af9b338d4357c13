package devicecheck

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func seed(f *testing.F, pattern string) {
	for _, dir := range []string{"testdata", "testdata/faults"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(paths) == 0 {
			f.Fatal(paths, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
}

// checkInventory holds for every inventory that was accepted, whatever the file.
func checkInventory(t *testing.T, inv *inventory) {
	if len(inv.devices) != len(inv.byID) {
		t.Fatalf("%d devices under %d ids", len(inv.devices), len(inv.byID))
	}
	for n := range inv.devices {
		d := &inv.devices[n]
		if d.ID == "" || d.Known != access.Yes || d.Problem != "" || !d.ObservedAt.IsZero() || inv.find(idKey, d.ID) != d {
			t.Fatalf("%+v", d)
		}
		if s := d.Certificate.Serial; s != "" && inv.find(serialKey, s) != d {
			t.Fatalf("serial %q leads elsewhere", s)
		}
		if s := d.Certificate.Fingerprint; s != "" && inv.find(fingerprintKey, s) != d {
			t.Fatalf("fingerprint %q leads elsewhere", s)
		}
		for _, s := range append([]string{d.ID, d.Name, d.Owner, d.OS, d.OSVersion}, d.Reasons...) {
			if len(s) > 2*maxField || !isPlain(s) {
				t.Fatalf("%q slipped through", s)
			}
		}
	}
	b := newBuilder("f", "")
	readJSON(b, renderJSON(inv.devices))
	again, err := b.done()
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.devices) > 0 && !reflect.DeepEqual(again.devices, inv.devices) {
		t.Fatalf("written and read again\n%+v\nwas\n%+v", again.devices, inv.devices)
	}
}

func FuzzJSON(f *testing.F) {
	seed(f, "*.json")
	f.Fuzz(func(t *testing.T, text []byte) {
		b := newBuilder("f", "")
		readJSON(b, text)
		inv, err := b.done()
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("accepted what is no JSON: %q", text)
		}
		checkInventory(t, inv)
	})
}

func FuzzCSV(f *testing.F) {
	seed(f, "*.csv")
	f.Fuzz(func(t *testing.T, text []byte) {
		b := newBuilder("f", "")
		readCSV(b, text)
		if inv, err := b.done(); err == nil {
			checkInventory(t, inv)
		}
	})
}
