package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorward/doorward/internal/access"
)

// issuerKey is a signing key that a story shares with its provider, so that it
// can sign what an honest provider would not.
type issuerKey struct {
	*rsa.PrivateKey
	t *testing.T
}

func newIssuerKey(t *testing.T) issuerKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return issuerKey{key, t}
}

// jwks writes the key, and one for ES256, as a list of private JWKs (RFC 7518
// §6.2.2, §6.3.2).
func (k issuerKey) jwks() string {
	k.t.Helper()
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		k.t.Fatal(err)
	}
	point, err := curve.PublicKey.Bytes()
	if err != nil {
		k.t.Fatal(err)
	}
	secret, err := curve.Bytes()
	if err != nil {
		k.t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	es256 := map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "es256",
		"x": encode(point[1:33]), "y": encode(point[33:]), "d": encode(secret)}
	jwk := map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "shared"}
	for name, n := range map[string]*big.Int{
		"n": k.N, "e": big.NewInt(int64(k.E)), "d": k.D, "p": k.Primes[0], "q": k.Primes[1],
		"dp": k.Precomputed.Dp, "dq": k.Precomputed.Dq, "qi": k.Precomputed.Qinv,
	} {
		jwk[name] = encode(n.Bytes())
	}
	text, err := json.Marshal([]any{jwk, es256})
	if err != nil {
		k.t.Fatal(err)
	}
	return string(text)
}

func (k issuerKey) sign(typ string, claims jwt.MapClaims) string {
	k.t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"], token.Header["typ"] = "shared", typ
	signed, err := token.SignedString(k.PrivateKey)
	if err != nil {
		k.t.Fatal(err)
	}
	return signed
}

// wantOut checks that a visitor has no session on any application's host: pages
// lead to the login, programs are refused.
func (d *demo) wantOut(v *visitor) {
	d.t.Helper()
	for _, app := range []string{"wiki", "echo", "billing"} {
		if p := v.once("GET", d.url(app, "/"), v.header, nil); p.status != 302 || !strings.Contains(p.header.Get("Location"), "/.doorward/login") {
			d.t.Errorf("%s still lets the visitor in: %d to %q", app, p.status, p.header.Get("Location"))
		}
		fetch := http.Header{"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
		if p := v.once("GET", d.url(app, "/"), fetch, nil); p.status != 401 {
			d.t.Errorf("%s answers a fetch %d", app, p.status)
		}
	}
}

func (d *demo) wantIn(v *visitor, apps ...string) {
	d.t.Helper()
	for _, app := range apps {
		if p := v.once("GET", d.url(app, "/"), v.header, nil); p.status != 200 {
			d.t.Errorf("%s: %d", app, p.status)
		}
	}
}

// The provider logs alice out, on its own page: the next request is refused on
// every application's host. Nobody else can have that effect.
func TestProviderLogsPeopleOut(t *testing.T) {
	d := startDemo(t, t.TempDir())
	key := newIssuerKey(t)
	idp := startOIDCProvider(t, externalOptions{
		RedirectURIs:   []string{d.url("auth", "/.doorward/callback")},
		PostLogoutURIs: []string{d.url("auth", "/.doorward/logout")},
		BackchannelURI: d.url("auth", "/.doorward/backchannel-logout"),
		SigningKey:     &key,
	})
	text := d.configuration()
	text = strings.Replace(text, "issuer: http://"+d.idp, "issuer: "+idp.Issuer, 1)
	text = strings.Replace(text, filepath.Join(d.dir, "client-secret"), writeFile(t, t.TempDir(), "secret", idp.ClientSecret), 1)
	replace(t, d.configPath(), text)
	d.waitFor("configuration loaded", 1)

	alice, bob := newVisitor(t), newVisitor(t)
	alice.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	alice.open(d.url("echo", "/"))
	bob.login(d.url("echo", "/"), "bob")
	d.wantIn(alice, "wiki", "echo")
	d.wantIn(bob, "echo")

	t.Run("bad logout tokens end nothing", func(t *testing.T) {
		deliver := func(host, token string) page {
			t.Helper()
			header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
			return newVisitor(t).once("POST", d.url(host, "/.doorward/backchannel-logout"), header, strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		}
		now := time.Now().Unix()
		lawful := jwt.MapClaims{
			"iss": idp.Issuer, "aud": idp.ClientID, "sub": "alice", "iat": now, "exp": now + 120,
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}
		change := func(change func(jwt.MapClaims)) jwt.MapClaims {
			claims := maps.Clone(lawful)
			claims["jti"] = rand.Text()
			change(claims)
			return claims
		}
		nobody := key.sign("logout+jwt", change(func(c jwt.MapClaims) { c["sub"] = "nobody" }))
		if p := deliver("auth", nobody); p.status != 200 || p.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("a lawful token: %d %s", p.status, p.body)
		}
		for name, token := range map[string]string{
			"forged with another key": newIssuerKey(t).sign("logout+jwt", change(func(jwt.MapClaims) {})),
			"replayed":                nobody,
			"with a nonce":            key.sign("logout+jwt", change(func(c jwt.MapClaims) { c["nonce"] = "n" })),
			"for another client":      key.sign("logout+jwt", change(func(c jwt.MapClaims) { c["aud"] = "other" })),
			"of another issuer":       key.sign("logout+jwt", change(func(c jwt.MapClaims) { c["iss"] = "https://evil.example" })),
			"expired":                 key.sign("logout+jwt", change(func(c jwt.MapClaims) { c["iat"], c["exp"] = now-600, now-300 })),
			"without jti":             key.sign("logout+jwt", lawful),
			"an ID token":             key.sign("JWT", change(func(c jwt.MapClaims) { delete(c, "events"); c["nonce"] = "n" })),
			"of another type":         key.sign("at+jwt", change(func(jwt.MapClaims) {})),
			"no token":                "x",
		} {
			for _, host := range []string{"auth", "wiki"} {
				p := deliver(host, token)
				var answer struct{ Error string }
				p.json(t, &answer)
				if p.status != 400 || answer.Error != "invalid_request" || p.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s, at %s: %d %s", name, host, p.status, p.body)
				}
			}
		}
		if p := newVisitor(t).once("GET", d.url("auth", "/.doorward/backchannel-logout"), nil, nil); p.status != 405 {
			t.Errorf("GET: %d", p.status)
		}
		d.wantIn(alice, "wiki", "echo")
	})

	p := alice.open(idp.Issuer + "/session/end")
	alice.submit(p, nil).says(t, 200, "Signed out")
	d.wantOut(alice)
	d.wantIn(bob, "echo")
	d.waitForEvent(func(e *access.Event) bool {
		return e.Kind == access.EventLogout && e.Actor == "demo:alice" && e.Reason == access.SessionEnded
	})
	if p := alice.open(d.url("wiki", "/")); !strings.Contains(p.body, `name="password"`) {
		t.Errorf("no password was asked for: %d %s", p.status, p.url)
	}
}

