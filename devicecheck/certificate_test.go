package devicecheck

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// ca is a certificate authority for one test.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func caOf(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(1, 0, 0),
	}
}

func newCA(t testing.TB, name string) *ca {
	key, template := newKey(t), caOf(name)
	return &ca{sign(t, template, template, key, key), key}
}

func (c *ca) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// below returns an authority that c vouches for.
func (c *ca) below(t testing.TB, template *x509.Certificate) *ca {
	key := newKey(t)
	return &ca{sign(t, template, c.cert, key, c.key), key}
}

func (c *ca) issue(t testing.TB, template *x509.Certificate) *x509.Certificate {
	return sign(t, template, c.cert, newKey(t), c.key)
}

func leafOf(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
	}
}

// presenting returns a request over a connection with client certificates.
func presenting(chain ...*x509.Certificate) *http.Request {
	return &http.Request{TLS: &tls.ConnectionState{PeerCertificates: chain}}
}

// certificateHeaders are the ways in which proxies hand on a certificate.
func certificateHeaders(leaf *x509.Certificate) map[string]string {
	der := base64.StdEncoding.EncodeToString(leaf.Raw)
	text := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})))
	sum := sha256.Sum256(leaf.Raw)
	return map[string]string{
		"Client-Cert":                 ":" + der + ":",
		"X-Forwarded-Client-Cert":     "Hash=" + hex.EncodeToString(sum[:]) + ";Cert=\"" + text + "\";Subject=\"CN=laptop-1\"",
		"X-SSL-Client-Cert":           text,
		"X-SSL-Client-Serial":         "4F01",
		"X-Forwarded-Tls-Client-Cert": text,
		"X-ARR-ClientCert":            der,
	}
}

func TestDeviceByCertificate(t *testing.T) {
	root := newCA(t, "Device CA")
	template := leafOf("laptop-1", 0x4f01a2)
	template.DNSNames = []string{"laptop-1.devices.example"}
	template.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
	template.URIs = []*url.URL{{Scheme: "urn", Opaque: "device:1"}}
	leaf := root.issue(t, template)
	sum := sha256.Sum256(leaf.Raw)
	facts := access.Certificate{
		Serial: "4f01a2", Issuer: "CN=Device CA", Subject: "CN=laptop-1", NotAfter: noon.Add(time.Hour),
		SANs:        []string{"laptop-1.devices.example", "192.0.2.1", "urn:device:1"},
		Fingerprint: hex.EncodeToString(sum[:]),
	}
	for match, record := range map[string]string{
		"certificate.serial":      `{"id": "d", "serial": "4F:01:A2", "managed": true}`,
		"certificate.fingerprint": fmt.Sprintf(`{"id": "d", "fingerprint": "%X", "managed": true}`, sum),
		"certificate.subject_cn":  `{"id": "laptop-1", "managed": true}`,
		"certificate.san":         `{"id": "urn:device:1", "managed": true}`,
	} {
		i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
			Sources: []Source{jsonSource(t, "corp", "["+record+"]")}, Match: []string{match},
		}})
		got := inspect(t, i, presenting(leaf), claiming(nil))
		if got.Known != access.Yes || got.Managed != access.Yes || got.MatchedBy != match || got.Problem != "" {
			t.Errorf("%s: %+v", match, got)
		}
		if !reflect.DeepEqual(got.Certificate, facts) {
			t.Errorf("%s:\n%+v\nwant\n%+v", match, got.Certificate, facts)
		}
		// The same key of the inventory with another field of the certificate.
		other := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
			Sources: []Source{jsonSource(t, "corp", `[{"id": "other"}]`)}, Match: []string{match},
		}})
		if got := inspect(t, other, presenting(leaf), claiming(nil)); got.Known != access.No || got.ID == "" || got.MatchedBy != match {
			t.Errorf("%s, not listed: %+v", match, got)
		}
	}
}

