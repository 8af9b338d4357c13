package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one mistake in the configuration, with the place to correct it.
type Problem struct {
	// File is the configuration file as it was named to Load.
	File string `json:"file"`
	// Line and Column count from 1, columns in characters. Both are zero when
	// the file as a whole is at fault.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Path is the field, as in "routes[2].allow[0].when".
	Path string `json:"path,omitempty"`
	// Text says what is wrong, Cure what to do about it.
	Text string `json:"text"`
	Cure string `json:"cure,omitempty"`
}

// String returns "file:line:col: path: text", the cure indented below.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(Printable(p.Path))
		b.WriteString(": ")
	}
	b.WriteString(Printable(p.Text))
	if p.Cure != "" {
		b.WriteString("\n    ")
		b.WriteString(Printable(p.Cure))
	}
	return b.String()
}

// Printable replaces control characters, which a quoted key can hold and a
// terminal or a log would obey.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// Problems is everything that is wrong with one file, in the order of the
// file. It is the error of Load; encoded as JSON it is a list of objects.
type Problems []Problem

// Error prints one problem per paragraph and the count at the end.
func (ps Problems) Error() string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString(p.String())
		b.WriteByte('\n')
	}
	switch len(ps) {
	case 1:
		b.WriteString("1 problem")
	case maxProblems:
		fmt.Fprintf(&b, "%d problems; further ones are not listed", maxProblems)
	default:
		fmt.Fprintf(&b, "%d problems", len(ps))
	}
	return b.String()
}

// sort orders problems as the file does and drops repetitions, which occur
// where two owners look at the same field.
func (ps Problems) sort() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Text, b.Text))
	})
	return slices.CompactFunc(ps, func(a, b Problem) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Text == b.Text
	})
}

// of says which file the problems are of. Without any it returns no error.
func (ps Problems) of(path string) error {
	if len(ps) == 0 {
		return nil
	}
	for i := range ps {
		ps[i].File = path
	}
	return ps.sort()
}
