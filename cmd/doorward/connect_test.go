package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/clilogin"
	"github.com/doorward/doorward/internal/tunnel"
)

// The certificate of a device is read from the files that systems export, and
// from nothing that only looks like them.
func TestDeviceCertificateFiles(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "laptop-7"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p12, err := pkcs12.Modern.Encode(key, cert, nil, "secret")
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	crt, keyFile, both := file("crt", certPEM), file("key", keyPEM), file("both", append(bytes.Clone(certPEM), keyPEM...))
	store, password, wrong := file("p12", p12), file("password", []byte("secret\n")), file("wrong", []byte("other\n"))
	for name, c := range map[string]struct {
		flags doorFlags
		ok    bool
	}{
		"PEM":                      {doorFlags{cert: crt, key: keyFile}, true},
		"PEM in one file":          {doorFlags{cert: both}, true},
		"PKCS#12":                  {doorFlags{cert: store, passwordFile: password}, true},
		"PEM without a key":        {doorFlags{cert: crt}, false},
		"PKCS#12, wrong password":  {doorFlags{cert: store, passwordFile: wrong}, false},
		"PKCS#12, no password":     {doorFlags{cert: store}, false},
		"neither":                  {doorFlags{cert: password}, false},
		"a file that is not there": {doorFlags{cert: filepath.Join(dir, "none")}, false},
	} {
		got, err := c.flags.certificate()
		if (err == nil) != c.ok || c.ok && !bytes.Equal(got.Certificate[0], der) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every reason leads to the exit code that says what to do next.
func TestConnectExitCodes(t *testing.T) {
	refused := func(why access.Reason) error { return &tunnel.Refusal{What: "build:22", Reason: why} }
	for code, errs := range map[int][]error{
		exitNo:     {refused(access.NotAllowed), refused(access.NoRoute), refused(access.TooManyTunnels), &tunnel.Ended{Word: "tunnel_idle"}, errors.New("broken")},
		exitLogin:  {clilogin.ErrNotLoggedIn, refused(access.LoginRequired), refused(access.LoginTooOld), refused(access.TokenExpired), &tunnel.Ended{Word: "token_revoked"}},
		exitDevice: {refused(access.DeviceNotEncrypted), refused(access.DeviceMissing), &tunnel.Ended{Word: "device_not_compliant"}},
		exitDoor:   {&tunnel.Unreachable{Server: "https://door", Err: errors.New("refused")}},
		exitTarget: {refused(access.UpstreamUnreachable), refused(access.TargetProhibited), &tunnel.Ended{Word: "upstream_broken"}},
	} {
		for _, err := range errs {
			got, ok := errors.AsType[*exitError](connectExit(err))
			if !ok || got.code != code || got.Error() == "" {
				t.Errorf("%v: %+v, want %d", err, got, code)
			}
		}
	}
	if connectExit(nil) != nil {
		t.Error("no error is one")
	}
}

// What ssh hands to a shell is quoted for it, and for ssh.
func TestSSHConfigIsQuoted(t *testing.T) {
	got := sshConfig("/opt/my tools/doorward", &doorFlags{server: "https://door.example", clientID: "it's%h"}, []string{"*.example"})
	want := "Host *.example\n    ProxyCommand '/opt/my tools/doorward' connect --server https://door.example --client-id 'it'\\''s%%h' --stdio %h:%p\n    ServerAliveInterval 30\n"
	if got != want {
		t.Errorf("%s", got)
	}
}

// On a terminal the status stands below the lines and is replaced, elsewhere there
// are lines only.
func TestStatusDisplay(t *testing.T) {
	var out bytes.Buffer
	s := &sayer{out: &out, terminal: true}
	s.show("\none\n")
	s.line("something happened")
	s.show("\none\n")
	s.show("\ntwo\n")
	if got := out.String(); got != "\none\n\x1b[2A\x1b[Jsomething happened\n\none\n\x1b[2A\x1b[J\ntwo\n" {
		t.Errorf("%q", got)
	}
	out.Reset()
	s = newSayer(&out)
	s.show("\none\n")
	s.line("something happened")
	if got := out.String(); got != "something happened\n" {
		t.Errorf("%q", got)
	}
	b := &board{server: "https://door.example", who: "alice", entries: []*entry{{local: &tunnel.Local{}, name: "build:22", address: addr("127.0.0.1:2222")}}}
	b.entries[0].local.Up.Store(1_500_000)
	if got := b.table(); !strings.Contains(got, "https://door.example as alice\n") || !strings.Contains(got, "127.0.0.1:2222  build:22  0 open, 1.5 MB sent, 0 B received") {
		t.Errorf("%s", got)
	}
}

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
