package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// opensslCA is an authority for devices that OpenSSL runs, in a folder of its
// own, as an operator would.
type opensslCA struct {
	t       *testing.T
	openssl string
	dir     string
}

const opensslConfig = `[ca]
default_ca = devices
[devices]
database = index.txt
new_certs_dir = .
serial = serial
crlnumber = crlnumber
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 1
default_crl_days = 1
unique_subject = no
policy = any
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[device]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
[server]
extendedKeyUsage = serverAuth
[responder]
extendedKeyUsage = OCSPSigning
`

func newOpenSSL(t *testing.T, name string) *opensslCA {
	t.Helper()
	ca := &opensslCA{t: t, openssl: part(t, "openssl"), dir: t.TempDir()}
	for file, text := range map[string]string{"ca.cnf": opensslConfig, "index.txt": "", "serial": "1000", "crlnumber": "01"} {
		writeFile(t, ca.dir, file, text)
	}
	ca.run("req", "-config", "ca.cnf", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN="+name, "-days", "2", "-extensions", "authority")
	return ca
}

func (ca *opensslCA) run(args ...string) {
	ca.t.Helper()
	cmd := exec.Command(ca.openssl, args...)
	cmd.Dir = ca.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		ca.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (ca *opensslCA) path(name string) string { return filepath.Join(ca.dir, name) }

func (ca *opensslCA) text(name string) string {
	ca.t.Helper()
	text, err := os.ReadFile(ca.path(name))
	if err != nil {
		ca.t.Fatal(err)
	}
	return string(text)
}

// issue makes a certificate of one of the kinds in the configuration.
func (ca *opensslCA) issue(name, kind string, more ...string) *tls.Certificate {
	ca.t.Helper()
	ca.run("req", "-config", "ca.cnf", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+name)
	ca.run(append([]string{"ca", "-config", "ca.cnf", "-batch", "-notext", "-extensions", kind, "-in", name + ".csr", "-out", name + ".pem"}, more...)...)
	pair, err := tls.LoadX509KeyPair(ca.path(name+".pem"), ca.path(name+".key"))
	if err != nil {
		ca.t.Fatal(err)
	}
	return &pair
}

func (ca *opensslCA) revoke(name string) { ca.run("ca", "-config", "ca.cnf", "-revoke", name+".pem") }

// list returns the revocation list as it is now.
func (ca *opensslCA) list() string {
	ca.run("ca", "-config", "ca.cnf", "-gencrl", "-out", "devices.crl")
	return ca.text("devices.crl")
}

// respond runs OpenSSL's responder, with a certificate for it, and returns its
// address.
func (ca *opensslCA) respond() string {
	ca.t.Helper()
	ca.issue("responder", "responder")
	_, port, err := net.SplitHostPort(freeAddress(ca.t))
	if err != nil {
		ca.t.Fatal(err)
	}
	cmd := exec.Command(ca.openssl, "ocsp", "-index", "index.txt", "-port", port, "-rsigner", "responder.pem", "-rkey", "responder.key",
		"-CA", "ca.pem", "-nmin", "60", "-ignore_err")
	cmd.Dir = ca.dir
	startCommand(ca.t, cmd).waitFor("waiting for OCSP client connections", 1)
	return "http://127.0.0.1:" + port + "/"
}

// deviceDoor is doorward on a listener that speaks TLS, in front of one
// application for people on their own healthy devices.
type deviceDoor struct {
	*process
	dir, base string
	servers   *authority
	roots     *x509.CertPool
}

// startDeviceDoor runs it with a section `certificates.revocation` and more keys
// of the section `server`. Relative files are in its folder.
func startDeviceDoor(t *testing.T, ca *opensslCA, revocation, server string, files map[string]string) *deviceDoor {
	t.Helper()
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	d := &deviceDoor{dir: t.TempDir(), base: "https://app.localhost:" + port, servers: newAuthority(t, "servers"), roots: x509.NewCertPool()}
	d.roots.AddCert(d.servers.cert)
	provider := startProvider(t, d.base+"/.doorward/callback", nil)
	d.certify(t)
	now := time.Now().UTC().Format(time.RFC3339)
	writeFile(t, d.dir, "devices.pem", ca.text("ca.pem"))
	writeFile(t, d.dir, "secret", "s3cret")
	writeFile(t, d.dir, "devices.csv", "id,owner,managed,last_seen\n"+
		"alice-laptop,Alice@Example.com,yes,"+now+"\n"+"lost-laptop,alice@example.com,yes,"+now+"\n"+"old-laptop,alice@example.com,yes,"+now+"\n"+
		"printer,alice@example.com,yes,"+now+"\n"+"bob-laptop,bob@example.com,yes,"+now+"\n"+"pool-laptop,,yes,"+now+"\n")
	for name, text := range files {
		writeFile(t, d.dir, name, text)
	}
	app := serveApp(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "<p>device %s, header %q</p>", r.Header.Get("X-Device"), r.Header.Get("Client-Cert"))
	})
	config := writeFile(t, d.dir, "doorward.yaml", fmt.Sprintf(`version: 1
server:
  listen: %q
  tls: {certificates: [{cert: tls.crt, key: tls.key}], client_ca: devices.pem}
  admin: {listen: %q}%s
sessions: {store: {memory: true}}
log: {format: text}
audit: {to: [{file: {path: audit.jsonl}}]}
providers: [{id: demo, issuer: %q, client_id: doorward, client_secret: {file: secret}}]
devices:
  sources: [{id: list, type: file, path: devices.csv}]
  match: [certificate.subject_cn]
  certificates: {revocation: %s}
  owner: email
  profiles: {own: {all: [known, managed, certificate, owned]}}
routes:
  - id: app
    from: %s
    to: [%s]
    require: {device: own}
    headers: {X-Device: device}
    allow: [{name: all, any_user: true}]
`, addr, freeAddress(t), server, provider.Issuer(), revocation, d.base, app))
	d.process = start(t, "doorward", "serve", "--config", config)
	d.waitFor("serving", 1)
	return d
}

