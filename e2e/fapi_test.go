package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A hardened client needs one line of configuration. The provider of this story
// demands all of FAPI 2.0 and refuses whoever leaves out a part of it: pushed
// authorization requests, a client known by its key, proof of possession with
// nonces, PKCE.
func TestHardenedClient(t *testing.T) {
	d := startDemo(t, t.TempDir())
	key := writeFile(t, t.TempDir(), "provider.key", keyText(t, newAuthority(t, "doorward").key))
	harden := strings.NewReplacer(
		"client_secret: {file: "+d.dir+"/client-secret}",
		"client_auth: {private_key_jwt: {file: "+key+"}}\n    profile: fapi2",
	)
	replace(t, d.configPath(), harden.Replace(d.configuration()))
	d.waitFor("configuration loaded", 1)

	// The provider reads our public keys where we publish them.
	published := newVisitor(t).once("GET", d.url("auth", "/.doorward/client-jwks.json"), nil, nil)
	if published.status != 200 || strings.Contains(published.body, `"d"`) {
		t.Fatalf("client keys: %d %s", published.status, published.body)
	}
	idp := startOIDCProvider(t, externalOptions{
		RedirectURIs:   []string{d.url("auth", "/.doorward/callback")},
		PostLogoutURIs: []string{d.url("auth", "/.doorward/logout")},
		TokenLifetime:  2 * time.Second,
		FAPI:           true,
		ClientJWKS:     published.body,
	})
	moved := strings.NewReplacer("issuer: http://"+d.idp, "issuer: "+idp.Issuer)
	replace(t, d.configPath(), moved.Replace(d.configuration()))
	d.waitFor("configuration loaded", 2)

	v := newVisitor(t)
	var authorize []string
	v.client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), idp.Issuer+"/auth?") {
			authorize = append(authorize, r.URL.String())
		}
		return nil
	}
	v.login(d.url("wiki", "/plans"), "alice").says(t, 200, "Wiki", "alice@example.com")

	if len(authorize) != 1 {
		t.Fatalf("authorization requests: %q", authorize)
	}
	if u, _ := url.Parse(authorize[0]); len(u.Query()) != 2 || u.Query().Get("client_id") != "doorward" || u.Query().Get("request_uri") == "" {
		t.Errorf("the browser carried more than it has to: %s", authorize[0])
	}
	requests := idp.requests()
	for _, want := range []string{"POST /request 400 dpop", "POST /request 201 dpop", "POST /token 200 dpop"} {
		if !slices.Contains(requests, want) {
			t.Errorf("no %q among %q", want, requests)
		}
	}

	// Whoever replays the request gets an error page of the provider, and the
	// session does not notice.
	for name, who := range map[string]*visitor{"alice": v, "a stranger": newVisitor(t)} {
		if p := who.open(authorize[0]); p.status != 400 || p.url.Host != strings.TrimPrefix(idp.Issuer, "http://") {
			t.Errorf("%s replayed the request: %d at %s\n%s", name, p.status, p.url, p.body)
		}
	}
	v.open(d.url("wiki", "/")).says(t, 200, "Wiki")

	d.seeRefresh(v)
	// The key is sealed with the tokens: another process can use it as well.
	d.stop()
	d.start()
	replace(t, d.configPath(), moved.Replace(harden.Replace(d.configuration())))
	d.waitFor("configuration loaded", 1)
	d.seeRefresh(v)
	v.open(d.url("wiki", "/")).says(t, 200, "Wiki")
	if n := len(authorize); n != 1 {
		t.Errorf("%d logins", n)
	}

	v.open(d.url("billing", "/"))
	if n := len(authorize); n != 2 {
		t.Errorf("%d logins after a step-up", n)
	}
	if u, _ := url.Parse(authorize[len(authorize)-1]); len(u.Query()) != 2 {
		t.Errorf("the browser carried the step-up: %s", u)
	}
}

// seeRefresh uses a session until its identity is refreshed once more.
func (d *demo) seeRefresh(v *visitor) {
	d.t.Helper()
	count := func() int {
		log, err := os.ReadFile(filepath.Join(d.dir, "audit.jsonl"))
		if err != nil {
			d.t.Fatal(err)
		}
		return bytes.Count(log, []byte("identity refreshed"))
	}
	before := count()
	eventually(d.t, "a refresh", func() bool {
		p := v.open(d.url("wiki", "/"))
		if p.status != 200 {
			d.t.Fatalf("while refreshing: %d\n%s", p.status, p.body)
		}
		return count() > before
	})
}

// The same profile with a certificate instead of keys: issued by somebody the
// provider trusts, or self-signed and registered.
func TestHardenedClientWithCertificate(t *testing.T) {
	ca := newAuthority(t, "authority")
	leaf := func(a *authority, name string) (cert, key string) {
		der, private := a.issue(name)
		dir := t.TempDir()
		return writeFile(t, dir, "cert.pem", pemOf("CERTIFICATE", der)), writeFile(t, dir, "key.pem", keyText(t, private))
	}
	caFile := writeFile(t, t.TempDir(), "ca.pem", pemOf("CERTIFICATE", ca.cert.Raw))
	serverCert, serverKey := leaf(ca, "provider")

	issuedCert, issuedKey := leaf(ca, "doorward")
	alone := newAuthority(t, "doorward") // certifies nobody but itself
	dir := t.TempDir()
	aloneCert, aloneKey := writeFile(t, dir, "cert.pem", pemOf("CERTIFICATE", alone.cert.Raw)), writeFile(t, dir, "key.pem", keyText(t, alone.key))

	for method, client := range map[string]struct{ cert, key, jwks string }{
		"tls_client_auth":             {issuedCert, issuedKey, ""},
		"self_signed_tls_client_auth": {aloneCert, aloneKey, alone.jwks(t)},
	} {
		t.Run(method, func(t *testing.T) {
			d := startDemo(t, t.TempDir())
			idp := startOIDCProvider(t, externalOptions{
				RedirectURIs:  []string{d.url("auth", "/.doorward/callback")},
				TokenLifetime: 2 * time.Second, FAPI: true, ClientAuth: method, ClientJWKS: client.jwks,
				Certificate: serverCert, Key: serverKey, CA: caFile,
			})
			replace(t, d.configPath(), strings.NewReplacer(
				"issuer: http://"+d.idp, "issuer: "+idp.Issuer,
				"client_secret: {file: "+d.dir+"/client-secret}",
				"client_auth: {mtls: {cert: "+client.cert+", key: "+client.key+"}}\n    profile: fapi2\n    ca: "+caFile,
			).Replace(d.configuration()))
			d.waitFor("configuration loaded", 1)
			v := newVisitor(t)
			pool := x509.NewCertPool()
			pool.AddCert(ca.cert)
			v.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
			v.login(d.url("wiki", "/"), "alice").says(t, 200, "Wiki")
			d.seeRefresh(v)
			for _, want := range []string{"POST /request 201", "POST /token 200"} {
				if requests := idp.requests(); !slices.Contains(requests, want) {
					t.Errorf("no %q among %q", want, requests)
				}
			}
		})
	}
}

// jwks is what a client registers for a self-signed certificate (RFC 8705 §2.2.2).
func (a *authority) jwks(t *testing.T) string {
	t.Helper()
	point, err := a.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","x":%q,"y":%q,"x5c":[%q]}]}`,
		text(point[1:33]), text(point[33:]), base64.StdEncoding.EncodeToString(a.cert.Raw))
}

func keyText(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", der)
}
