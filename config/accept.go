package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// Acceptance accepts one finding of `doorward check`, in writing.
type Acceptance struct {
	// Finding is the kind of finding, as `doorward check` names it in brackets.
	// Required.
	Finding string `yaml:"finding"`
	// At is what it is about, as `doorward check` names it: `billing`,
	// `billing/allow/oncall`, `groups/oncall`. Required.
	At string `yaml:"at"`
	// Reason is why it is as it should be. Required.
	Reason string `yaml:"reason"`
}

// Validate reports every mistake.
func (a *Acceptance) Validate(f access.Faults) {
	var kinds []string
	for _, kind := range access.FindingKinds() {
		kinds = append(kinds, string(kind))
	}
	if !slices.Contains(kinds, a.Finding) {
		_, cure := didYouMean(a.Finding, kinds)
		f.At("finding").Add(cure, "%q is no finding", a.Finding)
	}
	if a.At == "" {
		f.At("at").Add("write ROUTE or ROUTE/allow/RULE, as doorward check does", "it does not say what is accepted")
	}
	if strings.TrimSpace(a.Reason) == "" {
		f.At("reason").Add("write why", "an acceptance needs a reason in writing")
	}
}

// accepted gives findings their places and the reasons with which they are
// accepted, and reports acceptances of nothing.
func (c *Config) accepted(found []access.Finding) []Finding {
	used := make([]bool, len(c.Accept))
	var all []Finding
	place := func(f access.Finding) Finding {
		at := c.where.find(f.Path)
		return Finding{Finding: f, Severity: f.Kind.Severity(), Line: at.line, Column: at.column}
	}
	for _, f := range found {
		one := place(f)
		for i, a := range c.Accept {
			if a.Finding == string(f.Kind) && a.At == f.At {
				used[i], one.Accepted = true, a.Reason
			}
		}
		all = append(all, one)
	}
	for i, a := range c.Accept {
		if !used[i] {
			all = append(all, place(access.Finding{
				Kind: access.AcceptanceStale, At: fmt.Sprintf("accept[%d]", i), Path: fmt.Sprintf("accept[%d]", i),
				Text: fmt.Sprintf("there is no finding %s at %s any more", a.Finding, a.At), Cure: "remove it",
			}))
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text))
	})
	return all
}