// certify gives the listener a new certificate.
func (d *deviceDoor) certify(t *testing.T) {
	cert := d.servers.sign(&x509.Certificate{DNSNames: []string{"app.localhost"}}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	writeFile(t, d.dir, "tls.new", pemOf("CERTIFICATE", cert.Certificate[0]))
	writeFile(t, d.dir, "tls.key", keyText(t, cert.PrivateKey.(*ecdsa.PrivateKey)))
	if err := os.Rename(filepath.Join(d.dir, "tls.new"), filepath.Join(d.dir, "tls.crt")); err != nil {
		t.Fatal(err)
	}
}

// visitor returns somebody on a device, which shows its certificate whatever
// authorities the server asks for, as an attacker would.
func (d *deviceDoor) visitor(t *testing.T, device *tls.Certificate) *visitor {
	v := newVisitor(t)
	transport := v.client.Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: d.roots}
	transport.ForceAttemptHTTP2 = true
	if device != nil {
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return device, nil }
	}
	return v
}

// refused checks that the page of a case says why, and that the record has the
// reason code.
func (d *deviceDoor) refused(t *testing.T, p page, path string, reason access.Reason) {
	t.Helper()
	p.says(t, http.StatusForbidden, reason.Info().Title)
	e := waitForEvent(t, filepath.Join(d.dir, "audit.jsonl"), func(e *access.Event) bool {
		return e.Decision != nil && e.Request.Path == path && !e.Request.Identity.Nobody()
	})
	if e.Decision.Reason != reason || len(e.Decision.Needs) != 1 || e.Decision.Needs[0].Reason != reason {
		t.Errorf("%s: the record says %+v", path, e.Decision)
	}
}

// clientCert is how a proxy hands on a certificate (RFC 9440).
func clientCert(cert *tls.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(cert.Certificate[0]) + ":"
}

