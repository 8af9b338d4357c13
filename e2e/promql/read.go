package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

var promQL = parser.NewParser(parser.Options{})

// sample is one line of a scrape.
type sample struct {
	labels labels.Labels
	value  float64
}

// read reads scrapes as a server does, that of each instance with labels of its own.
func read(scrapes []string) (list []sample, err error) {
	for i, text := range scrapes {
		reader := expfmt.NewTextParser(model.UTF8Validation)
		families, err := reader.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("scrape %d: %w", i, err)
		}
		instance := fmt.Sprintf("10.0.0.%d:9901", i+1)
		target := map[string]string{"job": "doorward", "instance": instance}
		list = append(list, sample{labelSet("up", target), 1})
		for name, family := range families {
			for _, m := range family.Metric {
				own := map[string]string{"job": "doorward", "instance": instance}
				for _, pair := range m.Label {
					own[pair.GetName()] = pair.GetValue()
				}
				list = append(list, lines(name, family.GetType(), m, own)...)
			}
		}
	}
	sort.Slice(list, func(i, j int) bool { return labels.Compare(list[i].labels, list[j].labels) < 0 })
	return list, nil
}

// lines are the series of one metric.
func lines(name string, kind dto.MetricType, m *dto.Metric, own map[string]string) []sample {
	switch kind {
	case dto.MetricType_COUNTER:
		return []sample{{labelSet(name, own), m.Counter.GetValue()}}
	case dto.MetricType_GAUGE:
		return []sample{{labelSet(name, own), m.Gauge.GetValue()}}
	case dto.MetricType_UNTYPED:
		return []sample{{labelSet(name, own), m.Untyped.GetValue()}}
	case dto.MetricType_HISTOGRAM:
		h := m.Histogram
		list := []sample{{labelSet(name+"_sum", own), h.GetSampleSum()}, {labelSet(name+"_count", own), float64(h.GetSampleCount())}}
		for _, b := range h.Bucket {
			le := strings.TrimSuffix(fmt.Sprint(b.GetUpperBound()), ".0")
			if le == "+Inf" {
				continue
			}
			list = append(list, sample{labelSet(name+"_bucket", with(own, "le", le)), float64(b.GetCumulativeCount())})
		}
		return append(list, sample{labelSet(name+"_bucket", with(own, "le", "+Inf")), float64(h.GetSampleCount())})
	case dto.MetricType_SUMMARY:
		list := []sample{{labelSet(name+"_sum", own), m.Summary.GetSampleSum()}, {labelSet(name+"_count", own), float64(m.Summary.GetSampleCount())}}
		for _, q := range m.Summary.Quantile {
			list = append(list, sample{labelSet(name, with(own, "quantile", fmt.Sprint(q.GetQuantile()))), q.GetValue()})
		}
		return list
	}
	return nil
}

func with(own map[string]string, name, value string) map[string]string {
	more := map[string]string{name: value}
	for k, v := range own {
		more[k] = v
	}
	return more
}

func labelSet(name string, own map[string]string) labels.Labels {
	return labels.FromMap(with(own, "__name__", name))
}

// readRules reads the rules as Prometheus does, and asks of each what an alert needs.
func readRules(path string, out *output) (list []rulefmt.Rule, err error) {
	groups, faults := rulefmt.ParseFile(path, false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
	if len(faults) > 0 {
		return nil, fmt.Errorf("%s: %v", path, faults)
	}
	for _, group := range groups.Groups {
		for _, r := range group.Rules {
			if severity := r.Labels["severity"]; severity != "page" && severity != "ticket" {
				out.problem("%s has no severity", r.Alert)
			}
			for _, needed := range []string{"summary", "description", "runbook_url"} {
				if r.Annotations[needed] == "" {
					out.problem("%s has no %s", r.Alert, needed)
				}
			}
			if !strings.HasSuffix(r.Annotations["runbook_url"], "/docs/alerts.md#"+strings.ToLower(r.Alert)) {
				out.problem("%s: the runbook is at %s", r.Alert, r.Annotations["runbook_url"])
			}
			list = append(list, r)
		}
	}
	return list, nil
}

var labelUse = regexp.MustCompile(`\$labels\.(\w+)`)

// labelsIn returns the labels that annotations speak of.
func labelsIn(annotations map[string]string) (names []string) {
	for _, text := range annotations {
		for _, m := range labelUse.FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// panel is one query of the dashboard.
type panel struct {
	where, expr string
	// may tells that it may show nothing while all is well.
	may bool
}

// dashboard is what we read of Grafana's model.
type dashboard struct {
	Panels     []gridPanel
	Templating struct {
		List []struct {
			Name, Type string
			Query      json.RawMessage
		}
	}
}

type gridPanel struct {
	ID          int
	Title, Type string
	Description string
	Panels      []gridPanel
	Targets     []struct {
		Expr, LegendFormat string
	}
}

var (
	// What Grafana puts in place of its own variables.
	grafana     = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$__interval", "1m")
	variable    = regexp.MustCompile(`\$\{?(\w+)\}?`)
	labelValues = regexp.MustCompile(`^label_values\((\w+), ?(\w+)\)$`)
	legendLabel = regexp.MustCompile(`\{\{ ?(\w+) ?\}\}`)
)

func readDashboard(path string, out *output) (list []panel, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var board dashboard
	if err := json.Unmarshal(text, &board); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var names []string
	for _, v := range board.Templating.List {
		names = append(names, v.Name)
		if v.Type != "query" {
			continue
		}
		var query struct{ Query string }
		if err := json.Unmarshal(v.Query, &query); err != nil {
			return nil, fmt.Errorf("%s: variable %s: %w", path, v.Name, err)
		}
		m := labelValues.FindStringSubmatch(query.Query)
		if m == nil {
			out.problem("variable %s: %q", v.Name, query.Query)
			continue
		}
		list = append(list, panel{where: "variable " + v.Name, expr: fmt.Sprintf("count by (%s) (%s)", m[2], m[1])})
	}
	seen := map[int]bool{}
	panels := board.Panels
	for _, row := range board.Panels {
		panels = append(panels, row.Panels...)
	}
	for _, p := range panels {
		if seen[p.ID] {
			out.problem("two panels have the id %d", p.ID)
		}
		seen[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Description == "") {
			out.problem("panel %s has no query, or does not say what to look for", p.Title)
		}
		for _, target := range p.Targets {
			expr := grafana.Replace(target.Expr)
			for _, m := range variable.FindAllStringSubmatch(expr, -1) {
				if !slices.Contains(names, m[1]) {
					out.problem("panel %s: there is no variable $%s", p.Title, m[1])
				}
			}
			expr = variable.ReplaceAllString(expr, ".*")
			list = append(list, panel{where: "panel " + p.Title, expr: expr})
			for _, m := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				// A legend that names a label the result lacks shows the braces.
				list = append(list, panel{where: "legend of " + p.Title, expr: fmt.Sprintf(`count by (%s) (%s)`, m[1], expr)})
			}
		}
	}
	return list, nil
}
