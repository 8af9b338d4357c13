package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
)

type diffFlags struct {
	failOn string
	all    bool
}

func diffCommand(s *settings) *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Tell in words who gains and who loses by a change of the configuration",
		Long: "Compare what two configurations mean, not how they are written: who gains and who loses, rule by rule.\n" +
			"Every change is said to loosen or to tighten where that is proved for every request, and to be unclear\n" +
			"where it is not. OLD may be - for standard input, read as if it stood beside NEW.",
		Example: "  git show HEAD:doorward.yaml | doorward diff - doorward.yaml\n" +
			"  doorward diff old.yaml new.yaml --fail-on loosens",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return diff(cmd.InOrStdin(), cmd.OutOrStdout(), s, f, args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&f.failOn, "fail-on", "", "exit with 1 if a change has this `effect` or may have it: loosens, tightens or any")
	cmd.Flags().BoolVar(&f.all, "all", false, "also list changes that let nobody in or keep nobody out")
	return cmd
}

// diffReport is what `doorward diff` has to say, as JSON.
type diffReport struct {
	Old string `json:"old"`
	New string `json:"new"`
	// Effects joins the changes by route; those about every route stand under "*".
	Effects map[string]authz.Effect `json:"effects"`
	Changes []authz.Change          `json:"changes"`
}

func diff(in io.Reader, out io.Writer, s *settings, f diffFlags, before, after string) error {
	if !slices.Contains([]string{"", string(authz.Loosens), string(authz.Tightens), "any"}, f.failOn) {
		return fmt.Errorf("--fail-on %q is none of loosens, tightens and any", f.failOn)
	}
	next, err := config.Load(after)
	if err != nil {
		return refuse(out, s, err)
	}
	last, err := loadOld(in, before, after)
	if err != nil {
		return refuse(out, s, err)
	}
	report := diffReport{Old: last.Version, New: next.Version, Changes: config.Diff(last, next)}
	report.Effects = authz.Summary(report.Changes)
	if everywhere, ok := report.Effects[""]; ok {
		delete(report.Effects, "")
		report.Effects["*"] = everywhere
	}
	if s.json() {
		err = indented(out, &report)
	} else {
		_, err = io.WriteString(out, report.text(f.all))
	}
	if err == nil && report.has(f.failOn) {
		return &exitError{code: exitNo}
	}
	return err
}

// maxOld bounds what is read from standard input; a configuration is smaller.
const maxOld = 2 << 20

func loadOld(in io.Reader, before, after string) (*config.Config, error) {
	if before != "-" {
		return config.Load(before)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxOld))
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, errors.New("nothing came in on standard input: pipe the old configuration into it")
	}
	cfg, err := config.LoadText(after, text)
	var problems config.Problems
	if errors.As(err, &problems) {
		for i := range problems {
			problems[i].File = "standard input"
		}
	}
	return cfg, err
}

// has reports whether a change has the effect, or may have it.
func (r *diffReport) has(effect string) bool {
	return effect != "" && slices.ContainsFunc(r.Changes, func(c authz.Change) bool {
		return c.Effect != authz.Nothing && (effect == "any" || c.Effect == authz.Unclear || string(c.Effect) == effect)
	})
}

var effectSigns = map[authz.Effect]string{authz.Loosens: "+ loosens ", authz.Tightens: "- tightens", authz.Unclear: "? unclear ", authz.Nothing: "  nothing "}

func (r *diffReport) text(all bool) string {
	var b strings.Builder
	quiet := 0
	for i := range r.Changes {
		c := &r.Changes[i]
		if c.Effect == authz.Nothing && !all && !explains(r.Changes, c) {
			quiet++
			continue
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", effectSigns[c.Effect], config.Printable(c.At), config.Printable(c.Text))
		for _, line := range c.Details {
			fmt.Fprintf(&b, "              %s\n", config.Printable(line))
		}
	}
	if len(r.Effects) == 0 {
		b.WriteString("every request is decided as before")
	} else {
		var parts []string
		for _, at := range slices.Sorted(maps.Keys(r.Effects)) {
			parts = append(parts, cmp.Or(map[string]string{"*": "everywhere"}[at], at)+" "+string(r.Effects[at]))
		}
		b.WriteString("in all: " + strings.Join(parts, ", "))
	}
	if quiet > 0 {
		fmt.Fprintf(&b, "; %s that decide nothing (--all lists them)", count(quiet, "change"))
	}
	b.WriteByte('\n')
	return b.String()
}

// explains reports whether a change of a group or a profile stands behind
// another one: readers want to know why a rule that nobody touched matches more.
func explains(changes []authz.Change, c *authz.Change) bool {
	kind, _, _ := strings.Cut(c.At, "/")
	return (kind == "groups" || kind == "profiles") && len(c.Details) > 0 &&
		slices.ContainsFunc(changes, func(other authz.Change) bool { return other.Effect != authz.Nothing })
}
