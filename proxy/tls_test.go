package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
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
func (ca *authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca.serial++
	template := &x509.Certificate{SerialNumber: big.NewInt(100 + ca.serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
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
	holder, err := NewTLS(conf)
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
	if _, err := NewTLS(TLSConfig{}); err == nil {
		t.Error("TLS without certificates")
	}
}