// Alice has lost her phone: from her laptop she logs out everywhere.
func TestLogOutEverywhere(t *testing.T) {
	d := startDemo(t, t.TempDir())
	laptop, phone, bob := newVisitor(t), newVisitor(t), newVisitor(t)
	laptop.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	phone.login(d.url("echo", "/"), "alice")
	bob.login(d.url("echo", "/"), "bob")

	p := laptop.open(d.url("wiki", "/.doorward/logout?everywhere=1"))
	p.says(t, 200, "Log out everywhere", "alice@example.com")
	d.wantIn(phone, "echo")
	header := laptop.header.Clone()
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	header.Set("Origin", "http://evil.example")
	header.Set("Sec-Fetch-Site", "cross-site")
	laptop.once("POST", d.url("wiki", "/.doorward/logout"), header, strings.NewReader("everywhere=1"))
	d.wantIn(phone, "echo")

	header.Set("Origin", strings.TrimSuffix(d.url("wiki", ""), "/"))
	header.Set("Sec-Fetch-Site", "same-origin")
	if p := laptop.once("POST", d.url("wiki", "/.doorward/logout"), header, strings.NewReader("everywhere=1")); p.status != 302 {
		t.Errorf("%d %s", p.status, p.body)
	}
	d.wantOut(laptop)
	d.wantOut(phone)
	d.wantIn(bob, "echo")
}

// The demo shows the same: signing out at the sample provider ends everything.
func TestSampleProviderLogsPeopleOut(t *testing.T) {
	d := startDemo(t, t.TempDir())
	alice := newVisitor(t)
	alice.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
	alice.open(d.url("echo", "/"))
	alice.submit(alice.open("http://"+d.idp+"/logout"), nil).says(t, 200, "Signed out")
	d.wantOut(alice)

	const sid = "name-of-a-session-that-is-gone"
	query := url.Values{"iss": {"http://" + d.idp}, "sid": {sid}}.Encode()
	p := newVisitor(t).open(d.url("auth", "/.doorward/frontchannel-logout?"+query))
	policy := p.header.Get("Content-Security-Policy")
	if p.status != 200 || !strings.Contains(policy, "frame-ancestors http://"+d.idp+";") || p.header.Get("X-Frame-Options") != "" {
		t.Errorf("the provider cannot frame the front-channel logout: %d %v", p.status, p.header)
	}
	newVisitor(t).open(d.url("auth", "/.doorward/frontchannel-logout?"+query+"&sid=2")).says(t, 400)
	for _, e := range d.events() {
		if e.Request != nil && strings.Contains(e.Request.Query, sid) {
			t.Errorf("the audit log tells the name of a session: %s", e.Request.Query)
		}
	}
}
