package main

import (
	"context"
	"strconv"
	"time"
)

// restartSessions is how many sessions a restart finds.
const restartSessions = 100_000

var memory = benchCase{
	id:    "memory",
	title: "Sessions in memory, and a restart",
	about: "Sessions of users in five groups: in the memory store, by a process that holds them and nothing\n" +
		"else, once it has given back what it does not use; and in the state file, until\n" +
		"Doorward, started anew, answers a request of one of them.",
	run: func(b *bench) (*table, error) {
		t := &table{Columns: []string{"", "sessions", "memory", "each", "time"}}
		held, err := b.hold(b.length.sessions)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, []string{"in the memory store", count(float64(b.length.sessions)), mebibytes(held),
			kibibytes(float64(held) / float64(b.length.sessions)), "–"})
		took, u, err := b.restart(restartSessions)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, []string{"in the state file: start to first answer", count(restartSessions), mebibytes(u.memory), "–", took.Round(time.Millisecond).String()})
		return t, nil
	},
}

// hold returns the memory of a process with so many sessions.
func (b *bench) hold(n int) (int64, error) {
	p, err := start(-1, b.dir, nil, b.self, "role", "sessions", strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	defer p.stop()
	ctx, cancel := context.WithTimeout(b.ctx, 5*patience)
	defer cancel()
	if err := p.waitFor(ctx, holding); err != nil {
		return 0, err
	}
	u, err := usageOf("/proc", p.cmd.Process.Pid)
	return u.memory, err
}

// restart returns how long Doorward takes, from its start, to answer a request of
// one of so many sessions.
func (b *bench) restart(n int) (took time.Duration, u usage, err error) {
	site, err := door{sessions: n}.prepare(b)
	if err != nil {
		return 0, u, err
	}
	begun := time.Now()
	s, err := site.start()
	if err != nil {
		return 0, u, err
	}
	defer s.process.stop()
	if err := s.load.check(b.ctx); err != nil {
		return 0, u, err
	}
	took = time.Since(begun)
	u, err = usageOf("/proc", s.process.cmd.Process.Pid)
	return took, u, err
}
