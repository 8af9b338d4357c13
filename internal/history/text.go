package history

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// writePlain writes a text in which what others chose, such as names, cannot
// steer the terminal.
func writePlain(w io.Writer, text *bytes.Buffer) error {
	_, err := w.Write(bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text.Bytes()))
	return err
}

// userList writes names, those with the most requests first.
func userList(users []UserCount, more bool) string {
	users = slices.Clone(users)
	slices.SortStableFunc(users, func(a, b UserCount) int { return b.Count - a.Count })
	var names []string
	for i, u := range users {
		if i == shownUsers {
			names = append(names, fmt.Sprintf("and %d more", len(users)-i))
			break
		}
		name := u.User
		if u.Email != "" {
			name += " (" + u.Email + ")"
		}
		names = append(names, name+" "+grouped(u.Count))
	}
	if more {
		names = append(names, "and others")
	}
	return strings.Join(names, ", ")
}

func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return grouped(n) + " " + noun
}

// grouped writes a number with commas: 1,204,311.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
