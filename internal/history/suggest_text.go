package history

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteText writes the proposals for people, route by route, with the proof and
// the patch.
func (s *Suggestions) WriteText(w io.Writer) error {
	b := new(bytes.Buffer)
	carried := 0
	for i := range s.Proposals {
		if s.Proposals[i].Held == "" {
			carried++
		}
	}
	fmt.Fprintf(b, "%s%s, looked at for what %s is used for\n", counted(s.Log.Decisions-s.Log.Skipped, "decision"), span(&s.Log), s.Config)
	if s.Unknown > 0 {
		fmt.Fprintf(b, "%s left out: the record does not tell enough\n", counted(s.Unknown, "decision"))
	}
	if len(s.Proposals) == 0 {
		fmt.Fprint(b, "\nThere is nothing to propose.\n")
	}
	route := ""
	for i := range s.Proposals {
		p := &s.Proposals[i]
		if p.Route != route {
			route = p.Route
			fmt.Fprintf(b, "\nroute %s: %s\n", p.Route, p.Around.text())
		}
		sign := "-"
		if p.Held != "" {
			sign = "?"
		}
		fmt.Fprintf(b, "  %s %s  (%s)\n", sign, p.Text, p.Path)
		if p.Use.Requests > 0 && p.Use.text() != p.Around.text() {
			fmt.Fprintf(b, "      %s\n", p.Use.text())
		}
		if p.Held != "" {
			fmt.Fprintf(b, "      not in the patch: %s\n", p.Held)
		}
		if len(p.Loses) > 0 {
			fmt.Fprintf(b, "      would lose what they did not use: %s\n", shorten(p.Loses, p.MoreLose))
		}
	}
	switch {
	case s.Proof != nil:
		fmt.Fprintf(b, "\nproof: %s decided before and after the patch: nobody loses what they used\n", counted(s.Proof.Log.Decisions-s.Proof.Log.Skipped, "decision"))
	case carried == 0 && len(s.Proposals) > 0:
		fmt.Fprint(b, "\nNothing is patched.\n")
	}
	s.Log.writeText(b)
	if s.Patch != "" {
		fmt.Fprintf(b, "\n%s", s.Patch)
	}
	return writePlain(w, b)
}

// text says how much something was used.
func (u *Use) text() string {
	if u.Requests == 0 {
		return "not used"
	}
	text := fmt.Sprintf("%s by %s on %s, first %s, last %s", counted(u.Requests, "request"), counted(u.Users, "user"), counted(u.Days, "day"),
		u.First.UTC().Format(time.DateOnly), u.Last.UTC().Format(time.DateOnly))
	if u.Season > 0 && u.Season < u.Days {
		text += fmt.Sprintf(", %d of the days around the end of a quarter", u.Season)
	}
	return text
}

// shorten writes some names of a list.
func shorten(names []string, more bool) string {
	rest := ""
	if len(names) > shownUsers {
		rest = fmt.Sprintf(" and %d more", len(names)-shownUsers)
		names = names[:shownUsers]
	} else if more {
		rest = " and more"
	}
	return strings.Join(names, ", ") + rest
}
