package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

type checkFlags struct{ strict, all bool }

func checkCommand(s *settings) *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and list every mistake",
		Long: "Check the configuration and every file it names. Each mistake is printed with file, line, column\n" +
			"and the cure. What is no mistake is analysed further: rules that do nothing (errors), things that are\n" +
			"hardly meant (warnings), and decisions that reviewers should know of (notes). docs/check.md explains\n" +
			"each; a finding can be accepted in the file with a written reason.\n" +
			"Exits 2 if doorward could not serve with it, 1 if there are errors that nobody accepted (with --strict\n" +
			"warnings as well), and 0 otherwise. doorward test runs the tests.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return check(cmd.OutOrStdout(), s, f) },
	}
	cmd.Flags().BoolVar(&f.strict, "strict", false, "warnings fail, too")
	cmd.Flags().BoolVar(&f.all, "all", false, "also print what was accepted, with the reason")
	return cmd
}

func check(out io.Writer, s *settings, f checkFlags) error {
	cfg, err := config.Load(s.config)
	if err != nil {
		return refuse(out, s, err)
	}
	tests, err := cfg.AllTests()
	if err != nil {
		return refuse(out, s, err)
	}
	report := checkReport{
		Version: cfg.Version, Routes: len(cfg.Routes), Providers: len(cfg.Providers), Tests: len(tests), Findings: cfg.Analyse(),
	}
	report.count(f.strict)
	if s.json() {
		err = json.NewEncoder(out).Encode(&report)
	} else {
		_, err = io.WriteString(out, report.text(s.config, f.all))
	}
	if err == nil && !report.OK {
		return &exitError{code: exitNo}
	}
	return err
}

// checkReport is what `doorward check` has to say about a configuration that
// could be served, as JSON.
type checkReport struct {
	// OK tells that nothing was found that fails the check.
	OK        bool   `json:"ok"`
	Version   string `json:"version"`
	Routes    int    `json:"routes"`
	Providers int    `json:"providers"`
	Tests     int    `json:"tests"`
	// Errors, Warnings and Notes count what was not accepted.
	Errors   int              `json:"errors"`
	Warnings int              `json:"warnings"`
	Notes    int              `json:"notes"`
	Accepted int              `json:"accepted"`
	Findings []config.Finding `json:"findings"`
}

func (r *checkReport) count(strict bool) {
	for i := range r.Findings {
		switch f := &r.Findings[i]; {
		case f.Accepted != "":
			r.Accepted++
		case f.Severity == access.SevereError:
			r.Errors++
		case f.Severity == access.SevereWarning:
			r.Warnings++
		default:
			r.Notes++
		}
	}
	r.OK = r.Errors == 0 && (!strict || r.Warnings == 0)
}

func (r *checkReport) text(file string, all bool) string {
	var b strings.Builder
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Accepted != "" && !all {
			continue
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s: %s [%s %s]\n", file, f.Line, f.Column, f.Severity, config.Printable(f.Text), f.Kind, f.At)
		switch {
		case f.Accepted != "":
			fmt.Fprintf(&b, "    accepted: %s\n", config.Printable(f.Accepted))
		case f.Cure != "":
			fmt.Fprintf(&b, "    %s\n", config.Printable(f.Cure))
		}
	}
	verdict := "is fine"
	if r.Errors+r.Warnings > 0 {
		verdict = "deserves a look"
	}
	fmt.Fprintf(&b, "%s %s: %s, %s, %s, version %s", file, verdict, count(r.Routes, "route"), count(r.Providers, "provider"), count(r.Tests, "test"), r.Version)
	for _, n := range []struct {
		n    int
		what string
	}{{r.Errors, "error"}, {r.Warnings, "warning"}, {r.Notes, "note"}} {
		if n.n > 0 {
			b.WriteString("; " + count(n.n, n.what))
		}
	}
	if r.Accepted > 0 {
		fmt.Fprintf(&b, "; %d accepted", r.Accepted)
	}
	b.WriteByte('\n')
	return b.String()
}

// exitCodeOf tells a configuration that is wrong from a run that failed.
func exitCodeOf(err error) int {
	var problems config.Problems
	if errors.As(err, &problems) {
		return exitUsage
	}
	return exitNo
}
