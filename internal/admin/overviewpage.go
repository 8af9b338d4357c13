package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// overviewView answers: is anything wrong?
type overviewView struct {
	report
	State    State
	Sources  []DeviceSource
	Numbers  bool
	Rate     string
	Total    int
	Outcomes []outcomeShare
	Refusals []reasonCount
	Requests chart
	Latency  chart
	Took     []latencyLine
}

type outcomeShare struct {
	Outcome access.Outcome
	Words   string
	Count   int
	Percent string
}

type latencyLine struct {
	What     string
	P50, P99 time.Duration
}

func (a *api) overviewPages() []uiPage {
	return []uiPage{{"GET /{$}", "Overview", func(w http.ResponseWriter, r *http.Request) {
		view := overviewView{report: a.report()}
		if a.Instance != nil {
			view.State = a.Instance.State()
		}
		if a.Devices != nil {
			view.Sources = a.Devices.Sources()
		}
		if a.Tally != nil {
			view.add(a.Tally.hour())
		}
		a.render(w, r, http.StatusOK, "overview", "Overview", view)
	}}}
}

func (v *overviewView) add(h hour) {
	v.Numbers, v.Rate, v.Total, v.Refusals = true, strconv.FormatFloat(h.rate, 'f', 1, 64), h.total.requests(), h.refusals
	for _, o := range []struct {
		outcome access.Outcome
		words   string
	}{{access.Allow, "allowed"}, {access.Challenge, "asked for more"}, {access.Deny, "refused"}} {
		share := outcomeShare{Outcome: o.outcome, Words: o.words, Count: h.total.outcomes[o.outcome]}
		if v.Total > 0 {
			share.Percent = strconv.FormatFloat(100*float64(share.Count)/float64(v.Total), 'f', 1, 64) + " %"
		}
		v.Outcomes = append(v.Outcomes, share)
	}
	v.Took = []latencyLine{
		{"Whole request", h.total.whole.quantile(.5), h.total.whole.quantile(.99)},
		{"Doorward's own part", h.total.own.quantile(.5), h.total.own.quantile(.99)},
	}
	v.Requests, v.Latency = requestChart(&h), latencyChart(&h)
}

// A chart is drawn in a box of these measures, whatever its width on the page.
const (
	chartWidth  = 600
	chartHeight = 120
	barWidth    = chartWidth / 60
)

// chart is a small picture of the last hour, with what it says in words.
type chart struct {
	Words string
	Bars  []bar
	// Line is the path of a curve.
	Line string
	// Top is what the upper edge stands for.
	Top string
}

type bar struct {
	X, Y, Width, Height int
	Class               string
}

// requestChart stacks what was allowed, asked for more and refused.
func requestChart(h *hour) chart {
	most := 0
	for i := range h.minutes {
		most = max(most, h.minutes[i].requests())
	}
	c := chart{Top: count(most) + " a minute", Words: fmt.Sprintf("Requests in each of the last 60 minutes: %d in all, at most %d in a minute; %d allowed, %d asked for more, %d refused.",
		h.total.requests(), most, h.total.outcomes[access.Allow], h.total.outcomes[access.Challenge], h.total.outcomes[access.Deny])}
	for i := range h.minutes {
		y, sum, before := chartHeight, 0, 0
		for _, outcome := range []access.Outcome{access.Allow, access.Challenge, access.Deny} {
			n := h.minutes[i].outcomes[outcome]
			if n == 0 {
				continue
			}
			sum += n
			height := max(sum*chartHeight/most-before, 2) // what happened can be seen
			before += height
			y -= height
			c.Bars = append(c.Bars, bar{i*barWidth + 1, max(y, 0), barWidth - 2, height, outcomeClass(outcome)})
		}
	}
	return c
}

// latencyChart draws what 99 of 100 requests did not exceed.
func latencyChart(h *hour) chart {
	var slowest time.Duration
	var at [60]time.Duration
	for i := range h.minutes {
		at[i] = h.minutes[i].whole.quantile(.99)
		slowest = max(slowest, at[i])
	}
	c := chart{Top: brief(slowest), Words: fmt.Sprintf("Time that 99 of 100 requests took at most, in each of the last 60 minutes: %s in the worst minute.", brief(slowest))}
	if slowest == 0 {
		return c
	}
	var path strings.Builder
	pen := false
	for i, took := range at {
		if took == 0 { // nothing happened, so there is nothing to draw
			pen = false
			continue
		}
		x, y := i*barWidth, chartHeight-max(int(took*(chartHeight-4)/slowest), 2)
		if pen {
			fmt.Fprintf(&path, "L%d %d", x, y)
		} else {
			fmt.Fprintf(&path, "M%d %d", x, y)
		}
		fmt.Fprintf(&path, "h%d", barWidth)
		pen = true
	}
	c.Line = path.String()
	return c
}
