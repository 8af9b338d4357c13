package authz

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/doorward/doorward/internal/access"
)

// WriteText writes the tree for a terminal, with ANSI colours if asked for.
// Control characters in values from the request are replaced, so that a path or
// a claim cannot write to the terminal.
func (t *Tree) WriteText(w io.Writer, color bool) error {
	p := printer{color: color}
	d := &t.Decision
	p.line("%s  %s: %s", p.paint(d.Outcome != access.Allow, strings.ToUpper(d.Outcome.String())), d.Reason, d.Reason.Info().Title)
	p.field("request", t.Request.Method+" "+t.Request.URL)
	p.field("user", t.Request.User)
	p.field("route", t.Request.Route)
	p.field("rule", d.Rule)
	p.field("message", d.Message)
	p.field("policy", d.Policy)

	for _, r := range t.Rules {
		deny := strings.HasPrefix(r.Rule, "deny/")
		note := ""
		if r.Report {
			note = "  (only reports)"
		}
		p.line("")
		p.line("%s  %s%s", printable(r.Rule), p.paint(deny == (r.Result != Miss), string(r.Result)), note)
		for _, c := range r.Conditions {
			p.condition(c, deny == (c.Result != Miss))
		}
	}
	if t.Tier != nil {
		p.tier(t.Tier)
	}
	if len(t.Requires) > 0 {
		p.line("")
	}
	for _, r := range t.Requires {
		result := map[Result]string{Hit: "met", Miss: "not met"}[r.Result]
		if result == "" {
			result = string(r.Result)
		}
		if r.Device != "" {
			result += "  (device " + r.Device + ")"
		}
		p.line("%s  %s", r.Require, p.paint(r.Result == Miss, printable(result)))
		for _, c := range r.Missing {
			p.condition(c, true)
		}
	}
	for _, s := range d.Shadow {
		p.line("")
		p.line("if %s were enforced: %s, %s", printable(s.Rule), s.Outcome, s.Reason)
	}
	if len(t.Change) > 0 {
		p.line("")
		p.line("smallest change that would allow it:")
		for _, step := range t.Change {
			p.line("  - %s", printable(step.String()))
		}
	}
	if t.NoChange != "" {
		p.line("")
		p.line("%s", t.NoChange)
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}

// tier prints the trust tier of the device and what the higher ones lack.
func (p *printer) tier(t *TreeTier) {
	line := "device tier  " + p.paint(t.Tier == "", printable(orNone(t.Tier)))
	if t.Session != "" {
		line += "  (a login lasts " + t.Session + ")"
	}
	p.line("")
	p.line("%s", line)
	for _, step := range t.Higher {
		p.line("  not in %s", printable(step.Tier))
		for _, c := range step.Missing {
			p.condition(c, true)
		}
	}
}

type printer struct {
	text  strings.Builder
	color bool
}

func (p *printer) line(format string, args ...any) {
	p.text.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

func (p *printer) field(name, value string) {
	if strings.TrimSpace(value) != "" {
		p.line("  %-8s %s", name, printable(value))
	}
}

func (p *printer) condition(c TreeCondition, bad bool) {
	result := p.paint(bad, fmt.Sprintf("%-7s", c.Result))
	p.line("  %-12s %s  %s", c.Condition, result, printable(wantGot(c.Want, c.Got)))
}

func (p *printer) paint(bad bool, s string) string {
	switch {
	case !p.color:
		return s
	case bad:
		return "\x1b[31m" + s + "\x1b[0m"
	default:
		return "\x1b[32m" + s + "\x1b[0m"
	}
}

// printable replaces what a terminal would act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func wantGot(want, got string) string {
	switch {
	case want == "" && got == "":
		return ""
	case want == "":
		return "got " + got
	case got == "":
		return "want " + want
	default:
		return "want " + want + ", got " + got
	}
}

// demandText writes what a login has to satisfy, to stand behind "log in" or "a
// login".
func demandText(ask access.LoginRequire) string {
	var parts []string
	if len(ask.ACR) > 0 {
		parts = append(parts, "acr "+anyOf(ask.ACR))
	}
	if ask.PhishingResistant {
		parts = append(parts, "phishing resistance")
	}
	if len(ask.AMR) > 0 {
		parts = append(parts, "amr "+anyOf(ask.AMR))
	}
	if ask.MaxAge > 0 {
		parts = append(parts, "at most "+span(ask.MaxAge.Std())+" ago")
	}
	switch {
	case len(parts) == 0:
		return ""
	case len(parts) == 1 && ask.MaxAge > 0:
		return " " + parts[0]
	}
	return " with " + strings.Join(parts, ", ")
}
