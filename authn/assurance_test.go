package authn

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// Shapes of ID token payloads as the vendors issue them, less what plays no
// part here, and the strongest level each is worth.
func TestLevelsOfRecordedTokens(t *testing.T) {
	for name, c := range map[string]struct {
		assurance Assurance
		payload   string
		reaches   string // and everything below
		not       string
	}{
		"entra v2.0, password":     {Assurance{Like: "entra"}, `{"ver":"2.0","tid":"9122","oid":"66f3","auth_time":1700000000}`, "aal1", "mfa"},
		"entra v1.0, one factor":   {Assurance{Like: "entra"}, `{"ver":"1.0","acr":"1","amr":["pwd"]}`, "aal1", "mfa"},
		"entra v1.0, two factors":  {Assurance{Like: "entra"}, `{"ver":"1.0","acr":"1","amr":["pwd","mfa"]}`, "mfa", "phr"},
		"entra, authenticator key": {Assurance{Like: "entra"}, `{"amr":["rsa"]}`, "aal1", "mfa"},
		"entra, Windows or MFA":    {Assurance{Like: "entra"}, `{"amr":["wiaormfa"]}`, "aal1", "mfa"},
		"entra, ngc":               {Assurance{Like: "entra"}, `{"amr":["rsa","ngcmfa"]}`, "mfa", "phr"},
		"entra, context":           {Assurance{Like: "entra"}, `{"acrs":["p1","c1"]}`, "c1", "mfa"},
		"entra, other context":     {Assurance{Like: "entra"}, `{"acrs":["c2"]}`, "c2", "c1"},
		"entra, context with a level": {Assurance{Like: "entra", ACRS: map[string]string{"c1": "phr"}},
			`{"acrs":["c1"],"amr":["rsa"]}`, "phr", "phrh"},
		"entra, acr is not a level": {Assurance{Like: "entra"}, `{"acr":"phr"}`, "aal1", "mfa"},

		"okta, password":         {Assurance{Like: "okta"}, `{"acr":"urn:okta:loa:1fa:pwd","amr":["pwd"]}`, "aal1", "mfa"},
		"okta, two factors":      {Assurance{Like: "okta"}, `{"acr":"urn:okta:loa:2fa:any","amr":["mfa","otp","pwd"]}`, "aal2", "phr"},
		"okta, if possible":      {Assurance{Like: "okta"}, `{"acr":"urn:okta:loa:2fa:any:ifpossible","amr":["pwd"]}`, "aal1", "mfa"},
		"okta, FastPass":         {Assurance{Like: "okta"}, `{"acr":"phr","amr":["swk","mfa","user"]}`, "phr", "phrh"},
		"okta, YubiKey":          {Assurance{Like: "okta"}, `{"acr":"phrh","amr":["hwk","mfa","pin"]}`, "phrh", ""},
		"okta, text message":     {Assurance{Like: "okta"}, `{"amr":["mfa","sms","pwd"]}`, "mfa", "phr"},
		"keycloak, cookie":       {Assurance{Like: "keycloak"}, `{"acr":"0"}`, "aal1", "mfa"},
		"keycloak, password":     {Assurance{Like: "keycloak"}, `{"acr":"1"}`, "aal1", "mfa"},
		"keycloak, one-time":     {Assurance{Like: "keycloak"}, `{"acr":"2","amr":["pwd","otp"]}`, "mfa", "phr"},
		"keycloak, level 3":      {Assurance{Like: "keycloak"}, `{"acr":"3"}`, "aal1", "mfa"},
		"keycloak, mapped name":  {Assurance{Like: "keycloak"}, `{"acr":"phr"}`, "phr", "phrh"},
		"keycloak, realm's own":  {Assurance{Like: "keycloak", ACR: map[string]string{"gold": "phrh"}}, `{"acr":"gold"}`, "phrh", ""},
		"keycloak, overruled":    {Assurance{Like: "keycloak", ACR: map[string]string{"2": "aal1"}}, `{"acr":"2"}`, "aal1", "mfa"},
		"google":                 {Assurance{Like: "google"}, `{"hd":"example.com","email_verified":true}`, "aal1", "mfa"},
		"google says nothing":    {Assurance{Like: "google"}, `{"acr":"phr","amr":["mfa","hwk"]}`, "aal1", "mfa"},
		"EAP":                    {Assurance{}, `{"acr":"phrh","amr":["pop"]}`, "phrh", ""},
		"never by method":        {Assurance{}, `{"acr":"0","amr":["mfa","otp","sms","hwk","fpt"]}`, "aal1", "mfa"},
		"by method where mapped": {Assurance{AMR: map[string]string{"hwk": "phr"}}, `{"amr":["hwk"]}`, "phr", "phrh"},
		"contexts are Entra's":   {Assurance{}, `{"acrs":["c1","phr"]}`, "aal1", "c1"},
		"contexts hold no level": {Assurance{Like: "entra"}, `{"acrs":["phr","c0","c100","mfa"]}`, "aal1", "mfa"},
		"wrong types":            {Assurance{Like: "okta"}, `{"acr":["phr"],"amr":{"mfa":true}}`, "aal1", "mfa"},
	} {
		claims, err := jose.ParseObject([]byte(c.payload))
		if err != nil {
			t.Fatal(name, err)
		}
		table := c.assurance.table()
		login := access.Login{Levels: table.levels(claims)}
		login.ACR, _ = claims.Text("acr")
		if !slices.IsSorted(login.Levels) {
			t.Errorf("%s: %v is not sorted", name, login.Levels)
		}
		for _, level := range append(access.LevelsUpTo(c.reaches), c.reaches) {
			if !login.Reaches(level) {
				t.Errorf("%s: %v does not reach %s", name, login.Levels, level)
			}
		}
		if c.not != "" && login.Reaches(c.not) {
			t.Errorf("%s: %v reaches %s", name, login.Levels, c.not)
		}
		for _, level := range access.LevelsFrom("phr") {
			strong := c.reaches == "phr" || c.reaches == "phrh"
			if !strong && !login.Satisfies(&access.LoginRequire{ACR: []string{"aal1"}}, time.Time{}) || !strong && login.Reaches(level) {
				t.Errorf("%s: %v", name, login.Levels)
			}
		}
		if got := login.Satisfies(&access.LoginRequire{PhishingResistant: true}, time.Time{}); got != strings.HasPrefix(c.reaches, "phr") {
			t.Errorf("%s: phishing resistant: %v", name, got)
		}
	}
}

