package devicecheck

import (
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

func TestValidateReportsEveryFaultOfRemoteSources(t *testing.T) {
	secret := access.NewSecret("two\nlines")
	f := access.NewFaults("")
	for n, s := range []Source{
		{ID: "a", Type: "http"},
		{
			ID: "b", Type: "http", URL: "http://inventory.example", Items: "a..b", Next: `a\b`, Refresh: access.Duration(time.Second), Path: "/x", Token: secret,
			Headers: map[string]access.Secret{"a b": secret, "Host": secret, "X-Key": secret},
			Fields: map[string]Field{
				"color": {Path: "c"}, "compliant": {Path: "c", Yes: []string{"a", ""}, No: []string{"a", ""}},
				"id": {}, "name": {Path: "n", Yes: []string{"x"}}, "owner": {Path: "o", Levels: map[string][]string{"low": {"x"}}},
				"risk": {Path: "r", Levels: map[string][]string{"low": {"x", ""}, "medium": {"x"}, "unknown": {"y"}}},
			},
		},
		{ID: "c", Type: "fleet", Key: "id", Tenant: "x", Items: "x"},
		{ID: "d", Type: "fleet", URL: "https://user:pass@fleet.example", Token: secret},
		{ID: "e", Type: "intune", Tenant: "a/b", URL: "ftp://x", AuthURL: "x", Key: "uuid"},
		{ID: "f", Type: "intune", Tenant: "..", ClientID: "x", ClientSecret: secret, WithIntune: true, TrustTypes: []string{"AzureAd"}},
		{ID: "g", Type: "entra", Tenant: "t", ClientID: "x", ClientSecret: secret, TrustTypes: []string{"AzureAd", "azuread"}, Key: "name"},
		{ID: "h", Type: "defender", Tenant: "t", ClientID: "x", ClientSecret: secret, Key: "deviceId", MinScore: 5},
		{ID: "i", Type: "jamf", URL: "http://jamf.example", Tenant: "t", Key: "serial"},
		{ID: "j", Type: "google"},
		{ID: "k", Type: "google", ServiceAccount: secret, TokenURL: "http://tokens.example", Subject: "a", Customer: "customers/a/b", Partner: "-", URL: "x"},
		{ID: "l", Type: "crowdstrike", MinScore: 101, CompliantGroup: "x"},
		{ID: "m", Type: "crowdstrike", ClientID: "x", ClientSecret: secret},
		{ID: "n", Type: "jamff", Adds: []string{"risk", "owner"}},
	} {
		s.validate(f.At("%d", n))
	}
	var got []string
	for _, fault := range f.List() {
		if fault.Cure == "" || strings.Contains(fault.Text, "lines\n") || strings.Contains(fault.Text, "pass@") {
			t.Errorf("%+v", fault)
		}
		got = append(got, fault.Path)
	}
	want := "0.url 0.fields " +
		"1.refresh 1.url 1.items 1.next 1.headers.Host 1.headers.X-Key 1.headers.a b 1.fields.color 1.fields.compliant.yes 1.fields.compliant.yes 1.fields.compliant.no 1.fields.id 1.fields.name 1.fields.owner.levels 1.fields.risk.levels.low 1.fields.risk.levels.medium 1.fields.risk.levels.unknown 1.path 1.token " +
		"2.url 2.token 2.key 2.items 2.tenant 3.url 3.token 4.url 4.auth_url 4.tenant 4.client_id 4.client_secret 4.key 5.tenant 5.with_intune 5.trust_types " +
		"6.trust_types[1] 6.key 7.key 7.min_score 8.url 8.client_id 8.client_secret 8.key 8.tenant " +
		"9.service_account 10.url 10.service_account 10.service_account 10.token_url 10.subject 10.customer 10.partner " +
		"11.client_id 11.client_secret 11.min_score 11.compliant_group 12.min_score 13.adds[1] 13.type"
	if strings.Join(got, " ") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, " "), want)
	}
}

func TestSourcesAreComparedByValue(t *testing.T) {
	for _, kind := range vendorKinds {
		v := newVendor(t, kind)
		if !v.source().same(v.source()) {
			t.Errorf("%s is not the same as its equal", kind)
		}
	}
	v := newVendor(t, "http")
	a, b := v.source(), v.source()
	b.Headers["Authorization"] = access.NewSecret("another")
	if a.same(b) {
		t.Error("another secret is the same")
	}
}
