package main

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

const (
	step   = time.Minute
	length = 8 * time.Hour
)

// day is what a server would have kept of doors that were scraped every minute.
type day struct {
	end    time.Time
	series []course
	engine *promql.Engine
}

// course is one series: a value, and how much it grows with every scrape.
type course struct {
	labels      labels.Labels
	value, grow float64
}

// change is one of
//
//	SELECTOR = NUMBER               the value is another one
//	SELECTOR += NUMBER              the value grows with every scrape
//	SELECTOR gone                   there is no such series
//	SELECTOR as NAME=VALUE += …     there are more series like these, with another label
//
// A selector that selects nothing is an error: the metric has another name by now.
var change = regexp.MustCompile(`^(\w+(?:\{.*?\})?) (?:as (\w+)="?([^" ]*)"? )?(=|\+=|gone) ?(\S*)$`)

func newDay(scraped []sample, changes []string) (*day, error) {
	d := &day{end: time.Now(), engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, Parser: promQL})}
	for _, s := range scraped {
		d.series = append(d.series, course{labels: s.labels, value: s.value})
	}
	for _, text := range changes {
		if err := d.change(text); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
	}
	return d, nil
}

func (d *day) change(text string) error {
	m := change.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("is no change")
	}
	matchers, err := promQL.ParseMetricSelector(m[1])
	if err != nil {
		return err
	}
	number, err := strconv.ParseFloat(m[5], 64)
	if err != nil && m[4] != "gone" {
		return err
	}
	var kept, more []course
	found := false
	for _, c := range d.series {
		if !matches(c.labels, matchers) {
			kept = append(kept, c)
			continue
		}
		found = true
		changed := c
		switch m[4] {
		case "gone":
			continue
		case "=":
			changed.value, changed.grow = number, 0
		case "+=":
			changed.grow = number
		}
		if m[2] != "" {
			changed.labels = labels.NewBuilder(c.labels).Set(m[2], m[3]).Labels()
			kept = append(kept, c)
			more = append(more, changed)
			continue
		}
		kept = append(kept, changed)
	}
	d.series = append(kept, more...)
	if !found {
		return fmt.Errorf("selects nothing")
	}
	return nil
}

func matches(set labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(set.Get(m.Name)) {
			return false
		}
	}
	return true
}

// firing returns what an alert fires for at the end of the day: what its expression
// has told for as long as the alert waits.
func (d *day) firing(r *rulefmt.Rule, out *output) (list []labels.Labels) {
	wait := time.Duration(r.For)
	query, err := d.engine.NewRangeQuery(context.Background(), d, nil, r.Expr, d.end.Add(-wait), d.end, step)
	if err != nil {
		out.problem("%s: %v", r.Alert, err)
		return nil
	}
	defer query.Close()
	matrix, err := query.Exec(context.Background()).Matrix()
	if err != nil {
		out.problem("%s: %v", r.Alert, err)
		return nil
	}
	for _, s := range matrix {
		if len(s.Floats) > int(wait/step) {
			list = append(list, s.Metric.Copy())
		}
	}
	return list
}

// now evaluates an expression at the end of the day, and leaves out what says nothing.
func (d *day) now(expr, where string, out *output) (list []labels.Labels) {
	query, err := d.engine.NewInstantQuery(context.Background(), d, nil, expr, d.end)
	if err != nil {
		out.problem("%s: %v", where, err)
		return nil
	}
	defer query.Close()
	vector, err := query.Exec(context.Background()).Vector()
	if err != nil {
		out.problem("%s: %s: %v", where, expr, err)
		return nil
	}
	for _, s := range vector {
		if !math.IsNaN(s.F) {
			list = append(list, s.Metric.Copy())
		}
	}
	return list
}

// Querier implements storage.Queryable.
func (d *day) Querier(_, _ int64) (storage.Querier, error) { return querier{d}, nil }

type querier struct{ *day }

// Select implements storage.Querier.
func (q querier) Select(_ context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	set := &seriesSet{}
	for _, c := range q.series {
		if !matches(c.labels, matchers) {
			continue
		}
		var list []chunks.Sample
		for i := range int(length/step) + 1 {
			at := q.end.Add(-length + time.Duration(i)*step).UnixMilli()
			if hints == nil || at >= hints.Start && at <= hints.End {
				list = append(list, point{at, c.value + float64(i)*c.grow})
			}
		}
		set.list = append(set.list, storage.NewListSeries(c.labels, list))
	}
	return set
}

// LabelValues implements storage.Querier; nothing here asks for them.
func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// LabelNames implements storage.Querier; nothing here asks for them.
func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// Close implements storage.Querier.
func (querier) Close() error { return nil }

type seriesSet struct {
	list []storage.Series
	next int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next <= len(s.list) }
func (s *seriesSet) At() storage.Series                { return s.list[s.next-1] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// point is one sample.
type point struct {
	at    int64
	value float64
}

func (p point) T() int64                      { return p.at }
func (p point) ST() int64                     { return 0 }
func (p point) F() float64                    { return p.value }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }
