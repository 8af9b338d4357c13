package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/store"
)

// TLS is a server that speaks TLS only and asks for a certificate.
type TLS struct {
	*Server
	// Cert and Key are PEM files with the one certificate there is: the server's,
	// the client's, and its own authority.
	Cert, Key string
}

// StartTLS runs such a server. Further arguments are the server's.
func StartTLS(t testing.TB, args ...string) *TLS {
	t.Helper()
	dir := t.TempDir()
	s := &TLS{Cert: filepath.Join(dir, "redis.crt"), Key: filepath.Join(dir, "redis.key")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{s.Cert: {Type: "CERTIFICATE", Bytes: der}, s.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Server = Start(t, append([]string{"--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "yes",
		"--tls-cert-file", s.Cert, "--tls-key-file", s.Key, "--tls-ca-cert-file", s.Cert}, args...)...)
	s.cli = []string{"--tls", "--cacert", s.Cert, "--cert", s.Cert, "--key", s.Key}
	return s
}

// Config is how a store reaches the server.
func (s *TLS) Config() store.RedisConfig {
	c := Config("rediss://" + s.Addr)
	c.CA, c.ClientCert, c.ClientKey = s.Cert, s.Cert, s.Key
	return c
}

// freePort returns a port that nobody listens on at the moment.
func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
