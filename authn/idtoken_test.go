package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/doorward/doorward/internal/jose"
	"github.com/doorward/doorward/internal/testidp"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// signers are the keys of the provider in these tests.
type signers struct {
	rsa     *rsa.PrivateKey
	ecdsa   *ecdsa.PrivateKey
	ed25519 ed25519.PrivateKey
}

// makeSigners makes them once; RSA keys are slow to make.
var makeSigners = sync.OnceValue(func() signers {
	var s signers
	var err [3]error
	s.rsa, err[0] = rsa.GenerateKey(rand.Reader, 2048)
	s.ecdsa, err[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, s.ed25519, err[2] = ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err[:]...); err != nil {
		panic(err)
	}
	return s
})

func (s signers) published() []jose.Key {
	return []jose.Key{
		{ID: "rsa", Public: &s.rsa.PublicKey}, {ID: "ec", Public: &s.ecdsa.PublicKey},
		{ID: "ed", Alg: "EdDSA", Public: s.ed25519.Public().(ed25519.PublicKey)},
	}
}

// sign signs header and payload as they are written.
func (s signers) sign(t testing.TB, header, payload string) string {
	t.Helper()
	var h struct {
		Alg string `json:"alg"`
	}
	json.Unmarshal([]byte(header), &h)
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(text))
	var sig []byte
	var err error
	switch h.Alg {
	case "PS256":
		sig, err = rsa.SignPSS(rand.Reader, s.rsa, crypto.SHA256, sum[:], nil)
	case "ES256":
		r, v, signErr := ecdsa.Sign(rand.Reader, s.ecdsa, sum[:])
		if err = signErr; err == nil {
			sig = append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
		}
	case "EdDSA":
		sig = ed25519.Sign(s.ed25519, []byte(text))
	default:
		sig, err = rsa.SignPKCS1v15(rand.Reader, s.rsa, crypto.SHA256, sum[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// judge is a client that knows the keys and asks nobody.
func judge(t testing.TB) (*client, *testidp.Clock) {
	t.Helper()
	clk := newClock()
	opts := &Options{Transport: network{}, Now: clk.Now}
	c, err := newClient(corpProvider(), opts)
	if err != nil {
		t.Fatal(err)
	}
	c.metadata.Put(&metadata{algorithms: []string{"RS256", "PS256", "ES256", "EdDSA", "HS256", "none"}})
	c.keys.Put(makeSigners().published())
	return c, clk
}

const (
	rsaHeader = `{"alg":"RS256","kid":"rsa","typ":"JWT"}`
	now0      = 1795435200 // when the tests' clock starts
)

func goodPayload(more string) string {
	return fmt.Sprintf(`{"iss":"https://corp.test","sub":"8f1c","aud":"doorward","exp":%d,"iat":%d,"nonce":"n0"%s}`, now0+600, now0, more)
}

func TestClockOfTheTests(t *testing.T) {
	if got := newClock().Now().Unix(); got != now0 {
		t.Fatal(got)
	}
}

func TestGoodIDTokens(t *testing.T) {
	c, _ := judge(t)
	s := makeSigners()
	atHash := func(sum []byte) string { return `,"at_hash":"` + b64(sum[:len(sum)/2]) + `"` }
	sum256, sum512 := sha256.Sum256([]byte("token")), sha512.Sum512([]byte("token"))
	for name, raw := range map[string]string{
		"RS256":              s.sign(t, rsaHeader, goodPayload("")),
		"PS256":              s.sign(t, `{"alg":"PS256","kid":"rsa"}`, goodPayload("")),
		"ES256":              s.sign(t, `{"alg":"ES256","kid":"ec","typ":"jwt"}`, goodPayload("")),
		"EdDSA":              s.sign(t, `{"alg":"EdDSA","kid":"ed"}`, goodPayload("")),
		"list of audiences":  s.sign(t, rsaHeader, strings.Replace(goodPayload(`,"azp":"doorward"`), `"doorward"`, `["x","doorward"]`, 1)),
		"at_hash":            s.sign(t, rsaHeader, goodPayload(atHash(sum256[:]))),
		"at_hash of Ed25519": s.sign(t, `{"alg":"EdDSA","kid":"ed"}`, goodPayload(atHash(sum512[:]))),
		"fractional seconds": s.sign(t, rsaHeader, strings.Replace(goodPayload(""), fmt.Sprint(now0+600), fmt.Sprint(now0+600)+".75", 1)),
		"skew of a minute":   s.sign(t, rsaHeader, goodPayload(fmt.Sprintf(`,"nbf":%d`, now0+59))),
		"auth_time":          s.sign(t, rsaHeader, goodPayload(fmt.Sprintf(`,"auth_time":%d`, now0-5))),
	} {
		token, err := c.verify(t.Context(), raw, expectation{nonce: "n0", accessToken: "token"})
		if err != nil || token.subject != "8f1c" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// badTokens holds one token for every way to be wrong that libraries of this
// field have been seen to accept, and the classical forgeries.
func badTokens(t testing.TB) map[string]string {
	s := makeSigners()
	sign := func(payload string) string { return s.sign(t, rsaHeader, payload) }
	replace := func(old, new string) string {
		if !strings.Contains(goodPayload(""), old) {
			t.Fatalf("nothing to replace: %s", old)
		}
		return sign(strings.Replace(goodPayload(""), old, new, 1))
	}
	header := func(more string) string {
		return s.sign(t, `{"alg":"RS256","kid":"rsa"`+more+`}`, goodPayload(""))
	}
	good := sign(goodPayload(""))
	parts := strings.Split(good, ".")

	publicDER, err := x509.MarshalPKIXPublicKey(&s.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})
	hs256 := b64([]byte(`{"alg":"HS256","kid":"rsa"}`)) + "." + parts[1]
	mac := hmac.New(sha256.New, publicPEM)
	mac.Write([]byte(hs256))
	jwk := fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":"%s"}`, b64(s.ed25519.Public().(ed25519.PublicKey)))
	exp, iat := fmt.Sprint(now0+600), fmt.Sprintf(`"iat":%d`, now0)

	return map[string]string{
		// The rows of a comparison of go-oidc and golang-jwt.
		"no exp":                         replace(`"exp":`+exp+",", ""),
		"exp as a string":                replace(exp, `"9999999999"`),
		"iat tomorrow":                   replace(iat, fmt.Sprintf(`"iat":%d`, now0+86400)),
		"nbf in four minutes":            sign(goodPayload(fmt.Sprintf(`,"nbf":%d`, now0+240))),
		"no sub":                         replace(`"sub":"8f1c",`, ""),
		"two audiences, foreign azp":     replace(`"aud":"doorward"`, `"aud":["other","doorward"],"azp":"other"`),
		"aud elsewhere, AUD ours":        replace(`"aud":"doorward"`, `"aud":"x","AUD":"doorward"`),
		"iss elsewhere, ISS ours":        replace(`"iss":"https://corp.test"`, `"iss":"https://evil.example","ISS":"https://corp.test"`),
		"past exp, future EXP":           replace(`"exp":`+exp, fmt.Sprintf(`"exp":%d,"EXP":%s`, now0-600, exp)),
		"only AUD":                       replace(`"aud"`, `"AUD"`),
		"only Sub":                       replace(`"sub"`, `"Sub"`),
		"email twice":                    sign(goodPayload(`,"email":"a@b","email":"root@b"`)),
		"sub twice":                      sign(goodPayload(`,"sub":"root"`)),
		"sub twice, escaped":             sign(goodPayload(`,"\u0073ub":"root"`)),
		"twice within a claim":           sign(goodPayload(`,"x":[{"a":1,"a":2}]`)),
		"unknown crit":                   header(`,"crit":["x"],"x":1`),
		"empty crit":                     header(`,"crit":[]`),
		"b64 false without crit":         header(`,"b64":false`),
		"b64 false with crit":            header(`,"b64":false,"crit":["b64"]`),
		"a logout token":                 header(`,"typ":"logout+jwt"`),
		"an access token":                header(`,"typ":"at+jwt"`),
		"a security event token":         header(`,"typ":"secevent+jwt"`),
		"typ is a number":                header(`,"typ":7`),
		"events":                         sign(goodPayload(`,"events":{"http://schemas.openid.net/event/backchannel-logout":{}}`)),
		"alg none":                       b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"alg None":                       b64([]byte(`{"alg":"None"}`)) + "." + parts[1] + ".",
		"alg none with kid":              b64([]byte(`{"alg":"none","kid":"rsa"}`)) + "." + parts[1] + "." + parts[2],
		"no alg":                         b64([]byte(`{"kid":"rsa"}`)) + "." + parts[1] + "." + parts[2],
		"HS256 with the public key":      hs256 + "." + b64(mac.Sum(nil)),
		"RS256 under another key's kid":  s.sign(t, `{"alg":"RS256","kid":"ec"}`, goodPayload("")),
		"RS384":                          s.sign(t, `{"alg":"RS384","kid":"rsa"}`, goodPayload("")),
		"unknown kid":                    s.sign(t, `{"alg":"RS256","kid":"new"}`, goodPayload("")),
		"kid is a path":                  s.sign(t, `{"alg":"RS256","kid":"../../dev/null"}`, goodPayload("")),
		"kid is a list":                  s.sign(t, `{"alg":"RS256","kid":["rsa"]}`, goodPayload("")),
		"alg twice":                      s.sign(t, `{"alg":"RS256","kid":"rsa","alg":"none"}`, goodPayload("")),
		"embedded jwk":                   s.sign(t, `{"alg":"EdDSA","jwk":`+jwk+`}`, goodPayload("")),
		"jku":                            header(`,"jku":"https://evil.example/jwks"`),
		"x5u":                            header(`,"x5u":"https://evil.example/x"`),
		"signature of another token":     parts[0] + "." + parts[1] + "." + strings.Split(sign(goodPayload(`,"x":1`)), ".")[2],
		"no signature":                   parts[0] + "." + parts[1] + ".",
		"two parts":                      parts[0] + "." + parts[1],
		"four parts":                     good + ".x",
		"JSON serialization":             `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"payload changed":                parts[0] + "." + b64([]byte(goodPayload(`,"email":"root@b"`))) + "." + parts[2],
		"padded base64":                  parts[0] + "=." + parts[1] + "." + parts[2],
		"line break in base64":           parts[0] + "\n." + parts[1] + "." + parts[2],
		"blank in front":                 " " + good,
		"payload is a list":              sign(`[]`),
		"payload and more":               sign(goodPayload("") + "{}"),
		"payload is cut off":             sign(strings.TrimSuffix(goodPayload(""), "}")),
		"not UTF-8":                      sign(goodPayload(`,"x":"` + "\xff" + `"`)),
		"nested too deep":                sign(goodPayload(`,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100))),
		"too large":                      sign(goodPayload(`,"x":"` + strings.Repeat("x", jose.MaxToken) + `"`)),
		"empty":                          "",
		"expired":                        replace(exp, fmt.Sprint(now0-61)),
		"exp is null":                    replace(exp, "null"),
		"exp is negative":                replace(exp, "-1"),
		"exp beyond time":                replace(exp, "1e300"),
		"no iat":                         replace(","+iat, ""),
		"iat as a string":                replace(iat, `"iat":"0"`),
		"nbf as a string":                sign(goodPayload(`,"nbf":"0"`)),
		"auth_time as a string":          sign(goodPayload(`,"auth_time":"0"`)),
		"auth_time tomorrow":             sign(goodPayload(fmt.Sprintf(`,"auth_time":%d`, now0+86400))),
		"sub is empty":                   replace("8f1c", ""),
		"sub is a number":                replace(`"8f1c"`, "7"),
		"sub is too long":                replace("8f1c", strings.Repeat("x", 256)),
		"issuer with a slash":            replace("https://corp.test", "https://corp.test/"),
		"issuer in capitals":             replace("https://corp.test", "https://CORP.test"),
		"another audience":               replace("doorward", "other"),
		"aud is a number":                replace(`"doorward"`, "7"),
		"aud holds a number":             replace(`"doorward"`, `["doorward",7]`),
		"aud is empty":                   replace(`"doorward"`, "[]"),
		"two audiences without azp":      replace(`"doorward"`, `["doorward","other"]`),
		"one audience, foreign azp":      sign(goodPayload(`,"azp":"other"`)),
		"azp is empty":                   sign(goodPayload(`,"azp":""`)),
		"azp is null":                    sign(goodPayload(`,"azp":null`)),
		"another nonce":                  replace(`"n0"`, `"n1"`),
		"no nonce":                       replace(`,"nonce":"n0"`, ""),
		"nonce in a list":                replace(`"n0"`, `["n0"]`),
		"at_hash of another token":       sign(goodPayload(`,"at_hash":"LPJNul-wow4m6Dsqxbning"`)),
		"at_hash is a number":            sign(goodPayload(`,"at_hash":1`)),
		"no kid although there are keys": s.sign(t, `{"alg":"RS256"}`, goodPayload("")),
	}
}

func TestBadIDTokensAreRefused(t *testing.T) {
	for name, raw := range badTokens(t) {
		c, _ := judge(t)
		if name == "no kid although there are keys" {
			c.keys.Put(append(makeSigners().published(), jose.Key{ID: "rsa2", Public: &makeSigners().rsa.PublicKey}))
		}
		token, err := c.verify(t.Context(), raw, expectation{nonce: "n0", accessToken: "token"})
		if err == nil {
			t.Errorf("%s was accepted: %v", name, token.claims)
		}
	}
}

// One at a time, so that no check hides behind another: each token is good but
// for the thing it is named for.
func TestRefusalsNameTheirCause(t *testing.T) {
	bad := badTokens(t)
	for name, want := range map[string]string{
		"no exp": "when it ends", "exp as a string": "exp is not a number", "iat tomorrow": "in the future",
		"nbf in four minutes": "valid from", "no sub": "no subject", "two audiences, foreign azp": "issued to another client",
		"aud elsewhere, AUD ours": "for another client", "iss elsewhere, ISS ours": "another issuer", "past exp, future EXP": "ended at",
		"email twice": "occurs twice", "sub twice, escaped": "occurs twice", "unknown crit": `"crit"`, "b64 false without crit": `"b64"`,
		"a logout token": "is not JWT", "events": "security event", "alg none": "not accepted", "HS256 with the public key": "not accepted",
		"unknown kid": "does not publish", "RS256 under another key's kid": "does not publish", "embedded jwk": `"jwk"`,
		"payload changed": "signature is wrong", "another nonce": "nonce differs", "at_hash of another token": "does not belong",
	} {
		c, _ := judge(t)
		_, err := c.verify(t.Context(), bad[name], expectation{nonce: "n0", accessToken: "token"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestMaxAgeNeedsAuthTime(t *testing.T) {
	c, _ := judge(t)
	raw := makeSigners().sign(t, rsaHeader, goodPayload(""))
	if _, err := c.verify(t.Context(), raw, expectation{nonce: "n0", authTime: true}); err == nil {
		t.Error("accepted without auth_time")
	}
}

// A configured list of algorithms narrows what is accepted; the metadata do, too.
func TestAlgorithmsAreNarrowed(t *testing.T) {
	s := makeSigners()
	es := s.sign(t, `{"alg":"ES256","kid":"ec"}`, goodPayload(""))
	c, _ := judge(t)
	c.cfg.Algorithms = []string{"RS256"}
	if _, err := c.verify(t.Context(), es, expectation{nonce: "n0"}); err == nil {
		t.Error("an algorithm that is not configured was accepted")
	}
	c, _ = judge(t)
	c.metadata.Put(&metadata{algorithms: []string{"RS256"}})
	if _, err := c.verify(t.Context(), es, expectation{nonce: "n0"}); err == nil {
		t.Error("an algorithm that is not announced was accepted")
	}
	// A key bound to one algorithm serves no other.
	c, _ = judge(t)
	c.keys.Put([]jose.Key{{ID: "rsa", Alg: "RS256", Public: &s.rsa.PublicKey}})
	if _, err := c.verify(t.Context(), s.sign(t, `{"alg":"PS256","kid":"rsa"}`, goodPayload("")), expectation{nonce: "n0"}); err == nil {
		t.Error("a key was used for another algorithm")
	}
}

func TestSingleKeyNeedsNoKID(t *testing.T) {
	c, _ := judge(t)
	c.keys.Put([]jose.Key{{Public: &makeSigners().rsa.PublicKey}})
	if _, err := c.verify(t.Context(), makeSigners().sign(t, `{"alg":"RS256"}`, goodPayload("")), expectation{nonce: "n0"}); err != nil {
		t.Error(err)
	}
}

func TestGroupsOfAToken(t *testing.T) {
	c, _ := judge(t)
	for claims, want := range map[string]struct {
		groups     string
		incomplete bool
	}{
		``:                        {"[]", false},
		`,"groups":["b","a","b"]`: {"[a b]", false},
		`,"groups":"one"`:         {"[one]", false},
		`,"groups":[]`:            {"[]", false},
		`,"groups":[1]`:           {"[]", true},
		`,"groups":{"a":1}`:       {"[]", true},
		`,"Groups":["a"]`:         {"[]", false},
		`,"hasgroups":true`:       {"[]", true},
		`,"hasgroups":"true"`:     {"[]", true},
		`,"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{}}`: {"[]", true},
		`,"_claim_names":{"other":"src1"}`:                               {"[]", false},
	} {
		token, err := c.verify(t.Context(), makeSigners().sign(t, rsaHeader, goodPayload(claims)), expectation{nonce: "n0"})
		if err != nil {
			t.Fatalf("%s: %v", claims, err)
		}
		id := c.identity(t.Context(), token, new(grant))
		if fmt.Sprint(id.Groups) != want.groups || id.GroupsIncomplete != want.incomplete {
			t.Errorf("%s: %v, incomplete %v", claims, id.Groups, id.GroupsIncomplete)
		}
	}
}

func TestClaimsSurviveTheAuditLog(t *testing.T) {
	c, _ := judge(t)
	raw := makeSigners().sign(t, rsaHeader, goodPayload(`,"n":1.5,"big":12345678901234567890,"exact":9007199254740993,"l":[1,{"m":2}],"b":true,"Sub":"root"`))
	token, err := c.verify(t.Context(), raw, expectation{nonce: "n0"})
	if err != nil {
		t.Fatal(err)
	}
	id := c.identity(t.Context(), token, new(grant))
	text, err := json.Marshal(id.Claims)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(back); got != fmt.Sprint(id.Claims) || back["big"] != "12345678901234567890" || back["exact"] != "9007199254740993" || back["n"] != 1.5 {
		t.Errorf("%s", text)
	}
	if id.Subject != "8f1c" || id.Email != "" {
		t.Errorf("%+v", id)
	}
}

// A token that is accepted says one thing only, whoever reads it.
func FuzzIDToken(f *testing.F) {
	c, _ := judge(f)
	s := makeSigners()
	for _, seed := range []string{goodPayload(""), goodPayload(`,"sub":"x"`), goodPayload(`,"AUD":"x"`), `{}`, `[]`, `{"aud":[]}`, goodPayload(`,"azp":7`)} {
		f.Add(rsaHeader, seed)
	}
	f.Add(`{"alg":"RS256","kid":"rsa","crit":[]}`, goodPayload(""))
	f.Add(`{"alg":"none"}`, goodPayload(""))
	f.Fuzz(func(t *testing.T, header, payload string) {
		raw := s.sign(t, header, payload)
		token, err := c.verify(context.Background(), raw, expectation{nonce: "n0"})
		if err != nil {
			return
		}
		var plain map[string]any
		if err := json.Unmarshal([]byte(payload), &plain); err != nil {
			t.Fatalf("accepted what is no JSON: %q", payload)
		}
		if plain["iss"] != "https://corp.test" || plain["nonce"] != "n0" || plain["sub"] != token.subject || token.subject == "" {
			t.Fatalf("accepted %q", payload)
		}
		if exp, ok := plain["exp"].(float64); !ok || exp < now0-60 {
			t.Fatalf("accepted %q", payload)
		}
		c.identity(context.Background(), token, new(grant))
	})
}
