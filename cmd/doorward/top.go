package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

// How often top asks at most, and how often for the sessions, which takes the
// store longer to list.
const (
	fastestTop    = 500 * time.Millisecond
	sessionsEvery = 10 * time.Second
)

// topWindow is what top counts: the last minute, or as much of it as a running
// doorward keeps in memory.
const topWindow = time.Minute

// keptDecisions is how many decisions are asked for; no doorward keeps more.
const keptDecisions = 1000

func topCommand(s *settings) *cobra.Command {
	f := adminFlags{settings: s}
	every, once := 2*time.Second, false
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch requests, decisions and sessions live",
		Long: "Watch what a running doorward decides: how many requests, with which outcome, why they are refused, and\n" +
			"who is logged in. On a terminal the view is drawn anew until Ctrl-C. Where the output goes elsewhere,\n" +
			"each decision is one line, with --output json one JSON object. It shows one replica, the one it asks.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < fastestTop {
				return &exitError{code: exitUsage, err: fmt.Errorf("--every %s is shorter than %s", every, fastestTop)}
			}
			client, err := f.connect()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			t := &top{get: client.get, out: cmd.OutOrStdout(), json: s.json(), now: time.Now}
			t.draw = isTerminal(os.Stdout) && !s.json()
			if once {
				t.draw, t.clear = !s.json(), ""
				return t.step(ctx)
			}
			t.clear = "\x1b[H\x1b[2J" // to the upper left corner, and everything away
			return t.run(ctx, every)
		},
	}
	f.register(cmd)
	cmd.Flags().DurationVar(&every, "every", every, "how often to look")
	cmd.Flags().BoolVar(&once, "once", false, "look once and end")
	return cmd
}

// top is a view that follows a running doorward.
type top struct {
	get   func(ctx context.Context, path string, answer any) error
	out   io.Writer
	draw  bool   // the whole view, instead of a line for each new decision
	clear string // what wipes the view before
	json  bool
	now   func() time.Time

	listed   time.Time // when the sessions were listed
	sessions admin.SessionList
	seen     map[string]bool // decisions of the last look; nil before the first
}

// run looks until ctx ends, which is no error.
func (t *top) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := t.step(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// step looks once.
func (t *top) step(ctx context.Context) error {
	var list admin.DecisionList
	if err := t.get(ctx, "/api/v1/decisions?limit="+strconv.Itoa(keptDecisions), &list); err != nil {
		return err
	}
	if !t.draw {
		return t.lines(list.Decisions)
	}
	var status topStatus
	if err := t.get(ctx, "/api/v1/status", &status); err != nil {
		return err
	}
	now := t.now()
	if t.listed.IsZero() || now.Sub(t.listed) >= sessionsEvery {
		t.sessions = admin.SessionList{}
		if err := t.get(ctx, "/api/v1/sessions", &t.sessions); err != nil {
			return err
		}
		t.listed = now
	}
	_, err := io.WriteString(t.out, t.clear+topText(now, &status, list.Decisions, &t.sessions))
	return err
}

// lines writes the decisions that were not there the last time, oldest first.
func (t *top) lines(list []admin.Decision) error {
	known := t.seen
	t.seen = make(map[string]bool, len(list))
	overlap := false
	var fresh []admin.Decision
	for _, d := range list {
		t.seen[d.ID] = true
		if known[d.ID] {
			overlap = true
		} else {
			fresh = append(fresh, d)
		}
	}
	if len(known) > 0 && !overlap && len(list) == keptDecisions && !t.json {
		fmt.Fprintln(t.out, "… more was decided than is kept in memory; the audit log has all of it")
	}
	for _, d := range slices.Backward(fresh) {
		line := topLine(&d)
		if t.json {
			text, err := json.Marshal(d)
			if err != nil {
				return err
			}
			line = string(text)
		}
		if _, err := fmt.Fprintln(t.out, line); err != nil {
			return err
		}
	}
	return nil
}

// topStatus is what top reads of GET /api/v1/status.
type topStatus struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	Failing []struct {
		Check string `json:"check"`
		Error string `json:"error"`
	} `json:"failing"`
	Details struct {
		Config   string `json:"config"`
		InFlight int    `json:"in_flight"`
	} `json:"details"`
}

