package authz

import (
	"fmt"
	"io"

	"github.com/doorward/doorward/internal/access"
)

// A Past is a recorded decision, explained with a policy that may be another
// one than decided then.
type Past struct {
	// Recorded is the verdict of that time.
	Recorded access.Decision `json:"recorded"`
	// Request is what was decided on, with the route it has now.
	Request *access.Request `json:"request"`
	// Tree explains the verdict of now.
	Tree *Tree `json:"tree"`
	// OtherPolicy tells that another version of the policy decided.
	OtherPolicy bool `json:"other_policy"`
	// Differs tells that the verdict would be another one now.
	Differs bool `json:"differs"`
	// Lacks says what the record lacks, where that may matter to the verdict.
	Lacks string `json:"lacks,omitempty"`
}

// Past explains a recorded decision. The request is the recorded one, with the
// route that belongs to its address now.
func (p *Policy) Past(recorded *access.Decision, seen *access.Request) *Past {
	d, tree := p.Explain(seen)
	return &Past{Recorded: *recorded, Request: seen, Tree: tree, OtherPolicy: recorded.Policy != p.version, Differs: d.Differs(recorded)}
}

// WriteText writes what was decided then and the tree of now, for a terminal.
func (p *Past) WriteText(w io.Writer, color bool) error {
	d, then := &p.Recorded, printer{color: color}
	then.line("%s was decided on %s:", p.Request.ID, p.Request.Time.UTC().Format("2006-01-02 15:04:05 MST"))
	then.line("%s  %s: %s", then.paint(d.Outcome != access.Allow, d.Outcome.String()), d.Reason, d.Reason.Info().Title)
	then.field("rule", d.Rule)
	then.field("policy", d.Policy)
	then.line("")
	switch {
	case p.Lacks != "":
		then.line("The record lacks something that may matter: %s.", printable(p.Lacks))
	case p.OtherPolicy && p.Differs:
		then.line("Another policy decided then. This one decides differently:")
	case p.OtherPolicy:
		then.line("Another policy decided then. This one decides the same:")
	case p.Differs:
		then.line("The same policy decides differently now, which should not be: please report this.")
	default:
		then.line("The policy is the same, and so is its verdict:")
	}
	then.line("")
	if _, err := fmt.Fprint(w, then.text.String()); err != nil {
		return err
	}
	return p.Tree.WriteText(w, color)
}
