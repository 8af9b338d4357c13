package config

import (
	"fmt"
	"strings"
)

// patchContext is how many unchanged lines stand around a change.
const patchContext = 3

// Patch returns the difference of two texts as a unified diff, which `patch` and
// `git apply` take; empty where they are equal.
func Patch(name string, before, after []byte) string {
	steps := align(splitLines(before), splitLines(after))
	var b strings.Builder
	for at := 0; at < len(steps); {
		for at < len(steps) && steps[at].kind == ' ' {
			at++
		}
		if at == len(steps) {
			break
		}
		if b.Len() == 0 {
			fmt.Fprintf(&b, "--- a/%s\n+++ b/%s\n", name, name)
		}
		from, to := max(at-patchContext, 0), at
		for end := at; end < len(steps) && end-to <= 2*patchContext; end++ {
			if steps[end].kind != ' ' {
				to = end + 1
			}
		}
		to = min(to+patchContext, len(steps))
		writeHunk(&b, steps[from:to])
		at = to
	}
	return b.String()
}

// step is one line of an alignment: kept ' ', removed '-' or added '+'.
type step struct {
	kind     byte
	line     string
	old, new int // how many lines come before it
}

func splitLines(text []byte) []string {
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func writeHunk(b *strings.Builder, steps []step) {
	removed, added := 0, 0
	for _, s := range steps {
		if s.kind != '+' {
			removed++
		}
		if s.kind != '-' {
			added++
		}
	}
	fmt.Fprintf(b, "@@ -%s +%s @@\n", hunkRange(steps[0].old, removed), hunkRange(steps[0].new, added))
	for _, s := range steps {
		b.WriteByte(s.kind)
		b.WriteString(s.line)
		if !strings.HasSuffix(s.line, "\n") {
			b.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

// hunkRange counts lines from 1; of an empty range it names the line before.
func hunkRange(before, length int) string {
	if length == 0 {
		return fmt.Sprintf("%d,0", before)
	}
	return fmt.Sprintf("%d,%d", before+1, length)
}

// align finds the fewest removed and added lines (Myers, "An O(ND) Difference
// Algorithm", 1986).
func align(a, b []string) []step {
	furthest := map[int]int{1: 0} // on each diagonal x-y
	var trace []map[int]int
	for d := 0; ; d++ {
		next := make(map[int]int, 2*d+1)
		for k := -d; k <= d; k += 2 {
			x := furthest[k-1] + 1
			if k == -d || k != d && furthest[k-1] < furthest[k+1] {
				x = furthest[k+1]
			}
			for x < len(a) && x-k >= 0 && x-k < len(b) && a[x] == b[x-k] {
				x++
			}
			next[k] = x
			if x >= len(a) && x-k >= len(b) {
				return walkBack(a, b, append(trace, next))
			}
		}
		trace = append(trace, next)
		furthest = next
	}
}

// walkBack follows the trace from the end to the beginning.
func walkBack(a, b []string, trace []map[int]int) []step {
	var back []step
	x, y := len(a), len(b)
	for d := len(trace) - 1; d > 0; d-- {
		before, k := trace[d-1], x-y
		previous := k - 1
		if k == -d || k != d && before[k-1] < before[k+1] {
			previous = k + 1
		}
		fromX := before[previous]
		fromY := fromX - previous
		for x > fromX && y > fromY {
			x, y = x-1, y-1
			back = append(back, step{' ', a[x], x, y})
		}
		if x == fromX {
			y--
			back = append(back, step{'+', b[y], x, y})
		} else {
			x--
			back = append(back, step{'-', a[x], x, y})
		}
	}
	for x > 0 && y > 0 {
		x, y = x-1, y-1
		back = append(back, step{' ', a[x], x, y})
	}
	steps := make([]step, len(back))
	for i := range back {
		steps[len(back)-1-i] = back[i]
	}
	return steps
}
