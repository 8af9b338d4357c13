// Command promql shows the shipped alert rules and dashboard to Prometheus' own
// parser and engine. It reads scrapes of running doors, says which query asks for
// something that they do not expose, and evaluates every query over a day that is
// made from the scrapes: a healthy one, and for each alert one that is as bad as the
// alert is for. It is a module of its own, so that nothing of Prometheus' server
// stands in Doorward's go.mod.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// input is what the story asks, as JSON on standard input.
type input struct {
	Rules     string // paths
	Dashboard string
	// Scrapes are texts of /metrics, each of another instance.
	Scrapes []string
	// Values are what labels can say besides what they say in the scrapes.
	Values map[string][]string
	// Healthy and Bad are changes that make a day of the scrapes; see change.
	Healthy []string
	Bad     map[string][]string // by alert
}

// output is the answer, as JSON on standard output.
type output struct {
	Problems []string
	// Alerts are the rules, Queries how many expressions were looked at.
	Alerts  []string
	Queries int
}

func main() {
	var in input
	out, err := &output{}, json.NewDecoder(os.Stdin).Decode(&in)
	if err == nil {
		err = out.check(&in)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(out)
}

func (out *output) problem(format string, args ...any) {
	out.Problems = append(out.Problems, fmt.Sprintf(format, args...))
}

func (out *output) check(in *input) error {
	scraped, err := read(in.Scrapes)
	if err != nil {
		return err
	}
	rules, err := readRules(in.Rules, out)
	if err != nil {
		return err
	}
	panels, err := readDashboard(in.Dashboard, out)
	if err != nil {
		return err
	}
	known := &exposed{series: scraped, values: in.Values}
	for _, r := range rules {
		out.Alerts = append(out.Alerts, r.Alert)
		known.verify(r.Alert, r.Expr, out)
	}
	for _, p := range panels {
		known.verify(p.where, p.expr, out)
	}
	healthy, err := newDay(scraped, in.Healthy)
	if err != nil {
		out.problem("the healthy day: %v", err)
		return nil
	}
	for _, r := range rules {
		if firing := healthy.firing(&r, out); len(firing) > 0 {
			out.problem("%s fires in a healthy state: %v", r.Alert, firing)
		}
		bad, err := newDay(scraped, append(append([]string{}, in.Healthy...), in.Bad[r.Alert]...))
		if err != nil {
			out.problem("%s: %v", r.Alert, err)
			continue
		}
		firing := bad.firing(&r, out)
		if len(in.Bad[r.Alert]) == 0 || len(firing) == 0 {
			out.problem("%s does not fire in the state it is for", r.Alert)
			continue
		}
		for _, name := range labelsIn(r.Annotations) {
			if !firing[0].Has(name) {
				out.problem("%s tells of a label %s that it does not have: %v", r.Alert, name, firing[0])
			}
		}
	}
	for alert := range in.Bad {
		if !slices.Contains(out.Alerts, alert) {
			out.problem("there is no rule %s", alert)
		}
	}
	for _, p := range panels {
		if result := healthy.now(p.expr, p.where, out); len(result) == 0 && !p.may {
			out.problem("%s shows nothing: %s", p.where, p.expr)
		}
	}
	return nil
}
