package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// mesh is a trust domain with one authority.
type mesh struct {
	t    *testing.T
	at   time.Time
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newMesh(t *testing.T, at time.Time) *mesh {
	m := &mesh{t: t, at: at}
	m.root, m.key = m.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "mesh"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return m
}

func (m *mesh) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	m.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = m.at.Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = m.at.Add(time.Hour)
	}
	parent, signer := m.root, m.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return cert, key
}

// workload is a good certificate after a change.
func (m *mesh) workload(change func(*x509.Certificate)) *x509.Certificate {
	m.t.Helper()
	id, _ := url.Parse("spiffe://prod.example/ledger/a")
	template := &x509.Certificate{
		URIs: []*url.URL{id}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	cert, _ := m.sign(template)
	return cert
}

func TestWorkloadCertificates(t *testing.T) {
	m := newMesh(t, newClock().Now())
	file := filepath.Join(t.TempDir(), "mesh.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.root.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := world(t, func(o *Options) {
		withTokens(o)
		o.Providers = append(o.Providers, Provider{ID: "mesh", Issuer: x509Issuer, CA: file, MachineTokens: MachineTokens{TrustDomain: "prod.example"}})
	})
	shown := func(chain ...*x509.Certificate) func(*http.Request) {
		return func(r *http.Request) { r.TLS = &tls.ConnectionState{PeerCertificates: chain} }
	}
	good := m.workload(nil)
	for range 2 {
		id := s.present("", shown(good)).Identity
		if id.User() != "mesh:spiffe://prod.example/ledger/a" || id.SPIFFE != id.Subject || id.Kind != access.Service || id.Issuer != "spiffe://prod.example" {
			t.Fatalf("%+v", id)
		}
	}
	uri := func(texts ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, text := range texts {
				u, err := url.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	for name, chain := range map[string][]*x509.Certificate{
		"no id":               {m.workload(uri())},
		"two ids":             {m.workload(uri("spiffe://prod.example/a", "spiffe://prod.example/b"))},
		"another domain":      {m.workload(uri("spiffe://prod.example.evil/a"))},
		"the domain itself":   {m.workload(uri("spiffe://prod.example"))},
		"no SPIFFE id":        {m.workload(uri("https://prod.example/a"))},
		"a dot segment":       {m.workload(uri("spiffe://prod.example/a/../b"))},
		"an authority":        {m.workload(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })},
		"signs certificates":  {m.workload(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })},
		"signs nothing":       {m.workload(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })},
		"for servers only":    {m.workload(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })},
		"expired":             {m.workload(func(c *x509.Certificate) { c.NotAfter = m.at.Add(-time.Minute) })},
		"of another mesh":     {newMesh(t, m.at).workload(nil)},
		"a chain of too many": {good, good, good, good, good, good, good, good, good},
	} {
		for range 2 {
			if req := s.present("", shown(chain...)); !req.Identity.Nobody() {
				t.Errorf("%s: %+v", name, req.Identity)
			}
		}
	}
	// A token or a session comes first, and the end of a certificate is kept.
	if req := s.present("Bearer x", shown(good)); !req.Identity.Nobody() || req.Credential.Problem != access.TokenInvalid {
		t.Errorf("%+v", req)
	}
	short := m.workload(func(c *x509.Certificate) { c.NotAfter = m.at.Add(time.Minute) })
	if req := s.present("", shown(short)); req.Identity.Nobody() {
		t.Error("a good certificate is refused")
	}
	s.clock.Advance(61 * time.Second)
	if req := s.present("", shown(short)); !req.Identity.Nobody() {
		t.Error("a certificate is believed beyond its end")
	}

	// Revoked, it needs a certificate from afterwards.
	who := access.Revocation{Issuer: "spiffe://prod.example", Subject: "spiffe://prod.example/ledger/a", By: "ops", Why: "key leaked"}
	if _, err := s.sessions.NotBefore(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	if req := s.present("", shown(good)); !req.Identity.Nobody() {
		t.Errorf("revoked and still %+v", req.Identity)
	}
}

func TestCertificateProviderFaults(t *testing.T) {
	for want, p := range map[int]Provider{
		0: {ID: "mesh", Issuer: x509Issuer, CA: "mesh.pem", MachineTokens: MachineTokens{TrustDomain: "prod.example"}},
		1: {ID: "mesh", Issuer: x509Issuer, CA: "mesh.pem"},
		2: {ID: "mesh", Issuer: x509Issuer},
		3: {ID: "mesh", Issuer: x509Issuer, MachineTokens: MachineTokens{Audiences: []string{"a"}}},
	} {
		f := access.NewFaults("")
		p.Validate(f)
		if got := f.List(); len(got) != want {
			t.Errorf("%d faults: %+v", want, got)
		}
	}
}
