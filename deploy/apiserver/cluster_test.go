package apiserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// version of the API server that go.mod names, as it is linked in.
const version = "v1.37.2"

// patience is how long anything may take; the machine may be busy.
const patience = 3 * time.Minute

// kube is the cluster of the whole run: an API server and its etcd. There are no
// controllers and no nodes, so nothing that is created ever runs.
var kube *cluster

type cluster struct {
	dir      string
	url      string
	ca       string // file
	admin    string // token
	signing  *rsa.PrivateKey
	client   *http.Client
	doorward string // binary
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "doorward-kubernetes-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		c, stop, err := startCluster(dir)
		defer stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		kube = c
		return m.Run()
	}())
}

func startCluster(dir string) (*cluster, func(), error) {
	var running []*exec.Cmd
	stop := func() {
		for i := len(running) - 1; i >= 0; i-- {
			running[i].Process.Signal(syscall.SIGTERM)
			running[i].Wait()
		}
	}
	c := &cluster{dir: dir, doorward: filepath.Join(dir, "doorward"), admin: "admin-token-of-this-run"}
	server := os.Getenv("KUBE_APISERVER") // one that was built before
	builds := [][]string{
		{"build", "-C", "../..", "-o", c.doorward, "./cmd/doorward"},
		{"build", "-C", "../helm", "-o", filepath.Join(dir, "render"), "./render"},
	}
	if server == "" {
		server = filepath.Join(dir, "kube-apiserver")
		builds = append(builds, []string{"build", "-trimpath", "-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion=" + version + " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37",
			"-o", server, "k8s.io/kubernetes/cmd/kube-apiserver"})
	}
	for _, build := range builds {
		cmd := exec.Command("go", build...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, stop, fmt.Errorf("go %v: %w\n%s", build, err, out)
		}
	}
	if err := c.keys(); err != nil {
		return nil, stop, err
	}
	etcd, peer, secure := freePort(), freePort(), freePort()
	c.url = "https://127.0.0.1:" + secure
	for name, args := range map[string][]string{"etcd": {"etcd",
		"--data-dir", c.path("etcd"), "--listen-client-urls", "http://127.0.0.1:" + etcd, "--advertise-client-urls", "http://127.0.0.1:" + etcd,
		"--listen-peer-urls", "http://127.0.0.1:" + peer, "--initial-advertise-peer-urls", "http://127.0.0.1:" + peer, "--initial-cluster", "default=http://127.0.0.1:" + peer,
		"--unsafe-no-fsync", "--log-level", "error",
	}, "kube-apiserver": {server,
		"--etcd-servers", "http://127.0.0.1:" + etcd, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", secure,
		"--tls-cert-file", c.path("tls.crt"), "--tls-private-key-file", c.path("tls.key"), "--cert-dir", dir,
		"--token-auth-file", c.path("tokens.csv"), "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/24",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", c.path("sa.pub"),
		"--service-account-signing-key-file", c.path("sa.key"), "--service-account-extend-token-expiration=false", "--endpoint-reconciler-type", "none",
	}} {
		log, err := os.Create(c.path(name + ".log"))
		if err != nil {
			return nil, stop, err
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			return nil, stop, fmt.Errorf("%s: %w; on Debian: apt-get install etcd-server", name, err)
		}
		running = append(running, cmd)
	}
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if status, _ := c.get("/readyz"); status == http.StatusOK {
			return c, stop, nil
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(c.path("kube-apiserver.log"))
			return nil, stop, fmt.Errorf("the API server is not ready:\n%s", text[max(0, len(text)-4000):])
		}
	}
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

// keys makes the API server's certificate and the key that signs tokens.
func (c *cluster) keys() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if c.signing, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(c.signing.Public())
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: keyDER},
		"sa.key": {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(c.signing)}, "sa.pub": {Type: "PUBLIC KEY", Bytes: public},
	} {
		if err := os.WriteFile(c.path(name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(c.path("tls.crt"))
	if err != nil {
		return err
	}
	pool.AppendCertsFromPEM(text)
	c.ca = c.path("tls.crt")
	c.client = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	return os.WriteFile(c.path("tokens.csv"), []byte(c.admin+`,admin,admin,"system:masters"`+"\n"), 0o600)
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (c *cluster) get(path string) (int, string) {
	status, body, _, _ := c.do(http.MethodGet, path, "", nil)
	return status, body
}

// do sends a request as the administrator.
func (c *cluster) do(method, path, kind string, body []byte) (status int, answer string, warnings []string, err error) {
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.admin)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("Accept", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), res.Header["Warning"], err
}

// post creates something from a Go value, and fails the test where it cannot.
func (c *cluster) post(t *testing.T, path string, what, answer any) {
	t.Helper()
	text, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	status, body, _, err := c.do(http.MethodPost, path, "application/json", text)
	if err != nil || status != http.StatusCreated {
		t.Fatalf("%s: %d %v %s", path, status, err, body)
	}
	if answer != nil {
		if err := json.Unmarshal([]byte(body), answer); err != nil {
			t.Fatal(err)
		}
	}
}

// token asks for a token of a service account, as the kubelet does for a
// projected volume. Without an audience it is for the API server.
func (c *cluster) token(t *testing.T, account string, audiences ...string) string {
	t.Helper()
	namespace, name, _ := strings.Cut(account, "/")
	var answer struct{ Status struct{ Token string } }
	c.post(t, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token",
		map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"audiences": audiences, "expirationSeconds": 600}}, &answer)
	return answer.Status.Token
}