// latestDecisions and latestSessions are how many of each the view lists.
const (
	latestDecisions = 12
	latestSessions  = 5
)

// topText draws the view. The decisions are newest first.
func topText(now time.Time, status *topStatus, list []admin.Decision, sessions *admin.SessionList) string {
	var b strings.Builder
	state := "ready"
	if !status.Ready {
		state = "not ready"
	}
	fmt.Fprintf(&b, "doorward %s, configuration %s, %s, %s\n", printable(status.Version), printable(status.Details.Config), state, now.UTC().Format(time.TimeOnly+" MST"))
	for _, f := range status.Failing {
		fmt.Fprintf(&b, "  %s: %s\n", printable(f.Check), printable(f.Error))
	}
	window := topWindow
	if n := len(list); n == keptDecisions {
		window = min(window, max(now.Sub(list[n-1].Time), time.Second))
	}
	outcomes, refusals, routes := map[string]int{}, map[string]int{}, map[string]int{}
	n := 0
	for i := range list {
		d := &list[i]
		if now.Sub(d.Time) > window {
			continue
		}
		n++
		outcomes[d.Outcome.String()]++
		routes[d.Route]++
		if d.Outcome != access.Allow {
			refusals[string(d.Reason)]++
		}
	}
	more := ""
	if sessions.More {
		more = " or more"
	}
	fmt.Fprintf(&b, "open now %d   decided in %s: %d (%.1f/s)   sessions %d%s\n\n", status.Details.InFlight, window.Round(time.Second), n,
		float64(n)/window.Seconds(), len(sessions.Sessions), more)
	for _, part := range []struct {
		name   string
		counts map[string]int
	}{{"outcomes", outcomes}, {"refused", refusals}, {"routes", routes}} {
		fmt.Fprintf(&b, "%-9s %s\n", part.name, most(part.counts))
	}
	var rows [][]string
	for i := range list[:min(len(list), latestDecisions)] {
		d := &list[i]
		rows = append(rows, []string{d.Time.UTC().Format(time.TimeOnly), d.Outcome.String(), string(d.Reason), statusText(d.Status), d.User, d.Method, d.Host + d.Path})
	}
	b.WriteString("\n")
	err := table(&b, []string{"TIME", "OUTCOME", "REASON", "STATUS", "USER", "METHOD", "ADDRESS"}, rows)
	users := slices.SortedFunc(slices.Values(sessions.Sessions), func(a, b access.SessionInfo) int {
		return cmp.Or(b.Used.Compare(a.Used), strings.Compare(a.ID, b.ID))
	})
	rows = nil
	for i := range users[:min(len(users), latestSessions)] {
		rows = append(rows, []string{users[i].User, nameOf(&users[i]), moment(users[i].Used), strconv.Itoa(users[i].Open)})
	}
	b.WriteString("\n")
	if err = errors.Join(err, table(&b, []string{"SESSION OF", "NAME", "LAST USED", "OPEN"}, rows)); err != nil {
		panic(err) // a strings.Builder fails at nothing
	}
	return b.String()
}

// topLine is one decision for a log.
func topLine(d *admin.Decision) string {
	parts := []string{d.Time.UTC().Format(time.RFC3339), d.Outcome.String(), string(d.Reason), statusText(d.Status), d.User, d.Method, d.Host + d.Path, d.ID}
	for i := range parts {
		parts[i] = printable(parts[i])
	}
	return strings.Join(parts, " ")
}

// statusText is the status of an answer, empty if there was none.
func statusText(status int) string {
	if status == 0 {
		return ""
	}
	return strconv.Itoa(status)
}

// most lists the largest counts first.
func most(counts map[string]int) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
	var parts []string
	for _, name := range names[:min(len(names), 6)] {
		parts = append(parts, printable(name)+" "+strconv.Itoa(counts[name]))
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}
