package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// certificate is what all participants show: one key on P-256, made for the run.
type certificate struct {
	cert, key string // paths
	both      string // of a file with both, as HAProxy wants them
}

func newCertificate(dir string) (c certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app.localhost"}, DNSNames: []string{"*.localhost", "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return c, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	c = certificate{cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), both: filepath.Join(dir, "tls.pem")}
	for path, text := range map[string][]byte{c.cert: certPEM, c.key: keyPEM, c.both: append(certPEM, keyPEM...)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return c, err
		}
	}
	return c, nil
}
