package main

import (
	"fmt"
	"strings"
	"time"
)

// table is what a case has found, as text.
type table struct {
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	// Notes are what was skipped, and why.
	Notes []string `json:"notes,omitempty"`
	// Rounds are the figures behind the rows, one after the other.
	Rounds map[string][]figures `json:"rounds,omitempty"`
}

// figures are one round of one participant.
type figures struct {
	Requests  int     `json:"requests"`
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpu_seconds"`
	Bytes     int64   `json:"bytes"`
	P50Micros int64   `json:"p50_us"`
	P99Micros int64   `json:"p99_us"`
}

// loadTable makes the table of a comparison by load. Each row is compared with
// those that are named.
func loadTable(results []measured, against ...string) *table {
	t := newTable(results, "req/s", "req / CPU-s", "CPU", "p50", "p99", "memory")
	for _, name := range against {
		t.Columns = append(t.Columns, "× "+short(name))
	}
	t.Columns = append(t.Columns, "p99 × "+short(against[0]))
	for _, m := range results {
		if m.skipped != "" {
			continue
		}
		row := []string{m.name, count(m.median(round.perSecond)), count(m.median(round.perCPU)),
			fmt.Sprintf("%.0f %%", 100*m.median(round.busy)), micros(m.median(p50)), micros(m.median(p99)), mebibytes(m.memory)}
		for _, name := range against {
			row = append(row, times(ratioTo(&m, results, name, round.perCPU)))
		}
		t.Rows = append(t.Rows, append(row, times(ratioTo(&m, results, against[0], p99))))
	}
	return t
}

// newTable makes a table without rows, with what stands behind it.
func newTable(results []measured, columns ...string) *table {
	t := &table{Columns: append([]string{""}, columns...), Rounds: map[string][]figures{}}
	for _, m := range results {
		if m.skipped != "" {
			t.Notes = append(t.Notes, fmt.Sprintf("%s: skipped: %s", m.name, m.skipped))
			continue
		}
		failed := 0
		for _, r := range m.rounds {
			failed += r.failed
			t.Rounds[m.name] = append(t.Rounds[m.name], figures{r.requests, r.elapsed.Seconds(), r.cpu.Seconds(), r.bytes, r.p50.Microseconds(), r.p99.Microseconds()})
		}
		if failed > 0 {
			t.Notes = append(t.Notes, fmt.Sprintf("%s: %d connections broke", m.name, failed))
		}
	}
	return t
}

// short is a participant's name as the head of a column.
func short(name string) string {
	name = strings.TrimPrefix(name, "Doorward, ")
	name = strings.TrimSuffix(name, ", no check")
	return strings.TrimSuffix(name, " verified each time")
}

func p50(r round) float64 { return r.p50.Seconds() }
func p99(r round) float64 { return r.p99.Seconds() }

// ratioTo compares with the participant of a name, 0 where it has no figures.
func ratioTo(m *measured, all []measured, name string, f func(round) float64) float64 {
	for i := range all {
		if all[i].name == name {
			return m.ratio(&all[i], f)
		}
	}
	return 0
}

// count writes a number with its thousands apart.
func count(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

func times(ratio float64) string {
	if ratio == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", ratio)
}

func micros(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
}

func mebibytes(n int64) string   { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
func kibibytes(n float64) string { return fmt.Sprintf("%.1f KiB", n/(1<<10)) }

// text writes the table for a terminal.
func (t *table) text() string {
	widths := make([]int, len(t.Columns))
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var s strings.Builder
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i == 0 {
				s.WriteString(cell + pad)
			} else {
				s.WriteString("  " + pad + cell)
			}
		}
		s.WriteString("\n")
	}
	for _, note := range t.Notes {
		s.WriteString(note + "\n")
	}
	return s.String()
}

// markdown writes the table for a document.
func (t *table) markdown() string {
	var s strings.Builder
	line := func(cells []string) { s.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(t.Columns)
	rule := make([]string, len(t.Columns))
	for i := range rule {
		rule[i] = "--:"
	}
	rule[0] = "---"
	s.WriteString("|" + strings.Join(rule, "|") + "|\n")
	for _, row := range t.Rows {
		line(row)
	}
	for _, note := range t.Notes {
		s.WriteString("\n" + note + ".\n")
	}
	return s.String()
}
