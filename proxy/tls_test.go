package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/issuance"
)

// authority issues certificates for tests.
type authority struct {
	dir, file string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	pool      *x509.CertPool
	serial    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca := &authority{dir: t.TempDir(), pool: x509.NewCertPool()}
	ca.file = filepath.Join(ca.dir, "ca.pem")
	var err error
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &ca.key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.pool.AddCert(ca.cert)
	writePEM(t, ca.file, "CERTIFICATE", der)
	return ca
}

// issue returns the files of a certificate for a name.
func (ca *authority) issue(t *testing.T, name string, extensions ...pkix.Extension) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca.serial++
	template := &x509.Certificate{SerialNumber: big.NewInt(100 + ca.serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, ExtraExtensions: extensions}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &private.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(ca.dir, name+".crt"), filepath.Join(ca.dir, name+".key")
	writePEM(t, cert, "CERTIFICATE", der)
	writePEM(t, key, "PRIVATE KEY", keyDER)
	return cert, key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serveTLS runs a real server as it is put together in production.
func serveTLS(t *testing.T, conf TLSConfig, h http.Handler) (*TLS, string) {
	t.Helper()
	return serveTLSWith(t, conf, nil, h)
}

func serveTLSWith(t *testing.T, conf TLSConfig, issuer Issuer, h http.Handler) (*TLS, string) {
	t.Helper()
	holder, err := NewTLS(conf, issuer)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(Config{TLS: conf}, New(Options{Recorder: &recorder{signal: make(chan *access.Event, 10)}}))
	srv.Handler, srv.TLSConfig = h, holder.Config()
	go srv.ServeTLS(listener, "", "")
	t.Cleanup(func() { srv.Close() })
	return holder, listener.Addr().String()
}

func TestServerTLS(t *testing.T) {
	ca := newAuthority(t)
	one, oneKey := ca.issue(t, "one.example")
	two, twoKey := ca.issue(t, "two.example")
	device, deviceKey := ca.issue(t, "laptop")
	conf := TLSConfig{Certificates: []Certificate{{one, oneKey}, {two, twoKey}}, ClientCA: ca.file}
	presented := make(chan int, 10)
	holder, addr := serveTLS(t, conf, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		presented <- len(r.TLS.PeerCertificates)
	}))
	dial := func(c *tls.Config) (tls.ConnectionState, error) {
		c.RootCAs = ca.pool
		conn, err := tls.Dial("tcp", addr, c)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	for _, name := range []string{"one.example", "two.example"} {
		state, err := dial(&tls.Config{ServerName: name, NextProtos: []string{"h2"}})
		if err != nil || state.PeerCertificates[0].Subject.CommonName != name || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" {
			t.Errorf("%s: %v %+v", name, err, state.NegotiatedProtocol)
		}
	}
	if _, err := dial(&tls.Config{ServerName: "one.example", MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is spoken unasked")
	}
	get := func(certs ...tls.Certificate) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: "one.example", RootCAs: ca.pool, Certificates: certs}}}
		defer client.CloseIdleConnections()
		res, err := client.Get("https://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	get()
	if n := <-presented; n != 0 {
		t.Error(n)
	}
	pair, err := tls.LoadX509KeyPair(device, deviceKey)
	if err != nil {
		t.Fatal(err)
	}
	get(pair)
	if n := <-presented; n != 1 {
		t.Errorf("%d certificates arrived", n)
	}

	// A certificate that was renewed is served to the next connection, and a
	// broken one changes nothing.
	conf.Certificates, conf.MinVersion = []Certificate{{two, twoKey}}, "1.2"
	if err := holder.Reload(conf); err != nil {
		t.Fatal(err)
	}
	if state, err := dial(&tls.Config{ServerName: "two.example", MaxVersion: tls.VersionTLS12}); err != nil {
		t.Errorf("%v %+v", err, state.Version)
	}
	if err := holder.Reload(TLSConfig{Certificates: []Certificate{{two, oneKey}}}); err == nil {
		t.Error("a key of another certificate was accepted")
	}
	if err := holder.Reload(TLSConfig{Certificates: []Certificate{{two, twoKey}}, ClientCA: twoKey}); err == nil {
		t.Error("a client CA without certificates was accepted")
	}
	if _, err := dial(&tls.Config{ServerName: "two.example"}); err != nil {
		t.Error(err)
	}
	if _, err := NewTLS(TLSConfig{}, nil); err == nil {
		t.Error("TLS without certificates")
	}
}

