// Command bench measures what Doorward costs beside other proxies, on one
// machine, in one run.
//
// It starts a backend, Doorward's real binary and the references that are
// installed (nginx, HAProxy, Apache with mod_auth_openidc, and the standard
// library's ReverseProxy with a tuned transport), loads them in turns, and
// prints tables. Where there are two cores or more, what is measured has one to
// itself, and the load and the backend share another. What counts are requests
// per second of the proxy's processor time, and ratios within one run: both hold
// on a machine that other things run on as well, seconds do not.
//
//	make bench                          under five minutes
//	BENCH=long make bench               longer rounds, more of them, the large cases
//	BENCH_CASES=http1,idle make bench   only these; others keep their last figures
//	DOORWARD_BASE=PATH make bench       another build of Doorward takes part in each round
//	OAUTH2_PROXY=PATH make bench        so does oauth2-proxy
//
// The results go to bench/results.json, and as tables to docs/performance.md.
// Everything is on loopback, and everything it starts ends with it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// cases are what can be measured, in the order of the tables.
var cases = []benchCase{http1, tlsHTTP1, tlsHTTP2, bodies, idle, logins, growth, memory, study}

// benchCase is one table.
type benchCase struct {
	id, title string
	// about says what a reader has to know to read the table.
	about string
	// onRequest tells that the case runs where BENCH_CASES names it.
	onRequest bool
	run       func(*bench) (*table, error)
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "role" {
		return play(ctx, args[1:])
	}
	if len(args) == 2 && args[0] == "pgo" {
		root, err := moduleRoot()
		if err != nil {
			return err
		}
		return writeProfile(ctx, root, args[1])
	}
	chosen, err := choose(os.Getenv("BENCH_CASES"))
	if err != nil {
		return err
	}
	length, err := lengthOf(os.Getenv("BENCH"))
	if err != nil {
		return err
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	b, err := newBench(ctx, root, length)
	if err != nil {
		return err
	}
	defer b.close()
	kept, err := readResults(root)
	if err != nil {
		return err
	}
	start, when := time.Now(), b.occasion(chosen) // before the results change the tree
	for _, c := range chosen {
		b.say("%s", c.title)
		t, err := b.measure(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.id, err)
		}
		fmt.Println(t.text())
		kept.replace(c, t, when)
		if err := kept.write(root); err != nil { // what follows may fail, or be stopped
			return err
		}
	}
	b.say("done in %s", time.Since(start).Round(time.Second))
	return nil
}

// choose returns the cases that a list of ids names; for none, all that need not
// be named.
func choose(list string) (chosen []benchCase, err error) {
	if list == "" {
		return slices.DeleteFunc(slices.Clone(cases), func(c benchCase) bool { return c.onRequest }), nil
	}
	for id := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(cases, func(c benchCase) bool { return c.id == strings.TrimSpace(id) })
		if i < 0 {
			var known []string
			for _, c := range cases {
				known = append(known, c.id)
			}
			return nil, fmt.Errorf("BENCH_CASES: there is no case %q; there are %s", id, strings.Join(known, ", "))
		}
		chosen = append(chosen, cases[i])
	}
	return chosen, nil
}

// length is how long a run takes.
type length struct {
	name   string
	rounds int
	// round is of each participant in each round: whole seconds, even ones, because the
	// loads take whole seconds and half a round warms up.
	round time.Duration
	// lead comes before each round of each participant and does not count. Where a
	// minute has passed since the one before, connections are closed, caches are
	// others', and what is signed for minutes is old, as it never is under a load that goes on.
	lead time.Duration
	// sessions is the larger number of sessions that the growth is measured to.
	sessions int
	idle     int // connections that say nothing
}

func lengthOf(name string) (length, error) {
	switch name {
	case "", "short":
		return length{name: "short", rounds: 2, round: 2 * time.Second, sessions: 100_000, idle: 5000}, nil
	case "long":
		return length{name: "long", rounds: 9, round: 4 * time.Second, lead: time.Second, sessions: 1_000_000, idle: 5000}, nil
	}
	return length{}, fmt.Errorf("BENCH=%q is neither short nor long", name)
}

// play is what a process does that bench has started from its own binary.
func play(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "backend":
		return serveBackend(ctx, args[1])
	case len(args) == 5 && args[0] == "reverse-proxy":
		return serveReverseProxy(ctx, args[1], args[2], args[3], args[4])
	case len(args) == 3 && args[0] == "profiled":
		return serveProfiled(ctx, args[1], args[2])
	case len(args) == 4 && args[0] == "study":
		return serveStudied(ctx, args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "sessions":
		return holdSessions(ctx, args[1])
	}
	return fmt.Errorf("no role %q", args)
}
