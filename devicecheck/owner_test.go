package devicecheck

import (
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorward/doorward/internal/access"
)

func TestWhoOwnsADevice(t *testing.T) {
	person := access.Identity{Provider: "corp", Issuer: "https://login.example", Subject: "8f1c",
		Email: "Alice@corp.example", EmailVerified: true, Username: "alice@corp.example",
		Claims: map[string]any{"upn": "alice@corp.example", "number": 7}}
	for name, c := range map[string]struct {
		owner  string // as configured
		listed string
		change func(*access.Identity)
		want   access.Tri
	}{
		"by e-mail":                        {"email", "alice@corp.example", nil, access.Yes},
		"somebody else's":                  {"email", "bob@corp.example", nil, access.No},
		"in other letters":                 {"email", "ALICE@CORP.EXAMPLE", nil, access.Yes},
		"a longer address":                 {"email", "alice@corp.example.evil", nil, access.No},
		"the address is not verified":      {"email", "alice@corp.example", func(id *access.Identity) { id.EmailVerified = false }, access.Unknown},
		"no address":                       {"email", "alice@corp.example", func(id *access.Identity) { id.Email = "" }, access.Unknown},
		"the inventory names no owner":     {"email", "", nil, access.Unknown},
		"neither names anybody":            {"email", "", func(id *access.Identity) { id.Email = "" }, access.Unknown},
		"the Kelvin sign is no k":          {"email", "K@corp.example", func(id *access.Identity) { id.Email = "\u212a@corp.example" }, access.No},
		"letters outside ASCII":            {"email", "änne@corp.example", func(id *access.Identity) { id.Email = "änne@corp.example" }, access.Yes},
		"their case counts":                {"email", "Änne@corp.example", func(id *access.Identity) { id.Email = "änne@corp.example" }, access.No},
		"by user name":                     {"username", "Alice@Corp.example", nil, access.Yes},
		"by subject":                       {"sub", "8f1c", nil, access.Yes},
		"the case of a subject":            {"sub", "8F1C", nil, access.No},
		"by claim":                         {"claim.upn", "alice@corp.example", nil, access.Yes},
		"the case of a claim":              {"claim.upn", "Alice@corp.example", nil, access.No},
		"a claim that is no text":          {"claim.number", "7", nil, access.Unknown},
		"a claim that is not there":        {"claim.none", "alice", nil, access.Unknown},
		"not configured":                   {"", "alice@corp.example", nil, access.Unknown},
		"somebody of another provider":     {"email", "alice@corp.example", func(id *access.Identity) { id.Provider = "partners" }, access.Unknown},
		"a machine owns nothing":           {"sub", "8f1c", func(id *access.Identity) { id.Kind = access.Service }, access.Unknown},
		"nobody owns nothing":              {"sub", "8f1c", func(id *access.Identity) { id.Issuer = "" }, access.Unknown},
		"an address in front of the owner": {"email", "alice@corp.example, bob@corp.example", nil, access.No},
	} {
		key, err := parseOwner(c.owner)
		if err != nil {
			t.Fatal(err)
		}
		key.from = []string{"corp"}
		id := person
		if c.change != nil {
			c.change(&id)
		}
		if got := key.owned(&id, c.listed); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for _, entry := range []string{"Email", "name", "certificate.san", "claim.", "claim.a b", "groups"} {
		if _, err := parseOwner(entry); err == nil {
			t.Errorf("%q was accepted", entry)
		}
	}
}

// Whatever the two say, an unknown owner and an unknown person never match.
func TestNobodyUnknownOwnsADevice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "", "a", "A", "b", "\u212a", "k", "K"})
		id := access.Identity{
			Provider: text.Draw(t, "provider"), Issuer: text.Draw(t, "issuer"), Subject: text.Draw(t, "sub"), Email: text.Draw(t, "email"),
			EmailVerified: rapid.Bool().Draw(t, "verified"), Username: text.Draw(t, "username"), Claims: map[string]any{"c": text.Draw(t, "claim")},
		}
		by, owner := rapid.SampledFrom([]string{"", "email", "username", "sub", "claim.c"}).Draw(t, "by"), text.Draw(t, "owner")
		key, err := parseOwner(by)
		if err != nil {
			t.Fatal(err)
		}
		person := map[string]string{"email": id.Email, "username": id.Username, "sub": id.Subject, "claim.c": id.Claims["c"].(string)}[by]
		got := key.owned(&id, owner)
		if got == access.Yes && (id.Nobody() || person == "" || owner == "" || by == "email" && !id.EmailVerified) {
			t.Fatalf("%+v owns %q by %q", id, owner, by)
		}
		if want := strings.ToUpper(owner) == strings.ToUpper(person); got == access.Yes && !want {
			t.Fatalf("%q owns what belongs to %q", person, owner)
		}
	})
}

func TestInspectTellsWhoseDeviceItIs(t *testing.T) {
	i := newInspector(t, Options{Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "a", "owner": "alice@corp.example"}, {"id": "b"}]`)},
		Match:   []string{"claim.id"}, Owner: "email",
	}})
	for _, c := range []struct {
		device, email string
		want          access.Tri
	}{
		{"a", "alice@corp.example", access.Yes}, {"a", "bob@corp.example", access.No}, {"b", "alice@corp.example", access.Unknown}, {"z", "alice@corp.example", access.Unknown},
	} {
		req := claiming(map[string]any{"id": c.device})
		req.Identity.Email, req.Identity.EmailVerified = c.email, true
		if got := inspect(t, i, &http.Request{}, req); got.Owned != c.want {
			t.Errorf("%s on %s: %+v", c.email, c.device, got)
		}
	}
}
