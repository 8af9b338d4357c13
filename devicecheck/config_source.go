package devicecheck

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

func (s Source) validate(f access.Faults) {
	switch {
	case s.ID == "":
		f.At("id").Add("give the source a name, such as id: inventory", "id is missing")
	case len(s.ID) > maxSourceID || strings.Trim(s.ID, idLetters) != "":
		f.At("id").Add("use up to 64 letters, digits, -, _ and .", "%q is no id", clip(s.ID))
	}
	least := minRefresh
	if s.remote() {
		least = minRemote
	}
	if s.Refresh != 0 && s.Refresh < least {
		f.At("refresh").Add(fmt.Sprintf("use %s or more", least), "%s is too short", s.Refresh)
	}
	for n, fact := range s.Adds {
		if _, ok := addable[fact]; !ok {
			f.At("adds[%d]", n).Add("use "+strings.Join(slices.Sorted(maps.Keys(addable)), ", "), "%q is no fact that an inventory can add", clip(fact))
		}
	}
	if s.Type == "" {
		f.At("type").Add("add type: file", "type is missing")
		return
	}
	k, ok := kinds[s.Type]
	if !ok {
		f.At("type").Add("use "+strings.Join(slices.Sorted(maps.Keys(kinds)), ", "), "%q is no type of inventory", clip(s.Type))
		return
	}
	k.validate(s, f)
	s.validateKey(f, k.ids)
	s.validateKeys(f, k.keys)
}

// validateKeys reports what has no meaning for the type.
func (s Source) validateKeys(f access.Faults, meant []string) {
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"path", s.Path != ""},
		{"url", s.URL != ""},
		{"headers", len(s.Headers) > 0},
		{"items", s.Items != ""},
		{"next", s.Next != ""},
		{"fields", len(s.Fields) > 0},
		{"token", !s.Token.IsZero()},
		{"tenant", s.Tenant != ""},
		{"client_id", s.ClientID != ""},
		{"client_secret", !s.ClientSecret.IsZero()},
		{"auth_url", s.AuthURL != ""},
		{"key", s.Key != ""},
		{"with_intune", s.WithIntune},
		{"trust_types", len(s.TrustTypes) > 0},
		{"compliant_group", s.CompliantGroup != ""},
		{"service_account", !s.ServiceAccount.IsZero()},
		{"subject", s.Subject != ""},
		{"token_url", s.TokenURL != ""},
		{"customer", s.Customer != ""},
		{"partner", s.Partner != ""},
		{"min_score", s.MinScore != 0},
	} {
		if key.set && !slices.Contains(meant, key.name) {
			f.At("%s", key.name).Add("remove it", "%s has no meaning for an inventory of type %s", key.name, s.Type)
		}
	}
}

func validateURL(f access.Faults, address, example string) {
	if address == "" {
		f.Add("add one, such as "+example, "the address is missing")
	} else if _, err := parseHome(address); err != nil {
		f.Add("write an address such as "+example, "%s", err)
	}
}

