package proxy

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
)

// An application that was made for another proxy is told in that one's words, and
// by nobody but Doorward.
func TestPresets(t *testing.T) {
	for preset, want := range map[string]map[string]string{
		"oauth2-proxy": {"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@corp.example", "X-Forwarded-Groups": "eng", "X-Auth-Request-User": "alice",
			"X-Auth-Request-Email": "alice@corp.example", "X-Auth-Request-Groups": "eng", "X-Auth-Request-Preferred-Username": "", "X-Forwarded-Preferred-Username": ""},
		"authelia": {"Remote-User": "", "Remote-Email": "alice@corp.example", "Remote-Groups": "eng", "Remote-Name": "%C3%84nne O'Neil"},
		"pomerium": {"X-Pomerium-Jwt-Assertion": `{"iss":"shop.example","aud":["shop.example"],"sub":"alice","user":"alice","email":"alice@corp.example","groups":["eng"]}`,
			"X-Pomerium-Claim-Sub": "alice", "X-Pomerium-Claim-Email": "alice@corp.example", "X-Pomerium-Claim-Groups": "eng"},
		"iap": {"X-Goog-Iap-Jwt-Assertion": `{"iss":"https://shop.example","aud":"https://shop.example","sub":"accounts.google.com:alice","email":"alice@corp.example"}`,
			"X-Goog-Authenticated-User-Email": "accounts.google.com:alice@corp.example", "X-Goog-Authenticated-User-Id": "accounts.google.com:alice"},
		"cloudflare": {"Cf-Access-Jwt-Assertion": `{"iss":"https://shop.example","aud":["https://shop.example"],"sub":"alice","email":"alice@corp.example","type":"app"}`,
			"Cf-Access-Authenticated-User-Email": "alice@corp.example"},
	} {
		t.Run(preset, func(t *testing.T) {
			w, _ := askingWorld(t, func(w *world) {
				w.snapshot.Routes = table(t, access.Route{ID: "shop", From: shop, Headers: map[string]string{"preset": preset, "X-Dept": "claim.dept"}})
			})
			var spoofed []string
			for name := range want {
				spoofed = append(spoofed, name, "root", strings.ReplaceAll(name, "-", "_"), "root", strings.ToUpper(name), "root")
			}
			v := w.door.Authorize(questionAbout("GET", "/", append(spoofed, "Cookie", asAlice)...))
			w.rec.event(t)
			if !v.Allowed || v.HandOn.Get("X-Dept") != "R&D" {
				t.Fatalf("%+v", v)
			}
			for name, value := range want {
				got := v.HandOn[name]
				if strings.HasPrefix(value, "{") {
					if len(got) == 1 {
						w.wantClaims(got[0], value)
						continue
					}
					t.Errorf("%s: %q", name, got)
				}
				if value == "" && got != nil || value != "" && (len(got) != 1 || got[0] != value) {
					t.Errorf("%s is %q, want %q", name, got, value)
				}
			}
			for name, values := range v.HandOn {
				if strings.Contains(strings.Join(values, ""), "root") {
					t.Errorf("%s is %q", name, values)
				}
			}
			// Nobody is told of by none of these names.
			w.door.Swap(&Snapshot{Version: "v2", Routes: w.snapshot.Routes, Policy: policy(allowAll), Server: w.snapshot.Server})
			v = w.door.Authorize(questionAbout("GET", "/", spoofed...))
			w.rec.event(t)
			removed := strings.Join(v.Remove, " ") + " "
			for name := range want {
				if _, told := v.HandOn[name]; told || !strings.Contains(removed, name+" ") {
					t.Errorf("nobody: %s is %q", name, v.HandOn[name])
				}
			}
		})
	}
}

// wantClaims verifies a token with the published keys and compares some claims.
func (w *world) wantClaims(token, want string) {
	w.t.Helper()
	set, err := w.door.signer.JWKS(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var keys struct{ Keys []map[string]any }
	if err := json.Unmarshal(set, &keys); err != nil {
		w.t.Fatal(err)
	}
	header, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil || header.Header["alg"] != "ES256" {
		w.t.Fatalf("%v %v", header, err)
	}
	published := false
	for _, key := range keys.Keys {
		published = published || key["kid"] == header.Header["kid"]
	}
	if !published {
		w.t.Errorf("signed by %v, published %s", header.Header["kid"], set)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		w.t.Fatal(err)
	}
	var got, some map[string]any
	if json.Unmarshal(payload, &got) != nil || json.Unmarshal([]byte(want), &some) != nil {
		w.t.Fatalf("%s", payload)
	}
	for name, value := range some {
		a, _ := json.Marshal(got[name])
		b, _ := json.Marshal(value)
		if string(a) != string(b) {
			w.t.Errorf("claim %s is %s, want %s", name, a, b)
		}
	}
	if got["exp"] == nil || got["iat"] == nil || strings.Count(string(payload), `"sub"`) != 1 || strings.Count(string(payload), `"aud"`) != 1 {
		w.t.Errorf("%s", payload)
	}
}

func TestPresetFaults(t *testing.T) {
	for name, c := range map[string]struct {
		headers map[string]string
		at      string
	}{
		"unknown":                  {map[string]string{"preset": "keycloak"}, "routes[0].headers.preset"},
		"a header of the preset":   {map[string]string{"preset": "authelia", "Remote-User": "user"}, "routes[0].headers.Remote-User"},
		"one in another spelling":  {map[string]string{"preset": "authelia", "remote_user": "user"}, "routes[0].headers.remote_user"},
		"a header of another name": {map[string]string{"preset": "authelia", "X-User": "user"}, ""},
	} {
		_, faults := NewTable([]access.Route{{ID: "a", From: "https://a.example", To: []string{"https://10.0.0.1"}, Headers: c.headers}})
		if c.at == "" && len(faults) > 0 || c.at != "" && (len(faults) != 1 || faults[0].Path != c.at) {
			t.Errorf("%s: %+v", name, faults)
		}
	}
	for name, rules := range presets {
		for _, rule := range rules {
			if rule.name != http.CanonicalHeaderKey(rule.name) || !reserved(rule.name) || (rule.fact == "") == (rule.token == "") {
				t.Errorf("%s: %+v", name, rule)
			}
		}
	}
}