// A certificate that is not asked for by match shows its facts and finds nothing.
func TestCertificateOutsideMatchFindsNoDevice(t *testing.T) {
	root := newCA(t, "Device CA")
	i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "laptop-1", "serial": "05"}]`)}, Match: []string{"claim.deviceid"},
	}})
	got := inspect(t, i, presenting(root.issue(t, leafOf("laptop-1", 5))), claiming(nil))
	if got.ID != "" || got.Known != access.Unknown || got.Certificate.Serial != "05" {
		t.Errorf("%+v", got)
	}
}

func TestCertificatesThatDoNotVerifyAreNotUsed(t *testing.T) {
	root, stranger := newCA(t, "Device CA"), newCA(t, "Device CA")
	changed := func(change func(*x509.Certificate)) *x509.Certificate {
		template := leafOf("laptop-1", 5)
		change(template)
		return root.issue(t, template)
	}
	constrained := caOf("Not for clients")
	constrained.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	expired := caOf("Expired")
	expired.NotAfter = noon.Add(-time.Minute)
	viaConstrained, viaExpired := root.below(t, constrained), root.below(t, expired)
	between := root.below(t, caOf("Intermediate"))
	good := root.issue(t, leafOf("laptop-1", 5))
	pretender := root.below(t, leafOf("laptop-2", 6)) // a device that issues certificates
	for name, c := range map[string]struct {
		want  access.Reason
		chain []*x509.Certificate
	}{
		"expired":       {access.DeviceCertExpired, one(changed(func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }))},
		"not yet valid": {access.DeviceCertNotYetValid, one(changed(func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) }))},
		"for servers": {access.DeviceCertPurpose, one(changed(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}))},
		"for no stated purpose": {access.DeviceCertPurpose, one(changed(func(c *x509.Certificate) { c.ExtKeyUsage = nil }))},
		"of an authority": {access.DeviceCertPurpose, one(changed(func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}))},
		"the root itself":              {access.DeviceCertPurpose, one(root.cert)},
		"of another CA of equal name":  {access.DeviceCertAuthority, one(stranger.issue(t, leafOf("laptop-1", 5)))},
		"of another CA, root included": {access.DeviceCertAuthority, []*x509.Certificate{stranger.issue(t, leafOf("laptop-1", 5)), stranger.cert}},
		"below an expired CA":          {access.DeviceCertExpired, []*x509.Certificate{viaExpired.issue(t, leafOf("laptop-1", 5)), viaExpired.cert}},
		"below a CA for servers":       {access.DeviceCertPurpose, []*x509.Certificate{viaConstrained.issue(t, leafOf("laptop-1", 5)), viaConstrained.cert}},
		"below a leaf":                 {access.DeviceCertAuthority, []*x509.Certificate{pretender.issue(t, leafOf("laptop-1", 5)), pretender.cert}},
		"without its intermediate":     {access.DeviceCertAuthority, one(between.issue(t, leafOf("laptop-1", 5)))},
		"in too long a chain":          {access.DeviceCertInvalid, append(one(good), make([]*x509.Certificate, maxChain)...)},
		"with a critical extension": {access.DeviceCertInvalid, one(changed(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}))},
	} {
		i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
			Sources: []Source{jsonSource(t, "corp", `[{"id": "laptop-1", "serial": "05", "managed": true}]`)},
			Match:   []string{"certificate.serial", "certificate.subject_cn", "claim.deviceid"},
		}})
		for range 2 { // the second answer comes from memory
			want := access.Device{Problem: c.want}
			if got := inspect(t, i, presenting(c.chain...), claiming(nil)); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v", name, got)
			}
		}
		// A good claim beside it must not make up for it.
		want := access.Device{ID: "laptop-1", MatchedBy: "claim.deviceid", Problem: c.want}
		if got := inspect(t, i, presenting(c.chain...), claiming(map[string]any{"deviceid": "laptop-1"})); !reflect.DeepEqual(got, want) {
			t.Errorf("%s, with a claim: %+v", name, got)
		}
	}
}

func one(cert *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{cert} }

// Without an authority of its own, package x509 would ask the system's.
func TestNoCertificateVerifiesWithoutDeviceCA(t *testing.T) {
	i := newInspector(t, Options{Config: Config{Match: []string{"certificate.serial"}}})
	leaf := newCA(t, "Device CA").issue(t, leafOf("laptop-1", 5))
	if got := inspect(t, i, presenting(leaf), claiming(nil)); got.Problem != access.DeviceCertAuthority {
		t.Errorf("%+v", got)
	}
}

// Without a time, package x509 would ask the clock.
func TestNoCertificateVerifiesWithoutATime(t *testing.T) {
	root := newCA(t, "Device CA")
	template := leafOf("laptop-1", 5)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	i := newInspector(t, Options{ClientCAs: root.pool()})
	req := claiming(nil)
	req.Time = time.Time{}
	if got := inspect(t, i, presenting(root.issue(t, template)), req); got.Problem != access.DeviceCertInvalid {
		t.Errorf("%+v", got)
	}
}

// A cached verdict ends with the first certificate of the chain that expires.
func TestVerdictsAreNotKeptBeyondTheCertificate(t *testing.T) {
	root := newCA(t, "Device CA")
	short := caOf("Short-lived")
	short.NotAfter = noon.Add(10 * time.Minute)
	between := root.below(t, short)
	chain := []*x509.Certificate{between.issue(t, leafOf("laptop-1", 5)), between.cert}
	late := leafOf("laptop-2", 6)
	late.NotBefore = noon.Add(5 * time.Minute)
	notYet := []*x509.Certificate{root.issue(t, late)}
	i := newInspector(t, Options{ClientCAs: root.pool()})
	for _, c := range []struct {
		chain []*x509.Certificate
		after time.Duration
		want  access.Reason
	}{
		{chain, 0, ""},
		{chain, 10 * time.Minute, ""},
		{chain, 10*time.Minute + time.Second, access.DeviceCertExpired},
		{chain, 5 * time.Minute, ""},
		{notYet, 0, access.DeviceCertNotYetValid},
		{notYet, 5 * time.Minute, ""},
		{notYet, 0, access.DeviceCertNotYetValid},
		{chain[:1], 0, access.DeviceCertAuthority}, // not the verdict on the whole chain
	} {
		req := claiming(nil)
		req.Time = noon.Add(c.after)
		if got := inspect(t, i, presenting(c.chain...), req); got.Problem != c.want {
			t.Errorf("after %v: %q, want %q", c.after, got.Problem, c.want)
		}
	}
	if n := i.verifier.cache.Len(); n != 3 {
		t.Errorf("%d verdicts are kept, want one per chain", n)
	}
}

// Two proofs that name two devices are worth less than none.
func TestContradictingProofs(t *testing.T) {
	root := newCA(t, "Device CA")
	a, unlisted := root.issue(t, leafOf("a", 0xa)), root.issue(t, leafOf("z", 0xff))
	inventory := jsonSource(t, "corp", `[{"id": "a", "serial": "0a", "managed": true}, {"id": "b", "serial": "0b", "managed": true}, {"id": "c", "managed": true}]`)
	absent := jsonSource(t, "absent", "")
	const mismatch = access.DeviceMismatch
	for name, c := range map[string]struct {
		match  string
		cert   *x509.Certificate
		claims map[string]any
		more   []Source
		id     string
		want   access.Reason
	}{
		"both name one device":                        {"certificate.serial claim.id", a, map[string]any{"id": "a"}, nil, "a", ""},
		"the claim names another listed device":       {"certificate.serial claim.id", a, map[string]any{"id": "b"}, nil, "a", mismatch},
		"the claim comes first":                       {"claim.id certificate.serial", a, map[string]any{"id": "b"}, nil, "b", mismatch},
		"the claim names an unlisted device":          {"certificate.serial claim.id", a, map[string]any{"id": "x"}, nil, "a", mismatch},
		"the same, but an inventory is failing":       {"certificate.serial claim.id", a, map[string]any{"id": "x"}, []Source{absent}, "a", ""},
		"listed devices differ, an inventory failing": {"certificate.serial claim.id", a, map[string]any{"id": "b"}, []Source{absent}, "a", mismatch},
		"the claimed device has another certificate":  {"certificate.serial claim.id", unlisted, map[string]any{"id": "b"}, nil, "b", mismatch},
		"the same, but an inventory is failing (2)":   {"certificate.serial claim.id", unlisted, map[string]any{"id": "b"}, []Source{absent}, "b", mismatch},
		"the claimed device is listed without one":    {"certificate.serial claim.id", unlisted, map[string]any{"id": "c"}, nil, "c", ""},
		"the certificate names an unlisted id":        {"certificate.subject_cn claim.id", unlisted, map[string]any{"id": "b"}, nil, "b", mismatch},
		"neither is listed, ids differ":               {"certificate.subject_cn claim.id", unlisted, map[string]any{"id": "y"}, nil, "z", mismatch},
		"neither is listed, ids agree":                {"certificate.subject_cn claim.id", unlisted, map[string]any{"id": "z"}, nil, "z", ""},
		"the claim is not in match":                   {"certificate.serial", a, map[string]any{"id": "b"}, nil, "a", ""},
		"the certificate is not in match":             {"claim.id", a, map[string]any{"id": "b"}, nil, "b", ""},
		"two claims name two devices":                 {"claim.id claim.hw", nil, map[string]any{"id": "a", "hw": "b"}, nil, "a", mismatch},
		"a claim names no device, another one does":   {"claim.id claim.hw", nil, map[string]any{"id": "x", "hw": "b"}, nil, "b", ""},
		"serial and name of one certificate differ":   {"certificate.serial certificate.subject_cn", root.issue(t, leafOf("b", 0xa)), nil, nil, "a", mismatch},
		"a renewed certificate is found by its name":  {"certificate.serial certificate.subject_cn", root.issue(t, leafOf("a", 0xa0)), nil, nil, "a", ""},
	} {
		i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
			Sources: append([]Source{inventory}, c.more...), Match: strings.Fields(c.match),
		}})
		r := &http.Request{}
		if c.cert != nil {
			r = presenting(c.cert)
		}
		got := inspect(t, i, r, claiming(c.claims))
		if got.Problem != c.want || got.ID != c.id {
			t.Errorf("%s: %q %q, want %q %q", name, got.ID, got.Problem, c.id, c.want)
		}
		if got.Problem != "" && (got.Known != access.Unknown || got.Managed != access.Unknown || got.Source != "") {
			t.Errorf("%s: facts of a device that contradicts itself: %+v", name, got)
		}
	}
}

// A route may demand both proofs; each says for itself whether it named the
// device.
func TestWhichProofsNamedTheDevice(t *testing.T) {
	root := newCA(t, "Device CA")
	i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "a", "serial": "0a"}, {"id": "b"}]`), jsonSource(t, "absent", "")},
		Match:   []string{"certificate.serial", "claim.id"},
	}})
	listed, unlisted := root.issue(t, leafOf("x", 0xa)), root.issue(t, leafOf("x", 0xff))
	for name, c := range map[string]struct {
		cert                   *x509.Certificate
		claim                  string
		byCertificate, byClaim access.Tri
	}{
		"both":                      {listed, "a", access.Yes, access.Yes},
		"the certificate alone":     {listed, "", access.Yes, access.No},
		"the claim alone":           {nil, "a", access.No, access.Yes},
		"an unlisted certificate":   {unlisted, "b", access.No, access.Yes},
		"a claim of something else": {listed, "z", access.Yes, access.No}, // an inventory is failing, so it may be the same
		"nothing":                   {nil, "", access.Unknown, access.Unknown},
		"nothing that is listed":    {unlisted, "z", access.Unknown, access.Unknown},
	} {
		r := &http.Request{}
		if c.cert != nil {
			r = presenting(c.cert)
		}
		got := inspect(t, i, r, claiming(map[string]any{"id": c.claim}))
		if got.ByCertificate != c.byCertificate || got.ByClaim != c.byClaim {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Two inventories may know one device under two ids.
func TestOneDeviceInTwoInventories(t *testing.T) {
	root := newCA(t, "Device CA")
	i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
		Sources: []Source{
			jsonSource(t, "mdm", `[{"id": "guid-1", "serial": "0a"}]`),
			jsonSource(t, "fleet", `[{"id": "uuid-1", "serial": "0a"}, {"id": "uuid-2", "serial": "0b"}]`),
		},
		Match: []string{"certificate.serial", "claim.id"},
	}})
	leaf := root.issue(t, leafOf("x", 0xa))
	for id, want := range map[string]access.Reason{"guid-1": "", "uuid-1": "", "uuid-2": access.DeviceMismatch} {
		got := inspect(t, i, presenting(leaf), claiming(map[string]any{"id": id}))
		if got.Problem != want || got.ID != "guid-1" {
			t.Errorf("claim %s: %+v", id, got)
		}
	}
}

