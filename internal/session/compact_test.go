package session

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// What is shared and joined reads as it did, and is there once.
func TestCompactRecordsReadAsBefore(t *testing.T) {
	full := func() *loginRecord {
		s := employee(7)
		rec := &loginRecord{Identity: s.Identity, SID: "sid", Root: strings.Repeat("r", 43), Created: time.Unix(1, 0)}
		rec.Identity.Groups = strings.Split("group-0,group-1,group-2", ",")
		rec.Identity.Login.Levels = []string{}
		rec.Identity.Scopes = []string{strings.Repeat("long", 100)}
		return rec
	}
	var n names
	for name, edit := range map[string]func(*loginRecord){
		"full":      func(*loginRecord) {},
		"no groups": func(r *loginRecord) { r.Identity.Groups = nil },
		"no one":    func(r *loginRecord) { *r = loginRecord{} },
		"subject":   func(r *loginRecord) { r.Identity.Email, r.Identity.Name, r.SID = "", "", "" },
	} {
		want, got := full(), full()
		edit(want)
		edit(got)
		n.compact(got)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, not %+v", name, got, want)
		}
	}
	a, b := full(), full()
	n.compact(a)
	n.compact(b)
	if unsafe.StringData(a.Identity.Groups[2]) != unsafe.StringData(b.Identity.Groups[2]) {
		t.Error("a group of two logins is there twice")
	}
	// Lists lie side by side; none grows into the next.
	_ = append(a.Identity.Groups, "intruder")
	if a.Identity.Login.AMR[0] != "otp" {
		t.Errorf("a list has grown into another: %q", a.Identity.Login.AMR)
	}
}

// Names that change all the time do not fill the memory.
func TestSharedNamesAreBounded(t *testing.T) {
	var n names
	for i := range 3 * mostNames {
		text := strings.Repeat("n", i%400) + string(rune(i))
		if n.share(&text); len(n.known) > mostNames {
			t.Fatalf("%d names", len(n.known))
		}
	}
}
