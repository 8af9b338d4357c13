package config

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// observe watches a configuration until the test ends. The channel yields once
// per change.
func observe(t *testing.T, cfg *Config) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}, 100), make(chan error)
	go func() {
		ended <- Watch(ctx, cfg, WatchOptions{Quiet: 10 * time.Millisecond, Poll: time.Hour}, func() { changes <- struct{}{} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return changes
}

func await(t *testing.T, changes <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(20 * time.Second):
		t.Fatalf("not noticed: %s", what)
	}
}

const withSecret = "version: 1\nsessions: {key: {file: key}}\n"

func TestWatchNoticesHowPeopleWriteFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "doorward.yaml")
	write(t, path, withSecret)
	write(t, filepath.Join(dir, "key"), "one")
	changes := observe(t, Unread(path))

	write(t, path, withSecret+"# written in place\n")
	await(t, changes, "a write in place")

	write(t, filepath.Join(dir, ".swap"), withSecret+"# renamed over\n")
	rename(t, filepath.Join(dir, ".swap"), path)
	await(t, changes, "an editor's rename")

	write(t, filepath.Join(dir, "key"), "two!")
	await(t, changes, "a new secret")

	remove(t, path)
	await(t, changes, "the file is gone")
	write(t, path, withSecret)
	await(t, changes, "the file is back")
}

func TestWatchNoticesAConfigMapUpdate(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, text string) {
		write(t, filepath.Join(dir, version, "doorward.yaml"), text)
		write(t, filepath.Join(dir, version, "key"), version)
		link(t, version, filepath.Join(dir, "..data_tmp"))
		rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	}
	publish("..2026_01", withSecret)
	link(t, "..data/doorward.yaml", filepath.Join(dir, "doorward.yaml"))
	link(t, "..data/key", filepath.Join(dir, "key"))
	changes := observe(t, Unread(filepath.Join(dir, "doorward.yaml")))

	publish("..2026_02", withSecret)
	if err := os.RemoveAll(filepath.Join(dir, "..2026_01")); err != nil {
		t.Fatal(err)
	}
	await(t, changes, "the first swap")
	publish("..2026_03", withSecret)
	await(t, changes, "the second swap")
}

func TestWatchFollowsTheFilesTheConfigurationNames(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "doorward.yaml")
	secret := filepath.Join(elsewhere, "run", "secrets", "key")
	write(t, path, "version: 1\n")
	changes := observe(t, Unread(path))

	// The new version does not load, because the secret is missing …
	write(t, path, "version: 1\nsessions: {key: {file: "+secret+"}}\n")
	await(t, changes, "a configuration that names another file")
	// … so supplying the secret is a change.
	write(t, secret, "one")
	await(t, changes, "the missing secret, in a directory that did not exist")
	write(t, secret, "two!")
	await(t, changes, "the secret rotates")
}

func TestWatchFollowsLinksOutOfTheDirectory(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "doorward.yaml")
	write(t, filepath.Join(elsewhere, "real.yaml"), "version: 1\n")
	link(t, filepath.Join(elsewhere, "real.yaml"), path)
	changes := observe(t, Unread(path))
	write(t, filepath.Join(elsewhere, "real.yaml"), "version: 1\n# more\n")
	await(t, changes, "a write behind a link")
}

// The usual layout of deployments: current -> releases/2.
func TestWatchFollowsALinkedDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "releases/1/doorward.yaml"), "version: 1\n")
	write(t, filepath.Join(dir, "releases/2/doorward.yaml"), "version: 1\n# second\n")
	link(t, "releases/1", filepath.Join(dir, "current"))
	changes := observe(t, Unread(filepath.Join(dir, "current/doorward.yaml")))
	link(t, "releases/2", filepath.Join(dir, "next"))
	rename(t, filepath.Join(dir, "next"), filepath.Join(dir, "current"))
	await(t, changes, "a link to the next release")
	write(t, filepath.Join(dir, "releases/2/doorward.yaml"), "version: 1\n# edited\n")
	await(t, changes, "a write in the next release")
}

func TestWatchIgnoresNeighboursAndRepetitions(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "doorward.yaml")
	write(t, path, "version: 1\n")
	changes := observe(t, Unread(path))
	for range 50 {
		write(t, filepath.Join(dir, "audit.jsonl"), "{}\n")
	}
	write(t, path, "version: 1\n# one change\n")
	await(t, changes, "the change")
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	await(t, changes, "a new modification time")
	if n := len(changes); n > 0 {
		t.Errorf("%d changes too many", n)
	}
}

// Nothing may be lost between reading the configuration and watching it.
func TestWatchNoticesAChangeBeforeItStarted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doorward.yaml")
	write(t, path, "version: 1\n")
	cfg := Unread(path)
	write(t, path, "version: 1\n# changed since\n")
	await(t, observe(t, cfg), "a change since Load")
}

// A directory far above the file is replaced: the operating system announces
// nothing about the file.
func TestWatchPollsWhereNothingIsAnnounced(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a/b/doorward.yaml"), "version: 1\n")
	write(t, filepath.Join(root, "new/b/doorward.yaml"), "version: 1\n# changed\n")
	cfg := Unread(filepath.Join(root, "a/b/doorward.yaml"))
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}, 100), make(chan error)
	go func() {
		ended <- Watch(ctx, cfg, WatchOptions{Quiet: time.Millisecond, Poll: 5 * time.Millisecond}, func() { changes <- struct{}{} })
	}()
	rename(t, filepath.Join(root, "a"), filepath.Join(root, "old"))
	rename(t, filepath.Join(root, "new"), filepath.Join(root, "a"))
	await(t, changes, "a change")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