// The real thing: a listener that only asks for a certificate.
func TestCertificateOverTLS(t *testing.T) {
	root := newCA(t, "Device CA")
	i := newInspector(t, Options{ClientCAs: root.pool(), Config: Config{
		Sources: []Source{jsonSource(t, "corp", `[{"id": "laptop-1", "serial": "05"}]`)}, Match: []string{"certificate.serial"},
	}})
	got := make(chan access.Device, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got <- inspect(t, i, r, claiming(nil))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, ClientCAs: root.pool()}
	server.StartTLS()
	defer server.Close()
	key := newKey(t)
	good := sign(t, leafOf("laptop-1", 5), root.cert, key, root.key)
	alone := sign(t, leafOf("laptop-1", 5), leafOf("laptop-1", 5), key, key)
	for name, c := range map[string]struct {
		certs []tls.Certificate
		known access.Tri
		want  access.Reason
	}{
		"no certificate": {},
		"good":           {[]tls.Certificate{{Certificate: [][]byte{good.Raw}, PrivateKey: key}}, access.Yes, ""},
		"self-signed":    {[]tls.Certificate{{Certificate: [][]byte{alone.Raw}, PrivateKey: key}}, access.Unknown, access.DeviceCertAuthority},
	} {
		client := server.Client()
		transport := client.Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(c.certs) == 0 {
				return &tls.Certificate{}, nil
			}
			return &c.certs[0], nil
		}
		res, err := (&http.Client{Transport: transport}).Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		transport.CloseIdleConnections()
		if d := <-got; d.Problem != c.want || d.Known != c.known {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