func (s Source) validateHTTP(f access.Faults) {
	validateURL(f.At("url"), s.URL, "https://inventory.example.com/devices")
	for _, path := range [][2]string{{"items", s.Items}, {"next", s.Next}} {
		if _, err := parsePath(path[1]); err != nil {
			f.At("%s", path[0]).Add("write member names with dots between them", "%s", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		at, value := f.At("headers").At("%s", name), s.Headers[name]
		switch {
		case name == "" || strings.Trim(name, headerLetters) != "" || slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)):
			at.Add("use the name of a header such as Authorization", "%q cannot be set", clip(name))
		case value.IsZero() || strings.ContainsFunc(value.Reveal(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			at.Add("write {file: PATH} or {env: NAME} of a text of one line", "the value is missing or has several lines")
		}
	}
	if _, ok := s.Fields["id"]; !ok {
		f.At("fields").Add("add fields: {id: PATH}", "the path of the id is missing")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Fields)) {
		s.Fields[name].validate(f.At("fields").At("%s", name), name)
	}
}

func (want Field) validate(f access.Faults, name string) {
	n := fieldIndex(name)
	if n < 0 {
		f.Add("use "+fieldNames, "%q is no field of a device", clip(name))
		return
	}
	if path, err := parsePath(want.Path); err != nil || len(path) == 0 {
		f.Add("write member names with dots between them, such as compliance.state", "the path of %s is missing or faulty", name)
	}
	if len(want.Yes)+len(want.No) > 0 && !fields[n].fact {
		f.Add("write the path alone", "%s is not a field of yes and no", name)
	}
	for _, word := range want.Yes {
		if word == "" || slices.Contains(want.No, word) {
			f.At("yes").Add("remove it", "%q cannot mean yes", clip(word))
		}
	}
	if slices.Contains(want.No, "") {
		f.At("no").Add("remove it", "an empty value is unknown, never no")
	}
	want.validateLevels(f.At("levels"), name)
}

func (want Field) validateLevels(f access.Faults, name string) {
	if len(want.Levels) > 0 && name != riskField {
		f.Add("remove it", "%s is no risk", name)
		return
	}
	meant := map[string]string{}
	for _, level := range slices.Sorted(maps.Keys(want.Levels)) {
		var risk access.Risk
		if risk.UnmarshalText([]byte(level)) != nil || risk == access.RiskUnknown {
			f.At("%s", level).Add("use none, low, medium or high; every other value is unknown", "%q is no risk", clip(level))
		}
		for _, word := range want.Levels[level] {
			if other, twice := meant[word]; word == "" || twice && other != level {
				f.At("%s", level).Add("remove it", "%q cannot mean %s", clip(word), level)
			}
			meant[word] = level
		}
	}
}

func (s Source) validateFleet(f access.Faults) {
	validateURL(f.At("url"), s.URL, "https://fleet.corp.example.com")
	if s.Token.IsZero() {
		f.At("token").Add("add token: {file: PATH}", "the token is missing")
	} else {
		validateToken(f.At("token"), s.Token)
	}
}

func (s Source) validateMicrosoft(f access.Faults) {
	s.validateOptionalURL(f, s.URL, graphURL)
	if s.AuthURL != "" {
		validateURL(f.At("auth_url"), s.AuthURL, microsoftAuth)
	}
	if strings.Trim(s.Tenant, idLetters) != "" || strings.Trim(s.Tenant, ".") == "" {
		f.At("tenant").Add("write the id of the tenant or one of its domains", "tenant is missing or faulty")
	}
	s.validateClient(f)
	for n, trust := range s.TrustTypes {
		if !slices.Contains(entraTrust, trust) {
			f.At("trust_types[%d]", n).Add("use "+strings.Join(entraTrust, ", "), "%q is no trustType", clip(trust))
		}
	}
}

// validateOptionalURL checks an address that has a default.
func (s Source) validateOptionalURL(f access.Faults, address, example string) {
	if address != "" {
		validateURL(f.At("url"), address, example)
	}
}

func (s Source) validateClient(f access.Faults) {
	if s.ClientID == "" {
		f.At("client_id").Add("write the id of the API client that may read the devices", "client_id is missing")
	}
	if s.ClientSecret.IsZero() {
		f.At("client_secret").Add("add client_secret: {file: PATH}", "client_secret is missing")
	}
}

func (s Source) validateJamf(f access.Faults) {
	validateURL(f.At("url"), s.URL, "https://corp.jamfcloud.com")
	s.validateClient(f)
}

func (s Source) validateCrowdStrike(f access.Faults) {
	s.validateOptionalURL(f, s.URL, crowdStrikeURL)
	s.validateClient(f)
	if s.MinScore < 1 || s.MinScore > 100 {
		f.At("min_score").Add("write the lowest score that counts as compliant, 1 to 100", "min_score is missing or out of range")
	}
}

func (s Source) validateGoogle(f access.Faults) {
	s.validateOptionalURL(f, s.URL, googleURL)
	if s.ServiceAccount.IsZero() == (s.TokenURL == "") {
		f.At("service_account").Add("add service_account: {file: PATH}, or token_url, not both", "nothing says who asks, or two things do")
	}
	if !s.ServiceAccount.IsZero() {
		if _, err := parseServiceAccount(s.ServiceAccount); err != nil {
			f.At("service_account").Add("use the JSON file that Google made for a key of the service account", "%s", err)
		}
	}
	if s.TokenURL != "" {
		if _, err := parseTokenURL(s.TokenURL); err != nil {
			f.At("token_url").Add("write an address such as "+googleMetadata, "%s", err)
		}
		if s.Subject != "" {
			f.At("subject").Add("remove it", "subject has no meaning with token_url")
		}
	}
	if s.Customer != "" && !isSegment(strings.TrimPrefix(s.Customer, "customers/")) {
		f.At("customer").Add("write customers/ID, or leave it out for your own organization", "%q is no customer", clip(s.Customer))
	}
	if s.Partner != "" && !isSegment(s.Partner) {
		f.At("partner").Add("write the last part of a client state's name, such as C0123-acme", "%q is no client state", clip(s.Partner))
	}
}

func (s Source) validateKey(f access.Faults, keys []string) {
	if s.Key != "" && !slices.Contains(keys, s.Key) {
		f.At("key").Add("use "+strings.Join(keys, ", "), "%q is no key of a device", clip(s.Key))
	}
}

func validateToken(f access.Faults, token access.Secret) {
	if strings.ContainsFunc(token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		f.Add("write the token alone, without Bearer", "the token holds a blank or a character that no token has")
	}
}

func (s Source) validateFile(f access.Faults) {
	if s.Path == "" {
		f.At("path").Add("add path: /etc/doorward/devices.json", "path is missing")
	} else if _, err := formatOf(s.Path); err != nil {
		f.At("path").Add("name a file that ends in .json or .csv", "%s", err)
	}
}

// idLetters are what the id of a source is made of.
const idLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// headerLetters are what the name of a header is made of here.
const headerLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// ownHeaders are set by the connection.
var ownHeaders = []string{"Host", "Connection", "Content-Length", "Transfer-Encoding", "Accept-Encoding", "Te", "Trailer", "Upgrade"}
