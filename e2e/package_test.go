package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// debian runs one of Debian's tools, as if by root, and returns what it prints.
func debian(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(part(t, "fakeroot"), append([]string{"--", part(t, name)}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DPKG_DEB_COMPRESSOR_TYPE=gzip", "DPKG_DEB_COMPRESSOR_LEVEL=1", "SOURCE_DATE_EPOCH=1795435200",
		"DOORWARD_BINARY="+filepath.Join(binaries, "doorward"), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestDebianPackage builds the package, looks at what is in it, and has dpkg install,
// upgrade, remove and purge it in a root of its own.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	build := func(version string) string {
		debian(t, ".", "bash", "../deploy/debian/build.sh", version, dir)
		list, err := filepath.Glob(filepath.Join(dir, "doorward_"+version+"_*.deb"))
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0]
	}
	deb := build("1.2.3")
	first, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(build("1.2.3")); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the package is not the same twice: %v", err)
	}
	info := debian(t, dir, "dpkg-deb", "--field", deb)
	if !strings.Contains(info, "Package: doorward\nVersion: 1.2.3\n") || !strings.Contains(info, "\nDepends: passwd\n") || strings.Contains(info, "@") && !strings.Contains(info, "@doorward.invalid") {
		t.Error(info)
	}

	// Everything belongs to root, nobody but root writes it, nothing runs as somebody else.
	contents := debian(t, dir, "dpkg-deb", "--contents", deb)
	for line := range strings.Lines(contents) {
		if !regexp.MustCompile(`^[-d]r[-w][-x]r-[-x][-r]-[-x] root/root `).MatchString(line) {
			t.Error(line)
		}
	}
	for _, path := range []string{"usr/bin/doorward", "usr/lib/systemd/system/doorward.service", "usr/share/man/man1/doorward-serve.1.gz", "etc/doorward/doorward.yaml.example",
		"usr/share/bash-completion/completions/doorward", "usr/share/doc/doorward/copyright", "usr/share/doc/doorward/changelog.gz", "usr/share/doc/doorward/alerts.md"} {
		if !strings.Contains(contents, " ./"+path+"\n") {
			t.Errorf("%s is missing", path)
		}
	}

	root := filepath.Join(dir, "root")
	for path, text := range map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:1::::::\n", "etc/gshadow": "root:*::\n",
		"var/lib/dpkg/status": "", "var/lib/dpkg/info/format": "1\n", "var/lib/dpkg/updates/.keep": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, root, path, text)
	}
	os.Remove(filepath.Join(root, "var/lib/dpkg/updates/.keep"))
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	dpkg := func(args ...string) string {
		t.Helper()
		return debian(t, dir, "dpkg", append([]string{"--root=" + root, "--force-script-chrootless", "--force-depends", "--force-not-root", "--force-confold"}, args...)...)
	}
	if said := dpkg("--install", deb); !strings.Contains(said, "write /etc/doorward/doorward.yaml") {
		t.Error(said)
	}
	if user := regexp.MustCompile(`(?m)^doorward:x:\d+:\d+:[^:]*:/var/lib/doorward:/usr/sbin/nologin$`); !user.MatchString(read("etc/passwd")) {
		t.Error(read("etc/passwd"))
	}
	if at, err := os.Stat(filepath.Join(root, "etc/doorward")); err != nil || at.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", at, err)
	}

	// What was installed works: the program, its pages, completion, the unit.
	program := filepath.Join(root, "usr/bin/doorward")
	if out, err := exec.Command(program, "version").CombinedOutput(); err != nil || !strings.Contains(string(out), "doorward") {
		t.Errorf("%v: %s", err, out)
	}
	var pages []string
	filepath.WalkDir(filepath.Join(root, "usr/share/man"), func(path string, _ fs.DirEntry, _ error) error {
		if page, ok := strings.CutSuffix(path, ".gz"); ok {
			debian(t, dir, "gzip", "--decompress", "--keep", path)
			pages = append(pages, page)
		}
		return nil
	})
	if out := debian(t, dir, "groff", append([]string{"-man", "-Tutf8", "-ww", "-z"}, pages...)...); out != "" || len(pages) < 20 {
		t.Errorf("%d pages: %s", len(pages), out)
	}
	for _, page := range pages {
		os.Remove(page)
	}
	debian(t, dir, "bash", "-n", filepath.Join(root, "usr/share/bash-completion/completions/doorward"))
	unit := filepath.Join(root, "usr/lib/systemd/system/doorward.service")
	checkUnit(t, unit, program)

	// Another version keeps what people changed.
	writeFile(t, root, "etc/default/doorward", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318\n")
	writeFile(t, root, "etc/doorward/doorward.yaml", "version: 1\n")
	dpkg("--install", build("1.2.4"))
	if text := read("etc/default/doorward"); !strings.HasPrefix(text, "OTEL_EXPORTER") || read("etc/doorward/doorward.yaml") != "version: 1\n" || strings.Count(read("etc/passwd"), "\ndoorward:") != 1 {
		t.Error(text, read("etc/passwd"))
	}
	if status := dpkg("--status", "doorward"); !strings.Contains(status, "Version: 1.2.4\n") || !strings.Contains(status, "Status: install ok installed") {
		t.Error(status)
	}
	// Without the package the configuration, the sessions and the record stay; purged, the record.
	for _, path := range []string{"var/lib/doorward/doorward.db", "var/log/doorward/audit.jsonl"} {
		os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
		writeFile(t, root, path, "kept")
	}
	dpkg("--remove", "doorward")
	if left := files(root); !slices.Contains(left, "etc/default/doorward") || !slices.Contains(left, "var/lib/doorward/doorward.db") || slices.Contains(left, "usr/bin/doorward") {
		t.Error(left)
	}
	dpkg("--purge", "doorward")
	if left := files(root); !slices.Contains(left, "etc/doorward/doorward.yaml") || !slices.Contains(left, "var/log/doorward/audit.jsonl") ||
		slices.Contains(left, "var/lib/doorward/doorward.db") || slices.Contains(left, "etc/default/doorward") {
		t.Error(left)
	}
}

