package history

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// What the text shows of a report; JSON has everything.
const (
	shownUsers   = 8
	shownChanges = 50
)

// WriteText writes the report for people, the worst first.
func (r *Report) WriteText(w io.Writer) error {
	b := new(bytes.Buffer)
	fmt.Fprintf(b, "%s%s, decided again by %s (version %s)\n", counted(r.Log.Decisions-r.Log.Skipped, "decision"), span(&r.Log), r.Config, r.Version)
	for _, line := range []struct {
		n    int
		text string
	}{
		{r.Same, "as before"},
		{total(r.Changes, func(c Change) int { return c.Count }), "with another outcome"},
		{total(r.Reasons, func(c Change) int { return c.Count }), "with the same outcome by another rule or for another reason"},
		{r.Unknowns(), "unknown: the record does not tell enough"},
		{r.Inconsistencies(), "inconsistent: decided by this very version, but not like this"},
	} {
		if line.n > 0 || line.text == "as before" {
			fmt.Fprintf(b, "%12s  %s\n", grouped(line.n), line.text)
		}
	}
	if len(r.Changes) == 0 && r.Inconsistencies() == 0 {
		fmt.Fprint(b, "\nNobody gains or loses access.\n")
	}
	writeChanges(b, r.Changes, func(c *Change) string { return c.From.String() + " → " + c.To.String() })
	writeChanges(b, r.Inconsistent, func(*Change) string { return "inconsistent" })
	writeChanges(b, r.Reasons, func(c *Change) string { return "still " + c.To.String() })
	if len(r.Unknown) > 0 {
		fmt.Fprintf(b, "\nunknown: %s\n", counted(r.Unknowns(), "request"))
	}
	for _, u := range r.Unknown {
		fmt.Fprintf(b, "  %s (%s)\n", u.Why, counted(u.Count, "request"))
		writeExamples(b, u.Examples)
	}
	r.Log.writeText(b)
	return writePlain(w, b)
}

// writeChanges writes sets of requests under one headline for each kind.
func writeChanges(b *bytes.Buffer, list []Change, kind func(*Change) string) {
	headline := ""
	for i := range list {
		c := &list[i]
		if k := kind(c); k != headline {
			headline = k
			same := list[i:]
			if end := slices.IndexFunc(same, func(o Change) bool { return kind(&o) != k }); end >= 0 {
				same = same[:end]
			}
			fmt.Fprintf(b, "\n%s: %s, %s\n", k, counted(total(same, func(c Change) int { return c.Count }), "request"), people(same))
		}
		if i >= shownChanges {
			fmt.Fprintf(b, "  and %d more sets; --output json lists them all\n", len(list)-i)
			return
		}
		route := "route " + c.Route
		if c.Route == "" {
			route = "no route"
		}
		if c.Moved != "" {
			route += ", now " + c.Moved
		}
		fmt.Fprintf(b, "  %s: %s → %s (%s, %s)\n", route, c.Before, c.After, counted(c.Count, "request"), people([]Change{*c}))
		fmt.Fprintf(b, "    %s\n", userList(c.Users, c.MoreUsers))
		writeExamples(b, c.Examples)
	}
}

func writeExamples(b *bytes.Buffer, examples []Example) {
	for i, e := range examples {
		if i == 3 {
			return
		}
		fmt.Fprintf(b, "    %s  %s %s  %s  id %s  (%s)\n", e.Time.UTC().Format(time.DateTime), e.Method, e.URL, e.User, e.ID, e.Place)
	}
}

// people counts who is concerned by some sets of requests.
func people(list []Change) string {
	seen, more := map[string]bool{}, ""
	for _, c := range list {
		for _, u := range c.Users {
			seen[u.User] = true
		}
		if c.MoreUsers {
			more = "more than "
		}
	}
	return more + counted(len(seen), "user")
}

// writeText tells what else the log held.
func (c *Contents) writeText(b *bytes.Buffer) {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, grouped(n)+" "+what)
		}
	}
	add(c.Skipped, "decisions left out by the filter")
	add(c.Own, "requests for Doorward's own addresses")
	add(c.Erased, "erased, so that what they said is unknown")
	for _, kind := range slices.Sorted(maps.Keys(c.Other)) {
		add(c.Other[kind], "of kind "+strconv.Quote(string(kind)))
	}
	add(c.Torn, "cut off at the end of a file")
	add(c.Damaged, "damaged")
	add(c.Foreign, "that are no audit events")
	if len(parts) > 0 {
		fmt.Fprintf(b, "\nalso in the log: %s\n", strings.Join(parts, ", "))
	}
	if c.Cut > 0 {
		fmt.Fprintf(b, "\n%s could not be read to the end\n", counted(c.Cut, "file"))
	}
	for _, t := range c.Troubles {
		fmt.Fprintf(b, "  %s: %s\n", t.Place, t.Text)
	}
	if rest := c.Unusable() - len(c.Troubles); rest > 0 {
		fmt.Fprintf(b, "  and %s more\n", grouped(rest))
	}
}

// span tells from when to when the log reaches.
func span(c *Contents) string {
	if c.First.IsZero() {
		return ""
	}
	return " from " + c.First.UTC().Format("2006-01-02 15:04") + " to " + c.Last.UTC().Format("2006-01-02 15:04")
}

// Transitions lists the kinds of change that --fail-on may name.
func Transitions() (names []string) {
	for _, from := range []access.Outcome{access.Allow, access.Challenge, access.Deny} {
		for _, to := range []access.Outcome{access.Deny, access.Challenge, access.Allow} {
			if from != to {
				names = append(names, from.String()+"-to-"+to.String())
			}
		}
	}
	return names
}