// Every way in which a certificate may be wrong is refused with a reason of its
// own, on the page and in the record. The authority and its list are OpenSSL's.
func TestWhatIsWrongWithACertificate(t *testing.T) {
	ca, strangers := newOpenSSL(t, "Device CA"), newAuthority(t, "strangers")
	alice, bob, pool := ca.issue("alice-laptop", "device"), ca.issue("bob-laptop", "device"), ca.issue("pool-laptop", "device")
	lost := ca.issue("lost-laptop", "device")
	old := ca.issue("old-laptop", "device", "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
	future := ca.issue("old-laptop", "device", "-startdate", time.Now().AddDate(1, 0, 0).UTC().Format("20060102150405Z"),
		"-enddate", time.Now().AddDate(2, 0, 0).UTC().Format("20060102150405Z"))
	printer := ca.issue("printer", "server")
	ca.revoke("lost-laptop")
	d := startDeviceDoor(t, ca, "{crls: [devices.crl]}", "", map[string]string{"devices.crl": ca.list()})

	d.visitor(t, alice).login(d.base+"/", "alice").says(t, 200, "device alice-laptop")
	d.visitor(t, bob).login(d.base+"/", "bob").says(t, 200, "device bob-laptop")
	for path, c := range map[string]struct {
		device *tls.Certificate
		reason access.Reason
	}{
		"/revoked":       {lost, access.DeviceCertRevoked},
		"/expired":       {old, access.DeviceCertExpired},
		"/not-yet-valid": {future, access.DeviceCertNotYetValid},
		"/wrong-purpose": {printer, access.DeviceCertPurpose},
		"/stranger":      {strangers.device(7), access.DeviceCertAuthority},
		"/of-bob":        {bob, access.DeviceOfAnotherUser},
		"/of-nobody":     {pool, access.DeviceFactMissing},
		"/none":          {nil, access.DeviceMissing},
	} {
		d.refused(t, d.visitor(t, c.device).login(d.base+path, "alice"), path, c.reason)
	}

	// A header is no certificate, however it is spelt.
	for path, name := range map[string]string{"/forged": "Client-Cert", "/forged-otherwise": "X_SSL_Client_Cert"} {
		v := d.visitor(t, nil)
		v.header = v.header.Clone()
		v.header.Set(name, clientCert(alice))
		d.refused(t, v.login(d.base+path, "alice"), path, access.DeviceCertForged)
	}
	// And takes nothing from somebody who has one.
	v := d.visitor(t, alice)
	v.header = v.header.Clone()
	v.header.Set("Client-Cert", clientCert(bob))
	v.login(d.base+"/", "alice").says(t, 200, "device alice-laptop", `header ""`)
}

// Files that change on disk count without a restart: the list at once, for a
// connection that is open too, the server's own certificate and the authorities
// for the next connection.
func TestCertificateFilesThatChange(t *testing.T) {
	ca, more := newOpenSSL(t, "Device CA"), newOpenSSL(t, "Another Device CA")
	alice, newer := ca.issue("alice-laptop", "device"), more.issue("alice-laptop", "device")
	d := startDeviceDoor(t, ca, "{crls: [devices.crl, more.crl]}", "", map[string]string{"devices.crl": ca.list(), "more.crl": more.list()})
	v := d.visitor(t, alice)
	v.login(d.base+"/", "alice").says(t, 200, "device alice-laptop")

	// The server's certificate.
	serial := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.Replace(strings.TrimPrefix(d.base, "https://"), "app.localhost", "127.0.0.1", 1),
			&tls.Config{RootCAs: d.roots, ServerName: "app.localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	d.certify(t)
	eventually(t, "the new certificate of the server", func() bool { return serial() != before })
	v.open(d.base+"/").says(t, 200, "device alice-laptop") // the connection goes on

	// The authorities.
	d.refused(t, d.visitor(t, newer).login(d.base+"/too-early", "alice"), "/too-early", access.DeviceCertAuthority)
	replace(t, filepath.Join(d.dir, "devices.pem"), ca.text("ca.pem")+more.text("ca.pem"))
	w := d.visitor(t, newer)
	eventually(t, "the new authority", func() bool { return w.login(d.base+"/", "alice").status == 200 })
	v.open(d.base+"/").says(t, 200, "device alice-laptop")

	// The revocation list, for each of them.
	ca.revoke("alice-laptop")
	replace(t, filepath.Join(d.dir, "devices.crl"), ca.list())
	eventually(t, "the revocation", func() bool { return v.open(d.base+"/gone").status == 403 })
	d.refused(t, v.open(d.base+"/gone"), "/gone", access.DeviceCertRevoked)
	w.open(d.base+"/").says(t, 200, "device alice-laptop")
	// A list that breaks changes nothing, and says so.
	replace(t, filepath.Join(d.dir, "devices.crl"), "rubbish")
	d.waitFor("revocation list cannot be asked", 1)
	d.refused(t, v.open(d.base+"/gone-still"), "/gone-still", access.DeviceCertRevoked)
}

// OpenSSL's responder says which certificates are good. A revocation counts
// within one refresh, and nobody waits for the responder meanwhile.
func TestRevocationByAResponder(t *testing.T) {
	ca := newOpenSSL(t, "Device CA")
	alice, lost := ca.issue("alice-laptop", "device"), ca.issue("lost-laptop", "device")
	ca.revoke("lost-laptop")
	for _, get := range []string{"false", "true"} {
		d := startDeviceDoor(t, ca, fmt.Sprintf("{ocsp: {url: %q, get: %s}, refresh: 10s}", ca.respond(), get), "", nil)
		v := d.visitor(t, alice)
		v.login(d.base+"/", "alice").says(t, 200, "device alice-laptop")
		d.refused(t, d.visitor(t, lost).login(d.base+"/revoked", "alice"), "/revoked", access.DeviceCertRevoked)
		if get == "false" {
			continue
		}
		ca.revoke("alice-laptop")
		eventually(t, "the revocation", func() bool { return v.open(d.base+"/gone").status == 403 })
		d.refused(t, v.open(d.base+"/gone"), "/gone", access.DeviceCertRevoked)
	}
	// A responder that is not there vouches for nobody.
	d := startDeviceDoor(t, ca, fmt.Sprintf("{ocsp: {url: %q}}", "http://"+freeAddress(t)+"/"), "", nil)
	d.refused(t, d.visitor(t, alice).login(d.base+"/silent", "alice"), "/silent", access.DeviceCertStatusUnknown)
}

// Where TLS ends at a proxy, the proxy hands on the certificate that it saw. It
// counts from this proxy alone, and instead of the proxy's own.
func TestCertificateThroughAProxy(t *testing.T) {
	ca := newOpenSSL(t, "Device CA")
	alice, lost, proxy := ca.issue("alice-laptop", "device"), ca.issue("lost-laptop", "device"), ca.issue("bob-laptop", "device")
	ca.revoke("lost-laptop")
	list := ca.list()
	through := func(d *deviceDoor, name, value, path string) page {
		v := d.visitor(t, proxy)
		v.header = v.header.Clone()
		v.header.Set("X-Forwarded-For", "192.0.2.7")
		v.header.Set("X-Forwarded-Proto", "https")
		if value != "" {
			v.header.Set(name, value)
		}
		return v.login(d.base+path, "alice")
	}
	xfcc := func(cert *tls.Certificate) string {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
		return `By=spiffe://mesh.example/gateway;Cert="` + string(bytes.ReplaceAll(bytes.ReplaceAll(bytes.ReplaceAll(
			text, []byte("\n"), []byte("%0A")), []byte(" "), []byte("%20")), []byte("+"), []byte("%2B"))) + `";URI=`
	}
	for form, c := range map[string]struct {
		name string
		of   func(*tls.Certificate) string
	}{"client-cert": {"Client-Cert", clientCert}, "xfcc": {"X-Forwarded-Client-Cert", xfcc}} {
		d := startDeviceDoor(t, ca, "{crls: [devices.crl]}", fmt.Sprintf(`
  trusted_proxies: [127.0.0.1]
  client_cert_from: {header: %s, proxies: [127.0.0.1]}`, form), map[string]string{"devices.crl": list})
		through(d, c.name, c.of(alice), "/").says(t, 200, "device alice-laptop")
		d.refused(t, through(d, c.name, c.of(lost), "/revoked"), "/revoked", access.DeviceCertRevoked)
		d.refused(t, through(d, c.name, "", "/none"), "/none", access.DeviceMissing)
		d.refused(t, through(d, c.name, "rubbish", "/rubbish"), "/rubbish", access.DeviceCertInvalid)
		d.refused(t, through(d, "X-SSL-Client-Cert", c.of(alice), "/otherwise"), "/otherwise", access.DeviceCertForged)
	}
	// The same proxy, which is believed a visitor's address and no more.
	d := startDeviceDoor(t, ca, "{crls: [devices.crl]}", "\n  trusted_proxies: [127.0.0.1]", map[string]string{"devices.crl": list})
	d.refused(t, through(d, "Client-Cert", clientCert(alice), "/unlisted"), "/unlisted", access.DeviceCertForged)
}