// files are the files below a folder.
func files(root string) (list []string) {
	filepath.WalkDir(root, func(path string, entry fs.DirEntry, _ error) error {
		if !entry.IsDir() {
			rel, _ := filepath.Rel(root, path)
			list = append(list, rel)
		}
		return nil
	})
	return list
}

// checkUnit has systemd read the unit, and say what a hole in the service would
// open.
func checkUnit(t *testing.T, unit, program string) {
	t.Helper()
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	// The program is in no place where systemd would look.
	socket, err := os.ReadFile(strings.TrimSuffix(unit, ".service") + ".socket")
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.ReplaceAll(string(text), "/usr/bin/doorward", program)
	dir := t.TempDir()
	path := writeFile(t, dir, "doorward.service", moved)
	if out := debian(t, dir, "systemd-analyze", "verify", "--man=no", path, writeFile(t, dir, "doorward.socket", string(socket))); out != "" {
		t.Error(out)
	}
	if out, err := exec.Command(part(t, "systemd-analyze"), "security", "--offline=true", "--threshold=20", "--no-pager", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// Type=notify waits for a word, which comes once everything listens.
	at := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	manager.SetReadDeadline(time.Now().Add(patience))
	addr := freeAddress(t)
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf("version: 1\nserver: {listen: %q, admin: {listen: %q}}\nsessions: {store: {memory: true}}\n"+
		"providers: [{id: corp, issuer: \"http://%s\", client_id: doorward, client_auth: none}]\nroutes: [{id: app, from: \"http://app.localhost\", to: [\"http://%s\"], allow: [{name: all, any_user: true}]}]\n",
		addr, freeAddress(t), freeAddress(t), freeAddress(t)))
	service := exec.Command(program, "serve", "--config", config)
	service.Env = append(os.Environ(), "NOTIFY_SOCKET="+at)
	p := startCommand(t, service)
	word := make([]byte, 1024)
	n, err := manager.Read(word)
	if said := string(word[:n]); err != nil || !strings.Contains(said, "READY=1") || !strings.Contains(said, fmt.Sprintf("MAINPID=%d", service.Process.Pid)) {
		t.Errorf("%q, %v", said, err)
	}
	if conn, err := net.Dial("tcp", addr); err != nil {
		t.Errorf("ready, and nobody listens: %v", err)
	} else {
		conn.Close()
	}
	p.stop()
	// A mistake in the configuration is not tried again for ever.
	if r := run(t, "doorward", "serve", "--config", filepath.Join(dir, "none.yaml")); r.code != 2 || !strings.Contains(string(text), "RestartPreventExitStatus=2") {
		t.Errorf("%d: a configuration that cannot be loaded would be tried for ever", r.code)
	}
}
