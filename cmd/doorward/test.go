package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
)

type testFlags struct {
	run, junit  string
	verbose     bool
	minCoverage int
}

func testCommand(s *settings) *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Run the tests of the policy",
		Long: "Run the tests in the configuration and in the files beside it whose names end in _test.yaml. Each is\n" +
			"decided by the same walk that decides live requests; nothing is asked of any provider or inventory.\n" +
			"Rules and requirements that no test shows are listed. Exits 0 if every test passes, 1 if one fails and 2\n" +
			"if the configuration or a test is faulty.",
		Example: "  doorward test --config doorward.yaml --junit report.xml\n  doorward test --run 'billing|byod' -v",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runTests(cmd.OutOrStdout(), s, f) },
	}
	cmd.Flags().StringVar(&f.run, "run", "", "run only tests whose name matches a regular `expression`")
	cmd.Flags().StringVar(&f.junit, "junit", "", "also write a JUnit report to a `file`")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "list tests that pass as well")
	cmd.Flags().IntVar(&f.minCoverage, "min-coverage", 0, "fail if fewer `percent` of the rules are decided by a test")
	return cmd
}

func runTests(out io.Writer, s *settings, f testFlags) error {
	pattern, err := regexp.Compile(f.run)
	if err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	if f.minCoverage < 0 || f.minCoverage > 100 {
		return fmt.Errorf("--min-coverage %d is no percentage; write a number from 0 to 100", f.minCoverage)
	}
	if f.run != "" && f.minCoverage > 0 {
		return errors.New("--min-coverage is about all tests: leave out --run")
	}
	cfg, err := config.Load(s.config)
	if err != nil {
		return refuse(out, s, err)
	}
	tests, err := cfg.AllTests()
	if err != nil {
		return refuse(out, s, err)
	}
	report := testReport{Config: s.config, Version: cfg.Version}
	coverage := newCoverage(cfg)
	for i := range tests {
		if !pattern.MatchString(tests[i].Name) {
			continue
		}
		r := cfg.Rehearse(&tests[i])
		coverage.add(r)
		report.add(r)
	}
	if f.run == "" {
		report.Coverage = coverage.summary()
	}
	if f.junit != "" {
		if err := writeJUnit(f.junit, &report); err != nil {
			return fmt.Errorf("--junit: %w", err)
		}
	}
	if s.json() {
		err = indented(out, &report)
	} else {
		err = report.write(out, f.verbose)
	}
	switch {
	case err != nil:
		return err
	case len(tests) > 0 && len(report.Tests) == 0:
		return &exitError{code: exitNo, err: fmt.Errorf("--run %q matches none of the %d tests", f.run, len(tests))}
	case report.Failed > 0:
		return &exitError{code: exitNo}
	case f.minCoverage > 0 && report.Coverage.percent() < f.minCoverage:
		return &exitError{code: exitNo, err: fmt.Errorf("%d %% of the rules are decided by a test, %d %% are demanded", report.Coverage.percent(), f.minCoverage)}
	}
	return nil
}

// refuse reports mistakes in the configuration, in the format asked for.
func refuse(out io.Writer, s *settings, err error) error {
	var problems config.Problems
	if !errors.As(err, &problems) || !s.json() {
		return &exitError{code: exitUsage, err: err}
	}
	if err := json.NewEncoder(out).Encode(map[string]any{"ok": false, "problems": problems}); err != nil {
		return err
	}
	return &exitError{code: exitUsage}
}

func indented(out io.Writer, value any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// testReport is what `doorward test` has to say, as JSON.
type testReport struct {
	Config  string       `json:"config"`
	Version string       `json:"version"`
	Passed  int          `json:"passed"`
	Failed  int          `json:"failed"`
	Tests   []testResult `json:"tests"`
	// Coverage is left out where only some of the tests were run.
	Coverage *coverageSummary `json:"coverage,omitempty"`
}

type testResult struct {
	Name string `json:"name"`
	File string `json:"file"`
	Line int    `json:"line"`
	// Request and User word what was asked for, and by whom on what.
	Request  string          `json:"request"`
	User     string          `json:"user"`
	Passed   bool            `json:"passed"`
	Wrong    []string        `json:"wrong,omitempty"`
	Decision access.Decision `json:"decision"`
	// Change is the smallest change that would have allowed it.
	Change []authz.Step `json:"change,omitempty"`
}

func (r *testReport) add(one *config.Rehearsal) {
	file, line, _ := one.Test.Place()
	method, target := one.Test.Target()
	result := testResult{
		Name: one.Test.Name, File: beside(file), Line: line, Request: method + " " + target, User: "nobody",
		Passed: len(one.Wrong) == 0, Wrong: one.Wrong, Decision: one.Decision,
	}
	if one.Request != nil && !one.Request.Identity.Nobody() {
		result.User = one.Request.Identity.User()
		if groups := one.Request.Identity.Groups; len(groups) > 0 {
			result.User += " (" + strings.Join(groups, ", ") + ")"
		}
	}
	switch dev := &one.Test.Device; {
	case dev.IsZero():
		result.User += ", no device"
	case dev.Like != "":
		result.User += ", device " + dev.Like
	default:
		result.User += ", some device"
	}
	if one.Tree != nil {
		result.Change = one.Tree.Change
	}
	if result.Passed {
		r.Passed++
	} else {
		r.Failed++
	}
	r.Tests = append(r.Tests, result)
}

// beside names a file as a reader in the current directory would.
func beside(file string) string {
	if dir, err := os.Getwd(); err == nil {
		if near, err := filepath.Rel(dir, file); err == nil && !strings.HasPrefix(near, "..") {
			return near
		}
	}
	return file
}

func (r *testReport) write(out io.Writer, verbose bool) error {
	var b strings.Builder
	for i := range r.Tests {
		t := &r.Tests[i]
		if t.Passed {
			if verbose {
				fmt.Fprintf(&b, "ok    %s\n", config.Printable(t.Name))
			}
			continue
		}
		fmt.Fprintf(&b, "FAIL  %s\n", config.Printable(t.Name))
		for _, line := range t.lines() {
			fmt.Fprintf(&b, "      %s\n", config.Printable(line))
		}
	}
	if len(r.Tests) == 0 {
		b.WriteString("there are no tests; docs/policy-tests.md shows how to write one\n")
	} else {
		fmt.Fprintf(&b, "%s, %d passed, %d failed\n", count(len(r.Tests), "test"), r.Passed, r.Failed)
	}
	r.Coverage.write(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

// lines tell what went wrong with a test, and what would have to differ.
func (t *testResult) lines() []string {
	lines := []string{fmt.Sprintf("%s:%d: %s as %s", t.File, t.Line, t.Request, t.User)}
	lines = append(lines, t.Wrong...)
	if t.Decision.Message != "" {
		lines = append(lines, fmt.Sprintf("it says %q", t.Decision.Message))
	}
	if len(t.Change) > 0 {
		lines = append(lines, "what would allow it:")
		for _, step := range t.Change {
			lines = append(lines, "  "+step.String())
		}
	}
	return lines
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
