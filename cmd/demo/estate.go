package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// devices is the inventory as of now: dave's laptop fell silent 30 days ago.
func devices(now time.Time) []map[string]any {
	laptop := func(owner string, compliant bool, seen time.Time, reasons ...string) map[string]any {
		return map[string]any{
			"id": "laptop-" + owner, "name": "Laptop of " + owner, "owner": owner + "@example.com",
			"managed": "yes", "compliant": map[bool]string{true: "yes", false: "no"}[compliant],
			"disk_encrypted": map[bool]string{true: "yes", false: "no"}[compliant],
			"os":             "macos", "os_version": "15.6.1",
			"last_seen": seen.UTC().Format(time.RFC3339), "reasons": append([]string{}, reasons...),
		}
	}
	return []map[string]any{
		laptop("alice", true, now),
		laptop("carol", false, now, "FileVault is turned off"),
		laptop("dave", true, now.AddDate(0, 0, -30)),
	}
}

// keepDevicesFresh writes the inventory now and again every ten minutes, as a
// device management would hear from living devices.
func keepDevicesFresh(ctx context.Context, e estate) error {
	path := filepath.Join(e.state, "devices.json")
	write := func() error {
		text, err := json.MarshalIndent(devices(time.Now()), "", "  ")
		if err != nil {
			return err
		}
		return replaceFile(path, text)
	}
	if err := write(); err != nil {
		return fmt.Errorf("the device inventory: %w", err)
	}
	go func() {
		tick := time.NewTicker(10 * time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				write() // a full disk shows as facts that grow old
			}
		}
	}()
	return nil
}

//go:embed doorward.yaml.tmpl
var configTemplate string

// writeConfig writes the configuration into the state folder. One that was
// edited by hand since the last run is kept beside it.
func writeConfig(e estate) (string, error) {
	token := filepath.Join(e.state, "admin-token")
	if err := replaceFile(token, []byte(rand.Text()+rand.Text()+"\n")); err != nil {
		return "", fmt.Errorf("the admin token: %w", err)
	}
	var text bytes.Buffer
	tmpl := template.Must(template.New("config").Parse(configTemplate))
	err := tmpl.Execute(&text, map[string]string{
		"LogLevel": map[bool]string{true: "info", false: "warn"}[e.verbose],
		"Listen":   e.addr, "Admin": e.adminAddr, "AdminToken": token, "Issuer": "http://" + e.idpAddr, "Auth": e.url("auth"),
		"WikiFrom": e.url("wiki"), "WikiTo": e.wiki, "EchoFrom": e.url("echo"), "EchoTo": e.echo,
		"BillingFrom": e.url("billing"), "BillingTo": e.billing, "HelpFrom": e.url("help"), "HelpTo": e.help, "AdminFrom": e.url("admin"),
		"Secret": filepath.Join(e.state, "client-secret"), "Store": filepath.Join(e.state, "doorward.db"),
		"Devices": filepath.Join(e.state, "devices.json"), "Audit": filepath.Join(e.state, "audit.jsonl"),
	})
	if err != nil {
		return "", err
	}
	path, written := filepath.Join(e.state, "doorward.yaml"), filepath.Join(e.state, ".doorward.yaml.written")
	before, err := os.ReadFile(path)
	if err == nil {
		last, _ := os.ReadFile(written)
		if !bytes.Equal(before, last) {
			kept := path + ".edited"
			if err := replaceFile(kept, before); err != nil {
				return "", err
			}
			fmt.Println("Your edited configuration was kept as", kept)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return path, errors.Join(replaceFile(written, text.Bytes()), replaceFile(path, text.Bytes()))
}

// replaceFile writes a file so that readers see the old or the new content,
// never part of one.
func replaceFile(path string, content []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
