package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command has a page, and every flag stands on it.
func TestManualPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1795435200")
	dir, again := t.TempDir(), t.TempDir()
	for _, to := range []string{dir, again} {
		cmd := root()
		cmd.SetArgs([]string{"man", to})
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
	}
	pages := 0
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.HasParent() && !cmd.IsAvailableCommand() {
			return
		}
		name := pageName(cmd) + ".1"
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		pages++
		if other, err := os.ReadFile(filepath.Join(again, name)); err != nil || string(other) != string(text) {
			t.Errorf("%s is not the same twice: %v", name, err)
		}
		if !strings.Contains(string(text), `"2026-11-23"`) {
			t.Errorf("%s has no date: %.80s", name, text)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(string(text), roff("--"+f.Name)) {
				t.Errorf("%s does not know --%s", name, f.Name)
			}
		})
		for _, below := range cmd.Commands() {
			visit(below)
		}
	}
	visit(root())
	if pages < 20 {
		t.Errorf("%d pages", pages)
	}
	if got := roff(".so /etc/passwd\n'x\\n"); got != "\\&.so /etc/passwd\n\\&'x\\en" {
		t.Errorf("%q", got)
	}
}
