package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// participant takes part in a comparison: a program, and what it is sent.
type participant struct {
	name string
	// start starts the program. Where it returns a *missing, the participant is
	// skipped.
	start func(*bench) (*server, error)
}

// server is a participant that runs.
type server struct {
	process *process
	load    load
}

// generator loads a server for some time.
type generator func(ctx context.Context, l *load, d time.Duration) (sample, error)

// measured is what a participant has shown in all rounds.
type measured struct {
	name    string
	skipped string // why it did not take part
	rounds  []round
	memory  int64 // after the last round
}

// round is one round of one participant.
type round struct {
	sample
	cpu time.Duration
}

func (r round) perSecond() float64 { return float64(r.requests) / r.elapsed.Seconds() }

// perCPU is how many requests a second of the program's processor time answers.
func (r round) perCPU() float64 { return float64(r.requests) / max(r.cpu, clockTick).Seconds() }

// busy is the part of the time in which the program had a processor.
func (r round) busy() float64 { return r.cpu.Seconds() / r.elapsed.Seconds() }

// compare starts the participants and loads them in turns, so that each round of
// each sees the machine that the others see.
func (b *bench) compare(list []participant, generate generator) ([]measured, error) {
	results := make([]measured, len(list))
	servers := make([]*server, len(list))
	defer func() {
		for _, s := range servers {
			if s != nil {
				s.process.stop()
			}
		}
	}()
	for i, p := range list {
		results[i].name = p.name
		s, err := p.start(b)
		var absent *missing
		switch {
		case errors.As(err, &absent):
			results[i].skipped = absent.Error()
			b.say("  %s: skipped: %s", p.name, absent)
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		servers[i] = s
		if err := s.load.check(b.ctx); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", p.name, err, s.process.out.String())
		}
		if err := b.warm(s, generate); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", p.name, err, s.process.out.String())
		}
	}
	for n := range b.length.rounds {
		for i, s := range servers {
			if s == nil {
				continue
			}
			r, err := b.turn(s, generate)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w\n%s", list[i].name, n+1, err, s.process.out.String())
			}
			results[i].rounds = append(results[i].rounds, r)
			if u, err := usageOf("/proc", s.process.cmd.Process.Pid); err == nil {
				results[i].memory = u.memory
			}
		}
	}
	return results, nil
}

// warm loads a server until caches, connections and the heap have come to what they
// are under load: where many sessions or tokens take turns, until each had its turn,
// unless that takes too long.
func (b *bench) warm(s *server, generate generator) error {
	for d := b.length.round / 2; ; d *= 2 {
		r, err := b.once(s, generate, d)
		if err != nil || s.load.cycle == nil || r.requests >= len(s.load.cycle.lines) || d >= 2*b.length.round {
			return err
		}
	}
}

// turn loads a server for one round, after a lead that does not count.
func (b *bench) turn(s *server, generate generator) (round, error) {
	if b.length.lead > 0 {
		if _, err := generate(b.ctx, &s.load, b.length.lead); err != nil {
			return round{}, err
		}
	}
	return b.once(s, generate, b.length.round)
}

// once loads a server for some time.
func (b *bench) once(s *server, generate generator, d time.Duration) (r round, err error) {
	pid := s.process.cmd.Process.Pid
	before, err := usageOf("/proc", pid)
	if err != nil {
		return r, err
	}
	if r.sample, err = generate(b.ctx, &s.load, d); err != nil {
		return r, err
	}
	after, err := usageOf("/proc", pid)
	if err != nil {
		return r, err
	}
	r.cpu = after.cpu - before.cpu
	return r, nil
}

// median returns the middle of what f says about the rounds.
func (m *measured) median(f func(round) float64) float64 {
	values := make([]float64, len(m.rounds))
	for i, r := range m.rounds {
		values[i] = f(r)
	}
	return median(values)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// ratio is the median, over the rounds, of what f says about m as a multiple of
// what it says about the reference in the same round. Without a reference it is 0.
func (m *measured) ratio(reference *measured, f func(round) float64) float64 {
	var ratios []float64
	for i := range min(len(m.rounds), len(reference.rounds)) {
		if base := f(reference.rounds[i]); base > 0 {
			ratios = append(ratios, f(m.rounds[i])/base)
		}
	}
	return median(ratios)
}