// What a route names is asked for in the provider's own words.
func TestLevelsAreAskedForInTheProvidersWords(t *testing.T) {
	phr := access.LoginRequire{PhishingResistant: true}
	acr := func(names ...string) access.LoginRequire { return access.LoginRequire{ACR: names} }
	for name, c := range map[string]struct {
		assurance Assurance
		ask       access.LoginRequire
		claims    bool
		want      string // the query, decoded
	}{
		"as named":            {Assurance{}, acr("mfa"), false, "acr_values=mfa"},
		"as named, essential": {Assurance{}, acr("phr"), true, `claims={"id_token":{"acr":{"essential":true,"values":["phr"]}}}`},
		"own class":           {Assurance{Like: "okta"}, acr("urn:x"), false, "acr_values=urn:x"},
		"phishing resistant":  {Assurance{}, phr, false, "acr_values=phr phrh"},
		"stronger of both":    {Assurance{}, access.LoginRequire{PhishingResistant: true, ACR: []string{"mfa"}}, false, "acr_values=phr phrh"},
		"entra":               {Assurance{Like: "entra"}, acr("c1"), false, `claims={"id_token":{"acrs":{"essential":true,"value":"c1"}}}`},
		"entra, by level":     {Assurance{Like: "entra", ACRS: map[string]string{"c7": "phrh"}}, phr, false, `claims={"id_token":{"acrs":{"essential":true,"value":"c7"}}}`},
		"entra, no word":      {Assurance{Like: "entra"}, phr, false, "prompt=login"},
		"okta":                {Assurance{Like: "okta"}, acr("mfa"), false, "acr_values=urn:okta:loa:2fa:any"},
		"okta, stronger":      {Assurance{Like: "okta"}, phr, false, "acr_values=phr phrh"},
		"keycloak":            {Assurance{Like: "keycloak", ACR: map[string]string{"gold": "phr"}}, acr("phr"), false, "acr_values=gold phr"},
		"google":              {Assurance{Like: "google"}, acr("mfa"), false, "prompt=login"},
		"nothing":             {Assurance{Like: "entra"}, access.LoginRequire{}, true, ""},
	} {
		table := c.assurance.table()
		params := stepUpParams(c.ask, c.claims, &table)
		var got []string
		for key := range params {
			got = append(got, key+"="+params.Get(key))
		}
		if slices.Sort(got); strings.Join(got, "&") != c.want {
			t.Errorf("%s: %s\nwant %s", name, strings.Join(got, "&"), c.want)
		}
	}
}

func TestAssuranceIsChecked(t *testing.T) {
	for text, ok := range map[string]bool{"entra": true, "okta": true, "keycloak": true, "google": true, "": false, "Entra": false, "adfs": false} {
		if err := new(Assurance).UnmarshalText([]byte(text)); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	faults := access.NewFaults("")
	(&Assurance{Like: "adfs", ACR: map[string]string{"gold": "best"}, ACRS: map[string]string{"c100": "phr"}}).Validate(faults)
	if list := faults.List(); len(list) != 3 {
		t.Errorf("%+v", list)
	}
	faults = access.NewFaults("")
	(&Assurance{Like: "entra", ACRS: map[string]string{"c1": "phr"}}).Validate(faults)
	(&Assurance{}).Validate(faults)
	if list := faults.List(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// Whatever a token says, phishing resistance comes from a class that means it.
func FuzzLevels(f *testing.F) {
	f.Add([]byte(`{"acr":"phr","amr":["mfa","hwk"],"acrs":["c1","phr"]}`))
	f.Add([]byte(`{"acr":"urn:okta:loa:2fa:any","amr":"mfa"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		claims, err := jose.ParseObject(payload)
		if err != nil {
			return
		}
		for like := range vendorTables() {
			table := (&Assurance{Like: like}).table()
			levels := table.levels(claims)
			if acr, _ := claims.Text("acr"); slices.Contains(levels, "phr") && acr != "phr" && acr != "phrh" {
				t.Errorf("%q: %v", like, levels)
			}
			for _, level := range levels {
				if !access.IsLevel(level) && (like != "entra" || !access.IsAuthContext(level)) {
					t.Errorf("%q: %q", like, level)
				}
			}
		}
	})
}
