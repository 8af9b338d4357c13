package main

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// exposed is what doors expose.
type exposed struct {
	series []sample
	values map[string][]string
}

// of returns the series of a metric.
func (x *exposed) of(name string) (list []labels.Labels) {
	for _, s := range x.series {
		if s.labels.Get("__name__") == name {
			list = append(list, s.labels)
		}
	}
	return list
}

// verify reports what an expression asks for that no door exposes: a metric, a label,
// or a value of one.
func (x *exposed) verify(where, expr string, out *output) {
	out.Queries++
	parsed, err := promQL.ParseExpr(expr)
	if err != nil {
		out.problem("%s: %v", where, err)
		return
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			x.selector(where, n, out)
		case *parser.AggregateExpr:
			x.grouping(where, n.Grouping, n.Expr, out)
		case *parser.BinaryExpr:
			if m := n.VectorMatching; m != nil {
				x.grouping(where, m.MatchingLabels, n.LHS, out)
				x.grouping(where, m.MatchingLabels, n.RHS, out)
			}
		}
		return nil
	})
}

func (x *exposed) selector(where string, n *parser.VectorSelector, out *output) {
	series := x.of(n.Name)
	if len(series) == 0 {
		out.problem("%s: no door exposes %s", where, n.Name)
		return
	}
	for _, m := range n.LabelMatchers {
		if m.Name == "__name__" {
			continue
		}
		values := slices.Clone(x.values[m.Name])
		there := false
		for _, s := range series {
			if s.Has(m.Name) {
				there = true
				values = append(values, s.Get(m.Name))
			}
		}
		// What is excluded has to exist as well, or nothing is.
		names := labels.MustNewMatcher(map[labels.MatchType]labels.MatchType{labels.MatchEqual: labels.MatchEqual, labels.MatchNotEqual: labels.MatchEqual,
			labels.MatchRegexp: labels.MatchRegexp, labels.MatchNotRegexp: labels.MatchRegexp}[m.Type], m.Name, m.Value)
		if !there || !slices.ContainsFunc(values, names.Matches) {
			out.problem("%s: %s has no series with %s", where, n.Name, m)
		}
	}
}

// grouping reports labels that no series of the metrics inside has.
func (x *exposed) grouping(where string, names []string, inside parser.Expr, out *output) {
	parser.Inspect(inside, func(node parser.Node, _ []parser.Node) error {
		if n, ok := node.(*parser.VectorSelector); ok {
			for _, name := range names {
				if !slices.ContainsFunc(x.of(n.Name), func(s labels.Labels) bool { return s.Has(name) }) {
					out.problem("%s: %s has no label %s", where, n.Name, name)
				}
			}
		}
		return nil
	})
}
