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
		want, rec := full(), full()
		edit(want)
		edit(rec)
		got := n.account(rec)
		if !got.says(want) || !reflect.DeepEqual(rec, want) {
			t.Errorf("%s: %+v of %+v, not of %+v", name, got, rec, want)
		}
	}
	a, b := n.account(full()), n.account(full())
	if &a.identity.Groups[2] != &b.identity.Groups[2] || &a.identity.Login.AMR[0] != &b.identity.Login.AMR[0] {
		t.Error("a list of two logins is there twice")
	}
	fewer := full()
	fewer.Identity.Groups = fewer.Identity.Groups[:2]
	if c := n.account(fewer); len(c.identity.Groups) != 2 || unsafe.StringData(a.identity.Groups[1]) != unsafe.StringData(c.identity.Groups[1]) {
		t.Errorf("another list: %q", c.identity.Groups)
	}
}

// Versions of a login that say the same to requests are one account, so that what
// was made of it stays; any other is another one.
func TestAccountsLastWhileNothingChanges(t *testing.T) {
	rec := &loginRecord{Identity: employee(7).Identity, Created: time.Unix(1, 0), Expires: time.Unix(1e6, 0), Used: time.Unix(2, 0)}
	var n names
	first := n.snapshot(rec, 1, nil)
	used := *rec
	used.Used, used.Renewal = time.Unix(3, 0), 7
	if again := n.snapshot(&used, 2, first); again.account != first.account || again.persisted == first.persisted || again.renewal != 7 {
		t.Error("a use has made another account, or was not noted")
	}
	for name, change := range map[string]func(*loginRecord){
		"groups":  func(r *loginRecord) { r.Identity.Groups = r.Identity.Groups[1:] },
		"name":    func(r *loginRecord) { r.Identity.Name = "B" },
		"claims":  func(r *loginRecord) { r.Identity.Claims = map[string]any{"a": true} },
		"created": func(r *loginRecord) { r.Created = time.Unix(2, 0) },
		"expires": func(r *loginRecord) { r.Expires = time.Unix(1e5, 0) },
		"login":   func(r *loginRecord) { r.Identity.Login.ACR = "phr" },
	} {
		other := *rec
		change(&other)
		if next := n.snapshot(&other, 3, first); next.account == first.account || !next.says(&other) {
			t.Errorf("%s: the account is still the old one", name)
		}
	}
}

// Lists that nobody has any more are forgotten; how many are known has a limit.
func TestSharedListsAreBounded(t *testing.T) {
	var n names
	for i := range mostLists + 10 {
		n.list([]string{string(rune(i)), "x"})
	}
	if len(n.lists) > mostLists {
		t.Fatalf("%d lists", len(n.lists))
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
