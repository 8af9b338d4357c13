package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/testidp"
)

// issue makes a certificate, self-signed where there is no parent.
func issue(t *testing.T, template *x509.Certificate, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	above, signer := template, any(key)
	if parent != nil {
		above, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// A workload of the service mesh needs no token, and a token bound to a
// certificate is of no use on a connection with another one.
func TestWorkloadsAndBoundTokensOverTLS(t *testing.T) {
	dir := t.TempDir()
	authority := issue(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	mesh := writeFile(t, dir, "mesh.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Leaf.Raw})))
	workload := func(id string) tls.Certificate {
		uri, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		return issue(t, &x509.Certificate{
			URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, &authority)
	}

	var signer *testidp.Provider
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { signer.ServeHTTP(w, r) }))
	t.Cleanup(issuer.Close)
	var err error
	if signer, err = testidp.New(testidp.Options{Issuer: issuer.URL}); err != nil {
		t.Fatal(err)
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.Header.Get("X-User")) }))
	t.Cleanup(app.Close)

	addr := freeAddress(t)
	base := "https://" + strings.Replace(addr, "127.0.0.1", "api.localhost", 1)
	cert, key := certificate(t, dir, "api.localhost")
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}, tls: {certificates: [{cert: %q, key: %q}], client_ca: %q}}
sessions: {store: {memory: true}}
audit: {to: [{file: {path: audit.jsonl}}]}
providers:
  - {id: mesh, issuer: x509, ca: %q, trust_domain: prod.example}
  - {id: services, issuer: %q, interactive: false, audiences: [orders-api]}
routes:
  - id: orders
    from: %q
    to: [%q]
    headers: {X-User: user}
    allow:
      - {name: ledger, spiffe: ["spiffe://prod.example/ledger/**"]}
      - {name: batch, client_ids: ["services:batch"]}
`, addr, freeAddress(t), cert, key, mesh, mesh, issuer.URL, base, app.URL))
	start(t, "doorward", "serve", "--config", config).waitFor("serving", 1)

	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	call := func(as *tls.Certificate, token string) page {
		t.Helper()
		v := newVisitor(t)
		conf := &tls.Config{RootCAs: roots}
		if as != nil {
			conf.Certificates = []tls.Certificate{*as}
		}
		v.client.Transport.(*http.Transport).TLSClientConfig = conf
		header := http.Header{}
		if token != "" {
			header.Set("Authorization", "Bearer "+token)
		}
		return v.once("GET", base+"/", header, nil)
	}

	ledger, other := workload("spiffe://prod.example/ledger/a"), workload("spiffe://prod.example/other")
	call(&ledger, "").says(t, 200, "hello mesh:spiffe://prod.example/ledger/a")
	if p := call(&other, ""); p.status != 403 || !strings.Contains(p.body, "not_allowed") {
		t.Errorf("a workload that no rule names: %d %s", p.status, p.body)
	}
	if p := call(nil, ""); p.status != 401 || !strings.Contains(p.body, "login_required") {
		t.Errorf("without a certificate: %d %s", p.status, p.body)
	}

	sum := sha256.Sum256(other.Leaf.Raw)
	now := time.Now().Unix()
	header := signer.Header()
	header["typ"] = "at+jwt"
	token, err := signer.Sign(header, map[string]any{
		"iss": issuer.URL, "sub": "batch", "client_id": "batch", "aud": "orders-api", "jti": "1", "iat": now, "exp": now + 600,
		"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
	})
	if err != nil {
		t.Fatal(err)
	}
	call(&other, token).says(t, 200, "hello services:batch")
	for name, as := range map[string]*tls.Certificate{"another certificate": &ledger, "no certificate": nil} {
		if p := call(as, token); p.status != 401 || !strings.Contains(p.body, "token_binding_mismatch") {
			t.Errorf("%s: %d %s", name, p.status, p.body)
		}
	}
}
