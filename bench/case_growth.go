package main

import (
	"fmt"
	"slices"
)

// growth shows whether what there is more of makes a request dearer that does
// not need it.
var growth = benchCase{
	id:    "growth",
	title: "Growth",
	about: "Plain HTTP/1.1 with 1 KiB, 64 connections. Of the routes ten are visited in turn, of the sessions a thousand, the others are only\n" +
		"there; where all sessions are in rotation, all are in memory after the first turn, as far as there is room (see operations.md). Each\n" +
		"line is compared with the small case above it, in requests per CPU-second.",
	run: func(b *bench) (*table, error) {
		many := b.length.sessions
		// One after the other: each pair takes turns, and no other is in memory.
		pairs := [][]door{
			{{name: "10 routes", asks: forRoutes, routes: 10, rotation: 10}, {name: "10,000 routes", asks: forRoutes, routes: 10_000, rotation: 10}},
			{{name: "1,000 sessions", sessions: 1000, rotation: 1000},
				{name: count(float64(many)) + " sessions", sessions: many, rotation: 1000},
				{name: count(float64(many)) + " sessions, all in rotation", sessions: many, rotation: many}},
			{{name: "5 groups", groups: 5}, {name: "500 groups", groups: 500}},
		}
		whole := &table{Rounds: map[string][]figures{}}
		for _, pair := range pairs {
			var list []participant
			for _, d := range pair {
				list = slices.Concat(list, d.participants())
			}
			results, err := b.compare(list, b.wrk)
			if err != nil {
				return nil, err
			}
			t := newTable(results, "req/s", "req / CPU-s", "CPU", "memory", "× the small case")
			for i, m := range results {
				cells := []string{m.name, count(m.median(round.perSecond)), count(m.median(round.perCPU)), percent(m.median(round.busy)), mebibytes(m.memory), "–"}
				if small := i % (len(list) / len(pair)); i != small { // each build is compared with itself
					cells[5] = times(m.ratio(&results[small], round.perCPU))
				}
				t.Rows = append(t.Rows, cells)
			}
			whole.append(t)
		}
		return whole, nil
	},
}

// append puts another table with the same columns below.
func (t *table) append(more *table) {
	t.Columns = more.Columns
	t.Rows, t.Notes = append(t.Rows, more.Rows...), append(t.Notes, more.Notes...)
	for name, list := range more.Rounds {
		t.Rounds[name] = list
	}
}

func percent(part float64) string { return fmt.Sprintf("%.0f %%", 100*part) }
