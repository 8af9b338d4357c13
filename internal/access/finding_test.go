package access

import (
	"os"
	"strings"
	"testing"
)

// Every kind of finding is explained, under its severity.
func TestFindingsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "## Errors")
	errors, rest, _ := strings.Cut(rest, "## Warnings")
	warnings, notes, _ := strings.Cut(rest, "## Notes")
	for _, kind := range FindingKinds() {
		section := map[Severity]string{SevereError: errors, SevereWarning: warnings, SevereNote: notes}[kind.Severity()]
		if !strings.Contains(section, "`"+string(kind)+"`") {
			t.Errorf("docs/check.md does not explain %s under its severity", kind)
		}
	}
	if FindingKind("of tomorrow").Severity() != SevereError {
		t.Error("a kind that is not listed is harmless")
	}
}
