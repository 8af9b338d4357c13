package store

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The tests in this file need a disk that is full, a disk that is read-only and
// a user without rights. They run themselves once more in namespaces of their
// own, where mounting is free.
const insideEnv = "DOORWARD_TEST_NAMESPACE"

// inNamespace reports whether the test runs inside. Outside, it runs the test
// inside, as the given user, and passes on the outcome.
func inNamespace(t *testing.T, uid int) bool {
	t.Helper()
	if os.Getenv(insideEnv) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getgid(), Size: 1}},
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		t.Skipf("no namespaces here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if strings.Contains(out.String(), "--- SKIP") {
		t.Skip(out.String())
	}
	t.Log(out.String())
	return false
}

func mountSmall(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Skipf("no mounts here: %v", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no mounts here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestFullDisk(t *testing.T) {
	if !inNamespace(t, 0) {
		return
	}
	dir := mountSmall(t)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f := reopen(t, filepath.Join(dir, "state.db"))
	fillUp(t, f)
	// Room again: the store goes on without a restart.
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Put(t.Context(), Item{Key: "after", Value: make([]byte, 10_000)}); err != nil {
		t.Errorf("after making room: %v", err)
	}
}

func TestDiskFullAtStart(t *testing.T) {
	if !inNamespace(t, 0) {
		return
	}
	dir := mountSmall(t)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state.db")
	if f, err := OpenFile(path, nil); err == nil || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("opened %v, %v", f, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	reopen(t, path) // half a file would be in the way
}

func TestReadOnlyDisk(t *testing.T) {
	if !inNamespace(t, 0) {
		return
	}
	dir := mountSmall(t)
	if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skip(err)
	}
	_, err := OpenFile(filepath.Join(dir, "state.db"), nil)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
}

func TestForeignFolder(t *testing.T) {
	if !inNamespace(t, 1000) {
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "state.db"), filepath.Join(dir, "new", "state.db")} {
		_, err := OpenFile(path, nil)
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "user 1000 may not write") || !strings.Contains(err.Error(), path) {
			t.Error(err)
		}
	}
}
