package devicecheck

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/testidp"
)

// What goes wrong with tokens is said without repeating any of it.
func TestTokensThatAreNone(t *testing.T) {
	for name, lie := range map[string]testidp.Misbehaviour{
		"refused":       testidp.Throttles(http.StatusUnauthorized, ""),
		"a wrong id":    testidp.Says(testidp.Fails(http.StatusBadRequest, "invalid_client")),
		"two tokens":    testidp.Says(testidp.Answer{Body: `{"access_token":"s3cret-a","access_token":"s3cret-b","token_type":"Bearer","expires_in":60}`}),
		"another kind":  testidp.Says(testidp.Answer{Body: `{"access_token":"s3cret","token_type":"mac","expires_in":60}`}),
		"a line break":  testidp.Says(testidp.Answer{Body: `{"access_token":"s3cret\nHost: evil","token_type":"Bearer","expires_in":60}`}),
		"no end":        testidp.Says(testidp.Answer{Body: `{"access_token":"s3cret","token_type":"Bearer","expires_in":1e99}`}),
		"no JSON":       testidp.Says(testidp.Answer{Body: `s3cret`}),
		"huge":          testidp.Says(testidp.Huge()),
		"half a token":  testidp.BreaksOff(),
		"another place": testidp.Redirects("https://evil.example/token"),
	} {
		v := newVendor(t, "jamf")
		v.AlwaysToken(lie)
		_, err := v.fetcher().fetch(t.Context(), nil)
		if err == nil || !strings.Contains(err.Error(), "no token") || strings.Contains(err.Error()+v.log.String(), "s3cret") || len(v.Requests()) > 5 {
			t.Errorf("%s: %v, asked %v", name, err, v.Requests())
		}
	}
}

// A token that lives shorter than the margin is used all the same.
func TestShortTokensAreUsed(t *testing.T) {
	v := newVendor(t, "jamf")
	v.Set(healthy("a"), healthy("b"), healthy("c"))
	v.AlwaysToken(testidp.LiesAbout(func(answer map[string]any) { answer["expires_in"] = 20 }))
	f := v.fetcher()
	for range 2 {
		if _, err := f.fetch(t.Context(), nil); err != nil || v.Tokens() != 1 {
			t.Fatal(err, v.Tokens())
		}
	}
	v.Advance(15 * time.Second)
	if _, err := f.fetch(t.Context(), nil); err != nil || v.Tokens() != 2 {
		t.Error(err, v.Tokens())
	}
}

// A machine of Google's gets its tokens from a metadata server.
func TestGoogleTokensFromAMetadataServer(t *testing.T) {
	v := newVendor(t, "google")
	v.Set(healthy("a"))
	s := v.source()
	s.ServiceAccount, s.TokenURL = access.Secret{}, testidp.MetadataURL(v.url)
	if inv, err := v.open(s).fetch(t.Context(), nil); err != nil || len(inv.devices) != 1 {
		t.Error(err)
	}
}

// The assertion is for whom it says, in whose name it says.
func TestServiceAccountAssertion(t *testing.T) {
	account, err := parseServiceAccount(access.NewSecret(testidp.ServiceAccount("https://tokens.example")))
	if err != nil {
		t.Fatal(err)
	}
	text, err := account.assertion("admin@corp.example", noon)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return account.key.Public(), nil },
		jwt.WithTimeFunc(func() time.Time { return noon }), jwt.WithAudience("https://tokens.example/token"))
	if err != nil || claims["sub"] != "admin@corp.example" || claims["scope"] != googleScope || claims["iss"] != account.email ||
		claims["exp"].(float64)-claims["iat"].(float64) > 3600 || token.Header["kid"] != "1" {
		t.Error(err, claims)
	}
	if text, _ = account.assertion("", noon); text == "" {
		t.Error("no assertion")
	}
}

func TestServiceAccountsThatAreNone(t *testing.T) {
	good := testidp.ServiceAccount("https://tokens.example")
	for name, file := range map[string]string{
		"nothing":          "",
		"no JSON":          "s3cret",
		"another kind":     strings.Replace(good, `"service_account"`, `"authorized_user"`, 1),
		"no name":          strings.Replace(good, "client_email", "email", 1),
		"no key":           strings.Replace(good, "BEGIN PRIVATE KEY", "BEGIN KEY", 1),
		"plain http":       strings.Replace(good, "https://", "http://", 1),
		"a key there once": strings.Replace(good, "{", `{"private_key":"x",`, 1),
	} {
		if _, err := parseServiceAccount(access.NewSecret(file)); err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for address, want := range map[string]bool{
		googleMetadata: true, "https://tokens.example/x": true, "http://127.0.0.1:1/x": true,
		"http://tokens.example/x": false, "http://metadata.google.internal.evil.example/x": false, "http://user@metadata.google.internal/x": false, "": false,
	} {
		if _, err := parseTokenURL(address); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}