// issuer has one certificate for questions and one for everybody else.
type issuer struct{ host, question, answer string }

func (i *issuer) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName != i.host {
		return nil, nil
	}
	file := i.answer
	if issuance.Asks(hello) {
		file = i.question
	}
	pair, err := tls.LoadX509KeyPair(file+".crt", file+".key")
	return &pair, err
}

// Files come first, then what was issued, then the first file. An authority's
// question is answered for hosts without a file, and no request is taken on its
// connection.
func TestIssuedCertificates(t *testing.T) {
	ca := newAuthority(t)
	file, fileKey := ca.issue(t, "file.example")
	ca.issue(t, "issued.example")
	ca.issue(t, "question.example")
	conf := TLSConfig{Certificates: []Certificate{{file, fileKey}}, ACME: issuance.Config{Directory: "https://authority.example/dir"}}
	served := make(chan struct{}, 10)
	holder, addr := serveTLSWith(t, conf, &issuer{host: "issued.example", question: filepath.Join(ca.dir, "question.example"), answer: filepath.Join(ca.dir, "issued.example")},
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served <- struct{}{} }))
	if files, err := holder.Prepare(conf); err != nil || !files.Covers("file.example") || files.Covers("issued.example") {
		t.Error("which hosts have a file")
	}
	for _, c := range []struct{ name, protocol, want string }{
		{"file.example", "h2", "file.example"},
		{"issued.example", "h2", "issued.example"},
		{"other.example", "h2", "file.example"},
		{"issued.example", issuance.Protocol, "question.example"},
	} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: c.name, NextProtos: []string{c.protocol}, InsecureSkipVerify: true})
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		state := conn.ConnectionState()
		if got := state.PeerCertificates[0].Subject.CommonName; got != c.want || state.NegotiatedProtocol != c.protocol {
			t.Errorf("%+v: %s, %q", c, got, state.NegotiatedProtocol)
		}
		if c.protocol == issuance.Protocol {
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: issued.example\r\n\r\n")
			if answer, err := io.ReadAll(conn); len(answer) > 0 {
				t.Errorf("a request was answered: %q %v", answer, err)
			}
		}
		conn.Close()
	}
	if len(served) > 0 {
		t.Error("a request was served on the connection of a question")
	}

	// Without files there is nothing to show for a host that is not ours, and a
	// question about a host with a file has no answer.
	conf.Certificates = nil
	if err := holder.Reload(conf); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"h2", issuance.Protocol} {
		if conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "file.example", NextProtos: []string{protocol}, InsecureSkipVerify: true}); err == nil {
			conn.Close()
			t.Errorf("%s: a handshake for a host that is not ours", protocol)
		}
	}
}

// Browsers that mind refuse a certificate that demands a stapled response, and
// whoever serves it would learn of it from visitors.
func TestCertificateThatDemandsStaplingIsRefused(t *testing.T) {
	ca := newAuthority(t)
	conf := func(extensions ...pkix.Extension) TLSConfig {
		cert, key := ca.issue(t, "app.example", extensions...)
		return TLSConfig{Certificates: []Certificate{{cert, key}}}
	}
	served, err := NewTLS(conf(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// status_request, as RFC 7633 §4.2.3.1 writes it
	err = served.Reload(conf(pkix.Extension{Id: tlsFeature, Value: []byte{0x30, 0x03, 0x02, 0x01, 0x05}}))
	if !errors.Is(err, errMustStaple) || len(served.Leaves()) != 1 {
		t.Errorf("%v", err)
	}
}
