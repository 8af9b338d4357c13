package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// The known answers of RFC 7638 §3.1, RFC 9449 §6.1 and §7.1.
func TestKnownThumbprints(t *testing.T) {
	modulus, err := base64.RawURLEncoding.DecodeString(strings.Join(strings.Fields(`
		0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst
		n64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn
		1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw`), ""))
	if err != nil {
		t.Fatal(err)
	}
	key, err := newPublicJWK(&rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537})
	if err != nil || key.thumbprint() != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("%+v %v", key, err)
	}
	bound := publicJWK{Kty: "EC", Crv: "P-256", X: "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", Y: "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}
	if got := bound.thumbprint(); got != "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" {
		t.Errorf("jkt %s", got)
	}
	if got := tokenHash("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"); got != "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo" {
		t.Errorf("ath %s", got)
	}
}

func TestProofTargetHasNoQuery(t *testing.T) {
	u, err := url.Parse("https://corp.test:8443/a%2Fb?tenant=1#x")
	if err != nil {
		t.Fatal(err)
	}
	if got := proofTarget(u); got != "https://corp.test:8443/a%2Fb" {
		t.Error(got)
	}
}

func TestProofKeySurvivesItsText(t *testing.T) {
	key, err := newProofKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseProofKey(key.text())
	if err != nil || !again.private.Equal(key.private) || len(key.text()) != 43 {
		t.Errorf("%v, %d characters", err, len(key.text()))
	}
	if (*proofKey)(nil).text() != "" {
		t.Error("no key has a text")
	}
	for _, text := range []string{"", "!", "AAAA", strings.Repeat("A", 43), strings.Repeat("_", 43)} {
		if _, err := parseProofKey(text); err == nil {
			t.Errorf("%q is a key", text)
		}
	}
}

func TestNonces(t *testing.T) {
	var n nonces
	note := func(host string, values ...string) bool {
		return n.note(&http.Response{Header: http.Header{"Dpop-Nonce": values}, Request: &http.Request{URL: &url.URL{Scheme: "https", Host: host}}})
	}
	for _, values := range [][]string{{}, {""}, {"a", "b"}, {"a b"}, {"a\"b"}, {strings.Repeat("a", maxNonce+1)}} {
		if note("a.test", values...) {
			t.Errorf("kept %q", values)
		}
	}
	note("a.test", "one")
	note("b.test", "two")
	if got := n.of(&url.URL{Scheme: "https", Host: "a.test"}); got != "one" {
		t.Errorf("nonce %q", got)
	}
	for i := range 3 * maxServers {
		note(fmt.Sprint(i, ".test"), "x")
	}
	if len(n.last) > maxServers {
		t.Errorf("%d nonces", len(n.last))
	}
}

func TestClientKeyFiles(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := ecPEM(t)
	for name, text := range map[string]string{
		"empty": " ", "text": "hunter2", "a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"weak RSA": pemOf(t, small), "another curve": pemOf(t, p384), "damaged": strings.Replace(good, "M", "A", 3),
		"with a passphrase": strings.ReplaceAll(good, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "too many": strings.Repeat(good, maxClientKeys+1),
	} {
		if _, err := parseClientKeys(text); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	two := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})) + good
	keys, err := parseClientKeys(two)
	if err != nil || len(keys) != 2 || !private.Equal(keys[0].private) {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func TestAssertionAlgorithms(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := parseClientKeys(pemOf(t, private))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		supported []string
		fapi2     bool
		want      string
	}{
		{nil, false, "RS256"}, {nil, true, "PS256"}, {[]string{"RS256"}, false, "RS256"}, {[]string{"RS256"}, true, ""},
		{[]string{"RS256", "PS256"}, false, "PS256"}, {[]string{"HS256"}, false, ""}, {[]string{}, false, ""},
	} {
		got := ""
		if method, err := keys[0].algorithm(c.supported, c.fapi2); err == nil {
			got = method.Alg()
		}
		if got != c.want {
			t.Errorf("%v: %q", c, got)
		}
	}
}

func TestNoClientKeysToPublish(t *testing.T) {
	s := world(t, nil)
	s.browser().get(app+access.ClientKeysPath).refused(t, access.NoRoute)
}

