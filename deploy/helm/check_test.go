package helm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// doorward is the binary of this tree.
var doorward string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "doorward-helm-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		doorward = filepath.Join(dir, "doorward")
		build := exec.Command("go", "build", "-C", filepath.Join("..", ".."), "-o", doorward, "./cmd/doorward")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building doorward: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// checkConfig mounts the files of a pod's volumes as the kubelet would and has
// `doorward check` and `doorward test` look at them. A configuration that comes
// from elsewhere is not there to be checked.
func (m *manifests) checkConfig(t *testing.T, spec *corev1.PodSpec, door *corev1.Container) {
	t.Helper()
	var name string
	for _, mount := range door.VolumeMounts {
		if mount.MountPath == "/etc/doorward" {
			name = mount.Name
		}
	}
	dir := t.TempDir()
	cert, key := keyPair(t)
	for _, v := range spec.Volumes {
		if v.Name != name || v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			switch {
			case source.ConfigMap != nil:
				config, ok := m.configMaps[source.ConfigMap.Name]
				if !ok {
					return
				}
				for name, text := range config.Data {
					write(t, dir, name, text)
				}
			case source.Secret != nil:
				for _, item := range source.Secret.Items {
					text := strings.Repeat("secret", 8)
					switch {
					case path.Ext(item.Key) == ".crt":
						text = cert
					case path.Ext(item.Key) == ".key":
						text = key
					case item.Key == "redis-url":
						text = "rediss://doorward:secret@redis.redis.svc:6380"
					}
					write(t, dir, item.Path, text)
				}
			}
		}
	}
	file := filepath.Join(dir, "doorward.yaml")
	for _, command := range []string{"check", "test"} {
		out, err := exec.Command(doorward, command, "--config", file).CombinedOutput()
		if err != nil && !(command == "test" && strings.Contains(string(out), "no tests")) {
			t.Errorf("doorward %s: %v\n%s", command, err, out)
		}
	}

	// What the pod promises and the configuration has to keep.
	var config struct {
		Server struct {
			Listen       string
			DrainTimeout string `json:"drain_timeout"`
			Admin        struct{ Listen string }
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	listens := map[string]bool{config.Server.Listen: true, config.Server.Admin.Listen: true}
	for _, port := range door.Ports {
		if !listens[fmt.Sprintf(":%d", port.ContainerPort)] {
			t.Errorf("nobody listens on port %d: %v", port.ContainerPort, listens)
		}
	}
	drain, err := time.ParseDuration(config.Server.DrainTimeout)
	if err != nil {
		t.Fatal(err)
	}
	stopping := drain
	for _, c := range append(spec.Containers, spec.InitContainers...) {
		if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep != nil {
			stopping += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
		}
	}
	if stopping == drain {
		t.Error("the pod stops before load balancers know")
	}
	if grace := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second; grace < stopping+5*time.Second {
		t.Errorf("killed after %v, although stopping takes %v", grace, stopping)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"wiki.corp.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}
