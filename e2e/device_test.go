package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// authority issues certificates for one story.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	pair := a.sign(template, nil)
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// sign completes a template. Without an authority it signs itself.
func (a *authority) sign(template *x509.Certificate, use []x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.BasicConstraintsValid, template.ExtKeyUsage = true, use
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// device issues a device certificate with a serial number.
func (a *authority) device(serial int64) *tls.Certificate {
	cert := a.sign(&x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "laptop"}},
		[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth})
	return &cert
}

// issue makes a certificate for 127.0.0.1, for either end of a connection.
func (a *authority) issue(name string) ([]byte, *ecdsa.PrivateKey) {
	cert := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, nil)
	return cert.Certificate[0], cert.PrivateKey.(*ecdsa.PrivateKey)
}

// certificate makes a self-signed server certificate and returns its files.
func certificate(t *testing.T, dir string, names ...string) (cert, key string) {
	t.Helper()
	own := (&authority{t: t}).sign(&x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, IsCA: true},
		[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	return writeFile(t, dir, "tls.crt", pemOf("CERTIFICATE", own.Certificate[0])),
		writeFile(t, dir, "tls.key", keyText(t, own.PrivateKey.(*ecdsa.PrivateKey)))
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// A device proves itself with a certificate, on a listener that speaks TLS. What
// is wrong with a certificate is said on a page, not by a broken connection.
func TestDeviceCertificates(t *testing.T) {
	server, devices, strangers := newAuthority(t, "servers"), newAuthority(t, "devices"), newAuthority(t, "strangers")
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	base := "https://app.localhost:" + port
	provider := startProvider(t, base+"/.doorward/callback", nil)

	dir := t.TempDir()
	cert := server.sign(&x509.Certificate{DNSNames: []string{"app.localhost"}}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	writeFile(t, dir, "tls.crt", pemOf("CERTIFICATE", cert.Certificate[0]))
	writeFile(t, dir, "tls.key", keyText(t, cert.PrivateKey.(*ecdsa.PrivateKey)))
	writeFile(t, dir, "devices.pem", pemOf("CERTIFICATE", devices.cert.Raw))
	writeFile(t, dir, "secret", "s3cret")
	inventory := "id,serial,managed,compliant,last_seen\n" +
		"good,01,yes,yes," + time.Now().UTC().Format(time.RFC3339) + "\n" +
		"bad,02,yes,no," + time.Now().UTC().Format(time.RFC3339) + "\n"
	writeFile(t, dir, "devices.csv", inventory)
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "<p>proto "+r.Header.Get("X-Forwarded-Proto")+" device "+r.Header.Get("X-Device")+"</p>")
	})
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server:
  listen: %q
  tls: {certificates: [{cert: tls.crt, key: tls.key}], client_ca: devices.pem}
  admin: {listen: %q}
sessions: {store: {memory: true}}
log: {format: text}
providers: [{id: demo, issuer: %q, client_id: doorward, client_secret: {file: secret}}]
devices:
  sources: [{id: list, type: file, path: devices.csv}]
  match: [certificate.serial]
  profiles: {healthy: {all: [known, managed, compliant]}}
routes:
  - id: app
    from: %s
    to: [%s]
    require: {device: healthy}
    headers: {X-Device: device}
    allow: [{name: all, any_user: true}]
`, addr, freeAddress(t), provider.Issuer(), base, app))
	d := start(t, "doorward", "serve", "--config", config)
	d.waitFor("serving", 1)

	roots := x509.NewCertPool()
	roots.AddCert(server.cert)
	visit := func(device *tls.Certificate) page {
		t.Helper()
		v := newVisitor(t)
		transport := v.client.Transport.(*http.Transport)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
		transport.ForceAttemptHTTP2 = true
		if device != nil {
			// Sent whatever authorities the server asks for, as an attacker would.
			transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return device, nil }
		}
		return v.login(base+"/", "alice")
	}
	visit(devices.device(1)).says(t, 200, "proto https", "device good")
	visit(devices.device(2)).says(t, 403, "This device is not compliant")
	visit(devices.device(3)).says(t, 403, "This device is not known")
	visit(nil).says(t, 403, "A managed device is needed")
	visit(strangers.device(1)).says(t, 403, "The device certificate is of an unknown authority")
	wrongUse := devices.sign(&x509.Certificate{SerialNumber: big.NewInt(1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	visit(&wrongUse).says(t, 403, "The certificate is not one of a device")

	// The inventory changes its mind: within moments the device is refused.
	replace(t, dir+"/devices.csv", strings.Replace(inventory, "good,01,yes,yes", "good,01,yes,no", 1))
	d.waitFor("device inventory read", 2)
	visit(devices.device(1)).says(t, 403, "This device is not compliant")
}