func TestHardenedClientFaults(t *testing.T) {
	key := access.NewSecret(ecPEM(t))
	for name, c := range map[string]struct {
		change func(*Provider)
		want   []string
	}{
		"fapi2 with a key":         {func(p *Provider) { p.ClientAuth.PrivateKeyJWT, p.Profile = key, "fapi2" }, nil},
		"fapi2 with a certificate": {func(p *Provider) { p.ClientAuth.MTLS, p.Profile = ClientCertificate{"c", "k"}, "fapi2" }, nil},
		"fapi2 with neither":       {func(p *Provider) { p.Profile, p.ClientSecret = "fapi2", access.NewSecret("s") }, []string{"client_auth"}},
		"fapi2 and RS256": {func(p *Provider) {
			p.ClientAuth.PrivateKeyJWT, p.Profile, p.Algorithms = key, "fapi2", []string{"ES256", "RS256"}
		}, []string{"algorithms[1]"}},
		"another profile":          {func(p *Provider) { p.ClientAuth.PrivateKeyJWT, p.Profile = key, "fapi1" }, []string{"profile"}},
		"a secret beside a key":    {func(p *Provider) { p.ClientAuth.PrivateKeyJWT, p.ClientSecret = key, access.NewSecret("s") }, []string{"client_secret"}},
		"two proofs":               {func(p *Provider) { p.ClientAuth.PrivateKeyJWT, p.ClientAuth.MTLS = key, ClientCertificate{"c", "k"} }, []string{"client_auth"}},
		"half a certificate":       {func(p *Provider) { p.ClientAuth.MTLS.Cert = "c" }, []string{"client_auth.mtls.key"}},
		"the other half":           {func(p *Provider) { p.ClientAuth.MTLS.Key = "k" }, []string{"client_auth.mtls.cert"}},
		"no key in the file":       {func(p *Provider) { p.ClientAuth.PrivateKeyJWT = access.NewSecret("hunter2") }, []string{"client_auth.private_key_jwt"}},
		"dpop for a public client": {func(p *Provider) { p.ClientAuth.word, p.DPoP, p.PAR = clientAuthNone, true, true }, nil},
	} {
		p := Provider{ID: "corp", Issuer: "https://corp.test", ClientID: "doorward"}
		c.change(&p)
		f := access.NewFaults("")
		p.Validate(f)
		var paths []string
		for _, fault := range f.List() {
			paths = append(paths, fault.Path)
			if strings.Contains(fault.Text, "hunter2") {
				t.Errorf("%s: the fault shows the file: %s", name, fault.Text)
			}
		}
		if !slices.Equal(paths, c.want) {
			t.Errorf("%s: faults at %v, want %v", name, paths, c.want)
		}
	}
	var a ClientAuth
	if a.UnmarshalText([]byte("post")) != nil || a.method() != clientAuthPost || a.UnmarshalText([]byte("jwt")) == nil {
		t.Errorf("%+v", a)
	}
	if fapi := (&Provider{Profile: "fapi2"}); slices.Contains(fapi.algorithms(), "RS256") {
		t.Error("fapi2 accepts RS256")
	}
}

// A client with a certificate presents it, names itself in the form, uses the
// endpoints made for that, and sends no secret (RFC 8705 §2 and §5).
func TestMutualTLS(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "doorward"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	type call struct{ path, client, form string }
	var calls []call
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		base := "https://" + r.Host
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"%[2]s/a","token_endpoint":"%[2]s/t","jwks_uri":"%[2]s/k",
				"id_token_signing_alg_values_supported":["ES256"],"pushed_authorization_request_endpoint":"%[2]s/par",
				"mtls_endpoint_aliases":{"token_endpoint":"%[2]s/mtls/t"}}`, base, base)
		default:
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			who := "nobody"
			if len(r.TLS.PeerCertificates) > 0 {
				who = r.TLS.PeerCertificates[0].Subject.CommonName
			}
			calls = append(calls, call{r.URL.Path, who, r.PostForm.Encode() + r.Header.Get("Authorization") + r.Header.Get("DPoP")})
			io.WriteString(w, `{"access_token":"a","token_type":"Bearer"}`)
		}
	})
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)

	p := Provider{
		ID: "corp", Issuer: server.URL, ClientID: "doorward", Profile: profileFAPI2,
		CA: file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))),
		ClientAuth: ClientAuth{MTLS: ClientCertificate{
			Cert: file("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), Key: file("key.pem", pemOf(t, private)),
		}},
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	c, err := newClient(p, &Options{Transport: transport, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	meta, err := c.metadata.Get(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.exchange(t.Context(), meta, "https://app.test/cb", "code", &pending{Verifier: "v"}); err != nil {
		t.Fatal(err)
	}
	want := call{"/mtls/t", "doorward", "client_id=doorward&code=code&code_verifier=v&grant_type=authorization_code&redirect_uri=https%3A%2F%2Fapp.test%2Fcb"}
	if len(calls) != 1 || calls[0] != want {
		t.Errorf("%+v", calls)
	}
	p.ClientAuth.MTLS.Key = p.CA
	if _, err := newClient(p, &Options{Transport: transport}); err == nil {
		t.Error("a certificate without its key is used")
	}
}

func FuzzParseGrant(f *testing.F) {
	f.Add([]byte(`{"access_token":"a","token_type":"DPoP","expires_in":60,"refresh_token":"r","id_token":"i"}`))
	f.Add([]byte(`{"access_token":"a","token_type":"bearer","expires_in":"60"}`))
	f.Add([]byte(`{"access_token":7}`))
	key := &proofKey{}
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := jose.ParseObject(data)
		if err != nil {
			return
		}
		plain, plainErr := parseGrant(answer, nil)
		bound, boundErr := parseGrant(answer, key)
		if plainErr == nil && boundErr == nil {
			t.Fatalf("%q is bound and is not", data)
		}
		for _, g := range []*grant{plain, bound} {
			if g != nil && g.access == "" {
				t.Fatalf("%q gives no access token", data)
			}
		}
	})
}

// An endpoint that quotes our own proofs back does not get them into a log.
func TestErrorsDoNotQuoteWhatWeSent(t *testing.T) {
	s, g := hardened(t, ecPEM(t), nil)
	var sent []string
	s.net["corp.test"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/par" {
			g.ServeHTTP(w, r)
			return
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		sent = []string{r.PostForm.Get("client_assertion"), r.Header.Get("DPoP")}
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":%q,"error_description":%q}`, sent[0], sent[1])
	})
	c := s.auth.clients["corp"]
	meta, err := c.metadata.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.authorizationURL(t.Context(), meta, url.Values{}, new(pending))
	if access.ReasonOf(err) != access.LoginFailed || len(sent) != 2 {
		t.Fatal(err)
	}
	for _, secret := range sent {
		if strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("the error quotes a proof: %v", err)
		}
	}
}
